"Several processes on one study"
import importlib.util, optuna, pytest, sys, textwrap
from pathlib import Path
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from fastai_bayes.study.records import trial_id, trials_of
from fastai_bayes.study.storage import Buffered
from forks import in_fork
sys.path.append(str(Path(__file__).parents[1]/'benchmarks'))
from processes import initdb, postgresql

needs_server = pytest.mark.skipif(not (initdb() and importlib.util.find_spec('psycopg')), reason='PostgreSQL and psycopg are not installed')
databases = ['sqlite', pytest.param('postgresql', marks=needs_server)]

@pytest.fixture
def database(request, tmp_path):
    "URL of an empty database"
    if request.param=='sqlite': yield f'sqlite:///{tmp_path}/s.db'
    else:
        with postgresql() as url: yield url

code = '''
import os, random, signal, sys, time
sys.path[:0] = [{tests!r}]
from tuning import *; from fastai_bayes.all import *
from fastai_bayes.learner.runner import Run
Run.max_crashes = {kills}+1  # where epochs are slow, all may hit the same one
storage,n_trials,kills,space = {storage!r},{n_trials},{kills},{space!r}
class Mark(Callback):
    "Says that this process has begun to train"
    def before_train(self): open(f'{path}/{{os.getpid()}}', 'w').close()
def forked():
    pid = os.fork()
    if pid: return pid
    learn = digits({path!r}, loaders({path!r}, 64))
    res = learn.bayes_tune(3, space, n_trials=n_trials, study_name='s', storage=storage, cbs=Mark(), **quick)
    open(f'{path}/best_{{os.getpid()}}', 'w').write(f'{{learn.validate()[1]}} {{res.best_value}}')
    os._exit(0)
def gone(pid): return os.waitpid(pid, os.WNOHANG)[0]!=0
rng = random.Random(0)
a,b = forked(),forked()
for i in range(kills):
    while not os.path.exists(f'{path}/{{b}}'):
        assert not gone(b), 'ended before it could be killed'
        time.sleep(.001)
    time.sleep(rng.uniform(0, .05))
    os.kill(b, signal.SIGKILL); os.waitpid(b, 0)
    b = forked()
for pid in (a, b): assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])==0
pid = forked()  # what a process left behind that ended while the other was still at work
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])==0
'''

def work(path, n_trials, kills=0, storage=None, space=dict(lr=(1e-3, 1e-1, 'log'), bs=[8, 16])):
    tests = str(Path(__file__).parent)
    src = code.format(tests=tests, path=str(path), n_trials=n_trials, kills=kills, storage=storage, space=space)
    in_fork(path, exec, src, {})
    storage = storage or JournalStorage(JournalFileBackend(f'{path}/models/bayes/s/study.log'))
    return optuna.load_study(study_name='s', storage=storage)

def check(study, n_trials, path):
    trials = trials_of(study.trials)
    assert [t.number for t in study.trials]==list(range(len(study.trials)))
    assert len(trials)==n_trials and all(t.state.name in ('COMPLETE', 'PRUNED') for t in trials)
    assert len({tuple(t.params.items()) for t in trials})==n_trials
    assert len({t.user_attrs['worker'] for t in study.trials})>1
    assert not list(Path(path).rglob('worker-*'))
    ended = [[float(o) for o in f.read_text().split()] for f in Path(path).glob('best_*')]  # the learner of each process has the winner
    assert len(ended)==3 and all(abs(o-study.best_value)<1e-6 for pair in ended for o in pair)

def test_two_processes_one_of_them_killed_again_and_again(tmp_path):
    study = work(tmp_path, 40, kills=4)
    check(study, 40, tmp_path)
    died = [t for t in study.trials if t.user_attrs.get('cut')=='died']
    assert 1<=len(died)<=4 and {trial_id(t) for t in died}<={trial_id(t) for t in study.trials if 'resumed_from' in t.user_attrs}

@pytest.mark.parametrize('database', databases, indirect=True)
def test_two_processes_on_a_database(tmp_path, database):
    check(work(tmp_path, 8, storage=database), 8, tmp_path)

@pytest.mark.parametrize('database', databases, indirect=True)
def test_eight_processes_open_an_empty_database_at_once(tmp_path, database):
    src = textwrap.dedent(f'''
        import os; from fastai_bayes.study.studies import open_study
        def forked():
            pid = os.fork()
            if pid: return pid
            open_study(dict(lr=(1e-3, 1e-1, 'log')), 'maximize', 's', {database!r}, seed=1)
            os._exit(0)
        for pid in [forked() for _ in range(8)]: assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])==0
        ''')
    in_fork(tmp_path, exec, src, {})
    assert optuna.get_all_study_names(database)==['s']

def test_two_processes_on_a_finite_space(tmp_path):
    "No configuration is trained twice, and both end when all were tried"
    check(work(tmp_path, 99, space=dict(bs=[8, 16], lr=[.01, .1])), 4, tmp_path)

@pytest.mark.parametrize('database', databases, indirect=True)
def test_an_epoch_makes_few_statements_however_many_trials_there_are(tmp_path, database, monkeypatch):
    "A database is asked once for each new trial, and told each epoch"
    from sqlalchemy import event
    from sqlalchemy.engine import Engine
    import fastai_bayes.all
    from tuning import Callback, digits, quick
    monkeypatch.setattr(Buffered, 'every', 600.)  # on a busy machine an epoch may take longer than the second after which it reads anew
    seen,ends,fits = [0],[],[]
    def count(*args): seen[0] += 1
    class Ends(Callback):
        order = 61  # just before the epoch is reported
        def before_fit(self): fits.append(self)
        def after_epoch(self): ends.append((len(fits), self.epoch, seen[0]))
    def tuned(n):
        learn,at = digits(tmp_path),len(ends)
        res = learn.bayes_tune(4, dict(lr=(1e-3, 1e-1, 'log')), n_trials=n, study_name='s', storage=database, cbs=Ends(), **quick)
        return res,[b[2]-a[2] for a,b in zip(ends[at:], ends[at+1:]) if b[:2]==(a[0], a[1]+1)]
    event.listen(Engine, 'before_cursor_execute', count)
    try:
        res,few = tuned(3)
        t = res.study.trials[0]
        for i in range(100): res.study.add_trial(optuna.trial.create_trial(params=dict(lr=.002+.0005*i), distributions=t.distributions, value=t.value/2,
                                                                          intermediate_values=t.intermediate_values, user_attrs=t.user_attrs))
        _,many = tuned(106)
    finally: event.remove(Engine, 'before_cursor_execute', count)
    assert len(few)>=3 and len(many)>=3 and max(few+many)<=5
