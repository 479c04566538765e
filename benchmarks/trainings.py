"""Tuning real fastai trainings of images, tables and texts: `bayes_tune` against Optuna's searches through Optuna's own fastai callback.

    python benchmarks/trainings.py [--sets digits ...] [--methods ours tpe-median ...] [--seeds 5] [--budget 100] [--jobs 2] [--plot FILE]

All data come with scikit-learn or Python. All methods tune the same learner factory on the same data, in the same space, with the same fit method and
the same seeds of the trainings, until the budget in epochs is spent; a training has 10. Validation sets are large, so that differences show."""
import argparse, ast, functools, re, runpy, sysconfig, tempfile, time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
import numpy as np, optuna, torch
from fastai.tabular.all import Categorify, CategoryBlock, Normalize, TabularPandas, tabular_config, tabular_learner
from fastai.text.all import (AWD_LSTM, CrossEntropyLossFlat, DataLoaders, Learner, TfmdDL, accuracy, awd_lstm_clas_config, nn,
                             text_classifier_learner)
from fastai.vision.all import ResBlock, XResNet
from optuna_integration import FastAIPruningCallback
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.model_selection import train_test_split
from fastai_bayes.learner.copies import release, seeded
from fastai_bayes.learner.loaders import seeded_loaders
from fastai_bayes.learner.knobs import apply_params, fit_args
from fastai_bayes.study.sampler import BayesSampler
from fastai_bayes.engine.space import Space
from fastai_bayes.study.records import attr, curve_of, epochs_spent, trials_of, state_of
from fastai_bayes.study.search_space import distributions
from fastai_bayes.learner.training import quiet
from racing import OPTUNA, bands, cells, header, hush, new_study, race, row, versions

n_epoch,fit = 10,'fit_one_cycle'
example = runpy.run_path(str(Path(__file__).resolve().parent.parent/'examples'/'digits.py'))  # its small CNN and its space

def split(y, n, m):
    "Positions of `n` items for training, and of `m` others for validation"
    return [list(o) for o in train_test_split(range(len(y)), train_size=n, test_size=m, stratify=y, random_state=0)]

def loaders(x, y, n, m):
    "`DataLoaders` of tensors"
    trn,val = [torch.utils.data.TensorDataset(x[o], torch.tensor(y)[o]) for o in split(y, n, m)]
    return DataLoaders(TfmdDL(trn, bs=16, shuffle=True, drop_last=True, num_workers=0), TfmdDL(val, bs=500, num_workers=0))

@functools.cache
def images():
    "200 of scikit-learn's digits for training, 1000 for validation; enlarged to 16x16"
    x,y = load_digits(return_X_y=True)
    x = nn.functional.interpolate(torch.tensor(x).float().view(-1, 1, 8, 8)/16, scale_factor=2, mode='bilinear').repeat(1, 3, 1, 1)
    return loaders(x, y, 200, 1000)

def tiny_xresnet(): return XResNet(ResBlock, 1, [1, 1, 1, 1], n_out=10, widen=.25)
def mlp(): return nn.Sequential(nn.Flatten(), nn.Linear(768, 128), nn.ReLU(), nn.Dropout(.2), nn.Linear(128, 10))
archs = dict(small_cnn=example['small_cnn'], xresnet=tiny_xresnet, mlp=mlp)

def image_learner(dls, p, folder): return Learner(dls, archs[p['arch']](), loss_func=CrossEntropyLossFlat(), metrics=accuracy, path=folder)

@functools.cache
def table():
    "120 of scikit-learn's breast tumours for training, 449 for validation; the 10 standard errors become categories, the other columns are numbers"
    df = load_breast_cancer(as_frame=True).frame
    cats = [o for o in df.columns if o.endswith(' error')]
    for o in cats: df[o] = df[o].rank(pct=True).mul(4.999).astype(int).astype(str)
    cont = [o for o in df.columns if o not in [*cats, 'target']]
    to = TabularPandas(df, [Categorify, Normalize], cats, cont, 'target', CategoryBlock(), splits=split(df.target, 120, 449))
    return to.dataloaders(bs=16, val_bs=449, num_workers=0)

def table_learner(dls, p, folder):
    return tabular_learner(dls, list(p['layers']), config=tabular_config(ps=p['ps'], embed_p=p['embed_p']), metrics=accuracy, path=folder)

