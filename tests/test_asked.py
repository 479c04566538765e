"A factory that suggests its hyperparameters itself: `new_learner(trial)`"
import math, warnings
import optuna, pytest, torch
from forks import context
from tuning import *
from fastai_bayes.all import *
from fastai_bayes.results.report import best_code
from fastai_bayes.study.sampler import space_of

@pytest.fixture
def learn(tmp_path): return digits(tmp_path)
@pytest.fixture(autouse=True)
def _count(): Break.count = 0

class Seen(Callback):
    "Notes what a training had"
    order,all = 80,[]
    def before_fit(self):
        linear = [m.out_features for m in self.model.modules() if isinstance(m, nn.Linear)][:-1]
        acts = {type(m) for m in self.model if isinstance(m, (nn.ReLU, nn.GELU))}
        Seen.all.append(dict(h := self.opt.hypers[0], steps=[getattr(o, '__name__', '') for o in self.opt.cbs], widths=linear, acts=acts,
                             bs=self.dls.train.bs, lr_now=h['lr']))

def factory(path):
    "Layers, their widths, and an optimizer with what only it has"
    def new_learner(trial):
        n,sizes = trial.suggest_int('layers', 1, 3),[64]
        act = trial.suggest_categorical('act', [nn.ReLU, nn.GELU])
        for i in range(n): sizes.append(trial.suggest_int(f'width{i}', 8, 32, log=True))
        trial.suggest_float('lr', 1e-3, 1e-1, log=True)
        if trial.suggest_categorical('opt_func', ['SGD', 'Adam'])=='SGD': trial.suggest_float('mom', .8, .99)
        body = [o for a,b in zip(sizes, sizes[1:]) for o in (nn.Linear(a, b), act())]
        return digits(path, model=nn.Sequential(*body, nn.Linear(sizes[-1], 10)))
    return new_learner

def tune(learn, n=2, **kwargs):
    return learn.bayes_tune(n, **{**quick, **dict(fit='fit', n_trials=8, pruner='none', new_learner=factory(learn.path)), **kwargs})
def agrees(learn, res): return abs(learn.validate()[1]-res.best_value)<1e-6
def by_number(res): return res.trials.sort_values('number').drop(columns='seconds').reset_index(drop=True)

def test_what_is_suggested_is_trained(learn):
    Seen.all = []
    res = tune(learn, n=3, seed=1, cbs=Seen())
    trials = [t for t in res.study.trials]
    assert len(Seen.all)==len(trials)==8 and {t.state.name for t in trials}=={'COMPLETE'}
    for o,t in zip(Seen.all, trials):
        p = t.params
        assert o['widths']==[p[f'width{i}'] for i in range(p['layers'])] and {k.__name__ for k in o['acts']}=={p['act']}
        assert (o['lr'], o.get('mom'))==(p['lr'], p.get('mom', .9)) and ('momentum_step' in o['steps'])==(p['opt_func']=='SGD')==('mom' in p)
        assert set(p)=={'layers', 'act', 'lr', 'opt_func', *(f'width{i}' for i in range(p['layers']))}|({'mom'} if p['opt_func']=='SGD' else set())
    assert len({o['lr'] for o in Seen.all})==8

def test_the_winner_is_there(learn):
    res = tune(learn)
    p = res.best_params
    assert agrees(learn, res) and agrees(res.learner(), res) and p['act'] in (nn.ReLU, nn.GELU)
    assert learn.lr==p['lr'] and [m.out_features for m in learn.model if isinstance(m, nn.Linear)][:-1]==[p[f'width{i}'] for i in range(p['layers'])]
    other = res.trials.number[1]
    assert abs(res.learner(other).validate()[1]-res.trials.value[1])<1e-6
    again = tune(digits(learn.path), study_name=res.study.study_name)  # nothing is left to do, but the winner must be built
    assert again.best_params==p and len(again.trials)==8

