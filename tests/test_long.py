"What a trial costs does not grow with the number of trials before it, and what the engine knows is written once"
import json, math
import numpy as np, optuna, pytest
from optuna.trial import TrialState, create_trial
from tuning import *
from fastai_bayes.all import *
from fastai_bayes.learner import runner as run
from fastai_bayes.study.cache import last_fit
from fastai_bayes.study.records import Latest, trial_id, trials_of
from fastai_bayes.study.search_space import distributions
from fastai_bayes.study.studies import open_study

space = dict(lr=(1e-3, 1e-1, 'log'), wd=(1e-3, .3, 'log'))
def trial(rng, n=4, done=None, **attrs):
    "One that has ended; `n` epochs are a whole training"
    p,done = Space(space).decode(rng.random(2)),done or int(rng.integers(1, n+1))
    curve = {i: float(-abs(math.log10(p['lr'])+2)-.1/i) for i in range(1, done+1)}
    return create_trial(state=TrialState.COMPLETE if done==n else TrialState.PRUNED, value=curve[done] if done==n else None, params=p,
                        distributions=distributions(Space(space)), intermediate_values=curve, user_attrs=dict(n_epoch=n, **attrs))

def test_latest_time_after_time():
    "As from the start, whatever ends when"
    study,rng,last = optuna.create_study(),np.random.default_rng(0),Latest(lambda t: t)
    for i in range(40):
        study.add_trial(trial(rng, **(dict(resumes=int(rng.integers(i)), resumed_from=0) if i and rng.random()<.3 else {})))
        if rng.random()<.3: study.ask()
        for t in study.get_trials(states=(TrialState.RUNNING,)):
            if rng.random()<.4: study.tell(t.number, 0.)
        trials = study.get_trials(deepcopy=False)
        assert [*last(trials).items()]==[(trial_id(t), t) for t in trials_of(trials)]

def test_what_was_fitted_is_kept_once():
    "The storage holds it all, a part when it is new; who opens the study has it"
    study = optuna.create_study(sampler=BayesSampler(4, seed=0), direction='maximize')
    rng,sizes = np.random.default_rng(0),[]
    for _ in range(40):
        _,_,fit = study.sampler.next(study, Space(space))
        t = trial(rng)
        if fit: t.system_attrs['engine'] = json.loads(json.dumps(fit))
        study.add_trial(t)
        sizes.append(len(json.dumps(fit)) if fit else 0)
    whole = last_fit(study.trials, Space(space), 4)
    assert {*whole}=={'final', 'curves'} and whole['final'][0]==34 and len(whole['final'][1])==7
    assert last_fit(study.trials, Space(space), 5)=={}  # trainings of another length
    assert sum(sizes[26:])<.4*14*len(json.dumps(whole)) and sum('final' in t.system_attrs.get('engine', '') for t in study.trials[26:])<3

def test_a_decision_changes_nothing():
    study = optuna.create_study(sampler=BayesSampler(4, seed=0), pruner=BayesPruner(4), direction='maximize')
    rng = np.random.default_rng(0)
    study.add_trials([trial(rng) for _ in range(20)])
    t = study.ask(distributions(Space(space)))
    fit = last_fit(study.trials, Space(space), 4)
    for i in (1, 2, 3): t.report(-9.-i, i); t.should_prune()
    assert fit and last_fit(study.trials, Space(space), 4)==fit and study.trials[-1].system_attrs['engine'].items()>=fit.items()

def grown(path, n):
    "Calls in three more trials of a study of `n`"
    learn,calls = digits(path),dict(best_of=0, has=0, state_of=0)
    learn.bayes_tune(4, space, n_trials=1, study_name='s', **quick)
    study = optuna.load_study(study_name='s', storage=optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(path/'models'/'bayes'/'s'/'study.log'))))
    rng = np.random.default_rng(0)
    study.add_trials([trial(rng) for _ in range(n)])
    with pytest.MonkeyPatch.context() as m:
        def count(name):
            f = getattr(run, name)
            def g(*args, **kwargs):
                calls[name] += 1
                return f(*args, **kwargs)
            m.setattr(run, name, g)
        for k in calls: count(k)
        res = digits(path).bayes_tune(4, space, n_trials=n+4, study_name='s', **quick)
    assert len(res.trials)==n+4
    return calls, path/'models'/'bayes'/'s'

def test_what_ended_is_looked_at_once(tmp_path):
    (few,_),(many,folder) = grown(tmp_path/'a', 10),grown(tmp_path/'b', 200)
    for k in few: assert many[k]<=few[k]+2*200, k  # once when the study is opened, once when it is read at the end
    lines = [json.loads(o) for o in open(folder/'study.log')]
    engine = [len(json.dumps(o)) for o in lines if '"engine"' in json.dumps(o)]
    assert len(engine)<=3
