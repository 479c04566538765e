"""Limits: infeasible winners, and epochs spent on what is infeasible, with `subject_to=` and with rejection after training

    python benchmarks/limits.py --seeds 30

Each seed tunes a network for scikit-learn's digits with the same budget: with `subject_to=`, and without it, where the best trial that keeps the limit would be
taken afterwards. Two limits: the number of parameters, known before a training, and the calibration of the probabilities, a metric, known at its end. What the winner
has is measured on the learner that is returned."""
import argparse, tempfile, time, warnings
import numpy as np, torch
from fastai.vision.all import *
from sklearn.datasets import load_digits
from torch.utils.data import TensorDataset
from fastai_bayes.all import *
from racing import cells, header, row, versions

x,y = load_digits(return_X_y=True)
x,y = torch.tensor(x).float()/16,torch.tensor(y)
n_epoch,space = 5,dict(width=(8, 512, 'log'), layers=[1, 2, 3], lr=(1e-3, 1e-1, 'log'), label_smoothing=(0., .3))

def calibration(preds, targs):
    "Distance of the mean confidence from the accuracy"
    conf,pred = preds.softmax(1).max(1)
    return (conf.mean()-(pred==targs).float().mean()).abs().item()

def learner(path, seed, width=32, layers=1, **_):
    "A network for a third of the digits"
    idx = np.random.default_rng(seed).permutation(len(x))
    trn,val = idx[:600],idx[600:1000]
    dls = DataLoaders(TfmdDL(TensorDataset(x[trn], y[trn]), bs=64, shuffle=True, drop_last=True, num_workers=0),
                      TfmdDL(TensorDataset(x[val], y[val]), bs=400, num_workers=0), path=path)
    torch.manual_seed(seed)
    sizes = [64, *[width]*layers]
    parts = [nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a,b in zip(sizes, sizes[1:])]
    metrics = [accuracy, AccumMetric(calibration, flatten=False)]
    return Learner(dls, nn.Sequential(*parts, nn.Linear(width, 10)), loss_func=CrossEntropyLossFlat(), metrics=metrics)

def size_of(learn): return sum(p.numel() for p in learn.model.parameters())
def gap_of(learn):
    with learn.no_bar(): preds,targs = learn.get_preds()
    return calibration(preds.clamp_min(1e-12).log(), targs)  # fastai applies the softmax
limits = dict(n_params=(size_of, 5000), calibration=(gap_of, .15)) # Name -> what measures it in a learner, and its upper bound

def study(name, limited, seed, budget):
    "Is the winner feasible? The best feasible value, epochs of infeasible trials, their number, and all epochs"
    measure,high = limits[name]
    with tempfile.TemporaryDirectory() as d:
        def make(p): return learner(d, seed, **p)
        res = make({}).bayes_tune(n_epoch, space, budget=budget, monitor='accuracy', new_learner=make, seed=seed, verbose=False,
                                  subject_to={name: (None, high if limited else 1e9)})
        df = res.trials
        bad = df[name]>high
        best = df.value[~bad & df.state.isin(['complete', 'stopped'])].max()
        return measure(res.learner())<=high, best, df.epochs[bad].sum(), bad.sum(), df.epochs.sum()

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--seeds', type=int, default=30)
    p.add_argument('--budget', type=int, default=60)
    p.add_argument('--limits', nargs='+', default=[*limits], choices=[*limits])
    a = p.parse_args()
    warnings.simplefilter('ignore')
    torch.set_num_threads(1)
    print(f"{a.budget} epochs, {n_epoch} per trial, seeds 0 to {a.seeds-1}; {versions('fastai_bayes', 'optuna', 'torch')}")
    print('\nInfeasible winners and trials, the epochs that these took, and the accuracy of the best feasible trial (standard error)\n')
    header('limit', '', 'infeasible winners', 'epochs on infeasible configurations', 'accuracy of the best feasible trial', 'infeasible trials', 'seconds')
    for name in a.limits:
        for limited in (True, False):
            start = time.perf_counter()
            kept,value,epochs,n,total = map(np.array, zip(*(study(name, limited, s, a.budget) for s in range(a.seeds))))
            how,secs = '`subject_to=`' if limited else 'without',(time.perf_counter()-start)/a.seeds
            value = value[~np.isnan(value)][:,None]
            row(name, how, (~kept.astype(bool)).sum(), f'{epochs.sum()} of {total.sum()}', *cells(value), n.sum(), f'{secs:.1f}')
