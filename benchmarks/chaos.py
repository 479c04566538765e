"""Kill -9 at random instants while `bayes_tune` works on scikit-learn's digits, start the same line again, and look at what is left.

    python benchmarks/chaos.py --kills 100 --seed 0 [--study default fine_tune sqlite factory pbt asha callbacks]
    python benchmarks/chaos.py --writes 1 --study fine_tune --seed 1 [--first 100] [--twice]

The kills are shared among the studies, which take turns. Each waits for a moment of a random kind: training, validation, writing weights or a
checkpoint, writing the study, or the search at work. The exit code is 1 if a training was lost, more epochs were repeated than there were kills, a
log has doubled or missing lines, a file cannot be read, or a curve differs from that of the undisturbed study where they are the same by README.
If so, both folders stay, and the first trial that differs is shown. With `--aside` all files are written while the next epoch is trained, as those of
large models are.

With `--writes n` there is no chance in it: one undisturbed study, and its folder as it was before each `n`th change on the disk (a file that gets its
name, a line of the journal, a transaction, a file that goes). Each copy goes on until two further trials have begun, and must have come by a state in
which the undisturbed study was at the beginning of a trial. With `--twice` it is killed a second time, before one of its next 25 changes."""
import argparse, csv, mmap, os, pickle, random, shutil, signal, sys, tempfile, time, warnings
from collections import Counter
from pathlib import Path
import optuna, torch
from fastai.vision.all import *
from optuna.storages import RDBStorage
from optuna.storages.journal import JournalFileBackend
from sklearn.datasets import load_digits
from torch.utils.data import TensorDataset
from fastai_bayes.all import *
from fastai_bayes.learner import checkpoint, runner, training
from fastai_bayes.study import folder, records as studies, searches
from fastai_bayes.study.storage import JournalLock

phases = 'other training validation files storage engine'.split()
n_epoch,n_trials = 6,14

def learner(path, width=16):
    x,y = load_digits(return_X_y=True)
    x,y = torch.tensor(x).float()/16,torch.tensor(y)
    dls = DataLoaders(TfmdDL(TensorDataset(x[:320], y[:320]), bs=32, shuffle=True, drop_last=True, num_workers=0),
                      TfmdDL(TensorDataset(x[-400:], y[-400:]), bs=100, num_workers=0), path=path)
    torch.manual_seed(0)
    body,head = nn.Sequential(nn.Linear(64, width), nn.Dropout(.1), nn.ReLU()),nn.Linear(width, 10)
    return Learner(dls, nn.Sequential(body, head), loss_func=CrossEntropyLossFlat(), metrics=accuracy, cbs=Phase(),
                   splitter=lambda m: [list(o.parameters()) for o in m])

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
    validated = False # Has this epoch had a batch for validation? Those that are only announced, when a trial resumes, have none
    def after_loss(self): self.validated = not self.training
    def after_validate(self):
        shared[0],shared[1] = 0,shared[1]+(self.validated and hasattr(self.learn, 'bayes_pruning'))  # not what only looks at the learner
        self.validated = False

def during(owner, name, phase):
    "Note when the function `name` of `owner` is at work"
    f = getattr(owner, name)
    def _inner(*args, **kwargs):
        before,shared[0] = shared[0],phases.index(phase)
        try: return f(*args, **kwargs)
        finally: shared[0] = before
    setattr(owner, name, _inner)

def instrument():
    for owner,name in ((checkpoint, 'write'), (training.BestEpoch, 'keep'), (folder, 'to_disk')): during(owner, name, 'files')
    during(JournalFileBackend, 'append_logs', 'storage')
    for o in ('intermediate_value', 'state_values', 'param', 'user_attr', 'system_attr'): during(RDBStorage, f'set_trial_{o}', 'storage')
    for owner,name in ((BayesSampler, 'next'), (BayesPruner, 'prune'), (optuna.samplers.TPESampler, 'sample_independent'),
                       (optuna.pruners.SuccessiveHalvingPruner, 'prune'), (searches.PBT, 'round')): during(owner, name, 'engine')

