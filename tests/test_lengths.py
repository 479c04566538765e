"The number of epochs is a hyperparameter: trials of different lengths, each complete at its own last epoch"
import math
import numpy as np, optuna, pytest
from tuning import *
from fastai_bayes.all import *
from fastai_bayes.engine.acquisition import PerCost
from fastai_bayes.engine.cost import Length
from fastai_bayes.engine.policy import decide, resume
from fastai_bayes.engine.surrogate import Surrogate
from fastai_bayes.engine.trainings import Training
from fastai_bayes.study.cache import StudyCache, space_of

T = 20
base = Space(dict(lr=(0., 1.)))
varied = base.with_epochs((1, T))
plain = Space.of(varied.dims, of_length=())  # the same coordinates, but all trials are as long

def trainings(stretched, n=9, rng=0):
    "Trials of 1 to 20 epochs, most of them stopped; at their own epochs, or at the places of these among 20"
    rng,res = np.random.default_rng(rng),[]
    for i in range(n):
        own,x = [20, 5, 7, 13, 2][i%5],rng.random()
        x = varied.encode(dict(lr=x, n_epoch=own))
        done = own if i%3==0 else max(1, int(rng.integers(1, own+1)))
        curve = [float(1-abs(x[0]-.3)-.5*math.exp(-3*e/own)+.01*rng.standard_normal()) for e in range(1, done+1)]
        state = 'running' if i==n-1 else 'complete' if done==own else 'paused'
        at = [e*T//own for e in range(1, done+1)] if stretched else None
        res.append(Training(x, curve, state, at=at))
    return res

@pytest.mark.parametrize('rng', range(4))
def test_a_short_trial_is_judged_as_a_long_one_at_the_same_share(rng):
    own,long = (Surrogate(space, T, trainings(o, rng=rng)) for space,o in ((varied, False), (plain, True)))
    assert np.array_equal(own.rows, long.rows, equal_nan=True) and {*own.planned}=={20, 5, 7, 13, 2} and {*long.planned}=={T}
    own.noise,long.noise,long.first = 0.,0.,own.first  # interpolated epochs have less noise, and no value of their own
    verdicts = [[decide(s, i, *how) for i in range(len(s.trainings)) for how in ((0, False), (9, True))] for s in (own, long)]
    def _told(o): return o.stop, o.prob_best, o.rank, o.of
    assert [*map(_told, verdicts[0])]==[*map(_told, verdicts[1])] and any(o.stop for o in verdicts[0])

def end(params, n):
    "Value of the last epoch, 1 at best: below 8 epochs it loses"
    off = (math.log10(params['lr'])+2)**2/2+3*sum((params[k]-best)**2 for k,best in dict(a=.6, b=.3, c=.5).items())
    return math.exp(-off)-.3*max(0, math.log2(8/n))

def search(n_epoch, seed, budget=128, longest=32):
    "Best value, and the epochs that went into trials of each length"
    opt,rng = BayesOptimizer(dict(lr=(1e-5, 1., 'log'), a=(0., 1.), b=(0., 1.), c=(0., 1.)), n_epoch, seed=seed),np.random.default_rng(seed)
    spent,best = np.zeros(longest+1, int),0
    while spent.sum()<budget:
        t = opt.next()
        n = t.params.get('n_epoch', longest)
        for epoch in range(t.epoch+1, n+1):
            v = end(t.params, n)*(1-math.exp(-4*epoch/n))/(1-math.exp(-4))
            best,spent[n] = max(best, v),spent[n]+1
            opt.report(t.id, epoch, v+.005*rng.standard_normal())
            if opt.should_stop(t.id): break
        opt.finish(t.id)
    return best, spent

def test_short_schedules_save_epochs():
    "Eight epochs are as good as thirty-two: the best is found in fewer epochs, most of which go into trials that are shorter than the longest"
    seeds = range(3)
    varied,fixed = ([search(o, s) for s in seeds] for o in ((4, 32), 32))
    regret = [1-np.mean([b for b,_ in o]) for o in (varied, fixed)]
    assert regret[0]<.5*regret[1]
    spent = sum(o for _,o in varied)
    assert spent[:24].sum()>.5*spent.sum() and not spent[:4].any()

class Flat:
    "An acquisition that is the same everywhere"
    scales = np.ones(2)
    def __call__(self, U): return np.zeros(len(U))

def test_it_is_worth_its_epochs():
    "A quarter of the epochs is worth four times as much; a paused trial counts its own that are left"
    X = varied.encode([dict(lr=.5, n_epoch=n) for n in (1, 5, 20)])
    assert np.allclose(PerCost(Flat(), Length(varied, T))(X), np.log([20, 4, 1]))
    ended = [Training(varied.encode(dict(lr=o, n_epoch=20)), [.1*e*(1-o) for e in range(1, 21)], 'complete') for o in (.1, .4, .7)]
    pair = [Training(varied.encode(dict(lr=.05, n_epoch=n)), [.1*e*.95*T/n for e in range(1, n//2+1)], 'paused') for n in (16, 4)]
    assert resume(Surrogate(varied, T, ended+pair), -1e9)==4 and resume(Surrogate(varied, T, ended+pair[::-1]), -1e9)==3

def test_finish_and_report_at_ones_own_length():
    opt = BayesOptimizer(dict(lr=(0., 1.)), [2, 5], seed=0)
    for _ in range(6):
        t = opt.next()
        n = t.params['n_epoch']
        for epoch in range(t.epoch+1, n+1): opt.report(t.id, epoch, .1*epoch)
        with pytest.raises(ValueError, match=f'of {n} of trial'): opt.report(t.id, n+1, .5)
        opt.finish(t.id)
    assert {o.state for o in opt.trainings}=={'complete'} and {o.epochs for o in opt.trainings}=={2, 5}

class Ends(Callback):
    "Notes how much of the fit was done when it ended, the last learning rate, and that of one cycle of as many epochs"
    order,_stateattrs,notes = 80,(),[]
    def after_fit(self):
        n,top = self.n_epoch*len(self.dls.train),max(self.recorder.lrs)
        cycle = combined_cos(.25, top/25, top, top/1e5)((n-1)/n)
        Ends.notes.append((float(self.pct_train), self.opt.hypers[-1]['lr'], cycle))

def columns(res): return res.trials.drop(columns=['seconds', 'number', 'reason'])
lr = dict(lr=(1e-2, .3, 'log'))

def test_each_trial_ends_its_own_schedule(tmp_path):
    Ends.notes = []
    learn = digits(tmp_path)
    res = learn.bayes_tune((2, 6), lr, budget=40, cbs=Ends(), **quick)
    t = res.trials
    assert ((t.state=='complete')==(t.epochs==t.n_epoch)).all() and t.epochs.max()<=6 and t.n_epoch.nunique()>2
    assert t.n_epoch[t.number==0].item()==6 and t.state[t.number==0].item()=='complete'  # the learner as it is, for as long as it may be
    done = [o[1:] for o in Ends.notes if o[0]>.999]
    assert len(done)==(t.state=='complete').sum() and all(v==pytest.approx(cycle, rel=.1) for v,cycle in done)
    assert res.best_params['n_epoch']==res.trials.n_epoch[0] and res.study.user_attrs['n_epoch']==6 and res.study.user_attrs['about']['n_epoch']=='int 2 to 6, log'
    assert sum(t.epochs)==40 and learn.opt_func==Adam

@pytest.mark.parametrize('kwargs', [dict(), dict(fit='fine_tune')], ids=str)
def test_an_interrupted_one_goes_on_to_its_own_end(tmp_path, kwargs):
    space = dict(lr=(1e-2, .3, 'log'), **(dict(freeze_epochs=(1, 3)) if kwargs else {}))
    def tune(d, **more): return digits(tmp_path/d, splitter=lambda m: L(params(m[:1]), params(m[1:]))).bayes_tune([2, 4, 5], space, n_trials=6, study_name='s', **quick, **kwargs, **more)
    whole = tune('a')
    for which in (2, 5):
        Break.count = 0
        tune('b', cbs=Break(KeyboardInterrupt(), (which,), 1))
    res = tune('b')
    assert columns(res).equals(columns(whole))
    t = res.trials
    full = t.n_epoch+(t.freeze_epochs if kwargs else 0)
    assert ((t.state=='complete')==(t.epochs==full)).all() and (t.epochs<=full).all() and t.n_epoch.nunique()>1
    assert res.study.user_attrs['n_epoch']==(8 if kwargs else 5)

def test_in_the_space_it_means_the_same(tmp_path):
    both = [digits(tmp_path/d).bayes_tune(n, space, n_trials=4, **quick) for d,n,space in (('a', (2, 4), lr), ('b', None, dict(n_epoch=(2, 4), **lr)))]
    assert columns(both[0]).equals(columns(both[1]))

def test_equal_values_the_shorter_wins(tmp_path):
    learn = digits(tmp_path, cbs=Curve(lambda lr, epoch: .5))
    res = learn.bayes_tune([2, 3, 4], lr, n_trials=6, pruner='none', **quick)
    t = res.trials
    assert set(t.value)=={.5} and res.best_params['n_epoch']==t.n_epoch.min()==t.n_epoch[0] and (t.n_epoch.diff()[1:]>=0).all()

@pytest.mark.parametrize('how', [dict(sampler='tpe', pruner='median'), dict(sampler='grid', pruner='none'), dict(sampler='random', pruner='asha'), dict(sampler='cmaes', pruner='hyperband')], ids=str)
def test_other_searches(tmp_path, how):
    res = digits(tmp_path).bayes_tune([2, 4], dict(lr=[.01, .1]), n_trials=4, **how, **quick)
    t = res.trials
    assert len(t)==4 and ((t.state=='complete')==(t.epochs==t.n_epoch)).all()

def test_a_study_gets_other_lengths(tmp_path):
    "What was complete stays so; a study with one length goes on with several, but not back"
    def tune(n, **kwargs): return digits(tmp_path).bayes_tune(n, lr, study_name='s', **quick, **kwargs)
    tune(3, n_trials=2)
    with pytest.raises(StudyError, match='pass extend=True'): tune((2, 4), n_trials=4)
    with pytest.raises(StudyError, match='n_epoch: which value did'): tune((2, 4), n_trials=4, extend=True)
    res = tune((2, 4), n_trials=4, extend=dict(n_epoch=3))
    first = res.trials[res.trials.number==0].iloc[0]
    assert (first.state, first.n_epoch, first.epochs)==('complete', 3, 3) and len(res.trials)==4
    res = tune((2, 6), n_trials=6, extend=True)
    t = res.trials
    assert len(t)==6 and ((t.state=='complete')==(t.epochs==t.n_epoch)).all() and res.study.user_attrs['n_epoch']==6
    with pytest.raises(StudyError, match='- n_epoch: int 2 to 6, log\n.*n_epoch: 9'): tune(9, n_trials=8, extend=True)

def test_own_study(tmp_path):
    "Name the length n_epoch: sampler and pruner know how long the trials will be that they have not seen"
    def objective(trial):
        n,x = trial.suggest_int('n_epoch', 2, 12, log=True),trial.suggest_float('x', 0, 1)
        for epoch in range(1, n+1):
            value = (1-(x-.3)**2)*(1-.5*math.exp(-3*epoch/n))
            trial.report(value, epoch)
            if epoch<n and trial.should_prune(): raise optuna.TrialPruned
        return value
    study = optuna.create_study(direction='maximize', sampler=BayesSampler(seed=0), pruner=BayesPruner())
    study.optimize(objective, 25)
    s,_ = StudyCache.of(study).surrogate(study, space_of(study), 1)
    assert s.T==12 and s.planned.tolist()==[t.params['n_epoch'] for t in study.trials] and study.best_value>.96
    complete = [t.state.name=='COMPLETE' for t in study.trials]
    assert [*(s.epochs==12)]==complete and not all(complete)
    plots = [plot_forecast(study), plot_trial(study, complete.index(False))]
    assert len(plots)==2

def test_known_lengths(tmp_path):
    "An earlier study of several lengths informs one of one length, and the other way round"
    old = digits(tmp_path).bayes_tune((2, 4), lr, n_trials=5, study_name='old', **quick)
    for i,n in enumerate((4, (2, 6))):
        res = digits(tmp_path/f'{i}').bayes_tune(n, lr, n_trials=2, from_studies=old, **quick)
        assert len(res.trials)==2 and 'earlier stud' in res.study.user_attrs['knowledge']['of']

def test_factories(tmp_path):
    "A factory gets `n_epoch` with the rest, or asks for the others"
    seen = []
    def make(params):
        seen.append(params.get('n_epoch'))
        return digits(tmp_path)
    def asks(trial):
        trial.suggest_int('width', 4, 8)
        return digits(tmp_path)
    for f,space in ((make, lr), (asks, None)):
        res = digits(tmp_path).bayes_tune((2, 4), space, n_trials=3, new_learner=f, **quick)
        t = res.trials
        assert ((t.state=='complete')==(t.epochs==t.n_epoch)).all()
    assert set(seen)-{None}<={2, 3, 4} and len(set(seen))>1
