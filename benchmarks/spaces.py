"""Regret on published functions of mixed and of conditional spaces: ours against Optuna's GPSampler, TPESampler and random search.

    python benchmarks/spaces.py [--seeds 10] [--trials 40] [--jobs 2] [--tasks func2c jenatton ...] [--methods ours gp tpe ...]

All samplers are asked through Optuna for values of the active names, with the same functions and seeds. Ours is told the space, with what depends on
what, or sees it from the trials ('untold'); Optuna's are not told. Prints Markdown tables."""
import argparse, itertools, time
import numpy as np, optuna
from optuna.samplers import GPSampler, RandomSampler, TPESampler
from fastai_bayes.study.sampler import BayesSampler
from fastai_bayes.engine.space import Space
from fastai_bayes.study.search_space import ask
from racing import cells, hush, header, race, row, versions

# Func2C and Func3C (Ru et al. 2020, Bayesian Optimisation over Multiple Continuous and Categorical Inputs, arXiv 1906.08878): each choice selects a
# function of the point (u, v), which are added
def rosenbrock(u, v): return (100*(v-u*u)**2+(u-1)**2)/300
def camel(u, v): return ((4-2.1*u**2+u**4/3)*u*u+u*v+(4*v*v-4)*v*v)/10
def beale(u, v): return ((1.5-u+u*v)**2+(2.25-u+u*v*v)**2+(2.625-u+u*v**3)**2)/50
camel_min = -.1031628453489877
added = (dict(ros=(1, rosenbrock), cam=(1, camel), bea=(1, beale)),
         dict(ros=(1, rosenbrock), cam=(1, camel), bea=(1, beale), bea2=(1, beale), bea3=(1, beale)),
         dict(cam5=(5, camel), ros2=(2, rosenbrock), bea2=(2, beale), bea3=(3, beale)))

def sum_of(n):
    "Function, space and minimum of the sum that `n` choices select; only the camel's humps go below 0"
    def f(u, v, **choices): return sum(w*g(2*u, 2*v) for o,k in zip(added, choices.values()) for w,g in [o[k]])
    return f, dict({f'h{i}': list(o) for i,o in enumerate(added[:n])}, u=(-1., 1.), v=(-1., 1.)), camel_min*(2 if n==2 else 7)

# Ackley-5C (there, too): five of the six coordinates have 17 values each, as choices without order; and the same as numbers,
# which ours takes as ordered
def ackley(**x):
    x = np.array([float(o) for o in x.values()])
    return 20+np.e-20*np.exp(-.2*np.sqrt((x*x).mean()))-np.exp(np.cos(2*np.pi*x).mean())
def ackley_space(kind): return dict({f'c{i}': [kind(o) for o in np.linspace(-1, 1, 17)] for i in range(5)}, x=(-1., 1.))

# Jenatton et al. 2017 (Bayesian Optimization with Tree-structured Dependencies, ICML): binary x1, x2, x3
# select one of x4 ... x7, and share r8 or r9
def jenatton(x1, **p):
    i = {(0, 0): 4, (0, 1): 5, (1, 0): 6, (1, 1): 7}[x1, p['x2' if x1==0 else 'x3']]
    return p[f'x{i}']**2+(i-3)/10+p['r8' if x1==0 else 'r9']
def leaf(i): return {f'x{i}': (-1., 1.)}
tree = dict(x1={0: dict(r8=(0., 1.), x2={0: leaf(4), 1: leaf(5)}), 1: dict(r9=(0., 1.), x3={0: leaf(6), 1: leaf(7)})})

TASKS = dict(func2c=sum_of(2), func3c=sum_of(3), ackley5c=(ackley, ackley_space(str), 0.), ackley5o=(ackley, ackley_space(float), 0.),
             jenatton=(jenatton, tree, .1))

METHODS = {  # name on the command line: name in the table, sampler(seed, space)
    'ours': ('ours', lambda seed, space: BayesSampler(1, seed, space)),
    'untold': ('ours, not told the space', lambda seed, space: BayesSampler(1, seed)),
    'gp': ('Optuna GPSampler', lambda seed, space: GPSampler(seed=seed)),
    'tpe': ('Optuna TPE', lambda seed, space: TPESampler(seed=seed)),
    'tpe-group': ('Optuna TPE, groups', lambda seed, space: TPESampler(seed=seed, multivariate=True, group=True)),
    'random': ('random', lambda seed, space: RandomSampler(seed))}

def regrets(task, method, seed, trials):
    "Best value so far minus the minimum, after each trial, and seconds"
    hush()
    f,space,least = TASKS[task]
    space,start = Space(space),time.process_time()
    study = optuna.create_study(sampler=METHODS[method][1](seed, space))
    for _ in range(trials):
        t = ask(study, space)
        study.tell(t, f(**space.values(t.params)))
    return np.minimum.accumulate([t.value for t in study.trials])-least, time.process_time()-start

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for k,v in dict(seeds=10, trials=40, jobs=2).items(): p.add_argument(f'--{k}', type=int, default=v)
    for k,v in dict(tasks=TASKS, methods=METHODS).items(): p.add_argument(f'--{k}', nargs='+', default=list(v), choices=list(v))
    a = p.parse_args()
    jobs = [(t, m, s, a.trials) for s,t,m in itertools.product(range(a.seeds), a.tasks, a.methods)]
    res = race(regrets, jobs, a.jobs, lambda o: [f'{o[0][-1]:.4g}', f'{o[1]:.1f} s'])
    print(f"\n{versions('fastai_bayes', 'optuna', 'numpy', 'scipy', 'torch')}; seeds 0 to {a.seeds-1}")
    for n in (a.trials//2, a.trials):
        print(f'\nMean simple regret after {n} trials, {a.seeds} seeds (standard error)\n')
        header('task', *(METHODS[m][0] for m in a.methods))
        for t in a.tasks: row(t, *cells(np.array([[res[t,m,s,a.trials][0][n-1] for m in a.methods] for s in range(a.seeds)]), 4))
    print('\nMean CPU seconds for all trials\n')
    header('task', *(METHODS[m][0] for m in a.methods))
    for t in a.tasks: row(t, *(f'{np.mean([res[t,m,s,a.trials][1] for s in range(a.seeds)]):.1f}' for m in a.methods))

if __name__=='__main__': main()