def factory(path):
    "A function that builds learners and asks for what it needs"
    def new_learner(trial):
        trial.suggest_float('lr', 1e-3, 1e-1, log=True)
        return learner(path, trial.suggest_int('width', 8, 32, log=True))
    return new_learner

class Kind:
    "A kind of study: how it is called, how many trainings it has, and whether its curves are those of an undisturbed one"
    def __init__(self, line, n=n_trials, equal=True): self.line,self.n,self.equal = line,n,equal
space = dict(lr=(1e-3, 1e-1, 'log'), wd=(1e-3, .3, 'log'), bs=[16, 32, 64])
kinds = {
    'default': Kind(lambda path: {}),
    'fine_tune': Kind(lambda path: dict(fit='fine_tune', freeze_epochs=2)),
    'sqlite': Kind(lambda path: dict(storage=f'sqlite:///{path}/study.db')),
    'factory': Kind(lambda path: dict(new_learner=factory(path))),
    'pbt': Kind(lambda path: dict(sampler='pbt', n_trials=8, space=space), n=8),
    'asha': Kind(lambda path: dict(sampler='tpe', pruner='asha', space=space)),
    'callbacks': Kind(lambda path: dict(cbs=[MixUp(), EarlyStoppingCallback('accuracy', min_delta=.01, patience=2), CSVLogger()]))}

def work(path, kind, seed):
    "The line that is killed and started again"
    args = dict(n_trials=n_trials, study_name='chaos', seed=seed, verbose=False)
    return learner(path).bayes_tune(n_epoch, **{**args, **kinds[kind].line(path)})

def forked(f):
    "Number of a new process that does `f`"
    pid = os.fork()
    if pid: return pid
    try: f(); os._exit(0)
    except BaseException: import traceback; traceback.print_exc(); os._exit(1)

def ended(pid):
    "Has the process ended? An error of it is one here"
    got,status = os.waitpid(pid, os.WNOHANG)
    if got and status: raise SystemExit(f'a process failed with status {status}')
    return bool(got)

def kill_in(pid, phase, rng, patience=3.):
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

def disturbed(path, kind, seed, kills, rng):
    "Work that is killed at most `kills` times: where, and how many epochs it took"
    where,shared[1] = [],0
    while True:
        shared[0] = 0
        pid = forked(lambda: work(path, kind, seed))
        if len(where)<kills:
            now = kill_in(pid, rng.randrange(len(phases)), rng)
            if now is None: return where, shared[1]
            where.append(now)
        else:
            while not ended(pid): time.sleep(.01)
            return where, shared[1]

def look(path):
    "What plain Optuna finds, how many files cannot be read or are left over, and how many logs have not one line an epoch"
    d,db = Path(path)/'models'/'bayes'/'chaos',Path(path)/'study.db'
    storage = f'sqlite:///{db}' if db.exists() else optuna.storages.JournalStorage(JournalFileBackend(str(d/'study.log')))
    s,bad = optuna.load_study(study_name='chaos', storage=storage),0
    for f in [*d.rglob('*.pt'), *d.rglob('*.pth')]:
        try: torch.load(f, weights_only=True)
        except Exception: bad += 1
    bad += len([o for o in d.rglob('*') if o.name.endswith(('.tmp', '.part.pth'))])
    return s, bad, sum(map(_log_is_wrong, studies.trials_of(s.trials), [d]*len(s.trials)))

def _log_is_wrong(trial, folder):
    file = folder/f'trial_{studies.trial_id(trial)}'/'history.csv'
    if not file.exists(): return False
    rows = list(csv.reader(file.open()))
    return rows[0][0]!='epoch' or [o[0] for o in rows[1:]]!=[str(i) for i in range(len(trial.intermediate_values))]

def curves_of(trials): return [(dict(t.params), dict(t.intermediate_values)) for t in studies.trials_of(trials)]

