"""Is the space that is inferred from a learner as good as one written by hand?

    python benchmarks/inferred.py [--sets images ...] [--spaces inferred ...] [--seeds 3] [--trainings 20] [--jobs 2]

Five applications of fastai, with data that come with scikit-learn or Python. Each learner is tuned by `bayes_tune` for the epochs of 20 full
trainings, once without a space and once in ranges that people write: Adam, lr 1e-4 to 1e-1, wd 1e-3 to 1e-1, batches of 16, 32 or 64. A third
space is the inferred one with SGD and ranger in place of QHAdam; `--spaces inferred optimizers` compares those two."""
import argparse, tempfile, time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
import numpy as np
from fastai.collab import CollabDataLoaders, collab_learner
from fastai.optimizer import SGD, Adam, ranger
from fastai.tabular.all import (Categorify, ConvLayer, FillMissing, Normalize, RegressionBlock, TabularDataLoaders, accuracy, nn, pd, rmse, set_seed,
                                tabular_learner)
from fastai.vision.all import CrossEntropyLossFlat, vision_learner
from sklearn.datasets import load_diabetes, load_digits
from fastai_bayes.learner.knobs import default_space
from fastai_bayes.study.records import trials_of, state_of
from racing import cells, header, hush, race, row, versions
from trainings import images as digits, table, text_learner, texts as docstrings

def small(pretrained=False): return nn.Sequential(ConvLayer(3, 16, stride=2), ConvLayer(16, 32, stride=2), nn.AdaptiveAvgPool2d(1))

def images(path):
    return vision_learner(digits(), small, pretrained=False, normalize=False, n_out=10, loss_func=CrossEntropyLossFlat(), metrics=accuracy, path=path)
def classes(path): return tabular_learner(table(), layers=[64, 32], metrics=accuracy, path=path)
def numbers(path):
    df = load_diabetes(as_frame=True).frame
    df.target /= 100
    df['sex'] = df.sex.round(2).astype(str)
    dls = TabularDataLoaders.from_df(df, procs=[Categorify, FillMissing, Normalize], cat_names=['sex'], cont_names=list(df.columns.drop(['sex', 'target'])),
                                     y_names='target', y_block=RegressionBlock(), valid_idx=range(0, len(df), 2), bs=32)
    return tabular_learner(dls, layers=[64, 32], metrics=rmse, path=path)
def ratings(path):
    "How dark is a pixel of a picture? Pictures are users, pixels items"
    x,_ = load_digits(return_X_y=True)
    df = pd.DataFrame([(f'picture {i}', f'pixel {j}', x[i, j]) for i in range(60) for j in range(64)], columns=['user', 'item', 'rating'])
    return collab_learner(CollabDataLoaders.from_df(df, valid_pct=.4, bs=64, seed=0), n_factors=20, y_range=(-.5, 16.5), path=path)
def texts(path): return text_learner(docstrings(), dict(width=32, drop_mult=.5), path)

@dataclass(frozen=True)
class Task:
    "What is to be tuned"
    learner:callable # Untrained learner that writes to a folder
    n_epoch:int # Of a full training
    monitor:str
    mode:str
    def make(self, path, seed):
        "Its learner in the folder `path`"
        set_seed(seed)
        learn = self.learner(Path(path))
        learn.wd = learn.wd or .01
        return learn

SETS = {  # name on the command line: task
    'images': Task(images, 4, 'accuracy', 'max'), 'classes': Task(classes, 4, 'valid_loss', 'min'), 'numbers': Task(numbers, 4, 'rmse', 'min'),
    'ratings': Task(ratings, 2, 'valid_loss', 'min'), 'texts': Task(texts, 3, 'accuracy', 'max')}
SPACES = {'inferred': None, 'hand': dict(lr=(1e-4, 1e-1, 'log'), wd=(1e-3, 1e-1, 'log'), bs=[16, 32, 64]),
          'optimizers': lambda learn: dict(dict.fromkeys(default_space(learn)), opt_func=[Adam, partial(SGD, mom=.9), ranger])}

def run(name, how, seed, n):
    "Best value, that of the settings that the learner came with, what became of the trials, seconds"
    hush()
    task,start = SETS[name],time.time()
    with tempfile.TemporaryDirectory() as d:
        learn = task.make(d, seed)
        space = SPACES[how](learn) if callable(SPACES[how]) else SPACES[how]
        res = learn.bayes_tune(task.n_epoch, space, budget=n*task.n_epoch, monitor=task.monitor, seed=seed, verbose=False, recipes=False)
        trials = trials_of(res.study.trials)
        return res.best_value, (min if task.mode=='min' else max)(trials[0].intermediate_values.values()), [state_of(t) for t in trials], time.time()-start

def say(o): return f'{o[0]:.4f}', f'untuned {o[1]:.4f}', f'{len(o[2])} trainings, {o[2].count("failed")} failed', f'{o[3]:.0f} s'

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--sets', nargs='+', choices=SETS, default=list(SETS), metavar='SET', help=', '.join(SETS))
    p.add_argument('--spaces', nargs=2, choices=SPACES, default=['inferred', 'hand'], metavar='SPACE', help='two of '+', '.join(SPACES))
    for k,v in dict(seeds=3, trainings=20, jobs=2).items(): p.add_argument(f'--{k}', type=int, default=v)
    args = p.parse_args()
    print(f"{versions('fastai_bayes', 'fastai', 'torch', 'optuna', 'scikit-learn')}; seeds 0 to {args.seeds-1}, epochs of {args.trainings} trainings")
    done = race(run, [(t, h, s, args.trainings) for s in range(args.seeds) for t in args.sets for h in args.spaces], args.jobs, say)
    print(f'\nBest validation value, mean (standard error); gain of {args.spaces[0]}, paired by seeds, more is better; failed trainings\n')
    header('learner', 'monitor', *args.spaces, 'untuned', 'gain', 'failed', 'runs')
    for t in args.sets:
        runs = [[done[t, h, s, args.trainings] for h in args.spaces] for s in range(args.seeds)]
        v = np.array([[a[0], b[0], a[1]] for a,b in runs])  # of the first space, of the second, and untuned
        gain = (v[:,:1]-v[:,1:2])*(1 if SETS[t].mode=='max' else -1)
        failed = ' / '.join(str(sum(o[2].count('failed') for o in col)) for col in zip(*runs))
        row(t, SETS[t].monitor, *cells(v, 4), *cells(gain, 4), failed, len(v))

if __name__=='__main__': main()
