"Workers of one call: the same trials as without them, whatever dies"
import multiprocessing, os, psutil, shutil, signal, subprocess, sys, textwrap, threading, time
import pytest
from fastai.callback.progress import CSVLogger
from fastai_bayes.all import *
from fastai_bayes.learner import workers
from fastai_bayes.learner.runner import Run
from fastai_bayes.study.records import curve_of, trial_id, trials_of
from forks import context
from tuning import *

class Forked:
    "As loky's context, but its processes are forks of one that has imported fastai, and get no environment"
    Pipe = staticmethod(lambda: context().Pipe())
    @staticmethod
    def Process(target, args, env): return context().Process(target=started, args=(target, args))

def started(target, args):
    multiprocessing.set_start_method('fork', force=True)  # for loaders' workers
    target(*args)

@pytest.fixture(autouse=True)
def forked(monkeypatch): monkeypatch.setattr(workers, 'get_context', lambda name: Forked)

space = dict(lr=(1e-3, 1e-1, 'log'), bs=[8, 16, 32])
points = [dict(lr=lr, bs=bs) for lr in (.003, .01, .03) for bs in (8, 16)]

def curves(res): return [curve_of(t) for t in trials_of(res.study.trials)]
def states(res): return [t.state.name for t in trials_of(res.study.trials)]

def tuned(path, n_epoch=2, make=digits, **kwargs):
    "Result of a learner in a new folder; its trials are the first `points`, trained to their end"
    path.mkdir()
    given = dict(enqueue=points, n_trials=7, pruner='none') if 'n_trials' not in kwargs else {}
    return make(path).bayes_tune(n_epoch, **{'space': space, **given, **quick, **kwargs})

@pytest.mark.parametrize('fit', ['fit_one_cycle', 'fine_tune'])
def test_curves_are_those_of_one_process(tmp_path, fit):
    one,two = (tuned(tmp_path/f'{n}', fit=fit, cbs=[MixUp(.2), CSVLogger()], workers=n) for n in (None, 2))
    assert curves(one)==curves(two) and len(curves(one))==7
    assert {t.user_attrs['on'] for t in two.study.trials}=={0, 1}
    assert [t.user_attrs['worker'] for t in two.study.trials]==[two.study.trials[0].user_attrs['worker']]*7  # the chief
    a,b = one.learner(),two.learner()
    assert all(torch.equal(v, b.model.state_dict()[k]) for k,v in a.model.state_dict().items())
    logs = [[(r.folder/f'trial_{n}'/'history.csv').read_text().count('\n') for n in range(7)] for r in (one, two)]
    assert logs[0]==logs[1]

@pytest.mark.parametrize('budget', [4, 7])
def test_workers_keep_the_budget_together(tmp_path, budget):
    "An epoch that another trains counts, or all would begin their last one at once"
    res = tuned(tmp_path/'a', 3, n_trials=None, budget=budget, workers=3)
    assert res.trials.epochs.sum()==budget

def test_the_winner_is_in_the_learner(tmp_path):
    learn = digits(tmp_path)
    res = learn.bayes_tune(3, space, n_trials=8, workers=2, **quick)
    assert set(states(res))<={'COMPLETE', 'PRUNED'} and not list(tmp_path.rglob('worker-*'))
    assert [o[2] for o in learn.recorder.values]==[*res.curves.value[res.curves.number==trial_id(res.best_trial)]]
    assert learn.validate()[1]==pytest.approx(res.best_value)

def n_units(learn): return learn.model[0].out_features
def test_workers_measure(tmp_path):
    "What is measured travels, and what is too large is not trained; trials are those of one process"
    def make(p): return digits(tmp_path, model=net(p['width']))
    how = dict(space=dict(width=[4, 8, 16, 32]), new_learner=make, n_trials=2, sampler='random', subject_to=dict(n_units=(n_units, 5, 16), seconds_per_epoch=(None, 60)))
    one,two = (digits(tmp_path).bayes_tune(2, workers=n, **how, **quick) for n in (None, 2))
    for res in (one, two):
        assert res.trials.n_units.equals(res.trials.width.astype(float)) and (res.trials.epochs>0).equals(res.trials.width.isin([8, 16]))
    assert [t.params for t in one.study.trials][:3]==[t.params for t in two.study.trials][:3] and 'infeasible' in {*two.trials.state}

