"Bad input is refused by a typed error before anything is trained, changed or written"
from datetime import datetime
import matplotlib; matplotlib.use('agg')
import matplotlib.pyplot as plt, pytest, torch
from optuna.samplers import BruteForceSampler, GridSampler, TPESampler
from fastai_bayes.learner.copies import seeded
from fastai_bayes.study.searches import SearchError
from tuning import *
from fastai_bayes.all import *

class Locked(Callback):
    def __init__(self): self.lock = threading.Lock()
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
    'empty monitor': (plain, dict(space=lr, monitor=''), MonitorError, "'' is not recorded"),
    'unknown direction': (lambda p: digits(p, metrics=my_metric), dict(space=lr), MonitorError, 'mode='),
    'wrong mode': (plain, dict(space=lr, mode='up'), MonitorError, "'min' or 'max'"),
    'no epochs': (plain, dict(n_epoch=0, space=lr), TuneError, r'n_epoch: expected a whole number of 1 or more, or a range such as \(5, 20\), got 0'),
    'negative epochs': (plain, dict(n_epoch=-2, space=lr), TuneError, 'n_epoch'),
    'half an epoch': (plain, dict(n_epoch=.5, space=lr), TuneError, 'n_epoch'),
    'epochs missing': (plain, dict(n_epoch=None, space=lr), TuneError, 'n_epoch'),
    'a single loader': (lambda p: digits(p, loaders(p).train), dict(space=lr), TuneError, 'dls: expected DataLoaders'),
    'a single loader of a factory': (plain, dict(space=lr, new_learner=lambda p: digits('.', loaders('.').train)), TuneError,
        'dls: expected DataLoaders'),
    'no validation set': (lambda p: digits(p, DataLoaders(loaders(p).train, path=p)), dict(space=lr), TuneError, 'no validation set'),
    'empty validation set': (lambda p: digits(p, DataLoaders(loaders(p).train, TfmdDL([], bs=2), path=p)),
        dict(space=lr), TuneError, 'no validation set'),
    'bs above the data': (plain, dict(space=dict(bs=[32, 512])), LoaderError, 'bs: a batch size of 512 is larger than the training set'),
    'present bs above the data': (lambda p: digits(p, loaders(p, 20)), dict(space=lr), TuneError, 'no batches'),
    'optimizer instance, other models': (lambda p: small_vision(p, opt_func=instance(nn.Linear(1, 1))),
        dict(space=dict(arch=[resnet18, resnet34])), KnobError, 'OptimWrapper'),
    'optimizer instance as a choice': (plain, dict(space=dict(opt_func=[Adam, instance(nn.Linear(1, 1))])), KnobError, 'used twice'),
    'arch unknown to the learner': (plain, dict(space=dict(arch=[resnet18, resnet34])), KnobError, 'pass new_learner'),
    'torch loaders': (lambda p: digits(p, torch_loaders(p)), dict(space=dict(bs=[16, 32])), LoaderError, 'cannot be changed'),
    'callback that is tuned as well': (plain, dict(space=dict(mixup=(0., 1.)), cbs=MixUp()), KnobError, '^mixup: it is tuned, and cbs has MixUp as well; drop one'),
    'mixup and cutmix': (plain, dict(space=dict(mixup=(0., 1.), cutmix=(0., 1.))), KnobError, '^mixup: fastai cannot combine it with cutmix'),
    'unknown schedule': (plain, dict(space=dict(schedule=['cosine', 'step'])), KnobError, "schedule: expected some of one_cycle, flat_cos, cosine, constant, got 'step'"),
    'schedule of fine_tune': (plain, dict(space=dict(schedule=['cosine']), fit='fine_tune'), KnobError, 'schedule: fine_tune has a schedule of its own'),
    'argument that one schedule lacks': (plain, dict(space=dict(schedule=['one_cycle', 'cosine']), moms=(.9, .8, .9)), TuneError, "unknown argument 'moms'"),
    'ema of 1': (plain, dict(space=dict(ema=[.9, 1])), KnobError, 'ema: expected numbers from 0 to less than 1, got 1'),
    'fp16 on a CPU': (lambda p: digits(p, loaders(p).to(torch.device('cpu'))), dict(space=dict(precision=['fp32', 'fp16'])), KnobError, 'precision: fp16 needs a GPU, and the loaders are on cpu; use bf16'),
    'unknown precision': (plain, dict(space=dict(precision=['float16'])), KnobError, 'precision: expected some of fp32, fp16, bf16'),
    'precision that is a callback as well': (plain, dict(space=dict(precision=['fp32', 'bf16']), cbs=MixedPrecision()), KnobError, '^precision: it is tuned, and cbs has MixedPrecision as well; drop one'),
    'lr_decay of one group': (plain, dict(space=dict(lr_decay=(.5, 1.))), KnobError, 'lr_decay: the model has one group of parameters'),
    'wd_mult of one group': (plain, dict(space=dict(wd_mult=(1., 9.))), KnobError, 'wd_mult: the model has one group of parameters'),
    'activation': (plain, dict(space=dict(act_cls=['relu'])), KnobError, 'act_cls: expected classes or functions that return modules'),
    'y_range without': (plain, dict(space=dict(y_range=[(0, 1)])), KnobError, 'y_range: the model was built without y_range'),
    'y_range reversed': (plain, dict(space=dict(y_range=[(1, 0)])), KnobError, 'y_range: expected choices of pairs'),
    'callback class': (plain, dict(space=lr, cbs=GradientClip), TuneError, 'expected instances of callbacks'),
    'callback class in a list': (plain, dict(space=lr, cbs=[MixUp(), GradientClip]), TuneError, 'expected instances of callbacks'),
    'no trials': (plain, dict(space=lr, n_trials=0), TuneError, 'n_trials'),
    'no budget': (plain, dict(space=lr, budget=0), TuneError, 'budget'),
    'negative timeout': (plain, dict(space=lr, timeout=-1), TuneError, 'timeout: expected a positive number, got -1'),
    'factory without learner': (plain, dict(space=lr, new_learner=lambda p: 'learner'), TuneError, 'must return a Learner, got str'),
    'factory that returns the lent one': ('same', dict(space=lr), TuneError, 'build a new Learner each time'),
    'learner as factory': ('learner', dict(space=lr), TuneError, 'new_learner is a function'),
    'distributed': (lambda p: digits(p, cbs=DistributedTrainer()), dict(space=lr), TuneError, "several processes, as with torchrun.*workers=.gpus"),
    'distributed in cbs': (plain, dict(space=lr, cbs=DistributedTrainer()), TuneError, "several processes, as with torchrun.*workers=.gpus"),
    'unknown fit': (plain, dict(space=lr, fit='fit_sgdr'), KnobError, 'fit: expected one of'),
    'fit without cbs': (plain, dict(space=lr, fit=lambda learn, n: None), TuneError, 'must have the argument cbs'),
    'misspelled argument': (plain, dict(space=lr, n_trial=3), TuneError, "did you mean 'n_trials'"),
    'argument of another fit': (plain, dict(space=lr, freeze_epochs=3), TuneError, "unknown argument 'freeze_epochs'"),
    'given and tuned': (plain, dict(space=lr, lr_max=.1), TuneError, 'tuned as well'),
    'knob of another fit': (plain, dict(space=dict(pct_start=(.1, .5)), fit='fit'), KnobError, 'pct_start'),
    **{f'metrics={v}': (lambda p, v=v: digits(p, metrics=v), dict(space=lr, mode='max'), MonitorError, '^metrics: expected named functions such as accuracy.* got ')
       for v in ('accuracy', 3, [accuracy, 3], [None])},
    'no momentum': (plain, dict(space=dict(opt_func=[torch.optim.Adagrad])), KnobError, 'no momentum'),
    'seed': (plain, dict(space=lr, seed=-1), TuneError, 'seed'),
    'name that is a path': (plain, dict(space=lr, study_name='../x'), TuneError, 'study_name'),
    'cannot be copied': (lambda p: digits(p, cbs=Locked()), dict(space=lr), CloneError, 'pass new_learner'),
    'cbs that cannot be copied': (plain, dict(space=lr, cbs=[MixUp(), Locked()]), CloneError, '^cbs: each trial gets copies, but MixUp, Locked cannot be copied .* in before_fit'),
    'samplers that cannot search this': (plain, dict(space=lr, sampler=BruteForceSampler()), SearchError, '^sampler: BruteForceSampler cannot search this space: .*step'),
    'grid of other names': (plain, dict(space=lr, sampler=GridSampler(dict(wd=[.1]))), SearchError, 'cannot search this space: The parameter name, lr'),
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
    **args('n_epoch', [None, True, -1, 0, .5, 2., '3', math.inf, np.array([1, 2]), dict(a=3)], TuneError, r'^n_epoch: expected a whole number of 1 or more, or a range such as \(5, 20\), got'),
    **args('n_epoch', [(20, 5), (5, 5)], SpaceError, '^n_epoch: expected low < high'), **args('n_epoch', [(0, 5), (2., 6.), (1, 6, .5), [2, 4.5], ['2', '6'], [True, False]], SpaceError, '^n_epoch: expected whole numbers of 1 or more'),
    **args('n_epoch', [[]], SpaceError, '^n_epoch: expected at least one choice'), **args('n_epoch', [[3, 3]], SpaceError, '^n_epoch: choices must have different names'), **args('n_epoch', [(1,), (1, 2, 3, 4)], SpaceError, '^n_epoch: expected .low, high.'),
    'epochs in the space, not whole': (plain, dict(n_epoch=None, space=dict(n_epoch=(1., 5.), **lr)), SpaceError, 'n_epoch: expected whole numbers of 1 or more'),
    'epochs twice': (plain, dict(n_epoch=(2, 4), space=dict(n_epoch=(1, 5), **lr)), SpaceError, 'an argument, and in the space as well'),
    'lengths in population based training': (plain, dict(n_epoch=(2, 4), space=lr, sampler='pbt'), TuneError, 'whose length must stay; give n_epoch as one number'),
    **args('n_trials', wholes[1:], TuneError, '^n_trials: expected a whole number of 1 or more, got'),
    **args('budget', wholes[1:], TuneError, '^budget: expected a whole number of 1 or more, got'),
    **args('timeout', reals[1:], TuneError, '^timeout: expected a positive number, got'),
    **args('target', ['x', True, [], math.nan, math.inf], TuneError, '^target: expected a number, got'),
    **args('repeats', ['x', True, 0, 1.5, -1], TuneError, '^repeats: expected a whole number of 1 or more, got'),
    **{f'repeats with {o}': (plain, dict(space=lr, repeats=3, sampler=o), TuneError, "^repeats: .* does not know which trials deserve another run; use sampler='bayes'") for o in ('tpe', 'pbt', 'random')},
    **args('enough', ['x', True, -1, math.nan, math.inf], TuneError, '^enough: expected a number of 0 or more, the gain that would not matter, got'),
    **{f'enough with {o}': (plain, dict(space=lr, enough=.01, sampler=o), TuneError, "^enough: .* does not know what the rest of the budget may bring; use sampler='bayes'") for o in ('tpe', 'pbt')},
    **args('every', [0, -1, True, None, 'x', math.nan, math.inf, [1]], TuneError, '^every: expected a part of an epoch such as 1/2'),
    **args('every', [.3], TuneError, '^every: .* the nearest is 1/4 or 1/3', n_epoch=4), **args('every', [2.5], TuneError, '^every: .* the nearest is 2 or 3', n_epoch=4),
    **args('every', [5], TuneError, '^every: .*n_epoch .4., got 5; the nearest is 4', n_epoch=4),
    'parts of an epoch and several lengths': (plain, dict(space=lr, n_epoch=(2, 6), every=.5), TuneError, '^every: a part of an epoch does not go with n_epoch in the space'),
    **args('every', [1/50], LoaderError, '^every: .* batches of training cannot be cut into 50 parts'),
    **args('cache_frozen', [None, 0, -1, 'x', math.nan, math.inf, [1]], TuneError, '^cache_frozen: expected True, False, or gigabytes of memory, got'),
    'nothing to cache': (plain, dict(space=lr, cache_frozen=True), TuneError, '^cache_frozen: fit_one_cycle freezes no layers'),
    **args('seed', [True, -1, 1., .5, '0', 2**32, 10**30, [1]], TuneError, '^seed: expected a whole number from 0 to 4294967295, got'),
    **args('verbose', ['no', None, 2, [], .5], TuneError, '^verbose: expected True or False, got'),
    **args('study_name', [3, b's', ['s'], '', '.', '..', 'a/b', 'a\\b', 'a\0b', 'a\nb', '\x1b[31m', '\ud800', '\u202eb', 'x'*256, 'é'*200, 'dot.', 'blank ',
                          ' blank', 'con', 'NUL.txt', 'com1'], TuneError, '^study_name is the name of a folder: expected'),
    **args('storage', [3, [], b'x', {}, object, TPESampler()], StudyError, '^storage: expected a path, a URL'),
    **args('storage', ['', ' ', 'a\0b', 'a\nb'], StudyError, '^storage: expected the name of a file'),
    **args('storage', ['/', Path('/')], StudyError, 'storage: expected a file, got a folder'),
    **args('storage', ['oracle+cx_oracle://u:secret@h/db'], StudyError, r'^storage: .*u:\*\*\*@h.* pip install cx_Oracle'),
    **args('storage', ['foo://x', 'sqlite:///none/x.db', 'http://x'], StudyError, '^storage: .*cannot be opened'),
    **args('storage', ['x'*300, Path('x'*300)], StudyError, '^storage: .*cannot be opened: .*too long'),
    **args('storage', ['~/x.log', __file__+'/x.log'], StudyError, '^storage: .*cannot be opened: .*(expanduser|is no folder)'),
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
    **args('mode', ['maximize', 'maximise', 'MAX', 'higher'], MonitorError, "'min' or 'max', got.*pass mode='max'"),
    **args('mode', ['minimize', 'Min', 'lower'], MonitorError, "'min' or 'max', got.*pass mode='min'"),
    **args('mode', [3, True, [], np.array(['min', 'max'])], MonitorError, "'min' or 'max', got"),
    **args('fit', [3, [], None, 'one_cycle', b'fit', dict], KnobError, '^fit: expected'),
    **args('new_learner', [3, 'f', {}, True], TuneError, '^new_learner is a function'),
    **args('new_learner', [lambda: None, two, named], TuneError, '^new_learner is a function.*which cannot be called with one argument'),
    **args('sampler', [3, 'TPEE', [], TPESampler, np.array(['a', 'b'])], SearchError, '^sampler: expected one of bayes, tpe'),
    **args('pruner', [3, 'medain', [], BayesPruner, TPESampler()], SearchError, '^pruner: expected one of bayes, median'),
    **args('enqueue', [3, 'lr', dict(lr=.1), [3], [None], True, 0, np.array([1, 2]), ['lr']], TuneError, '^enqueue: expected a list of dictionaries'),
    **args('enqueue', [[dict(lr=5.)], [dict(lr='x')], [dict(lr=None)], [dict(lr=[.1])], [dict(lr=True)]], TuneError, '^enqueue: lr=.* is outside'),
    **args('enqueue', [[dict(wd=.1)], [{1: .1}]], TuneError, '^enqueue: .* is not in the space, which has lr'),
    **args('subject_to', [3, 'n_params', [], ['n_params'], {3: (None, 1)}, {None: (None, 1)}, True], TuneError, '^subject_to: expected a dictionary, as in'),
    **args('subject_to', [dict(n_params=v) for v in (5, None, 'x', (), (5,), (1, 2, 3), (None, None), (None, 'x'), (None, True), (None, math.nan), (None, math.inf), (len,), (len, 5), (5, len, 5))],
           TuneError, r'^subject_to: n_params: expected \(low, high\) with None for no bound, .* got '),
    **args('subject_to', [dict(n_params=(3, 2)), dict(depth=(len, 2, 1.5))], TuneError, '^subject_to: .*: expected low before high, got .*; swap them'),
    **args('subject_to', [dict(latency=(None, 5)), dict(latency_s=(None, 5))], TuneError, "is not measured, did you mean 'latency_ms'.*Known are n_params, .*accuracy; or give a function"),
    **args('subject_to', [dict(recall=(.9, None)), {'': (.9, None)}], TuneError, 'is not measured. Known are n_params, size_mb, latency_ms, peak_mem_mb, seconds_per_epoch, train_loss, valid_loss, accuracy; or give a function'),
    **args('subject_to', [dict(peak_mem_mb=(None, 5))], TuneError, '^subject_to: peak_mem_mb is measured on CUDA devices, and the learner is on cpu; take size_mb'),
    **args('subject_to', [dict(depth=(len, 1, 2)), dict(depth=(str, 1, 2)), dict(depth=(lambda: 3, 1, 2))], TuneError, '^subject_to: depth of the learner cannot be measured .*Error.*; give a function that returns a number'),
    **args('goals', [3, 'accuracy', [], ['accuracy', 'n_params'], {3: 'max', 'accuracy': 'max'}, True], TuneError, '^goals: expected a dictionary, as in'),
    **args('goals', [{}, dict(accuracy='max')], TuneError, '^goals: expected two or more, got'),
    **args('goals', [dict(accuracy=v, n_params='min') for v in (5, 'up', 'maximize', (), (len,), (len, 'up'), (len, None), ('max', len))], TuneError, "^goals: accuracy: expected 'max', 'min'"),
    **args('goals', [dict(accuracy='max', latency='min'), dict(accuracy='max', recall='max')], TuneError, '^goals: .* is not measured'),
    **args('goals', [dict(n_params='min', size_mb='min'), dict(n_params='min', depth=(len, 'min'))], TuneError, '^goals: expected a metric or loss that is recorded each epoch'),
    **args('goals', [dict(accuracy='max', depth=(len, 'min')), dict(accuracy='max', depth=(str, 'min'))], TuneError, '^goals: depth of the learner cannot be measured .*Error'),
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
    **knob('loss_func', [[3], [CrossEntropyLossFlat], ['mse']], 'expected instances of losses'),
    **knob('opt_func', [[3], ['Adamm'], [None]], 'is not an optimizer'),
    **knob('arch', [[3], [None]], 'expected functions such as resnet18, or names of models', small_vision),
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
    'unknown to what fine_tune calls': (plain, dict(space=dict(bs=[16, 32]), fit='fine_tune', lr_max=.1), TuneError, "^unknown argument 'lr_max'.*pass base_lr="),
    **dict(elsewhere('bs', 'batch_size', 'batchSize', 'train_batch_size')), **dict(elsewhere('lr', 'learning_rate', 'Learning-Rate', 'max_lr')),
    **dict(elsewhere('wd', 'weight_decay', 'l2')), **dict(elsewhere('opt_func', 'optimizer', 'optimiser')), **dict(elsewhere('ps', 'dropout', 'drpout')),
    **dict(elsewhere('moms', 'betas')), **dict(elsewhere('mom', 'momentum', 'adam_beta1')), **dict(elsewhere('only arch and layers of the model are knobs', 'd_model')),
    **dict(elsewhere('n_acc', 'accumulate_grad_batches')), **dict(elsewhere('Known are arch|it takes|fit_one_cycle has', 'catch', 'bidirectional', 'batch_tfms')), **dict(elsewhere('arch', 'model', 'backbone')),
    **dict(elsewhere('n_epoch', 'epochs', 'n_epochs', 'max_epochs', 'num_epochs')), **dict(elsewhere('act_cls', 'activation')),
    **dict(elsewhere('monitor', 'metric')), **dict(elsewhere('mode', 'direction')), **dict(elsewhere('in several processes', 'n_jobs')),
    **dict(elsewhere('cbs', 'callbacks')), **dict(elsewhere('schedule', 'scheduler')), **dict(elsewhere('ema', 'ema_decay')), **dict(elsewhere('precision', 'amp', 'mixed_precision')), **dict(elsewhere('lr_decay', 'llrd')), **dict(elsewhere('seed', 'random_state')),
    **dict(elsewhere('loss_func', 'criterion')), **dict(elsewhere('max_norm', 'gradient_clip')),
    'a knob as an argument': (plain, dict(space=lr, bs=32), TuneError, r"unknown argument 'bs'; bs is a hyperparameter.*space=dict\(bs=...\)"),
    'an argument in the space': (plain, dict(space=dict(n_epoch=(1, 5))), SpaceError, 'n_epoch is an argument, and in the space as well; drop one'),
    'epochs missing, called epochs': (plain, dict(n_epoch=None, space=lr, epochs=3), TuneError, "unknown argument 'epochs', did you mean 'n_epoch'"),
    'unknown name of a model': (small_vision, dict(space=dict(arch=['resnet_34', 'resnet18'])), KnobError, "^arch: .*has a?n?o? ?model 'resnet_34', did you mean 'resnet34'"),
}

