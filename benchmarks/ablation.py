"""What each part of the engine is worth: regret on LCBench's curves with the part left out, or a setting changed.

    python benchmarks/ablation.py ../shared/lcbench [--seeds 2] [--parts engine resume ...] [--trainings 20] [--n-epoch 52] [--jobs 2]
    python benchmarks/ablation.py --functions hartmann6 sparse20 [--seeds 2] [--parts engine ensemble warp] [--jobs 2]
    python benchmarks/ablation.py --families crossing noise15 [--seeds 2] [--parts engine slopes smooth] [--jobs 2]

The folder, the trainings, the regret and the seeds are those of `lcbench.py`. All parts begin with the same configurations. `--functions` takes
functions of `synthetic.py` instead, which have one value a training, and prints the regret after 40 trials; `--families` the curves of `curves.py`,
and prints the regret after the epochs of 20 full trainings."""
import argparse, contextlib, functools, math
from pathlib import Path
from unittest.mock import patch
import numpy as np
import curves, lcbench, synthetic
from fastai_bayes.engine import curves as forecasts, policy, surrogate
from fastai_bayes.engine.curves import OutputTransform
from fastai_bayes.engine.gp import Data, line
from fastai_bayes.engine.surrogate import Surrogate
from racing import cells, header, race, row, versions

draws = surrogate.draw_params
def one(data, starts, rng, n, ordered): return draws(data, starts, rng, 1, ordered)
def in_order(data, starts, rng, n, ordered): return draws(data, starts, rng, n)
def flat(data, starts, rng, n, ordered):
    prior = surrogate.Prior(data.d, noise=.003, spread=1.4)
    theta = surrogate.fit(data, prior, starts[:1])
    return surrogate.with_shapes(surrogate.Posterior(data, prior, theta).draw(rng, n), data.d), [theta], 0
def sloped(X, m, v, choice):
    d = X.shape[1]
    return Data(X, m, choice, v=v, b=[-.5]+[0.]*d, B=[1.]+[.25]*d, trend=line)
def sure(surrogate, l): return 0.
def never(surrogate, l): return False
def rough(Z, sd, T): return Z
def fixed(n, T): return n
usual = tuple(o[:2] for o in forecasts._beta)

PARTS = {  # name on the command line: name in the table, method of lcbench.py, what is patched
    'engine': ('the engine', 'ours', ()),
    'resume': ('never resumes', 'ours-stop', ()),
    **{f'min_prob_final={v}': (f'never resumes, least probability {v}', 'ours-stop', [(policy, 'min_prob_final', v)]) for v in (.01, .1)},
    **{f'final_share={v}': (f'never resumes, stops from {v:.0%} of the epochs on', 'ours-stop', [(policy, 'final_share', v)]) for v in (0., .25)},
    'stop': ('never stops', 'ours-full', ()),
    'stop-warp': ('never stops, no input warping', 'ours-full', [(surrogate, 'draw_params', flat)]),
    'trend': ('proposals around a linear trend', 'ours', [(surrogate, 'final_data', sloped), (policy, 'final_data', sloped)]),
    'ensemble': ('one process instead of three to eight', 'ours', [(surrogate, 'draw_params', one)]),
    'warp': ('no input warping', 'ours', [(surrogate, 'draw_params', flat)]),
    'order': ('numbers as options always have an order', 'ours', [(surrogate, 'draw_params', in_order)]),
    'controls': ('no trial runs to its end to show what early epochs are worth', 'ours', [(policy, 'first_control', math.inf)]),
    'carried': ('doubt of early epochs ends with them', 'ours', [(surrogate, 'carried', 1e-9)]),
    'slopes': ('only the usual prior of the slopes', 'ours', [(forecasts, '_beta', usual)]),
    'smooth': ('curves keep their noise', 'ours', [(surrogate, 'smooth', rough)]),
    'rank_reversal': ('early ranks are trusted', 'ours', [(Surrogate, 'rank_reversal', sure)]),
    **{f'starts={v}': (f'{v} configurations before the first proposal', 'ours', [(policy, 'n_starts', functools.partial(fixed, v))]) for v in (4, 7)},
    'looks': ('first looks are never short', 'ours', [(surrogate, 'disorder', -1.)]),
    'pauses': ('the start pauses once', 'ours', [(Surrogate, 'is_rising', never)]),
    **{f'{k}={v}': (f'{label} {v} instead of {getattr(o, k)}', 'ours', [(o, k, v)]) for o,k,label,vals in (
        (policy, 'top_share', 'share that goes on', (.2, .5)), (policy, 'min_prob', 'least probability', (.05, .2)),
        (OutputTransform, 'knee', 'knee of the output transform', (1., 9.)), (surrogate, 'unknown', 'chance where curves say nothing', (0., .2)),
        (policy, 'new_share', 'share that a new training takes', (.1, .5))) for v in vals}}

