"""Every application of fastai with every fit: tuned with the inferred space, stopped, exported, interrupted and carried on.
All data are real: digits, wine and diabetes of scikit-learn, and the documentation that Python brings with it."""
import itertools
from functools import cache
from pydoc_data.topics import topics
import psutil, pytest
from optuna.pruners import BasePruner, NopPruner
from sklearn.datasets import load_diabetes, load_wine
from fastai.collab import CollabDataLoaders, collab_learner
from fastai.tabular.all import Categorify, FillMissing, TabularDataLoaders, tabular_learner
from fastai.text.all import (AWD_LSTM, BaseTokenizer, Perplexity, TextBlock, awd_lstm_clas_config, awd_lstm_lm_config, language_model_learner,
                             text_classifier_learner)
from torchvision.models.resnet import BasicBlock, ResNet
from tuning import *
from fastai_bayes.all import *

# Images, made of digit number `i`

def image(i): return np.repeat(np.kron((x[i].view(8, 8)*255).byte().numpy(), np.ones((4, 4), np.uint8))[..., None], 3, 2)
def label(i): return int(y[i])
def labels(i): return [o for o,on in dict(even=y[i]%2==0, large=y[i]>4, third=y[i]%3==0).items() if on]
def middle(i):
    "Centre of mass of a digit, in pixels of `image`"
    w = x[i].view(8, 8)
    return torch.tensor([[(w.sum(0)*torch.arange(8)).sum(), (w.sum(1)*torch.arange(8)).sum()]])/w.sum()*4+2
def ink(i): return (image(i)[..., 0]>127).astype(np.uint8)
def pixels(i): return x[i]

def images(path, block, get_y, n=64, **kwargs):
    return DataBlock((ImageBlock, block), get_x=image, get_y=get_y, splitter=IndexSplitter(range(16)), **kwargs).dataloaders(
        range(n), bs=8, num_workers=0, path=path)

def resnet10(weights=None): return ResNet(BasicBlock, [1]*4)
model_meta[resnet10] = model_meta[resnet18]  # cut and split as the others
def classification(path):
    dls = images(path, CategoryBlock, label, batch_tfms=aug_transforms(size=24))
    return vision_learner(dls, resnet10, pretrained=False, metrics=accuracy)
def multi_label(path):
    return vision_learner(images(path, MultiCategoryBlock, labels), squeezenet1_1, pretrained=False, metrics=partial(accuracy_multi, thresh=.5))
def points(path):
    return vision_learner(images(path, PointBlock, middle), squeezenet1_1, pretrained=False, y_range=(-1, 1))
def small(pretrained=False): return nn.Sequential(ConvLayer(3, 8, stride=2), ConvLayer(8, 16, stride=2), nn.AdaptiveAvgPool2d(1))
def segmentation(path):
    return unet_learner(images(path, MaskBlock(['paper', 'ink']), ink), small, pretrained=False, metrics=[foreground_acc, DiceMulti()])

# Tables, words, and what people wrote themselves

def table(path, data, block, metrics):
    df = data(as_frame=True).frame.iloc[::2].reset_index(drop=True)
    cat = 'sex' if 'sex' in df else 'color_intensity'
    df[cat] = df[cat].round().astype(str)
    if data is load_diabetes: df.target /= 100
    dls = TabularDataLoaders.from_df(df, procs=[Categorify, FillMissing, Normalize], cat_names=[cat],
                                     cont_names=list(df.columns.drop([cat, 'target'])), y_names='target', y_block=block(),
                                     valid_idx=range(0, len(df), 4), bs=16, path=path)
    return tabular_learner(dls, layers=[20, 10], metrics=metrics)
