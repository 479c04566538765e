"""Normalised regret against epochs spent on synthetic learning curves of nine kinds: our engine, and Optuna's samplers and pruners.

    python benchmarks/curves.py [--seeds 10] [--families loss ...] [--methods ours gp ...] [--jobs 2] [--plot FILE]

Each family is a space and a formula for the curve of a configuration; all but one rest on Hartmann's function of four hyperparameters, and a fifth
bends the curve only. A training has 27 epochs, a run the epochs of 20 full trainings. Regret is that of the best true value of all epochs seen:
0 is the optimum, 1 the median of random configurations, fully trained. Seeds are `seed*100 + index of the family`."""
import argparse, functools, time
from dataclasses import dataclass
import numpy as np
from fastai_bayes.engine.space import Space
from fastai_bayes.study.search_space import distributions
from racing import METHODS, bands, cells, error, header, hush, race, row, versions
from synthetic import A6, P6

T,FULL = 27,20  # epochs of a full training, full trainings of a run
AT = (1, 2, 5, 10, 20)  # full trainings after which the table looks
t = np.arange(1, T+1)

SMOOTH = dict(lr=(1e-5, 1e-1, 'log'), wd=(1e-6, 1e-1, 'log'), ps=(0., .7), mom=(.5, .99), pct=(.05, .5))
MIXED = dict(arch=['cnn', 'resnet', 'transformer'], opt=['sgd', 'adam', 'ranger'], lr=(1e-5, 1e-1, 'log'), bs=(16, 256, 'log'))
smooth = Space(SMOOTH)

def level(u):
    "Where a training ends: Hartmann's function of the first four of `u` (..,5), 1 at its optimum; the root brings most within reach of it"
    return (np.exp(-(A6[:,:4]*(u[...,None,:4]-P6[:,:4])**2).sum(-1))@[1, 1.2, 3, 3.2]/3.7298405844855926)**.4

def grown(rate):
    "(T,) share of a power law's growth that each epoch has seen, 1 at the last"
    return (1-(1.+t)**-rate)/(1-(1.+T)**-rate)

# Curves (T,) at the point `u` (5,) of the unit cube of `SMOOTH`; each ends at the level, but for `ceiling`, and nowhere exceeds the optimum
def power(u): return level(u)*grown(.1*30**((2*u[0]+u[4])/3))  # the learning rate counts most for the speed
def crossing(u): return level(u)*(t/T)**((.1+1.9*level(u))*(.8+.4*u[4]))  # the better the slower: after a third all look alike
def warmup(u):
    "Falls from a height that says nothing, for 30 to 40 % of the epochs, and rises only then"
    w = .3+.1*u[4]
    rise = np.clip((t/T-w)/(1-w), 0, 1)
    return .3*u[4]*np.clip(1-t/T/w, 0, 1)+level(u)*rise**2*(3-2*rise)

