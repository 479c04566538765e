"Bad input is refused by a typed error before anything is trained, changed or written"
from datetime import datetime
import matplotlib; matplotlib.use('agg')
import matplotlib.pyplot as plt, pytest, torch
from optuna.samplers import TPESampler
from fastai_bayes.searches import SearchError
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

def args(name, values, error, match, **kwargs):
    "Rows of the table: each of `values` for the argument `name`"
    return {f'{name}={ascii(v)[:50]}': (plain, {'space': lr, **kwargs, name: v}, error, match) for v in values}
def knob(name, values, match, learner=plain, **kwargs):
    "Rows of the table: each of `values` as the range of the knob `name`"
    return {f'{name}: {ascii(v)[:50]}': (learner, dict(kwargs, space={name: v}), KnobError, f'^{name}: .*{match}') for v in values}
def fit_arg(name, values, match, **kwargs):
    "Rows of the table: each of `values` given to the fit"
    return {f'{name}={ascii(v)[:50]}': (plain, {'space': dict(bs=[16, 32]), **kwargs, name: v}, KnobError, f'^{name}: .*{match}') for v in values}
def elsewhere(match, *names):
    "Rows of the table: names of other libraries, in the space and as arguments"
    for k in names:
        yield f'{k} in the space', (plain, dict(space={k: (.1, .2)}), KnobError, f'unknown hyperparameter {k!r}.*{match}')
        if k not in inspect.signature(Learner.bayes_tune).parameters:
            yield f'{k} as an argument', (plain, dict(space=lr, **{k: 3}), TuneError, f'unknown argument {k!r}.*{match}')
def two(a, b): "A factory of two"
def named(*, params): "A factory that takes its argument by name"

