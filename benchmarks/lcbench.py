"""Normalised regret against epochs spent on LCBench's learning curves: our engine, Optuna's samplers and pruners, and other packages.

    python benchmarks/lcbench.py ../shared/lcbench [--seeds 5] [--methods ours gp ...] [--tasks 3945 ...] [--jobs 2] [--plot FILE]
                                 [--tasks others] [--space mixed] [--noise .04] [--cross] [--trainings 20] [--n-epoch 10]

The folder holds the simulator: `lcbench.py` with its model. A training has 52 epochs, a run the epochs of 20 full trainings, or
`--trainings`. Regret is that of the best value seen so far: 0 is the best known, 1 the median of fully trained random configurations. Seeds are
`seed*100 + index of the task`; all methods of Optuna begin with the same random configurations. How to install the other packages stands in `peers.py`.

`--space mixed` makes batch size a place in the list 16, 32, ... 512, and the number of layers and momentum choices without an order.
`--noise` is added to each epoch's value: its standard deviation, as a share of the spread of the better half's final values, best known minus
median. `--cross` adds s(1-log(epoch)/log(52)) to each curve, where s is a normal number of that spread, which a hash of the configuration gives:
early epochs mislead, and the last one is as it was. With both, the regret stays that of the true values of the epochs seen.
`--n-epoch 10` makes trainings short: each of 10 epochs shows what the simulator shows after 6, 11, ... 52."""
import argparse, functools, importlib.util, math, os, time, zlib
from pathlib import Path
import numpy as np
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
import racing
from fastai_bayes.engine.policy import least_epochs
from peers import PEERS, can_run, imports, packages, ready
from racing import bands, cells, header, race, row, versions

T = 52  # epochs that the simulator knows
AT = (1, 2, 5, 10, 20, 30, 45, 60)  # full trainings after which the table looks, as far as a run goes
BATCH = (16, 32, 64, 128, 256, 512)  # batch sizes of the mixed space, where it is a place in this list

@functools.cache
def simulator(folder):
    "The module `lcbench.py` of `folder`"
    spec = importlib.util.spec_from_file_location('lcbench_simulator', Path(folder)/'lcbench.py')
    sim = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sim)
    return sim

def task_names(sim): return [o for o in dict.fromkeys([*sim.TASKS, *sim.REF, *sim.ENC]) if o!='#na#']  # the seed depends on the place in this list

def reference(sim, task, n=20_000, top=10, steps=60):
    "Best and median final value of a task: of `n` random configurations, the best going on from the `top` ones by `steps` of local search"
    rng = np.random.default_rng(0)
    def value(U): return np.clip(sim.query(task, sim.from_unit(U), np.full(len(U), T))[:,1], 0, 100)
    U = rng.random((n, len(sim.NAMES)))
    v = value(U)
    median = float(np.median(v))
    for i in range(steps):
        best = np.argsort(-v)[:top]
        U,v = U[best],v[best]
        moves = (rng.random((top, 40, U.shape[1]))<.5)*rng.standard_normal((top, 40, U.shape[1]))*.2*.9**i
        near = np.clip(U[:,None]+moves, 0, 1).reshape(-1, U.shape[1])
        U,v = np.r_[U, near],np.r_[v, value(near)]
    curves = [sim.curve(task, x).max() for x in sim.from_unit(U[np.argsort(-v)[:3]])]  # the best epoch need not be the last one
    return dict(best=float(max(v.max(), *curves)), median=median)

def distributions(sim, space):
    kinds = dict(int=IntDistribution, float=FloatDistribution)
    res = {k: kinds[kind](lo, hi, log=log) for k,(kind,lo,hi,log) in sim.SPACE.items()}
    if space=='mixed': res |= dict(batch_size=IntDistribution(0, len(BATCH)-1), num_layers=CategoricalDistribution((1, 2, 3, 4, 5)),
                                   momentum=CategoricalDistribution((.1, .5, .8, .9, .95, .99)))
    return res

def shift(params, epoch):
    "How far `--cross` shifts the curve of `params` at `epoch`, in spreads"
    seed = zlib.crc32(np.array(list(params.values()), float).tobytes())
    return np.random.default_rng(seed).standard_normal()*(1-math.log(epoch)/math.log(T))

