"""Are features of options worth anything? Choices of 24 options whose values are a random linear function of two features, and of none

    python benchmarks/related.py [--seeds 30] [--trials 12] [--noise .05]

With `--noise 1` the values have next to nothing to do with the features. The first ten configurations are spread over the choice without regard to features; so both searches have the same."""
import argparse
import numpy as np
from fastai_bayes.engine.optimizer import BayesOptimizer
from fastai_bayes.engine.space import Related

def regrets(seed, related, n_trials, noise, n=24):
    "How far the best of the first 10, 11 ... trials is below the best option"
    rng = np.random.default_rng(seed)
    features,names = rng.random((n, 2)),[f'option_{i}' for i in range(n)]
    w = rng.normal(size=2)
    values = features@(w/abs(w).sum())+noise*rng.normal(size=n)
    arch = Related(tuple(names), features) if related else names
    opt,seen = BayesOptimizer(dict(arch=arch), 1, mode='max', seed=seed),[]
    for _ in range(n_trials):
        t = opt.next()
        seen.append(values[names.index(t.params['arch'])])
        opt.report(t.id, 1, float(seen[-1]))
        opt.finish(t.id)
    return [values.max()-max(seen[:i]) for i in range(10, n_trials+1)]

if __name__ == '__main__':
    p = argparse.ArgumentParser()
    p.add_argument('--seeds', type=int, default=30); p.add_argument('--trials', type=int, default=12); p.add_argument('--noise', type=float, default=.05)
    args = p.parse_args()
    print(f'24 options, {args.seeds} seeds, noise {args.noise:g}')
    print('mean regret (standard error) after', *range(10, args.trials+1), 'trials')
    for related in (True, False):
        R = np.array([regrets(s, related, args.trials, args.noise) for s in range(args.seeds)])
        cells = [f'{m:.3f} ({e:.3f})' for m,e in zip(R.mean(0), R.std(0, ddof=1)/len(R)**.5)]
        print(f"{'with' if related else 'without':7} features", *cells)