def test_the_model_proposes_what_only_some_trials_have(learn):
    "All values of a trial come from one proposal, those of names that not all trials have too"
    res = tune(learn, n=1, n_trials=14)
    trials = res.study.trials
    proposed = [t.system_attrs.get('fixed_params', {}) for t in trials]
    seen = [{k for t in trials[:i] for k in t.params} for i in range(len(trials))]
    assert proposed[0]=={}
    assert all(p.items()<=t.params.items() for p,t in zip(proposed[7:], trials[7:]) if set(p)<=set(t.params))
    new = [set(t.params)-set(p) for t,p in zip(trials, proposed)]
    assert sum(bool(o&s) for o,s in zip(new[7:], seen[7:]))<=1  # asked for, and known before, but not proposed
    space = space_of(res.study)
    assert space.conditions=={'mom': {'opt_func': [0]}, 'width1': {'layers': [1, 2]}, 'width2': {'layers': [2]}} and not space.optional
    for t in trials: assert set(space.active(t.params))==set(t.params)

def test_space_besides(learn):
    Seen.all = []
    res = tune(learn, n_trials=4, space=dict(bs=[16, 64], wd=(.01, .1)), cbs=Seen())
    for k in ('bs', 'wd'): assert [o[k] for o in Seen.all]==[t.params[k] for t in res.study.trials]
    assert {'bs', 'wd', 'layers'}<=set(res.best_params) and agrees(learn, res)

def test_carried_on_after_a_cut(learn, tmp_path):
    whole = tune(digits(tmp_path/'a'), n=3, n_trials=6)
    learn = lambda: digits(tmp_path/'b')
    for which,epoch in ((3, 2), (7, 1)):
        tune(learn(), n=3, n_trials=6, study_name='s', cbs=Break(KeyboardInterrupt(), (which,), epoch))
    res = tune(learn(), n=3, n_trials=6, study_name='s')
    a,b = (by_number(o)[['value', 'epochs', *whole.best_params]] for o in (whole, res))
    assert (res.trials.reason!='').any()
    assert a.equals(b), (a, b)

@pytest.mark.parametrize('call', [2, 6])
def test_interrupted_while_it_asks(tmp_path, call):
    "What was asked for before stays, and the rest is as it would have been"
    whole,calls = tune(digits(tmp_path/'a'), n=1, n_trials=9),[]
    def interrupted(trial):
        calls.append(trial)
        if len(calls)==call:
            trial.suggest_int('layers', 1, 3)
            raise KeyboardInterrupt
        return factory(tmp_path/'b')(trial)
    tune(digits(tmp_path/'b'), n=1, n_trials=9, study_name='s', new_learner=interrupted)
    res = tune(digits(tmp_path/'b'), n=1, n_trials=9, study_name='s')
    assert any('resumes' in t.user_attrs for t in res.study.trials)
    a,b = (by_number(o)[['value', *sorted(whole.trials.columns.intersection(['layers', 'width0', 'width1', 'lr', 'mom', 'act', 'opt_func']))]]
           for o in (whole, res))
    assert a.equals(b), (a, b)

def test_carries_on_what_was_stopped(learn):
    res = tune(learn, n=5, pruner=None, n_trials=9, budget=40)
    assert any('resumes' in t.user_attrs for t in res.study.trials) and agrees(learn, res)
    for t in res.study.trials:
        if 'resumes' in t.user_attrs: assert t.params==res.study.trials[t.user_attrs['resumes']].params

@pytest.mark.parametrize('sampler', ['tpe', 'random', 'cmaes', optuna.samplers.GPSampler(seed=0)])
def test_other_samplers(learn, sampler):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        res = tune(learn, n=1, sampler=sampler, n_trials=4)
    assert agrees(learn, res) and len(res.trials)==4