def compare(kind, seed, kills, rng):
    "One study killed `kills` times at most, against the same undisturbed"
    a,b = (tempfile.mkdtemp(prefix=f'chaos_{kind}_{seed}_{o}_') for o in ('whole', 'killed'))
    pid = forked(lambda: work(a, kind, seed))
    while not ended(pid): time.sleep(.01)
    where,epochs = disturbed(b, kind, seed, kills, rng)
    (whole,*_),(killed,bad,logs) = look(a),look(b)
    trials,ref = curves_of(killed.trials),curves_of(whole.trials)
    best = [studies.best_of(studies.best_trial(s), s.direction) + (studies.best_trial(s).params,) for s in (whole, killed)]
    ok = [sum(t.state.name in ('COMPLETE', 'PRUNED') for t in studies.trials_of(s.trials)) for s in (killed, whole)]
    res = dict(study=kind, where=where, lost=kinds[kind].n-ok[0], unreadable=bad, logs=logs, repeated=epochs-studies.epochs_spent(killed),
               same=sum(t==r for t,r in zip(trials, ref)), of=len(ref), best=best[0]==best[1], without_kills=kinds[kind].n-ok[1])
    if wrong(res): show_first(whole, killed), print(f'the folders are {a} and {b}')
    else: shutil.rmtree(a), shutil.rmtree(b)
    return res

def show_first(whole, killed):
    "Print the first trial that differs, and all Optuna trials of it"
    both = zip(*(studies.trials_of(s.trials) for s in (whole, killed)))
    first = next((o for o in both if len({repr((t.params, t.intermediate_values)) for t in o})>1), ())
    for name,s,last in zip(('undisturbed', 'killed'), (whole, killed), first):
        for t in s.trials:
            if studies.trial_id(t)!=studies.trial_id(last): continue
            attrs = {k: v for k,v in t.user_attrs.items() if k not in ('worker', 'n_epoch')}
            print(f'{name}: trial {t.number} {t.state.name} {t.params} {t.intermediate_values} {attrs}')

def wrong(r):
    "Is the study of row `r` not what it should be?"
    return (r['lost']>0 or r['unreadable'] or r['logs'] or r['repeated']>len(r['where'])
            or kinds[r['study']].equal and not (r['same']==r['of'] and r['best']))

def summary(name, rows):
    total = lambda k: sum(r[k] for r in rows)
    print(f"{name}: {sum(len(r['where']) for r in rows)} kills in {len(rows)} studies; trainings lost {total('lost')}, files unreadable or left over "
          f"{total('unreadable')}, logs wrong {total('logs')}, epochs repeated {total('repeated')}, trainings as in the undisturbed study "
          f"{total('same')} of {total('of')}, same best in {total('best')} of {len(rows)}; not as it should be {sum(map(wrong, rows))}")

class Writes:
    "Calls `f` with the number and the name of each change on the disk below `root`, before it happens"
    def __init__(self, root, f):
        self.root,self.f,self.n,self.busy = str(root),f,0,False
        sys.addaudithook(self.hook)  # there is no way to take it away: for a process of its own
        from sqlalchemy import Engine, event
        event.listen(Engine, 'commit', lambda _: self.hit(self.root, 'commit'))
    def hook(self, event, args):
        if event not in ('open', 'os.rename', 'os.remove', 'os.rmdir', 'shutil.rmtree'): return
        path = str(args[0])
        if '.lock' in path or path.endswith('.tmp') and event!='os.rename': return  # nothing is read there
        if event!='open' or (args[2] or 0)&(os.O_APPEND|os.O_TRUNC|os.O_EXCL): self.hit(path, event)
    def hit(self, path, event):
        if self.busy or not path.startswith(self.root): return
        self.busy = True
        self.f(self.n, f'{event} {os.path.relpath(path, self.root)}')
        self.n,self.busy = self.n+1,False

def on_next(f):
    "Let `f` see each trial that is about to be trained, and what the study has come by"
    usual = runner.Run.next_trial
    def next_trial(self):
        trial = usual(self)
        f(trial, curves_of(self.study.get_trials(deepcopy=False)))
        return trial
    runner.Run.next_trial = next_trial

def whole_study(path, kind, seed, place):
    "The undisturbed study; in `place` what it had come by before each trial, and its folder before each change"
    states,log = [],[]
    def keep(n, what): log.append((n, what)), shutil.copytree(path, place/str(n), symlinks=True)
    on_next(lambda _, state: states.append(state))
    Writes(path, keep)
    work(path, kind, seed)
    (place/'log').write_bytes(pickle.dumps((states, log)))

