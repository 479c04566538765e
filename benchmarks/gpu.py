"""What only a card can show, in one table: memory after errors, resumed trainings, precision, time for checkpoints, trials per hour, two workers, memory formats, compiled
models, the limit on memory.

Each row says what was measured and what is wanted; the exit code is 1 if one is not as wanted. On one card everything takes less than ten minutes. `--device cpu --small` tries
the same lines without a card: what it prints then says nothing about one.

    python benchmarks/gpu.py [--device cuda] [--small] [--only memory precision knob checkpoints pace workers formats compiled limit]
"""
import argparse, contextlib, functools, gc, platform, sys, tempfile, time, warnings
from pathlib import Path
warnings.simplefilter('ignore')
import torch
from fastai.callback.all import *
from fastai.vision.all import *
from torch.utils.data import TensorDataset
from fastai_bayes.all import *
from fastai_bayes.learner.checkpoint import Checkpoint
from fastai_bayes.learner.copies import seeded
from fastai_bayes.learner.loaders import seeded_loaders
sys.path.append(str(Path(__file__).parent))
import checkpoints
from racing import header, row as show

quick = dict(verbose=False, seed=0)
space = dict(lr=(1e-4, 1e-2, 'log'))
paced = 5 # Epochs of the trainings that are timed

@functools.cache
def images(n, size):
    "Coloured noise with a mean that tells two classes apart"
    torch.manual_seed(0)
    y = torch.arange(n)%2
    return torch.randn(n, 3, size, size)+.2*y.view(-1, 1, 1, 1),y

def learner(o, path, **kwargs):
    "A small convolutional network"
    x,y = images(96, 16) if o.small else images(4096, 64)
    n = len(x)
    torch.manual_seed(0)
    make = lambda s, **kw: TfmdDL(TensorDataset(x[s], y[s]), bs=32, num_workers=0, **kw)
    dls = DataLoaders(make(slice(n*3//4), shuffle=True, drop_last=True), make(slice(n*3//4, None)), path=path,
                      device=torch.device(o.device))
    width = 8 if o.small else 64
    body = [ConvLayer(3, width, stride=2), ConvLayer(width, 2*width, stride=2), nn.AdaptiveAvgPool2d(1)]
    model = nn.Sequential(*body, nn.Flatten(), nn.Linear(2*width, 2))
    return Learner(dls, model, loss_func=CrossEntropyLossFlat(), metrics=accuracy, path=path, **kwargs)

def allocated(o):
    "Bytes that tensors on the device take"
    gc.collect()
    if o.device!='cpu': return torch.cuda.memory_allocated()
    tensors = [t for t in gc.get_objects() if isinstance(t, torch.Tensor)]
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())

def synchronized(o):
    if o.device!='cpu': torch.cuda.synchronize()
    return time.perf_counter()

class Hungry(Callback):
    "Runs out of memory in all trials but the first"
    trials = 0
    def before_fit(self): Hungry.trials += 1
    def before_batch(self):
        if Hungry.trials>1: torch.empty(2**48, dtype=torch.uint8, device=self.xb[0].device)

def memory(o, path):
    "Bytes that ten trials leave allocated that ran out of memory; what the first training leaves to torch's libraries is there before"
    Hungry.trials = -1
    learn = learner(o, path, cbs=Hungry())
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    learn.opt = None
    before = allocated(o)
    res = learn.bayes_tune(1, space, n_trials=11, sampler='random', **quick)
    failed = (res.trials.state=='failed').sum()
    left = allocated(o)-before
    yield f'bytes left by {failed} trials out of memory, {before/1e6:.1f} MB before', left, '< 1 MB', failed==10 and left<2**20

class Died(BaseException): pass
class Die(Callback):
    "Dies after epoch `at`"
    order,_stateattrs = 99,('at',)
    def __init__(self, at): self.at = at
    def after_epoch(self):
        if self.epoch+1==self.at: raise Died

def fit(o, path, prepare, dies=None, n=3):
    "Weights after a fit with checkpoints"
    with seeded(1):
        learn = prepare(learner(o, path))
        with seeded_loaders(learn.dls, 1), learn.no_bar(), learn.no_logging():
            learn.fit_one_cycle(n, 1e-3, cbs=[Checkpoint(Path(path)/'c.pt'), Die(dies)])
    return torch.cat([v.flatten().float().cpu() for v in learn.model.state_dict().values()])

def resumed(o, path, prepare):
    "Largest difference of weights between two whole fits, and between a whole fit and resumed ones"
    folders = [Path(path)/f'{i}' for i in range(4)]
    for f in folders: f.mkdir()
    a,b = (fit(o, f, prepare) for f in folders[:2])
    worst = 0.
    for dies,f in zip((1, 2), folders[2:]):
        try: fit(o, f, prepare, dies)
        except Died: pass
        worst = max(worst, float((fit(o, f, prepare)-a).abs().max()))
    return float((a-b).abs().max()),worst

def row(what, ours, theirs):
    "Two kernels that differ from run to run differ at most so much after a resume"
    return f'{what}: weights differ when resumed', theirs, f'at most 3 times {ours:.1e}', theirs<=3*ours

def half(learn):
    return learn.to_fp16() if learn.dls.device.type=='cuda' else learn

def precision(o, path): yield row('mixed precision', *resumed(o, path, half))

class Precision(Callback):
    "Notes in what precision the batches are computed"
    order,seen = 20,set()
    def before_batch(self):
        kind = self.dls.device.type
        Precision.seen.add(torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32)

def knob(o, path):
    for name,dtype in dict(fp32=torch.float32, fp16=torch.float16, bf16=torch.bfloat16).items():
        if o.device=='cpu' and name=='fp16': continue
        Precision.seen.clear()
        res = learner(o, f'{path}/{name}', cbs=Precision()).bayes_tune(1, dict(precision=[name], **space), n_trials=2, **quick)
        ok = Precision.seen=={dtype} and (res.trials.state=='complete').all()
        yield f"precision=['{name}']: precisions in the batches of a study", Precision.seen, {dtype}, ok

class Width(nn.Module):
    "Layers whose width decides how much memory a training takes"
    def __init__(self, width):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.LazyLinear(width), nn.ReLU(), nn.LazyLinear(2))
    def forward(self, x): return self.body(x)

