"""Forecasts of the last value of a learning curve, asked after epochs of a search: does the 95 % band hold, and how good is the forecast?

    python benchmarks/forecasts.py CURVES [--families lcbench taskset fastai power ...] [--seeds 1] [--share .1] [--jobs 2]

CURVES is a folder with recorded curves, as for `tables.py`; `fastai` are the trainings of `sweeps.py`, all data sets, and the other families the
synthetic ones of `curves.py`. Our engine searches without earlier studies for the epochs of 20 full trainings (10 of `fastai`). After a random
`--share` of the epochs each forecaster says how the trial would end; the table knows that also if it is stopped. Units: 0 is the median of the
study so far, 1 its best value.

`ours` is what is told: a band wider than the one by which the engine decides. How much wider was chosen on LCBench with seed 0.

Rivals: the last value, with the spread of what curves still gained; and a joint Gaussian of whole curves, given the epochs so far. Both are told
all curves of the other tables or data sets of the same kind, or 300 random ones of the same synthetic family, which no search knows. LC-PFN and
FT-PFN are not here: their packages come without weights."""
import argparse, functools
from pathlib import Path
import numpy as np
from scipy.stats import norm
from fastai_bayes.engine.curves import OutputTransform
from fastai_bayes.engine.optimizer import BayesOptimizer
from fastai_bayes.engine.space import Space
from fastai_bayes.engine.trainings import one_thread
import curves, recipes, tables
from racing import drive, header, hush, own_seed, race, row, versions

RECORDED,SWEPT = ('lcbench', 'taskset'),'fastai'
FAMILIES = [*RECORDED, SWEPT, *curves.FAMILIES]
ridge = 1e-3 # Noise variance of the joint Gaussian
worst = -50. # A smaller log density counts as this: of two impossible forecasts none is better

# Trainings whose end is known

class Recorded(tables.Trainer):
    "Rows of a table"
    def whole(self, params): return self.table.Y[self.row(params)]

class Swept(recipes.Trainer):
    "Recorded trainings of a data set"
    def whole(self, params): return self.curves[self.at(params)]

class Synthetic(curves.Trainer):
    "Curves of a family with their noise"
    def __init__(self, name, seed):
        super().__init__(name, seed)
        self.space,self.known = self.family.space or curves.SMOOTH,{}
    def whole(self, params):
        key = tuple(params.items())
        if key not in self.known:
            noise = self.sd*self.rng.standard_normal(curves.T)
            self.known[key] = self.family.values(params)+noise
        return self.known[key]
    def step(self, params, epoch):
        super().step(params, epoch)
        return float(self.whole(params)[epoch-1])

def trainer_of(folder, family, name, seed):
    if family==SWEPT: return Swept(recipes.table(name[0]), name[1], 10)
    return Recorded(tables.tables(folder, family)[name]) if family in RECORDED else Synthetic(name, seed)

def names_of(folder, family):
    "Tables, (application, data set), or the synthetic family itself"
    if family==SWEPT: return [(a, i) for a in recipes.APPLICATIONS for i in range(len(recipes.table(a).sets))]
    return [*tables.tables(folder, family)] if family in RECORDED else [family]

@functools.cache
def whole_curves(folder, family, name):
    "(n,T) curves, more is better, of a table, or of random configurations of a synthetic family"
    if family==SWEPT: return recipes.Trainer(recipes.table(name[0]), name[1]).curves
    if family in RECORDED: return -tables.tables(folder, family)[name].Y
    trainer,rng = Synthetic(family, 1000),np.random.default_rng(0)
    space,sign = Space(trainer.space),1 if trainer.mode=='max' else -1
    return np.array([sign*trainer.whole(space.decode(u)) for u in rng.random((300, len(space)))])

@functools.cache
def reference(folder, family, name):
    "(n,T) transformed curves of the other tables, or of random configurations of the same synthetic family"
    others = [o for o in names_of(folder, family) if o!=name and (family!=SWEPT or o[0]==name[0])] or [name]
    res = []
    for o in others:
        Y = whole_curves(folder, family, o)
        Y = Y[np.isfinite(Y).all(1)]
        res.append(OutputTransform(Y)(Y))
    return np.concatenate(res)

# Forecasters: mean and standard deviation of the last value, all transformed, from the values `z` (e,) so far

def by_engine(name):
    "By the method `name` of `Surrogate`"
    def _forecast(surrogate, i, z, ref):
        m,v = getattr(surrogate, name)(np.array([i]))
        return m[0], v[0]**.5
    return _forecast
def by_last_value(surrogate, i, z, ref):
    gained = ref[:,-1]-ref[:,len(z)-1]
    return z[-1], max(gained.std(), 1e-3)
