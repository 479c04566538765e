"A training that is carried on equals the one that was never interrupted"
import pytest, torch
from tuning import *
from fastai_bayes.learner import checkpoint
from fastai_bayes.learner.checkpoint import Checkpoint, CheckpointError, read
from fastai_bayes.learner.copies import seeded
from fastai_bayes.learner.loaders import seeded_loaders

class Noisy:
    "Digits with transforms that draw from all three random number generators"
    def __init__(self, n): self.n = n
    def __len__(self): return self.n
    def __getitem__(self, i):
        img = x[i].view(1, 8, 8)
        if random.random()<.5: img = img.flip(-1)
        return img*float(np.random.uniform(.8, 1.2))+.05*torch.randn(1, 8, 8), y[i]

def conv(): return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), Flatten(), nn.Dropout(.3), nn.Linear(144, 10))
def noisy(path):
    return DataLoaders(TfmdDL(Noisy(96), bs=32, shuffle=True, drop_last=True, num_workers=0), TfmdDL(Noisy(64), bs=32, num_workers=0), path=path)
def plain(path): return loaders(path, n=112)

kinds = {'plain': (plain, net, lambda: []), 'MixUp': (plain, net, lambda: [MixUp()]),
         'GradientAccumulation': (plain, net, lambda: [GradientAccumulation(48)]),  # 96 items an epoch: what is left over goes into the next one
         'augmentation': (noisy, conv, lambda: [])}
fits = {'fit': 3, 'fit_one_cycle': 3, 'fit_flat_cos': 3, 'fine_tune': 2}

class Watch(Callback):
    "Notes each batch and each learning rate; the process dies in epoch `dies`, at its end or in its middle"
    order,_stateattrs = 99,('dies', 'middle', 'seen')
    def __init__(self, dies=None, middle=False): self.dies,self.middle,self.epochs,self.seen = dies,middle,0,[]
    def before_batch(self):
        h = self.opt.hypers[-1]
        if self.training: self.seen.append((self.epochs, float(self.xb[0].double().sum()), h['lr'], h.get('mom')))
        if self.middle and self.iter==1 and self.epochs==self.dies: raise Died
    def after_epoch(self):
        self.epochs += 1
        if self.epochs==self.dies and not self.middle: raise Died
class Died(BaseException): pass

def train(path, fit, kind, dies=None, middle=False, **kwargs):
    make,model,cbs = kinds[kind]
    watch = Watch(dies, middle)
    with seeded(5):
        torch.manual_seed(5)
        learn = Learner(make(path), model(), loss_func=CrossEntropyLossFlat(), metrics=accuracy, path=path, model_dir='.',
                        splitter=lambda m: L(params(m[:1]), params(m[1:])), **kwargs)
        with seeded_loaders(learn.dls, 5), learn.no_bar(), learn.no_logging():
            getattr(learn, fit)(fits[fit], cbs=[SaveModelCallback(monitor='accuracy'), Checkpoint(Path(path)/'c.pt'), watch, *cbs()])
    return learn, watch

def weights(learn): return [p.clone() for p in learn.model.state_dict().values()]
def identical(a, b): return len(a)==len(b) and all(torch.equal(p, q) for p,q in zip(a, b))

@pytest.mark.parametrize('kind', kinds)
@pytest.mark.parametrize('fit', fits)
def test_carried_on_is_the_same_bit_for_bit(tmp_path, fit, kind, capsys):
    whole,seen = train(tmp_path/'whole', fit, kind)
    n = fits[fit]+(fit=='fine_tune')
    for dies in range(1, n):
        d = tmp_path/f'{dies}'
        with pytest.raises(Died): train(d, fit, kind, dies, middle=dies%2==0)
        learn,watch = train(d, fit, kind)
        assert identical(weights(whole), weights(learn))
        assert watch.seen==[o for o in seen.seen if o[0]>=dies]  # batches, learning rates and momentums of the epochs that were left
        assert identical(weights_saved(tmp_path/'whole'), weights_saved(d))
        assert equal(whole.opt.state_dict(), learn.opt.state_dict())

def weights_saved(d): return list(torch.load(d/'model.pth', weights_only=True).values())
def equal(a, b):
    if isinstance(a, torch.Tensor): return torch.equal(a, b)
    if isinstance(a, dict): return a.keys()==b.keys() and all(equal(v, b[k]) for k,v in a.items())
    return all(map(equal, a, b)) if isinstance(a, (list, tuple, L)) else a==b

@pytest.mark.parametrize('fit', fits)
def test_dies_before_a_checkpoint_is_written(tmp_path, fit, capsys, monkeypatch):
    "Callbacks have written the best weights of an epoch, its checkpoint is not there: the fit before must not end with these"
    usual,n = checkpoint.write,0
    def write(*args):
        nonlocal n
        n += 1
        if n==dies: raise Died
        usual(*args)
    monkeypatch.setattr(checkpoint, 'write', write)
    dies = 0
    whole,seen = train(tmp_path/'whole', fit, 'plain')
    for dies in range(1, n+1):
        n = 0
        with pytest.raises(Died): train(tmp_path/f'{dies}', fit, 'plain')
        again,rest = train(tmp_path/f'{dies}', fit, 'plain')
        assert identical(weights(whole), weights(again)) and seen.seen[-len(rest.seen):]==rest.seen
        assert identical(weights_saved(tmp_path/'whole'), weights_saved(tmp_path/f'{dies}'))