@contextlib.contextmanager
def changed(part):
    "The engine with `part` changed"
    with contextlib.ExitStack() as stack:
        for o in PARTS[part][2]: stack.enter_context(patch.object(*o))
        yield

def run(folder, trainings, n_epoch, part, task, seed):
    "As `lcbench.run`"
    with changed(part): return lcbench.run(folder, PARTS[part][1], task, seed, space='numbers', noise=0., cross=False, trainings=trainings, n_epoch=n_epoch)

def run_function(part, task, seed):
    "Regret after 40 trials"
    with changed(part): return synthetic.regret(task, 'BayesSampler', seed, 40)

def run_family(part, name, seed):
    "Regret after the epochs of 20 full trainings"
    with changed(part): return curves.run(name, PARTS[part][1], seed)[0][-1]

def table(args, run, names, what):
    "Parts by `names`: one number a run"
    print(f"{versions('fastai_bayes', 'optuna', 'numpy', 'scipy')}; seeds 0 to {args.seeds-1}")
    jobs = [(o, t, s) for s in range(args.seeds) for t in names for o in args.parts]
    done = race(run, jobs, args.jobs, lambda r: [f'{r:.3f}'])
    print(f'\nMean regret (standard error) after {what}\n')
    header('part', *names, 'runs')
    for k in args.parts: row(PARTS[k][0], *cells(np.array([[done[k, t, s] for t in names] for s in range(args.seeds)])), args.seeds)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('folder', type=Path, nargs='?', help='of the simulator')
    p.add_argument('--functions', nargs='+', choices=synthetic.TASKS, metavar='FUNCTION', help=', '.join(synthetic.TASKS))
    p.add_argument('--families', nargs='+', choices=curves.FAMILIES, metavar='FAMILY', help=', '.join(curves.FAMILIES))
    p.add_argument('--parts', nargs='+', choices=PARTS, default=list(PARTS), metavar='PART', help=', '.join(PARTS))
    for k,v in dict(seeds=2, jobs=2, trainings=20, n_epoch=lcbench.T).items(): p.add_argument('--'+k.replace('_', '-'), type=int, default=v)
    args = p.parse_args()
    if args.functions: return table(args, run_function, args.functions, '40 trials')
    if args.families: return table(args, run_family, args.families, 'the epochs of 20 full trainings')
    if args.folder is None: p.error("the simulator's folder, --functions or --families is needed")
    tasks = lcbench.simulator(args.folder).TASKS
    print(f"{versions('fastai_bayes', 'numpy', 'scipy', 'onnxruntime')}; seeds 0 to {args.seeds-1}, {len(tasks)} tasks")
    jobs = [(o, t, s) for s in range(args.seeds) for t in tasks for o in args.parts]
    at = [args.n_epoch*n-1 for n in lcbench.looks(args.trainings)]
    done = race(functools.partial(run, args.folder, args.trainings, args.n_epoch), jobs, args.jobs, lambda o: [f'{o[0][i]:.3f}' for i in at])
    print('\nMean normalised regret (standard error) after the epochs of so many full trainings; ratio to the first line, mean of the columns\n')
    header('part', *lcbench.looks(args.trainings), 'ratio', 'runs')
    for k in args.parts:
        r,first = ([done[o][0][at] for o in jobs if o[0]==part] for part in (k, args.parts[0]))
        row(PARTS[k][0], *cells(np.array(r)), f'{(np.mean(r, 0)/np.mean(first, 0)).mean():.2f}', len(r))

if __name__=='__main__': main()
