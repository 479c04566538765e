"Learners of libraries that build on fastai, and what `bayes_tune` does to them"
import importlib.metadata
import fastcore.script
from fastai.vision.gan import GANLearner, InvisibleTensor, basic_critic, basic_generator
from fastai.tabular.all import Categorify, TabularDataLoaders
from optuna.pruners import BasePruner, NopPruner
from sklearn.datasets import load_wine
from tuning import *
from fastai_bayes.all import *

def drawn(i): return np.repeat(np.kron((x[i].view(8, 8)*255).byte().numpy(), np.ones((4, 4), np.uint8))[..., None], 3, 2)
def label(i): return int(y[i])
def images(path, n=64, **kwargs):
    block = DataBlock((ImageBlock, CategoryBlock), get_x=drawn, get_y=label, splitter=IndexSplitter(range(16)), **kwargs)
    return block.dataloaders(range(n), bs=8, num_workers=0, path=path)

def series():
    "Digits as series of eight steps of eight variables, and which are for training and for validation"
    return x[:120].view(-1, 8, 8).numpy(), y[:120].numpy().astype(str), (list(range(80)), list(range(80, 120)))

def tsai_classifier(path):
    from tsai.basics import TSClassification, TSClassifier
    X,target,splits = series()
    return TSClassifier(X, target, splits=splits, tfms=[None, TSClassification()], path=path, arch='InceptionTime', arch_config=dict(nf=4), bs=16,
                        metrics=accuracy)

def tsai_learner(path):
    from tsai.basics import TSClassification, get_ts_dls, ts_learner
    from tsai.models.FCN import FCN
    X,target,splits = series()
    dls = get_ts_dls(X, target, splits=splits, tfms=[None, TSClassification()], bs=16, path=path, num_workers=0)
    return ts_learner(dls, FCN, layers=[8, 16, 8], metrics=accuracy, path=path)

def tabnet(path):
    from fast_tabnet.core import TabNetModel
    df = load_wine(as_frame=True).frame.iloc[::2].reset_index(drop=True)
    df['colour'] = df.color_intensity.round().astype(str)
    names = [o for o in df.columns if o not in ('colour', 'target', 'color_intensity')]
    dls = TabularDataLoaders.from_df(df, procs=[Categorify, Normalize], cat_names=['colour'], cont_names=names, y_names='target',
                                     y_block=CategoryBlock(), valid_idx=range(0, len(df), 4), bs=16, path=path)
    emb = [(len(v), 3) for v in dls.classes.values()]
    model = TabNetModel(emb, len(dls.cont_names), dls.c, n_d=4, n_a=4, n_steps=2, virtual_batch_size=8)
    return Learner(dls, model, loss_func=CrossEntropyLossFlat(), metrics=accuracy, path=path)