def limit(o, path):
    "`peak_mem_mb` of a wide network against torch's count in a plain training of it, and whether its limit is kept"
    if o.device=='cpu': return
    bound = 100 if o.small else 300
    def make(p):
        learn = learner(o, path)
        learn.model = Width(p['width']).to(o.device)
        learn.model(learn.dls.one_batch()[0])
        return learn
    learn = make(dict(width=8192))
    torch.cuda.reset_peak_memory_stats()
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(2, 1e-3)
    alone,learn = torch.cuda.max_memory_allocated()/1e6,None
    res = learner(o, path).bayes_tune(2, dict(width=[16, 8192], lr=[1e-3]), n_trials=2, new_learner=make, subject_to=dict(peak_mem_mb=(None, bound)), **quick)
    peaks,width = res.trials.groupby('width').peak_mem_mb.max().round(1).to_dict(),res.best_params['width']
    yield f'width of the winner, peak_mem_mb at most {bound}; found: {peaks}', width, '16', width==16
    yield "peak_mem_mb of the wide one, and torch's count in a plain training", f'{peaks[8192]} {alone:.1f}', 'equal within 1 %', abs(peaks[8192]/alone-1)<.01

def last(learn):
    learn.model.to(memory_format=torch.channels_last)
    return half(learn)

class Format(Callback):
    "Notes whether weights are stored channels last"
    seen = set()
    def before_batch(self):
        w = next(p for p in self.model.parameters() if p.dim()==4)
        Format.seen.add(w.is_contiguous(memory_format=torch.channels_last))

