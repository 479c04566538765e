"Several runs per trial: their curves, their mean, who gets them, and what is kept"
import math, pytest, signal, statistics
from fastai_bayes.all import *
from fastai_bayes.learner.runner import Run
from fastai_bayes.engine.optimizer import BayesOptimizer
from fastai_bayes.engine.space import Space
from fastai_bayes.engine.surrogate import Surrogate
from fastai_bayes.engine.trainings import Training
from fastai_bayes.learner.copies import seeded
from fastai_bayes.learner.monitor import MonitorError
from fastai_bayes.study.records import best_trial, curve_frame, epochs_spent, run_values, runs_of, standing, trial_frame, trial_id, trials_of
from fastai_bayes.study.storage import StudyError
from optuna.trial import TrialState
from fastai_bayes.learner import workers
from forks import context
from test_pool import Forked
from tuning import *

space = dict(lr=[.09, .1, .11, .12, .01])
def tune(path, **kwargs):
    "Five configurations, of which four are so near that another seed changes their order"
    given = dict(n_trials=5, pruner='none', enqueue=False, repeats=3, study_name='s')
    return digits(path, loaders(path, n=96)).bayes_tune(4, space, **{**given, **quick, 'seed': 1, **kwargs})
def curves(res): return {trial_id(t): runs_of(t) for t in trials_of(res.study.trials)}
def fields(res):
    "What does not depend on how often trials were resumed"
    return [*curves(res).values()], [*res.trials.value], [*res.trials.runs] if 'runs' in res.trials else []

@pytest.fixture(scope='module')
def done(tmp_path_factory): return tune(tmp_path_factory.mktemp('done'))

# What a study with runs says
def test_the_value_is_the_mean_of_the_runs(done):
    df = done.trials
    assert {*df.columns}>={'runs', 'std'} and df.runs.max()==3
    best = {(n, r): max(v for _,v in run) for n,runs in curves(done).items() for r,run in enumerate(runs)}
    for o in df.itertuples():
        own = [best[o.number, r] for r in range(o.runs)]
        assert o.value==pytest.approx(statistics.mean(own)) and o.epochs==4*o.runs
        if o.runs>1: assert o.std==pytest.approx(statistics.stdev(own)/o.runs**.5)
        else: assert math.isnan(o.std)
    whole = done.study.trials
    assert all(t.values[0]==pytest.approx(df.value[df.number==trial_id(t)].item()) for t in trials_of(whole) if t.values)

def test_only_contenders_run_again(done):
    df = done.trials
    assert df.runs[df.lr==.01].item()==1 and df.runs.sum()<15 and (df.runs==3).sum()>=2
    assert df.number[0]==done.best_trial.number and df.runs[0]==3

def test_a_lucky_run_does_not_win(done):
    "The trial with the best first run does not have the best mean"
    first = {n: max(v for _,v in runs[0]) for n,runs in curves(done).items()}
    assert max(first, key=first.get)!=done.best_trial.number
    assert done.best_value<max(first.values())

def test_curves_have_a_column_for_the_run(done):
    df = done.curves
    assert [*df]==['number', 'run', 'epoch', 'value'] and df.epoch.max()==4 and df.run.max()==3
    assert len(df)==done.trials.epochs.sum()==epochs_spent(done.study)

def test_without_repeats_nothing_is_said_of_runs(tmp_path):
    res = tune(tmp_path, repeats=None, n_trials=2)
    assert [*res.curves]==['number', 'epoch', 'value'] and not {'runs', 'std'}&{*res.trials}
    one = tune(tmp_path/'one', repeats=1, n_trials=2)
    assert fields(one)==fields(res)

def test_the_learner_holds_the_best_run(tmp_path):
    learn = digits(tmp_path, loaders(tmp_path, n=96))
    res = learn.bayes_tune(4, space, n_trials=5, pruner='none', enqueue=False, repeats=3, **quick)
    value,epoch,run = max(run_values(res.best_trial, res.study))
    assert [o[2] for o in learn.recorder.values]==[v for _,v in runs_of(res.best_trial)[run]]
    assert learn.validate()[1]==pytest.approx(value) and res.best_epoch==epoch
    assert res.learner(res.best_trial.number).validate()[1]==pytest.approx(value)
    assert res.best_path.parent.name==(f'run_{run+1}' if run else f'trial_{res.best_trial.number}')