def test_enqueue(learn):
    first = dict(layers=2, width0=8, width1=32, act=nn.GELU, opt_func='SGD', mom=.85)
    res = tune(learn, n=1, n_trials=2, enqueue=[first])
    assert dict(first, act='GELU').items()<=res.study.trials[0].params.items() and len(res.trials)==2
    with pytest.raises(TuneError, match="width0: expected int 8 to 32, log, got 100 from enqueue"): tune(learn, n=1, enqueue=[dict(width0=100)])
    with pytest.raises(AskError, match="enqueue: new_learner does not suggest widht0 in this case, but layers, act"):
        tune(learn, n=1, enqueue=[dict(widht0=16)])

def test_out_of_memory(learn):
    "Batches as large as those that did not fit are not trained again"
    class Small(Callback):
        tried = []
        def before_fit(self):
            Small.tried.append(self.dls.train.bs)
            if self.dls.train.bs>16: raise MemoryError('full')
    def new_learner(trial):
        trial.suggest_categorical('bs', [16, 32])
        trial.suggest_float('wd', 0, .1)  # with both alone all would soon be tried
        return digits(learn.path)
    res = tune(learn, n=1, new_learner=new_learner, sampler='random', n_trials=6, cbs=Small())
    failed = [r for r,bs in zip(by_number(res).reason, by_number(res).bs) if bs==32]
    assert Small.tried.count(32)==1 and len(failed)>1 and all('as much memory as' in o for o in failed[1:])

def bad(learn, ask, match, error=TuneError, **kwargs):
    def new_learner(trial):
        ask(trial)
        return digits(learn.path)
    with pytest.raises(error, match=match): tune(learn, n=1, new_learner=new_learner, **kwargs)

def test_what_cannot_be(learn):
    times = []
    def other(trial): times.append(1); trial.suggest_int('units', 8, 16*len(times))
    bad(learn, other, r"units: expected int 8 to 16, as before in this study, got int 8 to 32; use the same range each time")
    bad(learn, lambda t: t.suggest_float('lr', 0., 1.), 'lr: expected float 0.001 to 0.1, log', space=dict(lr=(1e-3, .1, 'log')))
    bad(learn, lambda t: t.suggest_categorical('opt_func', ['Adm']), "'Adm' is not an optimizer", KnobError)
    bad(learn, lambda t: t.suggest_float('wd', .1, .2), 'wd is passed to the fit and tuned as well', wd=.1)
    bad(learn, lambda t: t.suggest_int('freeze_epochs', 1, 2), 'put it into space', KnobError, fit='fine_tune')
    for sampler in ('grid', 'pbt'): bad(learn, lambda t: t.suggest_float('lr', .1, .2), 'needs the whole space in advance', sampler=sampler)
    bad(learn, lambda t: t.suggest_int('n', 1, 2)/0, 'new_learner failed 16 times.*ZeroDivisionError: division')
    with pytest.raises(TuneError, match='must return a Learner, got NoneType'): tune(learn, new_learner=lambda trial: None)
    assert not list(learn.path.rglob('bayes/*/trial_*/*.pt'))

def test_a_later_branch_that_cannot_be(learn):
    "What only some trials ask for is checked when they do, and ends the study"
    def branch(name):
        def new_learner(trial):
            if trial.suggest_categorical('kind', ['a', 'b', 'c'])!='b': trial.suggest_categorical('opt_func', [name, 'Adam'])
            trial.suggest_int('one', 3, 3)
            return digits(learn.path)
        return new_learner
    def line(name, study): return tune(learn, n=1, new_learner=branch(name), study_name=study, sampler='random', seed=1)
    with pytest.raises(TuneError, match="new_learner: opt_func: 'oops' is not an optimizer"): line('oops', 'a')
    with pytest.raises(TuneError, match=r'opt_func: expected oops \| Adam, as before in this study, got SGD \| Adam'): line('SGD', 'a')
    with pytest.raises(AskError, match=r'kind: expected a \| b \| c, as before in this study, got a \| b'):
        tune(learn, n=1, new_learner=lambda trial: trial.suggest_categorical('kind', ['a', 'b']) and digits(learn.path), study_name='a', n_trials=9)
    res = line('SGD', 'b')
    assert len(res.trials)==8 and set(res.trials.one)=={3} and res.trials.opt_func.isna().any() and set(res.trials.opt_func.dropna())<={'SGD', 'Adam'}

