"""Normalised regret on recorded learning curves, with what studies of the other tables know beforehand, and without.

    python benchmarks/tables.py CURVES [--family lcbench] [--seeds 3] [--methods ours none ...] [--studies 10 | --full] [--wrong [family]]
                                       [--at 1 2 5 ...] [--jobs 2] [--plot FILE]

CURVES is a folder with `curves.py`, which gives tables of real curves of LCBench (Zimmer et al. 2021) or TaskSet (Metz et al. 2020): a search
proposes hyperparameters, and trains the nearest configuration of the table that it has not begun. Each table in turn is the new data set; the
others are known: by studies of 20 full trainings that our engine made of `--studies` of them, or `--full`, by all their curves. `--wrong` turns
the sign of what is known; with `--wrong family` the studies are of the other family, which has only the name of the learning rate in common.
Regret 0 is the best of the table, 1 its median configuration, fully trained. How to install other packages, whose
methods are left out without them, stands in `peers.py`; they see a diverged training as the worst of its table."""
import argparse, functools, os, random, time
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
import numpy as np
from fastai_bayes.engine.knowledge import EarlierStudy, portfolio
from fastai_bayes.engine.space import Space
from fastai_bayes.study.search_space import distributions
from peers import PEERS, can_run, neps, packages, ready
from racing import OPTUNA, bands, cells, header, ours, own_seed, race, row, through_optuna, versions

FAMILIES = 'lcbench','taskset'
AT = (1, 2, 5, 10, 20)  # full trainings after which the table looks
FULL = AT[-1]

@functools.cache
def tables(path, family):
    "Name -> table"
    spec = spec_from_file_location('recorded_curves', Path(path)/'curves.py')  # a benchmark is called curves.py, too
    recorded = module_from_spec(spec)
    spec.loader.exec_module(recorded)
    return {o.name: o for o in recorded.tables(family)}

class Trainer:
    "Trainings of the rows of a table, until the epochs of a run are spent"
    mode = 'min'
    class Out(Exception): pass
    def __init__(self, table):
        self.table,self.n_epoch,self.rows,self.seen = table,table.T,{},[]
        self.space = {k: (lo, hi, 'log') if log else (lo, hi) for k,(_,lo,hi,log) in table.space.items()}
    def row(self, params):
        key = tuple(params.values())
        if key not in self.rows: self.rows[key] = self.table.nearest(params, list(self.rows.values()))
        return self.rows[key]
    def step(self, params, epoch):
        if len(self.seen)==FULL*self.n_epoch: raise Trainer.Out
        self.seen.append(float(self.table.Y[self.row(params),epoch-1]))
        return self.seen[-1]
    def stop(self, number, params, explain=None): pass
    def resume(self, number): pass
    def regret(self):
        "That of the worst configuration until a finite value was seen"
        seen = np.minimum.accumulate(np.where(np.isfinite(self.seen), self.seen, np.inf))
        return self.table.regret(np.minimum(seen, self.table.worst))

# Knowledge

@dataclass(frozen=True)
class Setup:
    "What is raced"
    curves:str # Folder of the simulator
    family:str # Of the tables
    studies:int # How many other tables are known
    full:bool # Are all curves of all other tables known?
    wrong:str='' # 'sign': with the wrong sign; 'family': of the other family

class Recorder(Trainer):
    "Keeps the curve of each row"
    def __init__(self, table):
        super().__init__(table)
        self.curves = {}
    def step(self, params, epoch):
        y = super().step(params, epoch)
        self.curves.setdefault(self.row(params), []).append(y)
        return y

@functools.cache
def study(path, family, name):
    "What a study of our engine, without knowledge, leaves of a table: pairs of hyperparameters and curve"
    trainer = Recorder(tables(path, family)[name])
    try: ours(trainer, trainer.space, own_seed(name, 'study'))
    except Trainer.Out: pass
    return [(trainer.table.params(i), c) for i,c in trainer.curves.items()]

def whole(table): return [(table.params(i), list(y)) for i,y in enumerate(table.Y)]

