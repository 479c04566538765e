"""The peers that are packages of their own; each trains by `trainer.step(params, epoch)` until that raises.

ASHA, MOBSTER, Hyperband, PriorBand and SMAC go on where a training stopped, so they pay for new epochs only. They keep their packages' defaults:
rungs a factor of 3 apart, from epoch 1 on (Syne Tune, NePS) or 2 (SMAC). PriorBand has no prior, unless a belief is given. The pins of the packages exclude each other:

    pip install fastai_bayes[bench]                               BoTorch and SMAC
    pip install fastai_bayes onnxruntime neural-pipeline-search   NePS 0.17 wants an older gpytorch than BoTorch 0.18
    pip install fastai_bayes onnxruntime "syne-tune[gpsearchers]==0.13.0"
                                                                  MOBSTER left Syne Tune in 0.15; until then that wants numpy 1, NePS numpy 2

so each line needs an environment of its own. NePS's can run them all but with an older BoTorch: add smac, and Syne Tune by `pip install --no-deps`
with what its extra names (autograd, dill, sortedcontainers)."""
import contextlib, datetime, functools, importlib, logging, random, tempfile, warnings
from collections import Counter
import numpy as np, torch
from optuna.distributions import CategoricalDistribution, IntDistribution
from fastai_bayes.engine.space import Space
from racing import hush

def botorch(trainer, space, seed):
    "Full trainings that BoTorch's qLogNEI proposes, after 7 Sobol points"
    torch.manual_seed(seed)
    space,d = Space(space),len(space)
    U,y = torch.quasirandom.SobolEngine(d, scramble=True, seed=seed).draw(7, dtype=torch.double),[]
    while True:
        if len(y)==len(U): U = torch.cat([U, promising(U, torch.tensor(y).double()[:,None])])
        params = space.decode(U[len(y)].numpy())
        y.append([trainer.step(params, e) for e in range(1, trainer.n_epoch+1)][-1])

def promising(U, y):
    "The point (1,d) of the unit cube with the largest qLogNEI, given final values `y` (n,1) at `U` (n,d)"
    from botorch.acquisition.logei import qLogNoisyExpectedImprovement
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import SingleTaskGP
    from botorch.optim import optimize_acqf
    from gpytorch.mlls import ExactMarginalLogLikelihood
    gp = SingleTaskGP(U, (y-y.mean())/y.std().clamp_min(1e-9), outcome_transform=None)
    fit_gpytorch_mll(ExactMarginalLogLikelihood(gp.likelihood, gp))
    bounds = torch.tensor([[0.], [1.]]).double().expand(2, U.shape[1])
    return optimize_acqf(qLogNoisyExpectedImprovement(gp, U), bounds, q=1, num_restarts=8, raw_samples=256)[0]

def is_choice(dist): return isinstance(dist, CategoricalDistribution)
def is_whole(dist): return isinstance(dist, IntDistribution)

def syne_tune(trainer, space, seed, method):
    "The scheduler `method` of Syne Tune, whose trainings pause at each rung until they are promoted"
    from syne_tune import config_space as cs
    from syne_tune.backend.trial_status import Trial
    from syne_tune.optimizer import baselines
    def _domain(o): return cs.choice(list(o.choices)) if is_choice(o) else \
        getattr(cs, 'log'*o.log+('randint' if is_whole(o) else 'uniform'))(o.low, o.high)
    scheduler = getattr(baselines, method)({k: _domain(o) for k,o in space.items()}, metric='value', mode='max', type='promotion',
                                           resource_attr='epoch', max_t=trainer.n_epoch, random_seed=seed, search_options=dict(debug_log=False))
    trials,epochs = [],Counter()
    while True:
        o = scheduler.suggest(len(trials))
        if o.spawn_new_trial_id:
            t = Trial(len(trials), o.config, datetime.datetime.now())
            trials.append(t)
            scheduler.on_trial_add(t)
        else:
            t = trials[o.checkpoint_trial_id]
            trainer.resume(t.trial_id)
        decision = 'CONTINUE'
        while decision=='CONTINUE':
            epochs[t.trial_id] = e = epochs[t.trial_id]+1
            decision = scheduler.on_trial_result(t, dict(value=trainer.step(t.config, e), epoch=e))
        if e<trainer.n_epoch: trainer.stop(t.trial_id, t.config)
        scheduler.on_trial_remove(t)