def test_two_processes(learn, tmp_path):
    from concurrent.futures import ProcessPoolExecutor
    forks = context()
    with ProcessPoolExecutor(2, mp_context=forks, initializer=meet, initargs=[forks.Barrier(2)]) as ex: list(ex.map(work, [tmp_path]*2))
    res = tune(digits(tmp_path), n=1, study_name='both', n_trials=10)
    workers = {t.user_attrs['worker'] for t in res.study.trials}
    assert len(res.trials)==10 and len(workers)==2 and set(res.trials.state)=={'complete'}
def meet(barrier):
    global both
    both = barrier
def work(path):
    learn = digits(path)
    both.wait(200)  # neither does all the work before the other is ready
    tune(learn, n=1, study_name='both', n_trials=10)

def test_tables_and_plots(learn, tmp_path):
    res = tune(learn, n=4, pruner=None, n_trials=12, budget=40)
    assert str(res) and res._repr_html_() and res.trials.mom.isna().any() and res.curves.shape[1]==3
    page = res.report(tmp_path/'r.html').read_text()
    assert page.count('<picture>')>=8
    code = best_code(res)
    assert code.startswith('first = dict(layers=') and "n_trials=1, enqueue=[first], fit='fit', new_learner=new_learner)" in code
    bind = dict(learn=digits(tmp_path), new_learner=factory(tmp_path), GELU=nn.GELU, ReLU=nn.ReLU, optuna=optuna)
    tuned,_,plain = code.partition('# with fastai alone')
    exec(tuned.replace('n_trials', "verbose=False, study_name='again', n_trials"), bind)
    assert bind['learn'].lr==res.best_params['lr'] and str(bind['learn'].model)==str(learn.model)
    with bind['learn'].no_logging(): exec('#'+plain, bind)
    assert str(bind['learn'].model)==str(learn.model) and len(bind['learn'].recorder.values)==bind['learn'].n_epoch
    from matplotlib import pyplot as plt
    assert len(res.plot_surrogate())>=6 and res.plot_trial(res.trials.number[0]) and len(res.plot_contour('lr', 'mom'))==2
    plt.close('all')
    stopped = next(t for t in res.study.trials if t.state.name=='PRUNED')
    assert res.study.pruner.explain(res.study, stopped).verdict.reason

# Without fastai

def objective(trial):
    "Momentum for SGD only; the best is SGD with a momentum of .93"
    opt = trial.suggest_categorical('opt', ['Adam', 'SGD', 'ranger'])
    lr = trial.suggest_float('lr', 1e-4, 1., log=True)
    base = (math.log10(lr)+2)**2/10
    if opt=='SGD': return base+40*(trial.suggest_float('mom', .8, .99)-.93)**2
    return base+dict(Adam=.05, ranger=.1)[opt]

def found(sampler, n=25):
    study = optuna.create_study(sampler=sampler, pruner=BayesPruner())
    study.optimize(objective, n_trials=n)
    return study

def test_optuna_objective_with_conditions():
    ours = [found(BayesSampler(seed=i)) for i in range(5)]
    random = [found(optuna.samplers.RandomSampler(seed=i)).best_value for i in range(5)]
    assert max(o.best_value for o in ours)<min(random) and max(o.best_value for o in ours)<.01
    for o in ours:
        assert space_of(o).conditions=={'mom': {'opt': [1]}}
        late = [t.params['mom'] for t in o.trials[12:] if 'mom' in t.params]
        assert late and sum(abs(m-.93) for m in late)/len(late)<.03  # at random it would be .05
