"""Recipes for fastai: which settings to try first, from real trainings on small data sets that come inside packages.

    python benchmarks/sweeps.py [--applications tables ...] [--sets NAME ...] [--configs 60] [--limit-minutes 60]
    python benchmarks/sweeps.py --recipes [--write]
    python benchmarks/sweeps.py --list

The sets are in `sweep_sets.py`. For each application the same configurations are trained on all its sets: fastai's
defaults, these with the rate that `lr_find` suggests, published ones, and quasi-random points of the space that `bayes_tune` infers. Values are relative: lr in
fastai's default .001, bs in the loader's. A line of `sweeps/APPLICATION.csv` is a training: its settings, and a value
after each epoch. What is there is not trained again; each training has its own seeds, so it repeats itself wherever and
whenever it is made. A recipe is a portfolio of configurations that were good on the sets of an application; what it is
worth is judged on sets that it has not seen, and only recipes that help there ship with the package."""
import argparse, csv, functools, json, tempfile, time
from collections import Counter
from contextlib import contextmanager
from math import comb
from pathlib import Path
import numpy as np
from fastai.callback.core import Callback
from fastai.optimizer import Adam, QHAdam
from fastai_bayes.engine.knowledge import EarlierStudy, portfolio
from fastai_bayes.engine.optimize_acqf import sobol
from fastai_bayes.engine.space import Space
from fastai_bayes.learner.copies import release, seeded
from fastai_bayes.learner.knobs import apply_params, default_space, fit_args
from fastai_bayes.learner.loaders import seeded_loaders
from fastai_bayes.learner.training import epochs_of, quiet
from racing import cells, error, header, hush, row
from sweep_sets import APPLICATIONS, SETS

here = Path(__file__).resolve().parent
folder,shipped = here/'sweeps',here.parent/'fastai_bayes'/'learner'/'recipes.json'
default_lr = 1e-3 # Of `Learner`
n_max = 64 # Quasi-random points of an application, of which the first are trained
opt_funcs = dict(Adam=Adam, QHAdam=QHAdam)
fields = 'set config lr wd bs opt_func drop_mult seconds train_loss valid_loss value'.split()

# Configurations

start = dict(lr=1., wd=.01, bs=1., opt_func='Adam') # fastai's defaults
start_of = dict(texts=dict(drop_mult=1.), pretrained=dict(lr=2.)) # Learning rate of `fine_tune`
table = [('fastbook ch. 9', dict(lr=10.)),
         ('AutoGluon 1.6.3, median of its zero-shot portfolios for fastai', dict(lr=25.))]
PUBLISHED = {  # application: [(source, what differs from the defaults)]
    'classes': table, 'numbers': table, 'ratings': [('fastbook ch. 8', dict(lr=5., wd=.1))],
    'texts': [('fastbook ch. 10, classifier', dict(lr=20., drop_mult=.5)),
              ('fastbook ch. 10, language model; wd of the text tutorial of fastai',
               dict(lr=20., wd=.1, drop_mult=.3))],
    'images': [('Imagenette, 2020-01-train.md', dict(lr=8.)), ('fastbook ch. 7', dict(lr=3.))],
    'labels': [('Imagenette, 2020-01-train.md', dict(lr=8.)), ('fastbook ch. 6 and 7', dict(lr=3.))],
    'pretrained': [('fastbook ch. 5 and 6', dict(lr=3.)), ('fastbook ch. 6, regression', dict(lr=10.))]}

def relative_space(application):
    "The inferred space of an application in relative values"
    low = .01 if application=='pretrained' else .3
    res = dict(bs=[.25, .5, 1.], opt_func=list(opt_funcs), lr=(low, 100., 'log'), wd=(3e-3, .3, 'log'))
    return Space({**res, 'drop_mult': (.2, 1.5)} if application=='texts' else res)

def configs(application, n):
    "Name -> relative values: the defaults, published ones, and `n` quasi-random ones"
    first = {**start, **start_of.get(application, {})}
    res = {'default': first, **{f'published {i}': {**first, **o} for i,(_,o) in enumerate(PUBLISHED[application], 1)}}
    space = relative_space(application)
    X = sobol(n_max, len(space), 0)[:n]
    return {**res, **{str(i): space.decode(x) for i,x in enumerate(X)}}

