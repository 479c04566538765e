"What goes wrong in a study: each fault through fastai's real loop, and how it ends"
import json, os, re, resource, signal, subprocess, sys, warnings
import optuna, pytest, torch
from contextlib import contextmanager
from optuna.pruners import NopPruner
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from forks import in_fork
from tuning import *
from fastai_bayes.all import *
from fastai_bayes.learner import checkpoint
from fastai_bayes.learner.runner import Run
from fastai_bayes.study.records import trial_id, trials_of
from fastai_bayes.study.storage import Journal

lrs = dict(lr=(1e-3, 1e-1, 'log'))
@pytest.fixture(autouse=True)
def _count(): Break.count = 0

def tune(learn, n=3, space=lrs, **kwargs):
    return learn.bayes_tune(n, space, **{**quick, **dict(pruner=NopPruner(), n_trials=3, study_name='s'), **kwargs})
def by_number(res, what): return res.trials.sort_values('number')[what].tolist()
def plainly(path):
    "The study, as Optuna finds it without this package"
    return optuna.load_study(study_name='s', storage=JournalStorage(JournalFileBackend(f'{path}/models/bayes/s/study.log')))
def curves(study): return [list(t.intermediate_values.values()) for t in trials_of(study.trials)]

class At(Callback):
    "Does `f` in batch `iter` of epoch `epoch` of the training number `which`; copies count together"
    order,count = 70,0
    def __init__(self, f, which=1, epoch=1, iter=1): self.f,self.at = f,(which, epoch, iter)
    def before_fit(self): At.count += 1
    def before_batch(self):
        if self.training and (At.count, self.epoch, self.iter)==self.at: self.f()
@pytest.fixture(autouse=True)
def _start_and_end(tmp_path):
    "Whatever went wrong, the study can be read by Optuna alone"
    At.count = 0
    yield
    if (tmp_path/'models/bayes/s/study.log').exists(): assert plainly(tmp_path).trials is not None

def too_much(): torch.zeros(10**15)
def cuda(): raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 20.00 GiB')
def bug(): raise ZeroDivisionError('division by zero')

@pytest.mark.parametrize('f,reason,oom', [(too_much, 'memory', True), (cuda, 'OutOfMemoryError: .*Tried to allocate', True),
                                          (bug, 'ZeroDivisionError', False)])
def test_an_error_in_a_training(tmp_path, f, reason, oom):
    learn,before = digits(tmp_path),process()
    res = tune(learn, cbs=At(f, 2))
    assert by_number(res, 'state')==['complete', 'failed', 'complete'] and process()==before
    assert re.search(f'(?s){reason}', by_number(res, 'reason')[1])
    s = plainly(tmp_path)
    assert [t.state.name for t in s.trials]==['COMPLETE', 'FAIL', 'COMPLETE'] and s.trials[1].user_attrs.get('out_of_memory', False)==oom
    assert not (res.folder/'trial_1').exists()

class Bad:
    "Items of which one cannot be read"
    def __init__(self, n, bad=()): self.n,self.bad = n,bad
    def __len__(self): return self.n
    def __getitem__(self, i):
        if i in self.bad: raise OSError('image file is truncated')
        return x[i], y[i]

def test_an_error_in_a_loader_worker(tmp_path):
    n = [0]
    dls = DataLoaders(TfmdDL(Bad(96), bs=32, num_workers=1), TfmdDL(Bad(50), bs=50, num_workers=0), path=tmp_path)
    class Spoil(Callback):
        def before_fit(self):
            n[0] += 1
            self.dls.train.dataset.bad = (70,) if n[0]==2 else ()
    res = tune(digits(tmp_path, dls), cbs=Spoil(), n=1)
    assert by_number(res, 'state')==['complete', 'failed', 'complete'] and 'image file is truncated' in by_number(res, 'reason')[1]