class Watched:
    "The simulator's `Trainer` of one task, whose values are disturbed, with CPU time of its own, and what became of stopped trainings"
    mode = 'max'
    def __init__(self, sim, task, seed, space, noise, cross, trainings, n_epoch):
        self.sim,self.task,self.space,self.noise,self.cross,self.n_epoch = sim,task,space,noise,cross,n_epoch
        self.trainer,ref = sim.Trainer(task, n_epoch*trainings),sim.reference(task)
        self.spread,self.rng = ref['best']-ref['median'],np.random.default_rng([seed, 1])
        self.cpu = 0.
        self.stops,self.left = [],{}  # would it have ended better: for each stop, and by number, with the end, for each training that is stopped
        self.inside = []  # would it have ended within the band that was expected: for each stop

    def native(self, params):
        "`params` as the simulator wants them"
        p = {k: params[k] for k in self.sim.SPACE}
        return dict(p, batch_size=BATCH[p['batch_size']]) if self.space=='mixed' else p

    def step(self, params, epoch):
        "Value after `epoch`, disturbed; raises `Trainer.Out` when the epochs are spent"
        start,p,epoch = time.process_time(),self.native(params),math.ceil(epoch*T/self.n_epoch)
        try:
            y = self.trainer.step(p, epoch)
            if self.cross: y += self.spread*shift(p, epoch)
            return y+self.noise*self.spread*self.rng.standard_normal() if self.noise else y
        finally: self.cpu += time.process_time()-start

    def stop(self, number, params, explain=None):
        "Take down whether training `number`, which stops here, would have ended better than the best value seen, and as `explain` expects"
        start = time.process_time()
        end = self.sim.curve(self.task, self.native(params))[-1]
        better = bool(end>self.trainer.best)
        self.stops.append(better)
        if explain:
            e = explain()
            self.inside.append(bool(e.low<=end<=e.high))
        self.left[number] = better, end
        self.cpu += time.process_time()-start

    def resume(self, number): self.left.pop(number)
    @property
    def missed(self): return [bool(end>self.trainer.best) for _,end in self.left.values()]  # would it have ended better than all that was seen?

METHODS = {**racing.METHODS, **PEERS}

def run(folder, method, task, seed, **disturbed):
    "Regret after each epoch, CPU milliseconds an epoch for decisions, and of `Watched` `stops`, `left`, `missed` and `inside`"
    sim = simulator(folder)
    ready(method)
    seed = seed*100+task_names(sim).index(task)
    if task not in sim.REF: sim.REF[task] = reference(sim, task)
    trainer = Watched(sim, task, seed, **disturbed)
    space,start = distributions(sim, trainer.space),time.process_time()
    try: METHODS[method][1](trainer, space, seed)
    except sim.Trainer.Out: pass
    ms = 1e3*(time.process_time()-start-trainer.cpu)/trainer.trainer.spent
    left = [b for b,_ in trainer.left.values()]
    return trainer.trainer.regret(), ms, trainer.stops, left, trainer.missed, trainer.inside

def share(flags): return f'{np.mean(flags):.1%} of {len(flags)}' if flags else '-'

def looks(trainings): return [n for n in AT if n<=trainings]

def table(res, trainings, n_epoch):
    print('\nMean normalised regret (standard error) after the epochs of so many full trainings; CPU milliseconds an epoch for decisions;\n'
          'share of the stopped trainings that would have ended better than the best value seen when they stopped:\n'
          'of those left for good (counted at their last stop), and of all stops, also of trainings carried on later;\n'
          'share of those left for good that would have ended better than the best value of the whole run;\n'
          'share of all stops after which the training would have ended within the 95 % band that our engine gave it\n')
    header('method', *looks(trainings), 'ms', 'better, left for good', 'better, all stops', 'better than the best of all', 'within the band', 'runs')
    for k,runs in res.items():
        r = np.array([o[0] for o in runs])[:,[n_epoch*n-1 for n in looks(trainings)]]
        row(METHODS[k][0], *cells(r), f'{np.mean([o[1] for o in runs]):.1f}', *(share([b for o in runs for b in o[j]]) for j in (3, 2, 4, 5)), len(runs))