def absolute(learn, o):
    "Hyperparameters of `learn` for the relative values `o`"
    res = dict(o, lr=o['lr']*default_lr, bs=round(o['bs']*learn.dls.train.bs), opt_func=opt_funcs[o['opt_func']])
    space = Space(default_space(learn))
    assert set(res)==set(space.dims) and all(v in space[k] for k,v in res.items() if k!='lr'), (res, space.dims)
    return res

# Trainings

@contextmanager
def learner(key, o, seed):
    "Learner of the set `key` with the relative values `o`, and the absolute ones"
    make = SETS[key].maker()  # its own data are not of the seed
    with tempfile.TemporaryDirectory() as d, seeded(seed):
        learn = make(path=Path(d))
        params = absolute(learn, o)
        apply_params(learn, params)
        with seeded_loaders(learn.dls, seed), quiet(learn): yield learn, params
        release(learn)

def at_found_lr(key, seed):
    "fastai's defaults, with the learning rate that `lr_find` suggests"
    o = configs(key[0], 0)['default']
    with learner(key, o, seed) as (learn,_): return dict(o, lr=learn.lr_find(show_plot=False).valley/default_lr)

class Epochs(Callback):
    "Values after each epoch of all fits: `fine_tune` has two"
    order = 60 # After `Recorder`
    def __init__(self): self.rows = []
    def after_epoch(self): self.rows.append(self.recorder.values[-1])

def train(key, o, seed):
    "Values after each epoch by column, and seconds, of the set `key` with the relative values `o`"
    app,begin = APPLICATIONS[key[0]],time.process_time()
    with learner(key, o, seed) as (learn,params):
        told,n_frozen = Epochs(),epochs_of(app.fit, 0, {})
        getattr(learn, app.fit)(app.n_epoch-n_frozen, cbs=told, **fit_args(params, app.fit))
        names,rows = list(learn.recorder.metric_names[1:-1]),np.array(told.rows)
        at = [names.index(k) for k in ('train_loss', 'valid_loss', app.monitor)]
    return rows[:,at].T, time.process_time()-begin

def file_of(application): return folder/f'{application}.csv'

def recorded(application):
    "Lines of the file of an application, as dictionaries; one that was cut off by a kill is left out"
    f = file_of(application)
    return list(csv.DictReader(f.read_text().split('\n')[:-1])) if f.exists() else []

def line(name, config, o, curves, seconds):
    told = {k: f'{o[k]:.5g}' for k in ('lr', 'wd', 'bs', 'drop_mult') if k in o}
    told.update(zip(fields[-3:], (' '.join(f'{v:.5g}' for v in c) for c in curves)))
    return dict(told, set=name, config=config, opt_func=o['opt_func'], seconds=f'{seconds:.1f}')

def append(application, row):
    f = file_of(application)
    new = not f.exists()
    if not new and not f.read_bytes().endswith(b'\n'): f.write_bytes(f.read_bytes().rpartition(b'\n')[0]+b'\n')
    with f.open('a', newline='') as o:
        w = csv.DictWriter(o, fields, lineterminator='\n')
        if new: w.writeheader()
        w.writerow(row)

def sweep(application, names, n, seed, until):
    "Train what is missing, configuration by configuration on all sets"
    done = {(r['set'], r['config']) for r in recorded(application)}
    for c,o in {'lr_find': None, **configs(application, n)}.items():
        for s in names:
            if time.time()>until: return
            if (s, c) in done: continue
            own = o or at_found_lr((application, s), seed)
            curves,seconds = train((application, s), own, seed)
            append(application, line(s, c, own, curves, seconds))
            print(application, s, c, f'{curves[2][-1]:.4g}', f'{seconds:.1f} s', flush=True)

# Recipes

AT = 1,2,5 # Trainings after which recipes are judged
n_recipe = 12 # Configurations of a recipe, at most
cap = 2. # A larger regret counts as this: of two failures none is better
helps = 2. # Standard errors over sets, above which the gain of a recipe must be for it to ship

other = 'own' # Recipe for learners of a kind that has none
def recipe_of(application): return APPLICATIONS[application].recipe or application
def members(recipe):
    "Applications whose sets make a recipe: the one for other kinds comes from all that tune the same for learners trained from nothing"
    if recipe!=other: return [a for a in APPLICATIONS if recipe_of(a)==recipe]
    return [a for a in APPLICATIONS if a!='pretrained' and 'drop_mult' not in relative_space(a).dims]
RECIPES = [*dict.fromkeys(map(recipe_of, APPLICATIONS)), other]

def floats(text): return [float(v) for v in text.split()]

