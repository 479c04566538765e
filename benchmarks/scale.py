"""What the chief of a large study does: milliseconds of CPU for a proposal and for a decision, by trials so far and trials under way; memory.

    python benchmarks/scale.py [--trials 100 1000 10000] [--workers 1 8 200 1000] [--seeds 3]

The trials are simulated power laws of 27 epochs over 6 hyperparameters, in a study in memory. With `--peer` Optuna's TPE
proposes from the same numbers of finished trials, in memory."""
import argparse, resource, time
import numpy as np, optuna
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial
from fastai_bayes.study.pruner import BayesPruner
from fastai_bayes.study.sampler import BayesSampler
from racing import header, hush, row, versions

T,D = 27,6
space = {f'x{i}': (0., 1.) for i in range(D)}

dists = {k: FloatDistribution(0, 1) for k in space}

def curve(x, n, rng): return [float(1-((x-.4)**2).sum()-.5*e**-.7+.01*rng.normal()) for e in range(1, n+1)]

def filled(trials, workers, seed):
    "A study in memory with `trials`, of which the last `workers` are under way, as `bayes_tune` leaves them"
    study = optuna.create_study(sampler=BayesSampler(T, seed, space), pruner=BayesPruner(T, 32, True, space), direction='maximize')
    rng = np.random.default_rng(seed)
    for i in range(trials):
        x,on = rng.random(D),i>=trials-workers
        n = int(rng.integers(1, T-1)) if on else T if rng.random()<.2 else int(rng.integers(1, 9))
        y = dict(enumerate(curve(x, n, rng), 1))
        state = TrialState.RUNNING if on else TrialState.COMPLETE if n==T else TrialState.PRUNED
        study.add_trial(create_trial(params=dict(zip(space, x)), distributions=dists, value=y[n] if n==T else None, state=state,
                                     intermediate_values=y, user_attrs=dict(n_epoch=T, worker='a')))
    return study,rng

def seconds(f, n, average=np.median):
    "CPU seconds of a call, the `average` of `n`"
    took = []
    for _ in range(n):
        start = time.process_time()
        f()
        took.append(time.process_time()-start)
    return float(average(took))

def ours(trials, workers, seed):
    study,rng = filled(trials, workers, seed)
    open = [t._trial_id for t in study.trials if t.state==TrialState.RUNNING]
    def _propose():
        paused = [t.number for t in study.get_trials(deepcopy=False) if t.state==TrialState.PRUNED][-100:]
        _,params,fit = study.sampler.next(study, space, paused)
        if params is None: return
        study.enqueue_trial(params)
        open.append(study.ask(dists)._trial_id)
        if fit: study._storage.set_trial_system_attr(open[-1], 'engine', fit)  # the next proposal begins with these
    _propose()  # fits the models, as the first proposal of a session does
    storage = study._storage
    def _decide():  # each time an epoch of a trial has ended
        id = open[int(rng.integers(len(open)))]
        t = storage.get_trial(id)
        n = len(t.intermediate_values)+1
        storage.set_trial_intermediate_value(id, n, curve(np.array([*t.params.values()]), n, rng)[-1])
        if n==T-1: open.remove(id)
        study.pruner.prune(study, study.get_trials(deepcopy=False)[t.number])
    return seconds(_propose, 8), seconds(_decide, 60, np.mean)  # some decisions take longer, as curves are fitted again

def tpe(trials, seed):
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed), direction='maximize')
    rng = np.random.default_rng(seed)
    for _ in range(trials):
        x = rng.random(D)
        study.add_trial(create_trial(params=dict(zip(space, x)), distributions=dists, value=curve(x, T, rng)[-1]))
    return seconds(lambda: study.ask(dists), 8)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--trials', nargs='+', type=int, default=[100, 1000, 10000])
    p.add_argument('--workers', nargs='+', type=int, default=[1, 8, 200, 1000])
    p.add_argument('--seeds', type=int, default=3)
    p.add_argument('--peer', action='store_true')
    args = p.parse_args()
    hush()
    print(f"{versions('fastai_bayes', 'optuna', 'numpy', 'scipy')}, one thread, seeds 0 to {args.seeds-1}")
    header('trials', 'under way', 'ms a proposal', 'ms a decision', *(['ms of TPE'] if args.peer else []), 'MB at most')
    for n in args.trials:
        peer = [f'{1000*np.median([tpe(n, s) for s in range(args.seeds)]):.1f}'] if args.peer else []
        for w in args.workers:
            if w>n: continue
            res = 1000*np.median([ours(n, w, s) for s in range(args.seeds)], 0)
            row(n, w, *(f'{o:.1f}' for o in res), *peer, f'{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024:.0f}')

if __name__=='__main__': main()
