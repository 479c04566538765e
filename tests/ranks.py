"""Run by `torchrun` in the tests of ranks: tunes a small learner in all ranks, and writes what each has seen

    torchrun --nproc_per_node 2 tests/ranks.py CASE[+SUBFOLDER],CASE... FOLDER"""
import json, os, signal, sys, warnings
from datetime import timedelta
from pathlib import Path
warnings.filterwarnings('ignore')
from torch import distributed
from fastai.distributed import DistributedDL, DistributedTrainer
from fastai_bayes.all import *
from tuning import *

rank,path = int(os.environ['RANK']),Path(sys.argv[2])
distributed.init_process_group('gloo', timeout=timedelta(seconds=4))

def _on_the_cpu(self, t, rank):
    "fastai sends the order of items by way of a GPU, which the tests do not have"
    t = torch.tensor(t)
    distributed.broadcast(t, rank)
    return t.tolist()
if not torch.cuda.is_available(): DistributedDL._broadcast = _on_the_cpu

class Seen(Callback):
    "What each epoch of a rank was: hyperparameters, items, random numbers, the rate, where files go"
    order = Recorder.order+1
    rows = []
    def before_epoch(self): self.items,self.draw = [],torch.rand(1).item()
    def before_batch(self):
        if self.training: self.items += (self.xb[0].double()@torch.arange(64).double().sqrt()).tolist()
    def after_epoch(self):
        now = dict(epoch=self.epoch, lr=self.opt.hypers[-1]['lr'], items=self.items, draw=self.draw)
        self.rows.append({**now, 'loss': float(self.recorder.values[-1][1]), 'path': str(self.learn.path)})

class Fails(Callback):
    "An error in the fifth epoch of the study, in one of the ranks"
    def after_pred(self):
        if rank==1 and len(Seen.rows)==4: raise MemoryError('out of memory in one rank')

class Interrupts(Callback):
    "Ctrl-C in the terminal reaches all ranks, in the second epoch"
    def __init__(self, n=1): self.n = n
    def before_batch(self):
        if self.training and self.epoch==1 and self.iter<self.n: os.kill(os.getpid(), signal.SIGINT)

class Dies(Callback):
    "A rank is killed in the fifth epoch"
    def before_batch(self):
        if rank==1 and len(Seen.rows)==4: os.kill(os.getpid(), signal.SIGKILL)

space = dict(lr=(1e-4, 1e-1, 'log'), bs=[8, 16])
trainer = DistributedTrainer(sync_bn=False, cpu=True)

def model():
    torch.manual_seed(rank)  # torch takes the weights of rank 0
    return nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Dropout(.1), nn.Linear(16, 10))

def tune(learn, n_epoch=3, cbs=(), space=space, **kwargs):
    return learn.bayes_tune(n_epoch, space, study_name='ranks', cbs=[Seen(), *L(cbs)], **{**quick, **kwargs})

def by_trial(trial):
    res = digits(here, model=model(), cbs=trainer)
    res.lr = trial.suggest_float('lr', 1e-4, 1e-1, log=True)
    return res

def joint(learn, n_epoch, cbs):
    with learn.distrib_ctx(sync_bn=False, cpu=True): learn.fit(n_epoch, cbs=cbs)

tunes = dict(fit='fine_tune', n_epoch=2, n_trials=1, enqueue=False)
cases = dict(plain=dict(budget=15), saves=dict(budget=6, cbs=SaveModelCallback()), ctx=dict(budget=4),
             asks=dict(budget=6, space=None, new_learner=by_trial), other=dict(space=dict(lr=(1., 2.))),
             whole=dict(tunes, budget=3), first=dict(tunes, budget=2), rest=dict(tunes, budget=3),
             differs=dict(budget=9+rank), workers=dict(workers=2), every=dict(every=.5), within=dict(fit=joint),
             interrupt=dict(cbs=Interrupts(), budget=15), twice=dict(cbs=Interrupts(2), budget=15),
             fails=dict(cbs=Fails(), n_trials=3), dies=dict(cbs=Dies(), budget=15))

def run(case):
    "Tune as `case` says; returns what is to be known of it"
    own,kwargs = here/f'rank_{rank}',cases[case]
    own.mkdir(parents=True, exist_ok=True)
    Seen.rows,res,error = [],None,None
    learn = digits(here, model=model(), cbs=None if case in ('ctx', 'within') else trainer)
    if rank: learn.path = own  # to see whether the others write
    try:
        if case=='ctx':
            with learn.distrib_ctx(sync_bn=False, cpu=True): res = tune(learn, **kwargs)
        else: res = tune(learn, **kwargs)
    except Exception as e: error = f'{type(e).__name__}: {e}'
    said = dict(error=error, rows=Seen.rows, files=sorted(str(f.relative_to(own)) for f in own.rglob('*')))
    said['weights'] = [p.double().sum().item() for p in learn.model.parameters()]
    said['bare'] = not hasattr(learn.model, 'module')
    if res is None: return said
    said.update(trials=res.trials[['state', 'epochs', 'value']].values.tolist(), best=res.best_params)
    return dict(said, rate=learn.lr, values=[*map(list, learn.recorder.values)], curves=res.curves.value.tolist())

signal.signal(signal.SIGINT, signal.default_int_handler)  # shells ignore it for what they start in the background
for case in sys.argv[1].split(','):
    here = path/case.partition('+')[2] if '+' in case else path/case
    said = run(case.partition('+')[0])
    (path/f'{case}_{rank}.json').write_text(json.dumps(said))
if said['error']: os._exit(7)  # a process that has lost the others need not wait for them
