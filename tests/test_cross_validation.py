"`bayes_tune(folds=)`: each run trains on a fold of its own, compared fold by fold, and resumed within one"
import pytest, torch
from sklearn.model_selection import GroupKFold, RepeatedStratifiedKFold, TimeSeriesSplit
from test_applications import tabular_classes
from tuning import *
from fastai_bayes.all import *
from fastai_bayes.learner.folds import fold_loaders

space = dict(lr=(1e-3, .3, 'log'), bs=[16, 32])
def whole(path): return digits(path, loaders(path))

class Items(Callback):
    "Notes what a run trains on, and what it is judged by: sums of the items"
    def __init__(self, seen): self.seen = seen
    def __deepcopy__(self, memo): return Items(self.seen)
    def before_fit(self):
        self.seen.append(tuple(round(sum(float(xb.sum()) for xb,*_ in dl), 1) for dl in (self.dls.train.new(shuffle=False, drop_last=False), self.dls.valid)))

def test_each_run_has_a_fold(tmp_path):
    "Runs of the same number see the same items, those of other numbers others; each item is validated once; the user's loaders stay"
    learn,seen = whole(tmp_path),[]
    before = [id(o) for o in learn.dls.loaders]
    res = learn.bayes_tune(3, dict(lr=space['lr']), budget=60, folds=3, cbs=Items(seen), **quick)
    folds = fold_loaders(learn.dls, 3)
    sums = {round(sum(float(xb.sum()) for xb,*_ in folds[i].valid), 1) for i in range(3)}
    assert {v for _,v in seen}<=sums and len({v for _,v in seen})>1 and {id(o) for o in learn.dls.loaders}=={*before}
    assert len({round(t+v, 0) for t,v in seen})==1  # together always the same items
    assert res.trials.runs.max()==3 and res.trials.epochs.sum()==60
    one = res.trials[res.trials.runs==3].iloc[0]
    runs = res.curves[res.curves.number==one.number].groupby('run').value.max()
    assert one.value==pytest.approx(runs.mean()) and one['std']==pytest.approx(runs.std()/3**.5)

def test_a_learner_of_a_trial_has_its_fold(tmp_path):
    learn = whole(tmp_path)
    res = learn.bayes_tune(3, space, budget=60, folds=3, **quick)
    own,curves = res.learner(),res.curves
    values = curves[curves.number==res.best_trial.user_attrs.get('resumes', res.best_trial.number)].groupby('run').value.max()
    assert own.validate()[1]==pytest.approx(values.max())

@pytest.mark.parametrize('at', [8, 20])
def test_it_goes_on_within_a_fold(tmp_path, at):
    "Interrupted in a first or a further run, the study ends as without"
    def tune(name, **kwargs): return whole(tmp_path/name).bayes_tune(3, space, budget=30, folds=3, study_name='s', **quick, **kwargs)
    want = tune('a')
    Break.count = 0
    tune('b', cbs=Break(KeyboardInterrupt(), (at,), 1))
    now = tune('b')  # the interrupted trial has the number of its first part, and takes another
    assert now.curves.drop(columns='number').equals(want.curves.drop(columns='number'))

def test_workers_have_the_same_folds(tmp_path):
    given = dict(enqueue=[dict(lr=.03, bs=16)], n_trials=2, budget=18, folds=3, **quick)
    one,two = (whole(tmp_path/f'{n}').bayes_tune(2, space, workers=n, **given).curves for n in (None, 1))
    assert one.equals(two)

def test_splitters_groups_and_lists(tmp_path):
    learn = tabular_classes(tmp_path)
    learn.dls.train_ds.items['seller'] = 1
    for folds,kw,n in ((TimeSeriesSplit(3), {}, 3), (RepeatedStratifiedKFold(n_splits=2, n_repeats=2, random_state=0), {}, 4),
                       ([fold_loaders(learn.dls, 2)[i] for i in range(2)], {}, 2)):
        res = learn.bayes_tune(1, dict(lr=(1e-3, 1e-1, 'log'), bs=[8, 16]), budget=12, folds=folds, **kw, **quick)
        assert res.study.trials[0].user_attrs.get('runs', n)==n and res.trials.state.isin(['complete', 'stopped']).all()

def test_another_number_of_folds_is_another_study(tmp_path):
    whole(tmp_path).bayes_tune(2, space, budget=8, folds=3, study_name='s', **quick)
    for folds in (2, None):
        with pytest.raises(Exception, match='folds'): whole(tmp_path).bayes_tune(2, space, budget=12, folds=folds, study_name='s', **quick)

@pytest.mark.parametrize('args, match', [
    (dict(folds=1), '^folds: expected a whole number of 2 or more'), (dict(groups=[1]), '^groups: are kept together by folds'),
    (dict(folds=3, repeats=2), '^repeats: each fold is a run'), (dict(folds=3, sampler='tpe'), '^folds: TPESampler does not know'),
    (dict(folds=3, groups=[1, 2]), '^groups: expected one per item'), (dict(folds=3, goals=dict(accuracy='max', n_params='min')), 'for one goal')])
def test_bad_folds(tmp_path, args, match):
    with pytest.raises(ValueError, match=match): whole(tmp_path).bayes_tune(2, space, budget=8, **args, **quick)