packages = 'asyncio email http importlib logging mailbox multiprocessing unittest urllib xml'.split()

def docstrings(package):
    "The different docstrings of a package of the standard library: their first 24 words"
    root = Path(sysconfig.get_paths()['stdlib'])
    files = sorted((root/package).rglob('*.py')) or [root/f'{package}.py']
    defs = ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef
    docs = (ast.get_docstring(o) or '' for f in files for o in ast.walk(ast.parse(f.read_bytes())) if isinstance(o, defs))
    words = (tuple(re.findall(r'[a-z]+|[^\sa-z]', o.lower())[:24]) for o in docs)
    return list(dict.fromkeys(o for o in words if len(o)>=8))

@functools.cache
def texts():
    "500 docstrings of Python's standard library for training, 900 for validation; which package are they from?"
    docs,y = zip(*[(o, i) for i,p in enumerate(packages) for o in docstrings(p)])
    vocab = ['xxunk', 'xxpad', *(o for o,n in Counter(w for i in split(y, 500, 900)[0] for w in docs[i]).most_common() if n>1)]
    number = {w: i for i,w in enumerate(vocab)}
    x = torch.tensor([[number.get(w, 0) for w in o]+[1]*(24-len(o)) for o in docs])
    dls = loaders(x, y, 500, 900)
    dls.vocab,dls.c = vocab,len(packages)
    return dls

def text_learner(dls, p, folder):
    config = dict(awd_lstm_clas_config, emb_sz=p['width'], n_layers=1)
    return text_classifier_learner(dls, AWD_LSTM, pretrained=False, config=config, drop_mult=p['drop_mult'], loss_func=CrossEntropyLossFlat(),
                                   metrics=accuracy, path=folder)

@dataclass(frozen=True)
class Task:
    "What is to be tuned"
    data:callable # DataLoaders
    learner:callable # Untrained learner: `learner(dls, params, folder)`
    space:dict # In our notation
    monitor:str='accuracy'
    mode:str='max'

lr,wd = (1e-4, 1e-1, 'log'),(1e-4, .3, 'log')
SETS = {  # name on the command line: task
    'digits': Task(images, image_learner, dict(example['space'], arch=list(archs), bs=[16, 32, 64])),
    'tabular': Task(table, table_learner, dict(layers=[(32,), (200,), (200, 100), (64, 64, 64)], ps=(0., .6), embed_p=(0., .6), lr=lr, wd=wd,
                                               bs=[8, 16, 32, 64]), 'valid_loss', 'min'),
    'text': Task(texts, text_learner, dict(width=(16, 64, 'log'), drop_mult=(.1, 1.5), lr=(1e-3, .3, 'log'), wd=wd, bs=[16, 32, 64]))}

def ours(task, budget, seed, folder, resume=True):
    "The study of `bayes_tune`"
    make,space = partial(task.learner, task.data()),Space(task.space)
    learn = make(space.decode(np.full(len(space), .5)), folder)
    return learn.bayes_tune(n_epoch, task.space, budget=budget, monitor=task.monitor, fit=fit, recipes=False, new_learner=lambda p: make(p, folder), seed=seed,
                            sampler=None if resume else BayesSampler(n_epoch, seed, resume=False), verbose=False).study

def by_hand(task, budget, seed, folder, sampler, pruner):
    "A study with Optuna's fastai callback, used as its documentation shows"
    space = Space(task.space)
    dists = distributions(space)
    study = new_study(n_epoch, task.mode, dists, seed, sampler, pruner)
    def train(trial):
        params,s = space.values(trial.params),int(np.random.SeedSequence([seed, trial.number]).generate_state(1)[0])
        with seeded(s):
            learn,cb = apply_params(task.learner(task.data(), params, folder), params),FastAIPruningCallback(trial, task.monitor)
            try:
                with seeded_loaders(learn.dls, s), quiet(learn): getattr(learn, fit)(n_epoch, cbs=cb, **fit_args(params, fit))
                return learn.recorder.final_record[cb.idx]
            finally: release(learn)
    while epochs_spent(study)<budget:
        trial = study.ask(dists)
        try: study.tell(trial, train(trial))
        except optuna.TrialPruned: study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    return study