class Dies(Callback):
    "Kills its process in one epoch of the first fit that gets there"
    def __init__(self, mark, at): self.mark,self.at = mark,at
    def before_epoch(self):
        if self.epoch==self.at and not Path(self.mark).exists():
            Path(self.mark).touch()
            os.kill(os.getpid(), signal.SIGKILL)

def test_a_trial_whose_worker_dies_is_resumed_by_another(tmp_path):
    one = tuned(tmp_path/'one', 3)
    two = tuned(tmp_path/'two', 3, workers=workers.Workers(2, push=0), cbs=Dies(str(tmp_path/'mark'), 2))
    assert curves(one)==curves(two) and set(states(two))=={'COMPLETE'}
    died = [t for t in two.study.trials if t.user_attrs.get('reason')=='its process died']
    assert len(died)==1 and len(curve_of(died[0]))==2
    again, = [t for t in two.study.trials if t.user_attrs.get('resumes')==died[0].number]
    assert again.user_attrs['resumed_from']==2  # nothing is trained twice but the epoch in which it died

def test_no_more_trials_than_asked_for(tmp_path):
    "What is enqueued beyond `n_trials` is not trained, not even when a trial is resumed"
    two = tuned(tmp_path/'two', 3, workers=workers.Workers(2, push=0), cbs=Dies(str(tmp_path/'mark'), 2), enqueue=points, n_trials=3, pruner='none')
    assert len(two.trials)==3 and (tmp_path/'mark').exists() and any('resumes' in t.user_attrs for t in two.study.trials)
    assert len(tuned(tmp_path/'three', 1, enqueue=points, n_trials=3, pruner='none').study.trials)==3

def test_a_trial_that_kills_every_worker_has_failed(tmp_path, monkeypatch):
    monkeypatch.setattr(Run, 'max_crashes', 2)
    res = tuned(tmp_path/'a', workers=2, space=dict(lr=(1e-3, .1), bs=[8, 32]), new_learner=Deadly(tmp_path), n_trials=6, enqueue=[dict(lr=.01, bs=8)])
    assert res.trials.state.value_counts()['failed']>=1
    assert all('its process died 2 times in epoch 1' in o for o in res.trials.reason[res.trials.state=='failed'])

class Deadly:
    "A factory whose process dies for one batch size"
    def __init__(self, path): self.path = path
    def __call__(self, params):
        if params['bs']==8 and multiprocessing.parent_process(): os._exit(1)
        return digits(self.path, loaders(self.path, bs=params['bs']))

def gives_up(*args): os._exit(3)
def test_no_worker_can_be_had(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, 'serve', gives_up)
    with pytest.raises(TuneError, match='none is left.*exit code 3'): tuned(tmp_path/'a', workers=2)

def test_what_arrives_cannot_be_read(tmp_path):
    learn = digits(tmp_path, cbs=Unreadable())
    before = picture(learn)
    with pytest.raises(TuneError, match='none is left.*only here'): learn.bayes_tune(1, space, workers=2, **quick)
    assert same(before, picture(learn))

def only_here(): raise ValueError('only here')
class Unreadable(Callback):
    def __reduce__(self): return only_here,()
    def __deepcopy__(self, memo): return self

def test_what_cannot_be_sent_is_named_and_nothing_begins(tmp_path):
    class Locked(Callback):
        def __init__(self): self.lock = Lock()
    for kwargs,name in ((dict(cbs=Locked()), 'Locked'), (dict(new_learner=with_lock(tmp_path), space=dict(lr=(1e-3, .1))), 'new_learner')):
        learn = digits(tmp_path)
        before = picture(learn)
        with pytest.raises(TuneError, match=f'^workers: {name} cannot be sent'): learn.bayes_tune(1, workers=2, **{**quick, **kwargs})
        assert same(before, picture(learn)) and not files(tmp_path)
    with pytest.raises(TuneError, match='^workers: Locked cannot'): digits(tmp_path, cbs=Locked()).bayes_tune(1, workers=2, **quick)

