"""What `bayes_tune` costs beyond the trainings themselves.

A study of 12 trials of about 2 seconds, then the same trainings (hyperparameters, seeds, number of epochs, `SaveModelCallback`) in a
hand-written loop, then the study again, and so on. Prints the ratio of the times; wall time counts what other programs do, CPU time does not.

    python benchmarks/overhead.py [trials] [seconds a training] [rounds]
"""
import contextlib, platform, sys, tempfile, time, warnings
warnings.simplefilter('ignore')
import fastai, numpy as np, optuna, torch
from fastai.vision.all import *
from sklearn.datasets import load_digits
from torch.utils.data import TensorDataset
from fastai_bayes.all import *
from fastai_bayes.learner.copies import seeded
from fastai_bayes.learner.loaders import seeded_loaders
from fastai_bayes.study.records import trial_id

n_trials,seconds,rounds = [f(a) for f,a in zip((int, float, int), [*sys.argv[1:], *'12 2 3'.split()[len(sys.argv)-1:]])]
n_epoch,seed = 4,0
x,y = load_digits(return_X_y=True)
x,y = torch.tensor(x).float().view(-1, 1, 8, 8)/16,torch.tensor(y)
tmp = tempfile.TemporaryDirectory()
torch.set_num_threads(1)

def learner(repeat):
    "A small CNN on the digits, each of them `repeat` times an epoch"
    torch.manual_seed(0)
    trn,val = [TensorDataset(x[o].repeat(n, 1, 1, 1), y[o].repeat(n)) for o,n in ((slice(1297), repeat), (slice(1297, None), 1))]
    dls = DataLoaders(TfmdDL(trn, bs=64, shuffle=True, drop_last=True, num_workers=0), TfmdDL(val, bs=250, num_workers=0), path=tmp.name)
    return Learner(dls, nn.Sequential(ConvLayer(1, 16, stride=2), ConvLayer(16, 32, stride=2), nn.Flatten(), nn.Linear(128, 10)),
                   loss_func=CrossEntropyLossFlat(), metrics=accuracy)

class StopAfter(Callback):
    "Stops where the pruner did"
    order = SaveModelCallback.order+1
    def __init__(self, n): self.n = n
    def after_epoch(self):
        if self.epoch+1==self.n: raise CancelFitException

def train(repeat, p, number=0, n=n_epoch):
    "A training as a person would write it; its best accuracy"
    s,learn = int(np.random.SeedSequence([seed, number]).generate_state(1)[0]),learner(repeat)
    learn.opt_func,learn.model_dir,save = p['opt_func'],f'hand/{number}',SaveModelCallback('accuracy')
    with seeded(s), seeded_loaders(learn.dls, s), learn.no_bar(), learn.no_logging(), contextlib.redirect_stdout(None):
        learn.fit_one_cycle(n_epoch, p['lr'], wd=p['wd'], cbs=[save, StopAfter(n)])
    return float(save.best)

def timed(f):
    "What `f` returns, wall and CPU seconds"
    w,c = time.perf_counter(),time.process_time()
    return f(), np.array([time.perf_counter()-w, time.process_time()-c])

space = dict(lr=(1e-4, 1e-1, 'log'), wd=(1e-4, .3, 'log'), opt_func=[Adam, ranger])
mid = dict(lr=.01, wd=.01, opt_func=Adam)
train(1, mid)
repeat = max(1, round(4*seconds/timed(lambda: train(4, mid))[1][1]))
print(f'fastai {fastai.__version__}, torch {torch.__version__}, optuna {optuna.__version__}, Python {platform.python_version()}; seed {seed}')
total = np.zeros((2, 2))
for i in range(rounds):
    learn = learner(repeat)
    res,a = timed(lambda: learn.bayes_tune(n_epoch, space, n_trials=n_trials, seed=seed, verbose=i==0))
    rows = res.trials.sort_values('number')
    began = sorted({trial_id(t) for t in res.study.trials})
    first = [began.index(trial_id(res.study.trials[n])) for n in rows.number]  # the seed counts trainings, also those carried on
    hand,b = timed(lambda: [train(repeat, res.params_of(n), i, k) for n,i,k in zip(rows.number, first, rows.epochs)])
    assert hand==rows.value.tolist(), 'the trainings are not the same'
    total += [a, b]
    print(f'{n_trials} trials, {rows.epochs.sum()} epochs: bayes_tune {a[0]:.2f} s (CPU {a[1]:.2f}), by hand {b[0]:.2f} s (CPU {b[1]:.2f})')
print('ratio: wall {:.4f}, CPU {:.4f}'.format(*total[0]/total[1]))
