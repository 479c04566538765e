"Several goals: fronts of Optuna studies with several directions, and `bayes_tune(goals=)`"
import numpy as np, optuna, pytest, torch
from optuna._hypervolume import compute_hypervolume
from optuna.trial import TrialState, create_trial
from tuning import *
from fastai_bayes.all import *
from fastai_bayes.engine.goals import hypervolume, on_front
from fastai_bayes.learner.runner import Run
from fastai_bayes.study.goals import front_of
from fastai_bayes.study.storage import StudyError

@pytest.mark.parametrize('m', [1, 2, 3, 4])
def test_hypervolume_is_optunas(m):
    rng = np.random.default_rng(m)
    for n in (1, 2, 15):
        Y = rng.integers(0, 6, (n, m))/5  # with ties, and points that do not count
        above = Y[(Y>=.1).all(1)]  # Optuna refuses others
        assert hypervolume(Y, np.full(m, .1))==pytest.approx(compute_hypervolume(-above, np.full(m, -.1)) if len(above) else 0)

def two(trial):
    "The front is where y is .3"
    x,y = trial.suggest_float('x', 0, 1), trial.suggest_float('y', 0, 1)
    return x**2+(y-.3)**2, -(1-x)**2-(y-.3)**2
def study_of(seed=0, **kwargs): return optuna.create_study(directions=['minimize', 'maximize'], sampler=BayesSampler(seed=seed), **kwargs)
def volume(study):
    Y = np.array([t.values for t in study.trials if t.state==TrialState.COMPLETE])
    return hypervolume(Y*[-1, 1], [-1, -1])

def test_a_front_of_an_optuna_study():
    "Close to the whole front, which random search is not; the front is Optuna's"
    study = study_of()
    study.optimize(two, n_trials=30)
    random = optuna.create_study(directions=['minimize', 'maximize'], sampler=optuna.samplers.RandomSampler(0))
    random.optimize(two, n_trials=30)
    assert volume(study)>.95*5/6>volume(random)
    assert {t.number for t in front_of(study)}=={t.number for t in study.best_trials}

def test_a_study_that_was_closed_goes_on_as_one_that_was_not(tmp_path):
    whole = study_of()
    whole.optimize(two, n_trials=14)
    for n in (11, 3):
        part = study_of(storage=f'sqlite:///{tmp_path}/a.db', study_name='a', load_if_exists=True)
        part.optimize(two, n_trials=n)
    assert [t.params for t in part.trials]==[t.params for t in whole.trials]

def test_several_under_way_failed_and_branches():
    "Trials under way are believed to end as expected, so that the next one is elsewhere; what failed is not tried again"
    study = study_of()
    def suggested(trial):
        if trial.suggest_categorical('kind', ['a', 'b'])=='b': trial.suggest_int('n', 1, 8)
        return two(trial)
    def objective(trial):
        if trial.number==5: raise ValueError
        if trial.number==6: raise optuna.TrialPruned
        return suggested(trial)
    study.optimize(objective, n_trials=14, catch=ValueError)
    asked = [(t := study.ask(), suggested(t)) for _ in range(4)]
    points = np.array([v for _,v in asked])
    gaps = np.abs(points[:,None]-points).max(2)[np.triu_indices(4, 1)]
    assert gaps.min()>.02, points
    for t,v in asked: study.tell(t, v)
    assert volume(study)>.7

def test_three_goals_of_which_one_is_constant():
    study = optuna.create_study(directions=['minimize', 'maximize', 'maximize'], sampler=BayesSampler(seed=0))
    study.optimize(lambda t: (*two(t), 1.), n_trials=20)
    assert hypervolume(np.array([t.values for t in study.trials])*[-1, 1, 1], [-1, -1, 0])>.75

def test_errors_of_samplers():
    study = optuna.create_study(directions=['minimize', 'maximize'], sampler=BayesSampler(acq='ucb'))
    with pytest.raises(StudyError, match="acq: expected 'logei' in a study with several goals, got 'ucb'"): study.optimize(two, n_trials=1)

widths = dict(width=[2, 4, 8, 16, 32, 64], lr=(1e-2, 1e-1, 'log'))
goals = dict(accuracy='max', n_params='min')
def tune(path, goals=goals, n=4, **kwargs):
    path.mkdir(exist_ok=True)
    def make(p): return digits(path, model=net(p['width']))
    learn = digits(path)
    res = learn.bayes_tune(n, widths, goals=goals, new_learner=make, **{**quick, 'n_trials': 8, 'sampler': None, 'pruner': None, **kwargs})
    return learn,res
def size(learn): return sum(p.numel() for p in learn.model.parameters())