class Lock:
    "Cannot be pickled, but copied"
    def __reduce__(self): raise TypeError('a lock')
    def __deepcopy__(self, memo): return self
def with_lock(path):
    lock = Lock()
    return lambda params: lock and digits(path)

@pytest.mark.parametrize('wrong', [0, -1, 1.5, True, 'gpu', [2], workers.Workers(2, push=-1)])
def test_wrong_workers(tmp_path, wrong):
    with pytest.raises(TuneError, match='^(workers|push): expected'): digits(tmp_path).bayes_tune(1, workers=wrong, **quick)
    assert not files(tmp_path)

def test_gpus_without_a_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 0)
    with pytest.raises(TuneError, match='there is no GPU'): digits(tmp_path).bayes_tune(1, workers='gpus', **quick)

def define_by_run(path):
    def build(trial):
        n = trial.suggest_int('n', 4, 16) if trial.suggest_categorical('act', [nn.ReLU, nn.GELU]) is nn.ReLU else 8
        trial.set_user_attr('made', n)
        return digits(path, model=net(n))
    return build

def test_new_learner_of_a_trial(tmp_path):
    res = tuned(tmp_path/'a', workers=2, new_learner=define_by_run(tmp_path/'a'), space=dict(lr=(1e-3, .1)), n_trials=5)
    assert len(res.trials)==5 and set(res.trials.state)<={'complete', 'stopped'}
    for t in res.study.trials: assert t.user_attrs.get('made', 8)==t.params.get('n', 8) and t.params['act'] in ('ReLU', 'GELU')
    assert isinstance(res.learner(), Learner) and res.best_params['act'] in (nn.ReLU, nn.GELU)

class Bad(Callback):
    "Fails with each kind of error that ends a trial, by its batch size"
    order = 70
    def after_epoch(self):
        if self.dls.bs==8: raise ArithmeticError('wrong')
        if self.dls.bs==16: raise torch.OutOfMemoryError('CUDA out of memory')
        warnings.warn('seen by the chief')

def test_errors_and_warnings_reach_the_chief(tmp_path):
    with pytest.warns(UserWarning, match='seen by the chief'):
        two = tuned(tmp_path/'two', workers=2, cbs=Bad(), enqueue=[dict(lr=.01, bs=b) for b in (32, 8, 16)], n_trials=4, pruner='none')
    by = two.trials.set_index('bs')
    assert set(by.loc[[8], 'state'])=={'failed'} and 'wrong' in by.loc[[8], 'reason'].iloc[0]
    assert any(t.user_attrs.get('out_of_memory') for t in two.study.trials if t.params['bs']==16)

def test_when_none_succeeds_the_error_is_the_cause(tmp_path):
    with pytest.raises(TuneError, match='none succeeded.*broken in the worker') as e:
        tuned(tmp_path/'a', workers=2, cbs=Break(KeyError('broken in the worker'), range(99)))
    assert isinstance(e.value.__cause__, KeyError) and 'after_epoch' in str(e.value.__cause__.__cause__)

def test_pbt(tmp_path):
    res = tuned(tmp_path/'a', 4, workers=2, sampler='pbt', n_trials=4)
    assert list(res.trials.epochs)==[4]*4 and set(res.trials.state)=={'complete'}

class Sleeps(Callback):
    "Sleeps `seconds` in each epoch from `start`, and says which processes do"
    def __init__(self, path, seconds=.3, start=0): self.path,self.seconds,self.start = path,seconds,start
    def before_train(self):
        if self.epoch<self.start: return
        (self.path/f'pid_{os.getpid()}').touch()
        time.sleep(self.seconds)

