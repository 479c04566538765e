"What callbacks hold, weights and curves, through a resume: entries 1, 4, 5, 13 and 20 of what trying it found, kind by kind"
from tuning import *
from fastai_bayes.all import *
import collections, dataclasses, datetime, enum, io, itertools, os, threading, types, warnings
import matplotlib; matplotlib.use('agg')
import matplotlib.pyplot as plt, optuna, pandas as pd, pytest, torch
from fastai_bayes.learner.state import callback_state
import torch.nn.utils.prune
from collections import defaultdict

lrs = dict(lr=(1e-3, 1e-1, 'log'))

# 1. Callback state changes its type on resume
Point = collections.namedtuple('Point', 'epoch loss')
class Phase(enum.Enum): warm = 'warm'; hot = 'hot'
@dataclasses.dataclass
class Note: epoch:int = 0; tags:list = dataclasses.field(default_factory=list)
@dataclasses.dataclass(frozen=True)
class Fixed: epoch:int = 0
class Meter:
    def __init__(self): self.total = 0.
class Scaled(Meter):
    def __init__(self): self.total,self.f = 0.,abs
class Slots: __slots__ = 'a', 'b'
class Own(dict): pass
class Tally(collections.Counter): pass
class Last(collections.deque): pass

def beginning():
    "A bit of everything that a callback may hold, as it begins"
    return dict(array=np.zeros(3), row=np.float32(0), parameter=nn.Parameter(torch.zeros(2)), tensor=torch.zeros(2), image=None, by=defaultdict(list),
                nested=defaultdict(lambda: defaultdict(set)), count=collections.Counter(), ordered=collections.OrderedDict(), last=collections.deque(maxlen=2),
                seen=set(), frozen=frozenset(), point=None, note=Note(), fixed=Fixed(), dtype=np.dtype('float32'), kind=torch.float32, phase=Phase.warm,
                items=L(), space=types.SimpleNamespace(n=0), attrs=AttrDict(), raw=b'', data=bytearray(), when=None, took=datetime.timedelta(0),
                python=random.Random(1), numpy=np.random.default_rng(1), torch=torch.Generator().manual_seed(1), number=itertools.count(), meter=Scaled(),
                made=[], slots=Slots(), own=Own(), masked=None, objects=None, names=None, mixed={}, average=nn.Linear(2, 1, bias=False), z=1j, meters=defaultdict(Meter), tally=Tally(), few=Last(maxlen=2),
                legacy=np.random.RandomState(1), text=io.StringIO(), bytes=io.BytesIO(), averages=[nn.Linear(2, 1, bias=False)], by_name=dict(a=nn.Linear(2, 1, bias=False)), wide=torch.zeros(1).expand(3),
                pair=fastuple(0), titled=TitledInt(0), ns=NS(n=0))

def grown(o, i):
    "Change all of it, as a callback does in an epoch"
    with torch.no_grad(): o.parameter.add_(i), o.tensor.add_(i), o.average.weight.fill_(i)
    o.array += i
    o.row,o.image,o.frozen,o.point = o.row+np.float32(i),TensorImage(torch.full((1, 2, 2), float(i))),o.frozen|{(i, Phase.hot)},Point(i, np.float64(i))
    o.by[i].append(Point(i, .5)), o.nested['a'][i].add(i), o.count.update(a=i+1), o.last.append(np.int64(i)), o.seen.add(('a', i)), o.items.append((i, [i]))
    o.ordered[f'{9-i}'],o.space.n,o.attrs.n,o.raw,o.z = i,i,[i],o.raw+bytes([i]),o.z+i
    o.data.append(i)
    o.note.epoch,o.fixed,o.phase,o.kind,o.dtype = i,Fixed(i),Phase.hot,torch.float16,np.dtype('int8')
    o.note.tags.append(Fixed(i))
    o.when,o.took = datetime.datetime(2030, 1, 1+i, tzinfo=datetime.timezone.utc),o.took+datetime.timedelta(seconds=i)
    o.drawn = [o.python.random(), o.numpy.random(), torch.rand(1, generator=o.torch).item(), next(o.number)]
    o.meter.total += i
    o.meters[i].total += i
    o.made.append(Note(i))
    o.slots.a,o.own['x'] = i,[i]
    o.masked,o.objects,o.names = np.ma.masked_equal([1, i], i),np.array([Point(i, i), None], object),np.array(['a', 'bc'])
    o.tally.update('ab'), o.few.append(i), o.text.write('x'), o.bytes.write(b'y'), o.legacy.rand()
    with torch.no_grad(): o.averages[0].weight.fill_(i), o.by_name['a'].weight.fill_(i)
    o.wide,o.pair,o.titled,o.ns.n = torch.tensor([float(i)]).expand(3),fastuple(i, i),TitledInt(i),i
    o.mixed[i, 'k'] = [{Phase.hot: (np.arange(i), {i})}, collections.Counter('aab')]

