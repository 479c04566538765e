"""Validation more or less often than once per epoch: the training is the same, everything that counts epochs counts whole ones, and a process
that dies in the middle of a pass over the training set goes on there"""
import matplotlib; matplotlib.use('agg')
import math, os
import pytest
from optuna.pruners import HyperbandPruner, MedianPruner, SuccessiveHalvingPruner
from fastai.tabular.all import TabularDataLoaders
from test_applications import language_model, made, tabular_classes
from tuning import *
from fastai_bayes.all import *
from fastai_bayes.learner.validation import EveryEpochs, ShortEpochs
from fastai_bayes.study.records import epochs_saved, epochs_spent

lrs = dict(lr=(1e-3, 1e-1, 'log'))
seen = [] # Losses of the batches of all trainings

class Losses(Callback):
    def after_batch(self):
        if self.training: seen.append((self.epoch, float(self.learn.loss), self.opt.hypers[-1]['lr']))

def losses(learn, every, n=4, **kwargs):
    "Loss and learning rate in each batch of one trial, and its curve"
    seen.clear()
    res = learn.bayes_tune(n, lrs, every=every, cbs=Losses(), pruner='none', **{**quick, 'n_trials': 1, **kwargs})
    return [o[1:] for o in seen], res

def own_fit(learn, n_epoch, cbs, **kwargs):
    "Another fit"
    learn.fit_flat_cos(n_epoch-1, cbs=cbs, **kwargs)
    learn.fit(1, lr=1e-3, cbs=cbs)

@pytest.mark.parametrize('fit', ['fit', 'fit_one_cycle', 'fit_flat_cos', 'fine_tune', own_fit])
def test_the_same_batches_in_the_same_order(tmp_path, fit):
    "Losses and learning rates to the last bit, and the values of whole epochs; a second fit begins with the best epoch of the first, which may be another"
    a,res = losses(digits(tmp_path), 1, fit=fit)
    fits = [1, 4] if fit=='fine_tune' else [3, 1] if fit is own_fit else [4]
    for every in (.25, .5, 1/3, 2, 3):
        b,other = losses(digits(tmp_path), every, fit=fit)
        assert b[:5*fits[0]]==a[:5*fits[0]] and [lr for _,lr in a]==[lr for _,lr in b]
        curve,known = (dict(o.curves[['epoch', 'value']].dropna().values) for o in (res, other))
        assert all(known[e]==v for e,v in curve.items() if e in known and e<=fits[0])
        if every<1: assert sorted(known)==pytest.approx([i*every for i in range(1, round(sum(fits)/every)+1)])
        else: assert sorted(known)==sorted({e for e in range(1, 1+sum(fits)) if e%every==0} | set(np.cumsum(fits)))

@pytest.mark.parametrize('make', [tabular_classes, language_model], ids=lambda o: o.__name__)
def test_other_loaders(tmp_path, make):
    "Rows of a table are drawn by numpy, texts keep their order in the loader; a recurrent model begins anew with each part"
    a,b = (losses(made(make.__name__, tmp_path), o, 2)[0] for o in (1, .5))
    assert [lr for _,lr in a]==[lr for _,lr in b]
    if make is tabular_classes: assert a==b
    else: assert a[0]==b[0] and len(a)==len(b)