def tabular_classes(path): return table(path, load_wine, CategoryBlock, [F1Score(average='macro'), accuracy])
def tabular_numbers(path): return table(path, load_diabetes, RegressionBlock, [rmse, mae])
def collab(path):
    "How dark is a pixel of a picture? Pictures are users, pixels items"
    rows = [(f'picture {i}', f'pixel {j}', float(x[i, j]*16)) for i in range(20) for j in range(18, 46)]
    df = pd.DataFrame(rows, columns=['user', 'item', 'rating'])
    return collab_learner(CollabDataLoaders.from_df(df, bs=32, seed=0, path=path), n_factors=5, y_range=(0, 16.5))

@cache
def texts(is_lm):
    "Pieces of the documentation; which topic are they from?"
    names = 'strings', 'specialnames', 'compound'
    rows = [(o, topics[o][i:i+300]) for o in names for i in range(0, 4800, 300)]
    df = pd.DataFrame(rows, columns=['topic', 'text'])
    block = TextBlock.from_df('text', is_lm=is_lm, seq_len=24, tok=BaseTokenizer(), n_workers=0, min_freq=4)
    return DataBlock((block,) if is_lm else (block, CategoryBlock), get_x=ColReader('text'), get_y=None if is_lm else ColReader('topic'),
                     splitter=IndexSplitter(range(0, len(df), 4))).dataloaders(df, bs=8, seq_len=24, num_workers=0)
def words(path, make, is_lm, **kwargs):
    config = dict(awd_lstm_lm_config if is_lm else awd_lstm_clas_config, emb_sz=12, n_hid=16, n_layers=2)
    return make(texts(is_lm), AWD_LSTM, config=config, pretrained=False, path=path, **kwargs)
def text_classes(path): return words(path, text_classifier_learner, False, metrics=accuracy)
def language_model(path): return words(path, language_model_learner, True, metrics=[accuracy, Perplexity()])

def plain(path):
    dls = DataBlock((TransformBlock, CategoryBlock), get_x=pixels, get_y=label, splitter=IndexSplitter(range(40))).dataloaders(
        range(160), bs=16, num_workers=0, path=path)
    return digits(path, dls)
def torch_loaders(path):
    sets = TensorDataset(x[:120], y[:120]), TensorDataset(x[120:160], y[120:160])
    return digits(path, DataLoaders(*[torch.utils.data.DataLoader(o, batch_size=16) for o in sets], path=path))

apps = {o.__name__: o for o in (classification, multi_label, points, segmentation, tabular_classes, tabular_numbers, collab, text_classes,
                                language_model, plain, torch_loaders)}
text_apps = 'text_classes', 'language_model'
fits = 'fit', 'fit_one_cycle', 'fit_flat_cos', 'fine_tune'

class Second(BasePruner):
    "Stops every second training after its first epoch"
    def prune(self, study, trial): return trial.number%2==1

def made(app, path):
    set_seed(0)
    return apps[app](path)

def predicted(learn, ds):
    "Raw predictions for the first item of `ds`"
    with learn.no_bar():
        if hasattr(ds, 'with_cont'):  # fastai's `predict` knows no ratings
            return learn.get_preds(dl=learn.dls.test_dl(ds.items[:1], process=False), reorder=False)[0]
        item = ds.items.iloc[0] if isinstance(ds.items, pd.DataFrame) else ds.items[0]
        return learn.predict(ds.decode_row(item) if hasattr(ds, 'decode_row') else item)[2]

class Few(Callback):
    "Three batches are enough"
    def before_batch(self):
        if self.training and self.iter>2: raise CancelBatchException