def as_text(v):
    "Types and values of all that `v` holds"
    if isinstance(v, (torch.Tensor, np.ma.MaskedArray, np.ndarray)): return type(v).__name__,str(v.dtype),str(v.tolist()),getattr(v, 'requires_grad', None)
    if isinstance(v, random.Random): return v.getstate()
    if isinstance(v, np.random.RandomState): return str(v.get_state())
    if isinstance(v, (io.StringIO, io.BytesIO)): return v.getvalue()
    if isinstance(v, np.random.Generator): return str(v.bit_generator.state)
    if isinstance(v, torch.Generator): return v.get_state().tolist()
    if isinstance(v, nn.Module): return {k: as_text(p) for k,p in v.state_dict().items()}
    if isinstance(v, dict): return type(v).__name__,[(as_text(k), as_text(o)) for k,o in v.items()]
    if isinstance(v, (set, frozenset)): return type(v).__name__,sorted(map(repr, v))
    if isinstance(v, (list, tuple, L, collections.deque)): return type(v).__name__,getattr(v, 'maxlen', None),[as_text(o) for o in v]
    if isinstance(v, Slots): return v.a
    if isinstance(v, (Meter, Note, types.SimpleNamespace)): return type(v).__name__,as_text(vars(v))
    return type(v).__name__,repr(v)

class Holder(Callback):
    "Holds a bit of everything; what it has at the end of each training goes to `ends`"
    order,ends = 51,[]
    def __init__(self): vars(self).update(beginning())
    def before_fit(self): self.weight,self.view,self.twin,self.body = self.model[0].weight,self.model[3].weight.data[:2],self.seen,self.model[0]
    def after_epoch(self): grown(self, self.epoch)
    def after_fit(self):
        m = self.model
        assert self.weight is m[0].weight and self.body is m[0] and self.view.data_ptr()==m[3].weight.data_ptr() and self.twin is self.seen
        Holder.ends.append({k: as_text(v) for k,v in vars(self).items() if k not in ('learn', 'weight', 'view', 'twin', 'body')})

class Dies(BaseException): pass
class Die(Callback):
    "The process dies in epoch `at` of the first training, after callbacks of a lower `order`"
    done = False
    def __init__(self, at, order=99): self.at,self.order = at,order
    def after_epoch(self):
        if self.epoch+1==self.at and not Die.done:
            Die.done = True
            raise Dies

def died(path, at=2, order=99, n=4, cbs=(), **kwargs):
    "A study of one training whose process dies after epoch `at`, and is run again"
    Die.done = False
    args = dict(n_trials=1, study_name='s', cbs=[*cbs, Die(at, order)], **kwargs, **quick)
    with pytest.raises(Dies): digits(path).bayes_tune(n, lrs, **args)
    learn = digits(path)
    return learn,learn.bayes_tune(n, lrs, **args)

def test_whatever_a_callback_holds_is_the_same_after_a_resume(tmp_path, recwarn):
    Holder.ends = []
    digits(tmp_path/'a').bayes_tune(4, lrs, n_trials=1, cbs=Holder(), **quick)
    _,res = died(tmp_path/'b', cbs=[Holder()])
    assert res.trials.epochs.tolist()==[4] and 'resumed' in res.trials.reason[0]
    whole,again = Holder.ends
    assert {k: (whole[k], again[k]) for k in whole if whole[k]!=again[k]}=={} and whole.keys()==again.keys()
    assert not [o for o in recwarn if 'checkpoint' in str(o.message)]