def test_an_error_in_the_factory(tmp_path):
    dls,n = loaders(tmp_path),[0]
    def make(p):
        n[0] += 1
        if n[0]==3: raise KeyError('weights')
        return digits(tmp_path, dls, net(p['width']))
    res = tune(digits(tmp_path, dls), space=dict(lrs, width=[8, 16]), new_learner=make)
    assert by_number(res, 'state')==['complete', 'infeasible', 'complete', 'complete'] and 'KeyError' in by_number(res, 'reason')[1]

def test_what_did_not_fit_is_not_tried_again(tmp_path):
    "More than 40 items in a batch are too many: found out once"
    class Card(Callback):
        def before_batch(self):
            if self.training and len(self.xb[0])>40: cuda()
    res = tune(digits(tmp_path), n=1, space=dict(lrs, bs=[8, 16, 32, 48, 64, 80, 96]), pruner=None, n_trials=25, cbs=Card())
    failed = res.trials[res.trials.state=='failed']
    order = failed.sort_values('number').bs.tolist()
    assert order==sorted(set(order), reverse=True) and len(order)<4  # each one smaller than those that failed before
    assert {8, 16, 32}==set(res.trials[res.trials.state=='complete'].bs)

# The disk

@contextmanager
def file_limit(size):
    "No file can become larger than `size` bytes: what a full disk does, without filling it"
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    usual = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try: yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, usual)

def told(w): return [str(o.message) for o in w if any(s in str(o.message) for s in ('could be written', 'could not be saved', 'missing'))]

def test_no_room_for_checkpoints(tmp_path):
    learn = digits(tmp_path, model=net(256))  # weights of 75 kB, checkpoints of 250 kB
    with file_limit(150_000), warnings.catch_warnings(record=True) as w:
        warnings.simplefilter('always')
        res = tune(learn, n_trials=1)
    assert by_number(res, 'state')==['complete'] and res.best_path.exists()
    assert len(told(w))==1 and 'no checkpoint could be written' in told(w)[0]
    assert not list(tmp_path.rglob('*.tmp'))

def test_no_room_for_weights(tmp_path):
    learn = digits(tmp_path, model=net(256))
    before = learn.model.state_dict()['0.weight'].clone()
    with file_limit(50_000), warnings.catch_warnings(record=True) as w:
        warnings.simplefilter('always')
        res = tune(learn, n_trials=1)
    assert by_number(res, 'state')==['complete'] and res.best_value>.1
    assert [next(i for i,p in enumerate(('initial weights', 'best epoch', 'no checkpoint', 'did not change')) if p in o) for o in told(w)]==[0, 1, 2, 3]
    assert learn.model.state_dict()['0.weight'].equal(before)

def test_no_room_for_the_study(tmp_path):
    "It stops, and goes on from there once there is room; all as if nothing had been"
    whole = tune(digits(tmp_path/'a'))
    learn,limit = digits(tmp_path),[]
    def full():
        limit.append(file_limit((tmp_path/'models/bayes/s/study.log').stat().st_size+3))
        limit[0].__enter__()
    before,proc = picture(learn),process()
    with pytest.raises(RecordError, match='(?s)cannot be written.*the same line'):
        try: tune(learn, cbs=At(full, 2))
        finally: limit[0].__exit__(None, None, None)
    assert same(before, picture(learn)) and process()==proc
    assert [t.state.name for t in plainly(tmp_path).trials]==['COMPLETE', 'RUNNING']
    res = tune(learn)
    assert curves(res.study)==curves(whole.study) and curves(plainly(tmp_path))==curves(whole.study)

@pytest.mark.parametrize('damage', [lambda f: f.write_bytes(f.read_bytes()[:1000]), lambda f: f.write_bytes(b''), lambda f: f.unlink()])
def test_damaged_or_missing_checkpoint(tmp_path, damage):
    "The training starts again, and says so"
    whole = tune(digits(tmp_path/'a'))
    tune(digits(tmp_path), cbs=Break(KeyboardInterrupt(), (2,), 2))
    damage(tmp_path/'models/bayes/s/trial_1/checkpoint.pt')
    res = tune(digits(tmp_path))
    assert curves(res.study)==curves(whole.study)
    assert [o[:28] for o in by_number(res, 'reason') if o]==['trained again from the start']

