"""Kill -9 at random instants while `bayes_tune` works on scikit-learn's digits, start the same line again, and look at what is left.

    python benchmarks/chaos.py --kills 100 --seed 0

Each kill waits for a moment of a random kind: training, validation, writing weights or a checkpoint, writing the study, or the engine at work."""
import argparse, mmap, os, random, signal, sys, tempfile, time, warnings
from collections import Counter
from pathlib import Path
import optuna, torch
from fastai.vision.all import *
from optuna.storages.journal import JournalFileBackend
from sklearn.datasets import load_digits
from torch.utils.data import TensorDataset
from fastai_bayes.all import *
from fastai_bayes import checkpoint, run, sampler, study as studies

phases = 'other training validation files storage engine'.split()
n_epoch,n_trials = 6,14

def learner(path):
    x,y = load_digits(return_X_y=True)
    x,y = torch.tensor(x).float()/16,torch.tensor(y)
    dls = DataLoaders(TfmdDL(TensorDataset(x[:320], y[:320]), bs=32, shuffle=True, drop_last=True, num_workers=0),
                      TfmdDL(TensorDataset(x[-400:], y[-400:]), bs=100, num_workers=0), path=path)
    torch.manual_seed(0)
    return Learner(dls, nn.Sequential(nn.Linear(64, 16), nn.Dropout(.1), nn.ReLU(), nn.Linear(16, 10)), loss_func=CrossEntropyLossFlat(),
                   metrics=accuracy, cbs=Phase())

class Shared:
    "Two numbers that a process and its child both see: what it does, and how many epochs were trained"
    def __init__(self): self.m = mmap.mmap(-1, 16)
    def __getitem__(self, i): return int.from_bytes(self.m[8*i:8*i+8], 'little')
    def __setitem__(self, i, v): self.m[8*i:8*i+8] = int(v).to_bytes(8, 'little')
shared = Shared()

class Phase(Callback):
    order = 100
    def before_train(self): shared[0] = phases.index('training')
    def before_validate(self): shared[0] = phases.index('validation')
    def after_validate(self): shared[0],shared[1] = 0,shared[1]+1

def during(owner, name, phase):
    "Note when the function `name` of `owner` is at work"
    f = getattr(owner, name)
    def _inner(*args, **kwargs):
        before,shared[0] = shared[0],phases.index(phase)
        try: return f(*args, **kwargs)
        finally: shared[0] = before
    setattr(owner, name, _inner)

def instrument():
    for owner,name in ((checkpoint, 'write'), (run.BestEpoch, '_save'), (run, 'to_disk')): during(owner, name, 'files')
    during(JournalFileBackend, 'append_logs', 'storage')
    for owner,name in ((sampler, 'propose'), (run.BayesPruner, 'prune')): during(owner, name, 'engine')

def work(path, seed):
    "The line that is killed and started again"
    return learner(path).bayes_tune(n_epoch, n_trials=n_trials, study_name='chaos', seed=seed, verbose=False)

def forked(path, seed):
    "Number of a new process that does `work`"
    pid = os.fork()
    if pid: return pid
    try: work(path, seed); os._exit(0)
    except BaseException: import traceback; traceback.print_exc(); os._exit(1)

def ended(pid):
    "Has the process ended? An error of it is one here"
    got,status = os.waitpid(pid, os.WNOHANG)
    if got and status: raise SystemExit(f'a process failed with status {status}')
    return bool(got)

def kill_in(pid, phase, rng, patience=20.):
    "Kill the process in the next `phase`, some time from its start on; None if it ended before, else the phase that it was in"
    start,wait = time.monotonic(),rng.expovariate(.5)
    while not ended(pid):
        if time.monotonic()-start>wait and (shared[0]==phase or time.monotonic()-start>wait+patience):
            time.sleep(rng.expovariate(1/.001))
            now = shared[0]
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return phases[now]
        time.sleep(1e-4)

def disturbed(path, seed, kills, rng):
    "Work that is killed at most `kills` times: where, and how many epochs it took"
    where,shared[1] = [],0
    while True:
        shared[0] = 0
        pid = forked(path, seed)
        if len(where)<kills:
            now = kill_in(pid, rng.randrange(len(phases)), rng)
            if now is None: return where, shared[1]
            where.append(now)
        else:
            while not ended(pid): time.sleep(.01)
            return where, shared[1]

def look(path):
    "What plain Optuna finds, and whether all files can be read"
    folder = Path(path)/'models'/'bayes'/'chaos'
    s = optuna.load_study(study_name='chaos', storage=optuna.storages.JournalStorage(JournalFileBackend(str(folder/'study.log'))))
    bad = 0
    for f in [*folder.rglob('*.pt'), *folder.rglob('*.pth')]:
        try: torch.load(f, weights_only=True)
        except Exception: bad += 1
    return s, bad + len([o for o in folder.rglob('*') if o.name.endswith(('.tmp', '.part.pth'))])

def compare(seed, kills, rng):
    "One study killed `kills` times at most, against the same undisturbed"
    with tempfile.TemporaryDirectory() as a, tempfile.TemporaryDirectory() as b:
        pid = forked(a, seed)
        while not ended(pid): time.sleep(.01)
        where,epochs = disturbed(b, seed, kills, rng)
        (whole,_),(killed,bad) = look(a),look(b)
        trials,ref = studies.latest(killed.trials),studies.latest(whole.trials)
        best = [studies.best_of(studies.best_trial(s), s.direction) + (studies.best_trial(s).params,) for s in (whole, killed)]
        same = [t.params==r.params and t.intermediate_values==r.intermediate_values for t,r in zip(trials, ref)]
        return dict(where=where, lost=n_trials-sum(t.state.name in ("COMPLETE", "PRUNED") for t in trials), unreadable=bad,
                    repeated=epochs-studies.epochs_spent(killed), same=sum(same), of=len(ref), best=best[0]==best[1])

def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--kills', type=int, default=100)
    p.add_argument('--seed', type=int, default=0)
    o = p.parse_args()
    warnings.simplefilter('ignore')
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    instrument()
    rng,rows,seed = random.Random(o.seed),[],o.seed
    while (done := sum(len(r['where']) for r in rows))<o.kills:
        rows.append(compare(seed, min(12, o.kills-done), rng))
        print(f"seed {seed}: {rows[-1] | dict(where=dict(Counter(rows[-1]['where'])))}", flush=True)
        seed += 1
    total = lambda k: sum(r[k] for r in rows)
    print(f"\n{sum(len(r['where']) for r in rows)} kills in {len(rows)} studies: {dict(Counter(w for r in rows for w in r['where']))}")
    print(f"trials lost {total('lost')}, files unreadable or left over {total('unreadable')}, epochs repeated {total('repeated')}, "
          f"trainings as in the undisturbed study {total('same')} of {total('of')}, same best in {total('best')} of {len(rows)} studies")
    print(f'optuna {optuna.__version__}, torch {torch.__version__}, python {sys.version.split()[0]}, seed {o.seed}')

if __name__ == '__main__': main()
