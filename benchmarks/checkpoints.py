"""How long a training stops for its checkpoints, how large they are, and how much memory they take.

One trial of `bayes_tune` whose metric grows in each epoch, so that each epoch writes the weights of the best epoch and the full state (weights, Adam, random states, callbacks).
`waiting` writes while the training waits, as small states are written. The peers save the same model and optimizer after each epoch: `torch.save` to a file, without
flushing it to the disk, and fastai's `SaveModelCallback(every_epoch=True, with_opt=True)`. An epoch is two batches and a pause, which stands for the batches of a larger set.
Each row is a process of its own; `memory` is its peak over that of the same training without checkpoints, `first` the first stop, which also allocates memory, `later` the
mean of the others.

    python benchmarks/checkpoints.py [--sizes 1 25 100] [--seconds 8] [--epochs 4] [--device cpu] [--ways bayes_tune waiting]
"""
import argparse, json, math, resource, subprocess, sys, tempfile, time, warnings
warnings.simplefilter('ignore')
import torch
from fastai.callback.all import *
from fastai.vision.all import *
from torch.utils.data import TensorDataset
from fastai_bayes.all import *
from fastai_bayes.learner import checkpoint, training

class Stops:
    "Seconds that the training stops in each epoch"
    def __init__(self): self.seconds = []
    def watch(self, owner, first):
        "Count the time in `owner.after_epoch`; `first` begins an epoch"
        usual = owner.after_epoch
        def after_epoch(cb):
            start = time.perf_counter()
            usual(cb)
            spent = time.perf_counter()-start
            if first: self.seconds.append(spent)
            else: self.seconds[-1] += spent
        owner.after_epoch = after_epoch

class Growing(Metric):
    "A metric that grows in each epoch"
    epochs = 0
    def reset(self): self.epochs += 1
    def accumulate(self, learn): pass
    @property
    def value(self): return self.epochs/1000
    @property
    def name(self): return 'growing'

class Pause(Callback):
    "Stands for the rest of the batches"
    def __init__(self, seconds): self.seconds = seconds
    def after_train(self): time.sleep(self.seconds)

class TorchSave(Callback):
    "Save model and optimizer as people do"
    order = SaveModelCallback.order
    def after_epoch(self):
        state = dict(model=self.model.state_dict(), opt=self.opt.state_dict())
        torch.save(state, Path(self.learn.path)/'state.pth')

def learner(path, millions, seconds, device='cpu'):
    "About so many million parameters in four layers"
    width = round(math.sqrt(millions*1e6/4))
    torch.manual_seed(0)
    x,y = torch.randn(8, width),torch.arange(8)%2
    dls = DataLoaders(*(TfmdDL(TensorDataset(x, y), bs=4, num_workers=0) for _ in range(2)), path=path, device=device)
    layers = [o for _ in range(4) for o in (nn.Linear(width, width), nn.ReLU())]
    model = nn.Sequential(*layers, nn.Linear(width, 2))
    return Learner(dls, model, loss_func=CrossEntropyLossFlat(), metrics=Growing(), cbs=Pause(seconds), path=path)

def train(o, way, path):
    "Train with checkpoints as `way` says; the seconds that each took"
    stops,learn = Stops(),learner(path, o.sizes[0], o.seconds, o.device)
    if way in ('bayes_tune', 'waiting'):
        if way=='waiting': checkpoint.Writer.large = math.inf
        stops.watch(training.BestEpoch, True), stops.watch(checkpoint.Checkpoint, False)
        learn.bayes_tune(o.epochs, dict(lr=[1e-4]), n_trials=1, monitor='growing', mode='max', verbose=False, seed=0)
        return stops.seconds
    cbs = dict(none=[], torch=[TorchSave()], fastai=[SaveModelCallback('growing', every_epoch=True, with_opt=True)])[way]
    for cb in cbs: stops.watch(type(cb), True)
    learn = learn if way=='none' else learn
    with learn.no_bar(), learn.no_logging(): learn.fit(o.epochs, 1e-4, cbs=cbs)
    return stops.seconds

def one(o):
    "The row of one way and one size"
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as path:
        seconds = train(o, o.ways[0], path)
        files = [f for name in ('checkpoint.pt', 'best.pth', 'state.pth', 'model_0.pth') for f in Path(path).rglob(name)]
        size = sum(f.stat().st_size for f in files)
    print(json.dumps(dict(stops=seconds, bytes=size, peak=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss*1024)))

def row(o, way, millions):
    args = [sys.executable, __file__, '--one', '--ways', way, '--sizes', str(millions), '--seconds', str(o.seconds)]
    args += ['--epochs', str(o.epochs), '--device', o.device]
    res = subprocess.run(args, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(res.stdout.splitlines()[-1])

names = dict(bayes_tune='bayes_tune', waiting='bayes_tune, waiting', torch='torch.save', fastai='SaveModelCallback')

columns = 'million parameters', 'way', 'first stop, s', 'later stops, s', 'GB', 'memory, GB', 'memory, times'

def table(o):
    print(f'{o.device}, {o.epochs} epochs of {o.seconds:g} s; 2 % of an epoch of 30 s are .6 s:\n')
    print('|', ' | '.join(columns), '|')
    print('|', ' | '.join(['---']*len(columns)), '|')
    for millions in o.sizes:
        base = row(o, 'none', millions)['peak']
        for way in o.ways:
            r = row(o, way, millions)
            first,*later = r['stops']
            mean,more = sum(later)/max(len(later), 1),r['peak']-base
            print(f'| {millions:g} | {names[way]} | {first:.2f} | {mean:.2f} | {r["bytes"]/1e9:.2f} | {more/1e9:.2f} | {r["peak"]/base:.2f} |', flush=True)

def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--sizes', type=float, nargs='+', default=[1, 25, 100], help='million parameters')
    p.add_argument('--seconds', type=float, default=8, help='pause in each epoch')
    p.add_argument('--epochs', type=int, default=4)
    p.add_argument('--device', default='cpu')
    p.add_argument('--ways', nargs='+', default=[*names], choices=[*names, 'none'])
    p.add_argument('--one', action='store_true', help='one row, as JSON')
    o = p.parse_args()
    one(o) if o.one else table(o)

if __name__ == '__main__': main()
