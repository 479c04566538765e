"Faults found by using it: one test an entry, and other members of its kind"
import matplotlib; matplotlib.use('agg')
import matplotlib.pyplot as plt, pytest, torch
import optuna, shutil
import sklearn.metrics as skm
from fastai.metrics import skm_to_fastai
from fastai_bayes.sampler import Books, horizon
from fastai_bayes.study import latest, state_of
from tuning import *
from fastai_bayes.all import *
from fastai_bayes.study import distributions
try: from fastai_bayes.axes import plain, told_apart
except ImportError: pass

lrs = dict(lr=(1e-3, 1e-1, 'log'))

# 1. Callback state changes its type on resume

# 2. Study and folder drift apart
def one(path, name='s', n=1, make=digits, **kwargs): return make(path).bayes_tune(1, lrs, **{**quick, 'n_trials': n, 'study_name': name, **kwargs})
def db(path, name): return f'sqlite:///{path}/{name}.db'
def tree(path): return {o: o.stat().st_mtime_ns for o in Path(path).rglob('*') if o.is_file() and '.lock' not in o.name}
def refused(path, match, error=StudyError, **kwargs):
    "The line is refused, and learner and disk are as before"
    learn,before = digits(path),tree(path)
    was = picture(learn)
    with pytest.raises(error, match=f'(?s){match}'): one(path, make=lambda path: learn, **kwargs)
    assert same(was, picture(learn)) and tree(path)==before

def test_one_name_with_two_storages(tmp_path):
    res = one(tmp_path, storage=db(tmp_path, 'a'))
    refused(tmp_path, 'not in this storage', storage=db(tmp_path, 'b'))
    assert not (tmp_path/'b.db').exists()
    assert one(tmp_path, storage=db(tmp_path, 'a')).best_value==res.best_value

def test_the_same_storage_and_another_folders_study(tmp_path):
    "Both exist, each with trials of its own"
    one(tmp_path/'1', storage=db(tmp_path, 'a')), one(tmp_path/'2', storage=db(tmp_path, 'b'))
    refused(tmp_path/'1', 'is not that of study .*id: expected', storage=db(tmp_path, 'b'))

def test_a_database_deleted_while_its_folder_stays(tmp_path):
    one(tmp_path, storage=db(tmp_path, 'a'))
    (tmp_path/'a.db').unlink()
    refused(tmp_path, 'not in this storage.*another study_name', storage=db(tmp_path, 'a'))

@pytest.mark.parametrize('left', [False, True])
def test_a_journal_deleted_while_its_folder_stays(tmp_path, left):
    one(tmp_path)
    log = tmp_path/'models/bayes/s/study.log'
    log.write_bytes(b'') if left else log.unlink()
    refused(tmp_path, 'not in this storage')

@pytest.mark.parametrize('copied', [False, True])
def test_a_folder_with_another_name(tmp_path, copied):
    one(tmp_path)
    bayes = tmp_path/'models/bayes'
    shutil.copytree(bayes/'s', bayes/'t') if copied else (bayes/'s').rename(bayes/'t')
    refused(tmp_path, "holds the study 's'.*Name it 's' again", name='t')
    if not copied: (bayes/'t').rename(bayes/'s')
    assert len(one(tmp_path, n=2).trials)==2

def test_a_folder_deleted_while_its_database_stays(tmp_path):
    one(tmp_path, storage=db(tmp_path, 'a'))
    shutil.rmtree(tmp_path/'models/bayes/s')
    refused(tmp_path, 'began in another folder, which is not here.*delete_study', storage=db(tmp_path, 'a'))
    assert not (tmp_path/'models/bayes/s').exists()

def test_a_folder_that_was_copied_and_one_that_was_moved(tmp_path):
    "With its own journal a copy is whole; where the database is shared, two would write to one study"
    one(tmp_path/'a', storage=db(tmp_path, 'a')), one(tmp_path/'j')
    shutil.copytree(tmp_path/'a', tmp_path/'b'), shutil.copytree(tmp_path/'j', tmp_path/'k')
    assert len(one(tmp_path/'k', n=2).trials)==2 and len(one(tmp_path/'j').trials)==1
    refused(tmp_path/'b', 'is a copy of', storage=db(tmp_path, 'a'))
    shutil.rmtree(tmp_path/'a')
    assert len(one(tmp_path/'b', n=2, storage=db(tmp_path, 'a')).trials)==2

