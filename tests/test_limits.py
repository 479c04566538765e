"Limits: the winner keeps them, what breaks them costs no epoch, and other limits judge old trials again"
import warnings
import optuna, pytest, torch
from optuna.trial import TrialState
from tuning import *
from fastai_bayes.all import *
from fastai_bayes.learner import measures
from fastai_bayes.learner.runner import Run
from fastai_bayes.study.cache import StudyCache
from fastai_bayes.study.limits import limits_of, nearest

widths = dict(width=[4, 8, 16, 32, 64, 128], lr=(1e-2, 1e-1, 'log'))
def of_width(w): return 64*w+w+2*w+10*w+10 # Parameters of `net(w)`
def depth(learn): return len(learn.model)

def tune(path, subject_to, n=2, **kwargs):
    path.mkdir(exist_ok=True)
    def make(p): return digits(path, model=net(p['width']))
    given = {**quick, 'n_trials': 6, 'new_learner': make, **kwargs}
    return digits(path).bayes_tune(n, given.pop('space', widths), subject_to=subject_to, **given)
def rows(res): return res.trials.sort_values('number').itertuples()

@pytest.mark.parametrize('how', [dict(), dict(sampler='tpe', pruner='median'), dict(sampler='random', pruner='none'), dict(sampler='grid', n_trials=None, budget=20),
                                 dict(sampler='cmaes', pruner='asha'), dict(storage='study.db')], ids=str)
def test_what_is_too_large_costs_no_epoch(tmp_path, how):
    if 'storage' in how: how = dict(storage=f'sqlite:///{tmp_path/how["storage"]}')
    res = tune(tmp_path, dict(n_params=(None, 2000), size_mb=(.001, None), depth=(depth, 4, 4)), **how)
    for o in rows(res):
        assert o.n_params==of_width(o.width) and o.depth==4
        assert (o.state=='infeasible')==(o.width>16) and (o.epochs>0)==(o.width<=16), o
        assert ('n_params' in o.reason and 'is above 2000' in o.reason)==(o.width>16)
    assert res.best_params['width']<=16 and res.best_value==res.trials.value.max()
    assert sum(o.state!='infeasible' for o in rows(res))==6 or how.get('sampler')=='grid'

def test_measuring_leaves_the_learner_alone(tmp_path):
    "A study with limits trains as one without; mode, statistics and random numbers stay"
    learn = digits(tmp_path)
    learn.model.train(), learn.model[1].eval()
    before,proc = picture(learn),process()
    assert all(v>0 for v in measures.Limits(told=measures.known_early).measure(learn, {}).values())
    assert [m.training for m in learn.model.modules()]==[True, True, False, True, True]
    assert same(before, picture(learn)) and process()==proc
    a = tune(tmp_path/'a', None)
    b = tune(tmp_path/'b', dict(latency_ms=(None, 1e3), n_params=(None, 1e9), seconds_per_epoch=(None, 1e3), valid_loss=(None, 1e3)))
    assert a.curves.equals(b.curves) and b.trials[['latency_ms', 'n_params', 'seconds_per_epoch', 'valid_loss']].gt(0).all(axis=None)

class Slow(Module):
    def __init__(self, ms): self.ms,self.calls = ms,[]
    def forward(self, x):
        self.calls.append((len(x), self.training, torch.is_grad_enabled()))
        time.sleep(next(self.ms)/1e3)
        return x

def test_latency_is_a_median_of_one_item(tmp_path):
    class Steps(Slow):
        def __deepcopy__(self, memo): return self
        def train(self, mode=True):
            self.training = mode
            return self
    ms = Steps(iter([60, 60, 60, *[2]*20, *[9]*10]))
    learn = digits(tmp_path, model=nn.Sequential(ms, net()))
    learn.model.train()
    assert 2<=measures.latency_ms(learn)<5 and {*ms.calls}=={(1, False, False)} and len(ms.calls)==measures.warm_ups+measures.passes