METHODS = {  # name on the command line: name in the table, search
    'ours': ('bayes_tune', ours),
    'ours-never-back': ('bayes_tune, stopped for good', partial(ours, resume=False)),
    **{k: (label, partial(by_hand, sampler=s, pruner=p)) for k,(label,s,p) in OPTUNA.items() if not k.startswith('ours')}}

def run(name, method, seed, budget):
    "(budget,) best validation value that any training has reached after each epoch spent, what became of the trials, seconds"
    hush()
    task,start = SETS[name],time.time()
    with tempfile.TemporaryDirectory() as d: trials = METHODS[method][1](task, budget, seed, Path(d)).trials
    v = np.array([o for t in trials for o in curve_of(t)[attr(t, 'resumed_from', 0):]][:budget], float)
    best = np.fmax.accumulate(v) if task.mode=='max' else np.fmin.accumulate(v)  # these pass over NaN
    return best, Counter(map(state_of, trials_of(trials))), time.time()-start

def say(o): return [f'{o[0][-1]:.4f}', *(f'{n} {k}' for k,n in o[1].items()), f'{o[2]:.0f} s']

def reached(task, trace, value):
    "Epochs until `trace` is as good as `value`; infinitely many if it never is"
    there = trace>=value if task.mode=='max' else trace<=value
    return 1+there.argmax() if there.any() else np.inf

def results(name, res, at):
    "Means, and how soon the first method has what each of the others has in the end"
    task,first = SETS[name],next(iter(res))
    print(f'\n{name}: best {task.monitor} on the validation set, mean (standard error) after so many epochs;\n'
          f'median epochs in which the method gets its last value, and in which {METHODS[first][0]} gets it; their ratio\n')
    header('method', *at, 'gets it in', f'{METHODS[first][0]} in', 'ratio', 'runs')
    for k,v in res.items():
        it,we = (np.median([reached(task, a, b[-1]) for a,b in zip(o, v)]) for o in (v, res[first]))
        ours = (f'{we:g}', f'{we/it:.2f}') if np.isfinite(we) else ('never', '-')
        row(METHODS[k][0], *cells(v[:,[a-1 for a in at]], 4), f'{it:g}', *ours, len(v))

def plot(res, fn):
    "A panel a set: mean as a line, a standard error to both sides as a band"
    import matplotlib
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt
    fig,axs = plt.subplots(1, len(res), figsize=(1+5.5*len(res), 4.2), layout='constrained', squeeze=False)
    for ax,(name,o) in zip(axs.flat, res.items()):
        n = next(iter(o.values())).shape[1]
        bands(ax, np.arange(1, n+1), o, {k: METHODS[k][0] for k in o})
        late = np.concatenate([v.mean(0)[n//5:] for v in o.values()])  # the first epochs would take up the panel
        pad = .05*np.ptp(late)
        ax.set(title=name, xlabel='epochs spent', ylabel=f'best {SETS[name].monitor} so far', ylim=(late.min()-pad, late.max()+pad))
    axs[0,0].legend(frameon=False)
    fig.savefig(fn, dpi=130)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--sets', nargs='+', choices=SETS, default=list(SETS), metavar='SET', help=', '.join(SETS))
    p.add_argument('--methods', nargs='+', choices=METHODS, default=['ours', 'random', 'tpe-median', 'gp-hyperband'], metavar='METHOD',
                   help=', '.join(METHODS))
    for k,v in dict(seeds=5, budget=100, jobs=2).items(): p.add_argument(f'--{k}', type=int, default=v)
    p.add_argument('--plot', help='file for the plot')
    args = p.parse_args()
    names = versions('fastai_bayes', 'fastai', 'torch', 'optuna', 'optuna-integration', 'scikit-learn')
    print(f'{names}; seeds 0 to {args.seeds-1}, {args.budget} epochs, {n_epoch} a training')
    jobs = [(t, m, s, args.budget) for s in range(args.seeds) for t in args.sets for m in args.methods]
    done = race(run, jobs, args.jobs, say)
    res = {t: {m: np.array([done[t, m, s, args.budget][0] for s in range(args.seeds)]) for m in args.methods} for t in args.sets}
    for t in res: results(t, res[t], sorted({max(1, round(args.budget*o)) for o in (.25, .5, .75, 1)}))
    if args.plot: plot(res, args.plot)

if __name__=='__main__': main()
