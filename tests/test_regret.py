"""A gate: what the engine reaches on three functions and two tables of recorded learning curves, few seeds each

The bounds are what 20 other seeds reach on average (imdb: 12 seeds) plus three standard errors of so few; python tests/test_regret.py prints them anew."""
import math, sys
from pathlib import Path
import numpy as np, optuna, pytest
from fastai_bayes.engine.optimizer import BayesOptimizer
from fastai_bayes.study.sampler import BayesSampler
root = Path(__file__).parent
sys.path.append(str(root.parent/'benchmarks'))
from synthetic import branin, hartmann6, mixed5

def on_function(f, n, seed, sampler=BayesSampler):
    "Logarithm of the regret after `n` trials"
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=sampler(seed=seed))
    study.optimize(f, n_trials=n)
    return math.log10(max(study.best_value, 1e-6))

class Table:
    "Recorded curves: 0 is the best value of all, 1 the median of the last ones"
    def __init__(self, name):
        data = np.load(root/'data'/'curves'/f'{name}.npz')
        self.U,self.Y = data['U'].astype(float),data['Y'].astype(float)
        shown = np.where(np.isfinite(self.Y), self.Y, np.inf)
        self.best,self.median = shown.min(),np.median(shown[:,-1])
    def regret(self, loss): return (loss-self.best)/(self.median-self.best)

def on_table(name, full, seed, make=BayesOptimizer):
    "Regret on average over the last three quarters of the epochs of `full` trainings"
    table = Table(name)
    d,T = table.U.shape[1],table.Y.shape[1]
    opt,rows,trace = make({f'x{i}': (0., 1.) for i in range(d)}, T, mode='min', seed=seed),{},[]
    while len(trace)<full*T:
        t = opt.next()
        if t.id not in rows:  # the nearest that has not begun
            far = ((table.U-list(t.params.values()))**2).sum(1)
            far[list(rows.values())] = np.inf
            rows[t.id] = int(far.argmin())
        for epoch in range(t.epoch+1, T+1):
            y = table.Y[rows[t.id],epoch-1]
            opt.report(t.id, epoch, y)
            trace.append(y if np.isfinite(y) else np.inf)
            if opt.should_stop(t.id): break
        opt.finish(t.id)
    best = np.minimum.accumulate(trace)[:full*T]
    return float(table.regret(best[full*T//4:]).mean())

# what is measured: function of a seed, how many seeds, and mean and standard deviation of more
tasks = {
    'branin': (lambda seed: on_function(branin, 28, seed), 8, -2.736, .888),
    'hartmann6': (lambda seed: on_function(hartmann6, 44, seed), 8, -1.472, 1.337),
    'mixed5': (lambda seed: on_function(mixed5, 28, seed), 8, -2.277, 1.091),
    'fabert': (lambda seed: on_table('fabert', 6, seed), 4, .079, .042),
    'imdb': (lambda seed: on_table('imdb', 6, seed), 4, .367, .289)}

@pytest.mark.parametrize('task', tasks)
def test_regret(task):
    "Random search gets, in the order of the tasks, -.10, .20, -.50, .22, .76, and fails all"
    f,n,mean,sd = tasks[task]
    got = np.mean([f(seed) for seed in range(n)])
    assert got<=mean+3*sd/n**.5, f'{got:.3f} on average'

if __name__=='__main__':
    for k,(f,*_) in tasks.items():
        got = [f(100+seed) for seed in range(20)]
        print(f'{k}: {np.mean(got):.3f}, {np.std(got, ddof=1):.3f}', flush=True)
