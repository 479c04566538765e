"""Normalised regret at equal epochs with several trials under way at once, on recorded learning curves, and how the first ones are spread.

    python benchmarks/parallel.py CURVES [--family taskset] [--tables 10] [--workers 1 8 32] [--seeds 3] [--jobs 2]

CURVES is as for `tables.py`, like the regret. Simulated workers train one epoch after another, each trial at a speed of its own (log-normal, 20 %):
when an epoch ends, the engine decides with what is known then. The rival is random search with full trainings by as many workers. `oracle` trains what the
engine with one worker would, in that order, by as many workers, so no answer comes too late: what it loses is the bound of any search like ours."""
import argparse, heapq, time
from pathlib import Path
import numpy as np
from fastai_bayes.engine.optimizer import BayesOptimizer
from fastai_bayes.engine.space import Space
from racing import cells, header, hush, own_seed, race, row, versions
from tables import AT, FAMILIES, Trainer, at_random, tables

def work(n, seed, begin, epoch):
    "`n` workers: `begin` returns a trial, `epoch(trial)` says whether it goes on for another"
    rng,order,queue = np.random.default_rng([seed, n]),0,[]
    def _next(now):
        nonlocal order
        t,order = begin(),order+1
        if t is not None: heapq.heappush(queue, (now+(speed := rng.lognormal(0, .2)), order, speed, t))
    for _ in range(n): _next(0.)
    while queue:
        now,i,speed,t = heapq.heappop(queue)
        if epoch(t): heapq.heappush(queue, (now+speed, i, speed, t))
        else: _next(now)

def ours(trainer, seed, n, starts):
    "The engine; notes the first `n` configurations in `starts`"
    opt,at = BayesOptimizer(Space(trainer.space), trainer.n_epoch, trainer.mode, seed),{}
    def _begin():
        t = opt.next()
        at[t.id] = t.epoch
        if len(opt.trainings)<=n: starts[:] = [o.x for o in opt.trainings]
        return t
    def _epoch(t):
        at[t.id] += 1
        y = trainer.step(t.params, at[t.id])
        opt.report(t.id, at[t.id], y, diverged=None if np.isfinite(y) else True)
        on = at[t.id]<trainer.n_epoch and not opt.should_stop(t.id)
        if not on: opt.finish(t.id)
        return on
    work(n, seed, _begin, _epoch)

def at_full_length(trainer, seed, n, starts):
    new = at_random(trainer, seed)
    def _epoch(o):
        o['epoch'] += 1
        trainer.step(o['params'], o['epoch'])
        return o['epoch']<trainer.n_epoch
    work(n, seed, lambda: dict(params=next(new), epoch=0), _epoch)

class Trace(Trainer):
    "Keeps what one worker trains: hyperparameters and values, from begin to pause"
    def __init__(self, table):
        super().__init__(table)
        self.parts = []
    def step(self, params, epoch):
        y = super().step(params, epoch)
        if not self.parts or self.parts[-1][0]!=params: self.parts.append((params, []))
        self.parts[-1][1].append(y)
        return y

def oracle(trainer, seed, n, starts):
    one,busy = Trace(trainer.table),[]
    try: ours(one, seed, 1, starts)
    except Trainer.Out: pass
    starts.clear()
    todo = iter([dict(params=p, left=y) for p,y in one.parts])
    def _begin():
        if (o := next(todo, None)): busy.append(o)
        return o
    def _epoch(o):
        if any(b['params']==o['params'] for b in busy[:busy.index(o)]): return True  # waits for its first part
        if len(trainer.seen)==len(one.seen): raise Trainer.Out
        trainer.seen.append(o['left'].pop(0))
        if not o['left']: busy.remove(o)
        return bool(o['left'])
    work(n, seed, _begin, _epoch)

METHODS = {'ours': ours, 'oracle': oracle, 'random': at_full_length}

def run(path, family, name, method, n, seed):
    "Regret after full trainings' epochs, share of coordinates of the first `n` configurations on a bound, CPU seconds"
    hush()
    trainer,starts,start = Trainer(tables(path, family)[name]),[],time.process_time()
    try: METHODS[method](trainer, own_seed(name, seed), n, starts)
    except Trainer.Out: pass
    regret = trainer.regret()[[trainer.n_epoch*o-1 for o in AT]]
    bound = np.isin(np.array(starts), (0, 1)).mean() if starts else np.nan
    return regret, bound, time.process_time()-start

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('curves', help='folder with curves.py')
    p.add_argument('--family', choices=FAMILIES, default='taskset')
    p.add_argument('--workers', nargs='+', type=int, default=[1, 8, 32])
    p.add_argument('--methods', nargs='+', choices=METHODS, default=list(METHODS))
    p.add_argument('--tables', type=int, help='the first so many; all if not given')
    for k,v in dict(seeds=3, jobs=2).items(): p.add_argument(f'--{k}', type=int, default=v)
    args = p.parse_args()
    path = str(Path(args.curves).resolve())
    names = list(tables(path, args.family))[:args.tables]
    print(f"{versions('fastai_bayes', 'numpy', 'scipy')}; {len(names)} tables of {args.family}, seeds 0 to {args.seeds-1}")
    jobs = [(path, args.family, o, m, n, s) for s in range(args.seeds) for m in args.methods for n in args.workers for o in names]
    done = race(run, jobs, args.jobs, lambda o: [f'{o[0][-1]:.3f}'])
    print('\nMean normalised regret (standard error over tables) after the epochs of so many full trainings\n')
    header('method', 'workers', *AT, 'ratio to one', 'first on a bound', 'CPU s')
    for m in args.methods:
        one = None
        for n in args.workers:
            res = [[done[path, args.family, o, m, n, s] for s in range(args.seeds)] for o in names]
            per_table = np.array([np.mean([r[0] for r in o], 0) for o in res])
            one = per_table.mean(0) if one is None else one
            ratio = ' '.join(f'{o:.2f}' for o in per_table.mean(0)/one)
            bound,cpu = (np.mean([[r[i] for r in o] for o in res]) for i in (1, 2))
            row(m, n, *cells(per_table), ratio, '' if np.isnan(bound) else f'{bound:.0%}', f'{cpu:.1f}')

if __name__=='__main__': main()