def test_metric_of_the_best_epoch(tmp_path):
    "It is judged at the end: a trial that was trained to its end is infeasible, its weights do not win"
    res = tune(tmp_path, dict(accuracy=(.5, None)), n=3, monitor='valid_loss', pruner='none', n_trials=4, space=dict(widths, lr=(1e-4, 1e-1, 'log')))
    low = [o for o in rows(res) if o.state=='infeasible']
    assert low and all(o.accuracy<.5 and o.epochs==3 and 'is below 0.5' in o.reason for o in low)
    assert all(o.accuracy>=.5 for o in rows(res) if o.state=='complete') and sum(o.state=='complete' for o in rows(res))==4
    assert all(t.state==TrialState.PRUNED for t in res.study.trials if 'infeasible' in t.user_attrs)  # Optuna's samplers do not take them for good
    best = res.learner()
    assert best.validate()[1]==pytest.approx(res.trials.accuracy[res.trials.number==res.best_trial.number].item(), abs=1e-6)

def test_stopped_trials_may_be_resumed(tmp_path):
    "What is too low so far does not win, but counts toward n_trials, and is not impossible"
    class After(optuna.pruners.BasePruner):
        def prune(self, study, trial): return trial.number>0
    with pytest.raises(TuneError, match='4 trials, none succeeded; none keeps the limits: trial . came nearest: accuracy .* is below 0.999'):
        tune(tmp_path, dict(accuracy=(.999, None)), n=3, pruner=After(), sampler='random', n_trials=3, monitor='valid_loss', study_name='s')
    res = tune(tmp_path, dict(accuracy=(.05, None)), n=3, pruner=After(), sampler='random', n_trials=3, monitor='valid_loss', study_name='s')
    assert sorted(o.state for o in rows(res))==['complete', 'stopped', 'stopped', 'stopped'] and sorted(o.epochs for o in rows(res))==[1, 1, 1, 3]

def test_epochs_that_take_too_long(tmp_path):
    "The first epoch of a trial warms up; it stops after the second"
    class Wait(Callback):
        def before_validate(self): time.sleep(1.*(self.learn.model[0].out_features>16 or self.epoch==0))
    res = tune(tmp_path, dict(seconds_per_epoch=(None, .9)), n=3, cbs=Wait(), pruner='none', sampler='random', n_trials=2)
    for o in rows(res): assert (o.state, o.epochs)==(('infeasible', 2) if o.width>16 else ('complete', 3)), o

def test_memory_of_a_gpu(tmp_path, monkeypatch):
    "What torch says is the peak is that of the trial"
    made = []
    monkeypatch.setattr(measures, 'device_of', lambda learn: torch.device('cuda') if made.append(learn) else torch.device('cuda'))
    monkeypatch.setattr(torch.cuda, 'reset_peak_memory_stats', lambda device: None)
    monkeypatch.setattr(torch.cuda, 'max_memory_allocated', lambda device: 1e6*made[-1].model[0].out_features)
    res = tune(tmp_path, dict(peak_mem_mb=(None, 16)), n=3, pruner='none', sampler='random', n_trials=3)
    for o in rows(res): assert o.peak_mem_mb==o.width and (o.state, o.epochs)==(('infeasible', 1) if o.width>16 else ('complete', 3))

def test_other_limits_judge_again(tmp_path):
    "A lower limit takes the best away, a higher one gives it back with its weights, and lets what was never trained begin"
    how = dict(study_name='s', sampler='random', pruner='none', n_trials=6)
    a = tune(tmp_path, dict(n_params=(None, of_width(32))), **how)
    kept = {o.number: o.width for o in rows(a) if o.state=='complete'}
    wide,best = a.best_params['width'],(a.best_trial.number, a.best_value)
    b = tune(tmp_path, dict(n_params=(None, of_width(wide)-1)), **how)
    assert b.best_params['width']<wide and all((o.state=='infeasible')==(o.width>=wide) for o in rows(b))
    c = tune(tmp_path, dict(n_params=(None, of_width(32))), **how)
    assert (c.best_trial.number, c.best_value)==best and c.best_path
    d = tune(tmp_path, None, **how)
    assert {o.state for o in rows(d)}=={'complete'} and d.trials.epochs.eq(2).all() and len(d.trials)>len(kept)
    assert limits_of(d.study)=={}