def simclr(path):
    from self_supervised.vision.simclr import SimCLR, create_simclr_model, get_simclr_aug_pipelines
    encoder = nn.Sequential(ConvLayer(3, 8, stride=2), ConvLayer(8, 16, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = create_simclr_model(encoder, hidden_size=16, projection_size=8)
    pipelines = get_simclr_aug_pipelines(size=32, rotate=False, jitter=False, bw=False, blur=False)
    return Learner(images(path), model, cbs=SimCLR(pipelines), path=path)

def convnet(): return nn.Sequential(ConvLayer(3, 8, stride=2), ConvLayer(8, 16, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
def sparsified(path):
    from fasterai.core.criteria import large_final
    from fasterai.core.schedule import agp
    from fasterai.sparse.sparsify_callback import SparsifyCallback
    cb = SparsifyCallback(.5, 'weight', 'global', large_final, agp)
    return Learner(images(path), convnet(), metrics=accuracy, cbs=cb, path=path)

def timm_model(path):
    return vision_learner(images(path), 'test_resnet', pretrained=False, metrics=accuracy, path=path)

def noise(i): return InvisibleTensor(torch.randn(8))
def grey(i): return drawn(i)[..., 0]
def gan(path):
    block = DataBlock((TransformBlock, ImageBlock(PILImageBW)), get_x=noise, get_y=grey, splitter=IndexSplitter(range(16)))
    dls = block.dataloaders(range(64), bs=8, num_workers=0, path=path)
    critic = nn.Sequential(*basic_critic(32, 1, n_features=8), nn.Flatten())
    return GANLearner.wgan(dls, basic_generator(32, 1, in_sz=8, n_features=8), critic, opt_func=partial(Adam, mom=0.), path=path)

libraries = { # Name -> package, and function from a path to a learner
    'tsai, TSClassifier': ('tsai', tsai_classifier), 'tsai, ts_learner': ('tsai', tsai_learner), 'fast-tabnet': ('fast_tabnet', tabnet),
    'self-supervised, SimCLR': ('self_supervised', simclr), 'fasterai, SparsifyCallback': ('fasterai', sparsified),
    'timm, vision_learner': ('timm', timm_model), 'fastai, GANLearner': ('fastai', gan)}
needs = {'fastai, GANLearner': dict(monitor='gen_loss', mode='min')} # What the line of a study says besides

def make(name, path):
    "A learner of a library, always with the same weights"
    package,f = libraries[name]
    if package=='tsai' and not hasattr(fastcore.script, 'Param'):  # tsai 1.0.1 imports what fastcore has no more
        fastcore.script.Param = lambda *args, **kwargs: None
    set_seed(0)
    return f(path)

class Second(BasePruner):
    "Stops every second trial after its first epoch"
    def prune(self, study, trial): return trial.number%2==1

class CtrlC(Callback):
    "The user has had enough, in the second epoch"
    def before_batch(self):
        if self.epoch==1 and self.training and self.iter==1: raise KeyboardInterrupt

def tune(name, path):
    "Two trials, the second stopped: the learner, and the result"
    learn = make(name, path)
    return learn, learn.bayes_tune(2, n_trials=2, pruner=Second(), **needs.get(name, {}), **quick)

def is_tuned(learn, res):
    "Is the first trial complete, and does the learner have its best weights?"
    best = torch.load(res.best_path, weights_only=True)
    same = all(torch.equal(v, best[k]) for k,v in learn.model.state_dict().items())
    return same and res.trials.set_index('number').loc[0, 'state']=='complete'

def is_stopped(res): return res.trials.set_index('number').loc[1, ['state', 'epochs']].tolist()==['stopped', 1]

def preds(learn, dl):
    set_seed(0)  # transforms of a batch may draw numbers
    with learn.no_bar(), learn.no_logging(): return learn.get_preds(dl=dl)[0]

def is_exported(learn, path):
    "Does the exported learner predict the same?"
    dl = learn.dls.valid
    learn.export('out.pkl')
    return torch.allclose(preds(load_learner(Path(path)/'out.pkl'), dl), preds(learn, dl), atol=1e-5)

def resumes(name, path):
    "Is the curve of an interrupted trial, resumed by a new learner, that of an undisturbed one?"
    def _tune(folder, *cbs):
        args = dict(n_trials=1, study_name='s', pruner=NopPruner(), cbs=[*cbs], **needs.get(name, {}))
        res = make(name, Path(path)/folder).bayes_tune(3, **args, **quick)
        return res.trials.reason.iloc[0], res.curves.value.tolist()
    _,whole = _tune('whole')
    cut,_ = _tune('parts', CtrlC())
    again,parts = _tune('parts')
    return cut.endswith('interrupted') and again.startswith('resumed after 1') and whole==parts and len(whole)==3

def facts(name, path):
    "What works, by name"
    learn,res = tune(name, path)
    return dict(tune=is_tuned(learn, res), stop=is_stopped(res), export=is_exported(learn, path), resume=resumes(name, path))

def installed(name):
    "Version of the package of a library; empty if there is none"
    package,_ = libraries[name]
    try: return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError: return ''
