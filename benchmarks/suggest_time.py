"""CPU time of decisions: a suggestion of BayesSampler, Optuna's GPSampler and TPESampler; an epoch's verdict of BayesPruner; a large `BayesOptimizer`.

    python benchmarks/suggest_time.py [--seeds 3] [--trials 50 200 1000] [--skip 60]
    python benchmarks/suggest_time.py --earlier 0 10 100 [--seeds 3] [--trials 50 200]
    python benchmarks/suggest_time.py --big [--seeds 1]

A study in 7 dimensions is given finished trials with curves of 10 epochs, the same to all samplers. Then trials are asked for one after the other,
each of which finishes before the next, as in use, so that refits and caches count: 30 from 50 trials on, 10 from 200, 4 from 1,000; only the
asking is timed, and the first one not counted. A sampler whose first suggestion takes more than `--skip` seconds is left out. `BayesSampler` runs
once more with two of three trials stopped after 3 epochs, as the pruner leaves them; its peers learn little or nothing from such trials.

With `--earlier` the samplers are ours with so many earlier studies of 20 trials each, which have other optima.

`--big` fills an `BayesOptimizer` with 1,000 trainings of up to 50 epochs and prints seconds for `next()`, for `should_stop()` after the first and the
second epoch of that training on which the curves decide, for another `next()`, and the peak memory. All times are CPU time of one thread."""
import argparse, platform, resource, time, warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
import numpy as np, optuna, torch
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState
from threadpoolctl import threadpool_limits
from fastai_bayes.engine.optimizer import BayesOptimizer
from fastai_bayes.engine.trainings import Training
from fastai_bayes.study.pruner import BayesPruner
from fastai_bayes.study.sampler import BayesSampler
from racing import header, row, versions

SPACE = {f'x{i}': FloatDistribution(0, 1) for i in range(7)}
EPOCHS,EARLY = 10,3  # of a full training, of one that is stopped
MEMORY = 1024 if platform.system()=='Linux' else 1024**2  # units of ru_maxrss in a MB

def curve(params, n_epoch):
    "(n_epoch,) values, less is better, of a training that nears its end value exponentially"
    x = np.array(list(params.values()))
    return ((x-.3)**2).sum()+.3*np.sin(9*x[0])+(1+x[1])*np.exp(-3*np.arange(1, n_epoch+1)/n_epoch)

def epochs_of(number, stopped): return EARLY if stopped and number%3 else EPOCHS

def finished(number, rng, stopped):
    "Trial `number` with random parameters"
    params = {k: rng.random() for k in SPACE}
    y = curve(params, EPOCHS)[:epochs_of(number, stopped)]
    state = TrialState.COMPLETE if len(y)==EPOCHS else TrialState.PRUNED
    return optuna.create_trial(state=state, params=params, distributions=SPACE, value=y[-1], intermediate_values=dict(enumerate(y, 1)))

def open_study(n, seed, sampler, stopped=False):
    "A study with `n` finished trials"
    study,rng = optuna.create_study(sampler=sampler, pruner=BayesPruner(EPOCHS)),np.random.default_rng(seed)
    study.add_trials([finished(i, rng, stopped) for i in range(n)])
    return study

def cpu(f):
    "What `f` returns, and its CPU seconds"
    start = time.process_time()
    return f(), time.process_time()-start

def ask(study, stopped):
    "CPU seconds for the next suggestion of `study`, whose trial then finishes"
    t,s = cpu(lambda: study.ask(SPACE))
    y = curve(t.params, EPOCHS)[:epochs_of(t.number, stopped)]
    for e,v in enumerate(y, 1): t.report(v, e)
    if len(y)==EPOCHS: study.tell(t, y[-1])
    else: study.tell(t, state=TrialState.PRUNED)
    return s

def suggest_time(sampler, n, seed, skip, stopped=False):
    "Mean CPU seconds of the suggestions from `n` trials on, NaN if the first takes more than `skip`"
    study = open_study(n, seed, sampler(seed=seed), stopped)
    if ask(study, stopped)>skip: return np.nan
    return np.mean([ask(study, stopped) for _ in range(30 if n<=50 else 10 if n<=200 else 4)])

def earlier_study(seed):
    "A study of 20 trials of curves with another optimum"
    study,rng = optuna.create_study(),np.random.default_rng([seed, 3])
    off = {k: rng.normal(0, .1) for k in SPACE}
    for i in range(20):
        t = finished(i, rng, stopped=True)
        y = curve({k: v+off[k] for k,v in t.params.items()}, EPOCHS)[:len(t.intermediate_values)]
        study.add_trial(optuna.create_trial(state=t.state, params=t.params, distributions=SPACE, value=y[-1],
                                            intermediate_values=dict(enumerate(y, 1))))
    return study

def knowing_time(k, n, seed):
    "CPU seconds of the first suggestion from `n` trials on, with `k` earlier studies, and of those that follow, on average"
    earlier = [earlier_study(1000*seed+i) for i in range(k)]
    study = open_study(n, seed, BayesSampler(EPOCHS, seed, from_studies=earlier or None), stopped=True)
    first = ask(study, True)
    return first, np.mean([ask(study, True) for _ in range(30 if n<=50 else 10)])

