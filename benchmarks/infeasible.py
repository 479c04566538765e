"Trials lost to what is impossible, and the best value, with `BayesSampler`, Optuna's GPSampler and TPE\n\n    python benchmarks/infeasible.py --seeds 10"
import argparse, time, warnings
import numpy as np, optuna
from fastai_bayes.study.sampler import BayesSampler
from racing import header, row, versions

def square(t): return t.suggest_float('x', 0, 1),t.suggest_float('y', 0, 1)
def border(t, how):
    "Best at the border x+y=1, beyond which nothing can be trained"
    x,y = square(t)
    if x+y>1: raise how('impossible')
    return (x-.6)**2+(y-.6)**2
def inside(t, how):
    "The same, best well within"
    x,y = square(t)
    if x+y>1: raise how('impossible')
    return (x-.3)**2+(y-.3)**2
def heads(t, how):
    "Attention: the width must be a multiple of the number of heads"
    d,h = t.suggest_categorical('d', [12, 16, 18, 20, 24, 30, 32, 36]),t.suggest_categorical('h', [1, 2, 3, 4, 5, 6, 8])
    lr = t.suggest_float('lr', 1e-4, 1e-1, log=True)
    if d%h: raise how('impossible')
    return abs(d-30)/10+abs(h-5)/5+(np.log10(lr)+2)**2
def free(t, how):
    "Nothing is impossible"
    x,y = square(t)
    return (x-.6)**2+(y-.6)**2

samplers = dict(ours=BayesSampler, gp=optuna.samplers.GPSampler, tpe=optuna.samplers.TPESampler)
hows = dict(prunes=optuna.TrialPruned, raises=ValueError)

def run(f, how, name, seed, n):
    "Trials that were impossible, and the best value, of a study of `n` trials"
    study = optuna.create_study(sampler=samplers[name](seed=seed))
    study.optimize(lambda t: f(t, hows[how]), n_trials=n, catch=ValueError)
    return sum(t.value is None for t in study.trials), study.best_value

def shown(v):
    "Mean and its standard error"
    return f'{np.mean(v):.3g} ({np.std(v, ddof=1)/len(v)**.5:.2g})'

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--seeds', type=int, default=10)
    p.add_argument('--trials', type=int, default=30)
    a = p.parse_args()
    warnings.simplefilter('ignore')
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    print(versions('fastai_bayes', 'optuna', 'numpy'))
    print(f'\nMean (standard error) of {a.seeds} seeds with {a.trials} trials, less is better\n')
    header('task', 'the objective', 'sampler', 'impossible trials', 'best value', 'seconds')
    for f in (border, inside, heads, free):
        for how in hows if f is not free else ['prunes']:
            for name in samplers:
                start = time.perf_counter()
                bad,best = zip(*(run(f, how, name, s, a.trials) for s in range(a.seeds)))
                row(f.__name__, how, name, shown(bad), shown(best), f'{(time.perf_counter()-start)/a.seeds:.1f}')