def without_address(name): return re.sub(' at 0x[0-9a-f]+', '', name)  # processes that share the tests must call them the same

@pytest.mark.parametrize('name', bad, ids=without_address)
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

@pytest.mark.parametrize('kind', [np.int64, np.int32, int])
def test_whole_numbers_of_numpy_are_numbers(tmp_path, kind):
    res = digits(tmp_path).bayes_tune(kind(1), lr, n_trials=kind(1), budget=kind(3), seed=kind(3), timeout=np.float64(60), verbose=False)
    assert len(res.trials)==1 and all(type(res.study.user_attrs[k]) is int for k in ('n_epoch', 'seed'))

@pytest.mark.parametrize('error', [PermissionError(13, 'Permission denied'), OSError(30, 'Read-only file system'), OSError(28, 'No space left')], ids=str)
def test_folder_that_cannot_be_made(tmp_path, error, monkeypatch):
    learn = digits(tmp_path)
    before = picture(learn)
    def no(*args, **kwargs): raise error
    monkeypatch.setattr(Path, 'mkdir', no)
    with pytest.raises(TuneError, match=r"cannot be written in .*learn\.path = .*learn\.model_dir"): learn.bayes_tune(1, lr, n_trials=1, **quick)
    assert same(before, picture(learn)) and files(tmp_path)==[]

