"Large states: files are written while the training goes on, and what is on the disk is what it would be if the training waited"
import os, pickle, signal, threading, time, warnings
from copy import deepcopy
import pytest, torch
from tuning import *
from fastai_bayes.all import *
from fastai_bayes.learner import checkpoint, training
from fastai_bayes.learner.checkpoint import Checkpoint, Writer, read
from fastai_bayes.learner.copies import seeded
from fastai_bayes.learner.loaders import seeded_loaders

class Stop(BaseException): pass
class StopAt(Callback):
    order,_stateattrs = 99,('at',)
    def __init__(self, epoch): self.at = epoch
    def after_epoch(self):
        if self.epoch+1==self.at: raise Stop

def train(path, writer, stop=None, n=4):
    "A fit that writes everything through `writer`"
    path.mkdir(exist_ok=True)
    with seeded(3):
        learn = digits(path, model_dir='.', opt_func=Adam)
        cbs = [training.BestEpoch('valid_loss', 'min', checkpoint.shapes(learn.model), writer), StopAt(stop),
               Checkpoint(path/'checkpoint.pt', writer=writer)]
        with writer, seeded_loaders(learn.dls, 3), learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(n, cbs=cbs)
    return learn

@pytest.fixture
def aside(monkeypatch):
    "All files are large"
    monkeypatch.setattr(Writer, 'large', 0)

def slow(monkeypatch, seconds=.1):
    "The disk is slow: a training is always ahead of it"
    usual = checkpoint.put
    for o in (checkpoint, training):
        monkeypatch.setattr(o, 'put', lambda *args: (time.sleep(seconds), usual(*args))[1])

def equal(a, b):
    "The same content? Times are not compared"
    if isinstance(a, torch.Tensor): return torch.equal(a, b)
    if isinstance(a, dict): return a.keys()==b.keys() and all(equal(v, b[k]) for k,v in a.items() if k!='seconds')
    return all(map(equal, a, b)) if isinstance(a, (list, tuple)) else a==b

@pytest.mark.parametrize('epoch', [1, 3])
def test_file_is_that_of_its_epoch(tmp_path, epoch, aside, monkeypatch):
    "The training has changed the weights before the file is written"
    with pytest.raises(Stop): train(tmp_path/'a', Writer(False), epoch)
    slow(monkeypatch)
    with pytest.raises(Stop): train(tmp_path/'b', Writer(), epoch)
    for name in ('checkpoint.pt', 'best.pth'):
        a,b = (torch.load(tmp_path/o/name, weights_only=True) for o in 'ab')
        for o in (a, b): o.pop('callbacks', None), [row.pop() for row in o.get('values', ())]  # times, and pickles of them
        assert equal(a, b)

def test_resumed_is_the_same(tmp_path, aside, monkeypatch):
    slow(monkeypatch, .02)
    whole = train(tmp_path/'a', Writer())
    for stop in (1, 2, 3):
        with pytest.raises(Stop): train(tmp_path/f'{stop}', Writer(), stop)
        again = train(tmp_path/f'{stop}', Writer())
        assert equal(whole.model.state_dict(), again.model.state_dict())

def test_training_does_not_wait(tmp_path, aside, monkeypatch):
    "The next epoch begins before the file is written, its own file waits for that"
    usual,events,free = checkpoint.write,[],threading.Event()
    def write(*args):
        if not events.count('writes'): free.wait(20)
        events.append('writes')
        usual(*args)
    class Note(Callback):
        def before_epoch(self): events.append(self.epoch)
        def after_train(self):
            if self.epoch==1: free.set()
    monkeypatch.setattr(checkpoint, 'write', write)
    learn = digits(tmp_path, cbs=Note())
    with learn.no_bar(), learn.no_logging(): learn.fit(3, cbs=Checkpoint(tmp_path/'c.pt'))
    assert events[:3]==[0, 1, 'writes'] and events.count('writes')==3 and events.index(2)>2

