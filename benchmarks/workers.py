"""What `workers=` brings and what it survives, on digits with epochs that sleep.

    python benchmarks/workers.py speed [--workers 8] [--seeds 3]      epochs per second of many workers against one
    python benchmarks/workers.py kills [--workers 4] [--kills 50]     SIGKILL to workers: are curves those of one process without kills?
    python benchmarks/workers.py nodes [--workers 3] [--kills 10]     nodes of a Ray cluster are removed, until one is left: the same
    python benchmarks/workers.py chiefs [--workers 2] [--kills 20]    SIGKILL to the chief: when has the last worker ended, and does the same line go on?
    python benchmarks/workers.py pbt [--workers 4] [--seeds 3]        epochs per second of 8 members of PBT on many workers against one
    python benchmarks/workers.py equal [--workers 4] [--seeds 20]     are equal configurations under way at once, or trained twice?

Each worker imports fastai, which takes some seconds; epochs count from when all have begun. Those of `equal` are forks of a process that has."""
import argparse, os, random, signal, subprocess, sys, tempfile, threading, time
from itertools import combinations
from pathlib import Path
import numpy as np, psutil, torch
from fastai.vision.all import Callback, CrossEntropyLossFlat, DataLoaders, Learner, TfmdDL, accuracy, nn
from sklearn.datasets import load_digits
from torch.utils.data import TensorDataset
from fastai_bayes.all import Ray, Workers
from fastai_bayes.learner import workers
from fastai_bayes.study.records import curve_of, trial_id, trials_of
from racing import header, row, versions
sys.path.append(str(Path(__file__).parents[1]/'tests'))
from forks import context

space = dict(lr=(1e-3, 1e-1, 'log'), bs=[8, 16, 32])

class Sleeps(Callback):
    "Writes down when an epoch begins, in a file per process"
    def __init__(self, path, seconds): self.path,self.seconds = Path(path),seconds
    def before_train(self):
        with open(self.path/f'pid_{os.getpid()}', 'a') as f: f.write(f'{time.time()}\n')
        time.sleep(self.seconds)

def digits(path):
    torch.set_num_threads(1)
    x,y = load_digits(return_X_y=True)
    x,y = torch.tensor(x).float()/16,torch.tensor(y)
    trn,val = TfmdDL(TensorDataset(x[:320], y[:320]), bs=32, shuffle=True, num_workers=0),TfmdDL(TensorDataset(x[-100:], y[-100:]), bs=50, num_workers=0)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10))
    return Learner(DataLoaders(trn, val, path=path), model, loss_func=CrossEntropyLossFlat(), metrics=accuracy)

def tune(path, n_trials, workers, seconds, seed=0, **kwargs):
    "A study whose trials are known in advance, trained to their end"
    rng = random.Random(seed)
    points = [dict(lr=10**rng.uniform(-3, -1), bs=rng.choice(space['bs'])) for _ in range(n_trials)]
    return digits(path).bayes_tune(3, space, n_trials=n_trials, enqueue=points, pruner='none', study_name='s', seed=seed, workers=workers,
                                   cbs=Sleeps(path, seconds), verbose=False, **kwargs)

def stamps(path): return [np.loadtxt(o, ndmin=1) for o in Path(path).glob('pid_*')]
def pids(path): return [int(o.name[4:]) for o in Path(path).glob('pid_*')]
def living(path): return [o for o in pids(path) if psutil.pid_exists(o) and psutil.Process(o).status()!='zombie']

def rate(path):
    "Epochs per second while all workers train"
    all = stamps(path)
    start,end = max(o[0] for o in all),min(o[-1] for o in all)
    return sum(((o>=start) & (o<end)).sum() for o in all)/(end-start)

def ratios(args, train):
    "Epochs per second of `train(path, workers, seed)` with one worker and with many"
    header('seed', 'epochs/s with one', f'with {args.workers}', 'ratio')
    for seed in range(args.seeds):
        res = []
        for n in (1, args.workers):
            with tempfile.TemporaryDirectory() as path:
                train(path, n, seed)
                res.append(rate(path))
        row(seed, *(f'{o:.2f}' for o in res), f'{res[1]/res[0]:.2f}')

def speed(args): ratios(args, lambda path, n, seed: tune(path, 5*n, n, 1., seed))

def pbt(args):
    def _train(path, n, seed):
        digits(path).bayes_tune(8, dict(lr=space['lr']), n_trials=8, sampler='pbt', study_name='s', seed=seed, workers=n, cbs=Sleeps(path, 2.), verbose=False)
    ratios(args, _train)

def curves(study): return [curve_of(t) for t in trials_of(study.trials)]

def survived(args, how, kill):
    "What is left of a study with workers `how`, one of which `kill(path, rng)` ends now and then, `args.kills` times; it says whether it did"
    rng,n,ended = random.Random(0),0,threading.Event()
    def _kill(path):
        nonlocal n
        while n<args.kills and not ended.wait(rng.expovariate(1/args.pause)): n += kill(path, rng)
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as many:
        wanted = curves(tune(one, args.trials, None, 0.).study)
        threading.Thread(target=_kill, args=(many,), daemon=True).start()
        study = tune(many, args.trials, how, .5).study
        ended.set()
        epochs = sum(map(len, stamps(many)))
        last = trials_of(study.trials)
        header('kills', 'trials', 'running', 'failed', 'curves as without', 'epochs trained twice')
        row(n, len(last), sum(t.state.name=='RUNNING' for t in study.trials), sum(t.state.name=='FAIL' for t in last),
            sum(a==b for a,b in zip(curves(study), wanted)), epochs-sum(map(len, wanted)))
        for a,b,t in zip(curves(study), wanted, last):
            if a!=b: print(f'trial {t.number}: {a}, without kills {b}; {t.user_attrs}')