@pytest.mark.parametrize('given', [True, False])
def test_storage_in_a_folder_that_cannot_be_written(tmp_path, monkeypatch, given):
    "`storage=` is named if it is given, otherwise the folder of the study"
    def no(path, *args): raise PermissionError(13, 'Permission denied', str(path))
    monkeypatch.setattr('fastai_bayes.study.storage.opened', no)
    error,match = (StudyError, "^storage: '.*s.log' cannot be opened .*Permission denied") if given else (TuneError, r'cannot be written in .*learn\.path = ')
    with pytest.raises(error, match=match): digits(tmp_path).bayes_tune(1, lr, n_trials=1, storage=tmp_path/'s.log' if given else None, **quick)
    assert files(tmp_path)==[]

@pytest.mark.parametrize('storage', ['/proc/none.log', '/proc/none/none.log'])
def test_study_in_a_folder_that_cannot_be_written(storage):
    with pytest.raises(StudyError, match=f"^storage: '{storage}' cannot be opened .*give a file where you may write"): open_study(lr, storage=storage, name='s')

@pytest.mark.parametrize('place', ['models', 'models/bayes', 'models/bayes/s'])
def test_file_in_the_place_of_the_folder(tmp_path, place):
    (tmp_path/place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path/place).write_text('mine')
    had = files(tmp_path)
    with pytest.raises(ValueError, match='models'): digits(tmp_path).bayes_tune(1, lr, n_trials=1, study_name='s', **quick)
    assert files(tmp_path)==had and (tmp_path/place).read_text()=='mine'

