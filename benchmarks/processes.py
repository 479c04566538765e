"""Several processes with the same line and one folder, by hand: epochs per second, how much of the time one holds the turn, statements per epoch.

    python benchmarks/processes.py [--processes 8] [--trials 64] [--seconds .5] [--storages journal sqlite postgresql]

Epochs sleep, so that they need no core of their own; the turn is held while a process claims a trial, and the others wait for it. PostgreSQL is a server
of its own in a temporary folder, which needs its programs (Debian: postgresql) and psycopg[binary]."""
import argparse, glob, json, multiprocessing, os, shutil, subprocess, tempfile, time
from contextlib import contextmanager, nullcontext
from pathlib import Path
from filelock import FileLock
from sqlalchemy import event
from sqlalchemy.engine import Engine
from fastai_bayes.study import workers as turns
from racing import header, row, versions
from workers import Sleeps, digits, rate, stamps

space = dict(lr=(1e-3, 1e-1, 'log'), bs=[8, 16, 32], wd=(1e-4, 1e-1, 'log'))

class Timed(FileLock):
    "A lock that knows how long it was held"
    held = 0.
    def _acquire(self):
        super()._acquire()
        if self.is_locked: self.since = time.monotonic()
    def _release(self):
        if str(self.lock_file).endswith('study.lock'): Timed.held += time.monotonic()-self.since
        super()._release()

def tune(path, storage, i, n_trials, seconds, sampler=None):
    "What each process does; writes what it has counted"
    turns.FileLock,seen = Timed,[]
    event.listen(Engine, 'before_cursor_execute', lambda *args: seen.append(1))
    digits(path).bayes_tune(6, space, n_trials=n_trials, study_name='s', storage=storage, sampler=sampler,
                            cbs=Sleeps(path, seconds), seed=0, verbose=False)
    (path/f'counted_{i}.json').write_text(json.dumps([Timed.held, len(seen)]))

def initdb():
    "The program that makes a cluster of PostgreSQL, None if it is not installed"
    return shutil.which('initdb') or max(glob.glob('/usr/lib/postgresql/*/bin/initdb'), default=None)

@contextmanager
def postgresql():
    "The URL of a server that ends afterwards"
    root,bin = tempfile.mkdtemp(),Path(initdb()).parent
    user = ['runuser', '-u', 'postgres', '--'] if os.getuid()==0 else []  # the server refuses to run as root
    if user: shutil.chown(root, 'postgres')
    def run(*args): subprocess.run([*user, *map(str, args)], cwd=root, check=True, stdout=subprocess.DEVNULL)
    run(bin/'initdb', '-D', f'{root}/data', '-U', 'postgres', '-A', 'trust')
    run(bin/'pg_ctl', '-D', f'{root}/data', '-o', f"-k {root} -c listen_addresses=''", '-w', '-l', f'{root}/log', 'start')
    try: yield f'postgresql+psycopg://postgres@/postgres?host={root}'
    finally:
        run(bin/'pg_ctl', '-D', f'{root}/data', '-m', 'fast', 'stop')
        shutil.rmtree(root)

def storages(kind, path):
    "Context with the storage of that kind"
    return dict(journal=lambda: nullcontext(), sqlite=lambda: nullcontext(f'sqlite:///{path}/s.db'), postgresql=postgresql)[kind]()

def measure(kind, n, args):
    "Epochs per second with `n` processes, share of the time that the turn is held, statements per epoch"
    with tempfile.TemporaryDirectory() as path, storages(kind, path) as storage:
        path,fork = Path(path),multiprocessing.get_context('fork')
        n_trials = args.trials if args.sampler=='pbt' else args.trials*n//args.processes
        processes = [fork.Process(target=tune, args=(path, storage, i, n_trials, args.seconds, args.sampler)) for i in range(n)]
        start = time.monotonic()
        for p in processes: p.start()
        for p in processes: p.join()
        took = time.monotonic()-start
        assert not any(p.exitcode for p in processes)
        held,seen = zip(*(json.loads(o.read_text()) for o in path.glob('counted_*.json')))
        return rate(path), sum(held)/took, sum(seen)/sum(map(len, stamps(path)))

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--processes', type=int, default=8)
    p.add_argument('--trials', type=int, default=64)
    p.add_argument('--seconds', type=float, default=.5)
    p.add_argument('--storages', nargs='+', default=['journal', 'sqlite', 'postgresql'])
    p.add_argument('--sampler', default='bayes')
    args = p.parse_args()
    print(versions('fastai_bayes', 'fastai', 'torch', 'optuna', 'sqlalchemy'))
    header('storage', 'processes', 'epochs/s', 'ratio', 'turn held', 'statements per epoch')
    for kind in args.storages:
        one = None
        for n in (1, args.processes):
            speed,held,seen = measure(kind, n, args)
            one = one or speed
            row(kind, n, f'{speed:.2f}', f'{speed/one:.2f}', f'{held:.0%}', f'{seen:.1f}')

if __name__=='__main__': main()
