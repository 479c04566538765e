"""`BayesSearch` + `BayesScheduler` against Ray's own ASHAScheduler, each in a `tune.Tuner` with the same trainable, workers and epochs, on recorded learning curves.

    python benchmarks/ray_tune.py CURVES [--family lcbench] [--tables 5] [--seeds 1] [--full 10] [--workers 4] [--seconds .1]

CURVES is as for `tables.py`, like the regret. The trainable gives the recorded values of the configuration nearest to what the search proposes, one per
epoch of `--seconds`. A run ends when the epochs of `--full` full trainings are spent. Ray's ASHAScheduler has its default settings, but for `max_t`, a full training."""
import argparse, logging, os, tempfile, time
from pathlib import Path
import numpy as np
os.environ['TUNE_DISABLE_AUTO_CALLBACK_LOGGERS'] = '1'  # before Ray is imported
import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.basic_variant import BasicVariantGenerator
from ray.tune.search.optuna import OptunaSearch
from fastai_bayes.ray import BayesScheduler, BayesSearch
from racing import cells, error, header, hush, own_seed, row, versions
from tables import tables

AT = (1, 2, 5, 10, 20)  # full trainings after which the table looks

def trainable(table, folder, args):
    "Recorded curves of `table` as a trainable; nobody begins before all workers have started, which they note in `folder`"
    U,Y,space = table.U,table.Y,list(table.space.items())
    def _unit(v, kind, lo, hi, log): return np.log(v/lo)/np.log(hi/lo) if log else (v-lo)/(hi-lo)
    class Recorded(tune.Trainable):
        def setup(self, config):
            self.reset_config(config)
            (Path(folder)/str(os.getpid())).touch()
            end = time.time()+60
            while len(os.listdir(folder))<args.workers and time.time()<end: time.sleep(.02)
        def reset_config(self, config):
            u = [_unit(config[k], *o) for k,o in space]
            self.curve,self.n = Y[((U-u)**2).sum(1).argmin()],0
            return True
        def step(self):
            time.sleep(args.seconds)
            self.n += 1
            return dict(loss=float(self.curve[self.n-1]))
        def save_checkpoint(self, folder): (Path(folder)/'n').write_text(str(self.n))
        def load_checkpoint(self, folder): self.n = int((Path(folder)/'n').read_text())
    return Recorded  # a class of a function travels by value

class Budget(tune.Stopper):
    "Keeps the loss of every epoch, and ends the run when `most` are spent"
    def __init__(self, most): self.most,self.seen = most,[]
    def __call__(self, trial_id, result):
        self.seen.append(result['loss'])
        return False
    def stop_all(self): return len(self.seen)>=self.most

def asha(T): return ASHAScheduler(max_t=T, time_attr='training_iteration')
def random_asha(T, seed): return BasicVariantGenerator(random_state=seed), asha(T)
def tpe_asha(T, seed): return OptunaSearch(seed=seed), asha(T)
def ours(T, seed):
    search = BayesSearch(T, seed=seed)
    return search, BayesScheduler(search)
METHODS = {'ours': ('BayesSearch + BayesScheduler', ours), 'tpe': ('OptunaSearch + ASHAScheduler', tpe_asha),
           'random': ('random + ASHAScheduler', random_asha)}

def domain(kind, lo, hi, log):
    if kind=='int': return tune.lograndint(lo, hi+1) if log else tune.randint(lo, hi+1)
    return tune.loguniform(lo, hi) if log else tune.uniform(lo, hi)

def run(table, method, seed, args):
    "Regret after each epoch, and number of trials"
    search,scheduler = METHODS[method][1](table.T, seed)
    np.random.seed(seed)
    budget = Budget(args.full*table.T)
    with tempfile.TemporaryDirectory() as path, tempfile.TemporaryDirectory() as folder:
        config = tune.TuneConfig(metric='loss', mode='min', num_samples=-1, search_alg=search, scheduler=scheduler, reuse_actors=True,
                                 max_concurrent_trials=args.workers)
        space = {k: domain(*o) for k,o in table.space.items()}
        res = tune.Tuner(trainable(table, folder, args), param_space=space, tune_config=config,
                         run_config=tune.RunConfig(stop=budget, verbose=0, storage_path=path)).fit()
    seen = np.minimum.accumulate(budget.seen[:budget.most])
    return table.regret(seen), sum('loss' in o.metrics for o in res)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('curves', help='folder with curves.py')
    p.add_argument('--family', choices=('lcbench', 'taskset'), default='lcbench')
    p.add_argument('--methods', nargs='+', choices=METHODS, default=list(METHODS))
    for k,v in dict(tables=5, seeds=1, full=10, workers=4).items(): p.add_argument(f'--{k}', type=int, default=v)
    p.add_argument('--seconds', type=float, default=.1, help='per epoch')
    args = p.parse_args()
    hush()
    all = list(tables(str(Path(args.curves).resolve()), args.family).values())[:args.tables]
    print(f"{versions('fastai_bayes', 'ray', 'optuna', 'numpy', 'scipy')}; {len(all)} tables of {args.family}, seeds 0 to {args.seeds-1}, {args.workers} workers, epochs of {args.seconds:g} s")
    ray.init('local', num_cpus=args.workers, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    at,res = [o for o in AT if o<=args.full],{}
    for table in all:
        for seed in range(args.seeds):
            for m in args.methods:
                start = time.monotonic()
                regret,n = run(table, m, own_seed(table.name, seed), args)
                res.setdefault(m, {}).setdefault(table.name, []).append([*regret[[table.T*o-1 for o in at]], n])
                print(table.name, m, seed, f'{regret[-1]:.3f}', f'{n} trials', f'{time.monotonic()-start:.0f} s', flush=True)
    print('\nMean normalised regret (standard error over tables) after the epochs of so many full trainings, and ours minus it after the last\n')
    header('method', *at, 'trials', 'ours minus it')
    per_table = {m: np.array([np.mean(o, 0) for o in v.values()]) for m,v in res.items()}
    for m,v in per_table.items():
        d = per_table[args.methods[0]][:,-2]-v[:,-2]
        row(METHODS[m][0], *cells(v[:,:-1]), f'{v[:,-1].mean():.0f}', '' if m==args.methods[0] else f'{d.mean():.3f} ({error(d):.3f})')

if __name__=='__main__': main()