@pytest.fixture(scope='module')
def tuned(tmp_path_factory): return digits(tmp_path_factory.mktemp('tuned')).bayes_tune(2, lr, n_trials=3, pruner='none', **quick)

def kept(f):
    "`f` that leaves the process's random numbers alone"
    def inner(*args):
        with seeded(): return f(*args)
    return inner
def study_of(trial): return optuna.create_study()
space = dict(lr=(1e-3, .1))
ask = lambda: optuna.create_study().ask()
def ended():
    study = optuna.create_study()
    study.tell(study.ask(), 1.)
    return study.trials[0]
def reported(**kwargs):
    opt = BayesOptimizer(space, 3)
    return opt.report(**{'id': opt.next().id, 'epoch': 1, 'value': .5, **kwargs})
numbers,trials = [0, -1, .5, True, 'x', '3', [1], math.nan],[-1, 99, 1., '1', True, None, [0], math.nan, slice(1)]
wrong = {  # function of a value, of a result and of a folder; what is wrong; what it says
    'BayesOptimizer n_epoch': (lambda v, *o: BayesOptimizer(space, v), [o for o in numbers if o!=[1]]+[None], '^n_epoch: expected a whole number of 1 or more, got'),
    'BayesOptimizer range': (lambda v, *o: BayesOptimizer(space, v), [(0, 5), (2., 6.), ['a']], '^n_epoch: expected whole numbers of 1 or more'),
    'BayesOptimizer short': (lambda v, *o: BayesOptimizer(dict(space, n_epoch=(2, 9)), v), [3, 8], '^n_epoch: expected at least 9'),
    'BayesOptimizer seed': (lambda v, *o: BayesOptimizer(space, 3, seed=v), [-1, .5, True, 'x', [1]], '^seed: expected a whole number of 0 or more, got'),
    'BayesOptimizer mode': (lambda v, *o: BayesOptimizer(space, 3, mode=v), ['maximize', None, 3, ['max']], "^mode: expected 'max' or 'min', got"),
    'BayesOptimizer resume': (lambda v, *o: BayesOptimizer(space, 3, resume=v), ['no', None, 2], '^resume: expected True or False, got'),
    'BayesOptimizer cost': (lambda v, *o: BayesOptimizer(space, 3, cost=v), ['minutes', None, 3], "^cost: expected 'epochs' or 'seconds', got"),
    'BayesOptimizer acq': (lambda v, *o: BayesOptimizer(space, 3, acq=v), ['ei', None, 3, []], "^acq: expected 'logei' or"),
    'BayesOptimizer space': (lambda v, *o: BayesOptimizer(v, 3), [3, 'lr', [1], None, {}, {1: (0., 1.)}, dict(lr=3)], 'expected|empty'),
    'report id': (lambda v, *o: reported(id=v), trials, '^there is no trial'),
    'report epoch': (lambda v, *o: reported(epoch=v), [0, 4, 'x', None], 'epoch'),
    'report value': (lambda v, *o: reported(value=v), ['.5', 'x', [1, 2], b'1', 1j], 'expected a number'),
    'report seconds': (lambda v, *o: reported(seconds=v), [-1., '1', math.nan, math.inf], 'seconds'),
    'Space': (lambda v, *o: Space(v), [3, None, [1], 'lr', {1: (0., 1.)}, {None: [1]}, np.array([1])], 'expected'),
    'BayesSampler n_epoch': (lambda v, *o: BayesSampler(v), numbers, '^n_epoch: expected a whole number of 1 or more, got'),
    'BayesSampler seed': (lambda v, *o: BayesSampler(seed=v), [-1, .5, True, 'x'], '^seed: expected a whole number of 0 or more, got'),
    'BayesSampler space': (lambda v, *o: BayesSampler(space=v), [3, 'lr', [1], 0, np.array([1, 2])], '^space: expected a Space'),
    'BayesSampler space of names': (lambda v, *o: BayesSampler(space=v), [{1: (0., 1.)}], 'expected names of hyperparameters'),
    'BayesSampler empty space': (lambda v, *o: BayesSampler(space=v), [{}], '^the search space is empty'),
    'BayesSampler prior': (lambda v, *o: BayesSampler(prior=v), [3, 'x', [], 0, ['lr']], '^prior: expected a dictionary'),
    'BayesSampler cost': (lambda v, *o: BayesSampler(cost=v), ['minutes', 3], '^cost: expected'),
    'BayesSampler resume': (lambda v, *o: BayesSampler(resume=v), ['no', None, 1.], '^resume: expected True or False, got'),
    'BayesSampler acq': (lambda v, *o: BayesSampler(acq=v), ['ei', None, []], '^acq: expected'),
    'BayesPruner n_epoch': (lambda v, *o: BayesPruner(v), numbers, '^n_epoch: expected a whole number of 1 or more, got'),
    'BayesPruner resumable': (lambda v, *o: BayesPruner(resumable=v), ['no', 1, .5], '^resumable: expected True or False, got'),
    'BayesPruner n_startup': (lambda v, *o: BayesPruner(n_startup=v), ['x', -1, .5, True], '^n_startup: expected a whole number of 0 or more, got'),
    'BayesPruner space': (lambda v, *o: BayesPruner(space=v), [3, 'lr', [1]], '^space: expected a Space'),
    'callback trial': (lambda v, *o: BayesPruningCallback(v() if v in (ended, study_of) else v), [None, 3, 'x', optuna.create_study(), ended, optuna.trial.Trial],
                       '^trial: expected the argument of the objective'),
    'callback monitor': (lambda v, *o: BayesPruningCallback(ask(), v), [3, ['accuracy'], accuracy], '^monitor: expected a name'),
    'callback mode': (lambda v, *o: BayesPruningCallback(ask(), mode=v), ['maximize', 3, []], "'min' or 'max', got"),
    'callback n_epoch': (lambda v, *o: BayesPruningCallback(ask(), n_epoch=v), numbers, '^n_epoch: expected a whole number of 1 or more, got'),
    'open_study direction': (lambda v, *o: open_study(space, v), ['max', 'up', None, 3, ['maximize']], "^direction: expected 'minimize' or 'maximize', got"),
    'open_study name': (lambda v, *o: open_study(space, name=v), ['', ' ', 3, 'a\0b', 'x'*513, [1]], '^name: expected at most 512 printable'),
    'open_study storage': (lambda v, *o: open_study(space, storage=v), [3, '', [], b'x', '/', 'foo://x'], '^storage: '),
    'open_study sampler': (lambda v, *o: open_study(space, sampler=v), ['tpe', 3, TPESampler, BayesPruner()], '^sampler: expected an Optuna sampler'),
    'open_study pruner': (lambda v, *o: open_study(space, pruner=v), ['asha', 3, BayesPruner, BayesSampler()], '^pruner: expected an Optuna pruner'),
    'open_study space': (lambda v, *o: open_study(v), [3, 'lr', None, {1: [1]}], 'expected'),
    'TuneResult study': (lambda v, *o: TuneResult(v, Space(space)), [None, 3, 'x'], '^study: expected an Optuna study'),
    'TuneResult space': (lambda v, *o: TuneResult(optuna.create_study(), v), [None, 3, {}], '^space: expected a Space'),
    'TuneResult folder': (lambda v, *o: TuneResult(optuna.create_study(), Space(space), v), [3, []], '^folder: expected a path'),
    'TuneResult make': (lambda v, *o: TuneResult(optuna.create_study(), Space(space), None, v), [3, 'x'], '^make: expected a function'),
    'params_of': (lambda v, res, p: res.params_of(v), trials, '^n: expected the number of a trial, from 0 to 2, got'),
    'learner': (lambda v, res, p: res.learner(v), [o for o in trials if o is not None], '^n: expected the number of a trial, from 0 to 2, got'),
    'plot_trial': (lambda v, res, p: res.plot_trial(v), trials, '^n: expected the number of a trial, from 0 to 2, got'),
    'plot ax': (lambda v, res, p: [res.plot_history(v)], [3, 'x', [1]], '^ax: expected an axis per panel'),
    'plot_slice ax': (lambda v, res, p: res.plot_slice(v), [3, 'x', ['x']], '^ax: expected'),
    'plot_contour x': (lambda v, res, p: res.plot_contour(v, 'lr'), ['x', 3], 'is not a hyperparameter'),
    'plot_forecast most': (lambda v, res, p: res.plot_forecast(most=v), [0, 'x', 1.], '^most: expected a whole number'),
    'plot_timeline now': (lambda v, res, p: res.plot_timeline(now=v), ['x', 3], '^now: expected a local datetime'),
    'plotly': (lambda v, res, p: res.plotly(v), ['hist', 3, None, []], '^name: there is no plot'),
    'report': (lambda v, res, p: res.report(v), [3, '', None, [], 'a\0b', '.'], '^path: expected the name of a file'),
    'report to a folder': (lambda v, res, p: res.report(p/v), ['', '..'], '^path: .* is a folder; give a file in it'),
    'report below a file': (lambda v, res, p: [(p/'f').write_text(''), res.report(p/v)], ['f/r.html'], '^path: folder .* cannot be created'),
    'study of a function': (lambda v, *o: [f(v) for f in (plot_history, trial_frame)], [None, 3, 'x', optuna.trial.Trial], '^study: expected an Optuna study, got'),
    'default_space': (lambda v, *o: default_space(v), [None, 3, 'x', Learner], '^learn: expected a Learner'),
    'default_space lr_find': (lambda v, res, p: default_space(kept(digits)(p), v), ['no', None, 1], '^lr_find: expected True or False'),
}

