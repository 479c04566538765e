"""What `repeats=3` and `folds=3` are worth: how good the winner is on data that no search has seen, with the same epochs each way.

    python benchmarks/repeats.py [--sets digits tumours ...] [--seeds 5] [--runs 3] [--ways repeats folds] [--jobs 2]

A set has a small validation set, on which the search chooses, and a large test set, on which its winner is judged. Digits have 150 pictures
to choose by, 400 to judge by. In a table and in ratings of `sweep_sets.py`, 150 rows of the validation set choose, the others judge; better is
more, so losses are negative. Gains are over one run for each trial, paired by seeds; optimism is the value in the search less that on test data.
`runs` counts complete runs, `plain` those that training each complete trial `--runs` times would have taken. Folds divide what is there to train
and to choose by. Other sets than digits need `pip install -e '.[sweeps]'`."""
import argparse, tempfile, warnings
from copy import copy
import numpy as np, torch
from fastai.vision.all import CrossEntropyLossFlat, DataLoaders, Learner, ProgressCallback, TfmdDL, accuracy, nn
from sklearn.datasets import load_digits
from torch.utils.data import TensorDataset
from racing import header, hush, race, row, versions

CHOOSE,TRIALS = 150,20 # Items of a validation set; full trials in the budget of a search

def digits(path):
    "A learner on 300 digits, and the loader of 400 others to test on"
    x,y = load_digits(return_X_y=True)
    x,y = torch.tensor(x).float()/16,torch.tensor(y)
    at = torch.tensor(np.random.default_rng(0).permutation(len(x)))
    def _dl(a, b, **kwargs): return TfmdDL(TensorDataset(x[at[a:b]], y[at[a:b]]), num_workers=0, **kwargs)
    dls = DataLoaders(_dl(0, 300, bs=32, shuffle=True, drop_last=True), _dl(300, 450, bs=150), path=path)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(.2), nn.Linear(32, 10))
    return Learner(dls, model, loss_func=CrossEntropyLossFlat(), metrics=accuracy, path=path), _dl(450, 850, bs=400), 6

def of_sweeps(name):
    "The same for a set of `sweep_sets.py`"
    from sweep_sets import APPLICATIONS, SETS
    app, = [a for a,n in SETS if n==name]
    def _make(path):
        torch.manual_seed(0)
        learn = SETS[app, name].maker()(path=path)
        valid = learn.dls.valid
        at = np.random.default_rng(0).permutation(len(valid.dataset))
        def _part(o): return valid.new(valid.dataset.iloc[o])  # as they are: `test_dl` would normalize them again
        few,rest = _part(at[:CHOOSE]),_part(at[CHOOSE:])
        learn.dls = copy(learn.dls)  # the set keeps its own for the next study
        learn.dls.loaders = [learn.dls.loaders[0], few]
        return learn, rest, APPLICATIONS[app].n_epoch
    return _make

def of_predictions(ensemble, test, learn):
    "The metric of `learn`, accuracy, rmse or squared error, of the mean predictions of `ensemble` on `test`"
    for o in ensemble.learners: o.remove_cb(ProgressCallback)
    preds,targs,decoded = ensemble.get_preds(dl=test, with_decoded=True)
    if learn.metrics and learn.metrics[0].name=='accuracy': return float((decoded.flatten()==targs.flatten()).float().mean())
    mse = float(((preds.flatten()-targs.flatten())**2).mean())
    return mse**.5 if learn.metrics else mse

def tune(name, seed, way, n):
    "Values of the winner and of its runs together on test data, value in the search, complete runs, complete trials, epochs"
    hush()
    warnings.simplefilter('ignore')
    import fastai_bayes.all  # noqa: F401  it adds `bayes_tune`
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as path:
        learn,test,T = (digits if name=='digits' else of_sweeps(name))(path)
        res = learn.bayes_tune(T, budget=TRIALS*T, seed=seed, verbose=False, recipes=False, **({} if way=='one' else {way: n}))
        sign = 1 if res.study.direction.name=='MAXIMIZE' else -1
        with learn.no_bar(): value = learn.validate(dl=test)[-1]
        together = of_predictions(res.ensemble(), test, learn)
        df = res.trials
        whole = df[df.epochs>=T]
        runs = int(whole.runs.sum()) if 'runs' in df else len(whole)
        return sign*value, sign*together, sign*res.best_value, runs, len(whole), int(df.epochs.sum())

def pm(v): return f'{np.mean(v):.4f} ± {np.std(v, ddof=1)/len(v)**.5:.4f}' if len(v)>1 else f'{v[0]:.4f}'

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--sets', nargs='+', default=['digits', 'tumours', 'diabetes', 'pixels'])
    p.add_argument('--ways', nargs='+', choices=('repeats', 'folds'), default=['repeats', 'folds'])
    for k,v in dict(seeds=5, runs=3, jobs=2).items(): p.add_argument(f'--{k}', type=int, default=v)
    args = p.parse_args()
    print(f"{versions('fastai_bayes', 'fastai', 'torch')}; seeds 0 to {args.seeds-1}, budget of {TRIALS} full trials")
    todo = [(n, s, w, args.runs) for n in args.sets for s in range(args.seeds) for w in ('one', *args.ways)]
    done = race(tune, todo, args.jobs, lambda o: [f'{o[0]:.4f}', f'{o[1]:.4f}', f'{o[3]} runs', f'{o[5]} epochs'])
    print('\nThe winner on data that no search has seen: mean ± standard error over seeds\n')
    header('set', 'runs of a trial', 'test', 'its runs together', 'gain', 'gain together', 'optimism', 'runs', 'plain', 'saved')
    for n in args.sets:
        def _all(way): return np.array([done[n, s, way, args.runs] for s in range(args.seeds)])
        one = _all('one')
        row(n, '1', pm(one[:,0]), '', '', '', pm(one[:,2]-one[:,0]), '', '', '')
        for way in args.ways:
            more = _all(way)
            runs,plain = more[:,3].sum(),args.runs*more[:,4].sum()
            gains = pm(more[:,0]-one[:,0]),pm(more[:,1]-one[:,0])
            row(n, f'{way}={args.runs}', pm(more[:,0]), pm(more[:,1]), *gains, pm(more[:,2]-more[:,0]), int(runs), int(plain), f'{1-runs/plain:.0%}')

if __name__=='__main__': main()