def known(setup, name, seed):
    "Studies of other tables than `name`"
    other, = {*FAMILIES}-{setup.family}
    family = other if setup.wrong=='family' else setup.family
    all = tables(setup.curves, family)
    others = sorted(all.keys()-{name})
    others = random.Random(f'{seed} {name}').sample(others, len(others))
    pairs = [whole(all[o]) for o in others] if setup.full else [study(setup.curves, family, o) for o in others[:setup.studies]]
    return [[(p, [-y for y in c]) for p,c in o] for o in pairs] if setup.wrong=='sign' else pairs

# Searches: functions of a trainer, a seed, and a function that gives what is known

def fully(trainer, params):
    for e in range(1, trainer.n_epoch+1): trainer.step(params, e)
def at_random(trainer, seed):
    rng,space = np.random.default_rng(seed),Space(trainer.space)
    while True: yield space.decode(rng.random(len(space)))
def first_epochs(trainer, seed, known, full):
    "One epoch each for half the epochs of `full` trainings, then the best to the end"
    tried,new = [],at_random(trainer, seed)
    for _ in range(full*trainer.n_epoch//2):
        params = next(new)
        tried.append((trainer.step(params, 1), len(tried), params))
    for *_,params in sorted(tried, key=lambda o: (not np.isfinite(o[0]), o[0], o[1])):
        for e in range(2, trainer.n_epoch+1): trainer.step(params, e)
def starts(trainer, known, n=FULL):
    space = Space(trainer.space)
    return [space.decode(x) for x in portfolio([EarlierStudy(o, space, -1) for o in known()], space, n)]
def from_portfolio(trainer, seed, known):
    for params in starts(trainer, known): fully(trainer, params)
def with_knowledge(trainer, seed, known):
    ours(trainer, trainer.space, seed, from_studies=known())

def believing(trainer, seed, known, decades=5):
    "With a belief about the learning rate that is `decades` off, or at the end of the range that is farther"
    lo,hi,_ = trainer.space['learning_rate']
    lr = trainer.table.params(int(np.nanargmin(np.nanmin(trainer.table.Y, 1))))['learning_rate']
    off = max(lr/10**decades, lo) if lr/lo>hi/lr else min(lr*10**decades, hi)
    ours(trainer, trainer.space, seed, prior=dict(learning_rate=off))

def optuna(trainer, seed, known, pair, warm=False):
    "The sampler and pruner `pair`; `warm` with the portfolio enqueued"
    _,sampler,pruner = OPTUNA[pair]
    through_optuna(trainer, distributions(Space(trainer.space)), seed, sampler, pruner, starts(trainer, known) if warm else ())

class Maximised:
    "`trainer` for other packages, which maximise and want finite values"
    mode = 'max'
    def __init__(self, trainer): self.trainer,self.n_epoch = trainer,trainer.n_epoch
    def step(self, params, epoch):
        y = self.trainer.step(params, epoch)
        return -y if np.isfinite(y) else -self.trainer.table.worst
    def stop(self, number, params): pass
    def resume(self, number): pass

def peer(trainer, seed, known, search): search(Maximised(trainer), distributions(Space(trainer.space)), seed)
def priorband(trainer, seed, known):
    "The best configuration of the portfolio is the belief"
    peer(trainer, seed, known, functools.partial(neps, method='priorband', belief=starts(trainer, known, 1)[0]))

METHODS = {  # name on the command line: name in the table, search
    'ours': ('ours, with earlier studies', with_knowledge),
    'none': ('ours, without earlier studies', lambda trainer, seed, known: ours(trainer, trainer.space, seed)),
    'belief': ('ours, with a belief that is five decades off', believing),
    'portfolio': ('portfolio of the same studies, no search', from_portfolio),
    'first': ('one epoch each for half the epochs, then the best (a budget each)', None),
    'tpe-warm': ('Optuna TPE + median, portfolio enqueued', functools.partial(optuna, pair='tpe-median', warm=True)),
    'priorband-warm': ('NePS PriorBand, best of the portfolio as prior', priorband),
    **{k: (OPTUNA[k][0], functools.partial(optuna, pair=k)) for k in ('random', 'tpe-median', 'tpe-hyperband', 'gp')},
    **{k: (label, functools.partial(peer, search=f)) for k,(label,f) in PEERS.items()}}

def trace(search, table, *args):
    "Regret after each epoch of `search`"
    trainer = Trainer(table)
    try: search(trainer, *args)
    except Trainer.Out: pass
    regret = trainer.regret()
    return np.r_[regret, np.full(FULL*trainer.n_epoch-len(regret), regret[-1])]

def by_budget(table, seed):
    "That of `first_epochs`, which plans for the epochs that it has, for each of the budgets at which the table looks"
    ends = [0, *(n*table.T for n in AT)]
    return np.concatenate([trace(first_epochs, table, seed, None, n)[a:b] for n,a,b in zip(AT, ends, ends[1:])])

def run(setup, name, method, seed):
    "Regret after each epoch, and CPU seconds"
    ready(method)
    table,start = tables(setup.curves, setup.family)[name],time.process_time()
    def _known():
        nonlocal start
        res,start = known(setup, name, seed),time.process_time()
        return res
    search,own = METHODS[method][1],own_seed(name, seed)
    regret = trace(search, table, own, _known) if search else by_budget(table, own)
    return regret, time.process_time()-start

def report(res, at):
    "A row for each method: means over tables and seeds, standard errors over tables"
    header('method', *(f'{o:g}' for o in at), 'CPU s')
    for m,runs in res.items():
        T = len(next(iter(runs.values()))[0][0])//FULL
        per_table = np.array([np.mean([o[0][[round(T*n)-1 for n in at]] for o in v], 0) for v in runs.values()])
        row(METHODS[m][0], *cells(per_table), f'{np.mean([o[1] for v in runs.values() for o in v]):.1f}')

def plot(fn, res):
    import matplotlib
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt
    fig,ax = plt.subplots(figsize=(9, 6), layout='constrained')
    traces = {m: np.array([np.mean([o[0] for o in v], 0) for v in runs.values()]) for m,runs in res.items()}
    x = np.arange(1, len(next(iter(traces.values()))[0])+1)
    bands(ax, FULL*x/x[-1], traces, {k: METHODS[k][0] for k in traces})
    ax.set(xscale='log', yscale='log', xlim=(.3, FULL), ylim=(.01, 2), xlabel='epochs spent, in full trials', ylabel='mean normalised regret')
    ax.set_xticks(AT, AT)
    ax.legend(frameon=False)
    fig.savefig(fn, dpi=110)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('curves', help='folder with curves.py')
    p.add_argument('--family', choices=FAMILIES, default='lcbench')
    p.add_argument('--methods', nargs='+', choices=METHODS, default=list(METHODS), metavar='METHOD', help=', '.join(METHODS))
    for k,v in dict(seeds=3, jobs=2, studies=10).items(): p.add_argument(f'--{k}', type=int, default=v)
    p.add_argument('--at', nargs='+', type=float, default=AT, help='full trainings after which the table looks')
    p.add_argument('--full', action='store_true')
    p.add_argument('--wrong', nargs='?', choices=('sign', 'family'), const='sign', default='')
    p.add_argument('--plot', help='file for the plot')
    args = p.parse_args()
    setup = Setup(str(Path(args.curves).resolve()), args.family, args.studies, args.full, args.wrong)
    names,args.methods = list(tables(setup.curves, setup.family)),[o for o in args.methods if can_run(o)]
    what = 'all curves of the others' if args.full else f'{min(args.studies, len(names)-1)} studies of others'
    what += {'sign': ', sign turned', 'family': ', of the other family'}.get(args.wrong, '')
    print(f"{versions('fastai_bayes', 'optuna', 'numpy', 'scipy', *packages(args.methods))}; {len(names)} tables of {args.family}, seeds 0 to {args.seeds-1}, {what}")
    os.environ['PYTHONHASHSEED'] = '0'  # of the processes to come: SMAC searches in the order of a set
    jobs = [(setup, n, m, s) for s in range(args.seeds) for n in names for m in args.methods]
    done = race(run, jobs, args.jobs, lambda o: [f'{o[0][-1]:.3f}'])
    print('\nMean normalised regret (standard error over tables) after the epochs of so many full trainings\n')
    res = {m: {n: [done[setup, n, m, s] for s in range(args.seeds)] for n in names} for m in args.methods}
    report(res, args.at)
    if args.plot: plot(args.plot, res)

if __name__=='__main__': main()