@pytest.mark.parametrize('name', wrong)
def test_wrong_values(tmp_path, tuned, name):
    f,values,match = wrong[name]
    proc = process()
    for v in values:
        with pytest.raises(ValueError, match=match) as e: f(v, tuned, tmp_path)
        assert type(e.value).__module__.startswith('fastai_bayes'), (v, e.value)
    plt.close('all')
    assert process()==proc and [o for o in files(tmp_path) if o!='f']==[]

@pytest.mark.parametrize('f', [plot_history, plot_curves, plot_slice, plot_parallel, plot_choices, plot_importances, plot_timeline, plot_saved, plot_forecast,
                               plot_surrogate, plot_contour, trial_frame, curve_frame, lambda o: plot_trial(o, 0)])
def test_a_result_is_no_study(tuned, f):
    with pytest.raises(StudyError, match='study: expected an Optuna study, got .*a result has the study in .study'): f(tuned)

def test_report_makes_its_folder(tmp_path, tuned, monkeypatch):
    monkeypatch.setattr('fastai_bayes.results.report.plots', {})
    file = tuned.report(tmp_path/'none'/'deep'/'x.html')
    assert file==tmp_path/'none'/'deep'/'x.html' and '<h1>' in file.read_text()
    def no(*args, **kwargs): raise PermissionError(13, 'Permission denied')
    monkeypatch.setattr(Path, 'write_text', no)
    with pytest.raises(StudyError, match='^path: .*r.html.* cannot be written .*Permission denied'): tuned.report(tmp_path/'r.html')