def formats(o, path):
    yield row('channels_last', *resumed(o, path, last))
    Format.seen.clear()
    last(learner(o, path, cbs=Format())).bayes_tune(3, space, n_trials=3, **quick)
    yield 'channels_last: formats in the batches of a study', Format.seen, '{True}', Format.seen=={True}

def compiled(o, path):
    backend = 'eager' if o.small else 'inductor'
    def prepare(learn):
        learn.model = torch.compile(learn.model, backend=backend)
        return half(learn)
    yield row('torch.compile', *resumed(o, path, prepare))
    learn = prepare(learner(o, path))
    res = learn.bayes_tune(3, space, n_trials=4, **quick)
    resumes = sum('resumed' in str(r) for r in res.trials.reason)
    ok = (res.trials.state!='failed').all()
    yield f'torch.compile: trials that failed, of 4 with {resumes} resumed', (res.trials.state=='failed').sum(), '0', ok

def cost(o, path):
    "Checkpoints in every epoch of 30 s"
    args = argparse.Namespace(seconds=.2 if o.small else 6, epochs=3, device=o.device)
    for size in ((.1,) if o.small else (25, 300)):
        for way in ('bayes_tune', 'torch'):
            first,*later = checkpoints.row(args, way, size)['stops']
            share = sum(later)/len(later)/30
            wanted = '< 2 %' if way=='bayes_tune' else 'for comparison'
            yield f'{checkpoints.names[way]}, {size:g} million parameters: share of 30 s', f'{share:.2%}', wanted, way=='torch' or share<.02

def timed_study(o, path, n, **kwargs):
    "A random search without stops: its seconds and its trials"
    learn,start = learner(o, path),synchronized(o)
    res = learn.bayes_tune(paced, space, n_trials=n, sampler='random', pruner='none', **quick, **kwargs)
    return synchronized(o)-start,res

def pace(o, path):
    n = 3 if o.small else 8
    timed_study(o, f'{path}/warm', 1)
    ours,res = timed_study(o, f'{path}/study', n)
    start = synchronized(o)
    for i,lr in enumerate(res.trials.lr):
        learn = learner(o, f'{path}/{i}')
        with learn.no_bar(), learn.no_logging(), contextlib.redirect_stdout(None): learn.fit_one_cycle(paced, lr, cbs=SaveModelCallback('accuracy'))
    hand = synchronized(o)-start
    yield f'trials per hour, {3600*n/hand:.0f} by hand: share', f'{hand/ours:.2f}', '> .95', o.small or hand/ours>.95

def workers(o, path):
    n = 4 if o.small else 12
    one,_ = timed_study(o, f'{path}/1', n)
    two,res = timed_study(o, f'{path}/2', n, workers=2)
    ok = (res.trials.state=='complete').all()
    yield f'two workers on one card, {3600*n/one:.0f} trials per hour without: share, their start included', f'{one/two:.2f}', 'all complete', ok

checks = dict(memory=memory, precision=precision, knob=knob, checkpoints=cost, pace=pace, workers=workers, formats=formats, compiled=compiled, limit=limit)

def rows(o, name):
    "What a check found: pairs of what and a value, what is wanted, and whether it is"
    with tempfile.TemporaryDirectory() as path: yield from checks[name](o, path)

def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--device', default='cuda')
    p.add_argument('--small', action='store_true', help='a dry run in a minute')
    p.add_argument('--only', nargs='+', choices=checks, default=[*checks])
    o = p.parse_args()
    card = o.device if o.device=='cpu' else torch.cuda.get_device_name()
    print(f'{card}; torch {torch.__version__}, Python {platform.python_version()}, seeds 0 and 1{"; a dry run" if o.small else ""}\n')
    start,bad = time.monotonic(),0
    header('check', 'what', 'value', 'wanted', 'so')
    for name in o.only:
        for what,value,wanted,ok in rows(o, name):
            bad += not ok
            show(name, what, value, wanted, 'yes' if ok else 'NO')
    print(f'\n{bad} not as wanted, {time.monotonic()-start:.0f} s')
    sys.exit(bad>0)

if __name__ == '__main__': main()
