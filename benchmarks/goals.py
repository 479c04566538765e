"""Several goals: hypervolume of the front, against Optuna's samplers and BoTorch, and with and without pruning on real trainings

    python benchmarks/goals.py [--seeds 20] [--tasks zdt1 dtlz2 digits] [--samplers BayesSampler TPESampler ...]
    python benchmarks/goals.py --trainings --seeds 5
    python benchmarks/goals.py --table             # trains the table of `digits` again

Tasks: ZDT1 with 6 variables and DTLZ2 with 3 goals and 6 variables (Zitzler et al. 2000; Deb et al. 2002), reference point 1.1 in each goal; `digits`, accuracy against the
logarithm of the number of parameters of networks for scikit-learn's digits, real trainings that `benchmarks/goals_digits.csv` holds. Only BoTorch is
told the reference point, and `told`, which is `BayesSampler` with it. The hypervolume of `digits` is a share of the rectangle from no accuracy and 10^5 parameters to the best of the table in each goal. Prints Markdown tables."""
import argparse, csv, functools, tempfile, time, warnings
from pathlib import Path
import numpy as np, optuna
from fastai_bayes.engine.goals import hypervolume
from fastai_bayes.engine.optimize_acqf import sobol
from fastai_bayes.study.sampler import BayesSampler
from racing import error, header, row, versions

warnings.simplefilter('ignore')
optuna.logging.set_verbosity(optuna.logging.ERROR)
file = Path(__file__).parent/'goals_digits.csv'
n_epoch = 8

# --- tasks: a function of a point of the unit cube to goals, more is better

def zdt1(u):
    g = 1+9*u[1:].mean()
    return -u[0], -g*(1-(u[0]/g)**.5)

def dtlz2(u):
    g = ((u[2:]-.5)**2).sum()
    a,b = u[:2]*np.pi/2
    return tuple(-(1+g)*v for v in (np.cos(a)*np.cos(b), np.cos(a)*np.sin(b), np.sin(a)))

def digits_table():
    "Points of the unit cube (n,3), accuracy, and minus the decimal logarithm of the number of parameters"
    rows = np.array([[float(v) for v in r] for r in [*csv.reader(file.open())][1:]])
    return rows[:,:3], rows[:,3], -np.log10(rows[:,4])

class Digits:
    "Looks up the nearest training of the table"
    def __init__(self): self.U,self.accuracy,self.small = digits_table()
    def __call__(self, u):
        i = ((self.U-u)**2).sum(1).argmin()
        return self.accuracy[i], self.small[i]

TASKS = dict(zdt1=(zdt1, 6, [-1.1]*2), dtlz2=(dtlz2, 6, [-1.1]*3))
if file.exists(): TASKS['digits'] = Digits(),3,[0., -5.]

def reached(task, Y):
    "Hypervolume of the goals `Y` (n,m)"
    f,_,ref = TASKS[task]
    whole = (f.accuracy.max()-ref[0])*(f.small.max()-ref[1]) if task=='digits' else 1
    return hypervolume(Y, ref)/whole

# --- samplers: task, seed, evaluations -> goals (n,m)

def by_optuna(make, task, seed, n):
    f,d,ref = TASKS[task]
    study = optuna.create_study(directions=['maximize']*len(ref), sampler=make(seed=seed))
    study.optimize(lambda t: f(np.array([t.suggest_float(f'x{i}', 0, 1) for i in range(d)])), n_trials=n)
    return np.array([t.values for t in study.trials])

def by_botorch(task, seed, n):
    "qLogEHVI after 10 quasi-random points. It is told the reference point: inferred anew from each front, it ends in a corner of ZDT1, and stays"
    import torch
    from botorch.acquisition.multi_objective.logei import qLogExpectedHypervolumeImprovement
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import ModelListGP, SingleTaskGP
    from botorch.models.transforms import Standardize
    from botorch.optim import optimize_acqf
    from botorch.sampling.normal import SobolQMCNormalSampler
    from botorch.utils.multi_objective.box_decompositions.non_dominated import FastNondominatedPartitioning
    from gpytorch.mlls import SumMarginalLogLikelihood
    torch.manual_seed(seed), torch.set_num_threads(1)
    f,d,ref = TASKS[task]
    X = torch.tensor(sobol(10, d, np.random.default_rng(seed)))
    Y = torch.tensor(np.array([f(x) for x in X.numpy()]))
    bounds = torch.stack([torch.zeros(d), torch.ones(d)]).double()
    while len(X)<n:
        model = ModelListGP(*[SingleTaskGP(X, Y[:,[k]], outcome_transform=Standardize(1)) for k in range(len(ref))])
        fit_gpytorch_mll(SumMarginalLogLikelihood(model.likelihood, model))
        r = torch.tensor(ref).double()
        acq = qLogExpectedHypervolumeImprovement(model, r, FastNondominatedPartitioning(r, Y), SobolQMCNormalSampler(torch.Size([128]), seed=seed))
        x,_ = optimize_acqf(acq, bounds, 1, num_restarts=4, raw_samples=128, options=dict(batch_limit=4, maxiter=100))
        X,Y = torch.cat([X, x]),torch.cat([Y, torch.tensor(np.array(f(x[0].numpy())))[None]])
    return Y.numpy()