def by_joint_gaussian(surrogate, i, z, ref):
    e,mean,cov = len(z),ref.mean(0),np.cov(ref.T)+ridge*np.eye(ref.shape[1])
    w = np.linalg.solve(cov[:e,:e], cov[:e,-1])
    return mean[-1]+w@(z-mean[:e]), (cov[-1,-1]-w@cov[:e,-1])**.5

FORECASTERS = {'ours': by_engine('told'), 'ours, for decisions': by_engine('forecast'), 'the last value': by_last_value,
               'joint Gaussian of whole curves': by_joint_gaussian}

class Asked(BayesOptimizer):
    "Asks the forecasters, on the way, how trials of `trainer` would end; they are told the curves `ref`"
    def __init__(self, trainer, seed, share, ref):
        super().__init__(trainer.space, trainer.n_epoch, trainer.mode, seed)
        self.trainer,self.share,self.ref,self.found = trainer,share,ref,[]
        self.draws = np.random.default_rng([seed, 2])
    @one_thread
    def ask(self, id, end):
        "What each says of trial `id`, which would end with the value `end`: name -> (error, standard deviation)"
        surrogate = self.surrogate
        z = surrogate.Z[id,:surrogate.lens[id]]
        end = float(surrogate.transform(self.sign*end))
        said = {k: f(surrogate, id, z, self.ref) for k,f in FORECASTERS.items()}
        return {k: (end-m, sd) for k,(m,sd) in said.items()}
    def should_stop(self, id):
        t = self.trainings[id]
        end = self.trainer.whole(self.space.decode(t.x))[-1]
        asks = t.epochs<self.n_epoch and np.isfinite([t.curve[-1], end]).all() and self.draws.random()<self.share
        said,stops = self.ask(id, end) if asks else None,super().should_stop(id)
        if said: self.found.append((t.epochs/self.n_epoch, stops, said))
        return stops

def run(folder, family, name, seed, share):
    "What was asked: share of the epochs that were done, was it stopped there, and what `Asked.ask` returns"
    hush()
    trainer = trainer_of(folder, family, name, seed)
    opt = Asked(trainer, own_seed(name, seed), share, reference(folder, family, name))
    try: drive(opt, trainer)
    except trainer.Out: return opt.found

# Tables

PARTS = {'all': lambda done, stops: True, 'first tenth': lambda done, stops: done<=.1, 'up to a third': lambda done, stops: .1<done<=1/3,
         'later': lambda done, stops: done>1/3, 'stopped there': lambda done, stops: stops, 'continued': lambda done, stops: not stops}

def summary(asked):
    "Cells for errors and standard deviations `asked` (n,2)"
    e,sd = np.array(asked).T
    density = np.maximum(norm.logpdf(e, 0, sd), worst).mean()
    inside,below,above = (np.abs(e)<=1.96*sd).mean(), (e<-1.96*sd).mean(), (e>1.96*sd).mean()
    return len(e), f'{inside:.1%}', f'{below:.1%}', f'{above:.1%}', f'{np.median(2*1.96*sd):.3f}', f'{np.median(np.abs(e)):.3f}', f'{density:.2f}'

def report(found):
    columns = 'asked', 'within', 'below', 'above', 'median width', 'median error', 'log density'
    print('\nOf the last values, the share within the 95 % band, below and above it; its median width, the median error, and the mean log density\n')
    header('family', 'forecast', *columns)
    for family,asked in found.items():
        for k in FORECASTERS: row(family, k, *summary([o[k] for *_,o in asked]))
    print('\nOurs, all families, by the share of the epochs that was done, and by what was decided\n')
    header('', *columns)
    every = [o for asked in found.values() for o in asked]
    for k,of in PARTS.items(): row(k, *summary([said['ours'] for done,stops,said in every if of(done, stops)]))

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('curves', help='folder with curves.py')
    p.add_argument('--families', nargs='+', choices=FAMILIES, default=FAMILIES, metavar='FAMILY', help=', '.join(FAMILIES))
    for k,v in dict(seeds=1, jobs=2).items(): p.add_argument(f'--{k}', type=int, default=v)
    p.add_argument('--share', type=float, default=.1, help='of the epochs after which is asked')
    args = p.parse_args()
    folder = str(Path(args.curves).resolve())
    names = {f: names_of(folder, f) for f in args.families}
    print(f"{versions('fastai_bayes', 'numpy', 'scipy')}; {', '.join(f'{len(v)} of {f}' for f,v in names.items())}, "
          f'seeds 1 to {args.seeds}')
    jobs = [(folder, f, n, s, args.share) for s in range(1, args.seeds+1) for f in names for n in names[f]]
    done = race(run, jobs, args.jobs, lambda o: [len(o)])
    report({f: [o for job in jobs if job[1]==f for o in done[job]] for f in names})

if __name__=='__main__': main()