def pids(path): return [int(o.name[4:]) for o in path.glob('pid_*')]
def all_ended(path, seconds=30):
    "Have the processes of `Sleeps` ended within some seconds?"
    end = time.monotonic()+seconds
    while any(psutil.pid_exists(o) and psutil.Process(o).status()!='zombie' for o in pids(path)) and time.monotonic()<end: time.sleep(.05)
    return not [o for o in pids(path) if psutil.pid_exists(o) and psutil.Process(o).status()!='zombie']

def when(ready, do):
    "A thread that waits until `ready()`, and then calls `do`"
    def wait():
        while not ready(): time.sleep(.02)
        do()
    threading.Thread(target=wait, daemon=True).start()

def test_ctrl_c_twice_leaves_no_process_and_the_study_goes_on(tmp_path, keyboard):
    def twice():
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(.5)
    when(lambda: len(pids(tmp_path))==2, twice)
    learn = digits(tmp_path)
    def line(**kwargs): return learn.bayes_tune(3, space, workers=Workers(2, push=0), study_name='s', n_trials=6, pruner='none', **quick, **kwargs)
    res = line(cbs=Sleeps(tmp_path, 300, 1))  # so long that nothing else can end it
    assert set(res.trials.state)<={'stopped', 'failed', 'complete'} and (res.trials.reason=='interrupted').sum()==2
    assert all_ended(tmp_path, 5)
    assert states(line())==['COMPLETE']*6

def test_ctrl_c_once_ends_after_the_epoch(tmp_path, keyboard):
    when(lambda: list(tmp_path.rglob('checkpoint.pt')), lambda: os.kill(os.getpid(), signal.SIGINT))
    res = digits(tmp_path).bayes_tune(9, space, workers=Workers(2, push=0), n_trials=6, cbs=Sleeps(tmp_path), **quick)
    assert 1<=len(res.trials)<=2 and all(curves(res)) and not any(t.state.name=='RUNNING' for t in res.study.trials)

def test_a_worker_ends_when_the_chief_does(tmp_path):
    tmp = tmp_path/'tmp'
    tmp.mkdir()
    ours,theirs = context().Pipe()
    p = context().Process(target=workers.serve, args=(theirs, tmp, workers.dumps(None), workers.dumps(None)))
    p.start()
    theirs.close()
    ours.close()  # as the operating system does when a process dies
    p.join(30)
    assert p.exitcode is not None and not tmp.exists()

def test_a_script_without_a_guard(tmp_path):
    "Real workers, that import fastai anew and know nothing of the script but what they are sent"
    tests = str(Path(__file__).parent)
    code = textwrap.dedent(f'''
        import sys; sys.path[:0] = [{tests!r}]
        from tuning import *; from fastai_bayes.all import *
        class Mine(Callback):
            def after_epoch(self): assert torch.get_num_threads()==1
        f = lambda a,b: accuracy(a, b)
        learn = digits({str(tmp_path)!r}, metrics=AvgMetric(f))
        res = learn.bayes_tune(1, dict(lr=(1e-3, .1)), n_trials=2, workers=1, monitor='<lambda>', mode='max', cbs=Mine(), study_name='s', **quick)
        assert set(res.trials.state)=={{'complete'}}''')
    (tmp_path/'script.py').write_text(code)
    subprocess.run([sys.executable, '-W', 'ignore', 'script.py'], cwd=tmp_path, check=True, timeout=300)

@pytest.mark.parametrize('app', ['segmentation', 'tabular_classes', 'collab', 'text_classes', 'torch_loaders', 'mixed_precision'])
def test_learners_travel(tmp_path, app):
    "A learner that was sent trains as it would have here"
    import test_applications as apps
    path = tmp_path/'sent'
    path.mkdir()
    learn = apps.made('classification', path).to_fp16() if app=='mixed_precision' else apps.made(app, path)
    learn.bayes_tune(1, dict(lr=(1e-4, 1e-1, 'log')), n_trials=1, workers=1, study_name='s', **quick)
    there = learn.recorder.values[0]
    alone = apps.made('classification', tmp_path).to_fp16() if app=='mixed_precision' else apps.made(app, tmp_path)
    alone.bayes_tune(1, dict(lr=(1e-4, 1e-1, 'log')), n_trials=1, study_name='s', **quick)
    assert there==alone.recorder.values[0] and len(there)>=2

