"""Is it worth it to leave the length of a training to the search? `bayes_tune(n_epoch=(2, 16))` against `n_epoch=16`, at equal epochs.

    python benchmarks/lengths.py [--sets images ...] [--lengths 2-16 16 ...] [--seeds 5] [--trainings 20] [--jobs 2]

Learners and data are those of `inferred.py`, the fit is one cycle, and its learning rate, weight decay and share of the rise are tuned. The budget is that of 20 of the longest trainings."""
import argparse, tempfile, time
import numpy as np
from fastai_bayes.study.records import attr, curve_of
from inferred import SETS
from racing import cells, header, hush, race, row, versions

SPACE = dict(lr=(1e-4, 1e-1, 'log'), wd=(1e-3, .3, 'log'), pct_start=(.1, .5))
AT = (1, 2, 5, 10, 20) # Longest trainings after which the table looks

def length(text):
    "`n_epoch` as on the command line: a number, or two with a dash"
    low,*high = map(int, text.split('-'))
    return (low, *high) if high else low

def run(name, n_epoch, seed, longest, n):
    "(budget,) best value after each epoch spent, epochs of the winner's schedule, seconds"
    hush()
    task,start = SETS[name],time.time()
    with tempfile.TemporaryDirectory() as d:
        learn = task.make(d, seed)
        res = learn.bayes_tune(length(n_epoch), SPACE, budget=n*longest, monitor=task.monitor, seed=seed, verbose=False, recipes=False)
        v = [o for t in res.study.trials for o in curve_of(t)[attr(t, 'resumed_from', 0):]]
        winner = res.best_params.get('n_epoch', length(n_epoch))
    best = np.fmax.accumulate(v) if task.mode=='max' else np.fmin.accumulate(v)  # these pass over NaN
    return best[:n*longest], winner, time.time()-start

def say(o): return f'{o[0][-1]:.4f}', f'{o[1]} epochs', f'{o[2]:.0f} s'

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--sets', nargs='+', choices=SETS, default=['images', 'numbers'], metavar='SET', help=', '.join(SETS))
    p.add_argument('--lengths', nargs='+', default=['2-16', '16'], metavar='N', help='epochs, or a range of them such as 2-16')
    for k,v in dict(seeds=5, trainings=20, jobs=2).items(): p.add_argument(f'--{k}', type=int, default=v)
    args = p.parse_args()
    longest = max(int(o.split('-')[-1]) for o in args.lengths)
    print(f"{versions('fastai_bayes', 'fastai', 'torch', 'optuna', 'scikit-learn')}; seeds 0 to {args.seeds-1}, "
          f'epochs of {args.trainings} trainings of {longest}')
    jobs = [(t, o, s, longest, args.trainings) for s in range(args.seeds) for t in args.sets for o in args.lengths]
    done = race(run, jobs, args.jobs, say)
    at = [o for o in AT if o<=args.trainings]
    print(f'\nBest validation value after the epochs of so many trainings of {longest}, mean (standard error); gain of {args.lengths[0]} '
          f"over {args.lengths[-1]}, paired by seeds, more is better; epochs of the winner's schedule\n")
    for t in args.sets:
        print(f'\n{t}: {SETS[t].monitor}\n')
        header('n_epoch', *at, 'winner', 'runs')
        V = {o: np.array([done[t, o, s, longest, args.trainings][0] for s in range(args.seeds)])[:,[n*longest-1 for n in at]] for o in args.lengths}
        for o,v in V.items():
            winners = np.array([[done[t, o, s, longest, args.trainings][1]] for s in range(args.seeds)], float)
            row(o, *cells(v, 4), *cells(winners, 1), len(v))
        row('gain', *cells((V[args.lengths[0]]-V[args.lengths[-1]])*(1 if SETS[t].mode=='max' else -1), 4), '', args.seeds)

if __name__=='__main__': main()