def test_a_folder_id_that_was_damaged(tmp_path):
    one(tmp_path)
    (tmp_path/'models/bayes/s/folder.id').write_text('')
    refused(tmp_path, 'folder.id')

@pytest.mark.parametrize('storage', [None, 'a'])
def test_studies_without_an_id_still_open(tmp_path, storage):
    "As the version before made them"
    storage = storage and db(tmp_path, storage)
    study = one(tmp_path, storage=storage).study
    for k in ('id', 'place', 'setup'): study._storage.set_study_user_attr(study._study_id, k, None)
    res = one(tmp_path, n=2, storage=storage)
    assert len(res.trials)==2 and res.study.user_attrs['id']==(res.folder/'folder.id').read_text()

def test_a_study_of_optunas_own(tmp_path):
    "A folder is made for it; one that another study has used is not it"
    optuna.create_study(storage=db(tmp_path, 'a'), study_name='s', direction='maximize').enqueue_trial(dict(lr=.01))
    assert len(one(tmp_path, storage=db(tmp_path, 'a')).trials)==1
    optuna.create_study(storage=db(tmp_path, 'b'), study_name='s', direction='maximize')
    refused(tmp_path, 'do not belong together', storage=db(tmp_path, 'b'))

# 3. `storage=` on an ordinary file

# 4. A resumed epoch that cancels at once

# 5. A foreign study folder

# 6. A damaged `best.pth` of the winner

# 7. Not measured is not diverged
class Shown(Callback):
    "The recorded accuracy of epoch `n` of a fit, counted from 1, is `f(n)`"
    order = 51
    def __init__(self, f): self.f = f
    def after_epoch(self): self.recorder.values[-1][2] = self.f(self.epoch+1)

def every_third(n): return .5+n/100 if n%3==0 else None
missing = {'None in a warm-up': lambda n: None if n<3 else .5+n/100, 'NaN in a warm-up': lambda n: math.nan if n<3 else .5+n/100,
           'inf in epoch 1': lambda n: math.inf if n==1 else .5+n/100, 'every third': every_third, 'not at the end': lambda n: .5+n/100 if n<6 else math.nan}

@pytest.mark.parametrize('kind,pruner', [*zip(missing, ['median', 'asha', 'none', 'hyperband', None]), *(('every third', o) for o in ('asha', 'median', 'patient', None))])
def test_a_missing_value_is_no_divergence(tmp_path, kind, pruner):
    res = digits(tmp_path, cbs=Shown(missing[kind])).bayes_tune(6, lrs, n_trials=3, pruner=pruner, **quick)
    assert set(res.trials.state)<={'complete', 'stopped'} and res.trials.epochs.max()==6
    assert all(list(t.intermediate_values)==[*range(1, len(t.intermediate_values)+1)] for t in res.study.trials)
    whole = res.trials[res.trials.state=='complete']
    best = max((missing[kind](n), n) for n in range(1, 7) if is_number(missing[kind](n)))
    assert {*zip(whole.value, whole.best_epoch)}=={best} and not any('diverged' in t.user_attrs for t in res.study.trials)
    # nothing stops where nothing is known
    assert all(is_number(list(t.intermediate_values.values())[-1]) for t in res.study.trials if t.state.name=='PRUNED')

def is_number(v): return v is not None and math.isfinite(v)

class Lost(Callback):
    "The loss is NaN from epoch `at` on, for large learning rates"
    order = -11
    def __init__(self, at=1, train=True, valid=True): self.at,self.which = at,(valid, train)
    def after_loss(self):
        if self.which[self.training] and self.epoch+1>=self.at and self.opt.hypers[-1]['lr']>.014:
            self.learn.loss = self.loss*math.nan
            if all(self.which): self.learn.loss_grad = self.loss_grad*math.nan  # and with it the weights

def test_a_loss_that_is_no_number_is_divergence_whatever_the_metric_says(tmp_path):
    "Accuracy stays finite, as a network of NaN hits a class"
    kw = dict(fit='fit', n_trials=4, pruner='none', **quick)
    for at in (1, 3):
        res = digits(tmp_path/f'{at}', cbs=Lost(at)).bayes_tune(5, lrs, **kw)
        bad = res.trials[res.trials.lr>.014]
        assert 0<len(bad)<4 and set(bad.epochs)=={at} and set(bad.state)=={'failed' if at==1 else 'stopped'}  # at once
        assert set(bad.reason)=={f'diverged in epoch {at}: the loss is no finite number'} and (bad.best_epoch<at).all()
        assert set(res.trials[res.trials.lr<=.014].state)=={'complete'}