def plot(res, trainings, n_epoch, fn):
    "Mean regret as a line, a standard error to both sides as a band"
    import matplotlib
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt
    _,ax = plt.subplots(figsize=(8, 5), layout='constrained')
    first = least_epochs(n_epoch)  # before that, epochs say nothing
    x = np.arange(first, n_epoch*trainings+1)/n_epoch
    bands(ax, x, {k: np.array([o[0] for o in runs])[:,first-1:] for k,runs in res.items()}, {k: METHODS[k][0] for k in res})
    ax.set(xlabel='epochs spent, in full trials', ylabel='mean normalised regret', xscale='log', yscale='log', xlim=(x[0], trainings))
    ticks = [.1, .2, .5, *looks(trainings)]
    ax.set_xticks(ticks, [f'{o:g}' for o in ticks], minor=False)
    ax.legend(frameon=False, loc='lower left', fontsize=8)
    ax.figure.savefig(fn, dpi=150)

def has_kernel(method, space):
    "Whether `method` is for the kind of `space`; a line says why not"
    if (method,space)!=('botorch', 'mixed'): return True
    print('botorch is skipped: its kernel is for numbers')
    return False

def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('folder', type=Path, help='of the simulator')
    p.add_argument('--methods', nargs='+', choices=METHODS, default=list(METHODS), metavar='METHOD', help=', '.join(METHODS))
    p.add_argument('--tasks', nargs='+', help="data sets; the simulator's 10 if not given; 'others' for all that it has no reference value of")
    for k,v in dict(seeds=5, jobs=2, trainings=20, n_epoch=T).items(): p.add_argument('--'+k.replace('_', '-'), type=int, default=v)
    p.add_argument('--space', choices=('numbers', 'mixed'), default='numbers', help='mixed has choices')
    p.add_argument('--cross', action='store_true', help='curves cross, early epochs mislead')
    p.add_argument('--noise', type=float, default=0., help="standard deviation of each epoch's noise, as a share of best known minus median")
    p.add_argument('--plot', help='file for the plot')
    args = p.parse_args()
    if not (args.folder/'lcbench.py').exists(): p.error(f'expected a folder with the simulator lcbench.py, got {args.folder}')
    if why := imports('onnxruntime'): p.error(f'the simulator needs onnxruntime: {why}')
    sim = simulator(args.folder)
    args.tasks = [o for o in task_names(sim) if o not in sim.REF] if args.tasks==['others'] else args.tasks or sim.TASKS
    if wrong := set(args.tasks)-set(task_names(sim)): p.error(f'expected tasks out of {task_names(sim)}, got {sorted(wrong)}')
    return args

def main():
    args = arguments()
    args.methods = [o for o in args.methods if has_kernel(o, args.space) and can_run(o)]
    disturbed = dict(space=args.space, noise=args.noise, cross=args.cross, trainings=args.trainings, n_epoch=args.n_epoch)
    names = dict.fromkeys(['fastai_bayes', 'optuna', 'numpy', 'scipy', 'torch', 'onnxruntime', *packages(args.methods)])
    print(f'{versions(*names)}; seeds 0 to {args.seeds-1}', f'{len(args.tasks)} tasks', *(f'{k} {v}' for k,v in disturbed.items()), sep=', ')
    os.environ['PYTHONHASHSEED'] = '0'  # of the processes to come: SMAC searches in the order of a set
    jobs = [(m, t, s) for s in range(args.seeds) for t in args.tasks for m in args.methods]
    done = race(functools.partial(run, args.folder, **disturbed), jobs, args.jobs, lambda o: [f'{o[0][args.n_epoch*n-1]:.3f}' for n in looks(args.trainings)])
    res = {m: [o for job,o in done.items() if job[0]==m] for m in args.methods}
    table(res, args.trainings, args.n_epoch)
    if args.plot: plot(res, args.trainings, args.n_epoch, args.plot)

if __name__=='__main__': main()