def test_the_ensemble_is_the_mean_of_the_runs(done):
    ens,folder = done.ensemble(),done.folder/f'trial_{done.best_trial.number}'
    assert len(ens)==3
    preds,targs,decoded = ens.get_preds(with_decoded=True)
    learn,each = done.learner(),[]
    for o in (folder, folder/'run_2', folder/'run_3'):
        learn.model.load_state_dict(torch.load(o/'best.pth', weights_only=True))
        with learn.no_bar(): each.append(learn.get_preds()[0])
    assert not torch.equal(each[0], each[1])
    torch.testing.assert_close(preds, sum(each)/3)
    assert torch.equal(decoded, preds.argmax(1)) and len(targs)==100
    assert len(done.ensemble(top=2))==6
    with pytest.raises(StudyError, match='top: expected'): done.ensemble(0)

def test_repr(done, tmp_path):
    assert 'mean of 3 runs' in repr(done) and '±' in repr(done) and '±' in done._repr_html_()
    assert '±' in done.report(tmp_path/'r.html').read_text()

# Runs are paired, and nothing but their seeds differs
class Seeds(Callback):
    "Notes the first batch and the learning rate of each fit"
    seen = []
    def before_batch(self):
        if self.training and not self.epoch and not self.iter: self.seen.append((round(self.opt.hypers[-1]['lr'], 6), float(self.xb[0].sum())))

def test_runs_are_paired(tmp_path):
    Seeds.seen.clear()
    tune(tmp_path, cbs=Seeds(), fit='fit')
    fits = {}
    for lr,batch in Seeds.seen: fits.setdefault(lr, []).append(batch)
    again = [o for o in fits.values() if len(o)==3]
    assert len(again)>1 and len({o[1] for o in again})==len({o[2] for o in again})==1
    assert again[0][1]!=again[0][2]

# Resuming
class Ends(Callback):
    "Ends the program in the epoch with the number `at`, counted over all fits"
    order,count = 99,0
    def __init__(self, at, how): self.at,self.how = at,how
    def after_epoch(self):
        Ends.count += 1
        if Ends.count==self.at: self.how()

def interrupt(): raise KeyboardInterrupt
def kill(): os.kill(os.getpid(), signal.SIGKILL)
def killed(path, at): tune(path, cbs=Ends(at, kill))

@pytest.mark.parametrize('at', [20, 21, 23])
def test_interrupted_and_resumed(done, tmp_path, at, monkeypatch):
    "Between two runs, in the first epoch of one, in its middle, and at its end: the curves are those without"
    monkeypatch.setattr(Ends, 'count', 0)
    tune(tmp_path, cbs=Ends(at, interrupt))
    assert fields(tune(tmp_path))==fields(done)

@pytest.mark.parametrize('at', [23])
def test_killed_and_resumed(done, tmp_path, at):
    p = context().Process(target=killed, args=(tmp_path, at))
    p.start(); p.join()
    assert p.exitcode==-signal.SIGKILL
    res = tune(tmp_path)
    assert fields(res)==fields(done)
    assert any('resumed_from' in t.user_attrs and t.user_attrs['resumed_from']%4 for t in res.study.trials)

def test_workers_train_the_same_runs(done, tmp_path, monkeypatch):
    "Which trials run again depends on who is under way, but not how a run goes"
    monkeypatch.setattr(workers, 'get_context', lambda name: Forked)
    res = tune(tmp_path, workers=2)
    assert res.trials.runs.max()>1
    one = {t.params['lr']: runs_of(t) for t in trials_of(done.study.trials)}
    two = {t.params['lr']: runs_of(t) for t in trials_of(res.study.trials)}
    both = [(a, b) for k in one for a,b in zip(one[k][1:], two[k][1:])]
    assert both and all(a==b for a,b in both)

def test_an_old_study_gets_runs(tmp_path):
    old = tune(tmp_path, repeats=None)
    res = tune(tmp_path)
    assert res.trials.runs.max()>1 and len(res.trials)==5
    was = curves(old)
    assert all(runs[0]==was[n][0] for n,runs in curves(res).items())
    less = tune(tmp_path, repeats=None)
    assert fields(less)==fields(res)
    with pytest.raises(StudyError, match='several runs cannot become longer'):
        digits(tmp_path, loaders(tmp_path, n=96)).bayes_tune(6, space, n_trials=6, study_name='s', extend=True, **quick)