@pytest.mark.parametrize('part', ['train', 'valid'])
def test_one_loss_alone_is_no_divergence(tmp_path, part):
    "A bad last batch, as with fp16, after which all is well; a validation set with a bad item"
    lost = Lost(1, train=part=='train', valid=part=='valid')
    res = digits(tmp_path, cbs=lost).bayes_tune(2, lrs, fit='fit', n_trials=4, pruner='none', **quick)
    assert set(res.trials.state)=={'complete'} and (res.trials.epochs==2).all()

def test_a_loss_alone_that_is_not_there_in_an_epoch(tmp_path):
    "valid_loss is monitored, and NaN in epoch 1 with a finite loss in training"
    class Hole(Callback):
        order = 51
        def after_epoch(self):
            if self.epoch==0: self.recorder.values[-1][1] = math.nan
    res = digits(tmp_path, metrics=None, cbs=Hole()).bayes_tune(3, lrs, n_trials=3, pruner='none', **quick)
    assert set(res.trials.state)=={'complete'} and (res.trials.best_epoch>1).all()

def test_metrics_that_are_not_defined_in_a_warm_up(tmp_path):
    learn = digits(tmp_path, metrics=[skm_to_fastai(skm.precision_score, average='macro', labels=[77], zero_division=math.nan), accuracy])
    with pytest.raises(TuneError, match='never had a finite value'):  # after whole trainings: the loss is fine
        learn.bayes_tune(2, lrs, n_trials=3, mode='max', **quick)
    res = learn.bayes_tune(2, lrs, n_trials=2, monitor='accuracy', **quick)
    assert set(res.trials.state)=={'complete'}

def ends(T, curves, **kwargs):
    "What an `Optimizer` makes of curves: epochs after which it stops, and states"
    o,res = Optimizer(dict(x=(0., 1.)), T, seed=0, **kwargs),[]
    for curve in curves:
        t = o.next()
        for e,v in enumerate(curve[t.epoch:], t.epoch+1):
            o.report(t.id, e, v)
            if o.should_stop(t.id): break
        o.finish(t.id)
        res.append((o.trainings[t.id].epochs, o.trainings[t.id].state))
    return o,res

def test_the_optimizer_waits_for_the_next_value():
    nan = math.nan
    o,res = ends(4, [[.1, .2, .3, .4], [nan, .3, None, .5], [math.inf, None, .45, .6], [.59, .59, .59, nan], [None]*4], carry_on=False)
    assert [e for e,_ in res]==[4]*5 and [s for _,s in res]==['complete']*3+['failed']*2
    assert o.best[1:]==(.6, 4)
    o = Optimizer(dict(x=(0., 1.)), 9, seed=0)
    t = o.next()
    o.report(t.id, 4, .2); o.report(t.id, 8, .5)  # epochs between are missing
    assert o.trainings[t.id].epochs==8 and o.best[1:]==(.5, 8)
    o.report(t.id, 9, diverged=False); o.finish(t.id)
    assert o.trainings[t.id].state=='complete'
    t = o.next()
    o.report(t.id, 1, .9, diverged=True)
    assert o.should_stop(t.id) and o.decide(t.id).reason=='diverged'
    o.finish(t.id)
    assert o.trainings[t.id].state=='failed'

def reported(values, state='COMPLETE', x=.5, **kwargs):
    dist = dict(x=optuna.distributions.FloatDistribution(0, 1))
    value = dict(value=max(v for v in values.values() if v==v)) if state=='COMPLETE' else {}
    return optuna.trial.create_trial(state=getattr(optuna.trial.TrialState, state), params=dict(x=x), distributions=dist, intermediate_values=values, **value, **kwargs)

def seen_as(trials, n_epoch=None):
    "Trainings as `BayesSampler` sees them, and the epochs of a full one"
    s = optuna.create_study(direction='maximize', sampler=BayesSampler(n_epoch, seed=0))
    s.add_trials(trials)
    T = n_epoch or horizon(s.trials)
    return [(o.values(T).tolist(), o.failed) for o in Books.of(s).view(s, Space(dict(x=(0., 1.))), T)[0].trainings], T