def kills(args):
    def _kill(path, rng):
        alive = living(path)
        if len(alive)<2: return False  # the others are still importing
        os.kill(rng.choice(alive), signal.SIGKILL)
        return True
    survived(args, Workers(args.workers, push=0), _kill)

def nodes(args):
    import ray
    from ray.cluster_utils import Cluster
    one = dict(num_cpus=1, object_store_memory=100_000_000)
    cluster = Cluster(initialize_head=True, head_node_args=dict(one, include_dashboard=False))
    left = [cluster.add_node(**one) for _ in range(args.kills)]
    ray.init(cluster.address, log_to_driver=False)
    def _remove(path, rng):
        if len(living(path))<2: return False
        cluster.remove_node(left.pop())  # when all have gone there is room for one worker, on the first node
        return True
    try: survived(args, Ray(args.workers, push=0), _remove)
    finally:
        ray.shutdown()
        cluster.shutdown()

def chiefs(args):
    rng,took = random.Random(0),[]
    with tempfile.TemporaryDirectory() as path:
        code = f"import workers; workers.tune({path!r}, {args.trials}, workers.Workers({args.workers}, push=0), .5)"
        for _ in range(args.kills):
            before = len(pids(path))
            p = subprocess.Popen([sys.executable, '-W', 'ignore', '-c', code], cwd=Path(__file__).parent)
            while p.poll() is None and len(pids(path))<before+args.workers: time.sleep(.1)
            time.sleep(rng.uniform(0, 2))
            if p.poll() is not None: break
            p.kill()
            p.wait()
            start = time.time()
            while living(path) and time.time()-start<60: time.sleep(.05)
            took.append(time.time()-start)
        res = tune(path, args.trials, args.workers, 0.)
        header('chiefs killed', 'seconds until the last worker ended', 'trials', 'complete')
        row(len(took), f'{max(took):.1f}', len(res.trials), (res.trials.state=='complete').sum())

class Forked:
    "As loky's context, but its processes are forks of one that has imported fastai, and get no environment"
    Pipe = staticmethod(lambda: context().Pipe())
    @staticmethod
    def Process(target, args, env): return context().Process(target=target, args=args)

spaces = {'mixed': dict(space, opt_func=['SGD', 'Adam']), '12 configurations': dict(bs=[8, 16, 32], opt_func=['SGD', 'Adam'], lr=[.01, .03])}

def under_way(trials):
    "How many of Optuna's `trials` are under way when each begins"
    return [sum(b.datetime_start<=a.datetime_start<b.datetime_complete for b in trials) for a in trials]

def twins(trials):
    "Pairs with equal hyperparameters: how many were under way at once, and how many are not parts of the same trial"
    pairs = [(a, b) for a,b in combinations(trials, 2) if a.params==b.params]
    at_once = [max(a.datetime_start, b.datetime_start)<min(a.datetime_complete, b.datetime_complete) for a,b in pairs]
    return sum(at_once), sum(trial_id(a)!=trial_id(b) for a,b in pairs)

def equal(args):
    from processes import storages  # which imports this module
    workers.get_context = lambda name: Forked
    header('storage', 'space', 'runs', 'trials', 'resumed parts', 'most under way', 'equal pairs under way', 'trained twice')
    for kind in args.storages:
        for i,(name,space) in enumerate(spaces.items()):
            seeds = range(i, args.seeds, 2)
            sums,most = np.zeros(4, int),0
            for seed in seeds:
                with tempfile.TemporaryDirectory() as path, storages(kind, path) as storage:
                    trials = digits(path).bayes_tune(2, space, n_trials=8, study_name='s', seed=seed, workers=args.workers, storage=storage,
                                                     cbs=Sleeps(path, .1), verbose=False).study.trials
                n = len(trials_of(trials))
                sums,most = sums+[n, len(trials)-n, *twins(trials)],max(most, *under_way(trials))
            row(kind, name, len(seeds), *sums[:2], most, *sums[2:])

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('what', choices=('speed', 'kills', 'nodes', 'chiefs', 'pbt', 'equal'))
    for k,v in dict(workers=4, seeds=3, kills=50, trials=300).items(): p.add_argument(f'--{k}', type=int, default=v)
    p.add_argument('--pause', type=float, default=2., help='mean seconds between two kills')
    p.add_argument('--storages', nargs='+', default=['journal', 'sqlite', 'postgresql'])
    args = p.parse_args()
    print(versions('fastai_bayes', 'fastai', 'torch', 'loky'))
    dict(speed=speed, kills=kills, nodes=nodes, chiefs=chiefs, pbt=pbt, equal=equal)[args.what](args)

if __name__=='__main__': main()
