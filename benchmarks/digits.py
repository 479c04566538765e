"""Validation accuracy against epochs spent, on scikit-learn's digits, for three ways to tune

    python benchmarks/digits.py [--budget 100] [--seeds 0 1 2]

All three tune the same learner factory on the same data, in the same space (the example's without `resnet18`), with the same fit method and the
same seeds of the trainings, until the budget in epochs is spent. The table goes to stdout, the plot to benchmarks/digits.png. Optuna's TPE begins
with ten random trials; with the same seed they are those of the random search."""
import argparse, platform, runpy, tempfile, time, warnings
from collections import Counter
from importlib.metadata import version
from pathlib import Path
import matplotlib
matplotlib.use('Agg')
import matplotlib.pyplot as plt, numpy as np, optuna, torch
import fastai_bayes.all  # gives learners `bayes_tune`
from fastai_bayes.clone import release, seeded, seeded_loaders
from fastai_bayes.knobs import fit_args, turn
from fastai_bayes.space import Space
from fastai_bayes.study import curve_of, distributions, epochs_spent, state_of
from fastai_bayes.tune import quiet
from optuna_integration import FastAIPruningCallback

here = Path(__file__).resolve().parent
example = runpy.run_path(str(here.parent/'examples'/'digits.py'))
data,learner,archs = (example[o] for o in ('data', 'learner', 'archs'))
space = dict(example['space'], arch=[o for o in archs if o!='resnet18'])  # an epoch of which takes as long as 20 of the small CNN
n_epoch,fit,monitor = 5,'fit_one_cycle','accuracy'

def factory(dls, folder): return lambda params: learner(dls, params['arch'], folder)

def ours(dls, budget, seed, folder, **kw):
    "`bayes_tune`, or another sampler and pruner through the same line"
    make = factory(dls, folder)
    learn = make(Space(space).decode(np.full(len(space), .5)))
    res = learn.bayes_tune(n_epoch, space, budget=budget, monitor=monitor, fit=fit, new_learner=make, seed=seed, verbose=False, **kw)
    return res.study

def random_search(dls, budget, seed, folder):
    return ours(dls, budget, seed, folder, sampler=optuna.samplers.RandomSampler(seed=seed), pruner=optuna.pruners.NopPruner())

def tpe_median(dls, budget, seed, folder):
    "Optuna's default sampler and pruner with its fastai callback, as its documentation shows"
    make,sp = factory(dls, folder),Space(space)
    study = optuna.create_study(direction='maximize', sampler=optuna.samplers.TPESampler(seed=seed), pruner=optuna.pruners.MedianPruner())
    def train(trial):
        params,s = sp.values(trial.params),int(np.random.SeedSequence([seed, trial.number]).generate_state(1)[0])
        with seeded(s):
            learn = turn(make(params), params)
            try:
                with seeded_loaders(learn.dls, s), quiet(learn):
                    getattr(learn, fit)(n_epoch, cbs=FastAIPruningCallback(trial, monitor), **fit_args(params, fit))
                return learn.recorder.final_record[-1]
            finally: release(learn)
    while epochs_spent(study)<budget:
        trial = study.ask(distributions(sp))
        try: study.tell(trial, train(trial))
        except optuna.TrialPruned: study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    return study

methods = {'bayes_tune': ours, 'TPE + MedianPruner': tpe_median, 'random search': random_search}

def trace(study, budget):
    "(budget,) best validation accuracy that any training has reached after each epoch spent"
    v = [o for t in study.trials for o in curve_of(t)]
    v = np.maximum.accumulate(np.nan_to_num(v, nan=0.))[:budget]
    return np.concatenate([v, np.full(budget-len(v), v[-1])])

def run(budget, seeds):
    "Name of a method -> (seeds, budget) traces; the rows of the protocol are printed as they come"
    res = {k: [] for k in methods}
    for seed in seeds:
        for k,f in methods.items():
            start = time.time()
            with tempfile.TemporaryDirectory() as d, warnings.catch_warnings():
                warnings.simplefilter('ignore')
                study = f(data()[0], budget, seed, Path(d))
                res[k].append(trace(study, budget))
                states = Counter(map(state_of, study.trials))
            trials = ', '.join(f'{n} {o}' for o,n in states.items())
            print(f'- seed {seed}, {k}: {res[k][-1][-1]:.4f}, trials: {trials}, {time.time()-start:.0f} s', flush=True)
    return {k: np.array(v) for k,v in res.items()}

def table(res, at):
    "Markdown: mean and spread over the seeds after some of the budget"
    def _cell(v): return f'{v.mean():.4f} ({v.min():.4f} to {v.max():.4f})'
    rows = [f'| {k} | ' + ' | '.join(_cell(v[:,a-1]) for a in at) + ' |' for k,v in res.items()]
    return '\n'.join(['| best validation accuracy after | ' + ' | '.join(f'{a} epochs' for a in at) + ' |', '|---|' + '---|'*len(at), *rows])

def plot(res, fn):
    "Mean of the seeds as a line, their range as a band"
    _,ax = plt.subplots(figsize=(7, 4), layout='constrained')
    for (k,v),c,ls in zip(res.items(), ('#e07b00', '#3a87c8', '#8c8c8c'), ('-', '--', ':')):
        x = np.arange(1, v.shape[1]+1)
        ax.plot(x, v.mean(0), ls, color=c, lw=2, label=k)
        ax.fill_between(x, v.min(0), v.max(0), color=c, alpha=.18, lw=0)
    last = np.concatenate([v[:,v.shape[1]//5:].ravel() for v in res.values()])
    ax.set(xlabel='epochs spent', ylabel='best validation accuracy so far', ylim=(last.min()-.01, last.max()+.005))
    ax.spines[['top', 'right']].set_visible(False)
    ax.legend(frameon=False, loc='lower right', title=f'mean and range of {len(v)} seeds')
    ax.figure.savefig(fn, dpi=150)

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--budget', type=int, default=100, help='epochs for each method and seed')
    p.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    p.add_argument('--plot', default=here/'digits.png', help='where the plot goes')
    a = p.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print(f'Python {platform.python_version()}, ' + ', '.join(f'{o} {version(o)}' for o in ('torch', 'fastai', 'optuna', 'optuna-integration')) +
          f'; seeds {a.seeds}, {n_epoch} epochs a training, {torch.get_num_threads()} threads\n')
    res = run(a.budget, a.seeds)
    print('\n' + table(res, sorted({max(1, round(a.budget*o)) for o in (.25, .5, .75, 1)})))
    plot(res, a.plot)