def test_weights_before_the_checkpoint(tmp_path, aside, monkeypatch):
    "A checkpoint never names weights that are not on the disk yet"
    usual,order = checkpoint.put,[]
    def put(path, write):
        if path.name=='best.pth': time.sleep(.05)
        usual(path, write)
        order.append(path.name)
        return path
    for o in (checkpoint, training): monkeypatch.setattr(o, 'put', put)
    train(tmp_path, Writer())
    first = order[:2]
    assert first==['best.pth', 'checkpoint.pt'] and order.count('checkpoint.pt')==4
    assert all(a!='checkpoint.pt' or b in ('best.pth', 'checkpoint.pt') for a,b in zip(order, order[1:]))

def test_memory_is_used_again(aside, tmp_path):
    "One copy of each file, in the same place"
    writer,states = Writer(),[dict(w=torch.full((50, 50), float(i)), n=i, l=[torch.ones(3)*i]) for i in range(3)]
    places,seen = set(),[]
    for o in states:
        for state in (states[0], o):  # what is put last before it is written counts
            writer.put('f', state, lambda s: seen.append((float(s['w'][0, 0]), s['n'], float(s['l'][0][0]))), None)
            assert len(seen)==o['n']
        writer.wait()
        places.add(writer.copies['f']['w'].data_ptr())
    assert len(places)==1 and seen==[(0, 0, 0), (1, 1, 1), (2, 2, 2)]
    writer.put('f', dict(w=torch.ones(3)), lambda s: seen.append(s['w'].tolist()), None)  # of another shape
    writer.wait()
    assert seen[-1]==[1, 1, 1]
    writer.end()
    assert not writer.copies

def test_memory_is_taken_beforehand(aside, tmp_path, monkeypatch):
    "While the first epoch is trained; for the next trial that of the last one is used again"
    writer,usual,rooms = Writer(),Writer.put,{}
    def note(writer, file, state, *args):
        name = file.name
        writer.rooms[name].join()
        room = writer.copies[name]['model'] if name=='checkpoint.pt' else writer.copies[name]
        rooms.setdefault(name, []).append({k: o.data_ptr() for k,o in room.items()})
        usual(writer, file, state, *args)
        copy = writer.copies[name]['model'] if name=='checkpoint.pt' else writer.copies[name]
        assert {k: o.data_ptr() for k,o in copy.items()}==rooms[name][-1]
    monkeypatch.setattr(Writer, 'put', note)
    for o in 'ab': train(tmp_path/o, writer)
    assert set(rooms)=={'checkpoint.pt', 'best.pth'} and all(len(o)>=5 and o.count(o[0])==len(o) for o in rooms.values())
    opt = writer.copies['checkpoint.pt']['opt']['state']
    assert opt and not writer.rooms and all(o['grad_avg'].abs().sum()>0 for o in opt)

def test_memory_is_not_taken(tmp_path, monkeypatch):
    "If the state is small, if the files are written at once, and if there is too little"
    for large,aside,spare in ((2**24, True, 1e12), (0, False, 1e12), (0, True, 100)):
        monkeypatch.setattr(Writer, 'large', large)
        monkeypatch.setattr(checkpoint, 'spare_memory', lambda: spare)
        writer = Writer(aside)
        with writer: writer.make_room('f', lambda: torch.ones(50))
        assert not writer.copies and not writer.rooms

def test_no_room_for_a_copy(aside, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, 'spare_memory', lambda: 100)
    threads = []
    writer = Writer()
    writer.put('f', torch.ones(50), lambda s: threads.append(threading.current_thread()), None)
    assert threads==[threading.current_thread()] and not writer.copies