def test_files_are_opened_again_or_shared(tmp_path, recwarn):
    "Those that a callback opens for each training, and one that it has from the start"
    class Lines(Callback):
        order = 51
        def __init__(self, path): self.file = open(path, 'a')
        def after_epoch(self): print(self.epoch, file=self.file, flush=True)
    died(tmp_path, cbs=[CSVLogger(), lines := Lines(tmp_path/'lines.txt')], at=2)
    assert not [o for o in recwarn if 'checkpoint' in str(o.message)] and not lines.file.closed
    assert (tmp_path/'lines.txt').read_text().split()==['0', '1', '2', '3']
    assert len((tmp_path/'models/bayes/s/trial_0/history.csv').read_text().splitlines())==5

def test_a_thread_that_has_ended_holds_nothing(tmp_path):
    "The attribute is as before the training, without a warning; one that is still at work is named"
    class Uploads(Callback):
        order,has = 51,[]
        def __init__(self): self.last,self.now,self.n = None,None,0
        def before_epoch(self): self.has.append((self.epoch, self.last, self.n))
        def after_epoch(self):
            self.last,self.now,self.n = threading.Thread(target=bool),threading.Thread(target=go.wait),self.n+1
            for o in (self.last, self.now): o.start()
            self.last.join()
    go = threading.Event()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter('always')
        try: died(tmp_path, cbs=[Uploads()])
        finally: go.set()
    said = [str(o.message) for o in seen if 'from the checkpoint' in str(o.message)]
    assert len(said)==1 and 'Uploads.now' in said[0] and 'Uploads.last' not in said[0]
    assert (2, None, 2) in Uploads.has

class Packed:
    "Keeps its state in a format of its own, as an image does"
    def __init__(self, n): self.n = n
    def __getstate__(self): return [self.n]
    def __setstate__(self, o): self.n, = o

@pytest.mark.parametrize('from_start', [True, False])
def test_files_images_and_figures(tmp_path, from_start):
    "They are made again by the callback, or named in a warning; the training goes on where it was"
    from fastai.vision.core import Image
    class Draws(Callback):
        order,had = 51,[]
        def __init__(self): self.image = self.packed = self.file = self.figure = None
        def make(self, n): self.image,self.packed,self.file,self.figure = Image.new('L', (2, 2), n),Packed(n),open(tmp_path/'a.txt', 'a'),plt.figure()
        def before_fit(self):
            if from_start: self.make(0)
        def before_epoch(self): self.had.append((self.epoch, self.image is None, self.packed is None))
        def after_epoch(self):
            if not from_start: self.make(self.epoch)
            print(self.epoch, file=self.file, flush=True)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter('always')
        _,res = died(tmp_path, cbs=[Draws()])
    plt.close('all')
    none = not from_start
    assert Draws.had==[(0, none, none), (1, False, False), (2, none, none), (3, False, False)] and (tmp_path/'a.txt').read_text().split()==['0', '1', '2', '3']
    said = ' '.join(str(o.message) for o in seen if 'from the checkpoint' in str(o.message))
    assert [f'Draws.{o} ' in said for o in ('image', 'packed', 'file', 'figure')]==[none]*4, said
    assert res.trials.reason.tolist()==['resumed after 2 epochs']

def test_what_cannot_be_kept_is_named_once(tmp_path):
    class Odd(Callback):
        order = 51
        def __init__(self): self.f,self.same,self.steps,self.out,self.parts,self.table = None,[abs],iter(range(99)),Path('a'),[],None
        def after_epoch(self):
            self.f,self.out,self.table = (lambda: 1),Path('b'),pd.DataFrame(dict(a=[1]))
            self.parts.append(Path('c'))
            next(self.steps)
        def after_fit(self): ends.append((self.f, str(self.out), self.parts))
    ends = []
    with warnings.catch_warnings(record=True) as w:
        warnings.simplefilter('always')
        _,res = died(tmp_path, at=4, cbs=[Odd()])
    said = sorted(str(o.message) for o in w if 'checkpoint' in str(o.message))
    assert [o.split(' ')[0] for o in said]==['Odd.f', 'Odd.out', 'Odd.parts', 'Odd.steps', 'Odd.table'] and res.trials.state.tolist()==['complete']
    assert ends==[(None, 'a', [])]