reals,wholes = [None, True, -1, 0, 'x', '3', math.inf, math.nan, [3], 1j],[None, True, -1, 0, .5, 2., '3', math.inf, [3], np.array([1, 2])]
bad |= {
    **args('n_epoch', wholes, TuneError, '^n_epoch: expected a whole number of 1 or more, got'),
    **args('n_trials', wholes[1:], TuneError, '^n_trials: expected a whole number of 1 or more, got'),
    **args('budget', wholes[1:], TuneError, '^budget: expected a whole number of 1 or more, got'),
    **args('timeout', reals[1:], TuneError, '^timeout: expected a positive number, got'),
    **args('seed', [True, -1, 1., .5, '0', 2**32, 10**30, [1]], TuneError, '^seed: expected a whole number from 0 to 4294967295, got'),
    **args('verbose', ['no', None, 2, [], .5], TuneError, '^verbose: expected True or False, got'),
    **args('study_name', [3, b's', ['s'], '', '.', '..', 'a/b', 'a\\b', 'a\0b', 'a\nb', '\x1b[31m', '\ud800', '\u202eb', 'x'*256, 'é'*200, 'dot.', 'blank ',
                          ' blank', 'con', 'NUL.txt', 'com1'], TuneError, '^study_name becomes a folder: expected'),
    **args('storage', [3, [], b'x', {}, object, TPESampler()], StudyError, '^storage: expected a path, a URL'),
    **args('storage', ['', ' ', 'a\0b', 'a\nb'], StudyError, '^storage: expected the name of a file'),
    **args('storage', ['/', Path('/')], StudyError, 'storage: expected a file, which a folder is not'),
    **args('storage', ['oracle+cx_oracle://u:secret@h/db'], StudyError, r'^storage: .*u:\*\*\*@h.* pip install cx_Oracle'),
    **args('storage', ['foo://x', 'sqlite:///none/x.db', 'http://x'], StudyError, '^storage: .*cannot be opened'),
    **args('space', [3, 'lr', [1], (1, 2), np.array([1]), {'lr'}, dict], TuneError, '^space: expected a dictionary such as'),
    **args('space', [{1: (0., 1.)}, {None: (0., 1.)}, {('a',): [1]}, {b'lr': [1, 2]}], SpaceError, 'expected names of hyperparameters'),
    **args('space', [dict(lr=np.array([.1, .2])), dict(lr={.1, .2}), dict(lr='x'), dict(lr=.1), dict(lr=(1,)), dict(lr=random)], SpaceError,
           '^lr: expected .low, high'),
    **args('space', [dict(lr=('a', 'b')), dict(lr=(None, 1)), dict(lr=(True, 2))], SpaceError, '^lr: expected numbers for low and high'),
    **args('space', [dict(lr=(0., 1., 'lin')), dict(lr=(0., 1., None, 3)), dict(lr=(0., 1., 0)), dict(lr=(0., math.nan))], SpaceError, '^lr: '),
    **args('monitor', [3, ['accuracy'], b'x', True], MonitorError, '^monitor: expected a name, got'),
    'monitor that is a metric': (plain, dict(space=lr, monitor=accuracy), MonitorError, "^monitor: expected a name, as in monitor='accuracy', got"),
    **args('monitor', ['Accuracy', 'acc', 'val_acc', 'val_accuracy', 'valid_accuracy'], MonitorError, "did you mean 'accuracy'"),
    **args('monitor', ['val_loss', 'loss', 'Valid_Loss', 'valid-loss', 'validation_loss'], MonitorError, "did you mean 'valid_loss'"),
    **args('mode', ['maximize', 'maximise', 'MAX', 'higher'], MonitorError, "'min' or 'max', got.*say mode='max'"),
    **args('mode', ['minimize', 'Min', 'lower'], MonitorError, "'min' or 'max', got.*say mode='min'"),
    **args('mode', [3, True, [], np.array(['min', 'max'])], MonitorError, "'min' or 'max', got"),
    **args('fit', [3, [], None, 'one_cycle', b'fit', dict], KnobError, '^fit: expected'),
    **args('new_learner', [3, 'f', {}, True], TuneError, '^new_learner is a function'),
    **args('new_learner', [lambda: None, two, named], TuneError, '^new_learner is a function.*which cannot be called with one argument'),
    **args('sampler', [3, 'TPEE', [], TPESampler, np.array(['a', 'b'])], SearchError, '^sampler: expected one of bayes, tpe'),
    **args('pruner', [3, 'medain', [], BayesPruner, TPESampler()], SearchError, '^pruner: expected one of bayes, median'),
    **args('enqueue', [3, 'lr', dict(lr=.1), [3], [None], True, 0, np.array([1, 2]), ['lr']], TuneError, '^enqueue: expected a list of dictionaries'),
    **args('enqueue', [[dict(lr=5.)], [dict(lr='x')], [dict(lr=None)], [dict(lr=[.1])], [dict(lr=True)]], TuneError, '^enqueue: lr=.* is outside'),
    **args('enqueue', [[dict(wd=.1)], [{1: .1}]], TuneError, '^enqueue: .* is not in the space, which has lr'),
    **args('cbs', [3, 'MixUp', [None], {'a': 1}, GradientClip, (o for o in ()), print], TuneError, '^cbs: expected instances of callbacks'),
    **knob('lr', [(-1., 1.), (0., 1.), [-1., .1], ['.1', '.2'], [True, .1], [None, .1], [slice(0, 1.)], [slice(None)], [[.1, 'x']], [math.nan, .1]],
           'expected numbers above 0, got'),
    **knob('wd', [(-1., 0.), ['.1'], [True], [math.inf], [slice(-1., .1)]], 'expected numbers of 0 or more, got'),
    **knob('pct_start', [(-1., 2.), (0., 1.5), ['x'], [None, .5]], 'expected numbers from 0 to 1, got'),
    **knob('div', [(0., 10.), (-1, 2), ['x']], 'expected numbers above 0, got'),
    **knob('div_final', [(0., 10.), [None, 3]], 'expected numbers above 0, got'),
    **knob('eps', [(-1., 1.), ['x'], [True]], 'expected numbers of 0 or more, got'),
    **knob('mom', [(-1., .5), (.5, 1.), ['.9']], 'expected numbers from 0 to less than 1, got', fit='fit'),
    **knob('sqr_mom', [(-1., .5), (.5, 1.), ['.9']], 'expected numbers from 0 to less than 1, got'),
    **knob('moms', [(.8, .9), [.9], ['abc'], [(.9, .8)], [(.9, .8, 1.2)], [(.9, .8, 'x')], [None]], 'expected choices of three momentums'),
    **knob('bs', [(8., 32.), [16., 32.], ['16'], [True, 16], [None, 16], [0, 16], [-4, 16]], 'expected whole numbers of 1 or more, got'),
    **knob('ps', [(0., 2.), (-1., .5), ['x'], [True]], 'expected numbers from 0 to 1, got', small_vision),
    **knob('size', [(8., 32.), [0, 32], ['x']], 'expected whole numbers of 1 or more, got'),
    **knob('aug', [(-1., 1.), ['x']], 'expected numbers of 0 or more, got'),
    **knob('drop_mult', [(-1., 1.), ['x']], 'expected numbers of 0 or more, got'),
    **knob('label_smoothing', [(0., 2.), ['x']], 'expected numbers from 0 to 1, got'),
    **knob('lr_mult', [(0., 10.), ['x']], 'expected numbers above 0, got', fit='fine_tune'),
    **knob('freeze_epochs', [(0, 3), (1., 3.), ['x']], 'expected whole numbers of 1 or more, got', fit='fine_tune'),
    **knob('loss_func', [[3], [CrossEntropyLossFlat], ['mse']], 'expected losses that are ready for use'),
    **knob('opt_func', [[3], ['Adamm'], [None]], 'is not an optimizer'),
    **knob('arch', [[3], [None]], 'expected functions such as resnet18 or names of timm models', small_vision),
    **fit_arg('pct_start', [5, -1, 'x', None, [.3], True], 'expected numbers from 0 to 1, got'),
    **fit_arg('lr_max', ['x', 0, -1., [.1, -1], slice(0., 1.)], 'expected numbers above 0, got'),
    **fit_arg('base_lr', ['x', 0], 'expected numbers above 0, got', fit='fine_tune'),
    **fit_arg('wd', ['x', -1, math.inf], 'expected numbers of 0 or more, got'),
    **fit_arg('wd', [True, 'y'], 'expected numbers of 0 or more, got', fit='fine_tune'),
    **fit_arg('div', ['x', 0, None], 'expected numbers above 0, got'),
    **fit_arg('div_final', [-5, (1, 2)], 'expected numbers above 0, got'),
    **fit_arg('moms', [.9, (.9, .8), 'abc', (.9, .8, 2)], 'expected choices of three momentums'),
    **fit_arg('freeze_epochs', [-1, 1.5, 'x', None], 'expected whole numbers of 1 or more, got', fit='fine_tune'),
    **fit_arg('lr_mult', [0, 'x'], 'expected numbers above 0, got', fit='fine_tune'),
    'unknown to fine_tune': (plain, dict(space=lr, fit='fine_tune', n_trial=3), TuneError, "^unknown argument 'n_trial', did you mean 'n_trials'"),
    'unknown to what fine_tune calls': (plain, dict(space=dict(bs=[16, 32]), fit='fine_tune', lr_max=.1), TuneError, "^unknown argument 'lr_max'.*its base_lr="),
    **dict(elsewhere('bs', 'batch_size', 'batchSize', 'train_batch_size')), **dict(elsewhere('lr', 'learning_rate', 'Learning-Rate', 'max_lr')),
    **dict(elsewhere('wd', 'weight_decay', 'l2')), **dict(elsewhere('opt_func', 'optimizer', 'optimiser')), **dict(elsewhere('ps', 'dropout', 'drpout')),
    **dict(elsewhere('moms', 'betas')), **dict(elsewhere('mom', 'momentum')), **dict(elsewhere('arch', 'model', 'backbone')),
    **dict(elsewhere('n_epoch', 'epochs', 'n_epochs', 'max_epochs', 'num_epochs')), **dict(elsewhere('the activation is no knob; pass new_learner', 'act_cls')),
    **dict(elsewhere('monitor', 'metric')), **dict(elsewhere('mode', 'direction')), **dict(elsewhere('in several processes', 'n_jobs')),
    **dict(elsewhere('cbs', 'callbacks')), **dict(elsewhere("the schedule is the fit's", 'scheduler')), **dict(elsewhere('seed', 'random_state')),
    **dict(elsewhere('loss_func', 'criterion')), **dict(elsewhere('GradientClip', 'gradient_clip')),
    'a knob as an argument': (plain, dict(space=lr, bs=32), TuneError, r"unknown argument 'bs'; bs is a hyperparameter.*space=dict\(bs=...\)"),
    'an argument in the space': (plain, dict(space=dict(n_epoch=(1, 5))), KnobError, "'n_epoch'; n_epoch is an argument of bayes_tune"),
    'epochs missing, called epochs': (plain, dict(n_epoch=None, space=lr, epochs=3), TuneError, "unknown argument 'epochs', did you mean 'n_epoch'"),
    'torchvision by name': (small_vision, dict(space=dict(arch=['alexnet'])), KnobError, 'pass the function, as in torchvision.models.alexnet'),
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
