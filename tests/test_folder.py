"A study's folder that was damaged, or comes from someone who means no good: the same line ends with a result or an error that names the file"
import ast, json, os, pickle, shutil, signal, warnings
from contextlib import contextmanager
import optuna, pytest
from hypothesis import given, settings, strategies as st
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from tuning import *
from fastai_bayes.all import *
from fastai_bayes.learner.checkpoint import CheckpointError
from fastai_bayes.learner import tune
from fastai_bayes.study.folder import FolderError, put
from fastai_bayes.study.storage import Journal, JournalLock

lrs = dict(lr=(1e-3, 1e-1, 'log'))
typed = TuneError, StudyError, FolderError, CheckpointError, KnobError, SpaceError, MonitorError
def small():
    "Loaders of one batch each: what is tested is the folder, not the training"
    return DataLoaders(*(TfmdDL(TensorDataset(x[:32], y[:32]), bs=32, num_workers=0) for _ in range(2)), path='.')
dls = small()

def line(path, **kwargs):
    "The line that is run again and again"
    cbs = [CSVLogger(), SaveModelCallback('accuracy')]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        learn = digits(path, dls)
        learn.path = path
        return learn.bayes_tune(2, lrs, **{**dict(n_trials=4, study_name='s', pruner='none', cbs=cbs), **quick, **kwargs})

def tree(path): return {o: (os.readlink(p) if p.is_symlink() else p.read_bytes() if p.is_file() else '') for o in files(path) for p in [path/o]}

class Stop(Callback):
    def after_epoch(self): raise KeyboardInterrupt

@pytest.fixture(scope='module')
def hasty():
    "No waits for a lock's dead owner, or for a first step without effect on the folder: half of the time"
    with pytest.MonkeyPatch.context() as m:
        m.setattr(JournalLock, 'grace', .05)
        m.setattr(tune.Probe, 'check', lambda *args: None)
        yield

@pytest.fixture(scope='module')
def made(tmp_path_factory, hasty):
    "A study with trials that ended, one that was interrupted, and one whose process died"
    path = tmp_path_factory.mktemp('made')
    s = line(path, n_trials=3).study
    try: line(path, cbs=Stop())
    except KeyboardInterrupt: pass
    folder = path/'models/bayes/s'
    s = optuna.load_study(study_name='s', storage=JournalStorage(JournalFileBackend(str(folder/'study.log'))))
    s.enqueue_trial(dict(lr=.01))
    s.ask(dict(lr=optuna.distributions.FloatDistribution(*lrs['lr'][:2], log=True))).set_user_attr('worker', f'{(folder/"folder.id").read_text()}-{"0"*16}')
    (folder/'trial_0'/'runs.json').write_text('{"wandb": "abc"}')
    return path

class Harm:
    "What a pickle does that is read with its code"
    def __init__(self, path): self.path = str(path)
    def __reduce__(self): return os.mkdir, (self.path,)

odd = ['', '../../../canary/a', -1, 0, 1, 3, 1e308, float('nan'), None, True, [], ['x'], {}, {'a': 1}, 2**70, 'x'*300, '\0', '0000-x/../../../../canary/a']
ours = ['checkpoint.pt', 'checkpoint.pt.tmp', 'best.pth', 'best.pth.tmp', 'best.part.pth', 'runs.json', 'runs.json.tmp', 'history.csv', 'model.pth', 'tensorboard']
top = ['study.log', 'study.log.lock', 'study.log.lock.system', 'study.lock', 'folder.id', 'folder.id.tmp', 'start.pt', 'start.pt.tmp', 'worker-0-0.lock',
       'trial_0', 'trial_1', 'trial_3', 'trial_4', 'trial_5']

