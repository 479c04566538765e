"""What recipes are worth in a search: regret on recorded trainings of real data sets, with recipes made of the other sets.

    python benchmarks/recipes.py [--applications images ...] [--seeds 5] [--methods ours none ...] [--jobs 2]

The trainings are those of `sweeps.py`. As in `bayes_tune`, fastai's defaults are the first training of our searches, or the third if there is a
recipe; then they propose hyperparameters, and the nearest recorded configuration that has not begun is trained. `lr_find` is a training with fastai's defaults, but the
learning rate that `lr_find` suggests (valley). Regret 0 is the best recorded configuration, 1 the median of the random ones, more than 2 counts
as 2."""
import argparse, functools
import numpy as np
from fastai_bayes.engine.knowledge import Knowledge, config_points, n_ended
from fastai_bayes.engine.optimizer import BayesOptimizer, Trial
from fastai_bayes.engine.trainings import Training
from racing import cells, drive, header, hush, race, row, train, versions
from sweeps import APPLICATIONS, AT, Pool, Table, members, other, recipe_of

FULL = AT[-1] # Full trainings of a run

class Trainer:
    "Recorded trainings of a set, until the epochs of a run are spent"
    class Out(Exception): pass
    def __init__(self, t, i, full=FULL):
        self.t,self.curves,self.mode,self.most = t,t.sign*t.curves[i],'max',full*t.curves.shape[2]
        self.n_epoch,self.space = t.curves.shape[2],t.space
        self.X,self.rows,self.seen = t.space.encode(t.configs),{},[]
    def at(self, params):
        "Position of the nearest configuration that has not begun"
        key = tuple(params.values())
        if key not in self.rows:
            off = np.abs(self.X-self.space.encode([params])).sum(1)
            off[[*self.rows.values()]] = np.inf
            self.rows[key] = int(off.argmin())
        return self.rows[key]
    def step(self, params, epoch): return self.train(self.at(params), epoch)
    def train(self, at, epoch):
        if len(self.seen)==self.most: raise Trainer.Out
        self.seen.append(self.curves[at][epoch-1])
        return self.seen[-1]
    def fully(self, at): return [self.train(at, e) for e in range(1, self.n_epoch+1)]
    def stop(self, number, params, explain=None): pass
    def resume(self, number): pass

@functools.cache
def unseen(application, name, recipe=None):
    "Positions of the configurations of a recipe that has not seen the set `name`, nor others like it if it is for other kinds"
    p = pool(recipe or recipe_of(application))
    return [table(application).names.index(c) for c in p.recipe(p.others((application, name)))]
def positions(t, trainer, seed): return np.random.default_rng(seed).permutation(np.flatnonzero(t.at_random))

# Searches: functions of a table, a trainer of its set `i`, and a seed

def search(t, trainer, i, seed, recipe=True, stop=True, kind=None):
    "As `bayes_tune`: the first two of the recipe, then fastai's defaults, which may pause; without a recipe, these"
    opt = BayesOptimizer(t.space, trainer.n_epoch, seed=seed)
    listed = [o for o in unseen(t.application, t.sets[i], kind) if t.names[o]!='default'] if recipe else []
    if listed: opt.knowledge = Knowledge(config_points([t.configs[o] for o in listed], t.space))
    for n,at in enumerate([*listed[:n_ended], t.names.index('default')]):
        params = t.configs[at]
        trainer.rows[tuple(params.values())] = at
        opt.trainings.append(Training(t.space.encode([params])[0]))
        train(opt, trainer, Trial(n, params, 0), stop=stop)
    drive(opt, trainer, stop)

def defaults(t, trainer, i, seed):
    trainer.fully(t.names.index('default'))
    raise Trainer.Out
def lr_find(t, trainer, i, seed):
    trainer.seen = [t.sign*v for v in t.lr_find[i]]
    raise Trainer.Out
def listed(t, trainer, i, seed):
    for o in unseen(t.application, t.sets[i]): trainer.fully(o)
    raise Trainer.Out
def at_random(t, trainer, i, seed):
    for o in positions(t, trainer, seed): trainer.fully(o)

METHODS = {  # name on the command line: name in the table, search
    'ours': ('ours, with recipes', search),
    'other': ('ours, with the recipe for other kinds', functools.partial(search, kind=other)),
    'none': ('ours, without', functools.partial(search, recipe=False)),
    'whole': ('ours, without, full trainings', functools.partial(search, recipe=False, stop=False)),
    'recipe': ('the recipe, no search', listed),
    'defaults': ("fastai's defaults", defaults),
    'lr_find': ('lr_find, with defaults', lr_find),
    'random': ('random, full trainings', at_random)}

@functools.cache
def table(application): return Table(application, 'value')
@functools.cache
def pool(recipe): return Pool(recipe, 'value')

def run(application, i, method, seed):
    "(AT,) regret"
    hush()
    t = table(application)
    trainer = Trainer(t, i)
    try: METHODS[method][1](t, trainer, i, 1000*seed+i)  # sets share configurations, but not the order
    except Trainer.Out: pass
    seen = np.maximum.accumulate(trainer.seen)
    seen = np.r_[seen, np.full(FULL*trainer.n_epoch-len(seen), seen[-1])]
    return t.relative(i, seen)[[trainer.n_epoch*k-1 for k in AT]]

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--applications', nargs='+', choices=APPLICATIONS, default=list(APPLICATIONS), metavar='APPLICATION', help=', '.join(APPLICATIONS))
    p.add_argument('--methods', nargs='+', choices=METHODS, default=list(METHODS), metavar='METHOD', help=', '.join(METHODS))
    for k,v in dict(seeds=5, jobs=2).items(): p.add_argument(f'--{k}', type=int, default=v)
    args = p.parse_args()
    print(f"{versions('fastai_bayes', 'fastai', 'torch', 'numpy')}; seeds 0 to {args.seeds-1}")
    sets = {a: range(len(table(a).sets)) for a in args.applications}
    races = [(a, m) for a in args.applications for m in args.methods if m!='other' or a in members(other)]
    jobs = [(a, i, m, s) for a,m in races for i in sets[a] for s in range(args.seeds)]
    done = race(run, jobs, args.jobs, lambda o: [f'{o[-1]:.3f}'])
    n = sum(map(len, sets.values()))
    print(f'\nMean regret on {n} small data sets (standard error over sets) after the epochs of so many full trainings\n')
    header('method', *AT)
    per_set = {(a, m): np.array([np.mean([done[a, i, m, s] for s in range(args.seeds)], 0) for i in sets[a]]) for a,m in races}
    for m in args.methods:
        if all((a, m) in races for a in args.applications): row(METHODS[m][0], *cells(np.concatenate([per_set[a, m] for a in args.applications])))
    print('\nThe same by application\n')
    header('application', 'sets', 'configurations', 'method', *AT)
    for (a,m),v in per_set.items(): row(a, len(v), len(table(a).names), METHODS[m][0], *cells(v))

if __name__=='__main__': main()