def plateaus(u):
    "Rises each 3 to 8 epochs only"
    width = 3+int(5.999*u[4])
    return level(u)*((1+np.minimum(t//width, T//width))/(1+T//width))

@functools.cache
def top_fifth(): return np.quantile(level(np.random.default_rng(0).random((20_000, 5))), .8)
def ceiling(u): return np.minimum(power(u)/top_fifth(), 1)  # the best fifth of all configurations ends at 1
def loss(u): return 10**(3-9*power(u))  # from 1000 down to a millionth at best

def mixed(arch, opt, lr, bs):
    "The better an architecture the slower; it wants a batch size, an optimizer wants a learning rate that grows with the batch size"
    top,bs0,p = dict(cnn=(.75, 32, .15), resnet=(.9, 64, .4), transformer=(1., 128, .9))[arch]
    share,lr0 = dict(sgd=(.9, -1.8), adam=(1., -3.), ranger=(.97, -2.4))[opt]
    off = np.log10(lr)-lr0-.5*np.log10(bs/64)
    return top*share*np.exp(-off**2-(np.log2(bs/bs0)/3)**2)*(t/T)**p

@dataclass(frozen=True)
class Family:
    what:str # In words
    curve:callable # At a point of the unit cube, or with the hyperparameters if it is `mixed`
    space:dict=None # In our notation; that of `SMOOTH` if None
    mode:str='max'
    best:float=1. # Best value
    noise:float=0. # Standard deviation of each epoch's noise, as a share of the difference between the best and the median

    def values(self, params):
        "(T,) true values of a training"
        return self.curve(**params) if self.space else self.curve(smooth.encode(params))
    def score(self, v): return v if self.mode=='max' else -np.log10(v)

FAMILIES = {  # name on the command line: family
    'power': Family('power laws', power),
    'noise4': Family('power laws, noise of 4 %', power, noise=.04),
    'noise15': Family('power laws, noise of 15 %', power, noise=.15),
    'crossing': Family('crossing: the better the slower', crossing),
    'warmup': Family('warm-up: a third says nothing', warmup),
    'plateaus': Family('stairs', plateaus),
    'ceiling': Family('a fifth ends at 100 %', ceiling),
    'loss': Family('loss from 1e3 to 1e-6, regret of its logarithm', loss, mode='min', best=1e-6),
    'mixed': Family('architecture x optimizer x lr x bs', mixed, MIXED)}

@functools.cache
def median(name):
    "Median final score of random configurations"
    f,rng = FAMILIES[name],np.random.default_rng(0)
    space = Space(f.space or SMOOTH)
    return np.median([f.score(f.values(space.decode(u))[-1]) for u in rng.random((4000, len(space)))])

class Trainer:
    "Trainings of a family, until the epochs of a run are spent"
    n_epoch = T
    class Out(Exception): pass
    def __init__(self, name, seed):
        self.family,self.mode = FAMILIES[name],FAMILIES[name].mode
        self.best,self.median = self.family.score(self.family.best),median(name)
        self.sd,self.rng = self.family.noise*(self.best-self.median),np.random.default_rng([seed, 1])
        self.seen = []  # true score of each epoch spent

    def step(self, params, epoch):
        if len(self.seen)==T*FULL: raise Trainer.Out
        y = self.family.values(params)[epoch-1]
        self.seen.append(self.family.score(y))
        return float(y+self.sd*self.rng.standard_normal() if self.sd else y)

    def stop(self, number, params, explain=None): pass
    def resume(self, number): pass
    def regret(self): return (self.best-np.maximum.accumulate(self.seen))/(self.best-self.median)

def run(name, method, seed):
    "Regret after each epoch, CPU milliseconds an epoch"
    hush()
    seed = seed*100+list(FAMILIES).index(name)
    trainer,space = Trainer(name, seed),distributions(Space(FAMILIES[name].space or SMOOTH))
    start = time.process_time()
    try: METHODS[method][1](trainer, space, seed)
    except Trainer.Out: pass
    return trainer.regret(), 1e3*(time.process_time()-start)/(T*FULL)

def table(name, res):
    print(f'\n{name}: {FAMILIES[name].what}\n')
    header('method', *AT, 'ms an epoch', 'runs')
    for k,runs in res.items(): row(METHODS[k][0], *cells(at(runs)), f'{np.mean([o[1] for o in runs]):.1f}', len(runs))

def at(runs): return np.array([o[0] for o in runs])[:,[T*n-1 for n in AT]]

def summary(res):
    "Means over the families, and each method against the first one"
    first,*_ = names = list(next(iter(res.values())))
    print(f'\nMean of {len(res)} families (standard error), the ratio of "{METHODS[first][0]}" to the method at {FULL}, and in how many families '
          'the method is better or worse by more than two standard errors of the difference, at 5, 10 and 20\n')
    header('method', *AT, 'ratio', 'better', 'worse')
    mean = {k: np.mean([at(res[f][k]) for f in res], 0) for k in names}
    for k in names:
        diff = [at(res[f][k])-at(res[f][first]) for f in res]  # families of (seeds, AT)
        z = np.array([o.mean(0)/np.maximum(error(o), 1e-12) for o in diff])[:,2:]
        count = [' / '.join(map(str, o.sum(0))) for o in (z<-2, z>2)]
        row(METHODS[k][0], *cells(mean[k]), f'{mean[first][:,-1].mean()/mean[k][:,-1].mean():.2f}', *count)

def plot(res, fn):
    "A panel a family: mean regret as a line, a standard error to both sides as a band"
    import matplotlib
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt
    rows = -(-len(res)//3)
    fig,axs = plt.subplots(rows, min(3, len(res)), figsize=(14, 1+3.6*rows), layout='constrained', squeeze=False)
    x = np.arange(4, T*FULL+1)/T  # the first epochs say nothing
    for ax,(name,runs) in zip(axs.flat, res.items()):
        bands(ax, x, {k: np.maximum([o[0][3:] for o in v], 1e-4) for k,v in runs.items()}, {k: METHODS[k][0] for k in runs})
        ax.set(title=FAMILIES[name].what, xscale='log', yscale='log', xlim=(x[0], FULL), ylim=(5e-3, 3))
        ax.set_xticks(AT, AT, minor=False)
    for ax in axs.flat[len(res):]: ax.axis('off')
    fig.supxlabel('epochs spent, in full trials')
    fig.supylabel('mean normalised regret')
    fig.legend(*axs[0,0].get_legend_handles_labels(), frameon=False, loc='outside upper center', ncols=5)
    fig.savefig(fn, dpi=110)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for k,v in dict(families=FAMILIES, methods=METHODS).items():
        p.add_argument(f'--{k}', nargs='+', choices=v, default=list(v), metavar=k[:-1].upper(), help=', '.join(v))
    for k,v in dict(seeds=10, jobs=2).items(): p.add_argument(f'--{k}', type=int, default=v)
    p.add_argument('--plot', help='file for the plot')
    args = p.parse_args()
    print(f"{versions('fastai_bayes', 'optuna', 'numpy', 'scipy', 'torch')}; seeds 0 to {args.seeds-1}")
    jobs = [(f, m, s) for s in range(args.seeds) for f in args.families for m in args.methods]
    done = race(run, jobs, args.jobs, lambda o: [f'{o[0][T*n-1]:.3f}' for n in AT])
    res = {f: {m: [done[f, m, s] for s in range(args.seeds)] for m in args.methods} for f in args.families}
    print('\nMean normalised regret (standard error) after the epochs of so many full trainings')
    for f in args.families: table(f, res[f])
    if len(res)>1: summary(res)
    if args.plot: plot(res, args.plot)

if __name__=='__main__': main()