@pytest.mark.parametrize('attr,bad', [('fname', 'x'), ('log_dir', 'x'), ('target', '../../x'), ('target', '/x'), ('names', ['/x']), ('names', [b'../x'])])
def test_no_path_comes_from_a_checkpoint(tmp_path, attr, bad):
    class Saver(Callback):
        order = 51
        def __init__(self): vars(self)[attr] = None
        def after_fit(self): ends.append(vars(self)[attr])
    class Foreign(Saver):
        def after_epoch(self): self.__dict__[attr] = bad
    ends,Foreign.__name__,Die.done = [],'Saver',False
    with pytest.raises(Dies): digits(tmp_path).bayes_tune(3, lrs, n_trials=1, study_name='s', cbs=[Foreign(), Die(3)], **quick)
    with pytest.warns(UserWarning, match=f'Saver.{attr} is not restored'):
        digits(tmp_path).bayes_tune(3, lrs, n_trials=1, study_name='s', cbs=[Saver()], **quick)
    assert ends[0]!=bad

def nested(n): return [nested(n-1)] if n else 1
class Calls:
    "What a pickle does that is read with its code"
    def __reduce__(self): return os.mkdir, ('ran',)
def whole(o):
    "A checkpoint with this in the place of all that callbacks held"
    file = io.BytesIO()
    torch.save({'SaveModelCallback 0': dict(best=o)}, file)
    return lambda s: s.update(callbacks=torch.frombuffer(file.getbuffer(), dtype=torch.uint8))

crafted = dict(
    calls=whole(Calls()), class_=whole(Path('/x')), old=lambda s: s.update(memory={'SaveModelCallback 0': dict(fname='x')}, callbacks={}),
    noise=lambda s: s.update(callbacks=torch.arange(9, dtype=torch.uint8)), random=lambda s: s.update(random=dict(a=3)),
    curves=lambda s: s.update(curves=dict(lrs=3)))
swapped = dict(fname=dict(fname='../../../../precious'), method=dict(after_fit=1), deep=dict(best=nested(100)))
@pytest.mark.parametrize('how', swapped)
def test_a_saver_that_was_told_something_else(tmp_path, how, monkeypatch):
    "What a checkpoint says about a callback leaves its methods and its names of files alone"
    def state(learn):
        saver = learn.save_model
        before = dict(vars(saver))
        vars(saver).update(swapped[how])
        try: return callback_state(learn)
        finally:
            vars(saver).clear()
            vars(saver).update(before)
    Die.done,args = False,dict(n_trials=1, study_name='s', cbs=[SaveModelCallback('accuracy'), Die(2)], **quick)
    with monkeypatch.context() as m, pytest.raises(Dies):
        m.setattr('fastai_bayes.learner.checkpoint.callback_state', state)
        digits(tmp_path).bayes_tune(3, lrs, **args)
    res = digits(tmp_path).bayes_tune(3, lrs, **args)
    assert res.trials.state.tolist()==['complete'] and res.trials.epochs.tolist()==[3]
    assert sorted(o.name for o in tmp_path.rglob('*.pth'))==['best.pth', 'model.pth']

@pytest.mark.parametrize('how', crafted)
def test_a_crafted_checkpoint(tmp_path, how):
    "Nothing outside is written, and the trial ends"
    (tmp_path/'precious.pth').write_text('precious')
    Die.done,args = False,dict(n_trials=1, study_name='s', cbs=[SaveModelCallback('accuracy'), Die(2)], **quick)
    with pytest.raises(Dies): digits(tmp_path).bayes_tune(3, lrs, **args)
    file = tmp_path/'models/bayes/s/trial_0/checkpoint.pt'
    state = torch.load(file, weights_only=True)
    crafted[how](state)
    torch.save(state, file)
    res = digits(tmp_path).bayes_tune(3, lrs, **args)
    assert res.trials.state.tolist()==['complete'] and res.trials.epochs.tolist()==[3]
    assert not list(Path().glob('ran')) and sorted(o.name for o in tmp_path.rglob('*.pth'))==['best.pth', 'model.pth', 'precious.pth'] and (tmp_path/'precious.pth').read_text()=='precious'