@pytest.mark.parametrize('opt', [SGD, partial(OptimWrapper, opt=torch.optim.AdamW), ranger, Lamb])
def test_optimizers(tmp_path, opt, capsys):
    whole,_ = train(tmp_path/'a', 'fit_flat_cos', 'plain', opt_func=opt)
    with pytest.raises(Died): train(tmp_path/'b', 'fit_flat_cos', 'plain', 2, opt_func=opt)
    assert identical(weights(whole), weights(train(tmp_path/'b', 'fit_flat_cos', 'plain', opt_func=opt)[0]))

class Levels(nn.Module):
    "The number of a gray level, from 0 to 16"
    def forward(self, x): return (16*(x-x.min())/(x.max()-x.min())).long()
def looked_up(): return nn.Sequential(nn.Sequential(Levels(), nn.Embedding(17, 4, sparse=True)), Flatten(), nn.Linear(256, 10))

def test_sparse_gradients(tmp_path, capsys, monkeypatch):
    "Those of the embedding, left over from the epoch before"
    monkeypatch.setitem(kinds, 'sparse', (plain, looked_up, lambda: [GradientAccumulation(48)]))
    opt = partial(OptimWrapper, opt=torch.optim.SGD)
    whole,_ = train(tmp_path/'a', 'fit', 'sparse', opt_func=opt)
    with pytest.raises(Died): train(tmp_path/'b', 'fit', 'sparse', 1, opt_func=opt)
    assert read(tmp_path/'b'/'c.pt')['gradients'][0].is_sparse
    assert identical(weights(whole), weights(train(tmp_path/'b', 'fit', 'sparse', opt_func=opt)[0]))

def test_twice_interrupted(tmp_path, capsys):
    whole,_ = train(tmp_path/'a', 'fine_tune', 'MixUp')
    for dies in (1, 2):
        with pytest.raises(Died): train(tmp_path/'b', 'fine_tune', 'MixUp', dies)
    assert identical(weights(whole), weights(train(tmp_path/'b', 'fine_tune', 'MixUp')[0]))

def test_trackers_go_on_counting(tmp_path, capsys):
    "Early stopping after two bad epochs in a row, one of them before the interruption"
    def fit(path, dies=None):
        path.mkdir(exist_ok=True)
        learn = digits(path, cbs=Curve(lambda lr, epoch: [.5, .4, .3, .9, .9][epoch]), model_dir='.')
        with learn.no_bar(), learn.no_logging():
            learn.fit(5, cbs=[EarlyStoppingCallback('accuracy', patience=2), Checkpoint(Path(path)/'c.pt'), Watch(dies)])
        return learn.epoch
    with pytest.raises(Died): fit(tmp_path, 2)
    assert fit(tmp_path)==2  # the third epoch, as without interruption
    assert fit(tmp_path/'b')==2

def test_fp16_scale_survives(tmp_path):
    "The state of a `GradScaler` goes through a checkpoint (without a GPU it is that of a stand-in)"
    class Scaler:
        scale = 1.
        def state_dict(self): return dict(scale=self.scale)
        def load_state_dict(self, o): self.scale = o['scale']
    class Precision(Callback):
        order = 10
        def before_fit(self): self.learn.scaler = Scaler()
        def after_batch(self):
            if self.training: self.learn.scaler.scale *= 2
        def after_fit(self): scales.append(self.learn.scaler.scale)
    scales = []
    def fit(path, dies=None):
        path.mkdir(exist_ok=True)
        learn = digits(path, cbs=Precision(), model_dir='.')
        with learn.no_bar(), learn.no_logging(): learn.fit(3, cbs=[Checkpoint(Path(path)/'c.pt'), Watch(dies)])
    fit(tmp_path/'a')
    with pytest.raises(Died): fit(tmp_path/'b', 2)
    fit(tmp_path/'b')
    assert scales==[2.**15]*2

def test_another_training_is_refused(tmp_path, capsys):
    with pytest.raises(Died): train(tmp_path, 'fit', 'plain', 1)
    with pytest.raises(CheckpointError, match='another model or optimizer'): train(tmp_path, 'fit', 'augmentation')

def test_nothing_in_a_checkpoint_can_run(tmp_path, capsys):
    "It is read with weights_only=True"
    with pytest.raises(Died): train(tmp_path, 'fit_one_cycle', 'MixUp', 1)
    state = torch.load(tmp_path/'c.pt', weights_only=True)
    assert state['epoch']==1 and state['done']==1
    torch.save(dict(state, callbacks=print), tmp_path/'c.pt')
    with pytest.raises(CheckpointError, match='damaged'): read(tmp_path/'c.pt')
