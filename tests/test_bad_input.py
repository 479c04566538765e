"Bad input is refused by a typed error before anything is trained, changed or written"
import pytest, torch
from tuning import *
from fastai_bayes.all import *

class DistributedTrainer(Callback): "Stands for fastai's, which is known by its name"
def my_metric(pred, targ): return pred.mean()
def instance(model): return OptimWrapper(opt=torch.optim.SGD(model.parameters(), lr=.1, momentum=.9))
def torch_loaders(path):
    dls = loaders(path)
    return DataLoaders(*[torch.utils.data.DataLoader(o.dataset, batch_size=32) for o in dls.loaders], path=path)
def small_vision(path, **kwargs):
    imgs = x[:64].view(-1, 1, 8, 8).repeat(1, 3, 4, 4)
    dls = DataLoaders(*[TfmdDL(TensorDataset(imgs, y[:64]), bs=16, shuffle=True, num_workers=0)]*2, path=path)
    return vision_learner(dls, resnet18, n_out=10, pretrained=False, loss_func=CrossEntropyLossFlat(), metrics=accuracy, **kwargs)

lr = dict(lr=(1e-3, .1, 'log'))
plain = digits
bad = {
    'empty space': (plain, dict(space={}), SpaceError, 'empty'),
    'low above high': (plain, dict(space=dict(lr=(.1, .01))), SpaceError, 'lr: expected low < high'),
    'low equals high': (plain, dict(space=dict(lr=(.1, .1))), SpaceError, 'low < high'),
    'log of zero': (plain, dict(space=dict(lr=(0, .1, 'log'))), SpaceError, 'needs low > 0'),
    'not a space': (plain, dict(space=3), TuneError, 'dictionary'),
    'unknown knob': (plain, dict(space=dict(opt_fun=[Adam, SGD])), KnobError, "did you mean 'opt_func'"),
    'unknown monitor': (plain, dict(space=lr, monitor='acuracy'), MonitorError, "did you mean 'accuracy'.*valid_loss"),
    'unknown direction': (lambda p: digits(p, metrics=my_metric), dict(space=lr), MonitorError, 'mode='),
    'wrong mode': (plain, dict(space=lr, mode='up'), MonitorError, "'min' or 'max'"),
    'no epochs': (plain, dict(n_epoch=0, space=lr), TuneError, 'n_epoch: expected a whole number of 1 or more, got 0'),
    'negative epochs': (plain, dict(n_epoch=-2, space=lr), TuneError, 'n_epoch'),
    'half an epoch': (plain, dict(n_epoch=.5, space=lr), TuneError, 'n_epoch'),
    'epochs missing': (plain, dict(n_epoch=None, space=lr), TuneError, 'n_epoch'),
    'no validation set': (lambda p: digits(p, DataLoaders(loaders(p).train, path=p)), dict(space=lr), TuneError, 'no validation set'),
    'empty validation set': (lambda p: digits(p, DataLoaders(loaders(p).train, TfmdDL([], bs=2), path=p)),
        dict(space=lr), TuneError, 'no validation set'),
    'bs above the data': (plain, dict(space=dict(bs=[32, 512])), LoaderError, 'bs: a batch size of 512 is more than the training set has'),
    'present bs above the data': (lambda p: digits(p, loaders(p, 20)), dict(space=lr), TuneError, 'no batches'),
    'optimizer instance, other models': (lambda p: small_vision(p, opt_func=instance(nn.Linear(1, 1))),
        dict(space=dict(arch=[resnet18, resnet34])), KnobError, 'OptimWrapper'),
    'optimizer instance as a choice': (plain, dict(space=dict(opt_func=[Adam, instance(nn.Linear(1, 1))])), KnobError, 'used twice'),
    'arch unknown to the learner': (plain, dict(space=dict(arch=[resnet18, resnet34])), KnobError, 'pass new_learner'),
    'torch loaders': (lambda p: digits(p, torch_loaders(p)), dict(space=dict(bs=[16, 32])), LoaderError, 'cannot be changed'),
    'callback class': (plain, dict(space=lr, cbs=GradientClip), TuneError, 'expected instances of callbacks'),
    'callback class in a list': (plain, dict(space=lr, cbs=[MixUp(), GradientClip]), TuneError, 'expected instances of callbacks'),
    'no trials': (plain, dict(space=lr, n_trials=0), TuneError, 'n_trials'),
    'no budget': (plain, dict(space=lr, budget=0), TuneError, 'budget'),
    'negative timeout': (plain, dict(space=lr, timeout=-1), TuneError, 'timeout: expected a positive number, got -1'),
    'factory without learner': (plain, dict(space=lr, new_learner=lambda p: 'learner'), TuneError, 'must return a Learner, got str'),
    'factory that returns the lent one': ('same', dict(space=lr), TuneError, 'build a new Learner each time'),
    'learner as factory': ('learner', dict(space=lr), TuneError, 'new_learner is a function'),
    'distributed': (lambda p: digits(p, cbs=DistributedTrainer()), dict(space=lr), TuneError, 'one process a GPU'),
    'distributed in cbs': (plain, dict(space=lr, cbs=DistributedTrainer()), TuneError, 'one process a GPU'),
    'unknown fit': (plain, dict(space=lr, fit='fit_sgdr'), KnobError, 'fit: expected one of'),
    'fit without cbs': (plain, dict(space=lr, fit=lambda learn, n: None), TuneError, 'must take cbs'),
    'misspelled argument': (plain, dict(space=lr, n_trial=3), TuneError, "did you mean 'n_trials'"),
    'argument of another fit': (plain, dict(space=lr, freeze_epochs=3), TuneError, "unknown argument 'freeze_epochs'"),
    'given and tuned': (plain, dict(space=lr, lr_max=.1), TuneError, 'tuned as well'),
    'knob of another fit': (plain, dict(space=dict(pct_start=(.1, .5)), fit='fit'), KnobError, 'pct_start'),
    'no momentum': (plain, dict(space=dict(opt_func=[torch.optim.Adagrad])), KnobError, 'no momentum'),
    'seed': (plain, dict(space=lr, seed=-1), TuneError, 'seed'),
    'name that is a path': (plain, dict(space=lr, study_name='../x'), TuneError, 'study_name'),
    'cannot be copied': (lambda p: digits(p, cbs=Locked()), dict(space=lr), CloneError, 'pass new_learner'),
}
class Locked(Callback):
    def __init__(self): self.lock = threading.Lock()

@pytest.mark.parametrize('name', bad)
def test_bad_input(tmp_path, name):
    mk,kwargs,error,match = bad[name]
    learn = (digits if isinstance(mk, str) else mk)(tmp_path)
    if isinstance(mk, str): kwargs = dict(kwargs, new_learner=(lambda p: learn) if mk=='same' else learn)
    before,proc,trained = picture(learn),process(),[]
    kwargs = {'n_epoch': 2, 'verbose': False, **kwargs}
    learn.model.register_forward_hook(lambda *args: trained.append(1))
    with pytest.raises(error, match=match) as e: learn.bayes_tune(**kwargs)
    assert isinstance(e.value, ValueError)
    assert not trained and same(before, picture(learn)) and process()==proc and files(tmp_path)==[]

def test_another_space_under_the_same_name(tmp_path):
    learn = digits(tmp_path)
    learn.bayes_tune(1, lr, n_trials=1, study_name='s', verbose=False)
    before,had = picture(learn),files(tmp_path)
    with pytest.raises(StudyError, match='another name'): learn.bayes_tune(1, dict(lr=(1e-3, .5, 'log')), n_trials=2, study_name='s', verbose=False)
    assert same(before, picture(learn)) and files(tmp_path)==had