# whole epochs: every application with the usual fit, and those whose learners are frozen, split or stateful with each fit
def is_whole(app, fit): return fit=='fit_one_cycle' or app in ('classification', 'text_classes', 'plain')
@pytest.mark.parametrize('fit', fits)
@pytest.mark.parametrize('app', apps)
def test_tuned_stopped_exported(tmp_path, app, fit):
    learn = made(app, tmp_path)
    before = {k: v.clone() for k,v in learn.model.state_dict().items()}
    res = learn.bayes_tune(1 if fit=='fine_tune' else 2, n_trials=2, fit=fit, pruner=Second(), cbs=[] if is_whole(app, fit) else Few(), **quick)
    trials = res.trials.sort_values('number')
    assert trials.state.tolist()==['complete', 'stopped'] and trials.epochs.tolist()==[2, 1]
    assert set(res.best_params)=={'opt_func', 'lr', 'wd'} | ({'bs'} if app!='torch_loaders' else set()) | ({'drop_mult'} if app in text_apps else set())
    assert any(not torch.equal(v, before[k]) for k,v in learn.model.state_dict().items())
    with learn.no_bar(): row = dict(zip([o.strip('_') for o in ('valid_loss', *learn.metrics.attrgot('name'))], learn.validate()))
    assert row[res.study.user_attrs['monitor'].strip('_')]==pytest.approx(res.best_value, rel=1e-4)
    if app in ('torch_loaders', 'language_model'): return  # fastai cannot export the first, and the second draws words at random
    ds = learn.dls.valid_ds
    learn.export('out.pkl')
    assert torch.allclose(predicted(load_learner(tmp_path/'out.pkl'), ds), predicted(learn, ds), atol=1e-6)

@pytest.mark.parametrize('app', ['segmentation', 'tabular_numbers', 'collab', *text_apps, 'plain'])
def test_corners_of_the_inferred_space_train(tmp_path, app):
    "A loss may become infinite there, but nothing breaks"
    learn = made(app, tmp_path)
    ends = {k: [o[0], o[1]] if isinstance(o, tuple) else o if k=='opt_func' else [o[0], o[-1]] for k,o in default_space(learn).items()}
    corners = [dict(zip(ends, o)) for o in itertools.product(*ends.values())]
    res = learn.bayes_tune(1, enqueue=corners, n_trials=len(corners)+1, sampler='random', cbs=Few(), **quick)
    reasons = res.trials.set_index('state').reason
    assert len(corners)==(32 if app in text_apps else 16) and set(res.trials.state)<={'complete', 'failed'}
    assert all('never had a finite value' in o for o in reasons[reasons.index=='failed']), reasons.tolist()
    assert {tuple(map(str, res.params_of(t.number).items())) for t in res.study.trials}>={tuple(map(str, o.items())) for o in corners}

def curves(res): return [o.value.tolist() for _,o in res.curves.groupby('number')]

class CtrlC(Callback):
    "The user has had enough, in the second epoch of training `n`"
    def __init__(self, n): self.n = n
    def before_batch(self):
        if self.epoch==1 and self.learn.path.name==f'trial_{self.n}' and self.training and self.iter==1: raise KeyboardInterrupt

@pytest.mark.parametrize('app', apps)
def test_interrupted_and_carried_on(tmp_path, app):
    "In the first training, where the same learner carries on, and in the second, where one of a new process does"
    def tune(learn, n=None): return learn.bayes_tune(2, n_trials=2, study_name='s', pruner=NopPruner(), cbs=[] if n is None else CtrlC(n), **quick)
    whole,learn = tune(made(app, tmp_path/'whole')),made(app, tmp_path/'parts')
    for n in (0, 2):  # trial 1 carries trial 0 on
        parts = tune(learn, n)
        assert parts.trials.sort_values('number').reason.iloc[-1].endswith('interrupted')
    parts = tune(apps[app](tmp_path/'parts'))
    assert parts.trials.state.tolist()==['complete']*2
    assert curves(parts)==curves(whole) and parts.best_value==whole.best_value

# Callbacks

def drawn(i): return x[i].view(1, 8, 8)
def pictures(path, **kwargs):
    dls = DataBlock((TransformBlock, CategoryBlock), get_x=drawn, get_y=label, splitter=IndexSplitter(range(40))).dataloaders(
        range(160), bs=16, num_workers=0, path=path)
    return digits(path, dls, nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), Flatten(), nn.Linear(144, 10)), **kwargs)
def readers(path, **kwargs):
    learn = language_model(path)
    learn.remove_cb(ModelResetter)
    return learn.add_cbs(list(kwargs.values()))
