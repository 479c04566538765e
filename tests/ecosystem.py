"Learners of all applications, by fastai and by libraries that build on it, and what `bayes_tune` does to them"
import importlib.metadata
import fastcore.script
from fastai.vision.gan import GANLearner, InvisibleTensor, basic_critic, basic_generator
from fastai.tabular.all import Categorify, TabularDataLoaders
from optuna.pruners import NopPruner
from sklearn.datasets import load_wine
from test_applications import Second, apps, image, images, label
from tuning import *
from fastai_bayes.all import *

def digit_images(path): return images(path, CategoryBlock, label)

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
    return Learner(digit_images(path), model, cbs=SimCLR(pipelines), path=path)

def convnet(): return nn.Sequential(ConvLayer(3, 8, stride=2), ConvLayer(8, 16, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
def sparsified(path):
    from fasterai.core.criteria import large_final
    from fasterai.core.schedule import agp
    from fasterai.sparse.sparsify_callback import SparsifyCallback
    cb = SparsifyCallback(.5, 'weight', 'global', large_final, agp)
    return Learner(digit_images(path), convnet(), metrics=accuracy, cbs=cb, path=path)

def timm_model(path):
    return vision_learner(digit_images(path), 'test_resnet', pretrained=False, metrics=accuracy, path=path)

def noise(i): return InvisibleTensor(torch.randn(8))
def grey(i): return image(i)[..., 0]
def gan(path):
    block = DataBlock((TransformBlock, ImageBlock(PILImageBW)), get_x=noise, get_y=grey, splitter=IndexSplitter(range(16)))
    dls = block.dataloaders(range(64), bs=8, num_workers=0, path=path)
    critic = nn.Sequential(*basic_critic(32, 1, n_features=8), nn.Flatten())
    return GANLearner.wgan(dls, basic_generator(32, 1, in_sz=8, n_features=8), critic, opt_func=partial(Adam, mom=0.), path=path)

libraries = { # Application, library and what makes the learner -> function from a path to a learner
    ('images', 'fastai, vision_learner'): apps['classification'], ('images', 'timm, vision_learner'): timm_model,
    ('images', 'fasterai, SparsifyCallback'): sparsified, ('images without labels', 'self-supervised, SimCLR'): simclr,
    ('images with several labels', 'fastai, vision_learner'): apps['multi_label'], ('points in images', 'fastai, vision_learner'): apps['points'],
    ('segmentation', 'fastai, unet_learner'): apps['segmentation'], ('images drawn by a GAN', 'fastai, GANLearner'): gan,
    ('tables', 'fastai, tabular_learner'): apps['tabular_classes'], ('tables', 'fast-tabnet, TabNetModel'): tabnet,
    ('tables, regression', 'fastai, tabular_learner'): apps['tabular_numbers'], ('ratings', 'fastai, collab_learner'): apps['collab'],
    ('texts', 'fastai, text_classifier_learner'): apps['text_classes'], ('language models', 'fastai, language_model_learner'): apps['language_model'],
    ('time series', 'tsai, TSClassifier'): tsai_classifier, ('time series', 'tsai, ts_learner'): tsai_learner,
    ('any data', 'fastai, Learner'): apps['plain']}
needs = {gan: dict(monitor='gen_loss', mode='min')} # What the line of a study says besides

def package_of(row): return row[1].split(',')[0].replace('-', '_')

def make(row, path):
    "The learner of a row of `libraries`, always with the same weights"
    if package_of(row)=='tsai' and not hasattr(fastcore.script, 'Param'):  # tsai 1.0.1 imports what fastcore has no more
        fastcore.script.Param = lambda *args, **kwargs: None
    set_seed(0)
    return libraries[row](path)

class CtrlC(Callback):
    "The user has had enough, in the second epoch"
    def before_batch(self):
        if self.epoch==1 and self.training and self.iter==1: raise KeyboardInterrupt

def study(row, path, n_epoch, **kwargs):
    "The learner of a row, and the result of a study"
    learn = make(row, Path(path))
    return learn, learn.bayes_tune(n_epoch, **kwargs, **needs.get(libraries[row], {}), **quick)

def is_tuned(learn, res):
    "Is the first trial complete, and does the learner have its best weights?"
    best = torch.load(res.best_path, weights_only=True)
    same = all(torch.equal(v, best[k]) for k,v in learn.model.state_dict().items())
    return same and res.trials.set_index('number').loc[0, 'state']=='complete'

def is_stopped(res): return res.trials.set_index('number').loc[1, ['state', 'epochs']].tolist()==['stopped', 1]

def preds(learn, dl):
    set_seed(0)  # transforms of a batch may draw numbers
    with learn.no_bar(), learn.no_logging(): return learn.get_preds(dl=dl, reorder=False)[0]

def is_exported(learn, path):
    "Does the exported learner predict the same?"
    dl = learn.dls.valid
    learn.export('out.pkl')
    return torch.allclose(preds(load_learner(Path(path)/'out.pkl'), dl), preds(learn, dl), atol=1e-5)

def resumes(row, path):
    "Is the curve of an interrupted trial, resumed by a new learner, that of an undisturbed one?"
    def _tune(folder, *cbs):
        _,res = study(row, Path(path)/folder, 3, n_trials=1, study_name='s', pruner=NopPruner(), cbs=[*cbs])
        return res.trials.reason.iloc[0], res.curves.value.tolist()
    _,whole = _tune('whole')
    cut,_ = _tune('parts', CtrlC())
    again,parts = _tune('parts')
    return cut.endswith('interrupted') and again.startswith('resumed after 1') and whole==parts and len(whole)==3

def facts(row, path):
    "What works, by name"
    learn,res = study(row, path, 2, n_trials=2, pruner=Second())
    return dict(tune=is_tuned(learn, res), stop=is_stopped(res), export=is_exported(learn, path), resume=resumes(row, path))

def installed(row):
    "Version of the package of a row; empty if there is none"
    try: return importlib.metadata.version(package_of(row))
    except importlib.metadata.PackageNotFoundError: return ''
