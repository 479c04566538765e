"""Is the chance of a further gain, by which `enough=` ends a study, as often right as it says? On recorded learning curves.

    python benchmarks/enough.py CURVES [--family lcbench] [--seeds 1] [--jobs 2] [--below .05]

CURVES is as for `tables.py`, like the regret, in whose units gains are. Each study trains for the epochs of 20 full trainings; with each new trial it
says how likely the rest of them improves the best by more than some gains. How many studies would have ended, as it was below `--below` twice in a
row, and how many of these would have improved by more? And of all that was said, how often did it come true?"""
import argparse, time
from pathlib import Path
import numpy as np
from fastai_bayes.engine.optimizer import BayesOptimizer
from fastai_bayes.engine.space import Space
from racing import drive, header, hush, own_seed, race, row, versions
from tables import FULL, Trainer, tables

GAINS = .005,.01,.03 # In units of regret
EDGES = 0,.02,.05,.1,.2,.4,.6,.8,.95,1.

class Asking(BayesOptimizer):
    "Notes the probability of each gain before each new or resumed trial, but at most four times in the epochs of a trial"
    def ask_about(self, trainer, unit): self.trainer,self.unit,self.said = trainer,unit,[]
    def next(self, new=True):
        spent,T = len(self.trainer.seen),self.n_epoch
        if not self.said or spent-self.said[-1][0]>=T/4:
            self.said.append((spent, *(self.prob_gain(g*self.unit, FULL*T-spent) for g in GAINS)))
        return super().next(new)

def run(path, family, name, seed):
    "Regret after each epoch; epochs spent and probability of each gain, as often as asked; CPU seconds"
    hush()
    table,start = tables(path, family)[name],time.process_time()
    trainer = Trainer(table)
    opt = Asking(Space(trainer.space), trainer.n_epoch, trainer.mode, own_seed(name, seed))
    opt.ask_about(trainer, table.median-table.best)
    try: drive(opt, trainer)
    except Trainer.Out: pass
    return trainer.regret(), np.array(opt.said), time.process_time()-start

def gained(regret, said):
    "(n,) What the rest of the epochs improved after each answer"
    return regret[np.maximum(said[:,0].astype(int)-1, 0)]-regret[-1]

def ends(runs, below):
    "A row for each gain"
    header('gain', 'studies that end', 'of', 'of these would have gained more', 'epochs saved')
    for i,g in enumerate(GAINS, 1):
        ended,more,saved = 0,0,[]
        for regret,said,_ in runs:
            low = said[:,i]<below
            at = np.flatnonzero(low[1:] & low[:-1])+1  # twice in a row, as `bayes_tune`
            saved.append(1-said[at[0],0]/len(regret) if len(at) else 0.)
            ended,more = ended+(len(at)>0),more+(len(at)>0 and gained(regret, said)[at[0]]>g)
        row(g, ended, len(runs), more, f'{np.mean(saved):.0%}')

def reliability(runs):
    "A row for each range of probabilities"
    P = np.concatenate([said[:,1:].ravel() for _,said,_ in runs])
    true = np.concatenate([(gained(regret, said)[:,None]>GAINS).ravel() for regret,said,_ in runs])
    print('\nWhat was said, and how often it came true\n')
    header('chance', 'times', 'mean', 'came true')
    for a,b in zip(EDGES, EDGES[1:]):
        which = (P>=a) & ((P<b) | (b==1))
        if which.any(): row(f'{a:.0%} to {b:.0%}', which.sum(), f'{P[which].mean():.0%}', f'{true[which].mean():.0%}')

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('curves', help='folder with curves.py')
    p.add_argument('--family', choices=('lcbench', 'taskset'), default='lcbench')
    for k,v in dict(seeds=1, jobs=2).items(): p.add_argument(f'--{k}', type=int, default=v)
    p.add_argument('--below', type=float, default=.05)
    args = p.parse_args()
    path = str(Path(args.curves).resolve())
    names = list(tables(path, args.family))
    print(f"{versions('fastai_bayes', 'numpy', 'scipy')}; {len(names)} tables of {args.family}, seeds 0 to {args.seeds-1}")
    done = race(run, [(path, args.family, n, s) for s in range(args.seeds) for n in names], args.jobs, lambda o: [f'{o[0][-1]:.3f}'])
    print(f'\nStudies of {FULL} full trainings that end when the chance is below {args.below:.0%} twice in a row\n')
    runs = [*done.values()]
    ends(runs, args.below)
    reliability(runs)
    print(f'\nCPU seconds per study: {np.mean([o[2] for o in runs]):.1f}')

if __name__=='__main__': main()
