"Hints: for each a study that shows it, and one that must not; where they are said"
import optuna, pytest
from types import SimpleNamespace
from optuna.pruners import NopPruner
from tuning import *
from fastai_bayes.all import *
from fastai_bayes.results.hints import _hints, Seen, hints
from fastai_bayes.study.records import ended

class Scripted(Curve):
    "Replaces the accuracy in epoch `e` of a training with learning rate `lr` by `f(lr, e)`"
    def __deepcopy__(self, memo): return Scripted(self.f)

lrs = [1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 5e-2]
def study(path, f, n_epoch=1, loaders=loaders, **kwargs):
    "Six trials whose curves are `f(lr, epoch)`, with the accuracy of 100 items unless `loaders` has others"
    learn = digits(path, loaders(path))
    given = dict(space=dict(lr=(1e-3, 1e-1, 'log')), pruner=NopPruner(), fit='fit', enqueue=[dict(lr=o) for o in lrs], n_trials=6, recipes=False)
    return learn.bayes_tune(n_epoch, cbs=Scripted(f), **{**quick, **given, **kwargs})
def many(path): return DataLoaders(loaders(path).train, TfmdDL(TensorDataset(x[-1000:], y[-1000:]), bs=500, num_workers=0), path=path)
def named(res): return [k for k,f in _hints.items() if f(Seen(res.study, res.space, ended(res.study)))]

def mirrored(res):
    "The same study of a metric that should fall: each value is 1 minus what it was"
    study = optuna.create_study(direction='minimize')
    for k,v in res.study.user_attrs.items(): study.set_user_attr(k, v)
    for t in res.study.trials:
        t.value,t.intermediate_values = 1-t.value,{k: 1-v for k,v in t.intermediate_values.items()}
        study.add_trial(t)
    return SimpleNamespace(study=study, space=res.space)

def at(lr): return lrs.index(min(lrs, key=lambda o: abs(np.log(o/lr))))
def values(*vs): return lambda lr, e: vs[at(lr)]
def curves(best, *rest): return lambda lr, e: best[e] if at(lr)==2 else rest[e]

# name: (a study that shows it, one that must not)
cases = {
    'end_of_range': (dict(f=values(.1, .2, .3, .4, .9, .5), loaders=many), dict(f=values(.1, .2, .3, .9, .4, .5), loaders=many)),
    'first_epoch': (dict(f=curves((.9, .5, .4), .1, .1, .1), n_epoch=3), dict(f=curves((.4, .9, .5), .1, .1, .1), n_epoch=3)),
    'last_epoch': (dict(f=curves((.4, .6, .9), .1, .1, .1), n_epoch=3), dict(f=curves((.4, .895, .9), .1, .1, .1), n_epoch=3)),
    'small_validation': (dict(f=values(.80, .83, .85, .82, .5, .3)), dict(f=values(.80, .83, .85, .82, .5, .3), loaders=many)),
    'shared_best': (dict(f=values(.7, .9, .9, .9, .5, .3), monitor='own'), dict(f=values(.7, .88, .9, .9, .5, .3), monitor='own')),
    'at_bound': (dict(f=values(.7, .9, 1., 1., .5, .3)), dict(f=values(.7, .9, .99, .98, .5, .3)))}

def own(preds, targs): return (preds.argmax(1)==targs).float().mean()

@pytest.mark.parametrize('name', cases)
def test_a_study_that_shows_it_and_one_that_must_not(tmp_path, name, monkeypatch):
    if name=='shared_best': monkeypatch.setitem(digits.__globals__, 'accuracy', own)  # no share of items, as far as is known
    for i,(args,expected) in enumerate(zip(cases[name], (True, False))):
        mode = dict(mode='max') if 'monitor' in args else {}
        res = study(tmp_path/str(i), **args, **mode)
        assert (name in named(res))==expected, (res.trials, res.hints)
        assert named(mirrored(res))==named(res)

def test_every_hint_has_a_case(): assert set(cases)==set(_hints)

def test_none_for_a_few_trials(tmp_path): assert study(tmp_path, values(.1, .2, .3, .4, .9, .5), n_trials=4).hints==[]

def test_what_it_says_helps(tmp_path):
    "The wider range that it suggests goes on with the study, and the hint is gone"
    f = lambda lr, e: 1/(1+abs(np.log10(lr)))  # the best is at 1
    res = study(tmp_path, f, study_name='s', loaders=many)
    said, = [o for o in res.hints if 'range' in o]
    assert "lr=0.1, the end of its range (try lr=(0.001, 1, 'log'))" in said
    f = lambda lr, e: 1/(1+abs(np.log10(lr/.3)))
    res = study(tmp_path, f, study_name='s', loaders=many, space=dict(lr=(.001, 1, 'log')), extend=True, enqueue=[dict(lr=.3)], n_trials=8)
    assert not any('range' in o for o in res.hints)

def test_where_they_are_said(tmp_path, capsys):
    "Once when the study ends, below the table, and in the report; not again in the same words by a study without"
    res = study(tmp_path, values(.1, .2, .3, .4, .9, .5), loaders=many, verbose=True)
    said, = res.hints
    lines = capsys.readouterr().out.splitlines()
    assert lines.count(f'hint: {said}')==1 and lines[-1]==f'hint: {said}'
    assert repr(res).splitlines()[-1]==f'hint: {said}' and res._repr_html_().count('hint: ')==1
    page = res.report(tmp_path/'r.html').read_text()
    assert page.count('<h2>Hints</h2>')==1 and 'the end of its range' in page
    res.study.set_user_attr('goals', dict(accuracy='max'))
    assert res.hints==[]

def test_no_hint_of_a_share_with_repeats(tmp_path):
    "What several runs tell is in their standard errors"
    res = study(tmp_path, values(.80, .82, .85, .81, .5, .3), repeats=2, pruner=None, n_trials=None, budget=20)
    assert 'runs' in res.trials and 'small_validation' not in named(res)
