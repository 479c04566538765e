"""Tune architecture, optimizer, learning rate, weight decay and batch size on scikit-learn's handwritten digits.

    python examples/digits.py [path of the plot]

1,797 real images of 8x8 pixels, in three parts: training, validation (which the tuning sees) and test (which it does not).
A few minutes on two CPU cores; no GPU and no download are needed.
"""
import math, sys, tempfile, time, warnings
from functools import partial
import torch
from torch import nn
from torch.utils.data import TensorDataset
from torchvision.models import resnet18
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
warnings.simplefilter('ignore', FutureWarning) # torch and fastai, while they are imported
from fastai.vision.all import (Adam, ConvLayer, CrossEntropyLossFlat, DataLoaders, Learner, SGD, TfmdDL, XResNet, ResBlock, accuracy, ranger,
                               set_seed)
from fastai_bayes.all import *

torch.set_num_threads(1) # the models are small: more threads wait for each other most of the time

def data():
    "Training, validation and test loader; images enlarged to 16x16, with three channels as `resnet18` wants them"
    x,y = load_digits(return_X_y=True)
    x = nn.functional.interpolate(torch.tensor(x).float().view(-1, 1, 8, 8)/16, scale_factor=2, mode='bilinear').repeat(1, 3, 1, 1)
    trn,rest = train_test_split(range(len(y)), test_size=800, stratify=y, random_state=0)
    val,tst = train_test_split(rest, test_size=400, stratify=y[rest], random_state=0)
    trn,val,tst = [TensorDataset(x[o], torch.tensor(y[o])) for o in (trn, val, tst)]
    dls = DataLoaders(TfmdDL(trn, bs=64, shuffle=True, drop_last=True, num_workers=0), *[TfmdDL(o, bs=200, num_workers=0) for o in (val, tst)])
    return dls, len(tst)

def small_cnn():
    "Three convolutions"
    return nn.Sequential(ConvLayer(3, 16, stride=2), ConvLayer(16, 32, stride=2), ConvLayer(32, 64, stride=2), nn.Flatten(), nn.Linear(256, 10))

def small_xresnet():
    "fastai's xresnet with one block a stage, half as wide"
    return XResNet(ResBlock, 1, [1, 1, 1, 1], n_out=10, widen=.5)

archs = dict(small_cnn=small_cnn, xresnet=small_xresnet, resnet18=partial(resnet18, num_classes=10))
space = dict(arch=list(archs), opt_func=[Adam, partial(SGD, mom=.9), ranger], lr=(1e-4, 1e-1, 'log'), wd=(1e-4, .3, 'log'), bs=[16, 32, 64, 128])

def learner(dls, arch='small_cnn', tmp='.'):
    "An untrained learner"
    return Learner(dls, archs[arch](), loss_func=CrossEntropyLossFlat(), metrics=accuracy, path=tmp)

def test_accuracy(learn):
    with learn.no_bar(), learn.no_logging(): return learn.validate(ds_idx=2)[1]

def main(plot='history.png', n_epoch=5):
    dls,n = data()
    start = time.time()
    set_seed(0)
    with tempfile.TemporaryDirectory() as tmp:
        default = learner(dls, tmp=tmp)
        with default.no_bar(), default.no_logging(): default.fit_one_cycle(n_epoch)

        learn = learner(dls, tmp=tmp)
        res = learn.bayes_tune(n_epoch, space, budget=60, seed=0, new_learner=lambda p: learner(dls, p['arch'], tmp))

        print(f'\n{res}\n')
        for name,o in (('default', default), ('tuned', learn)):
            acc = test_accuracy(o)
            print(f'{name:8} test accuracy {acc:.4f} +- {math.sqrt(acc*(1-acc)/n):.4f} on {n} images that the tuning has not seen')
        print(f'default: small_cnn, Adam, lr=0.001, bs=64, {n_epoch} epochs; tuned: {res.best_trial.params}; {time.time()-start:.0f} s in all')
        res.plot_history().figure.savefig(plot, dpi=110, bbox_inches='tight')
        print(f'saved {plot}')

if __name__=='__main__': main(*sys.argv[1:2])