def test_the_sampler_counts_epochs_however_they_are_reported():
    v,nan = [.1, .2, .3, .4],math.nan
    for steps in ([0, 1, 2, 3], [1, 2, 3, 4], [50, 100, 150, 200]): assert seen_as([reported(dict(zip(steps, v)))])==([(v, False)], 4)
    assert seen_as([reported({5: .1, 10: .2})], 10)[0][0][0]==pytest.approx([.1]*5+[.12, .14, .16, .18, .2])  # every fifth epoch
    assert seen_as([reported({100: .1, 200: .3})], 2)==([([.1, .3], False)], 2)  # batches
    assert seen_as([reported({1: nan, 2: nan, 3: .3, 4: nan, 5: .5})])[0]==[(pytest.approx([.3, .3, .3, .4, .5]), False)]
    kinds = dict(last=reported({1: .1, 2: nan}, 'PRUNED'), told=reported({1: .1, 2: nan}), cut=reported({1: .1, 2: nan}, 'PRUNED', user_attrs=dict(cut='budget')),
                 loss=reported({1: .1}, 'PRUNED', user_attrs=dict(diverged=1)))
    assert [bad for _,bad in seen_as(list(kinds.values()), 4)[0]]==[True, False, False, True]

def test_a_plain_study_with_gaps(tmp_path):
    "Every third epoch, some NaN, counted from 0 or 1: nobody is failed, and the pruner decides where there are values"
    for base in (0, 1):
        s = optuna.create_study(direction='maximize', sampler=BayesSampler(seed=0), pruner=BayesPruner())
        def objective(trial):
            x = trial.suggest_float('x', 0, 1)
            for e in range(12):
                v = (1-(x-.3)**2)*(1-.5**(e+1))
                trial.report(v if e%3==2 else math.nan, e+base)
                if trial.should_prune():
                    assert e%3==2
                    raise optuna.TrialPruned
            return v
        s.optimize(objective, 14)
        assert {t.state.name for t in s.trials}=={'COMPLETE', 'PRUNED'} and abs(s.best_params['x']-.3)<.05

# 8. The step is the epoch trained
class Counts(Callback):
    "Epochs trained, of all trainings"
    n,order = 0,-20
    def after_train(self): Counts.n += 1

class Skip(Callback):
    "Cancels `what` in two of three epochs"
    def __init__(self, event, what): self.event,self.what,self.order = event,what,45+10*(event=='before_epoch')  # the recorder comes first
    def __call__(self, event):
        if event==self.event and self.epoch%3!=2: raise self.what
        super().__call__(event)

skips = {'validation': lambda: Skip('before_validate', CancelValidException), 'epoch': lambda: Skip('after_train', CancelEpochException)}

@pytest.mark.parametrize('skip,pruner', [('validation', None), ('validation', 'median'), ('epoch', None), ('epoch', 'none')])
def test_limits_count_epochs_trained(tmp_path, skip, pruner):
    Counts.n = 0
    learn = digits(tmp_path)
    res = learn.bayes_tune(6, lrs, budget=24, pruner=pruner, cbs=[Counts(), skips[skip]()], **quick)
    assert Counts.n==24==res.trials.epochs.sum()
    assert all(e in (0, 3, 6) for e in res.trials.best_epoch) and res.best_epoch in (3, 6)
    assert abs(learn.validate()[1]-res.best_value)<1e-6 and '24 epochs' in str(res)

def test_an_epoch_that_is_not_trained_does_not_count(tmp_path):
    Counts.n = 0
    res = digits(tmp_path).bayes_tune(6, lrs, budget=8, pruner='none', cbs=[Counts(), Skip('before_epoch', CancelEpochException)], **quick)
    assert Counts.n==8==res.trials.epochs.sum()

def test_the_two_fits_of_fine_tune_count_on(tmp_path):
    Counts.n = 0
    res = digits(tmp_path).bayes_tune(4, lrs, fit='fine_tune', freeze_epochs=2, n_trials=2, pruner='none', cbs=[Counts(), skips['validation']()], **quick)
    assert Counts.n==12 and all(list(t.intermediate_values)==[1, 2, 3, 4, 5, 6] for t in res.study.trials)
    assert set(res.trials.best_epoch)=={5}  # the third of the second fit