def some_trials(path, kind, seed, out, n=3, dies=None):
    "Go on with the study until `n` trials have begun, the first that which was resumed (with pbt all, as members take turns), and put what it has come by into the file `out`"
    left = iter(range(n-1))
    def seen(trial, state):
        if trial is not None and next(left, None) is not None: return
        out.write_bytes(pickle.dumps(state))
        os._exit(0)
    on_next(seen)
    if dies is not None: Writes(path, lambda n, _: n==dies and os.kill(os.getpid(), signal.SIGKILL))
    work(path, kind, seed)

def sweep(kind, seed, first, step, twice):
    "Kill before every `step`th change on the disk: how many did not go on as the undisturbed study"
    base,rng,bad,n = Path(tempfile.mkdtemp(prefix=f'chaos_{kind}_{seed}_')),random.Random(seed),0,0
    path,place,out = base/'study',base/'copies',base/'out'
    path.mkdir(), place.mkdir()
    run = lambda f, *args: os.waitpid(forked(lambda: f(path, kind, seed, *args)), 0)[1]
    if run(whole_study, place): raise SystemExit('the undisturbed study failed')
    states,log = pickle.loads((place/'log').read_bytes())
    for i,what in log[first::step]:
        shutil.rmtree(path), shutil.copytree(place/str(i), path, symlinks=True), out.unlink(missing_ok=True)
        again = rng.randrange(25) if twice else None
        if twice: run(some_trials, out, 99, again)
        if run(some_trials, out, 99 if kind=='pbt' else 3): raise SystemExit(f'killed before {i}: {what}, and could not go on')
        n,state = n+1,pickle.loads(out.read_bytes())
        if state in states: continue
        bad += 1
        last = max(states, key=lambda r: sum(map(tuple.__eq__, r, state))-abs(len(r)-len(state)))  # which is most like it
        print(f'killed before {i}: {what}{f", and {again} changes later" if twice else ""}: '
              f'{next((o for o in zip(last, state) if o[0]!=o[1]), (len(state), "trials"))}', flush=True)
    print(f'{kind}, seed {seed}: killed before {n} of {len(log)} changes on the disk{" twice" if twice else ""}, {bad} went on differently', flush=True)
    shutil.rmtree(base)
    return bad

def sweeps(o):
    os.fsync = lambda _: None  # the machine does not lose power here
    JournalLock.grace = .02  # nor is another process at work
    sys.exit(sum(sweep(k, o.seed, o.first, o.writes, o.twice) for k in o.study)>0)

def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--kills', type=int, default=100)
    p.add_argument('--seed', type=int, default=0)
    p.add_argument('--study', nargs='+', choices=kinds, default=list(kinds), metavar='STUDY', help=', '.join(kinds))
    p.add_argument('--writes', type=int, default=0, metavar='N', help='instead kill before each Nth change on the disk')
    p.add_argument('--first', type=int, default=0, metavar='I', help='of these the first')
    p.add_argument('--aside', action='store_true', help='write all checkpoints and weights while the training goes on, as if they were large')
    p.add_argument('--twice', action='store_true', help='kill a second time soon after')
    o = p.parse_args()
    warnings.simplefilter('ignore')
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if o.aside: checkpoint.Writer.large = 0
    if o.writes: sweeps(o)
    instrument()
    rng,rows,seed = random.Random(o.seed),[],o.seed
    while (done := sum(len(r['where']) for r in rows))<o.kills:
        rows.append(compare(o.study[(seed-o.seed)%len(o.study)], seed, min(12, -(-o.kills//len(o.study)), o.kills-done), rng))
        print(f"seed {seed}: {rows[-1] | dict(where=dict(Counter(rows[-1]['where'])))}", flush=True)
        seed += 1
    print()
    for k in o.study: summary(k, [r for r in rows if r['study']==k])
    summary('all', rows)
    print(f"killed in {dict(Counter(w for r in rows for w in r['where']))}")
    print(f'optuna {optuna.__version__}, torch {torch.__version__}, python {sys.version.split()[0]}, seed {o.seed}')
    sys.exit(any(map(wrong, rows)))

if __name__ == '__main__': main()