class Checkpoints:
    "Trainings that go on where they stopped"
    def __init__(self, trainer): self.trainer,self.curves = trainer,{}

    def train(self, params, epoch):
        "Value after `epoch`, for which only the epochs that are missing are trained"
        number,y = self.curves.setdefault(tuple(params.values()), (len(self.curves), []))
        seen = len(y)
        if 0<seen<epoch: self.trainer.resume(number)
        while len(y)<epoch: y.append(self.trainer.step(params, len(y)+1))
        if seen<epoch<self.trainer.n_epoch: self.trainer.stop(number, params)
        return y[epoch-1]

def neps(trainer, space, seed, method, belief=None):
    "NePS's optimizer `method` by ask and tell; the configuration `belief` is its prior, with medium confidence"
    import neps
    for f in (torch.manual_seed, np.random.seed, random.seed): f(seed)  # it draws from all three, and takes no seed
    def _domain(k, o):
        prior = dict(prior=belief[k], prior_confidence='medium') if belief else {}
        return neps.Categorical(o.choices, **prior) if is_choice(o) else \
            (neps.Integer if is_whole(o) else neps.Float)(o.low, o.high, log=o.log, **prior)
    domains = {k: _domain(k, o) for k,o in space.items()}
    Pipeline = type('Pipeline', (neps.PipelineSpace,), dict(domains, epoch=neps.IntegerFidelity(1, trainer.n_epoch)))
    opt,runs = neps.AskAndTell(getattr(neps.algorithms, method)(Pipeline())),Checkpoints(trainer)
    while True:
        t = opt.ask()
        opt.tell(t, -runs.train({k: t.config[k] for k in space}, t.config['epoch']))

def smac(trainer, space, seed):
    "SMAC's random forest and Hyperband by ask and tell"
    import ConfigSpace as cs
    from smac import MultiFidelityFacade, Scenario
    from smac.runhistory import TrialValue
    def _domain(k, o): return cs.Categorical(k, o.choices) if is_choice(o) else \
        (cs.Integer if is_whole(o) else cs.Float)(k, (o.low, o.high), log=o.log)
    configs,runs = cs.ConfigurationSpace(),Checkpoints(trainer)
    configs.add([_domain(k, o) for k,o in space.items()])
    with tempfile.TemporaryDirectory() as d:
        scenario = Scenario(configs, deterministic=True, min_budget=1, max_budget=trainer.n_epoch, seed=seed, output_directory=d)
        opt = MultiFidelityFacade(scenario, lambda config, seed, budget: None, logging_level=False)
        while True:
            t = opt.ask()
            opt.tell(t, TrialValue(-runs.train({k: t.config[k] for k in space}, round(t.budget))), save=False)

PEERS = {  # name on the command line: name in the table, function
    'botorch': ('BoTorch qLogNEI, full trainings', botorch),
    'asha': ('Syne Tune ASHA, promotion', functools.partial(syne_tune, method='ASHA')),
    'mobster': ('Syne Tune MOBSTER, promotion', functools.partial(syne_tune, method='MOBSTER')),
    'halving': ('NePS successive halving', functools.partial(neps, method='successive_halving')),
    'hyperband': ('NePS Hyperband', functools.partial(neps, method='hyperband')),
    'priorband': ('NePS PriorBand, no prior', functools.partial(neps, method='priorband')),
    'smac': ('SMAC Hyperband with a random forest', smac)}
NEEDS = {'botorch': ('botorch', 'botorch'), 'smac': ('smac', 'smac'),  # name on the command line: module, package
         **dict.fromkeys(('asha', 'mobster'), ('syne_tune.optimizer.schedulers.hyperband', 'syne-tune')),
         **dict.fromkeys(('halving', 'hyperband', 'priorband', 'priorband-warm'), ('neps', 'neural-pipeline-search'))}

def imports(name):
    "Why the module `name` does not import, None if it does"
    with warnings.catch_warnings(), contextlib.redirect_stdout(None):
        warnings.simplefilter('ignore')
        try: importlib.import_module(name)
        except ImportError as e: return str(e)

def can_run(method):
    "Whether the package of `method` is installed; a line says why not"
    why = imports(NEEDS[method][0]) if method in NEEDS else None
    if why: print(f'{method} is skipped: {why}')
    return not why

def ready(method):
    "Import what `method` needs, which takes none of its time; then one thread, and no logs and warnings"
    if method in NEEDS: imports(NEEDS[method][0])
    hush()  # only now, as it limits the threads of what is imported
    logging.disable(logging.WARNING)

def packages(methods):
    "Those that the `methods` need"
    return list(dict.fromkeys(NEEDS[o][1] for o in methods if o in NEEDS))