def test_files_are_bounded(tmp_path, monkeypatch):
    "Weights of one trial per run that it may have are kept, and the winner's are among them"
    monkeypatch.setattr(Run, 'n_best_kept', 1)
    res = digits(tmp_path).bayes_tune(2, dict(lr=(1e-3, .3, 'log')), budget=40, repeats=3, **quick)
    folders = [o.name for o in res.folder.iterdir() if o.is_dir()]
    kept = {o.relative_to(res.folder).parts[0] for o in res.folder.rglob('best.pth')}
    assert len(res.trials)>9 and f'trial_{res.trials.number[0]}' in kept and len(kept)<=3+Run.n_resumable and len(folders)<=len(kept)+1
    assert len(res.ensemble(top=3).learners)>=3

@pytest.mark.parametrize('how', ['tpe', 'pbt', 'grid'])
def test_other_samplers_refuse(tmp_path, how):
    with pytest.raises(TuneError, match="^repeats: .*use sampler='bayes'"):
        digits(tmp_path).bayes_tune(2, dict(lr=[.01, .1]), sampler=how, repeats=3, **quick)
    assert not (tmp_path/'models').exists()

# In a study of one's own
def objective(trial, path, runs=3, cbs=(), n=4):
    lr,values = trial.suggest_float('lr', 1e-3, .3, log=True),[]
    for i in range(runs):
        cb = BayesPruningCallback(trial, 'accuracy', run=i, runs=runs)
        with seeded(i):
            learn = digits(path, loaders(path, n=96))
            with learn.no_bar(), learn.no_logging(): learn.fit(n, lr, cbs=[cb, *cbs])
        values.append(cb.value)
    return sum(values)/len(values)

@pytest.mark.parametrize('pruner', [BayesPruner(), optuna.pruners.MedianPruner(2), optuna.pruners.NopPruner()])
def test_own_study(tmp_path, pruner):
    study = optuna.create_study(direction='maximize', sampler=BayesSampler(seed=0), pruner=pruner)
    study.optimize(lambda t: objective(t, tmp_path), n_trials=8)
    df = trial_frame(study)
    whole = df[df.state=='complete']
    assert len(whole)>=2 and (whole.runs==3).all() and (whole.epochs==12).all()
    for t in study.trials:
        if t.state==TrialState.COMPLETE: assert t.values[0]==pytest.approx(statistics.mean(v for v,*_ in run_values(t, study)))
    assert len(curve_frame(study))==df.epochs.sum()
    n = study.best_trial.number
    assert trial_id(best_trial(study)) in df.number[:3].values and n in df.number.values

def test_own_study_stops_within_a_later_run(tmp_path):
    "A trial whose second run goes badly stops there, and says so"
    study = optuna.create_study(direction='maximize', pruner=BayesPruner(n_epoch=6))
    def report(trial, run, ends, T=6):
        trial.set_user_attr('n_epoch', T); trial.set_user_attr('run', run); trial.set_user_attr('runs', 3)
        for e in range(1, T+1):
            trial.report(ends-.5*.6**e+.001*(-1)**e, run*T+e)
            if e<T and trial.should_prune(): return False
        return True
    for _,ends in ((.1, (.9, .91, .9)), (.2, (.8, .81, .8))):
        t = study.ask(dict(lr=optuna.distributions.FloatDistribution(0, 1)))
        for run,end in enumerate(ends): report(t, run, end)
        study.tell(t, statistics.mean(ends))
    t = study.ask(dict(lr=optuna.distributions.FloatDistribution(0, 1)))
    assert report(t, 0, .905) and not report(t, 1, .5)
    assert 'run 2' in study.pruner.verdict.reason and 'better mean' in study.pruner.verdict.reason
    study.tell(t, state=optuna.trial.TrialState.PRUNED)
    assert trial_frame(study).set_index('number').runs.to_dict()=={0: 3, 1: 3, 2: 1}

bad_runs = {'none': dict(run=0, runs=0), 'beyond': dict(run=3, runs=3), 'negative': dict(run=-1, runs=3),
            'text': dict(run='1', runs=3), 'no first': dict(run=1, runs=3)}
@pytest.mark.parametrize('name', bad_runs)
def test_wrong_runs_of_the_callback(name):
    trial = optuna.create_study(direction='maximize').ask()
    with pytest.raises(MonitorError, match='^runs?: expected'): BayesPruningCallback(trial, **bad_runs[name])

