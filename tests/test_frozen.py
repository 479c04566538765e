"""`cache_frozen`: trials are those of a training whose frozen layers are in evaluation mode, and these see each item once; nothing is cached
that would not be the same in each epoch"""
import matplotlib; matplotlib.use('agg')
import os, warnings
import pytest
from fastai.callback.training import BnFreeze
from test_every import killed
from tuning import *
from fastai_bayes.all import *

space = dict(lr=(1e-3, 1e-1, 'log'), bs=[16, 32])
args = dict(fit='fine_tune', freeze_epochs=3, pruner='none', **quick)

class Counted(nn.Conv2d):
    "Counts the items it sees"
    seen = 0
    def forward(self, x):
        Counted.seen += len(x)
        return super().forward(x)

def conv(width=8, head=16, p=0.):
    torch.manual_seed(0)
    body = nn.Sequential(Counted(1, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout(p), nn.Conv2d(width, head, 3))
    return nn.Sequential(body, create_head(head, 10, lin_ftrs=[32], ps=.5))

def pictures(path, tfm=None, **kwargs):
    "160 digits for training, 100 for validation"
    X = x.view(-1, 1, 8, 8)
    train = TfmdDL(TensorDataset(X[:160], y[:160]), bs=32, shuffle=True, drop_last=True, num_workers=0, after_batch=tfm)
    dls = DataLoaders(train, TfmdDL(TensorDataset(X[-100:], y[-100:]), bs=40, num_workers=0), path=path)
    return digits(path, dls, conv(), splitter=default_split, **kwargs)

def plain(path): return pictures(path, train_bn=False, cbs=BnFreeze()) # The same with fastai's means

def curves(res): return res.curves.sort_values(['number', 'epoch']).value.to_numpy()
def tune(learn, n=1, space=space, **kwargs): return learn.bayes_tune(n, space, **{**args, 'n_trials': 3, 'cache_frozen': True, **kwargs})

class Note(Callback):
    "Notes the loss of each batch, of all trials"
    all = []
    def after_batch(self): Note.all.append(self.learn.loss.item())

def losses(learn, **kwargs):
    Note.all.clear()
    tune(learn, cbs=Note(), **kwargs)
    return [*Note.all]

@pytest.mark.parametrize('kwargs', [{}, dict(every=.5), dict(cache_frozen=1e-6)], ids=['plain', 'parts of an epoch', 'too large for the cache'])
@pytest.mark.filterwarnings('ignore:cache_frozen')
def test_the_same_training(tmp_path, kwargs):
    "The loss of each batch, dropout in the head and order included, before and after the frozen stage"
    a = losses(plain(tmp_path/'a'), **{**kwargs, 'cache_frozen': False})
    b = losses(pictures(tmp_path/'b'), **kwargs)
    assert len(a)==len(b) and np.allclose(a, b, rtol=1e-3)
    frozen = 3*(160//32+3)  # the first trial has the learner's batch size
    assert np.allclose(a[:frozen], b[:frozen], rtol=1e-5)

def test_dropout_of_frozen_layers_is_off(tmp_path):
    "Until they train"
    learn = pictures(tmp_path/'a')
    learn.model = conv(p=.3)
    a,b = (losses(o, n_trials=1) for o in (learn, pictures(tmp_path/'b')))
    n = 3*(160//32+3)
    assert a[:n]==b[:n] and a[n]!=b[n]

def test_batch_norms_would_train(tmp_path):
    "Without `cache_frozen` fastai trains those of frozen layers: another training"
    assert not np.allclose(*(losses(pictures(tmp_path/str(o)), cache_frozen=o, n_trials=1)[:15] for o in (True, False)), rtol=1e-2)

def test_each_item_once(tmp_path):
    "Four trials of three epochs with two batch sizes need no more than one trial of one epoch: each item once, and the checks"
    learn = pictures(tmp_path)
    learn.freeze()
    def run(n_epoch, n_trials, **kwargs):
        Counted.seen = 0
        res = learn.bayes_tune(n_epoch, space, n_trials=n_trials, pruner='none', enqueue=[dict(bs=16)], **kwargs, **quick)
        return Counted.seen,res.trials
    (once,_),(seen,df) = run(1, 1, cache_frozen=True),run(3, 4, cache_frozen=True)
    assert len(set(df.bs))==2 and df.epochs.sum()==12 and seen==once>=160+100
    assert run(1, 2)[0]-run(1, 1)[0]==160+100  # without it every epoch

def test_all_is_as_before(tmp_path):
    learn = pictures(tmp_path)
    was,state = picture(learn),process()
    modes = [o.training for o in learn.model.modules()]
    res = tune(learn)
    assert was[2]==picture(learn)[2] and state==process() and modes==[o.training for o in learn.model.modules()]
    assert not {'get_idxs', 'randomize', 'drop_last_'}&vars(learn.dls.train).keys() and learn.dls.train.drop_last
    assert all(p.requires_grad for p in learn.model.parameters())
    with learn.no_bar(): assert learn.validate()[1]==pytest.approx(res.best_value, abs=1e-6)

class Dies(Callback):
    "Ends the process in batch `n`"
    order,count = 80,0
    def __init__(self, n): self.n = n
    def after_batch(self):
        Dies.count += self.training
        if Dies.count==self.n: os._exit(9)

@pytest.mark.parametrize('at', [8, 12, 17], ids=['second frozen epoch', 'third', 'after it'])
def test_killed(tmp_path, at):
    "The study ends as one that nobody disturbed"
    def run(path, *cbs): return tune(pictures(path), n_trials=2, study_name='s', cbs=[*cbs], space=dict(lr=space['lr']))
    want = run(tmp_path/'a')
    killed(lambda: run(tmp_path/'b', Dies(at)))
    res = run(tmp_path/'b')
    assert 'died' in ' '.join(t.user_attrs.get('reason', '') for t in res.study.trials)
    assert (curves(res)==curves(want)).all()

def test_several_bodies_and_sizes(tmp_path):
    "Each has features of its own: every trial is that of a study with this body and size only"
    def make(p):
        learn = pictures(tmp_path/'x')
        learn.model = conv(p['width'])
        big = ItemTransform(lambda b: (F.interpolate(b[0], p['side']), *b[1:]))
        learn.dls = DataLoaders(*(o.new(after_batch=big) for o in learn.dls.loaders))
        return learn
    grid = dict(width=[4, 8], side=[8, 12])
    all = [dict(width=w, side=s) for w in (4, 8) for s in (8, 12)]
    both = pictures(tmp_path/'a').bayes_tune(1, grid, new_learner=make, cache_frozen=True, n_trials=4, enqueue=all, **args)
    for p in all:
        alone = pictures(tmp_path/'b').bayes_tune(1, grid, new_learner=make, cache_frozen=True, n_trials=1, enqueue=[p], **args)
        n = int(both.trials[(both.trials.width==p['width']) & (both.trials.side==p['side'])].number.iloc[0])
        one = both.curves[both.curves.number==n].value.to_numpy()
        if n==0: assert (one==curves(alone)).all()  # later trials have other seeds
        assert len(one)==4
    assert len(set(both.trials.value))>1

def test_folds_keep_their_features(tmp_path):
    "Trials share those of a fold, although each builds its loaders anew"
    learn = pictures(tmp_path)
    learn.freeze()
    def run(n):
        Counted.seen = 0
        learn.bayes_tune(2, dict(lr=space['lr']), folds=2, cache_frozen=True, budget=n, pruner='none', **quick)
        return Counted.seen
    assert run(8)==run(16)

def test_memory_is_bounded(tmp_path):
    with pytest.warns(UserWarning, match='features of 160 items need .* GB, and the cache has 1e-06'):
        tune(pictures(tmp_path), cache_frozen=1e-6, n_trials=1)

noisy = ItemTransform(lambda b: (b[0]+torch.rand_like(b[0]), *b[1:]))
class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.body,self.head = conv()
    def forward(self, x): return self.head(self.body(x))

refused = {
    'augmentation': (lambda p: pictures(p, noisy), {}, LoaderError, 'different in each epoch'),
    'MixUp': (pictures, dict(cbs=MixUp()), TuneError, 'MixUp changes what the frozen layers see'),
    'mixup as a hyperparameter': (pictures, dict(space=dict(mixup=(0., 1.))), TuneError, 'mixup changes'),
    'nothing frozen': (pictures, dict(fit='fit_one_cycle', freeze_epochs=None), TuneError, 'fit_one_cycle freezes no layers'),
    'one group': (lambda p: digits(p), {}, TuneError, 'fine_tune freezes no layers'),
    'not a Sequential': (lambda p: digits(p, pictures(p).dls, Own(), splitter=lambda m: L(m.body, m.head).map(params)), {}, TuneError, 'got Own; wrap it'),
    'loaders of torch': (lambda p: digits(p, DataLoaders(*(torch.utils.data.DataLoader(o.dataset, 32) for o in pictures(p).dls.loaders), path=p), conv(),
                                          splitter=default_split), dict(space=dict(lr=space['lr'])), LoaderError, 'no loader of fastai')}

@pytest.mark.parametrize('case', refused)
def test_refused(tmp_path, case):
    "Before anything is written"
    make,kw,error,match = refused[case]
    kw = {k: v for k,v in {**args, 'n_trials': 1, **kw}.items() if v is not None}
    with pytest.raises(error, match=f'^cache_frozen: .*{match}'): make(tmp_path).bayes_tune(1, **{'space': space, **kw}, cache_frozen=True)
    assert not files(tmp_path)

def test_a_callback_that_changes_inputs(tmp_path):
    class Louder(Callback):
        def before_batch(self): self.learn.xb = (2*self.xb[0],)
    with pytest.raises(TuneError, match='a callback changes the inputs'): tune(pictures(tmp_path), cbs=Louder())

def test_a_study_keeps_it(tmp_path):
    "It is another training"
    for a,b in ((True, False), (False, True)):
        path = tmp_path/str(a)
        tune(pictures(path), n_trials=1, study_name='s', cache_frozen=a)
        with pytest.raises(StudyError, match='cache_frozen'): tune(pictures(path), n_trials=2, study_name='s', cache_frozen=b)
    assert len(tune(pictures(tmp_path/'True'), n_trials=2, study_name='s', cache_frozen=.5).trials)==2  # the memory may change

def test_workers(tmp_path):
    "Each has a cache of its own"
    a,b = (tune(pictures(tmp_path/str(n)), n_trials=2, workers=n, space=dict(lr=space['lr'])) for n in (1, None))
    assert (curves(a)==curves(b)).all()