def _optuna(cls): return lambda *args: by_optuna(cls, *args)
def told(task, seed, n):
    "`BayesSampler` with the reference point, as BoTorch"
    return by_optuna(functools.partial(BayesSampler, reference_point=TASKS[task][2]), task, seed, n)
SAMPLERS = {o.__name__: _optuna(o) for o in (BayesSampler, optuna.samplers.TPESampler, optuna.samplers.NSGAIISampler,
                                             optuna.samplers.RandomSampler, optuna.samplers.GPSampler)}
SAMPLERS |= {'BoTorch': by_botorch, 'told': told}

def fronts(args):
    print(f'\nHypervolume after {args.trials//2} and {args.trials} evaluations, {args.seeds} seeds (standard error)\n')
    header('task', 'sampler', args.trials//2, args.trials, 'seconds a run')
    for task in args.tasks:
        for k in args.samplers:
            start = time.process_time()
            Ys = [SAMPLERS[k](task, s, args.trials) for s in range(args.seeds)]
            seconds = (time.process_time()-start)/args.seeds
            res = [np.array([reached(task, Y[:n]) for Y in Ys]) for n in (args.trials//2, args.trials)]
            row(task, k, *(f'{o.mean():.4f} ({error(o):.4f})' for o in res), f'{seconds:.1f}')

# --- real trainings

def digits_space(): return dict(width=(4, 256, 'log'), layers=[1, 2, 3], lr=(1e-3, 1e-1, 'log'))

def make_table(n=300):
    "Train `n` quasi-random networks, and write their accuracy and size"
    from limits import learner
    from fastai_bayes.all import Space
    space = Space(digits_space())
    with tempfile.TemporaryDirectory() as d, file.open('w') as f:
        f.write('width,layers,lr,accuracy,n_params\n')
        for u in space.snap(sobol(n, 3, np.random.default_rng(0))):
            p = space.decode(u)
            learn = learner(d, 0, **p)
            with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(n_epoch, p['lr'])
            best = max(v[-2] for v in learn.recorder.values)
            f.write(f'{u[0]:.4f},{u[1]:.4f},{u[2]:.4f},{best:.4f},{sum(o.numel() for o in learn.model.parameters())}\n')

def tuned(pruner, seed, budget):
    "Pairs of epochs spent and hypervolume after each trial"
    from limits import learner
    from fastai_bayes.study.records import all_trials, epochs_trained, points_of, trial_id
    with tempfile.TemporaryDirectory() as d:
        def make(p): return learner(d, seed, **p)
        res = make({}).bayes_tune(n_epoch, digits_space(), budget=budget, goals=dict(accuracy='max', n_params='min'), new_learner=make,
                                  pruner=pruner, seed=seed, verbose=False)
        spent,known,curve = {},{},[]
        for t in all_trials(res.study):  # resumed trials have the curve of their predecessors
            spent[trial_id(t)] = epochs_trained(t)
            if points_of(t): known[t.number] = max(v for _,v in points_of(t)), -np.log10(t.user_attrs['measures']['n_params'])
            curve.append((sum(spent.values()), hypervolume([*known.values()], [0., -5.])/(5-np.log10(300))))
    return curve

def at(curve, epochs): return max([v for e,v in curve if e<=epochs], default=0.)
def until(curve, v): return next((e for e,o in curve if o>=v), np.inf)

def trainings(args):
    print(f'\nHypervolume of accuracy and size, networks for digits of {n_epoch} epochs, {args.seeds} seeds (standard error)\n')
    both = {k: [tuned(k, s, args.budget) for s in range(args.seeds)] for k in ('bayes', 'none')}
    marks = [args.budget*k//4 for k in (1, 2, 3, 4)]
    header('pruner', *(f'{o} epochs' for o in marks))
    for k,curves in both.items():
        res = [np.array([at(c, o) for c in curves]) for o in marks]
        row(k, *(f'{o.mean():.4f} ({error(o):.4f})' for o in res))
    mean = {k: lambda e, cs=cs: np.mean([at(c, e) for c in cs]) for k,cs in both.items()}
    goal = mean['none'](args.budget)
    first = next((e for e in range(args.budget+1) if mean['bayes'](e)>=goal), None)
    print(f'\nMean hypervolume without pruning after {args.budget} epochs: {goal:.4f}; with pruning after {first} epochs')

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for k,v in dict(seeds=20, trials=60, budget=240).items(): p.add_argument(f'--{k}', type=int, default=v)
    p.add_argument('--tasks', nargs='+', default=[*TASKS], choices=[*TASKS])
    p.add_argument('--samplers', nargs='+', default=[*SAMPLERS], choices=[*SAMPLERS])
    p.add_argument('--trainings', action='store_true')
    p.add_argument('--table', action='store_true')
    args = p.parse_args()
    if args.table: return make_table()
    print(f"{versions('fastai_bayes', 'optuna', 'numpy', 'scipy', 'torch')}; seeds 0 to {args.seeds-1}")
    (trainings if args.trainings else fronts)(args)

if __name__=='__main__': main()