def test_things_that_hold_one_another(tmp_path):
    "Lists that hold themselves, callbacks that share a list, weights that are changed behind autograd's back"
    class Watched(Callback):
        order = 51
        def __init__(self):
            self.rows,self.mean,self.me = [],nn.Linear(2, 1),self
            self.ring = [self.rows]
            self.ring.append(self.ring)
        def after_epoch(self):
            self.rows.append(self.epoch)
            for p in self.mean.parameters(): p.data.fill_(self.epoch)
    class Reader(Callback):
        order = 52
        def __init__(self, other): self.other,self.rows = other,other.rows
        def after_fit(self):
            o = self.other
            ends.append((o is self.learn.watched, self.rows is o.rows is o.ring[0], o.ring[1] is o.ring, o.me is o, self.rows, o.mean.bias.item()))
    ends,w = [],Watched()
    died(tmp_path, cbs=[w, Reader(w)])
    assert ends==[(True, True, True, True, [0, 1, 2, 3], 3.)]

# 4. A resumed epoch that cancels at once
class Sets(Callback):
    "Sets things up in `where`, and needs them when a fit ends or is cancelled"
    order,_stateattrs = 1,('tool',)
    def __init__(self, where): self.where,self.open = where,0
    def __getattr__(self, k):
        if k=='tool': raise AttributeError('no tool')
        return super().__getattr__(k)
    def _set(self, where):
        if where==self.where: self.__dict__['tool'],self.open = object(),self.open+1
    def before_fit(self): self._set('before_fit')
    def before_epoch(self): self._set('before_epoch')
    def before_train(self): self._set('before_train')
    def before_validate(self): self._set('before_validate')
    def after_cancel_fit(self): self.tool
    def after_fit(self): self.tool

class Half(MixedPrecision):
    "Mixed precision on the CPU, with what sets it up and puts it away"
    def before_fit(self): self.autocast,self.learn.scaler,self.scales = torch.autocast('cpu', torch.bfloat16),torch.amp.GradScaler('cpu', enabled=False),L()

many = dict(mixup=MixUp, accumulation=lambda: GradientAccumulation(64), half=Half, fit=lambda: Sets('before_fit'), epoch=lambda: Sets('before_epoch'),
            train=lambda: Sets('before_train'), validate=lambda: Sets('before_validate'))
@pytest.mark.parametrize('kind', many)
@pytest.mark.parametrize('fit', ['fit_one_cycle', 'fine_tune'])
def test_a_resumed_epoch_that_stops_at_once(tmp_path, kind, fit):
    "The process dies between checkpoint and `EarlyStoppingCallback`, in the epoch in which that stops the training"
    stop = EarlyStoppingCallback('accuracy', min_delta=10, patience=2)
    _,res = died(tmp_path, at=3, order=62.9, n=5, cbs=[many[kind](), stop], fit=fit)
    assert res.trials.state.tolist()==['complete'] and res.trials.epochs.tolist()==[3 if fit=='fit_one_cycle' else 4]

@pytest.mark.parametrize('kind', many)
def test_a_fit_that_was_over_ends_well(tmp_path, kind):
    "The process dies after the last checkpoint; and a finished fit of `fine_tune` does not happen again"
    _,res = died(tmp_path/'a', at=3, n=3, cbs=[many[kind]()])
    assert res.trials.state.tolist()==['complete'] and res.trials.epochs.tolist()==[3]
    _,res = died(tmp_path/'b', at=2, n=3, cbs=[many[kind]()], fit='fine_tune')
    assert res.trials.state.tolist()==['complete'] and res.trials.epochs.tolist()==[4]

def test_a_limit_or_the_pruner_that_stops_a_resumed_epoch(tmp_path):
    class Never(optuna.pruners.BasePruner):
        def prune(self, study, trial): return trial.last_step==2
    _,res = died(tmp_path, at=2, order=62.45, cbs=[MixUp(), Sets('before_train')], pruner=Never())
    assert res.trials.state.tolist()==['stopped'] and res.trials.epochs.tolist()==[2]

