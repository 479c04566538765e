"""What a trial costs in a study of many, beyond its training: CPU seconds a trial at 100, 300 and 1,000 trials, memory, and size of the journal.

    python benchmarks/long.py [--trials 1000] [--seed 0] [--epochs 8] [--wide 120] [--peer 300]

A training is one batch an epoch, of a model of one layer, with a metric that is a formula of the hyperparameters and the epoch; so nearly all
that is measured is the search, fastai's loop and the files. The seconds of the same epochs in a bare learner are taken off. The peer is Optuna's
`study.optimize` with TPE and the median pruner, a journal, and the same learner and callback loop. `--wide` is the number of trials of a
study of 50 hyperparameters, for the size of its journal. CPU time does not count what other programs do."""
import argparse, contextlib, os, platform, resource, tempfile, time, warnings
warnings.simplefilter('ignore')
os.environ.setdefault('OMP_NUM_THREADS', '1')
import fastai, numpy as np, optuna, torch
from fastai.vision.all import *
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from torch.utils.data import TensorDataset
from fastai_bayes.all import *
from fastai_bayes.study.search_space import distributions, suggest

AT = (100, 300, 1000)
SPACE = dict(lr=(1e-4, 1., 'log'), wd=(1e-4, 1., 'log'), eps=(1e-8, 1e-2, 'log'), sqr_mom=(.9, .999), opt_func=[Adam, ranger])
WIDE = {f'x{i}': (0., 1.) for i in range(50)}

class Level(Metric):
    "What a training reaches: a formula of its hyperparameters `near` (numbers around 0) and the epoch"
    def __init__(self, T, near): self.T,self.near = T,near
    name = 'level'
    def reset(self): pass
    def accumulate(self, learn): self.at = learn.epoch+1,self.near(learn)
    @property
    def value(self):
        epoch,off = self.at
        top = float(np.exp(-np.sum(np.square(off))/4))
        return top*(1-.6*(1-epoch/self.T)**(1+top))

def of_opt(learn):
    h = learn.opt.hypers[-1]
    return [np.log10(h['lr'])+2, np.log10(h['wd'])+2, (np.log10(h['eps'])+5)/2, (h['sqr_mom']-.96)*20]

def learner(path, T, near=of_opt):
    x,y = torch.randn(8, 4),torch.randn(8, 1)
    dls = DataLoaders(*[TfmdDL(TensorDataset(x, y), bs=8, num_workers=0, drop_last=d) for d in (True, False)], path=path)
    return Learner(dls, nn.Linear(4, 1), loss_func=MSELossFlat(), metrics=Level(T, near))

class Clock(Callback):
    "Notes the CPU time at the end of each fit, and how many epochs it had"
    order,seen = 90,[]
    def before_fit(self): self.n = 0
    def after_epoch(self): self.n += 1
    def after_fit(self): Clock.seen.append((time.process_time(), self.n))

def bare(path, T):
    "CPU seconds of an epoch and of a fit without a search"
    learn = learner(path, T)
    def _fit(n):
        start = time.process_time()
        with learn.no_bar(), learn.no_logging():
            for _ in range(10): learn.fit_one_cycle(n, 1e-3)
        return (time.process_time()-start)/10
    _fit(1)
    return (_fit(4*T)-_fit(T))/(3*T)

def ours(path, T, n, seed):
    Clock.seen = [(time.process_time(), 0)]
    res = learner(path, T).bayes_tune(T, SPACE, n_trials=n, mode='max', monitor='level', seed=seed, cbs=Clock(), verbose=False, fit='fit',
                                      study_name='long', budget=10**9)
    return path/'models'/'bayes'/'long'/'study.log', res.study