def test_a_training_without_all_values_goes_on_where_it_was(tmp_path):
    whole = digits(tmp_path/'a').bayes_tune(6, lrs, n_trials=3, study_name='s', pruner='none', cbs=skips['validation'](), **quick)
    for budget in (4, 11, 18):
        Counts.n = 0
        res = digits(tmp_path/'b').bayes_tune(6, lrs, budget=budget, study_name='s', pruner='none', cbs=[Counts(), skips['validation']()], **quick)
        assert res.trials.epochs.sum()==budget
    assert Counts.n==7
    curves = lambda r: [[v for v in t.intermediate_values.values() if v==v] for t in latest(r.study.trials)][:3]
    assert curves(whole)==curves(res)

def test_a_saver_of_ones_own_keeps_the_right_epoch(tmp_path):
    "Where the metric is there in every third epoch only"
    res = digits(tmp_path, cbs=Shown(lambda n: .5+n/100 if n%3==0 else math.nan)).bayes_tune(
        6, lrs, n_trials=2, pruner='none', cbs=SaveModelCallback(monitor='accuracy'), **quick)
    assert set(res.trials.state)=={'complete'} and set(res.trials.best_epoch)=={6}

# 9. A hyperparameter without effect

# 10. Loaders of a class of one's own

from torch.utils.data import TensorDataset, WeightedRandomSampler

class Balanced(TfmdDL):
    "Draws as many items of each class; asks for the labels"
    def __init__(self, dataset, labels, **kw):
        self.w = 1/np.bincount(labels)[labels]
        super().__init__(dataset, **kw)
    def get_idxs(self): return list(np.random.choice(self.n, self.n, p=self.w/self.w.sum()))

class Maybe(TfmdDL):
    "The same, if labels are given"
    def __init__(self, dataset, labels=None, **kw):
        self.sampler = None if labels is None else WeightedRandomSampler(1/np.bincount(labels)[labels], len(labels))
        super().__init__(dataset, **kw)
    def get_idxs(self): return super().get_idxs() if self.sampler is None else list(self.sampler)

class HandsOn(Maybe):
    def __init__(self, dataset, labels=None, **kw):
        super().__init__(dataset, labels, **kw)
        self.labels,self.rand = labels,np.random.rand(3)
    def new(self, *args, **kw): return super().new(*args, **{'labels': self.labels, **kw})

class Plain(TfmdDL):
    "Its `get_idxs` needs nothing that could be lost"
    def get_idxs(self): return sorted(super().get_idxs(), key=lambda i: i%7)

def own(path, cls, labels=True, **kw):
    dls = loaders(path)
    if labels: kw['labels'] = y[:320].numpy()
    dls.loaders[0] = cls(dls.train_ds, bs=32, shuffle=True, drop_last=True, num_workers=0, **kw)
    return digits(path, dls)

def after_the_fact(path):
    learn = own(path, TfmdDL, False)
    learn.dls.train.weights = torch.rand(320)
    return learn

lossy = {'asks for labels': (lambda p: own(p, Balanced), 'missing 1 required positional'), 'loses them': (lambda p: own(p, Maybe), 'hand on sampler'),
         'after the fact': (after_the_fact, 'hand on weights')}
@pytest.mark.parametrize('name', lossy)
def test_a_loader_that_would_lose_something_keeps_its_batch_size(tmp_path, capsys, name):
    mk,why = lossy[name]
    learn = mk(tmp_path)
    dl,rng = learn.dls.train,process()[:4]
    with pytest.raises(LoaderError, match=why): learn.bayes_tune(1, dict(lrs, bs=[16, 32]), **quick)
    with pytest.raises(LoaderError, match=why): learn.bayes_tune(1, dict(bs=None), **quick)
    assert files(tmp_path)==[] and process()[:4]==rng
    res = learn.bayes_tune(1, n_trials=2, seed=0)
    out = capsys.readouterr().out
    assert 'bs is left out: the batch size stays 32' in out and why in out
    assert 'bs' not in res.best_params and learn.dls.train is dl and set(res.trials.state)<={'complete', 'stopped'}

@pytest.mark.parametrize('cls,labels', [(HandsOn, True), (Plain, False), (TfmdDL, False)])
def test_a_loader_that_keeps_everything(tmp_path, cls, labels):
    learn = own(tmp_path, cls, labels)
    learn.bayes_tune(1, dict(bs=[16, 64]), n_trials=2, enqueue=False, **quick)
    assert type(learn.dls.train) is cls and learn.dls.train.bs in (16, 64)
    if labels: assert learn.dls.train.labels is not None and learn.dls.train.sampler is not None