def test_events_of_the_epoch_that_stops_leave_what_callbacks_hold(tmp_path):
    class Counts(Callback):
        order = 1
        def __init__(self): self.epochs,self.trains,self.losses = 0,0,[]
        def before_epoch(self): self.epochs += 1
        def before_train(self): self.trains,self.losses = self.trains+1,[]
        def after_batch(self): self.losses.append(1.)
        def after_train(self): sum(self.losses)/len(self.losses)
        def after_fit(self): ends.append((self.epochs, self.trains, len(self.losses), self.learn.model.training, type(self.learn.loss_func).__name__))
    ends = []
    digits(tmp_path/'a').bayes_tune(5, lrs, n_trials=1, cbs=[Counts(), MixUp(), EarlyStoppingCallback('accuracy', min_delta=10, patience=2)], **quick)
    died(tmp_path/'b', at=3, order=62.9, n=5, cbs=[Counts(), MixUp(), EarlyStoppingCallback('accuracy', min_delta=10, patience=2)])
    assert ends[0]==ends[1]

# 5. A foreign study folder
def test_savers_with_an_optimizer_and_groups_still_load(tmp_path):
    learn = digits(tmp_path, splitter=lambda m: L(params(m[:2]), params(m[2:])))
    res = learn.bayes_tune(2, lrs, n_trials=2, fit='fine_tune', cbs=SaveModelCallback('accuracy', with_opt=True), pruner='none', **quick)
    assert res.trials.state.tolist()==['complete']*2

# 13. Threads, nesting, and callbacks that change the state dict
def test_a_study_within_a_callback(tmp_path, capsys):
    class Inner(Callback):
        order = 51
        def after_epoch(self): ends.append(digits(tmp_path/f'c{len(ends)}').bayes_tune(1, lrs, n_trials=1, **quick).best_value)
    ends,plain = [],digits(tmp_path/'e').bayes_tune(2, lrs, n_trials=2, pruner='none', **quick)
    learn = digits(tmp_path/'d')
    before = process()
    nested = learn.bayes_tune(2, lrs, n_trials=2, cbs=[Inner(), SaveModelCallback('accuracy')], pruner='none', **quick)
    assert len(ends)==4 and process()==before and capsys.readouterr().out==''
    assert nested.trials.value.tolist()==plain.trials.value.tolist()  # the inner study has drawn none of its numbers

def test_changes_to_the_process_in_any_order():
    from fastai_bayes.learner.copies import seeded
    from fastai_bayes.study.storage import quiet_optuna
    before = process()
    for f in (quiet_optuna, lambda: seeded(3)):
        go = [threading.Event() for _ in range(3)]
        def other():
            go[0].wait(9)
            with f():
                go[1].set()
                go[2].wait(9)
        t = threading.Thread(target=other)
        t.start()
        with f():
            go[0].set()
            go[1].wait(9)
        go[2].set()
        t.join()
        assert process()==before

def test_first_ctrl_c_reaches_the_outer_study(tmp_path, keyboard):
    class Inner(Callback):
        order = 51
        def after_epoch(self):
            if not ends: ends.append(digits(tmp_path/'in').bayes_tune(3, lrs, n_trials=3, cbs=Stop(), **quick))
    class Stop(Callback):
        order = 51
        def after_epoch(self): os.kill(os.getpid(), signal.SIGINT)
    ends,learn = [],digits(tmp_path)
    before = process()
    res = learn.bayes_tune(3, lrs, n_trials=3, cbs=Inner(), **quick)
    assert ends[0].trials.epochs.tolist()==[1] and res.trials.epochs.tolist()==[1] and process()==before

class Changes(Callback):
    "Changes the names in the state of the model before epoch `at`, and perhaps back after the fit"
    order = 1
    def __init__(self, kind, at=1): self.kind,self.at = kind,at
    def before_fit(self):
        if self.at is None: self.change()
    def before_epoch(self):
        if self.epoch==self.at: self.change()
    def change(self):
        m,k = self.model[0],self.kind
        if k.startswith('mask') and not hasattr(m, 'mask'): m.register_buffer('mask', torch.ones_like(m.weight))
        elif k=='norm': torch.nn.utils.parametrizations.weight_norm(m)
        elif k=='old norm': torch.nn.utils.weight_norm(m)
        elif k=='prune': torch.nn.utils.prune.l1_unstructured(m, 'weight', 9)
        elif k=='average': self.learn.model = torch.optim.swa_utils.AveragedModel(self.model)
        elif k.startswith('wrap'): self.learn.model = nn.ModuleDict(dict(a=nn.Identity(), b=self.model)); self.model.forward = self.model['b'].forward
    def after_fit(self):
        if self.kind=='mask off': del self.model[0].mask
        if self.kind=='wrap off': self.learn.model = self.model['b']