def test_a_limit_of_what_was_not_measured(tmp_path):
    how = dict(study_name='s', n_trials=3, pruner='none', sampler='random')
    tune(tmp_path, dict(n_params=(None, 1e9)), **how)
    with pytest.warns(UserWarning, match='^subject_to: size_mb was not measured in 3 trials'), pytest.raises(TuneError, match='none succeeded'):
        tune(tmp_path, dict(size_mb=(None, 1e9)), **how)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        res = tune(tmp_path, dict(size_mb=(None, 1e9)), **{**how, 'n_trials': 5})
    assert res.best_trial.number>=3 and [o.reason for o in rows(res)][:3]==['size_mb was not measured']*3

def test_nothing_is_feasible(tmp_path, monkeypatch):
    monkeypatch.setattr(Run, 'most_infeasible', 6)
    with pytest.raises(TuneError, match='6 trials, none succeeded; the last 6 were infeasible: trial . came nearest: n_params (318|626|1242) is above 100') as e:
        tune(tmp_path, dict(n_params=(None, 100)), sampler='random')
    assert 'n_params' in str(e.value.__cause__)

def test_the_present_configuration_may_break_them(tmp_path):
    res = digits(tmp_path).bayes_tune(1, dict(lr=(1e-3, .1, 'log'), bs=[8, 16, 32]), n_trials=2, subject_to=dict(bs=(of_bs, None, 16)), sampler='random', **quick)
    first,*rest = rows(res)
    assert first.state=='infeasible' and first.bs==32 and len([o for o in rest if o.state=='complete'])==2
def of_bs(learn): return learn.dls.train.bs

def test_explained(tmp_path):
    from fastai_bayes.study.cache import StudyCache, space_of
    res = tune(tmp_path, dict(n_params=(None, 2000)))
    bad = [o for o in rows(res) if o.state=='infeasible']
    surrogate,numbers = StudyCache.of(res.study).surrogate(res.study, space_of(res.study), 2)
    assert bad and all('is above' in surrogate.trainings[numbers.index(o.number)].reason for o in bad)
    assert nearest(res.study)==f'trial {min(bad, key=lambda o: o.n_params).number} came nearest: '+min(bad, key=lambda o: o.n_params).reason

def test_what_ends_early_does_not_win(tmp_path):
    "A trial that diverged, or was interrupted, has a best epoch as well: it keeps the limits, or does not win"
    class Ends(Callback):
        order = 70
        def before_batch(self):
            if self.epoch==1 and self.learn.model[0].out_features==8: self.learn.xb = (self.xb[0]*math.nan,)
        def after_epoch(self):
            if self.learn.model[0].out_features==16: raise KeyboardInterrupt
    how = dict(space=dict(width=[4, 8, 16]), n=3, n_trials=3, pruner='none', sampler='random', monitor='valid_loss', study_name='s', cbs=Ends(),
               enqueue=[dict(width=w) for w in (8, 16)])
    with pytest.raises(TuneError, match='none keeps the limits|none succeeded'): tune(tmp_path, dict(accuracy=(.99, None)), **{**how, 'n_trials': 1})
    res = tune(tmp_path, dict(accuracy=(.99, None)), **how)
    low = [t for t in res.study.trials if t.intermediate_values]
    assert {t.params['width'] for t in low}=={8, 16} and all('accuracy' in t.user_attrs['excluded'] for t in low)
    with pytest.raises(StudyError, match='trial . came nearest: accuracy .* is below 0.99; see `.trials`'): res.best_trial