class Table:
    "What was recorded of one application: the configurations that all of its sets have"
    def __init__(self, application, monitor):
        self.application,app = application,APPLICATIONS[application]
        found = {(r['set'], r['config']): floats(r[monitor]) for r in recorded(application)}
        self.sign = 1 if monitor=='value' and app.mode=='max' else -1
        self.space,all_configs = relative_space(application),configs(application, n_max)
        count = Counter(s for s,_ in found)
        self.sets = [s for s,n in count.items() if n>=.8*max(count.values())]  # those that are not far behind
        self.names = [c for c in all_configs if all((s, c) in found for s in self.sets)]
        self.configs = [all_configs[c] for c in self.names]
        self.at_random = np.array([c.isdigit() for c in self.names])
        curves = np.array([[found[s, c] for c in self.names] for s in self.sets])  # (sets, configurations, epochs)
        self.curves = np.stack([self._finite(o) for o in curves])
        self.lr_find = [found.get((s, 'lr_find')) for s in self.sets] # (sets, epochs)
        self.best = (self.sign*self.curves).max(2) # (sets, configurations)
        self.regret = np.stack([self.relative(i, v) for i,v in enumerate(self.best)])
    def _finite(self, curves):
        "The worst value of a set in place of what cannot be compared"
        v = np.where(np.isfinite(curves), self.sign*curves, np.inf)
        return self.sign*np.where(np.isfinite(v), v, v.min())
    def relative(self, i, v):
        "Regret of the values `v` of set `i`, more is better: 0 for the best recorded, 1 for the median of the quasi-random configurations"
        best,mid = self.best[i].max(),np.median(self.best[i][self.at_random])
        return np.clip((best-v)/max(best-mid, 1e-9), 0, cap)
class Pool:
    "The sets from which the recipe `name` is made, and the configurations that all of them have"
    def __init__(self, name, monitor):
        tables,self.name = [Table(a, monitor) for a in members(name)],name
        self.sets = [(t.application, s) for t in tables for s in t.sets]
        of = [dict(zip(t.names, t.configs)) for t in tables]
        self.names = [c for c in of[0] if all(o.get(c)==of[0][c] for o in of)]
        self.space,self.configs = tables[0].space,[of[0][c] for c in self.names]
        self.at_random = np.array([c.isdigit() for c in self.names])
        at = [[t.names.index(c) for c in self.names] for t in tables]
        self.regret = np.concatenate([t.regret[:,o] for t,o in zip(tables, at)]) # (sets, configurations)
        self.curves = [(c[o], t.sign) for t,o in zip(tables, at) for c in t.curves] # (configurations, epochs) each
    @functools.cached_property
    def studies(self):
        return [EarlierStudy([(o, list(c)) for o,c in zip(self.configs, curves)], self.space, sign) for curves,sign in self.curves]
    def others(self, s):
        "Sets from which a recipe is made that is judged on the set `s`: none of its kind if it is for other kinds"
        return [o for o in self.sets if (recipe_of(o[0])!=recipe_of(s[0]) if self.name==other else o!=s)]
    def recipe(self, sets):
        "Names of the configurations that the portfolio of `sets` takes, in order, but for those bad on average"
        at,X = [self.sets.index(o) for o in sets],self.space.encode(self.configs)
        found = portfolio([self.studies[i] for i in at], self.space, len(X))
        order = [int(np.abs(X-x).sum(1).argmin()) for x in found]
        return [self.names[i] for i in order if self.regret[at,i].mean()<1][:n_recipe]

def best_of_random(regret, k):
    "Mean of the best of `k` different ones of `regret`"
    r,n = np.sort(regret),len(regret)
    return sum(v*comb(n-1-i, k-1) for i,v in enumerate(r))/comb(n, k)

def judged(pool, by):
    "Method -> (sets, AT) regret by `by` after so many full trainings; the recipe for a set is made of all others of `pool`"
    res = {k: np.zeros((len(pool.sets), len(AT))) for k in ('defaults', 'random', 'defaults, then random', 'recipe')}
    for i,(s,r) in enumerate(zip(pool.sets, by.regret)):
        order = [pool.names.index(c) for c in pool.recipe(pool.others(s))]
        rand,default = r[pool.at_random],r[pool.names.index('default')]
        for j,k in enumerate(AT):
            res['defaults'][i,j] = default
            res['random'][i,j] = best_of_random(rand, k)
            res['defaults, then random'][i,j] = best_of_random(np.minimum(rand, default), k-1) if k>1 else default
            res['recipe'][i,j] = r[order[:k]].min()
    return res