def test_errors(aside, tmp_path, monkeypatch):
    "A full disk is told once, in the thread of the training; the training goes on. Other errors end it"
    def full(*args): raise OSError('no space left')
    monkeypatch.setattr(checkpoint, 'put', full)
    with warnings.catch_warnings(record=True) as w:
        warnings.simplefilter('always')
        learn = train(tmp_path, Writer())
    assert learn.epoch==3 and len([o for o in w if 'no checkpoint could be written (no space left)' in str(o.message)])==1
    def wrong(s): raise KeyError('a mistake')
    with pytest.raises(KeyError, match='a mistake'):
        with Writer() as writer: writer.put('f', torch.ones(3), wrong, None)

def test_copied_while_it_writes():
    "Callbacks may copy a learner with its callbacks: the copy has nothing under way"
    free,writer = threading.Event(),Writer()
    writer.large = 0
    writer.put('f', torch.ones(3), lambda s: free.wait(20), None)
    writer.go()
    for other in (deepcopy(writer), pickle.loads(pickle.dumps(writer))): assert other.aside and not other.threads
    assert writer.threads['f'].is_alive()
    free.set(), writer.end()

def test_stop_is_written_once(tmp_path, aside, monkeypatch):
    "What the pruner decides after the checkpoint was put is in it, without another one"
    usual,puts = checkpoint.write,[]
    def write(state, file):
        puts.append((file.parent.name, state['done'], state['stopped']))
        usual(state, file)
    monkeypatch.setattr(checkpoint, 'write', write)
    res = digits(tmp_path).bayes_tune(4, dict(lr=(1e-3, 1e-1, 'log')), n_trials=5, **quick)
    assert any(stopped for *_,stopped in puts) and len(puts)==res.trials.epochs.sum()

def test_studies_are_the_same(tmp_path, monkeypatch):
    "Trials that the engine pauses and resumes, all files aside or none"
    res = []
    for large in (2**24, 0):
        monkeypatch.setattr(Writer, 'large', large)
        learn = digits(tmp_path/str(large))
        r = learn.bayes_tune(4, dict(lr=(1e-3, 1e-1, 'log')), n_trials=8, **quick)
        res.append((r.trials.drop(columns='seconds', errors='ignore').to_csv(), [p.sum().item() for p in learn.model.parameters()]))
    assert res[0]==res[1]

def work(path, kills=None):
    "A study of one trial in a process of its own, which is killed in its second checkpoint if `kills` says when"
    pid = os.fork()
    if pid: return os.waitpid(pid, 0)[1]
    usual,seen = torch.save,[]
    def die(): os.kill(os.getpid(), signal.SIGKILL)
    def save(state, f, **kwargs):
        usual(state, f, **kwargs)
        if not str(getattr(f, 'name', '')).endswith('checkpoint.pt.tmp'): return
        seen.append(f)
        if len(seen)==2 and kills=='half': f.truncate(f.tell()//2), die()
        if len(seen)==2 and kills=='training': time.sleep(20)
    class Die(Callback):
        def after_train(self):
            if kills=='training' and self.epoch==2 and len(seen)==2: die()
    try:
        Writer.large,torch.save = 0,save
        digits(path, cbs=Die()).bayes_tune(3, dict(lr=[.01]), n_trials=1, study_name='s', sampler='random', **quick)
        os._exit(0)
    finally: os._exit(1)

@pytest.mark.parametrize('kills', ['half', 'training'])
def test_killed_while_it_writes(tmp_path, kills):
    "The older checkpoint is whole, and the trial goes on from it as if nothing had happened"
    assert os.WTERMSIG(work(tmp_path/'b', kills))==signal.SIGKILL
    assert read(tmp_path/'b/models/bayes/s/trial_0/checkpoint.pt')['epoch']==1
    assert work(tmp_path/'b')==work(tmp_path/'a')==0
    a,b = (tmp_path/o/'models/bayes/s/trial_0' for o in 'ab')
    assert equal(*(torch.load(o/'best.pth', weights_only=True) for o in (a, b)))
    assert sorted(o.name for o in a.iterdir())==sorted(o.name for o in b.iterdir())