def test_what_changes_transforms_makes_loaders_anew_too(tmp_path):
    ims = TensorDataset(torch.rand(320, 3, 8, 8), y[:320])
    dls = DataLoaders(Maybe(ims, y[:320].numpy(), bs=32, num_workers=0, after_batch=aug_transforms(size=8)), TfmdDL(ims, bs=64, num_workers=0), path=tmp_path)
    learn = Learner(dls, nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)), loss_func=CrossEntropyLossFlat())
    for space in (dict(size=(8, 16)), dict(aug=(0., 2.))):
        with pytest.raises(LoaderError, match='hand on sampler'): learn.bayes_tune(1, space, **quick)

# 11. Data and `n_epoch` change under a study's name; `extend=True`
def sized(path, n=320): return digits(path, loaders(path, n))
def classes(path, *names):
    dls = loaders(path)
    dls.vocab = names
    return digits(path, dls)
def later(path, first, then, **kwargs):
    "A study that begins with `first` is opened again with `then`; learner and disk must be as before"
    one(path, make=first, **kwargs.pop('before', {}))
    learn,before = then(path),tree(path)
    was = picture(learn)
    try: return one(path, make=lambda path: learn, n=2, **kwargs)
    except StudyError: assert same(was, picture(learn)) and tree(path)==before; raise

changes = {
    'half the training set': (sized, lambda p: sized(p, 160), {}, '- training set: 320\n\\+ training set: 160'),
    'another validation set': (digits, lambda p: digits(p, DataLoaders(loaders(p).train, TfmdDL(TensorDataset(x[:50], y[:50]), bs=50), path=p)), {},
                               '- validation set: 100\n\\+ validation set: 50'),
    'one more class': (lambda p: classes(p, 'a', 'b'), lambda p: classes(p, 'a', 'b', 'c'), {}, '- classes: 2: a, b\n\\+ classes: 3: a, b, c'),
    'classes in another order': (lambda p: classes(p, 'a', 'b'), lambda p: classes(p, 'b', 'a'), {}, 'classes: 2: b, a'),
    'another model': (digits, lambda p: digits(p, model=net(20)), {}, r'- weights 0.weight: \(16, 64\).*\+ weights 0.weight: \(20, 64\)'),
    'another fit': (digits, digits, dict(fit='fit'), '- fit: fit_one_cycle\n\\+ fit: fit'),
    'another argument of the fit': (digits, digits, dict(pct_start=.5), r'\+ pct_start of the fit: 0.5'),
    'another metric': (lambda p: digits(p, metrics=[accuracy, error_rate]),)*2+(dict(monitor='error_rate'), '- monitor: accuracy'),
    'what the factory builds': (digits, digits, dict(before=dict(new_learner=lambda p: digits('.')), new_learner=lambda p: digits('.', model=net(20))),
                                r'\+ weights 0.weight: \(20, 64\)')}
@pytest.mark.parametrize('change', changes)
def test_what_changes_the_meaning_of_values_is_refused(tmp_path, change):
    first,then,kwargs,match = changes[change]
    with pytest.raises(StudyError, match=f'(?s){match}'): later(tmp_path, first, then, **kwargs)

def test_another_number_of_epochs_is_refused(tmp_path):
    one(tmp_path)
    with pytest.raises(StudyError, match='- n_epoch: 1\n\\+ n_epoch: 2'): digits(tmp_path).bayes_tune(2, lrs, n_trials=2, study_name='s', **quick)
    assert list(one(tmp_path).trials.epochs)==[1]

@pytest.mark.parametrize('change', [lambda p: digits(p, loaders(p, bs=16)), lambda p: digits(p, cbs=[MixUp()]), lambda p: digits(p, lr=.1),
    lambda p: digits(p, DataLoaders(*[dl.new(num_workers=1) for dl in loaders(p).loaders], path=p)), lambda p: digits(p, opt_func=SGD)])
def test_what_may_change(tmp_path, change):
    assert len(later(tmp_path, digits, change).trials)==2

# 12. The clock, bound fits, instances of samplers and pruners

# 13. Threads, nesting, and callbacks that change the state dict

# 14. Bit for bit with Optuna's samplers

# 15. Impossible combinations

# 16. Finite spaces

# 17. The probe takes one step

# 18. `$` in labels
hostile = [r'$\frac{a$', 'a$b', '$$', 'a_b^c', 'back\\slash', '{brace}', '100 %', 'x'*3000, '学習率', 'two\nlines', '🙂', '\x1b[31m', 'nul\0', '\ud800half', '<b>&amp;"',
           '_hidden', ' ', 'value', 'number', 'state', 'low', 'reason', 'curve', '‮bidi', r'\$5', '#1 ~ 2']