def gains(res):
    "(sets,) gain of the recipe over random configurations, or over those after the defaults if that is better"
    a,b = res['random'],res['defaults, then random']
    rival = np.where(a.mean(0)<=b.mean(0), a, b)
    return (rival-res['recipe']).mean(1)

def recipes(names, monitor, by):
    "Print what the recipes `names` are worth on sets that they have not seen; name -> configurations of those that help"
    good = {}
    print(f'Regret 0 is the best recorded configuration, 1 the median of random ones; more than {cap:g} counts as {cap:g}.\n\n'
          'Mean regret (standard error over sets) after so many full trainings; the recipe is made without the set, the last without its kind\n')
    header('recipe', 'sets', 'configurations', 'method', *AT)
    for name in names:
        pool = Pool(name, monitor)
        def _row(k, *values): row(name, len(pool.sets), len(pool.names), k, *values)
        res = judged(pool, Pool(name, by))
        for k,v in res.items(): _row(k, *cells(v))
        g = gains(res)
        _row(f'gain over the best rival {g.mean():.3f} ({error(g):.3f})', *['']*len(AT))
        if g.mean()>helps*error(g): good[name] = pool
    return {k: [o.configs[o.names.index(c)] for c in o.recipe(o.sets) if c!='default'] for k,o in good.items()}

about = 'Settings to try first, in this order, from benchmarks/sweeps.py. lr: times the default .001 of fastai; '\
    'bs: times the batch size of the loader; wd and drop_mult: as they are; opt_func: name of an optimizer of fastai'

def short(o):
    res = {k: o[k] for k in ('lr', 'wd', 'bs', 'opt_func', 'drop_mult') if k in o}
    return {k: float(f'{v:.3g}') if isinstance(v, float) else v for k,v in res.items()}

def write(found, judged):
    "Put the recipes `found` among those `judged` into the file; the others stay as they are"
    known = {k: o for k,o in json.loads(shipped.read_text()).items() if k in RECIPES and k not in judged}
    found = {k: o for k in RECIPES if (o := found.get(k, known.get(k)))}
    lines = [f'{json.dumps(k)}: [\n  '+',\n  '.join(json.dumps(short(c)) for c in o)+']' for k,o in found.items()]
    shipped.write_text('{'+',\n '.join([f'"about": {json.dumps(about)}', *lines])+'}\n')

def show(applications):
    header('application', 'set', 'what is predicted', 'data', 'licence', 'trainings')
    for a in applications:
        count = Counter(r['set'] for r in recorded(a))
        for o in SETS.values():
            if o.application==a: row(a, o.name, o.what, o.source, o.licence, count[o.name])
    for a in applications:
        for i,(source,what) in enumerate(PUBLISHED[a], 1): print(f'{a}, published {i}: {source}, {what}')

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--applications', nargs='+', choices=APPLICATIONS, default=list(APPLICATIONS), metavar='APPLICATION',
                   help=', '.join(APPLICATIONS))
    p.add_argument('--sets', nargs='+', choices=sorted({s for _,s in SETS}), metavar='SET', help='see --list')
    for k,v in dict(configs=60, seed=0).items(): p.add_argument(f'--{k}', type=int, default=v)
    p.add_argument('--limit-minutes', type=float, default=np.inf)
    p.add_argument('--list', action='store_true', help='show the sets, where they come from, and what is recorded')
    p.add_argument('--recipes', action='store_true', help='judge recipes on what is recorded')
    p.add_argument('--write', action='store_true', help=f'with --recipes: put those that help into {shipped.name}')
    p.add_argument('--monitor', choices=('value', 'valid_loss'), default='value',
                   help='what recipes are to improve: the metric, or the loss')
    p.add_argument('--by', choices=('value', 'valid_loss'), help='what they are judged by, if not that')
    args = p.parse_args()
    hush()
    if args.list: return show(args.applications)
    if args.recipes:
        names = [k for k in RECIPES if set(members(k))<=set(args.applications)]
        found = recipes(names, args.monitor, args.by or args.monitor)
        for k,o in found.items(): print(f'\n{k}', *(json.dumps(short(c)) for c in o), sep='\n')
        if args.write: write(found, names)
        return
    until = time.time()+60*args.limit_minutes
    for a in args.applications:
        names = [s for app,s in SETS if app==a and (not args.sets or s in args.sets)]
        sweep(a, names, args.configs, args.seed, until)

if __name__=='__main__': main()