def test_everything_counts_whole_epochs(tmp_path, capsys):
    learn = digits(tmp_path)
    res = learn.bayes_tune(3, lrs, budget=15, every=.25, seed=0, verbose=True, study_name='s', subject_to=dict(seconds_per_epoch=(None, 60)))
    out = capsys.readouterr().out
    df,curves = res.trials,res.curves
    assert res.study.user_attrs['every']==.25 and df.epochs.sum()==epochs_spent(res.study)==15
    assert df.epochs.max()==3 and res.best_epoch==df.best_epoch.iloc[0]<=3 and (df.epochs*4%1==0).all() and (df.epochs%1>0).any()
    assert curves.epoch.min()==.25 and curves.groupby('number').epoch.max().to_dict()==df.set_index('number').epochs.to_dict()
    best = curves[curves.number==res.best_trial.number].set_index('epoch').value
    assert best[res.best_epoch]==best.max()==res.best_value
    assert '15 of 15 epochs' in out and '/3 ' in out and '/12' not in out and f'{epochs_saved(res.study):g} epoch' in repr(res)
    assert not df.reason.str.contains(r'(?<![\d.])(?:[4-9]|1\d) epoch').any()
    n = int(df[df.state=='complete'].number.iloc[0])
    assert res.plot_curves().get_xlim()[1]<4 and res.plot_trial(n).get_xlim()[1]<4 and res.plot_history().get_xlim()[1]<17
    res.plot_forecast(), res.plot_saved()
    page = res.report(tmp_path/'r.html').read_text()
    assert 'every=0.25' in page and 'bayes_tune(3, space, n_trials=1' in page
    with learn.no_bar(): assert learn.validate()[1]==pytest.approx(res.best_value, rel=1e-5)
    more = digits(tmp_path).bayes_tune(3, lrs, budget=18, every=.25, study_name='s', **quick)
    assert epochs_spent(more.study)==18

def test_studies_without_it_are_as_before(tmp_path):
    "Whole numbers, and nothing new in the study"
    a,b = (digits(tmp_path/str(i)).bayes_tune(3, lrs, n_trials=3, **kw, **quick) for i,kw in enumerate(({}, dict(every=1))))
    assert a.trials.drop(columns='seconds').equals(b.trials.drop(columns='seconds')) and a.trials.epochs.dtype==a.curves.epoch.dtype==int
    assert 'every' not in b.study.user_attrs and 'every' not in b.study.user_attrs['setup'] and type(b.best_epoch) is int

def test_the_study_keeps_the_parts(tmp_path):
    "Another part of an epoch is another training of the pruner; whole numbers may change"
    def run(every, **kw): return digits(tmp_path).bayes_tune(4, lrs, every=every, **{**quick, 'n_trials': 1, 'study_name': 's', **kw})
    run(.5)
    for every in (1, .25, 2):
        with pytest.raises(StudyError, match='every: 0.5'): run(every, n_trials=2)
    assert len(run(.5, n_trials=2).trials)==2
    longer = digits(tmp_path).bayes_tune(6, lrs, every=.5, extend=True, study_name='s', n_trials=3, **quick)
    assert longer.trials.epochs.max()==6
    run(3, study_name='w')
    assert len(run(2, n_trials=2, study_name='w').trials)==len(run(1, n_trials=2, study_name='w').trials)==2

class Dies(Callback):
    "Ends the process after batch `n`, in training `which` of this process"
    order,count = 80,0
    def __init__(self, n): self.n = n
    def after_batch(self):
        if not self.training: return
        Dies.count += 1
        if Dies.count==self.n: os._exit(9)

def killed(f):
    "Run `f` in a copy of this process, which dies"
    pid = os.fork()
    if not pid:
        try: f()
        finally: os._exit(1)
    assert os.waitpid(pid, 0)[1]>>8==9

def one(path, every, *cbs, n=3, **kwargs):
    return digits(path).bayes_tune(n, every=every, study_name='s', space=lrs, n_trials=1, cbs=[Losses(), *cbs], **kwargs, **quick)

@pytest.mark.parametrize('every,at', [(.25, 7), (.25, 5), (.2, 12), (2, 9)])
def test_killed_in_the_middle_of_a_pass(tmp_path, every, at):
    "Curve and batches are those of a training that nobody disturbed: five batches are an epoch"
    seen.clear()
    want = one(tmp_path/'a', every)
    batches = [*seen]
    killed(lambda: one(tmp_path/'b', every, Dies(at)))
    seen.clear()
    res = one(tmp_path/'b', every)
    assert 'died' in ' '.join(t.user_attrs.get('reason', '') for t in res.study.trials)
    assert res.curves.equals(want.curves) and 0<len(seen)<len(batches) and batches[-len(seen):]==seen

def test_paused_in_the_middle_of_a_pass(tmp_path):
    "A trial that is stopped after a quarter, and resumed by another limit, ends as one that is not"
    want = one(tmp_path/'a', .25)
    for budget in (1, 2, 3): res = one(tmp_path/'b', .25, budget=budget)
    assert res.curves.equals(want.curves)
    res = digits(tmp_path/'c').bayes_tune(3, lrs, every=.25, budget=12, recipes=False, **quick)
    moved = res.trials[res.trials.reason.str.contains('resumed after')]
    assert len(moved) and res.curves[res.curves.number.isin(moved.number)].groupby('number').epoch.apply(lambda o: np.allclose(np.diff(o), .25)).all()

