"""Writes a study whose process died in a training, and what an undisturbed one ends with, by the version of fastai_bayes that is imported

    python tests/data/write_study.py tests/data/study_0_0_1"""
import json, os, shutil, sys, tempfile, warnings
from pathlib import Path
import torch
from fastai.vision.all import *
from torch.utils.data import TensorDataset
from fastai_bayes.all import *

def learner(path):
    "Six numbers, three classes"
    g = torch.Generator().manual_seed(0)
    x = torch.randn(96, 6, generator=g)
    y = (x[:,:3]+.3*torch.randn(96, 3, generator=g)).argmax(1)
    dls = DataLoaders(TfmdDL(TensorDataset(x[:64], y[:64]), bs=16, shuffle=True, drop_last=True, num_workers=0),
                      TfmdDL(TensorDataset(x[64:], y[64:]), bs=32, num_workers=0), path=path)
    torch.manual_seed(0)
    return Learner(dls, nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3)), loss_func=CrossEntropyLossFlat(),
                   metrics=accuracy)

def line(path, **kwargs):
    "The line that is started again"
    space = dict(lr=(1e-3, 1e-1, 'log'), bs=[8, 16, 32], opt_func=[Adam, SGD])
    return learner(path).bayes_tune(8, space, monitor='valid_loss', n_trials=7, budget=40, study_name='old', seed=0, verbose=False, **kwargs)

def ends(study):
    "Hyperparameters, state and curve of each training, in the order in which they began, as version 0.0.1 reads them"
    from fastai_bayes.study import curve_of, latest
    return [[t.params, t.state.name, curve_of(t)] for t in latest(study.get_trials(deepcopy=False))]

class Stop(Callback):
    "Calls `f` in an epoch of one of the fits, counted over all copies; the fit of a copy counts with the others"
    order,count = 80,0
    def __init__(self, f, which, epoch): self.f,self.which,self.at = f,which,epoch
    def before_fit(self): Stop.count += 1
    def before_train(self):
        if Stop.count==self.which and self.epoch+1==self.at: self.f()

def interrupt(): raise KeyboardInterrupt
def begin(path):
    "Ctrl-C in one training, the end of the process in a later one"
    line(path, cbs=Stop(interrupt, 3, 3))
    line(path, cbs=Stop(lambda: os._exit(0), 7, 5))

def write(folder):
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory() as whole, tempfile.TemporaryDirectory() as cut:
        end = ends(line(whole).study)
        if not (pid := os.fork()):
            os.chdir(cut)
            begin('.')  # so that checkpoints hold no path of this machine
            os._exit(1)
        os.waitpid(pid, 0)
        shutil.copytree(Path(cut)/'models', folder/'models')
    for f in folder.rglob('*.lock*'): f.unlink()  # of processes that are no more
    (folder/'end.json').write_text(json.dumps(end, indent=1))

if __name__=='__main__':
    warnings.simplefilter('ignore')
    torch.set_num_threads(1)
    write(Path(sys.argv[1]))
