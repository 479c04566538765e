"""Regret on functions with a known optimum, and time per suggestion: BayesSampler against Optuna's GPSampler, TPESampler and random search.

    python benchmarks/synthetic.py [--seeds 10] [--trials 40] [--jobs 2]

Every sampler runs through `study.optimize` in the same process group, with the same seeds. Prints Markdown tables."""
import argparse, time, warnings
from concurrent.futures import ProcessPoolExecutor
import numpy as np
import optuna
from optuna.distributions import FloatDistribution
from fastai_bayes.study.sampler import BayesSampler
from racing import error, header, row, versions

# Hartmann's 6-dimensional function
A6 = np.array([[10,3,17,3.5,1.7,8], [.05,10,17,.1,8,14], [3,3.5,1.7,10,17,8], [17,8,.05,10,.1,14]])
P6 = np.array([[1312,1696,5569,124,8283,5886], [2329,4135,8307,3736,1004,9991],
               [2348,1451,3522,2883,3047,6650], [4047,8828,8732,5743,1091,381]])*1e-4

def floats(trial, d): return np.array([trial.suggest_float(f'x{i}', 0, 1) for i in range(d)])

def branin_at(u, v):
    "Branin at a point of the unit square, minus its minimum"
    x,y = 15*u-5, 15*v
    return (y-5.1/(4*np.pi**2)*x**2+5/np.pi*x-6)**2+10*(1-1/(8*np.pi))*np.cos(x)+10-0.39788735772973816

def branin(trial): return branin_at(*floats(trial, 2))

def hartmann6(trial):
    x = floats(trial, 6)
    return 3.322368011391339-np.array([1,1.2,3,3.2])@np.exp(-(A6*(x-P6)**2).sum(1))

def mixed5(trial):
    "Two floats, a log integer, a step and a 3-way choice that moves the optimum; 0 at the optimum"
    c = trial.suggest_categorical('c', ['a','b','c'])
    x,y = floats(trial, 2)
    n,s = trial.suggest_int('n', 1, 128, log=True), trial.suggest_float('s', 0, 1, step=.1)
    tx,ty,cost = dict(a=(.2,.8,.3), b=(.7,.4,0.), c=(.5,.5,.6))[c]
    return 4*(x-tx)**2+4*(y-ty)**2+np.log2(n/16)**2/16+(s-.7)**2+cost

def sparse20(trial):
    "Branin in 2 of 20 dimensions"
    x = floats(trial, 20)
    return branin_at(x[3], x[11])

TASKS = dict(branin=branin, hartmann6=hartmann6, mixed5=mixed5, sparse20=sparse20)
SAMPLERS = {o.__name__: o for o in (BayesSampler, optuna.samplers.GPSampler, optuna.samplers.TPESampler, optuna.samplers.RandomSampler)}

def regret(task, sampler, seed, n_trials):
    "Best value after `n_trials`; every function's minimum is 0"
    quiet()
    study = optuna.create_study(sampler=SAMPLERS[sampler](seed=seed))
    study.optimize(TASKS[task], n_trials=n_trials)
    return study.best_value

def suggest_time(sampler, n, d=7, repeats=10):
    "Mean CPU seconds for a suggestion in `d` dimensions, over `repeats` suggestions from `n` observations on"
    quiet()
    rng,space = np.random.default_rng(0),{f'x{i}': FloatDistribution(0, 1) for i in range(d)}
    f = lambda p: sum((v-.3)**2 for v in p.values())+.3*np.sin(9*p['x0'])
    study = optuna.create_study(sampler=SAMPLERS[sampler](seed=0))
    for _ in range(n):
        p = {k: rng.random() for k in space}
        study.add_trial(optuna.create_trial(params=p, distributions=space, value=f(p)))
    study.tell(t := study.ask(space), f(t.params))  # imports and caches are not counted
    start = time.process_time()
    for _ in range(repeats): study.tell(t := study.ask(space), f(t.params))
    return (time.process_time()-start)/repeats

def quiet():
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter('ignore')

def regrets(args, names, pool):
    jobs = {(t,s,i): pool.submit(regret, t, s, i, args.trials) for t in TASKS for s in names for i in range(args.seeds)}
    print(f'\nMean simple regret after {args.trials} evaluations, {args.seeds} seeds (standard error)\n')
    header('task', *names, *(f'ours / {s}' for s in names[1:]))
    for t in TASKS:
        r = {s: np.array([jobs[t,s,i].result() for i in range(args.seeds)]) for s in names}
        m = {s: v.mean() for s,v in r.items()}
        row(t, *(f'{m[s]:.4f} ({error(r[s]):.4f})' for s in names), *(f'{m[names[0]]/m[s]:.2f}' for s in names[1:]))

def times(names):
    print('\nCPU seconds a suggestion, 7 dimensions, mean of 10, one sampler after the other\n')
    header('observations', *names, *(f'ours / {s}' for s in names[1:]))
    for n in (50, 200):
        t = [suggest_time(s, n) for s in names]
        row(n, *(f'{o:.4f}' for o in t), *(f'{t[0]/o:.2f}' for o in t[1:]))

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for k,v in dict(seeds=10, trials=40, jobs=2).items(): p.add_argument(f'--{k}', type=int, default=v)
    args,names = p.parse_args(),list(SAMPLERS)
    print(f"{versions('fastai_bayes', 'optuna', 'numpy', 'scipy', 'torch')}; seeds 0 to {args.seeds-1}")
    times(names[:3])
    with ProcessPoolExecutor(args.jobs) as pool: regrets(args, names, pool)

if __name__=='__main__': main()