@pytest.mark.parametrize('bad', [dict(measures=3), dict(measures=dict(n_params='x')), dict(subject_to=[1]), dict(subject_to=dict(n_params=['x', None, 'build'])), dict(excluded=1)], ids=str)
def test_what_others_wrote_is_checked(tmp_path, bad):
    how = dict(study_name='s', storage=tmp_path/'study.log', n_trials=1, sampler='random')
    res = tune(tmp_path, dict(n_params=(None, 1e9)), **how)
    t = res.study.ask()
    for k,v in bad.items(): (t if k!='subject_to' else res.study).set_user_attr(k, v)
    res.study.tell(t, .5)
    with pytest.raises(StudyError, match=f'{next(iter(bad))}: expected .*, got'): tune(tmp_path, dict(n_params=(None, 1e9)), **how)

def test_trials_that_became_longer_are_not_complete(tmp_path):
    "Other limits do not make a trial complete that ended before trials became longer"
    how = dict(study_name='s', sampler='random', pruner='none')
    tune(tmp_path, dict(n_params=(None, 1e9)), **how, n_trials=4)
    a = tune(tmp_path, dict(n_params=(None, 1e9)), n=3, extend=True, budget=1, **{**how, 'n_trials': None})
    was = [(o.number, o.epochs) for o in rows(a)]
    b = tune(tmp_path, dict(n_params=(None, 1e8)), n=3, budget=1, **{**how, 'n_trials': None})
    assert [(o.number, o.epochs) for o in rows(b)]==was and 'complete' not in {*b.trials.state}

def test_what_breaks_a_limit_is_known_but_not_beaten():
    "The curve of an infeasible trial counts for the forecasts, not as the value to beat; limits are learned from distances"
    study,space = optuna.create_study(direction='maximize'),Space(dict(a=(0., 1.)))
    study.set_user_attr('subject_to', dict(gap=[None, .5, 'end']))
    def add(a, curve, gap, **attrs):
        state = TrialState.PRUNED if attrs or len(curve)<4 else TrialState.COMPLETE
        attrs |= dict(n_epoch=4, measures=dict(gap=gap))
        t = optuna.trial.create_trial(state=state, value=curve[-1] if state==TrialState.COMPLETE else None, params=dict(a=a), user_attrs=attrs,
                                      distributions=dict(a=optuna.distributions.FloatDistribution(0, 1)), intermediate_values=dict(enumerate(curve, 1)))
        study.add_trial(t)
        return StudyCache.of(study).surrogate(study, space, 4)[0]
    s = add(.9, [.1, .5, .7, .9], .9, infeasible='gap')
    assert s.infeasible.tolist()==[True] and s.epochs.tolist()==[4] and not s.careful and s.incumbent==0
    s = add(.2, [.1, .2], .6)  # unsettled
    assert np.isnan(s.margins[1]).all() and not s.careful and s.best==.2
    s = add(.3, [.1, .2, .3, .4], .3)
    assert s.careful and s.best==.4 and s.transform.best==.9 and s.transform.inverse(s.incumbent)<=.4+1e-9 and s.leads(2) and not s.is_whole[0]
    assert s.rivals(2).tolist()==[False, True, True] and len(s.targets()[0])==3
    assert s.limits(np.array([[.3]]))>np.log(.5)>s.limits(np.array([[.9]]))
    np.testing.assert_allclose(s.margins[:,0], [-.4, np.nan, .2])

def test_margins_with_several_runs(tmp_path):
    "A trial with several runs has as many margins as one with a single run"
    res = tune(tmp_path, dict(accuracy=(.05, None), valid_loss=(None, 50.)), repeats=2, n_trials=4, monitor='accuracy')
    surrogate,_ = StudyCache.of(res.study).surrogate(res.study, res.space, 2)
    several = [len(o.runs)>1 for o in surrogate.trainings]
    assert any(several) and not all(several)
    assert surrogate.margins.shape==(len(several), 2) and (surrogate.margins[several]>0).all()