def peer(path, T, n, seed):
    "The same by hand, with Optuna"
    Clock.seen,space = [(time.process_time(), 0)],Space(SPACE)
    def objective(trial):
        p = {k: suggest(trial, k, d) for k,d in distributions(space).items()}
        p = space.values(p)
        learn = learner(path, T)
        learn.opt_func,cb = partial(p['opt_func'], eps=p['eps'], sqr_mom=p['sqr_mom']),BayesPruningCallback(trial, 'level', 'max')
        with learn.no_bar(), learn.no_logging():
            learn.fit(T, p['lr'], wd=p['wd'], cbs=[cb, SaveModelCallback('level', fname=f'trial_{trial.number}', comp=np.greater), Clock()])
        return cb.value
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed), pruner=optuna.pruners.MedianPruner(), direction='maximize',
                                storage=JournalStorage(JournalFileBackend(str(path/'peer.log'))))
    with contextlib.redirect_stdout(None): study.optimize(objective, n_trials=n)
    return path/'peer.log', study

def wide(path, T, n, seed):
    "A study of 50 hyperparameters"
    Clock.seen = [(time.process_time(), 0)]
    def new_learner(params):
        off = [params[k]-.5 for k in WIDE]
        return learner(path, T, lambda _: off)
    res = learner(path, T).bayes_tune(T, WIDE, n_trials=n, monitor='level', mode='max', seed=seed, new_learner=new_learner, fit='fit',
                                      cbs=Clock(), study_name='wide', verbose=False, budget=10**9)
    return path/'models'/'bayes'/'wide'/'study.log', res.study

def share(file, word):
    "Bytes of the lines of the journal that hold `word`"
    return sum(len(o) for o in open(file) if word in o)

def cost(epoch, n, window=40):
    "CPU milliseconds a fit and an epoch, without the training's own, over the `window` fits before the `n`th"
    part = Clock.seen[max(n-window, 0):n+1]
    epochs = sum(e for _,e in part[1:])
    left = part[-1][0]-part[0][0]-epochs*epoch
    return 1e3*left/(len(part)-1), 1e3*left/max(epochs, 1)

def report(name, epoch, file, study):
    "A row a point at which the table looks"
    rows = {n: cost(epoch, n) for n in AT if n<len(Clock.seen)}
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024
    print(f"{name}: {len(study.trials)} trials, {len(Clock.seen)-1} fits, journal {file.stat().st_size/len(study.trials)/1e3:.1f} kB a trial "
          f"(engine {share(file, 'engine')/len(study.trials)/1e3:.2f}), peak memory of the process {rss:.0f} MB", flush=True)
    for n,(fit,per) in rows.items(): print(f'  at {n}: {fit:.1f} ms a trial, {per:.1f} ms an epoch', flush=True)
    return rows

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for k,v in dict(trials=1000, seed=0, epochs=8, wide=120, peer=300).items(): p.add_argument(f'--{k}', type=int, default=v)
    o = p.parse_args()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print(f'fastai {fastai.__version__}, torch {torch.__version__}, optuna {optuna.__version__}, Python {platform.python_version()}; seed {o.seed}')
    with tempfile.TemporaryDirectory() as d:
        path,T = Path(d),o.epochs
        epoch = bare(path, T)
        print(f'an epoch of a bare learner: {1e3*epoch:.1f} ms')
        other = report('Optuna, TPE and median', epoch, *peer(path, T, o.peer, o.seed)) if o.peer else {}
        if o.wide: report('fastai_bayes, 50 hyperparameters', epoch, *wide(path, T, o.wide, o.seed))
        mine = report('fastai_bayes', epoch, *ours(path, T, o.trials, o.seed))
    for n in mine.keys()&other.keys(): print(f'ours / Optuna at {n}: {mine[n][0]/other[n][0]:.2f} a trial, {mine[n][1]/other[n][1]:.2f} an epoch')
    if AT[0] in mine: print('growth of a trial: '+', '.join(f'{mine[n][0]/mine[AT[0]][0]:.2f} from {AT[0]} to {n}' for n in mine if n!=AT[0]))

if __name__=='__main__': main()