def test_checkpoint_of_another_model(tmp_path):
    "The user has changed the model between the runs"
    tune(digits(tmp_path), cbs=Break(KeyboardInterrupt(), (2,), 2))
    learn = digits(tmp_path, model=net(20))
    before = picture(learn)
    with pytest.raises(StudyError, match=r'(?s)is about something else.*- weights 0.weight: \(16, 64\)\n\+ weights 0.weight: \(20, 64\)'): tune(learn)
    assert same(before, picture(learn))

def test_checkpoint_of_what_a_factory_no_longer_builds(tmp_path):
    "It cannot be carried on; the training starts again. What can be seen in the middle of the space is as before"
    dls = loaders(tmp_path)
    def make(n): return lambda p: digits(tmp_path, dls, net(16 if abs(p['lr']-.01)<1e-6 else n))
    tune(digits(tmp_path, dls), new_learner=make(16), cbs=Break(KeyboardInterrupt(), (2,), 2))
    res = tune(digits(tmp_path, dls), new_learner=make(20))
    assert by_number(res, 'state')==['complete']*3 and by_number(res, 'epochs')==[3]*3
    assert ['another model' in t.user_attrs.get('reason', '') for t in res.study.trials].count(True)==1

# Ctrl-C

def ctrl_c(): os.kill(os.getpid(), signal.SIGINT)

def test_ctrl_c_once_ends_after_the_epoch(tmp_path, keyboard):
    whole = tune(digits(tmp_path/'a'))
    learn,proc = digits(tmp_path),process()
    res = tune(learn, cbs=At(ctrl_c, 2))
    assert by_number(res, 'state')==['complete', 'stopped'] and by_number(res, 'reason')==['', 'interrupted'] and by_number(res, 'epochs')==[3, 2]
    assert process()==proc and abs(learn.validate()[1]-res.best_value)<1e-6
    res = tune(learn)
    assert curves(res.study)==curves(whole.study) and res.best_params==whole.best_params

def test_ctrl_c_twice_ends_at_once(tmp_path, keyboard):
    whole = tune(digits(tmp_path/'a'))
    learn,proc = digits(tmp_path),process()
    res = tune(learn, cbs=At(lambda: (ctrl_c(), ctrl_c()), 2))
    assert by_number(res, 'epochs')==[3, 1] and by_number(res, 'state')==['complete', 'stopped'] and process()==proc
    assert abs(learn.validate()[1]-res.best_value)<1e-6
    assert curves(tune(learn).study)==curves(whole.study)

# Limits

def test_raised_limits_finish_what_was_cut(tmp_path):
    "A training that a budget has cut goes on when there is more of it, and no epoch is trained twice"
    seen = []
    class Count(Callback):
        def after_epoch(self): seen.append(self.epoch)
    whole = tune(digits(tmp_path/'a'), n=4, n_trials=None, budget=12)
    for budget in (3, 6, 9, 12): res = tune(digits(tmp_path), n=4, n_trials=None, budget=budget, cbs=Count())
    assert curves(res.study)==curves(whole.study) and len(seen)==12
    assert tune(digits(tmp_path), n=4, n_trials=None, budget=12, cbs=Count()).best_value==whole.best_value and len(seen)==12

def test_the_process_dies_again_and_again(tmp_path):
    "A training that takes its process with it is given up, the study is not"
    code = f'''import sys, os; sys.path[:0] = [{str(Path(__file__).parent)!r}]
from tuning import *; from fastai_bayes.all import *
from optuna.pruners import NopPruner
def run():
    class Deadly(Callback):
        def before_batch(self):
            if self.lr>.02: os._exit(9)
    digits({str(tmp_path)!r}, cbs=Deadly()).bayes_tune(1, dict(lr=[.01, .03]), pruner=NopPruner(), n_trials=2, study_name='s', **quick)
for _ in range(30):
    pid = os.fork()
    if not pid: run(); os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])==0: break
'''
    in_fork(tmp_path, exec, code, {})
    ends = {t.params['lr']: (t.state.name, t.user_attrs.get('reason', '')) for t in trials_of(plainly(tmp_path).trials)}
    assert ends=={.01: ('COMPLETE', ''), .03: ('FAIL', 'its process died 5 times in epoch 1')}

