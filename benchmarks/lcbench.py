"""Normalised regret against epochs spent on LCBench's learning curves: our engine, Optuna's samplers and pruners, and BoTorch.

    python benchmarks/lcbench.py ../shared/lcbench [--seeds 5] [--methods ours gp ...] [--tasks 3945 ...] [--jobs 2] [--noise .04] [--plot FILE]

The folder holds the simulator: `lcbench.py` with its model. A training has 52 epochs, a run the epochs of 20 full trainings. Regret is that of
the best value seen so far: 0 is the best known, 1 the median of fully trained random configurations. Seeds are `seed*100 + index of the task`;
all methods of Optuna begin with the same random configurations. `--noise` is added to each epoch's value: its standard deviation, as a share of
the spread of the better half's final values, best known minus median. The regret stays that of the true values of the epochs seen."""
import argparse, functools, importlib.util, time, warnings
from pathlib import Path
import numpy as np, torch
from optuna.distributions import FloatDistribution, IntDistribution
from fastai_bayes.space import Space
import racing
from racing import bands, cells, header, hush, race, row, versions

T,FULL = 52,20  # epochs of a full training, full trainings of a run
AT = (1, 2, 5, 10, 20)  # full trainings after which the table looks

@functools.cache
def simulator(folder):
    "The module `lcbench.py` of `folder`"
    spec = importlib.util.spec_from_file_location('lcbench_simulator', Path(folder)/'lcbench.py')
    sim = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sim)
    return sim

def task_names(sim): return list(dict.fromkeys([*sim.TASKS, *sim.REF]))  # the seed depends on the place in this list

def distributions(sim):
    kinds = dict(int=IntDistribution, float=FloatDistribution)
    return {k: kinds[kind](lo, hi, log=log) for k,(kind,lo,hi,log) in sim.SPACE.items()}

class Watched:
    "The simulator's `Trainer` with noise, CPU time of its own, and what became of stopped trainings"
    n_epoch,mode = T,'max'
    def __init__(self, sim, task, noise, seed):
        self.sim,self.task,self.trainer = sim,task,sim.Trainer(task, T*FULL)
        ref = sim.reference(task)
        self.sd,self.rng = noise*(ref['best']-ref['median']),np.random.default_rng([seed, 1])
        self.cpu = 0.
        self.stops,self.left = [],{}  # would it have ended better: for each stop, and by number for each training that is stopped

    def step(self, params, epoch):
        "Value after `epoch`, with noise; raises `Trainer.Out` when the epochs are spent"
        start = time.process_time()
        try: y = self.trainer.step(params, epoch)
        finally: self.cpu += time.process_time()-start
        return y+self.sd*self.rng.standard_normal() if self.sd else y

    def stop(self, number, params):
        "Take down whether training `number`, which stops here, would have ended better than the best value seen"
        start = time.process_time()
        better = bool(self.sim.curve(self.task, params)[-1]>self.trainer.best)
        self.stops.append(better)
        self.left[number] = better
        self.cpu += time.process_time()-start

    def carry_on(self, number): self.left.pop(number)

def botorch(trainer, space, seed):
    "Full trainings that BoTorch's qLogNEI proposes, after 7 Sobol points"
    torch.manual_seed(seed)
    space,d = Space(space),len(space)
    U,y = torch.quasirandom.SobolEngine(d, scramble=True, seed=seed).draw(7, dtype=torch.double),[]
    while True:
        if len(y)==len(U): U = torch.cat([U, promising(U, torch.tensor(y).double()[:,None])])
        params = space.decode(U[len(y)].numpy())
        y.append([trainer.step(params, e) for e in range(1, T+1)][-1])

def promising(U, y):
    "The point (1,d) of the unit cube with the largest qLogNEI, given final values `y` (n,1) at `U` (n,d)"
    from botorch.acquisition.logei import qLogNoisyExpectedImprovement
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import SingleTaskGP
    from botorch.optim import optimize_acqf
    from gpytorch.mlls import ExactMarginalLogLikelihood
    gp = SingleTaskGP(U, (y-y.mean())/y.std().clamp_min(1e-9), outcome_transform=None)
    fit_gpytorch_mll(ExactMarginalLogLikelihood(gp.likelihood, gp))
    bounds = torch.tensor([[0.], [1.]]).double().expand(2, U.shape[1])
    return optimize_acqf(qLogNoisyExpectedImprovement(gp, U), bounds, q=1, num_restarts=8, raw_samples=256)[0]