def odd_study(text, n=12):
    "A study in which everything that a user can name is called `text`, one in three trials stopped, one in six failed"
    space,rng = Space({text: [text, f'{text} 2'], f'{text}.lr': (1e-3, .1, 'log'), 'wd': (0., 1.)}),np.random.default_rng(0)
    study = open_study(space, name=text, monitor=text, n_epoch=4)
    for i in range(n):
        ok,state = i%6!=5,optuna.trial.TrialState
        curve = [float(v) for v in np.sort(rng.random(4 if i%3 else 2))]
        study.add_trial(optuna.trial.create_trial(params=space.labels(space.decode(rng.random(3))), distributions=distributions(space),
            state=state.FAIL if not ok else state.COMPLETE if i%3 else state.PRUNED, value=max(curve) if ok and i%3 else None,
            intermediate_values=dict(enumerate(curve, 1)) if ok else {}, user_attrs=dict(n_epoch=4, worker=text, reason=f'{text}: {text}')))
    return TuneResult(study, space)

plot_names = sorted(o for o in dir(TuneResult) if o.startswith('plot_'))
def drawn(res, name):
    ax = getattr(res, name)(*[5]*(name=='plot_trial'))
    fig = np.atleast_1d(ax).ravel()[0].figure
    fig.canvas.draw()
    return [o.get_text() for o in fig.findobj(matplotlib.text.Text) if o.get_text()]

@pytest.fixture
def closed():
    yield
    plt.close('all')

@pytest.mark.filterwarnings('ignore:Glyph')
@pytest.mark.parametrize('text', [r'$\frac{a$', ''.join(hostile[:16]), 'value'], ids=['math', 'all', 'column'])
def test_names_that_mean_something_elsewhere(text, closed):
    "What a user has named is shown as it is, in every plot and table"
    res = odd_study(text)
    texts = {name: drawn(res, name) for name in plot_names}
    assert plain(text, 22) in texts['plot_slice'] and plain(text, 22) in texts['plot_surrogate']
    assert len(set(res.trials.columns))==len(res.trials.columns) and res._repr_html_()
    assert not any(o in repr(res) for o in ('\n\n', '\x1b', '\0', '\ud800'))

@pytest.mark.filterwarnings('ignore:Glyph')
def test_every_name_can_be_drawn(closed):
    fig,ax = plt.subplots()
    for s in hostile: ax.text(0, 0, plain(s))
    ax.set_xticks(range(len(hostile)), told_apart(hostile))
    fig.canvas.draw()

@pytest.mark.parametrize('text', hostile, ids=ascii)
def test_tables_of_names_that_mean_something_elsewhere(text):
    res = odd_study(text, 6)
    assert len(set(res.trials.columns))==len(res.trials.columns)
    page = res._repr_html_()
    page.encode()
    assert '<b>&amp;"' not in page and not any(o in page+repr(res) for o in ('\x1b', '\0', '‮'))

def test_names_with_a_dollar_are_shown_with_it(closed):
    fig,ax = plt.subplots()
    for s in ('$x^2$', 'a$b', r'\$5', '$$'):
        t = ax.set_title(plain(s))
        assert t._preprocess_math(t.get_text())==(s, False)

def test_names_in_tex():
    with plt.rc_context({'text.usetex': True}): assert plain(r'a_b$\%')==r'a\_b\$\textbackslash{}\%'

def test_long_names_that_begin_alike_have_bars_of_their_own(closed):
    space,rng = Space({f'{"a"*30}{i}{"b"*30}': (0., 1.) for i in range(3)}),np.random.default_rng(0)
    study = open_study(space)
    for x in rng.random((8, 3)):
        study.add_trial(optuna.trial.create_trial(params=space.decode(x), distributions=distributions(space), value=float(x[0]+2*x[1])))
    ax = plot_importances(study)
    texts = [o.get_text() for o in ax.get_yticklabels()]
    assert len(set(texts))==3 and len({o.get_y() for o in ax.patches})==3

def test_report_of_names_that_mean_something_elsewhere(tmp_path, closed):
    page = odd_study(''.join(hostile)).report(tmp_path/'r.html').read_text(encoding='utf-8')
    assert 'failed:' not in page and page.count('<picture>')>=10 and '<b>&amp;"' not in page