def test_each_trial_of_the_front_has_its_learner(tmp_path, monkeypatch):
    "However few of the best are kept; the learner is the most accurate"
    monkeypatch.setattr(Run, 'n_best_kept', 1)
    learn,res = tune(tmp_path)
    df,all = res.pareto,res.trials[res.trials.state.isin(['complete', 'stopped'])]
    Y = np.array([*zip(all.value, -all.n_params)])
    assert {*df.number}=={*all.number[on_front(Y)]} and df.accuracy.is_monotonic_decreasing and len(df)>1
    for o in df.itertuples():
        own = res.learner(o.number)
        with own.no_bar(): assert own.validate()[1]==pytest.approx(o.accuracy) and size(own)==o.n_params
    with learn.no_bar(): assert learn.validate()[1]==pytest.approx(df.accuracy.max())==pytest.approx(res.best_value)
    ax = res.plot_pareto()
    assert ax.get_xlabel()=='n_params' and ax.get_ylabel()=='accuracy'

@pytest.mark.parametrize('every', [1, .5, 2])
def test_a_study_goes_on(tmp_path, every):
    "In two parts as in one, and with the same goals only, however often the learner is validated"
    _,whole = tune(tmp_path/'a', study_name='s', n_trials=None, budget=26, every=every)
    for n in (19, 26): _,part = tune(tmp_path/'b', study_name='s', n_trials=None, budget=n, every=every)
    cols = ['value', 'epochs', 'width', 'lr', 'n_params']  # the end of a part takes a number in the storage
    assert whole.trials[cols].equals(part.trials[cols])
    for other in (dict(accuracy='max', size_mb='min'), None):
        with pytest.raises(StudyError, match='goals: accuracy max, n_params min'): tune(tmp_path/'b', other, study_name='s', monitor='accuracy', every=every)

def test_goals_of_all_kinds_and_limits(tmp_path):
    "Known before, after an epoch, and at the end; what breaks a limit is not on the front"
    def depth(learn): return len(learn.model)
    kinds = dict(valid_loss=None, depth=(depth, 'max'), seconds_per_epoch='min', accuracy='max', n_params=None)
    _,res = tune(tmp_path, kinds, n=2, n_trials=7, subject_to=dict(n_params=(None, 2000)))
    df = res.pareto
    assert [*df.columns[1:6]]==['valid_loss', 'depth', 'seconds_per_epoch', 'accuracy', 'n_params']
    assert res.study.user_attrs['monitor']=='valid_loss' and [*res.study.user_attrs['subject_to']]==['n_params']
    assert (df.n_params<=2000).all() and (res.trials.state=='infeasible').any() and df.valid_loss.is_monotonic_increasing
    assert len(res.plot_pareto())==4

def test_a_hopeless_size_is_cheap(tmp_path):
    "With pruning, networks that are larger and worse than others end early; the front is not cut"
    _,res = tune(tmp_path, n=8, n_trials=10, recipes=False)
    df = res.trials
    stopped = df[df.state=='stopped']
    front = df[df.number.isin(res.pareto.number)]
    assert len(stopped) and stopped.epochs.sum()<4*len(stopped)
    for o in stopped.itertuples():
        if o.number not in {*front.number}: assert ((front.value>=o.value) & (front.n_params<=o.n_params)).any()

def test_one_goal_has_no_front(tmp_path):
    res = digits(tmp_path).bayes_tune(1, dict(lr=(1e-3, 1e-1, 'log')), **{**quick, 'n_trials': 2})
    assert len(res.pareto)==0 and res.plot_pareto().get_gid()=='sentence'

@pytest.mark.parametrize('how, what', [
    (dict(sampler='tpe'), "TPESampler searches for one goal; use sampler='bayes'"), (dict(pruner='median'), 'MedianPruner judges one goal'),
    (dict(enough=.1), 'enough: is for one goal'), (dict(mode='max'), 'mode: goals say'), (dict(monitor='valid_loss'), 'monitor: expected one of the goals'),
    (dict(sampler=BayesSampler(acq='pi')), 'leave acq out')])
def test_errors(tmp_path, how, what):
    with pytest.raises(TuneError, match=what): tune(tmp_path, **how)

def test_a_reference_point_says_where_to_look():
    "What is below it counts nothing; without one the whole front does"
    def proposed(point):
        study = optuna.create_study(directions=['maximize', 'minimize'], sampler=BayesSampler(seed=0, reference_point=point))
        study.optimize(lambda t: 2*[t.suggest_float('x', 0, 1)], n_trials=25)
        return [t.params['x'] for t in study.trials[12:]]
    assert min(proposed([.7, 1.]))>.65 and min(proposed(None))<.3

@pytest.mark.parametrize('point, match', [(3, 'expected a list with a value for each goal'), (['x', 1], "reference_point: expected a number, got 'x'"),
                                          ([1.], 'expected a value for each goal of the study, 2, got 1')])
def test_bad_reference_point(point, match):
    with pytest.raises(ValueError, match=match):
        study = optuna.create_study(directions=['maximize']*2, sampler=BayesSampler(seed=0, reference_point=point))
        study.optimize(lambda t: 2*[t.suggest_float('x', 0, 1)], n_trials=11)
