"Small learners, and pictures of a learner's and the process's state, for the tests of tuning"
import random, signal
from pathlib import Path
import numpy as np, optuna, torch
from fastai.callback import tracker
from fastai.vision.all import *
from sklearn.datasets import load_digits
from threadpoolctl import threadpool_info
from torch.utils.data import TensorDataset

torch.set_num_threads(1)
x,y = load_digits(return_X_y=True)
x,y = torch.tensor(x).float()/16,torch.tensor(y)
quick = dict(verbose=False, seed=0)

def loaders(path, n=160, bs=32):
    "The first `n` digits for training, 100 others for validation"
    return DataLoaders(TfmdDL(TensorDataset(x[:n], y[:n]), bs=bs, shuffle=True, drop_last=True, num_workers=0),
                       TfmdDL(TensorDataset(x[-100:], y[-100:]), bs=50, num_workers=0), path=path)

def net(n=16):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, n), nn.BatchNorm1d(n), nn.ReLU(), nn.Linear(n, 10))

def digits(path, dls=None, model=None, **kwargs):
    "A small learner on scikit-learn's digits"
    kwargs = {'metrics': accuracy, 'loss_func': CrossEntropyLossFlat(), **kwargs}
    return Learner(loaders(path) if dls is None else dls, net() if model is None else model, **kwargs)

def picture(learn):
    "All that a study must leave alone"
    attrs = {k: id(v) for k,v in vars(learn).items()}
    weights = {k: v.clone() for k,v in learn.model.state_dict().items()}
    loaders = getattr(learn.dls, 'loaders', [learn.dls])
    rngs = [o.rng.getstate() for o in loaders if hasattr(o, 'rng')]
    opt = None if learn.opt is None else [dict(h) for h in learn.opt.hypers]
    return attrs, weights, [id(o) for o in learn.cbs], opt, [id(o) for o in loaders], rngs

def process():
    "Random number generators, threads, mixed precision, what Ctrl-C does, what trackers print, Optuna's log"
    n = np.random.get_state()
    amp = torch.is_autocast_enabled('cuda'), torch.get_autocast_dtype('cuda')
    threads = sorted((o['internal_api'], o['num_threads']) for o in threadpool_info())
    rest = threads, signal.getsignal(signal.SIGINT), hasattr(tracker, 'print'), optuna.logging.get_verbosity()
    return torch.get_rng_state().tolist(), random.getstate(), n[1].tolist(), n[2], torch.get_num_threads(), amp, rest

def same(a, b):
    "Are two pictures the same?"
    return all((a[1][k]==b[1][k]).all() for k in a[1]) and a[0]==b[0] and a[2:]==b[2:]

def files(path): return sorted(o.relative_to(path).as_posix() for o in Path(path).rglob('*'))

class Break(Callback):
    "Raises `error` in the trainings counted in `which`; a copy of it counts with the others"
    order,count = 70,0
    def __init__(self, error, which=(1,), epoch=1): self.error,self.which,self.at = error,which,epoch
    def before_fit(self): Break.count += 1
    def after_epoch(self):
        if Break.count in self.which and self.epoch+1==self.at: raise self.error

class Curve(Callback):
    "Replaces the recorded accuracy by `f(lr, epoch)`, before anybody reads it"
    order = 51
    def __init__(self, f): self.f = f
    def after_epoch(self): self.recorder.values[-1][2] = self.f(self.opt.hypers[-1]['lr'], self.epoch)

# what a star import brings: not fastcore's tests, which pytest would run, nor torch's `RandomSampler`
__all__ = [o for o in list(globals()) if not o.startswith(('_', 'test')) and o!='RandomSampler']