def silent(learn, n_epoch, cbs, lr=.1): raise AssertionError
class Mute(Callback):
    def before_validate(self): raise AssertionError
def one_class(pred, targ): return math.nan
def one_class_raises(pred, targ): raise ValueError('Only one class present in y_true')
def nan_loss(pred, targ): return (pred*math.nan).sum()

def failure(path, learner=None, **kwargs):
    learn = digits(path, **(learner or {}))
    with pytest.raises(ValueError) as e: learn.bayes_tune(2, **{'space': lr, 'n_trials': 3, 'verbose': False, 'seed': 0, **kwargs})
    return str(e.value)

def test_failures_without_a_message_say_where(tmp_path):
    for kwargs in (dict(fit=silent), dict(cbs=Mute())):
        text = failure(tmp_path, **kwargs)
        assert 'AssertionError without a message in ' in text and 'raise AssertionError' in text and 'tuple index' not in text, text

def test_why_nothing_was_measured(tmp_path):
    assert 'one_class never had a finite value, although the loss had' in failure(tmp_path, dict(metrics=one_class), mode='max')
    assert 'Only one class present' in failure(tmp_path, dict(metrics=one_class_raises), mode='max')
    text = failure(tmp_path, dict(loss_func=nan_loss))
    assert 'NaN' in text or 'nan' in text, text
