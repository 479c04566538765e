"Modules that had no folder: their import fails with the new name, and nothing else changes"
import importlib, importlib.util, pickle, pkgutil, re, subprocess, sys
import pytest
import fastai_bayes

old = '''acq axes callback change checkpoint clone cost curves display facts feasible folder forecasts gp identity kernels knobs
loggers manual maker memory optimizer plots probe pruner report result run sampler searches seen space state surrogate tables
timeline tune workers study.StudyError study.curve_frame study.open_study study.trial_frame'''.split()

def importing(name):
    with pytest.raises(ImportError) as e: importlib.import_module(name)
    return e.value

def test_every_old_name_is_known(): assert set(fastai_bayes._moved)==set(old)

@pytest.mark.parametrize('name', old)
def test_old_name_gives_the_new_one(name):
    err = importing(f'fastai_bayes.{name}')
    assert err.name==f'fastai_bayes.{name}' and type(err) is ImportError
    new,= re.findall(r'is now in (fastai_bayes\.\S+);', str(err))
    held = name.partition('.')[2]
    module = importlib.import_module(new)
    assert not held or getattr(module, held).__module__==new
    assert err.name not in sys.modules

def test_every_form_of_the_import():
    new = r'fastai_bayes\.engine\.space'
    with pytest.raises(ImportError, match=new): import fastai_bayes.space
    with pytest.raises(ImportError, match=new): from fastai_bayes import space
    with pytest.raises(ImportError, match=new): from fastai_bayes.space import Space
    with pytest.raises(ImportError, match=new): importlib.import_module('.space', 'fastai_bayes')
    with pytest.raises(ImportError, match=new): pickle.loads(b'cfastai_bayes.space\nSpace\n.')
    with pytest.raises(ImportError, match=r'fastai_bayes\.study\.studies'): from fastai_bayes.study import open_study

@pytest.mark.parametrize('name', ['nothing', 'study.nothing', 'engine.nothing', 'engine.acq'])
def test_other_names_are_not_found_as_ever(name):
    name = f'fastai_bayes.{name}'
    assert importlib.util.find_spec(name) is None
    err = importing(name)
    assert type(err) is ModuleNotFoundError and str(err)==f'No module named {name!r}'
    with pytest.raises(ModuleNotFoundError, match="^No module named 'space'$"): importlib.import_module('space')

def test_nothing_pretends_that_old_modules_are_there():
    names = {o.name for o in pkgutil.walk_packages(fastai_bayes.__path__, 'fastai_bayes.')}
    assert 'fastai_bayes.engine.space' in names and not names & {f'fastai_bayes.{o}' for o in old}
    assert not [o for o in old if '.' not in o and hasattr(fastai_bayes, o)]

def test_what_is_there_imports_and_pickles():
    from fastai_bayes.engine.space import Space
    assert pickle.loads(pickle.dumps(Space)) is Space
    assert importlib.util.find_spec('fastai_bayes.engine.space').origin.endswith('space.py')

def test_import_of_the_package_loads_no_module():
    code = 'import sys; before = set(sys.modules); import fastai_bayes; print(*set(sys.modules)-before)'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.split()==['fastai_bayes']