def test_runs_are_equally_long(tmp_path):
    trial = optuna.create_study(direction='maximize').ask()
    def fit(n, i):
        with digits(tmp_path).no_bar() as learn, learn.no_logging(): learn.fit(n, cbs=BayesPruningCallback(trial, run=i, runs=2))
    fit(2, 0)
    with pytest.raises(MonitorError, match='run 1 has 3 epochs, but run 0 had 2'): fit(3, 1)

# The ranking without our sampler
def test_standing_prefers_evidence():
    study = optuna.create_study(direction='maximize')
    for ends in ((.91, .9, .92), (.912,), (.8, .81, .79)):
        t = study.ask()
        for k,v in dict(n_epoch=1, runs=3, run=len(ends)-1).items(): t.set_user_attr(k, v)
        for i,v in enumerate(ends, 1): t.report(v, i)
        study.tell(t, statistics.mean(ends))
    assert best_trial(study).number==0  # .912 may be luck
    place = standing(study)
    assert place[0]>place[1]>place[2]

# The engine
def f(p): return .9-.5*(p['x']-.6)**2-.09*(math.log10(p['lr'])+2)**2
def search(noise, runs, seed=0, T=8, budget=96):
    "A search with noise between runs, and a race at its end: the optimizer, and the epochs of further runs in both"
    rng,opt = np.random.default_rng(seed),BayesOptimizer(dict(x=(0., 1.), lr=(1e-4, 1., 'log')), T, seed=seed, runs=runs)
    spent,more,luck = 0,[0, 0],{}
    while t := opt.next(new=spent<budget):
        off = luck.setdefault((t.id, t.run), noise*rng.normal())
        for e in range(t.epoch+1, T+1):
            opt.report(t.id, e, (f(t.params)+off)*(1-.6*math.exp(-e/2.5))+.3*noise*rng.normal())
            more[spent>=budget] += t.run>0
            spent += 1
            if opt.should_stop(t.id): break
        opt.finish(t.id)
    return opt,more

def test_a_problem_without_noise_spends_nothing_on_repeats():
    opt,more = search(0., 5)
    assert more==[0, 0] and .9-f(opt.best[0])<.01

def test_a_noisy_problem_races():
    "Over four seeds the race takes at most .6 of the runs that three of each trial would; no winner has only one"
    runs,regret = [],[]
    for seed in range(4):
        opt,more = search(.03, 3, seed)
        runs.append([len(t.runs) for t in opt.trainings])
        best, = [t for t in opt.trainings if opt.space.decode(t.x)==opt.best[0]]
        assert more[1]>0 and min(runs[-1])==1 and max(runs[-1])==3 and len(best.runs)>1
        regret.append(.9-f(opt.best[0]))
    flat = sum(runs, [])
    assert sum(flat)<.6*3*len(flat) and max(regret)<.03 and statistics.mean(regret)<.02

def test_the_band_of_a_first_run_is_the_one_for_people():
    "As wide as that of the plot of forecasts, also in a study with several runs"
    opt,_ = search(.03, 3)
    surrogate = opt.surrogate
    begun = [i for i in surrogate.open if not opt.trainings[i].later]
    assert begun
    for i in begun:
        (m,),(v,) = surrogate.told([i])
        ends = surrogate.transform.inverse(m+1.96*v**.5*np.array([-1, 1]))
        e = opt.explain(i)
        assert (e.low, e.high)==pytest.approx(tuple(ends)), i

def test_a_hard_fold_is_not_held_against_a_trial():
    "The effect of a run is estimated: a trial that has run only on the hard fold is as good as one with the same values on all"
    T,effects = 6,np.array([-.2, .15, .05])
    def trial(x, end, n):
        curves = [[end+effects[r]-.5*.5**e+.004*(-1)**(e+r) for e in range(1, T+1)] for r in range(n)]
        res,*later = [Training(np.array([x]), c, 'complete') for c in curves]
        res.later = later
        return res
    known = [trial(.1*i, .5+.05*i, 3) for i in range(6)]
    hard = trial(.9, .75, 1)
    s = Surrogate(Space(dict(x=(0., 1.))), T, [*known, hard], n_runs=3)
    m,v = s.final
    assert m[6]==pytest.approx(m[5], abs=.2*abs(effects[0])/s.transform.scale) and v[6]>2.5*v[5]
    assert s.runs.M[6,0]<s.runs.M[5,0:3].mean()-.1/s.transform.scale  # without it, it would be far behind