# A store for large files

def stored(path, url, **kwargs):
    path.mkdir(exist_ok=True)
    given = dict(budget=24, study_name='s', workers=Workers(2, push=0, store=url), **quick)
    return digits(path).bayes_tune(4, space, **{**given, **kwargs})
def content(url): return sorted(str(o.relative_to(url)) for o in Path(url).rglob('*') if o.is_file())

@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(Workers, 'store_of', lambda self, study: self.store and workers.Store(str(self.store), study, 1000))

def test_large_files_go_to_the_store(tmp_path, small):
    "What the chief keeps are pointers; trials, winner and learners are as without; what is not needed is removed"
    url = tmp_path/'shared'
    res = stored(tmp_path/'a', url, recipes=False)
    assert any('resumed_from' in t.user_attrs for t in res.study.trials)
    pointers = [o for o in res.folder.rglob('trial_*/*.pt*') if o.stat().st_size<1000 and o.name!='recorder.pt']
    assert pointers and all(o.read_bytes().startswith(b'fastai_bayes: this file is in the store') for o in pointers)
    assert len(content(url))==len(pointers)
    assert res.learner().validate()[1]==pytest.approx(res.best_value) and res.best_path.stat().st_size>1000
    kept = [int(o.parent.name[6:]) for o in res.folder.glob('trial_*/best.pth')]
    values = dict(zip(res.trials.number, res.trials.value))
    for n in kept: assert res.learner(n).validate()[1]==pytest.approx(values[n])

def test_a_study_with_a_store_goes_on(tmp_path, small):
    "As without a store, from there only, and without its files from the start"
    given = dict(enqueue=points, n_trials=4, pruner='none')
    wanted = stored(tmp_path/'one', None, **given, budget=None, workers=None)
    first = stored(tmp_path/'a', tmp_path/'shared', **given, budget=7)
    assert first.trials.epochs.sum()==7 and content(tmp_path/'shared')
    assert any('cut' in t.user_attrs for t in first.study.trials)
    with pytest.raises(TuneError, match=r'files of this study are in a store; give it, as in workers=Workers\(4, store'):
        stored(tmp_path/'a', None, **given, budget=None)
    assert curves(stored(tmp_path/'a', tmp_path/'shared', **given, budget=None))==curves(wanted)

def test_pbt_copies_what_is_in_the_store(tmp_path, small):
    "A member that takes over the weights of another has them from there; curves are those of one process"
    given = dict(sampler='pbt', n_trials=8, budget=None)
    wanted = stored(tmp_path/'one', None, **given, workers=None)
    res = stored(tmp_path/'a', tmp_path/'shared', **given)
    assert curves(res)==curves(wanted) and content(tmp_path/'shared')

def test_the_store_is_lost(tmp_path, small):
    "What cannot be fetched says so, and the study goes on with the others"
    given = dict(enqueue=points, n_trials=3, pruner='none')
    stored(tmp_path/'a', tmp_path/'shared', **given, budget=5)
    shutil.rmtree(tmp_path/'shared')
    res = stored(tmp_path/'a', tmp_path/'shared', **given, budget=40)
    assert any('cannot be read from' in o for o in res.trials.reason) and 'complete' in set(res.trials.state)

@pytest.mark.parametrize('store, match', [(3, 'store: expected a URL, got 3'), ('nosuch://x', "store: 'nosuch://x' cannot be used"), ('/dev/null/x', 'cannot be used')])
def test_bad_store(tmp_path, store, match):
    with pytest.raises(TuneError, match=match): stored(tmp_path/'a', store)
    assert not list(tmp_path.rglob('study.log'))
