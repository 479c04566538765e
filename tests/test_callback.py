"The callback keeps its promises under every pruner, by exact curves and on real data"
import random
import numpy as np, optuna, pytest, torch
from torch import nn
from fastai.callback.mixup import MixUp
from fastai.callback.progress import CSVLogger
from fastai.callback.tracker import EarlyStoppingCallback, SaveModelCallback
from fastai.callback.training import GradientAccumulation
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.losses import MSELossFlat
from fastai.metrics import mae, mse
import fastai.callback.schedule
from sklearn.datasets import load_diabetes
from callback_table import measure, pruners, rules, silent
from fastai_bayes.learner.callback import BayesPruningCallback
from fastai_bayes.study.records import best_of, best_trial, curve_of, state_of
from fastai_bayes.study.studies import open_study
from fastai_bayes.engine.space import Space

optuna.logging.set_verbosity(optuna.logging.ERROR)

@pytest.fixture(autouse=True)
def one_thread():
    "Tiny models train faster on one thread"
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n)

@pytest.mark.parametrize('pruner', pruners)
def test_no_rule_is_broken(pruner):
    counts = measure('BayesPruningCallback', pruner)
    assert {o: counts[o] for o in rules}==dict.fromkeys(rules, 0)
    assert counts['cut']==counts['pruned'] and 5<=counts['cut']<20  # some were stopped, some were not

def test_the_measurement_sees_broken_rules():
    "Optuna's own callback is the proof that the counts can be anything but zero"
    pytest.importorskip('optuna_integration')
    asha,median = (measure('FastAIPruningCallback', o) for o in ('ASHA', 'median'))
    assert asha['half'] and asha['weights'] and asha['lost'] and asha['on'] and asha['elsewhere']
    assert median['wasted'] and median['cleanup'] and median['lost']

def diabetes():
    "scikit-learn's diabetes data, as loaders"
    x,y = load_diabetes(return_X_y=True)
    x,y = torch.tensor(x/x.std(0), dtype=torch.float32),torch.tensor((y-y.mean())/y.std(), dtype=torch.float32)[:,None]
    ds = [list(zip(x[s], y[s])) for s in (slice(0, 300), slice(300, None))]
    return DataLoaders.from_dsets(*ds, bs=50, num_workers=0)

@pytest.mark.parametrize('storage', [None, 'study.log', 'sqlite:///{}/study.db'])
def test_a_real_study(tmp_path, storage):
    "Every learner ends with the weights of its best epoch, and the study knows each curve, in every storage"
    where = storage and (storage.format(tmp_path) if '://' in storage else tmp_path/storage)
    space,sampler,pruner = Space(dict(lr=(1e-4, 1., 'log'))),optuna.samplers.RandomSampler(seed=3),optuna.pruners.MedianPruner(2, 1)
    study = open_study(space, 'minimize', 'diabetes', where, sampler, pruner, monitor='mae')
    dls,cbs = diabetes(),[]
    def objective(trial):
        torch.manual_seed(0)
        learn = Learner(dls, nn.Linear(10, 1), loss_func=MSELossFlat(), metrics=[mse, mae], path=tmp_path)
        cb,save = BayesPruningCallback(trial, 'mae'),SaveModelCallback('mae', comp=np.less, fname=str(trial.number))
        with silent(learn): learn.fit_one_cycle(4, trial.suggest_float('lr', 1e-4, 1, log=True), cbs=[cb, save])
        with silent(learn): assert abs(learn.validate()[2]-cb.best[0])<1e-6
        cbs.append(cb)
        return cb.value
    study.optimize(objective, 6)
    trials = study.trials
    assert [curve_of(t) for t in trials]==[o.curve for o in cbs]
    assert [state_of(t) for t in trials]==['stopped' if o.stopped else 'complete' for o in cbs] and any(o.stopped for o in cbs)
    assert best_of(best_trial(study), 'minimize')==min((o.best for o in cbs), key=lambda o: o[0])
    assert all(t.user_attrs['n_epoch']==4 for t in trials)

@pytest.mark.parametrize('cb', [MixUp(.2), GradientAccumulation(100), CSVLogger(), EarlyStoppingCallback('mae', patience=9)], ids=lambda o: o.name)
def test_other_callbacks_stay_as_they_are(tmp_path, cb):
    "The same training with and without ours has the same curve"
    dls = diabetes()
    def curve(*cbs):
        torch.manual_seed(0); dls.train.rng = random.Random(0); np.random.seed(0); random.seed(0)
        learn = Learner(dls, nn.Linear(10, 1), loss_func=MSELossFlat(), metrics=mae, path=tmp_path)
        with silent(learn): learn.fit(3, 1e-2, cbs=[cb, *cbs])
        return [o[2] for o in learn.recorder.values]
    ours = BayesPruningCallback(optuna.create_study().ask(), 'mae')
    assert curve()==curve(ours)==ours.curve
