__version__ = "0.0.1"

import sys
from importlib.machinery import ModuleSpec

# New name of each module that had no folder, and of what the module `study` held
_moved = dict(o.split('=') for o in '''
space=engine.space kernels=engine.kernels gp=engine.gp acq=engine.acquisition cost=engine.cost feasible=engine.feasible
curves=engine.curves optimizer=engine.optimizer
folder=study.folder identity=study.identity pruner=study.pruner sampler=study.sampler seen=study.search_space
searches=study.searches workers=study.workers
axes=results.style forecasts=results.forecasts plots=results.history report=results.report result=results.result
surrogate=results.surrogate_plots tables=results.tables timeline=results.timeline
callback=learner.callback change=learner.adjust checkpoint=learner.checkpoint clone=learner.copies
display=learner.display facts=learner.facts knobs=learner.knobs loggers=learner.trackers maker=learner.factory
memory=learner.out_of_memory
probe=learner.probe run=learner.runner state=learner.state tune=learner.tune manual=_docstrings
study.StudyError=study.storage study.open_study=study.studies study.trial_frame=study.records
study.curve_frame=study.records
'''.split())

class _Moved:
    "The last finder that Python asks: the import of an old name raises an error that gives the new one"
    def find_spec(name, path=None, target=None):
        package,_,old = name.partition('.')
        if package==__name__ and old in _moved: return ModuleSpec(name, _Moved)

    def create_module(spec):
        new = _moved[spec.name.partition('.')[2]]
        raise ImportError(f'{spec.name} is now in {__name__}.{new}; fastai_bayes.all has all public names',
                          name=spec.name)

    exec_module = create_module # never called, but Python wants it to be there

sys.meta_path.append(_Moved)