class Died(BaseException): pass

def died(study, owner, name, when):
    "`study()` in a process that dies in the first call of `name` of `owner` for whose last argument `when` is true; nothing is written after that"
    usual,dead = getattr(owner, name),[]
    def dying(*args):
        dead.extend([1]*when(args[1 if owner is Journal else 0]))
        if dead: raise Died
        return usual(*args)
    with pytest.MonkeyPatch.context() as m, pytest.raises(Died):
        m.setattr(owner, name, dying)
        study()

def test_the_process_dies_twice_in_the_epoch_in_which_a_trial_pauses(tmp_path):
    "Before its value is written, and when the checkpoint says that it pauses but the study not yet: it does not go on"
    def study(name): return tune(digits(tmp_path/name), n=4, n_trials=4, pruner=None).study
    def ends(s): return [(t.state, t.intermediate_values) for t in s.trials if 'cut' not in t.user_attrs]
    whole = study('whole')
    n,at = next((t.number, t.user_attrs['stopped']) for t in whole.trials if 'stopped' in t.user_attrs)
    died(lambda: study('died'), Journal, 'append_logs', lambda logs: any((o.get('trial_id'), o.get('step'))==(n, at) for o in logs))
    died(lambda: study('died'), Journal, 'append_logs', lambda logs: any('stopped' in o.get('user_attr', {}) for o in logs))
    assert ends(study('died'))==ends(whole)

def test_the_process_dies_when_a_pruner_of_optuna_has_decided(tmp_path):
    "It is asked again, and does not take the rung that it noted for one that the trial has passed"
    def study(name): return tune(digits(tmp_path/name), n=4, n_trials=6, sampler='tpe', pruner='asha').study
    whole = study('whole')
    assert any(t.state.name=='PRUNED' for t in whole.trials)
    died(lambda: study('died'), checkpoint, 'write', lambda state: state.get('stopped'))
    assert curves(study('died'))==curves(whole)

@pytest.mark.parametrize('at', [0, 2])
@pytest.mark.parametrize('sampler', ['tpe', 'random', 'pbt', 'bayes', 'tpe asks', 'bayes asks'])
def test_the_process_dies_while_hyperparameters_are_drawn(tmp_path, sampler, at):
    "It draws the rest as if it had not died"
    def build(trial): return digits(tmp_path/'built', model=net(trial.suggest_int('n', 8, 32)), wd=trial.suggest_float('wd', 1e-3, .3))
    sampler,asks = sampler.partition(' ')[::2]
    args = dict(new_learner=build, space=None) if asks else dict(space=dict(**lrs, wd=(1e-3, .3, 'log'), bs=[16, 32, 64]))
    def study(name): return tune(digits(tmp_path/name), n=2, n_trials=3, sampler=sampler, recipes=False, **args).study
    whole = study('whole')
    def draws(o):
        "Our sampler stores what it proposes with the trial, after the first one"
        return 'wd' in o.get('params', ()) if at and sampler=='bayes' and not asks else (o.get('trial_id'), o.get('param_name'))==(at, 'wd')
    died(lambda: study('died'), Journal, 'append_logs', lambda logs: any(map(draws, logs)))
    assert (curves(now := study('died')), [t.params for t in trials_of(now.trials)])==(curves(whole), [t.params for t in trials_of(whole.trials)])

# What is left on the disk, and in the memory

def test_the_disk_is_bounded(tmp_path):
    learn = digits(tmp_path)
    res = learn.bayes_tune(9, lrs, budget=120, study_name='s', **quick)
    had = files(tmp_path)
    assert len([o for o in had if o.endswith('checkpoint.pt')])<=Run.n_best_kept+Run.n_resumable+1 and len([o for o in had if o.endswith('best.pth')])<=Run.n_best_kept+Run.n_resumable+1
    assert sorted(res.trials.state.unique())==['complete', 'stopped'] and len(res.trials)>Run.n_best_kept+Run.n_resumable+2
    assert not [o for o in had if o.endswith('.tmp') or '.part' in o or 'worker' in o]
    assert all(t.user_attrs['resumes']==trial_id(t) for t in res.study.trials if 'resumed_from' in t.user_attrs)