def knowing(args):
    print(f'\nCPU seconds a suggestion of `BayesSampler` with earlier studies, 7 dimensions, 2 of 3 trials stopped: median (range) of {args.seeds} seeds\n')
    header('trials', 'earlier studies', 'first', 'those that follow', 'as without')
    for n in args.trials:
        usual = None
        for k in args.earlier:
            first,rest = np.array([knowing_time(k, n, s) for s in range(args.seeds)]).T
            usual = usual or np.median(rest)
            row(n, k, cell(first), cell(rest), f'{np.median(rest)/usual:.2f}')

def prune_time(n, seed, trials=4):
    "Mean CPU seconds of `BayesPruner.prune`, over all epochs of `trials` random trials after `n` others, two of three of them stopped"
    study,spent = open_study(n, seed, optuna.samplers.RandomSampler(seed=seed), stopped=True),[]
    for _ in range(trials):
        t = study.ask(SPACE)
        for e,v in enumerate(y := curve(t.params, EPOCHS), 1):
            t.report(v, e)
            spent.append(cpu(t.should_prune)[1])
        study.tell(t, y[-1])
    return np.mean(spent)

SAMPLERS = {  # column: function of the number of trials, the seed and the limit
    'BayesSampler': lambda *a: suggest_time(lambda seed: BayesSampler(EPOCHS, seed), *a),
    'BayesSampler, 2 of 3 stopped': lambda *a: suggest_time(lambda seed: BayesSampler(EPOCHS, seed), *a, stopped=True),
    'GPSampler': lambda *a: suggest_time(optuna.samplers.GPSampler, *a),
    'TPESampler': lambda *a: suggest_time(optuna.samplers.TPESampler, *a)}

def big(seed, stopped, n=1000, n_epoch=50):
    "CPU seconds of two `next` and of two `should_stop` of an `BayesOptimizer` with `n` trainings, MB before and at the peak"
    quiet()
    opt,rng = BayesOptimizer(SPACE, n_epoch, mode='min', seed=seed),np.random.default_rng(seed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/MEMORY
    for i in range(n):
        x = rng.random(len(SPACE))
        y = -curve(opt.space.decode(x), n_epoch)[:5 if stopped and i%3 else n_epoch]  # more is better inside
        opt.trainings.append(Training(x, list(y), 'complete' if len(y)==n_epoch else 'paused'))
    (t, first),verdicts = cpu(opt.next),[]
    for e,y in enumerate(curve(t.params, n_epoch)[:5]+2, 1):  # a poor one: of the best third, the ranks alone decide
        opt.report(t.id, e, y)
        verdicts.append(cpu(lambda: opt.should_stop(t.id))[1])
    opt.finish(t.id)
    second = cpu(opt.next)[1]
    return first, second, *verdicts[-2:], before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/MEMORY

def quiet():
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter('ignore')
    torch.set_num_threads(1)

def cell(v, digits=4):
    "Median and range"
    if np.isnan(v).all(): return 'skipped'
    return f'{np.median(v):.{digits}f} ({np.min(v):.{digits}f} to {np.max(v):.{digits}f})'

def suggestions(args):
    print(f'\nCPU seconds a suggestion, 7 dimensions, and CPU milliseconds an epoch for `BayesPruner.prune`: median (range) of {args.seeds} seeds\n')
    header('trials', *SAMPLERS, 'ours / GPSampler', 'with stopped / GPSampler', 'prune, ms')
    for n in args.trials:
        t = np.array([[f(n, s, args.skip) for f in SAMPLERS.values()] for s in range(args.seeds)])  # one sampler after the other, seed by seed
        m = np.median(t, 0)
        prune = [1e3*prune_time(n, s) for s in range(args.seeds)]
        row(n, *map(cell, t.T), *('-' if np.isnan(m[2]) else f'{o/m[2]:.2f}' for o in m[:2]), cell(prune, 1))

def large(args):
    print(f'\n`BayesOptimizer` with 1,000 trainings of 50 epochs: CPU seconds, and MB before and at the peak, median (range) of {args.seeds} seeds\n')
    header('trainings', 'next, first', 'next, second', 'should_stop, first', 'should_stop, second', 'MB before', 'MB at the peak')
    for name,stopped in {'all complete': False, '2 of 3 paused after 5 epochs': True}.items():
        res = []
        for s in range(args.seeds):  # a new process each, or the peak would be that of the largest so far
            with ProcessPoolExecutor(1, mp_context=get_context('spawn')) as pool: res.append(pool.submit(big, s, stopped).result())
        row(name, *(cell(v, d) for v,d in zip(np.array(res).T, (3, 3, 3, 3, 0, 0))))

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--seeds', type=int, help='3, and 1 for --big')
    p.add_argument('--trials', type=int, nargs='+', default=[50, 200, 1000], help='finished trials from which on the suggestions are timed')
    p.add_argument('--skip', type=float, default=60., help='CPU seconds of a first suggestion from which on a sampler is left out')
    p.add_argument('--earlier', type=int, nargs='+', help='numbers of earlier studies, the first to compare with')
    p.add_argument('--big', action='store_true', help='the large `BayesOptimizer` instead')
    args = p.parse_args()
    args.seeds = args.seeds or (1 if args.big else 3)
    quiet()
    print(f"{versions('fastai_bayes', 'optuna', 'numpy', 'scipy', 'torch')}; seeds 0 to {args.seeds-1}")
    with threadpool_limits(1): (large if args.big else knowing if args.earlier else suggestions)(args)

if __name__=='__main__': main()