def tensorboard(**kwargs):
    pytest.importorskip('tensorboard')
    from fastai.callback.tensorboard import TensorBoardCallback
    return TensorBoardCallback(log_preds=False, **kwargs)
callbacks = {o.__name__: (pictures, o) for o in (MixUp, CutMix, CSVLogger, tensorboard)} | {
    'GradientAccumulation': (pictures, partial(GradientAccumulation, 40)), 'ModelResetter': (readers, ModelResetter),
    'EarlyStopping': (pictures, partial(EarlyStoppingCallback, 'valid_loss', patience=1)),
    'ReduceLROnPlateau': (pictures, partial(ReduceLROnPlateau, 'valid_loss', patience=1, min_delta=9.)), 'to_fp16': (pictures, MixedPrecision)}

def closed(path): return not any(Path(o.path).is_relative_to(path) for o in psutil.Process().open_files())

@pytest.mark.parametrize('given', ['learner', 'study', 'used'])
@pytest.mark.parametrize('name', callbacks)
def test_callbacks(tmp_path, monkeypatch, name, given):
    "Of the learner, of the study, or of the study after a training of another learner"
    monkeypatch.chdir(tmp_path)
    mk,cb = callbacks[name]
    cb = cb()
    if given=='used':
        (tmp_path/'used').mkdir()
        other = mk(tmp_path/'used')
        with other.no_bar(), other.no_logging(): other.fit(1, cbs=cb)
        shutil.rmtree(tmp_path/'runs', ignore_errors=True)
    learn = mk(tmp_path/'l', **(dict(cbs=cb) if given=='learner' else {}))
    res = learn.bayes_tune(3, n_trials=2, pruner=Second(), study_name='s', **quick, **({} if given=='learner' else dict(cbs=cb)))
    assert res.trials.sort_values('number').state.tolist()==['complete', 'stopped'], res.trials.reason.tolist()
    if name=='CSVLogger': assert [len(pd.read_csv(res.folder/f'trial_{i}'/'history.csv')) for i in range(2)]==[3, 1]
    if name=='tensorboard': assert [len(files(res.folder/f'trial_{i}'/'tensorboard')) for i in range(2)]==[1, 1]
    assert closed(tmp_path) and {o.name for o in tmp_path.iterdir()}<={'l', 'used'}

def test_tensorboard_where_it_is_told_to(tmp_path):
    learn = pictures(tmp_path)
    cb = tensorboard(log_dir=tmp_path/'logs', trace_model=False)
    learn.bayes_tune(1, n_trials=2, cbs=cb, **quick)
    assert {o.name for o in (tmp_path/'logs').iterdir()}=={'trial_0', 'trial_1'} and cb.log_dir==tmp_path/'logs'

@pytest.mark.parametrize('cb', [CSVLogger, tensorboard])
@pytest.mark.parametrize('given', ['learner', 'study'])
def test_logs_are_closed_after_a_failure(tmp_path, cb, given):
    Break.count = 0
    cbs = [cb(), Break(RuntimeError('bad batch'), (2,))]
    learn = pictures(tmp_path, cbs=cbs if given=='learner' else [])
    res = learn.bayes_tune(1, n_trials=3, **quick, **(dict(cbs=cbs) if given=='study' else {}))
    assert res.trials.sort_values('number').state.tolist()==['complete', 'failed', 'complete'] and closed(tmp_path)

@pytest.mark.parametrize('fit,epochs', [('fit', ['0', '1', '2']), ('fine_tune', ['0', '0', '1', '2'])])
def test_log_of_a_training_that_is_carried_on(tmp_path, fit, epochs):
    def tune(*cbs): return pictures(tmp_path).bayes_tune(3, n_trials=1, study_name='s', fit=fit, cbs=[CSVLogger(), *cbs], **quick)
    tune(CtrlC(0))
    res = tune()
    log = pd.read_csv(res.folder/'trial_0'/'history.csv', dtype=str)
    assert log.epoch.tolist()==epochs and log.accuracy.tolist()==list(map(str, res.curves.value))
