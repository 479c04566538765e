"""What the benchmarks share: the searches that race each other, the races, and how results are printed and drawn.

A search is given a trainer, the distributions of a space, and a seed. A trainer has `n_epoch` and `mode` ('max' or 'min'); `step(params, epoch)`
is the value after one more epoch, and raises when the run is over; `stop(number, params)` and `resume(number)` are told of trainings that are
stopped or taken up again. Our engine gives `stop` a function, too, that says what it expects of the training."""
import functools, platform, sys, warnings, zlib
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib.metadata import version
from multiprocessing import get_context
import numpy as np, optuna, torch
from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import GPSampler, RandomSampler, TPESampler
from optuna.trial import TrialState
from threadpoolctl import threadpool_limits
from fastai_bayes.engine.optimizer import BayesOptimizer
from fastai_bayes.study.pruner import BayesPruner
from fastai_bayes.study.sampler import BayesSampler
from fastai_bayes.engine.space import Space

def ours(trainer, space, seed, resume=True, stop=True, **kwargs):
    "`BayesOptimizer`, which sees every epoch; without `stop` every training is a full one"
    drive(BayesOptimizer(Space(space), trainer.n_epoch, trainer.mode, seed, resume, **kwargs), trainer, stop)

def drive(opt, trainer, stop=True):
    "What `opt` asks for, trained"
    while True:
        t = opt.next()
        if t.epoch: trainer.resume(t.id)
        train(opt, trainer, t, stop)

def train(opt, trainer, t, stop=True):
    "The trial `t` of `opt`, until it ends or should stop"
    for e in range(t.epoch+1, trainer.n_epoch+1):
        y = trainer.step(t.params, e)
        opt.report(t.id, e, y, diverged=None if np.isfinite(y) else True)  # as `bayes_tune` concludes from the loss
        if stop and opt.should_stop(t.id):
            trainer.stop(t.id, t.params, lambda: opt.explain(t.id))
            break
    opt.finish(t.id)

def new_study(n_epoch, mode, space, seed, sampler, pruner):
    "A study that repeats itself: the pruner Hyperband takes its random numbers from the study's name"
    return optuna.create_study(direction=f'{mode}imize', study_name=f'seed {seed}', sampler=sampler(n_epoch, seed, space), pruner=pruner(n_epoch))

def through_optuna(trainer, space, seed, sampler, pruner, first=()):
    "Optuna's ask, report, should_prune and tell; the hyperparameters `first` are enqueued"
    study = new_study(trainer.n_epoch, trainer.mode, space, seed, sampler, pruner)
    for params in first: study.enqueue_trial(params)
    while True:
        t = study.ask(space)
        for e in range(1, trainer.n_epoch+1):
            y = trainer.step(t.params, e)
            t.report(y, e)
            if e<trainer.n_epoch and t.should_prune():
                trainer.stop(t.number, t.params)
                study.tell(t, state=TrialState.PRUNED)
                break
        else: study.tell(t, y)

def plain(sampler): return lambda n_epoch, seed, space: sampler(seed=seed)
def nothing(n_epoch): return NopPruner()
def median(n_epoch): return MedianPruner()
def hyperband(n_epoch): return HyperbandPruner(max_resource=n_epoch)

OPTUNA = {  # name on the command line: name in the table, sampler(n_epoch, seed, space), pruner(n_epoch)
    'ours-optuna': ('ours through Optuna', BayesSampler, BayesPruner),
    'random': ('random, full trainings', plain(RandomSampler), nothing),
    'tpe': ('Optuna TPE, full trainings', plain(TPESampler), nothing),
    'tpe-median': ('Optuna TPE + median', plain(TPESampler), median),
    'tpe-hyperband': ('Optuna TPE + Hyperband', plain(TPESampler), hyperband),
    'gp': ('Optuna GPSampler, full trainings', plain(GPSampler), nothing),
    'gp-hyperband': ('Optuna GPSampler + Hyperband', plain(GPSampler), hyperband)}

METHODS = {  # name on the command line: name in the table, search
    'ours': ('ours', ours),
    'ours-stop': ('ours, never carrying on', functools.partial(ours, resume=False)),
    'ours-full': ('ours, full trainings', functools.partial(ours, resume=False, stop=False)),
    **{k: (label, functools.partial(through_optuna, sampler=s, pruner=p)) for k,(label,s,p) in OPTUNA.items()}}

def hush():
    "One thread, no log and no warnings in this process"
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter('ignore')
    torch.set_num_threads(1)
    threadpool_limits(1)

def race(run, jobs, n, say):
    "{job: run(*job)}, in `n` processes; of each result, as it comes, what `say` makes of it goes to stderr"
    with ProcessPoolExecutor(n, mp_context=get_context('spawn')) as pool:
        todo = {pool.submit(run, *o): o for o in jobs}
        for o in as_completed(todo): print(*todo[o], *say(o.result()), file=sys.stderr, flush=True)
    return {job: o.result() for o,job in todo.items()}

def own_seed(name, seed):
    "That of the table `name`: with the same random numbers for all tables, which may have the same configurations, luck in one were luck in all"
    return zlib.crc32(f'{seed} {name}'.encode())>>1

def versions(*names): return ', '.join([*(f'{o} {version(o)}' for o in names), f'Python {platform.python_version()}'])
def error(v): return v.std(0, ddof=1)/len(v)**.5 if len(v)>1 else np.full(v.shape[1:], np.nan)[()]
def cells(v, digits=3): return [f'{m:.{digits}f} ({s:.{digits}f})' for m,s in zip(v.mean(0), error(v))]
def row(*cells): print('| '+' | '.join(map(str, cells))+' |', flush=True)
def header(*cells): row(*cells); row(*['---']*len(cells))

def bands(ax, x, res, labels):
    "Mean of each of `res`, name -> (runs, len(x)), as a line, a standard error to both sides as a band"
    for i,(k,v) in enumerate(res.items()):
        m,s = v.mean(0),np.nan_to_num(error(v))
        ax.plot(x, m, ('-', '--', ':')[i//4%3], color=f'C{i}', lw=2.5 if k.startswith('ours') else 1.5, label=labels[k])
        ax.fill_between(x, np.maximum(m-s, m/2), m+s, color=f'C{i}', alpha=.12, lw=0)  # the lower edge stays above 0, for the log axis
    ax.spines[['top', 'right']].set_visible(False)