def test_other_studies_are_left_alone(tmp_path):
    learn = digits(tmp_path)
    a = tune(learn, study_name='a')
    had = {o: o.stat().st_mtime_ns for o in a.folder.rglob('*')}
    tune(learn, study_name='b', n_trials=6)
    assert {o: o.stat().st_mtime_ns for o in a.folder.rglob('*')}==had

@pytest.mark.skipif(not Path('/proc/self/statm').exists(), reason='memory is read from /proc')
def test_memory_does_not_grow(tmp_path):
    "After 200 trials there is at most 5 % more of it in use than after 20"
    in_fork(tmp_path, memory_of_trials, tmp_path)
    rss = json.loads((tmp_path/'rss').read_text())
    assert len(rss)==200 and rss[-1]/rss[19]<1.05

def memory_of_trials(path):
    "Pages of memory in use after each of 200 trials, to a file"
    rss = []
    class Rss(Callback):
        def after_fit(self): rss.append(int(open('/proc/self/statm').read().split()[1]))
    digits(path, loaders(path, 64)).bayes_tune(1, dict(lr=(1e-3, 1e-1, 'log')), n_trials=200, cbs=Rss(), **quick)
    (path/'rss').write_text(json.dumps(rss))

# Whatever happens, all is as it was

def broken(*args, **kwargs): raise ArithmeticError('bug')

@pytest.mark.parametrize('where', [f'fastai_bayes.{o}' for o in '''learner.runner.Run.next_trial learner.runner.Run.tell learner.runner.Run.result
    learner.runner.Run.remove_old_files study.sampler.next_training learner.runner.MemoryLimit.allows learner.runner.view learner.runner.Worker.__init__
    learner.display.Silent.update learner.factory.apply_params'''.split()])
def test_an_error_of_ours_leaves_all_as_it_was(tmp_path, monkeypatch, where):
    learn = digits(tmp_path, cbs=[MixUp()])
    monkeypatch.setattr(where, broken)
    before,proc = picture(learn),process()
    with pytest.raises((ArithmeticError, TuneError)): tune(learn, pruner=None, n=1, n_trials=12)
    assert same(before, picture(learn)) and process()==proc
    assert not list(tmp_path.rglob('worker-*'))

def test_checkpoints_now_and_then(tmp_path, monkeypatch):
    "With long intervals there is one after the first epoch, and one where a training is stopped"
    from fastai_bayes.learner import checkpoint
    monkeypatch.setattr(Run, 'checkpoint_every', 1e9)
    written,write = [],checkpoint.write
    monkeypatch.setattr(checkpoint, 'write', lambda state, file: (written.append(state.get('done')), write(state, file)))
    class Second(optuna.pruners.BasePruner):
        def prune(self, study, trial): return len(trial.intermediate_values)==3
    res = tune(digits(tmp_path), n=5, pruner=Second(), n_trials=1)
    assert by_number(res, 'state')==['stopped'] and [o for o in written if o]==[1, 3]

def test_optuna_dashboard_shows_the_study(tmp_path):
    import json
    from optuna_dashboard import wsgi
    from wsgiref.util import setup_testing_defaults
    res = digits(tmp_path).bayes_tune(6, dict(lrs, opt_func=[Adam, SGD]), n_trials=5, study_name='s', **quick)
    app,env,status = wsgi(plainly(tmp_path)._storage),dict(PATH_INFO='/api/studies/0'),[]
    setup_testing_defaults(env)
    got = json.loads(b''.join(app(env, lambda s, *args: status.append(s))))
    assert status==['200 OK'] and got['name']=='s' and [t['number'] for t in got['trials']]==[t.number for t in res.study.trials]