def test_less_often(tmp_path):
    "Trackers count validations, what has no value is NaN, and pruners decide where there is one"
    valid = []
    class Valid(Callback):
        def before_validate(self): valid.append(self.epoch)
    stop = EarlyStoppingCallback('accuracy', patience=1, min_delta=.9)
    res = one(tmp_path, 3, Valid(), stop, SaveModelCallback(), n=12)
    assert valid==[2, 5] and res.curves.value.notna().tolist()==[False, False, True]*2  # the second was no better by .9
    learn = digits(tmp_path)
    res = learn.bayes_tune(6, lrs, every=2, n_trials=8, **quick)
    df = res.curves.dropna()
    assert set(df.epoch)=={2, 4, 6} and (res.trials.best_epoch%2==0).all()
    assert (res.trials[res.trials.state=='stopped'].epochs%2==0).all() and 'stopped' in set(res.trials.state)
    assert math.isnan(learn.recorder.values[0][1]) and len(learn.recorder.metric_names)==5

@pytest.mark.parametrize('pruner', [HyperbandPruner(), SuccessiveHalvingPruner(), MedianPruner(n_startup_trials=2), 'asha', 'none'], ids=lambda o: o if isinstance(o, str) else type(o).__name__)
@pytest.mark.parametrize('every', [.5, 2])
def test_pruners_of_optuna(tmp_path, every, pruner):
    res = digits(tmp_path).bayes_tune(4, lrs, every=every, pruner=pruner, sampler='random', n_trials=5, **quick)
    assert len(res.trials)==5 and 'complete' in set(res.trials.state) and not (res.trials.state=='failed').any()

def test_pbt_and_workers(tmp_path):
    for kw in (dict(sampler='pbt', budget=12), dict(workers=1, n_trials=1)):
        res = digits(tmp_path/str(len(kw))/next(iter(kw))).bayes_tune(4, lrs, every=.5, **kw, **quick)
        assert not (res.trials.state=='failed').any() and res.trials.epochs.max()>1 and (res.curves.epoch*2%1==0).all()

def test_a_loss_that_is_not_finite(tmp_path):
    "The epoch is named, not the part"
    class Bad(Callback):
        def after_loss(self):
            if self.training and self.train_iter==7: self.learn.loss_grad = self.learn.loss = self.learn.loss*math.nan
    assert 'diverged in epoch 2:' in one(tmp_path, .2, Bad()).trials.reason[0]

def test_memory_and_the_learner_stay(tmp_path):
    "The user's loaders, generators and callbacks are as before, and a batch size with too few batches is the trial's failure"
    learn = digits(tmp_path)
    was,state = picture(learn),process()
    learn.bayes_tune(2, dict(bs=[16, 32, 64]), every=.2, n_trials=3, study_name='s', **quick)
    assert was[2]==picture(learn)[2] and state==process()
    assert not {'get_idxs', 'randomize'}&vars(learn.dls.train).keys()
    df = digits(tmp_path/'b').bayes_tune(2, dict(bs=[16, 64]), every=.2, enqueue=[dict(bs=64)], n_trials=2, **quick).trials
    assert '2 batches of training cannot be cut into 5 parts' in df[df.bs==64].reason.iloc[0]

def test_several_runs_per_trial(tmp_path):
    "Each run has its own parts and validations"
    for every,want in ((.5, [.5, 1, 1.5, 2, 2.5, 3]), (2, [2, 3])):
        res = digits(tmp_path/str(every)).bayes_tune(3, lrs, every=every, repeats=2, budget=24, pruner='none', **quick)
        curves = [sorted(o.epoch) for _,o in res.curves.dropna().groupby(['number', 'run'])]
        assert curves.count(want)>2 and all(o==want[:len(o)] for o in curves) and res.curves.run.max()==2
        assert res.trials.epochs.sum()==24 and res.trials.epochs.max()==6