class Attack:
    "Changes a folder as the numbers `n` say"
    def __init__(self, folder, canary): self.folder,self.canary = folder,canary
    def pick(self, n):
        have = files(self.folder)
        names = [*have, *have, *top, *(f'trial_{i}/{o}' for i in (0, 3, 4) for o in ours)]
        res = self.folder/names[n%len(names)]
        within = (o for o in res.parents if o!=self.folder and self.folder in o.parents)
        if any(os.path.lexists(o) and (o.is_symlink() or not o.is_dir()) for o in within): return self.folder/'start.pt'  # a pipe, too
        return res
    def clear(self, p):
        if p.is_dir() and not p.is_symlink(): shutil.rmtree(p)
        elif os.path.lexists(p): p.unlink()
        p.parent.mkdir(parents=True, exist_ok=True)
    def bytes(self, p): return p.read_bytes() if p.is_file() and not p.is_symlink() else b''

    def truncate(self, a, b, c):
        p = self.pick(a)
        if d := self.bytes(p): p.write_bytes(d[:b%len(d)])
    def noise(self, a, b, c):
        p = self.pick(a)
        if d := bytearray(self.bytes(p)):
            for i in range(1+c%8): d[(b+i*c)%len(d)] = (c*(i+1))%256
            p.write_bytes(d)
    def garbage(self, a, b, c): p = self.pick(a); self.clear(p); p.write_bytes(random.Random(b).randbytes(c%300))
    def link(self, a, b, c):
        p = self.pick(a)
        self.clear(p)
        p.symlink_to([self.canary/'a', self.canary, self.canary/'new', '/dev/zero', p, self.folder, self.folder/'study.log', '../../../../canary/sub'][b%8])
    def hard(self, a, b, c): p = self.pick(a); self.clear(p); os.link(self.canary/'a', p)
    def to_folder(self, a, b, c): p = self.pick(a); self.clear(p); p.mkdir(); (p/'x').write_text('x')
    def pipe(self, a, b, c): p = self.pick(a); self.clear(p); os.mkfifo(p)
    def remove(self, a, b, c): self.clear(self.pick(a))
    def swap(self, a, b, c):
        p,q = self.pick(a),self.pick(b)
        if p==q or p in q.parents or q in p.parents or not (os.path.lexists(p) and os.path.lexists(q)): return
        tmp = self.folder/'tmp'
        p.rename(tmp), q.rename(p), tmp.rename(q)
    def copy(self, a, b, c):
        p,q = self.pick(a),self.pick(b)
        if p!=q and (d := self.bytes(p)): self.clear(q); q.write_bytes(d)
    def pickled(self, a, b, c):
        p = self.pick(a)
        self.clear(p)
        if b%2: p.write_bytes(pickle.dumps(Harm(self.canary/'ran')))
        else: torch.save([Harm(self.canary/'ran'), dict(model=Harm(self.canary/'ran'))][c%2], p)
    def loaded(self, a, b, c):
        "What torch reads, and is something else"
        p = self.pick(a)
        self.clear(p)
        state = net(16+b%2).state_dict()
        torch.save([[], 3, {}, dict(a=torch.ones(2)), state, {k: torch.ones(1) for k in state}, dict(model=state, opt={}), dict.fromkeys(state, 'x')][c%8], p)
    def memory(self, a, b, c):
        "A checkpoint with something in it changed"
        p = [*self.folder.glob('trial_*/checkpoint.pt')]
        if not p or self.bytes(p := p[a%len(p)])==b'': return
        try: state = torch.load(p, weights_only=True)
        except Exception: return
        if isinstance(state, dict): torch.save(self.changed(state, b, odd[c%len(odd)]), p)
    def changed(self, o, n, v):
        "`o` with something in it replaced by `v`, or dropped"
        if n%3 and isinstance(o, dict) and o:
            k = list(o)[n//3%len(o)]
            return {**o, k: self.changed(o[k], n//3//len(o), v)}
        if n%3 and isinstance(o, list) and o:
            i = n//3%len(o)
            return [*o[:i], self.changed(o[i], n//3//len(o), v), *o[i+1:]]
        return v
    def edit(self, a, b, c):
        "A line of the journal changed, dropped or doubled"
        p = self.folder/'study.log'
        lines = self.bytes(p).splitlines(True)
        if not lines: return
        i = a%len(lines)
        try: new = json.dumps(self.changed(json.loads(lines[i]), b, odd[c%len(odd)])).encode()+b'\n'
        except ValueError: return
        lines[i:i+1] = [[new], [new], [new], [new], [], [lines[i]]*2, [new, lines[i]], [lines[i-1], lines[i]]][(b+c)%8]
        p.write_bytes(b''.join(lines))

kinds = [k for k in vars(Attack) if k not in ('pick', 'clear', 'bytes', 'changed') and not k.startswith('_')]
number = st.integers(0, 2**40)
attacks = st.lists(st.tuples(st.sampled_from([*kinds, 'edit', 'edit', 'edit', 'memory']), number, number, number), min_size=1, max_size=3)

@contextmanager
def in_time(seconds):
    "Raise a TimeoutError, which nobody expects, if this takes longer"
    def late(*_): raise TimeoutError(f'not done in {seconds} s')
    old = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try: yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)

def attacked(path, made, attack):
    "The line in a copy of `made` that was attacked, and that nothing beside it has changed"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(made, path/'p', symlinks=True)
    canary = path/'canary'
    (canary/'sub').mkdir(parents=True)
    for o in ('a', 'poetry.lock', 'model.pth', 'sub/best.pth'): (canary/o).write_bytes(b'precious\n'*3)
    folder = path/'p/models/bayes/s'
    a = Attack(folder, canary)
    for kind,*n in attack: getattr(a, kind)(*n)
    before,others = tree(canary),sorted(o.name for o in folder.parent.iterdir())
    try:
        with in_time(60): res = line(path/'p')
    except typed as e:
        assert any(o in str(e) for o in (str(folder), "study 's'", 'trial')), f'names no file: {e}'
        res = e
    assert tree(canary)==before
    assert sorted(o.name for o in folder.parent.iterdir())==others
    assert not files(path/'p')[0].startswith('.') and sorted(o.name for o in path.iterdir())==['canary', 'p']
    return res

n_examples = {100: 150, 1000: 5000}.get(settings().max_examples, settings().max_examples)

@settings(max_examples=n_examples)
@given(attacks)
def test_a_damaged_folder(made, tmp_path_factory, attack):
    "Every other damage ends with a result, or with an error of this package that names the file"
    attacked(tmp_path_factory.getbasetemp()/'attacked', made, attack)

def test_null_in_a_journal_is_a_missing_value(tmp_path):
    learn = digits(tmp_path)
    res = learn.bayes_tune(2, dict(lr=(1e-3, 1e-1, 'log')), n_trials=2, pruner='none', study_name='s', **quick)
    log = res.folder/'study.log'
    text,n = re.subn(r'("intermediate_value":\s*)[-\d.e]+', r'\1null', log.read_text(), count=1)
    log.write_text(text)
    again = learn.bayes_tune(2, dict(lr=(1e-3, 1e-1, 'log')), n_trials=3, pruner='none', study_name='s', **quick)
    assert n==1 and again.trials.epochs.tolist()==[2]*3 and len(again.plot_curves().lines)>=3

def test_what_each_kind_of_harm_would_change(made, tmp_path):
    "Nothing outside the folder is written, renamed or removed"
    for i,kind in enumerate(kinds):
        for n in (3, 11, 40): attacked(tmp_path/'x', made, [(kind, 2**20//n+i, n, n*i)])

def test_what_is_renamed_is_on_the_disk(tmp_path, monkeypatch):
    "First the file, then its name: after a power failure there is the old one or the new one"
    done,replace = [],os.replace
    monkeypatch.setattr(os, 'fsync', lambda f: done.append((os.readlink(f'/proc/self/fd/{f}') if Path('/proc/self/fd').exists() else f, files(tmp_path))))
    monkeypatch.setattr(os, 'replace', lambda a, b: (replace(a, b), done.append('renamed')))
    put(tmp_path/'a', lambda f: f.write(b'x'))
    assert [o if o=='renamed' else o[1] for o in done]==[['a.tmp'], 'renamed', ['a']]
    if Path('/proc/self/fd').exists(): assert [done[0][0], done[2][0]]==[str(tmp_path/'a.tmp'), str(tmp_path)]
    done.clear()
    log = Journal(tmp_path/'study.log')
    log.append_logs([dict(op_code=0)])
    assert any('study.log' in o[1] for o in done)

def test_each_sentence_of_the_page_has_a_test():
    here = Path(__file__).parent
    cells = json.loads((here.parent/'nbs/guides/04_foreign_folders.ipynb').read_text())['cells']
    page = ''.join(next(c['source'] for c in cells if c['id']=='holds'))
    said = {o[2:].removesuffix('.') for o in page.splitlines() if o.startswith('- ')}
    trees = [ast.parse((here/o).read_text()) for o in ('test_field.py', 'test_folder.py')]
    shown = {ast.get_docstring(o) for t in trees for o in t.body if isinstance(o, ast.FunctionDef) and o.name.startswith('test_')}
    assert len(said)>15 and not said-shown
