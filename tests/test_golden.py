"""The first proposals of fixed seeds are those in tests/data/golden.json; after a change that is meant to move them: python tests/test_golden.py

A last bit of a matrix product decides where a climb ends, and it is another one on another processor. So the proposals are made in a process
of their own, with what every x86-64 can do, and compared to 1e-9; where its arithmetic is still another one, as on ARM, nothing is compared."""
import hashlib, json, math, os, subprocess, sys
from pathlib import Path
import numpy as np, optuna, pytest
from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__
from scipy.linalg import cho_factor
from fastai_bayes.engine.optimizer import BayesOptimizer
from fastai_bayes.study.pruner import BayesPruner
from fastai_bayes.study.sampler import BayesSampler

file = Path(__file__).parent/'data'/'golden.json'
FLAT = dict(x=(0., 1.), y=(1e-4, 1., 'log'))
MIXED = dict(arch=['cnn', 'rnn', 'transformer'], lr=(1e-5, 1e-1, 'log'), bs=(16, 256, 'log'), ps=(0., .7, .1), deep=[True, False])
TREE = dict(opt=dict(sgd=dict(mom=(.8, .99)), adam=dict(eps=(1e-8, 1e-2, 'log'))), lr=(1e-4, 1., 'log'))
WIDE = {f'x{i}': (0., 1.) for i in range(12)}

def height(params):
    "Where a training ends: 1 at best"
    def _off(v): return abs(math.log10(abs(v)+1e-9)/8+.2) if type(v) in (int, float) else .2*(sum(map(ord, str(v)))%3)
    return math.exp(-sum(_off(v) for v in params.values()))
def value(params, epoch, T): return height(params)*(1-.7*(1-(epoch-1)/max(T-1, 1))**2*(.5+height(params)/2))

def optimizer(space, T, n=10, mode='max', fails=(), seconds=None, **kwargs):
    "The first `n` configurations, and how long each trained before it was given; two are always under way"
    opt,res,open = BayesOptimizer(space, T, mode=mode, seed=3, **kwargs),[],[]
    sign = 1 if mode=='max' else -1
    def _train(t):
        if t.id in fails: return opt.fail(t.id, 'too large')
        for epoch in range(t.epoch+1, T+1):
            opt.report(t.id, epoch, sign*value(t.params, epoch, T), seconds and seconds(t.params))
            if epoch<T and opt.should_stop(t.id): break
        opt.finish(t.id)
    while len(res)<n:
        open.append(opt.next())
        if len(open)==2: _train(open.pop(0))
        res.append([open[-1].id, open[-1].epoch, open[-1].params])
    return res

def by_optuna(objective, n=10, direction='maximize', pruner=optuna.pruners.NopPruner(), **kwargs):
    study = optuna.create_study(sampler=BayesSampler(seed=3, **kwargs), pruner=pruner, direction=direction)
    study.optimize(objective, n_trials=n)
    return [[t.number, len(t.intermediate_values), t.params] for t in study.trials]

def flat(trial): return height(dict(x=trial.suggest_float('x', 0, 1), n=trial.suggest_int('n', 1, 128, log=True)))
def branches(trial):
    "Suggests what it needs as it goes"
    p = dict(opt=trial.suggest_categorical('opt', ['sgd', 'adam']), lr=trial.suggest_float('lr', 1e-4, 1, log=True))
    if p['opt']=='sgd': p['mom'] = trial.suggest_float('mom', .8, .99)
    return -height(p)
def epochs(trial):
    "Reports, and stops when told"
    p = dict(lr=trial.suggest_float('lr', 1e-5, 1e-1, log=True), wd=trial.suggest_float('wd', 1e-4, .3, log=True),
             act=trial.suggest_categorical('act', ['relu', 'mish']))
    for epoch in range(1, 10):
        trial.report(value(p, epoch, 9), epoch)
        if epoch<9 and trial.should_prune(): raise optuna.TrialPruned
    return value(p, 9, 9)

cases = {
    'one value a training': lambda: optimizer(FLAT, 1, n=16),
    'curves': lambda: optimizer(FLAT, 9, n=20),
    'less is better': lambda: optimizer(MIXED, 12, n=16, mode='min'),
    'nothing is carried on': lambda: optimizer(MIXED, 12, n=14, resume=False),
    'conditions': lambda: optimizer(TREE, 8, n=16),
    'failures': lambda: optimizer(MIXED, 5, n=14, fails=(1, 4, 6)),
    'twelve dimensions': lambda: optimizer(WIDE, 6),
    'seconds': lambda: optimizer(MIXED, 6, cost='seconds', seconds=lambda p: 1+p['bs']/64),
    'upper confidence bound': lambda: optimizer(FLAT, 1, n=13, acq='ucb'),
    'probability of improvement': lambda: optimizer(FLAT, 1, n=13, acq='pi'),
    'Optuna': lambda: by_optuna(flat, n=14),
    'Optuna, given the space': lambda: by_optuna(flat, n=14, space=dict(x=(0., 1.), n=(1, 128, 'log'))),
    'Optuna, branches': lambda: by_optuna(branches, n=16, direction='minimize'),
    'Optuna, epochs': lambda: by_optuna(epochs, n=14, n_epoch=9, pruner=BayesPruner(9)),
}

def arithmetic():
    "What the last bits of products, roots and exponentials are here"
    A = np.random.default_rng(0).random((60, 60))
    parts = A@A.T, cho_factor(A@A.T+np.eye(60))[0], np.exp(-A), np.log(A), A.sum(0)
    return hashlib.sha256(b''.join(np.ascontiguousarray(o).tobytes() for o in parts)).hexdigest()[:16]

def made():
    "All cases, in a process that uses no more than every x86-64 can do"
    few = ' '.join(k for k in __cpu_dispatch__ if __cpu_features__[k])
    env = dict(os.environ, OPENBLAS_CORETYPE='Nehalem', NPY_DISABLE_CPU_FEATURES=few, OMP_NUM_THREADS='1', OPENBLAS_NUM_THREADS='1')
    res = subprocess.run([sys.executable, '-W', 'ignore', __file__, 'print'], env=env, capture_output=True, text=True)
    assert res.returncode==0, res.stderr
    return json.loads(res.stdout)

@pytest.fixture(scope='module')
def now(): return made()
@pytest.fixture(scope='module')
def old(): return json.loads(file.read_text())

def near(a, b): return a==b or isinstance(a, float) and math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12)
def same(a, b): return a[:2]==b[:2] and a[2].keys()==b[2].keys() and all(map(near, a[2].values(), b[2].values()))

@pytest.mark.xdist_group('golden')
@pytest.mark.parametrize('case', cases)
def test_proposals(case, now, old):
    if now['arithmetic']!=old['arithmetic']: pytest.skip('the golden proposals were made with another arithmetic')
    assert len(now[case])==len(old[case])
    for i,(a,b) in enumerate(zip(now[case], old[case])): assert same(a, b), f'proposal {i}'

if __name__=='__main__':
    if sys.argv[1:]==['print']:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        print(json.dumps(dict(arithmetic=arithmetic(), **{k: f() for k,f in cases.items()})))
    else: file.write_text(json.dumps(made()).replace(']], "', ']],\n"')+'\n')