@pytest.mark.parametrize('kind', ['mask', 'mask off', 'norm', 'old norm', 'prune', 'average'])
def test_the_best_weights_fit_whatever_callbacks_add(tmp_path, kind, recwarn):
    learn = digits(tmp_path)
    res = learn.bayes_tune(3, lrs, n_trials=2, cbs=Changes(kind), pruner=optuna.pruners.NopPruner(), **quick)
    assert res.trials.state.tolist()==['complete']*2 and list(learn.model.state_dict())==list(net().state_dict())
    with learn.no_bar(): assert abs(learn.validate()[1]-res.best_value)<1e-6
    assert not [o for o in recwarn if 'weights' in str(o.message)]

@pytest.mark.parametrize('kind,left', [('wrap off', 'the last ones are kept'), ('wrap', 'those of an earlier epoch are kept')])
def test_weights_that_do_not_fit_cost_no_trial(tmp_path, kind, left):
    learn = digits(tmp_path, cbs=Curve(lambda lr, epoch: epoch/9))
    with pytest.warns(UserWarning, match=left):
        res = learn.bayes_tune(3, lrs, n_trials=2, cbs=Changes(kind), pruner=optuna.pruners.NopPruner(), **quick)
    assert res.trials.state.tolist()==['complete']*2 and res.best_epoch==3

@pytest.mark.parametrize('kind,at,ends', [('mask', 1, 'complete'), ('mask', None, 'complete'), ('norm', None, 'complete'), ('norm', 1, 'stopped'),
                                          ('prune', 1, 'stopped'), ('average', 1, 'stopped')])
def test_a_changed_model_is_resumed_or_the_trial_counts(tmp_path, kind, at, ends):
    learn,res = died(tmp_path, at=3, cbs=[Changes(kind, at)])
    assert res.trials.state.tolist()==[ends] and res.trials.epochs.tolist()==[4 if ends=='complete' else 3]
    assert ends=='complete' or 'a callback changes the parameters' in res.trials.reason[0]
    with learn.no_bar(): assert abs(learn.validate()[1]-res.best_value)<1e-6

# 20. The recorder after tuning
def test_the_recorder_of_a_resumed_winner_has_all_epochs(tmp_path):
    learn,_ = died(tmp_path, at=2)
    assert len(learn.recorder.values)==4 and len(learn.recorder.losses)==20==len(learn.recorder.hps['lr'])
    fresh = digits(tmp_path)
    fresh.bayes_tune(4, lrs, n_trials=1, study_name='s', **quick)
    assert fresh.recorder.values==learn.recorder.values

def test_a_second_run_says_where_it_starts(tmp_path, capsys):
    learn,said = digits(tmp_path),'every trial starts from its current weights'
    learn.lr_find(show_plot=False)
    learn.bayes_tune(1, lrs, n_trials=1, seed=0, study_name='a')
    assert said not in capsys.readouterr().out
    learn.bayes_tune(1, lrs, n_trials=1, seed=0, study_name='a')
    assert said not in capsys.readouterr().out  # the study goes on from where it began
    learn.bayes_tune(1, lrs, n_trials=1, seed=0, study_name='b')
    assert said in capsys.readouterr().out

class Foreign(list): "Of a package that the callback's module does not know"
Foreign.__module__ = 'elsewhere.lists'

@pytest.mark.parametrize('make', [lambda: [Foreign([1, 2])], lambda: dict(a=Foreign([Foreign([3])]))])
def test_filled_container_of_another_package(tmp_path, make):
    "It is not made from a checkpoint, which is said; the rest of the callback is, and the trial resumes"
    class Holds(Callback):
        def __init__(self): self.boxes = make()
    class CtrlC(Callback):
        def before_batch(self):
            if self.epoch==1: raise KeyboardInterrupt
    def tune(*cbs): return digits(tmp_path).bayes_tune(2, dict(lr=[.01]), n_trials=1, study_name='s', cbs=[Holds(), *cbs], **quick)
    tune(CtrlC())
    with pytest.warns(UserWarning, match='boxes'): res = tune()
    assert res.trials.reason.tolist()==['resumed after 1 epoch'] and res.trials.state.tolist()==['complete']