def test_one_bad_picture_does_not_cost_the_page(tmp_path, monkeypatch, closed):
    from fastai_bayes import report
    def plot_bad(study):
        plt.figure()
        raise RuntimeError('no $ <paper> left')
    def plot_late(study):
        "Fails when it is drawn"
        ax = plt.figure().add_subplot()
        ax.set_title(r'$\frac{a$')
        return ax
    monkeypatch.setattr(report, '_plots', {plot_bad: 'Bad', plot_history: 'Good', plot_late: 'Late', plot_slice: 'Good, too'})
    before = plt.get_fignums()
    page = odd_study('arch').report(tmp_path/'r.html').read_text()
    assert '<h3>Bad</h3><p>plot_bad failed: RuntimeError: no $ &lt;paper&gt; left</p>' in page and 'plot_late failed: ' in page
    assert page.count('<picture>')==2 and '<h2>All trials</h2>' in page and plt.get_fignums()==before

# 19. Sizes that never end
@pytest.mark.parametrize('T', [3000, 10**6])
def test_long_trainings_cost_no_more_than_short_ones(T):
    import tracemalloc
    ends = sorted({*range(1, 9), *np.geomspace(9, T, 12).astype(int).tolist(), T})
    def value(x, e): return (1-(x-.3)**2)*(1-np.exp(-8*e/T))
    tracemalloc.start()
    o = Optimizer(dict(x=(0., 1.)), T, seed=0)
    for _ in range(12):
        t = o.next()
        for e in ends:
            if e<=t.epoch: continue
            o.report(t.id, e, value(t.params['x'], e))
            if o.should_stop(t.id): break
        o.explain(t.id)
        o.finish(t.id)
    s = optuna.create_study(direction='maximize', sampler=BayesSampler(T, seed=0), pruner=BayesPruner(T))
    def objective(trial):
        for e in ends:
            trial.report(value(trial.suggest_float('x', 0, 1), e), e)
            if trial.should_prune(): raise optuna.TrialPruned
        return value(trial.params['x'], e)
    s.optimize(objective, 14)
    assert any(t.state.name=='PRUNED' for t in s.trials) and abs(s.best_params['x']-.3)<.1 and o.best is not None
    assert tracemalloc.get_traced_memory()[1]<5e7
    tracemalloc.stop()

def test_a_plan_for_a_million_epochs(tmp_path):
    res = digits(tmp_path).bayes_tune(10**6, lrs, budget=2, **quick)
    assert res.trials.epochs.sum()==2

# 20. The recorder after tuning

# 21. The callback as a drop-in
def attached(trial, value, learn):
    cb = BayesPruningCallback(trial, 'accuracy')
    with learn.no_bar(), learn.no_logging(): learn.fit(4, trial.suggest_float('lr', 1e-3, .1), cbs=cb)
    return value(learn, cb)

class After2(optuna.pruners.BasePruner):
    def prune(self, study, trial): return trial.number%2==1 and len(trial.intermediate_values)==2

def test_a_stopped_trial_that_is_told_as_complete(tmp_path):
    "As by who swaps only the callback and keeps `return learn.validate()[1]`"
    study = optuna.create_study(direction='maximize', sampler=BayesSampler(4, seed=0), pruner=After2())
    with pytest.warns(UserWarning, match='trial 1 was stopped .* `return cb.value`') as w:
        study.optimize(lambda trial: attached(trial, lambda learn, cb: learn.validate()[1], digits(tmp_path)), 6)
    assert sum('return cb.value' in str(o.message) for o in w)==1
    assert [t.user_attrs.get('stopped') for t in study.trials]==[None, 2]*3
    view,_ = Books.of(study).view(study, Space(dict(lr=(1e-3, .1))), 4)
    assert [(o.state, len(o.values(4))) for o in view.trainings]==[('complete', 4), ('paused', 2)]*3
    assert [state_of(t) for t in study.trials]==['complete', 'stopped']*3

def test_cb_value_is_not_warned_of(tmp_path, recwarn):
    study = optuna.create_study(direction='maximize', sampler=BayesSampler(4, seed=0), pruner=After2())
    study.optimize(lambda trial: attached(trial, lambda learn, cb: cb.value, digits(tmp_path)), 4)
    assert [t.state.name for t in study.trials]==['COMPLETE', 'PRUNED']*2
    assert not [o for o in recwarn if 'cb.value' in str(o.message)]

# 22. Several hosts

# 23. What reading the code showed