METHODS = dict(racing.METHODS, botorch=('BoTorch qLogNEI, full trainings', botorch))

def run(folder, method, task, seed, noise):
    "Regret after each epoch, CPU milliseconds an epoch for decisions, `stops` and `left` of `Watched`"
    hush()
    sim = simulator(folder)
    seed = seed*100+task_names(sim).index(task)
    trainer,start = Watched(sim, task, noise, seed),time.process_time()
    try: METHODS[method][1](trainer, distributions(sim), seed)
    except sim.Trainer.Out: pass
    ms = 1e3*(time.process_time()-start-trainer.cpu)/trainer.trainer.spent
    return trainer.trainer.regret(), ms, trainer.stops, list(trainer.left.values())

def share(flags): return f'{np.mean(flags):.1%} of {len(flags)}' if flags else 'none stopped'

def table(res):
    print('\nMean normalised regret (standard error) after the epochs of so many full trainings; CPU milliseconds an epoch for decisions;\n'
          'share of the stopped trainings that would have ended better than the best value seen when they stopped:\n'
          'of those left for good (counted at their last stop), and of all stops, also of trainings carried on later\n')
    header('method', *AT, 'ms', 'better, left for good', 'better, all stops', 'runs')
    for k,runs in res.items():
        r = np.array([o[0] for o in runs])[:,[T*n-1 for n in AT]]
        row(METHODS[k][0], *cells(r), f'{np.mean([o[1] for o in runs]):.1f}', *(share([b for o in runs for b in o[j]]) for j in (3, 2)), len(runs))

def plot(res, fn):
    "Mean regret as a line, a standard error to both sides as a band"
    import matplotlib
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt
    _,ax = plt.subplots(figsize=(8, 5), layout='constrained')
    x = np.arange(4, T*FULL+1)/T  # the first epochs say nothing
    bands(ax, x, {k: np.array([o[0] for o in runs])[:,3:] for k,runs in res.items()}, {k: METHODS[k][0] for k in res})
    ax.set(xlabel='epochs spent, in full trainings', ylabel='mean normalised regret', xscale='log', yscale='log', xlim=(x[0], FULL))
    ticks = [.1, .2, .5, *AT]
    ax.set_xticks(ticks, [f'{o:g}' for o in ticks], minor=False)
    ax.legend(frameon=False, loc='lower left', fontsize=8)
    ax.figure.savefig(fn, dpi=150)

def imports(name):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try: return importlib.import_module(name)
        except ImportError as e: print(f'{name} does not import ({e}): pip install fastai_bayes[bench]')

def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('folder', type=Path, help='of the simulator')
    p.add_argument('--methods', nargs='+', choices=METHODS, default=list(METHODS), metavar='METHOD', help=', '.join(METHODS))
    p.add_argument('--tasks', nargs='+', help="data sets; the simulator's 10 if not given")
    for k,v in dict(seeds=5, jobs=2).items(): p.add_argument(f'--{k}', type=int, default=v)
    p.add_argument('--noise', type=float, default=0., help="standard deviation of each epoch's noise, as a share of best known minus median")
    p.add_argument('--plot', help='file for the plot')
    args = p.parse_args()
    if not (args.folder/'lcbench.py').exists(): p.error(f'expected a folder with the simulator lcbench.py, got {args.folder}')
    if not imports('onnxruntime'): p.error('the simulator needs onnxruntime')
    sim = simulator(args.folder)
    args.tasks = args.tasks or sim.TASKS
    if wrong := set(args.tasks)-set(task_names(sim)): p.error(f'expected tasks out of {task_names(sim)}, got {sorted(wrong)}')
    return args

def main():
    args = arguments()
    if 'botorch' in args.methods and not imports('botorch'):
        args.methods.remove('botorch')
        print('the method botorch is skipped')
    names = ['fastai_bayes', 'optuna', 'numpy', 'scipy', 'torch', 'onnxruntime', *(['botorch'] if 'botorch' in args.methods else [])]
    print(f'{versions(*names)}; seeds 0 to {args.seeds-1}', f'{len(args.tasks)} tasks, noise {args.noise:g}', sep=', ')
    jobs = [(args.folder, m, t, s, args.noise) for s in range(args.seeds) for t in args.tasks for m in args.methods]
    done = race(run, jobs, args.jobs, lambda o: [f'{o[0][T*n-1]:.3f}' for n in AT])
    res = {m: [o for job,o in done.items() if job[1]==m] for m in args.methods}
    table(res)
    if args.plot: plot(res, args.plot)

if __name__=='__main__': main()
