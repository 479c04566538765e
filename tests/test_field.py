"Faults found by using it: one test an entry, and other members of its kind"
import matplotlib; matplotlib.use('agg')
import matplotlib.pyplot as plt, pytest, torch
import optuna
from collections import defaultdict
import sklearn.metrics as skm
from fastai.metrics import skm_to_fastai
from fastai_bayes.engine.space import Choice
from fastai_bayes.engine.trainings import Training, states
from fastai_bayes.study.cache import StudyCache, fit_key, horizon
from fastai_bayes.study.records import trials_of, state_of
from forks import in_fork
from tuning import *
import fastai_bayes.engine.gp as gp_mod, fastai_bayes.engine.policy as policy
from fastai_bayes.learner.knobs import apply_params
from fastai_bayes.all import *
from fastai_bayes.study.search_space import describe, distributions
from fastai_bayes.study.storage import quiet_optuna
from fastai_bayes.study.searches import PBT, grid_of
from fastai_bayes.results.style import plain, plot, plots, disambiguate
import ast, configparser, datetime, gzip, json, os, re, shutil, sqlite3, sys, warnings

lrs = dict(lr=(1e-3, 1e-1, 'log'))

# 1. Callback state changes its type on resume
def test_paused_trainings_go_on_with_a_log(tmp_path, recwarn):
    "The example: a Path and a defaultdict"
    class Log(Callback):
        order = 51
        def __init__(self, f): self.folder,self.seen = Path(f),defaultdict(list)
        def after_epoch(self):
            self.seen[self.epoch].append(1)
            (self.folder/'log.txt').open('a').write('x')
    res = digits(tmp_path).bayes_tune(6, lrs, n_trials=10, cbs=Log(tmp_path), **quick)
    assert res.trials.reason.str.contains('resumed').any() and not (res.trials.state=='failed').any()
    assert len((tmp_path/'log.txt').read_text())==res.trials.epochs.sum()

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
    refused(tmp_path, 'began in another folder, which is not here.*if it was deleted, use another study_name', storage=db(tmp_path, 'a'))
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
    (tmp_path/'models/bayes/s/folder.id').write_text('no id')
    refused(tmp_path, 'folder.id.*hexadecimal', FolderError)

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

def test_a_folder_with_the_trials_of_another(tmp_path):
    "Two trials have each other's folders: the weights of neither are taken for the other's"
    first = one(tmp_path, n=2)
    folder = tmp_path/'models/bayes/s'
    for a,b in (('trial_0', 'x'), ('trial_1', 'trial_0'), ('x', 'trial_1')): (folder/a).rename(folder/b)
    learn = digits(tmp_path)
    before = {k: v.clone() for k,v in learn.model.state_dict().items()}
    with pytest.warns(UserWarning, match='holds the curve of another training.*did not change'): one(tmp_path, make=lambda p: learn, n=2)
    assert all((v==before[k]).all() for k,v in learn.model.state_dict().items()) and len(first.trials)==2

# 3. `storage=` on an ordinary file
from fastai_bayes.study.folder import FolderError

def _gz(p): p.write_bytes(gzip.compress(b'{"op_code":0}\n'))
def _sqlite(p):
    db = sqlite3.connect(p)
    db.execute('create table a (b)')
    db.commit(), db.close()
def _link(p): (p.parent/'target').write_text('precious'), p.symlink_to(p.parent/'target')
other_files = {
    'one line': (lambda p: p.write_text('{"lr": 0.001}'), 'not a journal'),
    'text': (lambda p: p.write_text('lr: 0.001\nwd: 0\n'), 'not a journal'),
    'list': (lambda p: p.write_text('[1, 2]\n'), 'not a journal'),
    'binary': (lambda p: p.write_bytes(bytes(range(256))*40), 'not a journal'),
    'gz': (_gz, 'not a journal'), 'sqlite': (_sqlite, 'sqlite:///'), 'folder': (lambda p: p.mkdir(), 'expected a file, got a folder'),
    'a line of another program': (lambda p: p.write_text('{"op_code": "add", "x": 1}'), 'not a journal'), 'the same, cut': (lambda p: p.write_text('{"op_code": 1'), 'not a journal'),
    'pipe': (os.mkfifo, 'is not a file'), 'link': (_link, 'not a journal')}
@pytest.mark.parametrize('what', other_files)
def test_storage_that_is_another_file(tmp_path, what):
    "A file that is no journal is left as it is, if it is given as `storage=`"
    make,why = other_files[what]
    make(tmp_path/'config.json')
    before = files(tmp_path), {o: (tmp_path/o).read_bytes() for o in files(tmp_path) if (tmp_path/o).is_file()}
    with pytest.raises(StudyError, match=why): open_study(Space(lrs), storage=tmp_path/'config.json')
    with pytest.raises(StudyError, match='config.json'): digits(tmp_path).bayes_tune(1, lrs, n_trials=1, storage=tmp_path/'config.json', **quick)
    assert [o for o in files(tmp_path) if not o.startswith('models')]==before[0]
    assert all((tmp_path/o).read_bytes()==data for o,data in before[1].items())

def _sql(path, *lines):
    db = sqlite3.connect(path)
    for o in lines: db.execute(o)
    db.commit(), db.close()
databases = {
    'text': lambda p: p.write_text('{"lr": 0.001}'), 'of another program': lambda p: _sql(p, 'create table studies (a int)'),
    'of another version': lambda p: (optuna.storages.RDBStorage(f'sqlite:///{p}'), _sql(p, "update alembic_version set version_num='v0.9.0.a'", 'update version_info set schema_version=5')),
    'cut': lambda p: (optuna.storages.RDBStorage(f'sqlite:///{p}'), p.write_bytes(p.read_bytes()[:6000])), 'a link to itself': lambda p: p.symlink_to(p)}
@pytest.mark.parametrize('what', databases)
def test_a_database_that_cannot_be_read(tmp_path, what):
    databases[what](tmp_path/'a.db')
    url = db(tmp_path, 'a') if 'link' not in what else tmp_path/'a.db'
    with pytest.raises(StudyError, match='^storage: .*a.db.* cannot be opened: '): digits(tmp_path).bayes_tune(1, lrs, n_trials=1, study_name='s', storage=url, **quick)

def _journal(path, name='s'):
    open_study(Space(lrs), name=name, storage=path).enqueue_trial(dict(lr=.01))
    return path.read_bytes().splitlines(True)

@pytest.mark.parametrize('bad', [b'\x00\xff\n', b'{"op_code":4,\n', b'['*10**5+b'\n', b'3\n', b'{"op_code":99}\n', b'{"op_code":4}\n', b'{"a":1}\n'])
def test_a_damaged_line_of_a_journal_is_named(tmp_path, bad):
    "A damaged line of the journal is named"
    file = tmp_path/'s.log'
    lines = _journal(file)
    file.write_bytes(b''.join([*lines[:2], bad, *lines[2:]]))
    whole = file.read_bytes()
    with pytest.raises(StudyError, match='s.log, line 3 is damaged'): open_study(Space(lrs), name='s', storage=file)
    assert file.read_bytes()==whole
    file.write_bytes(b''.join(lines[:2]))  # as the message says
    assert open_study(Space(lrs), name='s', storage=file).trials==[]

@pytest.mark.parametrize('state', [1, 2, 3])
@pytest.mark.parametrize('values', [[], [1., 2.]])
def test_a_trial_with_no_or_two_values_is_named(tmp_path, values, state):
    "Optuna takes such a line of the journal"
    file = tmp_path/'s.log'
    s = open_study(Space(lrs), name='s', storage=file)
    s.tell(s.ask().number, 0., optuna.trial.TrialState.COMPLETE)
    *lines,last = file.read_text().splitlines(True)
    file.write_text(''.join(lines)+json.dumps({**json.loads(last), 'values': values, 'state': state})+'\n')
    with pytest.raises(StudyError, match='s.log: trial 0: expected one value'): open_study(Space(lrs), name='s', storage=file)

def test_a_journal_by_two_names_and_one_that_was_being_written(tmp_path):
    file = tmp_path/'s.log'
    whole = b''.join(_journal(file))
    (tmp_path/'l.log').symlink_to(file)  # the user's own link
    file.write_bytes(whole+b'{"op_code":8,"wor')
    assert len(open_study(Space(lrs), name='s', storage=tmp_path/'l.log').trials)==1
    assert not (tmp_path/'l.log.lock.system').exists()
    open_study(Space(lrs), name='s', storage=file).set_user_attr('a', 1)
    assert file.read_bytes().startswith(whole) and b'wor"' not in file.read_bytes()[len(whole):]

# 4. A resumed epoch that cancels at once
class Dies(BaseException): pass
class DiesOnce(Callback):
    "The process dies in epoch 3 of the first training, between checkpoint and `EarlyStoppingCallback`"
    order,done = 62.9,False
    def after_epoch(self):
        if self.epoch==2 and not DiesOnce.done:
            DiesOnce.done = True
            raise Dies

def test_the_process_dies_in_the_epoch_that_stops(tmp_path):
    "The example; other callbacks and moments are in test_state.py"
    DiesOnce.done = False
    args = dict(n_trials=1, study_name='s', cbs=[MixUp(), DiesOnce(), EarlyStoppingCallback('accuracy', min_delta=10, patience=2)], **quick)
    with pytest.raises(Dies): digits(tmp_path).bayes_tune(5, lrs, **args)
    res = digits(tmp_path).bayes_tune(5, lrs, **args)
    assert res.trials.state.tolist()==['complete'] and res.trials.epochs.tolist()==[3]

# 5. A foreign study folder
@pytest.fixture
def foreign(tmp_path):
    "A study's folder, and beside it files of the user's"
    tune = lambda **kw: digits(tmp_path).bayes_tune(2, lrs, **{**quick, **dict(n_trials=2, study_name='s', pruner='none'), **kw})
    tune()
    (tmp_path/'out').mkdir()
    for o in ('poetry.lock', 'a.pth', 'b.log'): (tmp_path/'out'/o).write_text('precious')
    yield tmp_path/'models/bayes/s', tmp_path/'out', tune
    assert [(o.name, o.read_text()) for o in sorted((tmp_path/'out').iterdir())]==[(o, 'precious') for o in ('a.pth', 'b.log', 'poetry.lock')]

def _study(folder): return open_study(Space(lrs), name='s', storage=folder/'study.log', monitor='accuracy')

def test_a_worker_is_no_path(foreign):
    "The name of a worker has hexadecimal digits only; anything else is nobody's name"
    folder,out,tune = foreign
    home = (folder/'folder.id').read_text()
    for name in (f'{home}-x/../../../../out/poetry', f'{home}-../../../out/poetry', f'{home}-0/../../out/poetry', f'{home}-', 3, None, [home]):
        t = _study(folder).ask()
        t.set_user_attr('worker', name)
    (folder/f'worker-{home}-x').mkdir()
    tune(n_trials=12)

def test_an_id_of_the_folder_is_no_path(foreign):
    "The id of the folder has hexadecimal digits only"
    folder,out,tune = foreign
    (folder/'folder.id').write_text('../../../out/x')
    with pytest.raises(FolderError, match='folder.id'): tune()

@pytest.mark.parametrize('name', ['study.log', 'study.lock', 'study.log.lock.system', 'folder.id', 'start.pt', 'trial_0', 'worker-0-0.lock'])
def test_a_link_at_the_top_is_refused(foreign, name):
    "A link at the top of the folder is refused by name"
    folder,out,tune = foreign
    p = folder/name
    if p.exists(): p.rename(folder.parent/'before')
    p.symlink_to(out if name=='trial_0' else out/'b.log')
    before = files(folder)
    with pytest.raises(FolderError, match=f'{name}.* link'): tune(n_trials=3)
    assert files(folder)==before

def test_a_study_folder_that_is_a_link_is_refused(foreign):
    "The folder itself is no link"
    folder,out,tune = foreign
    (folder.parent/'t').symlink_to(out)
    with pytest.raises(FolderError, match='t: .* link'): tune(study_name='t')
    (folder.parent/'f').write_text('')
    with pytest.raises(FolderError, match='f: .* a file'): tune(study_name='f')

def test_a_models_folder_that_is_a_link_is_usual(tmp_path):
    "A folder above it may be a link, to another disk for instance"
    (tmp_path/'disk').mkdir(), (tmp_path/'models').symlink_to(tmp_path/'disk')
    res = digits(tmp_path).bayes_tune(1, lrs, n_trials=1, study_name='s', **quick)
    assert res.best_path.exists() and (tmp_path/'disk/bayes/s/study.log').exists()

class Writes(Callback):
    "As callbacks do that know of no links"
    def after_epoch(self):
        with (self.path/'notes.txt').open('a') as f: f.write('x')

def test_links_in_a_training_are_not_followed(foreign):
    "Links in the folder of a trial are removed before it trains, if they lead out of it"
    folder,out,tune = foreign
    s = _study(folder)
    t = s.ask(dict(lr=optuna.distributions.FloatDistribution(1e-3, 1e-1, log=True)))
    t.set_user_attr('worker', f'{(folder/"folder.id").read_text()}-{"0"*16}')
    d = folder/f'trial_{t.number}'
    shutil.copytree(folder/'trial_1', d)
    torch.save(dict(a=1), d/'checkpoint.pt')
    for o in ('best.pth', 'checkpoint.pt.tmp', 'best.part.pth', 'best.pth.tmp', 'runs.json', 'history.csv', 'model.pth', 'notes.txt'):
        (d/o).unlink(missing_ok=True)
        (d/o).symlink_to(out/'a.pth') if o!='notes.txt' else os.link(out/'b.log', d/o)
    (d/'sub').symlink_to(out)
    res = tune(n_trials=4, cbs=[CSVLogger(), SaveModelCallback('accuracy'), Writes()])
    assert set(res.trials.state)=={'complete'} and len(res.trials)==4

@pytest.mark.parametrize('name', ['start.pt.tmp', 'study.log.lock'])
def test_what_is_replaced_is_not_followed(foreign, name):
    "What is replaced is never followed"
    folder,out,tune = foreign
    (folder/'start.pt').unlink(), (folder/name).unlink(missing_ok=True)
    (folder/name).symlink_to(out/'a.pth')
    if name.endswith('tmp'):
        with pytest.raises(FolderError, match='start.pt.tmp'): tune(n_trials=3)
    else: assert len(tune(n_trials=3).trials)==3 and (folder/'start.pt').exists()

def test_a_second_name_of_a_file_elsewhere(foreign):
    "A file that is the second name of one elsewhere gets a copy of its own before it is written"
    folder,out,tune = foreign
    for o in ('study.log', 'study.lock', 'start.pt'):
        data = (folder/o).read_bytes()
        (folder.parent/o).write_bytes(data), (folder/o).unlink(), os.link(folder.parent/o, folder/o)
    tune(n_trials=3)
    assert (folder/'study.log').read_bytes().startswith((folder.parent/'study.log').read_bytes())
    assert len((folder.parent/'study.log').read_bytes())<len((folder/'study.log').read_bytes())

class Runs:
    def __init__(self, path): self.path = str(path)
    def __reduce__(self): return os.mkdir, (self.path,)

@pytest.mark.parametrize('file', ['trial_0/best.pth', 'trial_1/best.pth', 'trial_0/checkpoint.pt', 'start.pt', 'trial_0/runs.json'])
def test_nothing_in_a_file_of_the_folder_runs(foreign, file):
    "Nothing in the folder runs: weights, checkpoints and all else are read as data"
    folder,out,tune = foreign
    for proto in (2, 4):
        torch.save(dict(model=Runs(out/'ran'), a=Runs(out/'ran')), folder/file, pickle_protocol=proto)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            assert len(tune(n_trials=3).trials)==3

@pytest.mark.parametrize('attr,v', [('resumes', '../../../out'), ('resumes', 7), ('resumes', -1), ('resumes', True), ('resumed_from', 'x'),
                                    ('n_epoch', 'x'), ('reason', 3), ('deaths', -1), ('n_params', 'big'), ('seconds', '1'), ('out_of_memory', 'no')])
def test_attributes_of_trials_are_checked(foreign, attr, v):
    "Attributes of trials that cannot be are named, and the study is not opened"
    folder,out,tune = foreign
    t = _study(folder).ask(dict(lr=optuna.distributions.FloatDistribution(1e-3, 1e-1, log=True)))
    t.set_user_attr(attr, v)
    with pytest.raises(StudyError, match=f'study.log: trial 2: {attr}: expected'): tune(n_trials=4)

def test_what_the_engine_remembers_is_checked(foreign):
    "What the engine remembers is used only if it can be its own"
    folder,out,tune = foreign
    s = _study(folder)
    of = fit_key(Space(lrs), 2)
    for v in (3, 'x', dict(of=3), dict(of=of), dict(of=of, final=['x'], curves=3, cost=[]), dict(of=of, final=[9, None, [1e9]*3]),
              dict(count=10**9, engines=[[repr(Space(lrs)), 2, 'epochs', dict(model=4, final=['x'], chain=3, cost=[])]])):
        t = s.ask(dict(lr=optuna.distributions.FloatDistribution(1e-3, 1e-1, log=True)))
        s._storage.set_trial_system_attr(t._trial_id, 'engine', v)
        s.tell(t, state=optuna.trial.TrialState.FAIL)
    assert len(tune(n_trials=10).trials)==10

class Evil:
    "Code in a file of weights"
    def __reduce__(self): return Path.touch, (Path('ran'),)

@pytest.mark.parametrize('saver', ['fastai', 'load', 'load_model', 'torch'])
def test_no_saver_runs_code_from_the_folder(tmp_path, monkeypatch, saver):
    monkeypatch.chdir(tmp_path)
    class Swap(Callback):
        "Puts another file in the place of the weights, and loads it in some way"
        order = 60.5
        def after_fit(self):
            file = Path(self.learn.path)/'model.pth'
            torch.save(Evil(), file)
            if saver=='load': self.learn.load('model', weights_only=False)
            if saver=='load_model': load_model(file, self.model, self.opt, weights_only=False)
            if saver=='torch': torch.load(open(file, 'rb'), weights_only=False)
    load = torch.load
    with pytest.raises(TuneError, match='more than weights'):
        digits(tmp_path).bayes_tune(1, lrs, n_trials=1, cbs=[SaveModelCallback('accuracy'), Swap()], **quick)
    assert not (tmp_path/'ran').exists() and torch.load is load

def test_runs_of_trackers(tmp_path):
    "Runs of trackers are taken over only if their names can be such"
    from fastai_bayes.learner.trackers import _ids
    for data,want in [({'wandb': 'ab1', 'mlflow': '../x', 'a': 'b'}, {'wandb': 'ab1'}), ([1], {}), ({'wandb': 3}, {}), ({'wandb': 'x'*999}, {})]:
        (tmp_path/'runs.json').write_text(json.dumps(data))
        assert _ids(tmp_path/'runs.json')==want
    for data in ('', '{', '['*10**5, '\0'):
        (tmp_path/'runs.json').write_text(data)
        assert _ids(tmp_path/'runs.json')=={}
    assert _ids(tmp_path/'none')==_ids(tmp_path)=={}

@pytest.mark.parametrize('how', ['short', 'noise', 'empty', 'folder', 'list', 'nothing', 'link'])
def test_a_damaged_checkpoint(foreign, how):
    "A damaged checkpoint costs its epochs, not the trial"
    folder,out,tune = foreign
    tune(n_trials=3, cbs=Break(KeyboardInterrupt(), which=(Break.count+1,)))
    file = folder/'trial_2'/'checkpoint.pt'
    assert file.exists()
    if how=='link': file.unlink(), file.symlink_to(out/'a.pth')
    else: damages[how](file)
    res = tune(n_trials=3)
    assert len(res.trials)==3 and set(res.trials.state)=={'complete'} and set(res.trials.epochs)=={2}
    assert [o for o in res.trials.reason if o.startswith('trained again from the start')]

# 6. A damaged `best.pth` of the winner
def _short(f): f.write_bytes(f.read_bytes()[:300])
def _noise(f): f.write_bytes(b'x'*2000)
def _empty(f): f.write_bytes(b'')
def _folder(f): f.unlink(), f.mkdir()
def _saved(state): return lambda f: torch.save(state(torch.load(f, weights_only=True)), f)
damages = {
    'short': _short, 'noise': _noise, 'empty': _empty, 'folder': _folder, 'list': _saved(lambda s: [1]), 'number': _saved(lambda s: 3),
    'shape': _saved(lambda s: {**s, '3.weight': torch.ones(10, 17)}), 'missing': _saved(lambda s: {k: v for k,v in s.items() if k!='3.bias'}),
    'NaN': _saved(lambda s: {**s, '3.bias': s['3.bias']*math.nan}), 'kind': _saved(lambda s: {**s, '3.bias': s['3.bias'].long()}),
    'count': _saved(lambda s: {**s, '1.num_batches_tracked': torch.tensor(3.)}), 'more': _saved(lambda s: {**s, 'x': torch.ones(1)}), 'text': _saved(lambda s: {**s, '3.bias': 'x'}), 'nothing': _saved(lambda s: {})}
@pytest.mark.parametrize('how', damages)
@pytest.mark.parametrize('factory', [False, True])
def test_damaged_weights_of_the_winner(tmp_path, how, factory):
    "Damaged weights of the winner are passed over with a warning"
    made = dict(new_learner=lambda p: digits(tmp_path)) if factory else {}
    tune = lambda learn, n=3: learn.bayes_tune(1, lrs, n_trials=n, study_name='s', **made, **quick)
    res = tune(digits(tmp_path))
    first,second = res.trials.number[:2]
    damages[how](res.folder/f'trial_{first}'/'best.pth')
    learn = digits(tmp_path)
    with pytest.warns(UserWarning, match=f'trial_{first}.*those of trial {second} are loaded' if how!='folder' else f'trial {first}, .* {second}'):
        res = tune(learn)
    assert res.best_trial.number==first
    want = torch.load(res.folder/f'trial_{second}'/'best.pth', weights_only=True)
    assert all((v==want[k]).all() for k,v in learn.model.state_dict().items())
    with pytest.raises(TuneError, match=f'trial {first}'): res.learner(int(first))
    with pytest.warns(UserWarning, match=f'trial {second}'): other = res.learner()
    assert all((v==want[k]).all() for k,v in other.model.state_dict().items())

@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_loaded(tmp_path, dtype):
    "A training in half precision may have saved them"
    res = digits(tmp_path).bayes_tune(1, lrs, n_trials=1, study_name='s', **quick)
    _saved(lambda s: {k: v.to(dtype) if v.is_floating_point() else v for k,v in s.items()})(res.best_path)
    learn = digits(tmp_path)
    learn.bayes_tune(1, lrs, n_trials=1, study_name='s', **quick)
    want = torch.load(res.best_path, weights_only=True)
    assert all(v.dtype!=dtype and (v==want[k]).all() for k,v in learn.model.state_dict().items())

def test_no_weights_that_can_be_loaded(tmp_path):
    res = digits(tmp_path).bayes_tune(1, lrs, n_trials=2, study_name='s', **quick)
    for f in res.folder.glob('trial_*/best.pth'): damages['shape'](f)
    learn = digits(tmp_path)
    before = {k: v.clone() for k,v in learn.model.state_dict().items()}
    with pytest.warns(UserWarning, match='did not change'): res = learn.bayes_tune(1, lrs, n_trials=2, study_name='s', **quick)
    assert all((v==before[k]).all() for k,v in learn.model.state_dict().items()) and res.best_params
    with pytest.raises(TuneError, match='no trial .* can be loaded'), pytest.warns(UserWarning): res.learner()

def test_damaged_weights_of_a_training_that_is_resumed(tmp_path):
    class Worse(Callback):
        order = 51
        def after_epoch(self): self.recorder.values[-1][2] = -self.epoch
    tune = lambda *cbs: digits(tmp_path).bayes_tune(3, lrs, n_trials=1, study_name='s', cbs=[Worse(), *cbs], **quick)
    Break.count = 0
    tune(Break(KeyboardInterrupt(), epoch=2))
    _noise(tmp_path/'models/bayes/s/trial_0/best.pth')
    with pytest.warns(UserWarning, match='keeps its last weights'): res = tune()
    assert res.trials.state.tolist()==['complete'] and res.trials.epochs.tolist()==[3]

# 7. Not measured is not diverged
class Shown(Callback):
    "The recorded accuracy of epoch `n` of a fit, counted from 1, is `f(n)`"
    order = 51
    def __init__(self, f): self.f = f
    def after_epoch(self): self.recorder.values[-1][2] = self.f(self.epoch+1)

def every_third(n): return .5+n/100 if n%3==0 else None
missing = {'NA in a warm-up': lambda n: pd.NA if n<3 else .5+n/100, 'None in a warm-up': lambda n: None if n<3 else .5+n/100, 'NaN in a warm-up': lambda n: math.nan if n<3 else .5+n/100,
           'inf in epoch 1': lambda n: math.inf if n==1 else .5+n/100, 'every third': every_third, 'not at the end': lambda n: .5+n/100 if n<6 else math.nan}

@pytest.mark.parametrize('kind,pruner', [*zip(missing, ['median', 'median', 'asha', 'none', 'hyperband', None]), *(('every third', o) for o in ('asha', 'median', 'patient', None))])
def test_a_missing_value_is_no_divergence(tmp_path, kind, pruner):
    res = digits(tmp_path, cbs=Shown(missing[kind])).bayes_tune(6, lrs, n_trials=3, pruner=pruner, **quick)
    assert set(res.trials.state)<={'complete', 'stopped'} and res.trials.epochs.max()==6
    assert all(list(t.intermediate_values)==[*range(1, len(t.intermediate_values)+1)] for t in res.study.trials)
    whole = res.trials[res.trials.state=='complete']
    best = max((missing[kind](n), n) for n in range(1, 7) if is_number(missing[kind](n)))
    assert {*zip(whole.value, whole.best_epoch)}=={best} and not any('diverged' in t.user_attrs for t in res.study.trials)
    # nothing stops where nothing is known
    assert all(is_number(list(t.intermediate_values.values())[-1]) for t in res.study.trials if t.state.name=='PRUNED')

@pytest.mark.filterwarnings('error:no checkpoint')
def test_metrics_may_return_none_or_na(tmp_path, recwarn):
    "Through fastai's own metric, whose mean is then missing, and its recorder; what is no number and not missing is a wrong type"
    def some(preds, targs): return pd.NA
    with pytest.raises(TuneError, match='some never had a finite value'): digits(tmp_path, metrics=some).bayes_tune(2, lrs, n_trials=2, mode='max', **quick)
    res = digits(tmp_path, metrics=[accuracy, some]).bayes_tune(2, lrs, n_trials=2, pruner='none', **quick)
    assert set(res.trials.state)=={'complete'} and res.learner().path
    res = digits(tmp_path, metrics=[accuracy, some]).bayes_tune(6, lrs, n_trials=5, recipes=False, **quick)
    assert res.trials.reason.str.contains('resumed').any() and not [o for o in recwarn if 'not restored' in str(o.message)]
    for v in ('', [], '.5x', {}):
        with pytest.raises(TuneError, match='(?s)MonitorError.*expected one number per epoch from .accuracy., got '):
            digits(tmp_path, cbs=Shown(lambda n: v)).bayes_tune(2, lrs, n_trials=2, **quick)

@pytest.mark.parametrize('kwargs', [dict(sampler='pbt', n_trials=4), dict(budget=2), dict(budget=2, sampler='tpe')], ids=str)
def test_a_training_that_ends_before_its_first_value_goes_on(tmp_path, kwargs):
    "A round, or a limit, ends it in the warm-up of its metric: nothing has failed"
    tune = lambda **more: digits(tmp_path, cbs=Shown(missing['NaN in a warm-up'])).bayes_tune(4, lrs, study_name='s', **{**quick, **kwargs, **more})
    if 'budget' in kwargs:
        with pytest.raises(TuneError, match='none succeeded.*budget'): tune()
    res = tune(**({k: 4 for k in kwargs if k=='budget'}))
    assert 'failed' not in set(res.trials.state) and res.trials.epochs.max()==4 and res.trials.reason.str.contains('resumed').any()

def is_number(v): return v is not None and v is not pd.NA and math.isfinite(v)

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
        assert bad.reason.str.startswith(f'diverged in epoch {at}: the loss is not finite').all() and (bad.best_epoch<at).all()
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

def test_a_first_trial_without_a_finite_loss_ends_no_study(tmp_path):
    class First(Callback):
        order,count = 51,0
        def before_fit(self): First.count += 1
        def after_epoch(self):
            if First.count==1: self.recorder.values[-1][1] = math.nan
    res = digits(tmp_path, metrics=None).bayes_tune(1, lrs, n_trials=3, cbs=First(), **quick)
    assert res.trials.state.value_counts().to_dict()==dict(complete=2, failed=1)

def test_metrics_that_are_not_defined_in_a_warm_up(tmp_path):
    learn = digits(tmp_path, metrics=[skm_to_fastai(skm.precision_score, average='macro', labels=[77], zero_division=math.nan), accuracy])
    with pytest.raises(TuneError, match='^1 trial, none succeeded.* never had a finite value'):  # after a whole training: the loss is fine
        learn.bayes_tune(2, lrs, n_trials=3, mode='max', **quick)
    res = learn.bayes_tune(2, lrs, n_trials=2, monitor='accuracy', pruner='none', **quick)
    assert set(res.trials.state)=={'complete'}

def ends(T, curves, **kwargs):
    "What an `BayesOptimizer` makes of curves: epochs after which it stops, and states"
    o,res = BayesOptimizer(dict(x=(0., 1.)), T, seed=0, **kwargs),[]
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
    o,res = ends(4, [[.1, .2, .3, .4], [nan, .3, None, .5], [math.inf, None, .45, .6], [.59, .59, .59, nan], [None]*4], resume=False)
    assert [e for e,_ in res]==[4]*5 and [s for _,s in res]==['complete']*3+['failed']*2
    assert o.best[1:]==(.6, 4)
    o = BayesOptimizer(dict(x=(0., 1.)), 9, seed=0)
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
    return [(o.values(T).tolist(), o.failed) for o in StudyCache.of(s).surrogate(s, Space(dict(x=(0., 1.))), T)[0].trainings], T

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

class SkipAll(Callback):
    def __init__(self, event, what, order, which): self.event,self.what,self.order,self.which = event,what,order,which
    def before_fit(self): self.maybe('fit')
    def before_epoch(self): self.maybe('epoch')
    def before_train(self): self.maybe('train')
    def maybe(self, event):
        if event==self.event and self.epoch in self.which: raise self.what

@pytest.mark.parametrize('event,what,order,match', [
    ('fit', CancelFitException, 70, 'no epoch was reported; SkipAll.maybe cancelled all'), ('epoch', CancelFitException, 0, 'no epoch was reported; SkipAll.maybe cancelled all'),
    ('epoch', CancelEpochException, 55, 'no epoch was reported; SkipAll.maybe cancelled all'), ('epoch', CancelEpochException, 70, 'SkipAll.maybe cancelled all'),
    ('epoch', CancelEpochException, 0, 'SkipAll.maybe cancels the first epoch before Recorder, which fastai cannot train; give the callback an order above 50'),
    ('train', CancelTrainException, 55, 'SkipAll.maybe cancelled all'), ('train', CancelEpochException, 55, 'SkipAll.maybe cancelled all')])
def test_who_cancels_each_epoch_is_named(tmp_path, event, what, order, match):
    with pytest.raises(TuneError, match=match):
        digits(tmp_path).bayes_tune(3, lrs, n_trials=3, cbs=SkipAll(event, what, order, range(9)), **quick)

@pytest.mark.parametrize('order,which', [(55, (0,)), (0, (1,)), (55, (1,)), (70, (3,))])
def test_epochs_that_fastai_can_cancel_may_be_cancelled(tmp_path, order, which):
    cb = lambda: SkipAll('epoch', CancelEpochException, order, which)
    with (learn := digits(tmp_path)).no_bar(), learn.no_logging(): learn.fit(4, cbs=cb())
    res = digits(tmp_path).bayes_tune(4, lrs, n_trials=2, pruner='none', cbs=cb(), **quick)
    assert set(res.trials.state)=={'complete'} and set(res.trials.epochs)=={3}

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
    curves = lambda r: [[v for v in t.intermediate_values.values() if v==v] for t in trials_of(r.study.trials)][:3]
    assert curves(whole)==curves(res)

def test_a_saver_of_ones_own_keeps_the_right_epoch(tmp_path):
    "Where the metric is there in every third epoch only"
    res = digits(tmp_path, cbs=Shown(lambda n: .5+n/100 if n%3==0 else math.nan)).bayes_tune(
        6, lrs, n_trials=2, pruner='none', cbs=SaveModelCallback(monitor='accuracy'), **quick)
    assert set(res.trials.state)=={'complete'} and set(res.trials.best_epoch)=={6}

# 9. A hyperparameter without effect

def shares(seen):
    def two_parts(learn, n_epoch, cbs, share=.5):
        seen.append(share)
        learn.fit_one_cycle(n_epoch, cbs=cbs)
    return two_parts
def with_kwargs(seen):
    def two_parts(learn, n_epoch, cbs, **kwargs):
        seen.append(kwargs['share'])
        learn.fit_one_cycle(n_epoch, cbs=cbs)
    return two_parts
def through(seen):
    inner = shares(seen)
    def outer(learn, n_epoch, **kwargs): inner(learn, n_epoch, **kwargs)
    return outer
class Fits:
    def __init__(self, seen): self.seen = seen
    def __call__(self, learn, n_epoch, cbs, share=.5): shares(self.seen)(learn, n_epoch, cbs, share)
@pytest.mark.parametrize('factory', [False, True])
@pytest.mark.parametrize('mk', [shares, with_kwargs, through, Fits, lambda seen: partial(shares(seen), share=.3)])
def test_what_the_fit_takes_is_given_to_it(tmp_path, mk, factory):
    seen = []
    kwargs = dict(new_learner=lambda p: digits(tmp_path)) if factory else {}
    res = digits(tmp_path).bayes_tune(1, dict(lrs, share=(.1, .9)), n_trials=3, fit=mk(seen), recipes=False, **kwargs, **quick)
    assert seen[-3:]==[t.params['share'] for t in res.study.trials] and len(set(seen[-3:]))==3

def test_the_default_of_the_fit_is_tried_first(tmp_path):
    res = digits(tmp_path).bayes_tune(1, dict(lrs, share=(.1, .9)), n_trials=1, fit=shares([]), **quick)
    assert res.params_of(0)['share']==.5

def ignores(learn, n_epoch, cbs, share=.5, pct_start=.3): learn.fit(n_epoch, cbs=cbs)
def swallows(learn, n_epoch, cbs, **kwargs): learn.fit(n_epoch, cbs=cbs)
def swallows_too(learn, n_epoch, cbs, **kwargs): learn.fit(n_epoch, cbs=cbs, **{k: v for k,v in kwargs.items() if k=='wd'})
def drops_out(p): return digits('.', model=nn.Sequential(nn.Dropout(p.get('dropout', .1)), nn.Linear(64, 10)))
def constant(p): return digits('.')
def asks(trial):
    trial.suggest_float('dropout', .1, .5)
    return digits('.')
without = {
    'unused argument': (dict(share=(.1, .9)), dict(fit=ignores), 'share: ignores never uses it'),
    'unused knob': (dict(pct_start=(.1, .9)), dict(fit=ignores), 'pct_start: ignores never uses it'),
    'kwargs': (dict(pct_start=(.1, .9)), dict(fit=swallows), 'pct_start: swallows never uses it'),
    'kwargs, own name': (dict(share=(.1, .9)), dict(fit=swallows_too), "unknown hyperparameter 'share'"),
    'misspelt': (dict(drpout=(.1, .9)), dict(new_learner=drops_out), "drpout is in the space, but .* did you mean 'dropout'"),
    'argument of the factory': (dict(dropout=(.1, .9)), dict(new_learner=lambda p, dropout=.1: digits('.')), 'dropout is in the space, but .* reads nothing'),
    'nothing read': (dict(width=[8, 16]), dict(new_learner=constant), 'width is in the space, but .* reads nothing'),
    'knob that a factory sees to': (dict(ps=(.1, .5)), dict(new_learner=constant), 'ps is in the space'),
    'with trial': (dict(drpout=(.1, .9)), dict(new_learner=asks), "drpout is in the space, but .* did you mean 'dropout'"),
    'enqueued': (dict(lrs), dict(new_learner=asks, enqueue=[dict(drpout=.2)]), 'new_learner does not suggest drpout'),
    'given and tuned': (dict(share=(.1, .9)), dict(fit=shares([]), share=.2), 'share is passed to the fit and tuned as well'),
}
@pytest.mark.parametrize('name', without)
def test_a_name_without_effect_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    space,kwargs,match = without[name]
    learn = digits(tmp_path)
    before,proc = picture(learn),process()
    with pytest.raises(ValueError, match=match): learn.bayes_tune(1, {**lrs, **space}, **kwargs, **quick)
    assert same(before, picture(learn)) and process()==proc and files(tmp_path)==[]

def constant_lr(learn, n_epoch, cbs, **kwargs): learn.fit_one_cycle(n_epoch, 1e-2, cbs=cbs)
def constant_wd(learn, n_epoch, cbs): learn.fit(n_epoch, wd=.1, cbs=cbs)
def constant_moms(learn, n_epoch, cbs): learn.fit_one_cycle(n_epoch, moms=(.9, .8, .9), cbs=cbs)
def constant_pct(learn, n_epoch, cbs, lr, pct_start): learn.fit_one_cycle(n_epoch, lr, pct_start=.3 if pct_start else .3, cbs=cbs)
def two_stages(learn, n_epoch, cbs):
    learn.fit(1, 1e-4, cbs=cbs)
    learn.fit(n_epoch-1, cbs=cbs)
class Stubborn(Learner):
    def fit_one_cycle(self, n_epoch, lr_max=None, **kwargs): self.fit(n_epoch, 1e-3, cbs=kwargs['cbs'])
overridden = {'pct_start': (constant_pct, dict(lrs, pct_start=(.1, .9))), 'lr': (constant_lr, lrs), 'wd': (constant_wd, dict(wd=(.1, .3))), 'moms': (constant_moms, dict(moms=[(.95,.85,.95), (.9,.8,.9), (.8,.7,.8), (.7,.6,.7)]))}
@pytest.mark.parametrize('name', overridden)
def test_a_constant_of_the_fit(tmp_path, name):
    fit,space = overridden[name]
    with pytest.raises(KnobError, match=f'{name} has no effect'): digits(tmp_path).bayes_tune(2, space, fit=fit, **quick)
    assert files(tmp_path)==[]

def other_opt(learn, n_epoch, cbs):
    learn.opt_func,learn.opt = RMSProp,None
    learn.fit(n_epoch, cbs=cbs)
def other_bs(learn, n_epoch, cbs):
    learn.dls = loaders(learn.path, bs=20)
    learn.fit(n_epoch, cbs=cbs)
def other_loss(learn, n_epoch, cbs):
    learn.loss_func = CrossEntropyLossFlat()
    learn.fit(n_epoch, cbs=cbs)
class OtherOpt(Callback):
    def before_fit(self):
        self.learn.opt_func = RMSProp
        self.learn.create_opt()
@pytest.mark.parametrize('name,values,kwargs', [('opt_func', [Adam, SGD], dict(fit=other_opt)), ('opt_func', [Adam, SGD], dict(cbs=OtherOpt())),
    ('bs', [16, 64], dict(fit=other_bs)), ('label_smoothing', (.1, .3), dict(fit=other_loss))])
def test_what_a_fit_or_a_callback_puts_in_the_place_of_a_choice_is_said(tmp_path, name, values, kwargs):
    with pytest.warns(UserWarning, match=f'{name} has no effect: .*the training has {name}='):
        digits(tmp_path).bayes_tune(1, {name: values}, n_trials=1, enqueue=False, **kwargs, **quick)

def test_a_method_that_ignores_what_it_is_given(tmp_path):
    learn = Stubborn(loaders(tmp_path), net(), loss_func=CrossEntropyLossFlat(), metrics=accuracy)
    with pytest.raises(KnobError, match='lr has no effect'): learn.bayes_tune(2, lrs, **quick)
    assert len(digits(tmp_path).bayes_tune(2, lrs, n_trials=1, fit=two_stages, **quick).trials)==1
readers = {'item': lambda p: p['x'], 'get': lambda p: p.get('x'), 'in': lambda p: 'x' in p, 'stars': lambda p: dict(**p), 'iteration': lambda p: [k for k in p],
           'items': lambda p: list(p.items()), 'values': lambda p: list(p.values()), 'dict': dict, 'copy, then item': lambda p: p.copy()['x'],
           'deepcopy': deepcopy, 'pop': lambda p: p.pop('x'), 'union': lambda p: {} | p, 'format': lambda p: '{x}'.format_map(p), 'json': lambda p: __import__('json').dumps(p),
           'under a condition': lambda p: p['lr']>.0999 and p['x'], 'at an end': lambda p: p['lr']>.09 and getattr(p, 'g'+'et')('x'.lower())}
@pytest.mark.parametrize('name', readers)
def test_every_way_to_read_a_name_counts(tmp_path, name):
    def make(p):
        readers[name](p)
        return digits(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        res = digits(tmp_path).bayes_tune(1, dict(lrs, x=(.1, .9)), n_trials=1, new_learner=make, **quick)
    assert len(res.trials)==1 and 'x' in res.best_params

def test_what_is_read_in_one_branch_only(tmp_path):
    def make(p):
        if p['kind']=='b': p['depth']
        return digits(tmp_path)
    spec = dict(kind={'a': {}, 'b': dict(depth=(1, 4)), 'c': {}}, lr=(1e-3, .1, 'log'))
    assert len(digits(tmp_path).bayes_tune(1, spec, n_trials=2, new_learner=make, **quick).trials)==2

def test_what_no_trial_has_read_is_said(tmp_path):
    def make(p):
        if p['lr']<0: p['depth']
        return digits(tmp_path)
    with pytest.warns(UserWarning, match='depth is in the space, but new_learner has not read it in any of'):
        digits(tmp_path).bayes_tune(1, dict(lrs, depth=(1, 4)), n_trials=4, new_learner=make, **quick)

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
    if labels: kw['labels'] = y[:len(dls.train_ds)].numpy()
    dls.loaders[0] = cls(dls.train_ds, bs=32, shuffle=True, drop_last=True, num_workers=0, **kw)
    return digits(path, dls)

def after_the_fact(path):
    learn = own(path, TfmdDL, False)
    learn.dls.train.weights = torch.rand(len(learn.dls.train_ds))
    return learn

class Slotted(TfmdDL):
    __slots__ = 'weights',
    def __init__(self, dataset, labels=None, **kw):
        self.weights = labels
        super().__init__(dataset, **kw)
def from_labels(n): return lambda: n
class Closure(TfmdDL):
    def __init__(self, dataset, labels=None, **kw):
        self.draw = from_labels(labels)
        super().__init__(dataset, **kw)
class Bound(TfmdDL):
    def __init__(self, dataset, labels=None, **kw):
        self.draw = partial(from_labels, labels)
        super().__init__(dataset, **kw)
class Stubborn32(TfmdDL):
    "Its batch size is always the same"
    def __init__(self, dataset, bs=64, **kw): super().__init__(dataset, bs=32, **kw)
class NoBs(TfmdDL):
    def new(self, dataset=None, cls=None): return super().new(dataset, cls)

def test_a_loader_that_does_not_take_a_batch_size(tmp_path):
    for cls,why in ((Stubborn32, 'ignores bs'), (NoBs, 'new fails .*bs')):
        learn = own(tmp_path, cls, False)
        with pytest.raises(LoaderError, match=f'^bs: {cls.__name__}.*{why}.*give the class a method new'): learn.bayes_tune(1, dict(lrs, bs=[16, 64]), **quick)
        assert 'bs' not in learn.bayes_tune(1, n_trials=1, **quick).best_params
    batches = DataLoader([(x[:32], y[:32]), (x[32:64], y[32:64])], bs=None, num_workers=0)
    with pytest.raises(LoaderError, match='cannot be changed'): digits(tmp_path, DataLoaders(batches, loaders(tmp_path).valid, path=tmp_path)).bayes_tune(1, dict(bs=[16, 64]), **quick)
    assert digits(tmp_path).bayes_tune(1, dict(bs=[np.int64(16), np.int64(64)]), n_trials=1, **quick).best_params['bs'] in (16, 64)

lossy = {'slots': (lambda p: own(p, Slotted), 'pass on weights'), 'closure': (lambda p: own(p, Closure), 'pass on draw'), 'partial': (lambda p: own(p, Bound), 'pass on draw'),
         'asks for labels': (lambda p: own(p, Balanced), 'missing 1 required positional'), 'loses them': (lambda p: own(p, Maybe), 'pass on sampler'),
         'after the fact': (after_the_fact, 'pass on weights')}
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
        with pytest.raises(LoaderError, match='pass on sampler'): learn.bayes_tune(1, space, **quick)

# 11. Data and `n_epoch` change under a study's name; `extend=True`
def sized(path, n=160): return digits(path, loaders(path, n))
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
    'half the training set': (sized, lambda p: sized(p, 80), {}, '- training set: 160\n\\+ training set: 80'),
    'another validation set': (digits, lambda p: digits(p, DataLoaders(loaders(p).train, TfmdDL(TensorDataset(x[:50], y[:50]), bs=50), path=p)), {},
                               '- validation set: 100\n\\+ validation set: 50'),
    'one more class': (lambda p: classes(p, 'a', 'b'), lambda p: classes(p, 'a', 'b', 'c'), {}, '- classes: 2: a, b\n\\+ classes: 3: a, b, c'),
    'classes in another order': (lambda p: classes(p, 'a', 'b'), lambda p: classes(p, 'b', 'a'), {}, 'classes: 2: b, a'),
    'another model': (digits, lambda p: digits(p, model=net(20)), {}, r'- weights 0.weight: \(16, 64\).*\+ weights 0.weight: \(20, 64\)'),
    'another fit': (digits, digits, dict(fit='fit'), '- fit: fit_one_cycle\n\\+ fit: fit'),
    'another loss, if that is monitored': (digits, lambda p: digits(p, loss_func=LabelSmoothingCrossEntropyFlat()), dict(before=dict(monitor='valid_loss'), monitor='valid_loss'), 'loss: .*LabelSmoothing'),
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

def grow(path, n=6, epochs=1, space=lrs, storage=None, make=digits, **kwargs):
    return make(path).bayes_tune(epochs, space, **{**quick, 'n_trials': n, 'study_name': 's', 'pruner': 'none', 'storage': storage, **kwargs})
def plainly(path, storage=None):
    "The study, as Optuna finds it without this package"
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    return optuna.load_study(study_name='s', storage=storage or JournalStorage(JournalFileBackend(f'{path}/models/bayes/s/study.log')))

lr_opt = dict(lr=(1e-3, 1e-1, 'log'), opt_func=[Adam, SGD])
spaces = {  # before, after, which trials lie in the new space, and arguments
    'a wider range': (lrs, dict(lr=(1e-4, 1., 'log')), lambda p: True, {}),
    'a narrower range': (lrs, dict(lr=(1e-2, 1e-1, 'log')), lambda p: p['lr']>=1e-2, {}),
    'another scale': (lrs, dict(lr=(1e-3, 1e-1)), lambda p: True, {}),
    'more choices': (lr_opt, dict(lr_opt, opt_func=[ranger, SGD, Adam]), lambda p: True, {}),
    'fewer choices': (lr_opt, dict(lr_opt, opt_func=[SGD, ranger]), lambda p: p['opt_func']=='SGD', {}),
    'one more': (lrs, dict(lrs, wd=(1e-3, .3, 'log')), lambda p: p['wd']==.01, {}),
    'one more, of which they had what is told': (lrs, dict(lrs, wd=(1e-3, .3, 'log')), lambda p: p['wd']==.1, dict(extend=dict(wd=.1))),
    'one more, that was an argument': (lrs, dict(lrs, pct_start=(.1, .9)), lambda p: p['pct_start']==.5, dict(before=dict(pct_start=.5))),
    'one fewer': (dict(lrs, wd=(1e-3, .3, 'log')), lrs, lambda p: True, {}),
    'one fewer, of text': (lr_opt, lrs, lambda p: p['opt_func']=='Adam', {}),
    'numbers for choices': (dict(lr=[1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 4e-2, 6e-2, 8e-2, 1e-1]), dict(lr=(1e-3, 1e-1, 'log')), lambda p: True, {}),
    'all at once': (lr_opt, dict(lr=(1e-2, 1., 'log'), opt_func=[SGD, ranger], wd=(1e-3, .3, 'log')), lambda p: p['lr']>=1e-2 and p['opt_func']=='SGD', {})}
@pytest.mark.parametrize('change', spaces)
def test_another_space(tmp_path, change):
    "Trials keep numbers, curves and values; those in the new space are learned from, the others are only in the tables"
    before,after,inside,kwargs = spaces[change]
    storage = db(tmp_path, 'a') if len(change)%2 else None
    kwargs = dict(kwargs)
    first = grow(tmp_path, 6, space=before, storage=storage, **kwargs.pop('before', {}))
    old = {t.number: (t.params, t.intermediate_values, t.datetime_start) for t in first.study.trials}
    with pytest.raises(StudyError, match='extend=True'): grow(tmp_path, 6, space=after, storage=storage)
    res = grow(tmp_path, 8, space=after, storage=storage, **{'extend': True, **kwargs})
    trials = plainly(tmp_path, storage).trials
    assert [t.number for t in trials]==list(range(8)) and len(res.trials)==8
    from fastai_bayes.study.records import all_params, state_of
    from fastai_bayes.study.search_space import distributions
    for t in trials[:6]:
        params,curve,start = old[t.number]
        assert (t.intermediate_values, t.datetime_start)==(curve, start) and {**all_params(t), **params}==all_params(t)
        assert (state_of(t)=='complete')==bool(inside(all_params(t))), t
        assert state_of(t)=='outside' or t.distributions==distributions(res.space)
    assert len(StudyCache.of(res.study).surrogate(res.study, res.space, 1)[1])==sum(state_of(t)=='complete' for t in trials)
    assert [set(t.params) for t in trials[6:]]==[set(after)]*2
    assert grow(tmp_path, 8, space=after, storage=storage).best_params.keys()>=set(after)  # the new space is the study's now

@pytest.mark.parametrize('sampler', ['bayes', 'tpe', 'gp', 'cmaes', 'random'])
def test_samplers_go_on_in_another_space(tmp_path, sampler):
    kwargs = dict(sampler=sampler, storage=db(tmp_path, 'a'))
    grow(tmp_path, 11, space=lr_opt, **kwargs)
    after = dict(lr=(3e-3, 1., 'log'), opt_func=[SGD, ranger, Adam], wd=(1e-3, .3, 'log'))
    res = grow(tmp_path, 14, space=after, extend=True, **kwargs)
    from fastai_bayes.engine.space import Space
    space = Space(after)
    assert len(res.trials)==14 and all(space.check(space.values(t.params)) for t in res.study.trials[11:])
    assert res.best_value==max(v for v,s in zip(res.trials.value, res.trials.state) if s=='complete')
    if sampler=='bayes': res.report(tmp_path/'r.html')
    plain = plainly(tmp_path, db(tmp_path, 'a'))
    plain.sampler = optuna.samplers.TPESampler(seed=0, multivariate=True, n_startup_trials=2)
    assert set(plain.ask(dict(lr=optuna.distributions.FloatDistribution(3e-3, 1., log=True))).params)=={'lr'}

@pytest.mark.parametrize('before,after,words', [
    ([1, 2], ['1', '2'], ["1 | 2", "'1' | '2'"]), (['1', '2'], [1, 2], ["'1' | '2'", "1 | 2"]), ([True, False], ['True', 'False'], ["True | False", "'True' | 'False'"]),
    ([None, 'a'], ['None', 'a'], ["None | a", "'None' | a"]), ([float('nan'), 1], ['nan', 1], ["nan | 1", "'nan' | 1"]),
    (['a | b', 'c'], ['a', 'b | c'], ["'a | b' | c", "a | 'b | c'"]), (['a', ''], ['a', "''"], ["a | ''", 'a | "\'\'"'])])
def test_options_that_only_look_alike_are_others(tmp_path, before, after, words):
    "A number is not its text: the study says what differs, and its trials are outside of the new space if none is in it"
    def line(options, n, **kwargs): return grow(tmp_path, n, space=dict(lrs, k=options), new_learner=lambda p: (p['k'], digits(tmp_path))[1], sampler='random', **kwargs)
    had = [t.params['k'] for t in line(before, 3).study.trials]
    with pytest.raises(StudyError) as e: line(after, 5)
    assert [o for o in str(e.value).splitlines() if o[:1] in '-+']==[f'- k: {words[0]}', f'+ k: {words[1]}']
    trials = line(after, 5, extend=True).study.trials
    inside = [any(type(o) is type(k) and str(o)==str(k) for o in after) for k in had]
    assert [state_of(t)=='complete' for t in trials]==[*inside, True, True] and {type(t.params['k']) for t in trials[3:]}<={*map(type, after)}

class Rates(Callback):
    "Notes epochs and learning rates"
    def __init__(self, seen): self.seen = seen
    def __deepcopy__(self, memo): return Rates(self.seen)
    def before_batch(self):
        if self.training and self.iter==1: self.seen.append((self.n_epoch, self.epoch, float(self.opt.hypers[-1]['lr'])))

@pytest.mark.parametrize('fit,frozen', [('fit_one_cycle', 0), ('fit', 0), ('fine_tune', 1)])
def test_more_epochs(tmp_path, fit, frozen):
    "The best three go on from their checkpoints, on the schedule of the new length"
    short = grow(tmp_path, 5, 2, fit=fit)
    curves = {t.number: t.intermediate_values for t in short.study.trials}
    with pytest.raises(StudyError, match='extend=True'): grow(tmp_path, 5, 4, fit=fit)
    seen = []
    res = grow(tmp_path, 5, 4, fit=fit, extend=True, cbs=Rates(seen))
    df = res.trials.sort_values('number')
    assert sorted(df.epochs)==[2+frozen]*2+[4+frozen]*3 and sorted(df.state)==['complete']*3+['stopped']*2
    assert len([o for o in seen if o[0]==4])==3*2 and {o[1] for o in seen if o[0]==4}=={2, 3}  # no epoch is trained again
    best = sorted(curves, key=lambda n: max(curves[n].values()), reverse=True)[:3]
    longer = [t for t in res.study.trials if t.user_attrs.get('resumed_from')]
    assert {t.user_attrs['resumes'] for t in longer}=={*best}
    for t in longer: assert {k: v for k,v in t.intermediate_values.items() if k<=2+frozen}==curves[t.user_attrs['resumes']]
    assert all(t.user_attrs['n_epoch']==4+frozen for t in longer) and res.study.user_attrs['n_epoch']==4+frozen
    if fit=='fit_one_cycle':
        lr = longer[0].params['lr']
        first = next(o[2] for o in seen if o[0]==4)
        assert .5*lr<first<.95*lr  # half of the schedule is over: past its top, far from its end
    assert plainly(tmp_path).best_trial.number in [t.number for t in longer]
    with pytest.raises(StudyError, match='- n_epoch: .*\n\\+ n_epoch: '): grow(tmp_path, 5, 2, fit=fit, extend=True)

def test_more_epochs_with_the_engine_and_another_space(tmp_path):
    "Stopped trainings can be resumed to the new length as well"
    grow(tmp_path, None, 4, budget=20, pruner='bayes')
    spent = sum(len(t.intermediate_values) for t in plainly(tmp_path).trials)
    res = grow(tmp_path, None, 6, dict(lr=(1e-3, 1., 'log')), budget=spent+20, pruner='bayes', extend=True)
    assert (res.trials.epochs<=6).all() and (res.trials[res.trials.state=='complete'].epochs==6).all() and (res.trials.epochs==6).any()

def test_more_epochs_without_the_checkpoints(tmp_path):
    "They are trained again from the start, and say so"
    res = grow(tmp_path, 2, 1)
    for f in res.folder.glob('trial_*/checkpoint.pt'): f.unlink()
    res = grow(tmp_path, 2, 2, extend=True)
    assert list(res.trials.epochs)==[2, 2] and res.trials.reason.str.contains('trained again from the start').all()

def test_more_epochs_and_a_factory_that_asks(tmp_path):
    dls = loaders(tmp_path)
    def make(trial): return digits(tmp_path, dls, net(trial.suggest_int('width', 8, 16)))
    line = dict(new_learner=make, space=None)
    assert list(grow(tmp_path, 3, 1, **line).trials.epochs)==[1]*3
    res = grow(tmp_path, 3, 2, extend=True, **line)
    assert list(res.trials.epochs)==[2]*3 and set(res.best_params)>={'width'}

@pytest.mark.parametrize('kwargs,match', [(dict(make=lambda p: sized(p, 80)), 'training set: 80'), (dict(fit='fit'), r'\+ fit: fit'),
    (dict(make=lambda p: digits(p, model=net(20))), r'weights 0.weight: \(20, 64\)'), (dict(extend=dict(x=1)), "got 'x'"), (dict(extend=dict(lr=.1)), "got 'lr'"),
    (dict(space=dict(lrs, wd=(.1, .3)), extend=dict(wd='x')), "wd: expected a number, got 'x'"),
    (dict(space=dict(lrs, width=[8]), new_learner=lambda p: digits('.', model=net(2*p['width']))), r'extend=dict\(width=...\)')])
def test_what_extending_cannot_mean(tmp_path, kwargs, match):
    "Refused, with nothing written"
    grow(tmp_path, 1)
    before = tree(tmp_path)
    with pytest.raises(StudyError, match=f'(?s){match}'): grow(tmp_path, 2, **{'space': dict(lr=(1e-3, 1., 'log')), 'extend': True, **kwargs})
    assert tree(tmp_path)==before and len(grow(tmp_path, 2).trials)==2

@pytest.mark.parametrize('extend', [None, 1, 'yes', ['wd'], .5])
def test_extend_is_true_false_or_values(tmp_path, extend):
    with pytest.raises(TuneError, match='extend: expected True, False'): grow(tmp_path, 1, extend=extend)
    assert not list(tmp_path.rglob('*'))

def test_a_result_from_before_a_study_was_extended(tmp_path):
    old = grow(tmp_path, 1)
    grow(tmp_path, 2, space=dict(lr=(1e-3, 1., 'log')), extend=True)
    with pytest.raises(StudyError, match='has been extended or deleted since'): old.trials

def test_extending_while_others_are_at_work(tmp_path):
    from fastai_bayes.study.workers import Worker
    folder = grow(tmp_path, 1).folder
    other = Worker(folder)
    with pytest.raises(StudyError, match='no other process'): grow(tmp_path, 1, 2, extend=True)
    other.close()
    assert list(grow(tmp_path, 1, 2, extend=True).trials.epochs)==[2]

def test_extending_what_a_dead_process_left(tmp_path):
    "A trial that was under way goes on, in the new space"
    dying(tmp_path)
    res = grow(tmp_path, 3, 3, dict(lr=(1e-4, 1., 'log')), extend=True)
    assert list(res.trials.epochs)==[3]*3 and any(t.user_attrs.get('cut')=='died' for t in res.study.trials)

def dying(path):
    "A trial is left running, as if its process had been killed"
    from fastai_bayes.learner.runner import Run
    tell = Run.tell
    Run.tell = lambda *args, **kwargs: (_ for _ in ()).throw(ArithmeticError)
    try: grow(path, 3, 3, cbs=Break(KeyboardInterrupt(), range(99), 2))
    finally: Run.tell = tell

# 12. The clock, bound fits, instances of samplers and pruners
class Clock(datetime.datetime):
    jump = datetime.timedelta(0)
    @classmethod
    def now(cls, tz=None): return datetime.datetime.now(tz)+cls.jump

@pytest.mark.parametrize('hours', [-5, 5])
def test_a_clock_that_is_set(tmp_path, monkeypatch, hours):
    "Seconds are counted by a clock that nobody sets, so `timeout` neither ends at once nor never"
    monkeypatch.setattr(optuna.storages.journal._storage, 'datetime', Clock)
    class Set(Callback):
        def after_epoch(self): Clock.jump += datetime.timedelta(hours=hours)
    tune = lambda **kw: digits(tmp_path).bayes_tune(1, lrs, study_name='s', cbs=Set(), **quick, **kw)
    Clock.jump = datetime.timedelta(0)
    assert len(tune(n_trials=2).trials)==2
    res = tune(n_trials=4, timeout=600)
    assert len(res.trials)==4 and (res.trials.seconds>=0).all() and res.trials.seconds.sum()<600
    assert len(tune(timeout=res.trials.seconds.sum()/2).trials)==4

def test_seconds_of_trials_that_did_not_count_them(tmp_path):
    from fastai_bayes.study.records import seconds_of
    now = datetime.datetime(2026, 1, 1)
    trial = lambda s, **attrs: optuna.trial.create_trial(state=optuna.trial.TrialState.COMPLETE, value=1., user_attrs=attrs)
    for attrs,span,want in [({}, -9, 0), ({}, 9, 9), (dict(seconds=3.), -9, 3), (dict(seconds=-3.), 9, 9), (dict(seconds='x'), 9, 9), (dict(seconds=1e99), -9, 0)]:
        t = trial(1, **attrs)
        t.datetime_start,t.datetime_complete = now,now+datetime.timedelta(seconds=span)
        assert seconds_of(t)==want

bound = {'method': lambda l: l.fit_one_cycle, 'partial': lambda l: partial(l.fit_one_cycle, pct_start=.3), 'of another': lambda l: digits(l.path).fit,
         'in a function': lambda l: lambda learn, n, cbs: l.fit(n, cbs=cbs), 'without cbs': lambda l: lambda learn, n, cbs: l.fit(n)}
@pytest.mark.parametrize('name', bound)
def test_a_fit_that_trains_another_learner(tmp_path, name):
    learn = digits(tmp_path)
    before = picture(learn)
    with pytest.raises(TuneError, match='pass (the|a) name'): learn.bayes_tune(1, lrs, fit=bound[name](learn), **quick)
    assert same(before, picture(learn)) and files(tmp_path)==[]

@pytest.mark.parametrize('fit,epochs', [(Learner.fit_one_cycle, 2), (Learner.fine_tune, 3), (partial(Learner.fine_tune, freeze_epochs=2), 4),
                                        (partial(Learner.fit_one_cycle, pct_start=.5), 2)])
def test_methods_of_the_class_are_fits(tmp_path, fit, epochs):
    res = digits(tmp_path).bayes_tune(2, lrs, n_trials=1, fit=fit, **quick)
    assert res.trials.epochs.tolist()==[epochs] and res.trials.state.tolist()==['complete']

class Cost(BayesSampler):
    def by_seconds(self): super().by_seconds(); costs.append(self.cost)
costs = []
def trials_at(path, **kwargs):
    res = digits(path, loaders(path, 64)).bayes_tune(4, lrs, study_name='s', **{**quick, 'n_trials': 5, **kwargs})  # brackets of hyperband depend on the name
    return [(t.params, t.state.name, t.intermediate_values) for t in res.study.trials]

@pytest.mark.parametrize('name,make', [('bayes', lambda: BayesSampler()), ('bayes', lambda: BayesSampler(4, 0)), ('pbt', lambda: PBT(4)),
    ('tpe', lambda: optuna.samplers.TPESampler(seed=0)), ('random', lambda: optuna.samplers.RandomSampler(seed=0)),
    ('qmc', lambda: optuna.samplers.QMCSampler(seed=0)), ('gp', lambda: optuna.samplers.GPSampler(seed=0)),
    ('grid', lambda: optuna.samplers.GridSampler(dict(lr=grid_of(Space(lrs))['lr']), seed=0))])
def test_a_samplers_name_and_its_instance_are_the_same(tmp_path, name, make, recwarn):
    own = make()
    before = repr(sorted(map(str, vars(own))))
    a,b,again = (trials_at(tmp_path/str(i), sampler=o, n_trials=3) for i,o in enumerate((name, own, own)))
    assert a==b==again and repr(sorted(map(str, vars(own))))==before  # it is as it was
    if name=='bayes': assert own.known is None and own.cost=='epochs'

@pytest.mark.parametrize('name,make', [('bayes', lambda: BayesPruner()), ('median', lambda: optuna.pruners.MedianPruner()), ('none', lambda: optuna.pruners.NopPruner()),
    ('asha', lambda: optuna.pruners.SuccessiveHalvingPruner()), ('hyperband', lambda: optuna.pruners.HyperbandPruner()),
    ('patient', lambda: optuna.pruners.PatientPruner(optuna.pruners.MedianPruner(), patience=1))])
def test_a_pruners_name_and_its_instance_are_the_same(tmp_path, name, make):
    own = make()
    assert trials_at(tmp_path/'a', pruner=name)==trials_at(tmp_path/'b', pruner=own)
    if name=='bayes': assert (own.n_startup, own.n_epoch, own.known)==(0, None, None)

def test_what_an_instance_was_given_it_keeps(tmp_path):
    for sampler,kwargs,cost in ((Cost(), dict(n_trials=None, timeout=1.), 'seconds'), (Cost(cost='epochs'), dict(n_trials=None, timeout=1.), 'epochs'),
                                (Cost(acq='ucb'), dict(n_trials=None, timeout=1.), 'epochs')):
        res = digits(tmp_path).bayes_tune(1, lrs, sampler=sampler, pruner=BayesPruner(n_startup=0), **{**quick, **kwargs})
        assert costs.pop()==cost and sampler.cost=='epochs' and res.study.pruner.n_startup==0 and res.study.sampler is not sampler

# 13. Threads, nesting, and callbacks that change the state dict
def test_studies_in_two_threads(tmp_path, capsys):
    import threading
    errors,gate,learners = [],threading.Barrier(2),[digits(tmp_path/o) for o in 'ab']
    class Meet(Callback):
        order = 51
        def __init__(self, gate=None): self.__dict__['gate'] = gate
        def __deepcopy__(self, memo): return self
        def before_fit(self): gate.wait(60)
    def study(learn):
        try: learn.bayes_tune(1, lrs, n_trials=1, cbs=[Meet(), SaveModelCallback('accuracy')], **quick)
        except BaseException as e: errors.append(e)
    threads,before = [threading.Thread(target=study, args=[o]) for o in learners],process()
    for o in threads: o.start()
    for o in threads: o.join()
    assert errors==[] and process()==before and capsys.readouterr().out==''

def test_one_learner_in_two_threads(tmp_path):
    import threading
    errors,learn = [],digits(tmp_path)
    class Other(Callback):
        order = 51
        def after_epoch(self):
            t = threading.Thread(target=study)
            t.start(), t.join()
    def study():
        try: learn.bayes_tune(1, lrs, n_trials=1, **quick)
        except TuneError as e: errors.append(str(e))
    res = learn.bayes_tune(1, lrs, n_trials=1, cbs=Other(), **quick)
    assert ['another thread is tuning this learner' in o for o in errors]==[True] and res.trials.state.tolist()==['complete']
    assert len(learn.bayes_tune(1, lrs, n_trials=1, **quick).trials)==1

# 14. Bit for bit with Optuna's samplers

def sampler_like(name):
    "A fresh sampler: by its name, or an instance that soon models"
    few = dict(seed=3, n_startup_trials=3)
    return {'tpe3': lambda: optuna.samplers.TPESampler(**few), 'gp3': lambda: optuna.samplers.GPSampler(**few)}.get(name, lambda: name)()

def all_of(res): return [(t.params, t.state.name, [v for v in t.intermediate_values.values()]) for t in trials_of(res.study.trials)]

class Cut(Callback):
    "Ctrl-C in the middle of epoch number `at` of the study"
    n = 0
    def __init__(self, at): self.at = at
    def before_train(self):
        Cut.n += 1
        if Cut.n==self.at: raise KeyboardInterrupt

lr_wd_bs = dict(lr=(1e-3, 1e-1, 'log'), wd=(1e-4, .3, 'log'), bs=[16, 32])
@pytest.mark.parametrize('sampler,pruner', [('tpe', 'asha'), ('tpe3', 'hyperband'), ('gp3', 'median'), ('cmaes', 'asha'), ('qmc', 'median'), ('random', 'asha'),
                                            ('grid', 'asha'), (None, 'asha'), ('pbt', None)])
def test_an_interrupted_study_of_any_search_repeats_itself(tmp_path, sampler, pruner):
    n = 8 if sampler in ('tpe', 'tpe3', 'gp3') else 6
    kwargs = dict(n_trials=n, pruner=pruner, study_name='s', **quick)
    def line(path, **more): return digits(path, loaders(path, 96)).bayes_tune(5, lr_wd_bs, sampler=sampler_like(sampler), **kwargs, **more)
    whole = line(tmp_path/'a')
    Break.count = Cut.n = 0
    for cb in (Cut(4), Break(KeyboardInterrupt(), (3,)), Cut(14)): line(tmp_path/'b', cbs=cb)
    res = line(tmp_path/'b')
    assert all_of(res)==all_of(whole) and len(res.study.trials)>=len(whole.study.trials)+1

def test_a_sampler_without_a_seed_gets_that_of_the_study(tmp_path):
    a,b = (digits(tmp_path/o).bayes_tune(1, lr_wd_bs, n_trials=4, sampler=optuna.samplers.TPESampler(), pruner='none', **quick) for o in 'ab')
    assert [t.params for t in a.study.trials]==[t.params for t in b.study.trials]

def test_a_sampler_of_ones_own_is_used_as_it_is(tmp_path):
    class Mine(optuna.samplers.RandomSampler):
        asked = 0
        def sample_independent(self, *args):
            self.asked += 1
            return super().sample_independent(*args)
    mine = Mine(0)
    digits(tmp_path).bayes_tune(1, lrs, n_trials=3, sampler=mine, pruner='none', **quick)
    assert mine.asked==2  # the first trial is the learner's

def test_other_weights_at_a_new_beginning_are_said(tmp_path, recwarn):
    def line(new, name, cbs=None): return digits(tmp_path).bayes_tune(2, lrs, n_trials=2, new_learner=new, study_name=name, cbs=cbs, **quick)
    class First(Callback):
        "The process is interrupted in the first epoch"
        n = 0
        def after_train(self):
            First.n += 1
            if First.n==1: raise KeyboardInterrupt
    gen = torch.Generator()
    def own(p):
        learn = digits(tmp_path)
        with torch.no_grad(): learn.model[0].weight.normal_(generator=gen)
        return learn
    for new,name in ((lambda p: digits(tmp_path), 'same'), (own, 'own')):
        First.n = 0
        line(new, name, First()), line(new, name)
        assert sum('with other initial weights' in str(o.message) for o in recwarn)==(name=='own')

# 15. Impossible combinations
def heads(path, how=ValueError, cost=None):
    "A factory of learners whose width must be a multiple of the number of heads"
    def make(p):
        if p['d']%p['h']: raise how(f"{p['d']} is no multiple of {p['h']}")
        return digits(path, model=net(p['d']))
    return make
def asking(path, how):
    make = heads(path, how)
    def new_learner(trial):
        p = dict(d=trial.suggest_int('d', 4, 13), h=trial.suggest_categorical('h', [3, 5, 7]))
        res = make(p)
        res.lr = trial.suggest_float('late', .01, .1, log=True)  # asked for by those only that are possible
        return res
    return new_learner
hs = dict(d=(4, 13), h=[3, 5, 7])
def possible(res): return [t.params['d']%t.params['h']==0 for t in res.study.trials]

@pytest.mark.parametrize('how', [ValueError, optuna.TrialPruned])
@pytest.mark.parametrize('asks', [False, True])
@pytest.mark.parametrize('seed', [1, 4])
def test_impossible_combinations_are_learned_and_do_not_count(tmp_path, how, asks, seed):
    learn = digits(tmp_path)
    how_to = dict(new_learner=asking(tmp_path, how)) if asks else dict(space=hs, new_learner=heads(tmp_path, how))
    res = learn.bayes_tune(1, n_trials=5, verbose=False, seed=seed, **how_to)
    ok = possible(res)
    assert sum(ok)==5 and ok.count(False)>=1  # those that are impossible do not count
    for t,o in zip(res.study.trials, ok):
        assert (t.state.name=='COMPLETE')==o and ('no multiple' in t.user_attrs.get('infeasible', ''))==(not o)
    df = res.trials
    assert (df.state=='infeasible').sum()==ok.count(False) and df.state.iloc[-1]=='infeasible'
    assert f'5 trials, {ok.count(False)} infeasible, 5 epochs' in repr(res).splitlines()[0]

def test_a_study_in_which_nothing_is_possible_ends_and_says_why(tmp_path, monkeypatch):
    from fastai_bayes.learner.runner import Run
    monkeypatch.setattr(Run, 'most_infeasible', 6)
    calls = []
    def make(p):
        calls.append(p['x'])
        if len(calls)>1: raise ValueError(f'number {len(calls)}')  # the probe is built
        return digits(tmp_path)
    with pytest.raises(TuneError, match='6 trials, none succeeded; the last 6 were infeasible: ValueError: number 5; .* 6; .* 7') as e:
        digits(tmp_path).bayes_tune(1, dict(x=(0., 1.)), n_trials=3, new_learner=make, study_name='s', **quick)
    assert str(e.value.__cause__)=='number 7'
    calls.clear()
    with pytest.raises(TuneError, match='12 trials'): digits(tmp_path).bayes_tune(1, dict(x=(0., 1.)), n_trials=3, new_learner=make, study_name='s', **quick)

def test_impossible_ones_in_between_do_not_count_as_failures(tmp_path):
    n = []
    def make(p):
        n.append(p['x'])
        if len(n) in (3, 5): raise ValueError('impossible')
        return digits(tmp_path, loss_func=CrossEntropyLossFlat() if len(n) in (1, 7) else lambda *args: 1/0)  # it and the failures: of the training
    learn = digits(tmp_path)
    with pytest.raises(TuneError, match='5 trials, none succeeded; the last failed with: ZeroDivisionError'):
        learn.bayes_tune(1, dict(x=(0., 1.)), n_trials=8, new_learner=make, **quick)

@pytest.mark.parametrize('error', [OSError('no network'), RuntimeError('CUDA out of memory')])
def test_what_is_the_machines_fault_is_a_failure(tmp_path, error):
    n = []
    def make(p):
        n.append(p['x'])
        if len(n)==2: raise error
        return digits(tmp_path)
    res = digits(tmp_path).bayes_tune(1, dict(x=(0., 1.)), n_trials=2, new_learner=make, **quick)
    assert [t.state.name for t in res.study.trials]==['FAIL', 'COMPLETE'] and 'infeasible' not in res.study.trials[0].user_attrs

def test_pruned_in_a_training(tmp_path):
    class Pruned(Callback):
        def after_epoch(self):
            if self.epoch==self.at: raise optuna.TrialPruned('not good enough')
        def before_fit(self):
            if self.at is None: raise optuna.TrialPruned
    Pruned.order = 70
    for at,state,why in ((None, 'infeasible', 'TrialPruned'), (0, 'stopped', 'not good enough')):
        Pruned.at,n = at,[]
        class Once(Pruned):
            def before_fit(self):
                n.append(1)
                if len(n)==1: super().before_fit()
            def after_epoch(self):
                if len(n)==1: super().after_epoch()
        res = digits(tmp_path).bayes_tune(2, lrs, n_trials=2, cbs=Once(), pruner='none', **quick)
        t = res.study.trials[0]
        assert state in set(res.trials.state) and t.state.name=='PRUNED' and why in t.user_attrs['reason'] and 'resumes' not in res.study.trials[-1].user_attrs

def test_the_probe_tries_other_points(tmp_path):
    learn,seen = digits(tmp_path),[]
    def make(p):
        seen.append(p['x'])
        if .4<p['x']<.6: raise ValueError('not in the middle')
        return digits(tmp_path)
    res = learn.bayes_tune(1, dict(x=(0., 1.)), n_trials=1, new_learner=make, **quick)
    assert seen[0]==.5 and len(res.trials)
    def bug(p): return undefined
    before = files(tmp_path)
    with pytest.raises(TuneError, match="new_learner failed 16 times.*NameError: name 'undefined'") as e:
        learn.bayes_tune(1, dict(x=(0., 1.)), n_trials=1, new_learner=bug, **quick)
    assert isinstance(e.value.__cause__, NameError) and e.traceback and files(tmp_path)==before
    tb = e.value.__cause__.__traceback__
    while tb.tb_next: tb = tb.tb_next
    assert tb.tb_frame.f_code.co_name=='bug'
    def asks(trial):
        if trial.suggest_float('x', 0, 1)==.5: raise optuna.TrialPruned
        return digits(tmp_path)
    assert len(learn.bayes_tune(1, n_trials=1, new_learner=asks, **quick).trials)==1

def triangle(sampler, how, f, n=30):
    "Trials of a study in whose unit square x+y>1 is impossible"
    s = optuna.create_study(sampler=sampler)
    def objective(t):
        x,y = t.suggest_float('x', 0, 1),t.suggest_float('y', 0, 1)
        if x+y>1: raise how('no')
        return f(x, y)
    s.optimize(objective, n_trials=n, catch=ValueError)
    return s
@pytest.fixture
def hush():
    old = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    yield
    optuna.logging.set_verbosity(old)

@pytest.mark.parametrize('how', [optuna.TrialPruned, ValueError])
def test_the_sampler_learns_what_is_impossible_in_any_study(how, hush):
    def f(x, y): return (x-.6)**2+(y-.6)**2  # best on the border
    bad = lambda s: sum(t.value is None for t in s.trials)
    ours,tpe = (([triangle(S(seed=i), how, f) for i in range(2)]) for S in (BayesSampler, optuna.samplers.TPESampler))
    assert sum(map(bad, ours))<sum(map(bad, tpe)) and sum(map(bad, ours))<=24
    assert sum(s.best_value for s in ours)<sum(s.best_value for s in tpe)

def test_what_is_impossible_says_nothing_about_values(hush):
    from fastai_bayes.study.cache import space_of
    s = triangle(BayesSampler(seed=0), optuna.TrialPruned, lambda x, y: x, 14)
    view,_ = StudyCache.of(s).surrogate(s, space_of(s), 1)
    X,m,*_ = view.targets()
    done = [t for t in s.trials if t.value is not None]
    assert len(X)==len(done)<14 and view.infeasible.sum()==14-len(done)
    assert np.allclose(sorted(X[:,0]), sorted(t.params['x'] for t in done))

def test_what_was_not_asked_for_before_a_trial_was_pruned(hush):
    def objective(t):
        if t.suggest_float('x', 0, 1)>.3: raise optuna.TrialPruned
        return t.suggest_float('z', 0, 1)
    s = optuna.create_study(sampler=BayesSampler(seed=0))
    s.optimize(objective, n_trials=24)
    assert sum(t.value is None for t in s.trials[12:])<=7
    assert all('z' in t.params for t in s.trials if t.value is not None)

# 16. Finite spaces
four = dict(a=[1, 2], b=['x', 'y'])
def easy(path): return lambda p: digits(path, lr=.001*p['a'], wd=.1 if p['b']=='x' else 0.)
def configs(res): return [tuple(t.params.values()) for t in res.study.trials]

@pytest.mark.parametrize('kwargs', [{}, dict(pruner='none'), dict(sampler='random'), dict(sampler='tpe'), dict(budget=40)], ids=str)
def test_a_finite_space_ends_when_all_is_tried(tmp_path, kwargs, capsys):
    kwargs = {'n_trials': None if 'budget' in kwargs else 40, **kwargs}
    res = digits(tmp_path).bayes_tune(1, four, new_learner=easy(tmp_path), study_name='s', seed=0, **kwargs)
    assert len(set(configs(res)))==4 and (len(configs(res))==4 or 'sampler' in kwargs)
    assert 'all 4 configurations were tried' in repr(res) and 'all 4 configurations were tried' in capsys.readouterr().out
    again = digits(tmp_path).bayes_tune(1, four, new_learner=easy(tmp_path), study_name='s', **{**quick, **kwargs})
    assert configs(again)==configs(res) and 'all 4' in repr(again)

def test_finite_spaces_with_conditions_enqueued_ones_and_impossible_ones(tmp_path):
    def make(p):
        if p['a']=='p' and p['m']==3 and p['b']=='y': raise ValueError('impossible')
        return digits(tmp_path)
    space = dict(a={'p': dict(m=[1, 2, 3]), 'q': {}}, b=['x', 'y'])
    res = digits(tmp_path).bayes_tune(1, space, n_trials=30, new_learner=make, enqueue=[dict(a='q', b='y')], **quick)
    assert len(set(configs(res)))==len(configs(res))==8 and res.study.trials[0].params==dict(a='q', b='y')
    assert 'all 8 configurations' in repr(res) and '7 trials, 1 infeasible' in repr(res)
    only = digits(tmp_path).bayes_tune(1, dict(wd=[.1]), n_trials=9, **quick)
    assert len(only.trials)==1 and 'the only configuration was tried' in repr(only)

def test_a_finite_space_that_is_asked_for(tmp_path):
    def make(trial):
        if trial.suggest_categorical('a', ['p', 'q'])=='p': trial.suggest_int('m', 1, 2)
        return digits(tmp_path)
    res = digits(tmp_path).bayes_tune(1, n_trials=30, new_learner=make, **quick)
    assert {tuple(t.params.values()) for t in res.study.trials}=={('p', 1), ('p', 2), ('q',)} and len(res.trials)<=5

def test_paused_ones_are_carried_on_before_a_finite_space_ends(tmp_path):
    res = digits(tmp_path, cbs=Curve(lambda lr, e: lr*(1+e))).bayes_tune(4, dict(lr=[.01, .02, .04, .08]), budget=100, **quick)
    df = res.trials
    assert len(df)==4 and df.state.iloc[0]=='complete' and df.lr.iloc[0]==.08 and df.epochs.sum()<=16

def test_the_sampler_says_once_that_all_was_tried(recwarn):
    s = optuna.create_study(sampler=BayesSampler(seed=0))
    s.optimize(lambda t: t.suggest_int('a', 0, 1)+len(t.suggest_categorical('b', ['x', 'yy'])), n_trials=8)
    said = [str(o.message) for o in recwarn if 'configurations were tried' in str(o.message)]
    assert said==['all 4 configurations were tried; from now on they are repeated']

@pytest.mark.parametrize('n_epoch', [1, 6])
def test_the_optimizer_ends_with_a_finite_space(n_epoch):
    o,n = BayesOptimizer(dict(a=(1, 3), b={'x': {}, 'y': dict(c=[1, 2])}), n_epoch, seed=0),0
    while (t := o.next()) is not None:
        for e in range(t.epoch+1, n_epoch+1):
            n += 1
            o.report(t.id, e, t.params['a']*e)
            if o.should_stop(t.id): break
        o.finish(t.id)
    assert len({tuple(p.x) for p in o.trainings})==len(o.trainings)==9 and n<=9*n_epoch and o.best[1]==3*n_epoch

# 17. The probe takes one step

torch_opt = lambda o: partial(OptimWrapper, opt=o)
def flat_only(): return nn.Sequential(nn.Linear(64, 32, bias=False), nn.ReLU(), nn.Linear(32, 10, bias=False))
def two(pred, targ): return torch.stack([pred.mean(), targ.float().mean()])
def bad_metric(pred, targ): return pred.view(-1, 3).mean()
def named(name):
    def f(pred, targ): return accuracy(pred, targ)
    f.__name__ = name
    return f
class NaN(Module):
    def __init__(self): self.l = nn.Linear(64, 10)
    def forward(self, x): return self.l(x)*float('nan')
class Refuses(Callback):
    "Of a class of the user's own"
    def before_batch(self): raise AttributeError('no such thing')
def endless(path):
    class Items(torch.utils.data.IterableDataset):
        def __iter__(self): return iter([(x[i], y[i]) for i in range(64)])
    return DataLoaders(DataLoader(Items(), bs=16), TfmdDL(TensorDataset(x[:50], y[:50]), num_workers=0), path=path)

# name: (how the learner is made, arguments, error, what is said)
cannot_step = {
    'loss': (lambda p: digits(p, loss_func=nn.MSELoss()), {}, TuneError, r'the loss fails in the first batch of training, on predictions of \(32, 10\) and targets of \(32,\)'),
    'model': (lambda p: digits(p, model=nn.Linear(32, 10)), {}, TuneError, r'the model fails .* on inputs of \(32, 64\)'),
    'loss of several': (lambda p: digits(p, loss_func=nn.CrossEntropyLoss(reduction='none')), {}, TuneError, 'the backward pass fails'),
    'no targets': (lambda p: digits(p, DataLoaders(*[TfmdDL(TensorDataset(x[:64]), bs=16, num_workers=0)]*2, path=p)), {}, TuneError, 'the batches have no targets'),
    'nan': (lambda p: digits(p, model=NaN()), {}, TuneError, 'it is nan before any training'),
    'metric': (lambda p: digits(p, metrics=[accuracy, bad_metric]), {}, TuneError, 'the metric bad_metric fails'),
    'monitored metric': (lambda p: digits(p, metrics=bad_metric), dict(mode='max'), MonitorError, 'the metric bad_metric fails'),
    'two numbers': (lambda p: digits(p, metrics=two), dict(mode='max'), MonitorError, "expected one number per epoch from 'two'"),
    'one name': (lambda p: digits(p, metrics=[named('acc'), named('acc')]), dict(mode='max'), MonitorError, "2 metrics have the name 'acc'"),
    'muon': (lambda p: digits(p, opt_func=torch_opt(torch.optim.Muon)), {}, TuneError, 'optimizer .* cannot be created for this model'),
    **{f'no momentum: {o}, {fit}': (lambda p, o=o: digits(p, opt_func=torch_opt(getattr(torch.optim, o))), dict(fit=fit), TuneError,
                                    f"'{o}.* has no momentum, which {fit} schedules; .*fit='fit' or fit='fit_flat_cos'")
       for o,fit in (('LBFGS', 'fit_one_cycle'), ('Adagrad', 'fine_tune'), ('Rprop', 'fit_one_cycle'), ('Adadelta', 'fit_one_cycle'))},
    'choice of muon': (digits, dict(space=dict(lrs, opt_func=[Adam, torch.optim.Muon]), fit='fit'), KnobError, "opt_func: 'Muon' fails"),
    'choice of a loss': (digits, dict(space=dict(lrs, loss_func=[CrossEntropyLossFlat(), nn.MSELoss()]), ), KnobError, "loss_func: .* fails: .*the loss fails"),
    'no length': (lambda p: digits(p, endless(p)), {}, TuneError, 'training loader has no length'),
    'lbfgs has no wd': (digits, dict(space=dict(lrs, wd=(.1, .2), opt_func=[torch.optim.LBFGS, Adam]), fit='fit'), KnobError, "opt_func: 'LBFGS' fails"),
    'fit': (digits, dict(fit=lambda l, n, cbs: l.no_such_fit(n, cbs=cbs)), TuneError, 'the fit cannot start'),
    'without cbs': (digits, dict(fit=lambda l, n, cbs: l.fit(n)), TuneError, 'must pass cbs on'),
}
@pytest.mark.parametrize('name', cannot_step)
def test_what_cannot_take_a_step_is_refused_by_name(tmp_path, name):
    mk,kwargs,error,match = cannot_step[name]
    learn = mk(tmp_path)
    before,proc = picture(learn),process()
    with pytest.raises(error, match=match): learn.bayes_tune(2, **{**dict(space=lrs), **kwargs}, **quick)
    assert same(before, picture(learn)) and process()==proc and files(tmp_path)==[]

def lazy(path): return digits(path, model=nn.Sequential(nn.LazyLinear(16), nn.ReLU(), nn.LazyBatchNorm1d(), nn.LazyLinear(10)))
def test_lazy_layers_that_do_not_fit(tmp_path):
    learn = digits(tmp_path, model=nn.Sequential(nn.LazyLinear(16), nn.Linear(5, 10)))
    with pytest.raises(TuneError, match='the lazy layers of the model cannot be initialized with a batch .*shapes'): learn.bayes_tune(2, lrs, **quick)
    assert files(tmp_path)==[]
class Needs(Callback):
    "Without it the model does not fit the data"
    def before_batch(self): self.learn.xb = (self.xb[0][:, :32],)
class Ratio(Metric):
    "Fails on less than all of the validation set"
    def reset(self): self.n = 0
    def accumulate(self, learn): self.n += len(learn.yb[0])
    @property
    def value(self): return 1/(self.n>50)
    @property
    def name(self): return 'accuracy'
can_step = {
    'ShortEpoch': (lambda p: digits(p, cbs=ShortEpochCallback(.3)), {}),
    'ShortEpoch, whole validation': (digits, dict(cbs=ShortEpochCallback(.3, short_valid=False))),
    'LBFGS': (lambda p: digits(p, opt_func=torch_opt(torch.optim.LBFGS), lr=.1), dict(fit='fit_flat_cos')),
    'LBFGS as a choice': (digits, dict(space=dict(lrs, opt_func=[torch.optim.LBFGS, SGD]), fit='fit')),
    'Muon for matrices': (lambda p: digits(p, model=flat_only(), opt_func=torch_opt(torch.optim.Muon)), dict(fit='fit')),
    'LazyLinear': (lazy, {}),
    'a callback that the model needs': (lambda p: digits(p, model=nn.Linear(32, 10)), dict(cbs=Needs())),
    'a metric that needs all': (lambda p: digits(p, metrics=Ratio()), {}),
    'two metrics of one name, loss monitored': (lambda p: digits(p, metrics=[named('acc'), named('acc')]), dict(monitor='valid_loss')),
    'accumulated gradients': (lambda p: digits(p, cbs=GradientAccumulation(100)), {}),
    'mixed': (lambda p: digits(p, cbs=[MixUp(), GradientClip(.1)]), {}),
}
@pytest.mark.parametrize('name', can_step)
def test_what_fastai_can_train_is_trained(tmp_path, name):
    mk,kwargs = can_step[name]
    learn = mk(tmp_path)
    res = learn.bayes_tune(2, **{**dict(space=lrs, n_trials=3), **kwargs}, **quick)
    assert set(res.trials.state)<={'complete', 'stopped'}, res.trials.reason.tolist()
    assert math.isfinite(res.best_value)
    value = learn.validate()[list(learn.recorder.metric_names[2:-1]).index(res.study.user_attrs['monitor'])] if 'ShortEpoch' not in name and 'needs' not in name else None
    if value is not None: assert value==pytest.approx(res.best_value, abs=1e-5)

@pytest.mark.filterwarnings('ignore')
def test_copies_of_a_script_module_are_trained(tmp_path):
    a,b = (digits(tmp_path/o, model=m).bayes_tune(2, lrs, n_trials=2, **quick) for o,m in dict(a=net(), b=torch.jit.script(net())).items())
    assert a.trials.value.tolist()==pytest.approx(b.trials.value.tolist(), abs=.02)

def test_the_step_leaves_all_as_it_was(tmp_path):
    "Generators of loaders, data and the process, callbacks that are not fastai's, prints, workers"
    class Counts(Callback):
        n = 0
        def before_fit(self): Counts.n += 1
    g = torch.Generator().manual_seed(3)
    sets = TensorDataset(x[:120], y[:120]), TensorDataset(x[120:160], y[120:160])
    dls = DataLoaders(*[torch.utils.data.DataLoader(o, batch_size=16, shuffle=True, generator=g, num_workers=1) for o in sets], path=tmp_path)
    learn = digits(tmp_path, dls, cbs=[Counts(), SaveModelCallback()])
    before,proc,state = picture(learn),process(),g.get_state()
    with pytest.raises(Exception): learn.bayes_tune(1, lrs, storage=tmp_path, cbs=Counts(), **quick)  # a folder; said after the step
    assert same(before, picture(learn)) and process()==proc and torch.equal(g.get_state(), state) and Counts.n==0
    assert all(o.num_workers==1 for o in dls.loaders)

# 18. `$` in labels
hostile = [r'$\frac{a$', 'a$b', '$$', 'a_b^c', 'back\\slash', '{brace}', '100 %', 'x'*3000, '学習率', 'two\nlines', '🙂', '\x1b[31m', 'nul\0', '\ud800half', '<b>&amp;"',
           '_hidden', ' ', 'value', 'number', 'state', 'low', 'reason', 'curve', '\u202ebidi', r'\$5', '#1 ~ 2']

def odd_study(text, n=12):
    "A study in which everything that a user can name is called `text`, one in three trials stopped, one in six failed"
    space,rng = Space({text: [text, f'{text} 2'], f'{text}.lr': (1e-3, .1, 'log'), 'wd': (0., 1.)}),np.random.default_rng(0)
    with quiet_optuna(): study = optuna.create_study(study_name=text, direction='maximize')  # ours refuses such a name
    for k,v in dict(about=dict(describe(space), direction='maximize', monitor=text), monitor=text, n_epoch=4).items(): study.set_user_attr(k, v)
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
    ax.set_xticks(range(len(hostile)), disambiguate(hostile))
    fig.canvas.draw()

@pytest.mark.parametrize('text', hostile, ids=ascii)
def test_tables_of_names_that_mean_something_elsewhere(text):
    res = odd_study(text, 6)
    assert len(set(res.trials.columns))==len(res.trials.columns)
    page = res._repr_html_()
    page.encode()
    assert '<b>&amp;"' not in page and not any(o in page+repr(res) for o in ('\x1b', '\0', '\u202e'))

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
    monkeypatch.setattr('fastai_bayes.results.style.plots', {})
    @plot('Bad')
    def plot_bad(study):
        plt.figure()
        raise RuntimeError('no $ <paper> left')
    @plot('Late')
    def plot_late(study):
        "Fails when it is drawn"
        ax = plt.figure().add_subplot()
        ax.set_title(r'$\frac{a$')
        return ax
    monkeypatch.setattr('fastai_bayes.results.report.plots', {f.__name__: f for f in (plot_bad, plot_history, plot_late, plot_slice)})
    before = plt.get_fignums()
    page = odd_study('arch').report(tmp_path/'r.html').read_text()
    assert '<p>Bad: plot_bad failed: RuntimeError: no $ &lt;paper&gt; left</p>' in page and 'plot_late failed: ' in page
    assert page.count('<picture>')==2 and '<h2 id="trials">All trials</h2>' in page and plt.get_fignums()==before

# 19. Sizes that never end
@pytest.mark.parametrize('T', [3000, 10**6])
def test_long_trainings_cost_no_more_than_short_ones(T):
    import tracemalloc
    ends = sorted({*range(1, 9), *np.geomspace(9, T, 12).astype(int).tolist(), T})
    def value(x, e): return (1-(x-.3)**2)*(1-np.exp(-8*e/T))
    tracemalloc.start()
    o = BayesOptimizer(dict(x=(0., 1.)), T, seed=0)
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

def test_a_choice_of_very_many():
    c = Choice((*range(100_000), math.nan, 'a', True, 2.))
    assert [c.index(v) for v in (0, 99_999, math.nan, 'a', True, 1, 1., 2., 3.)]==[0, 99_999, 100_000, 100_001, 100_002, 1, 1, 100_003, 3]
    with pytest.raises(SpaceError, match='nan occurs twice'): Choice((math.nan, 1, float('nan')))

def test_a_grid_of_too_many_combinations_is_refused(tmp_path):
    from fastai_bayes.study.searches import SearchError
    learn,many = digits(tmp_path),{f'x{i}': (0., 1.) for i in range(12)}
    before = files(tmp_path)
    with pytest.raises(SearchError, match='12 hyperparameters has 244,140,625 combinations here, more than 10,000; tune fewer'):
        learn.bayes_tune(1, many, sampler='grid', new_learner=lambda p: digits(tmp_path), **quick)
    assert files(tmp_path)==before
    with pytest.raises(SearchError, match='combinations'): grid_of(Space(dict(a=list(range(200)), b=list(range(200)))))
    assert len(grid_of(Space(dict(a=list(range(100)), b=list(range(100)))))['a'])==100

# 20. The recorder after tuning
@pytest.mark.parametrize('fit', ['fit_one_cycle', 'fine_tune'])
def test_the_recorder_shows_the_winner(tmp_path, fit):
    learn = digits(tmp_path)
    with learn.no_bar(), learn.no_logging(): learn.fit(7)
    res = learn.bayes_tune(3, lrs, n_trials=6, fit=fit, **quick)
    r,curve = learn.recorder,res.curves[res.curves.number==res.best_trial.number]
    assert len(r.values) and len(r.values)<=3 and [o[2] for o in r.values]==pytest.approx(curve.value.tolist()[-len(r.values):])
    assert r.metric_names==['epoch', 'train_loss', 'valid_loss', 'accuracy', 'time'] and learn.final_record==r.values[-1]
    assert len(r.losses)==len(r.lrs)==5*len(r.values)==r.iters[-1] and max(r.lrs)<=max(res.best_params['lr']*1.01, .1)
    ax = r.plot_loss(show_epochs=True)
    assert len(ax.lines[0].get_ydata())==len(r.losses)-5
    r.plot_sched()
    plt.close('all')

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
    view,_ = StudyCache.of(study).surrogate(study, Space(dict(lr=(1e-3, .1))), 4)
    assert [(o.state, len(o.values(4))) for o in view.trainings]==[('complete', 4), ('paused', 2)]*3
    assert [state_of(t) for t in study.trials]==['complete', 'stopped']*3

def test_cb_value_is_not_warned_of(tmp_path, recwarn):
    study = optuna.create_study(direction='maximize', sampler=BayesSampler(4, seed=0), pruner=After2())
    study.optimize(lambda trial: attached(trial, lambda learn, cb: cb.value, digits(tmp_path)), 4)
    assert [t.state.name for t in study.trials]==['COMPLETE', 'PRUNED']*2
    assert not [o for o in recwarn if 'cb.value' in str(o.message)]

# 22. Several hosts

@pytest.fixture
def elsewhere(monkeypatch):
    "Turns this process into one on another host"
    import socket
    return lambda name='another': monkeypatch.setattr(socket, 'gethostname', lambda: name)

def held_elsewhere(folder, storage=None, worker=None):
    "A trial that a process elsewhere is training, or was; the process's id"
    from fastai_bayes.study.workers import Worker
    study = plainly(folder.parent.parent.parent, storage)
    t = study.ask(dict(lr=optuna.distributions.FloatDistribution(1e-3, 1e-1, log=True)))
    w = worker or Worker(folder)
    t.set_user_attr('worker', w.id)
    return w

def test_two_hosts_that_share_only_the_database(tmp_path, elsewhere):
    one(tmp_path/'a', storage=db(tmp_path, 's'))
    elsewhere()
    refused(tmp_path/'b', 'on another machine, let both use a folder', storage=db(tmp_path, 's'))

def test_two_hosts_that_share_the_folder(tmp_path, elsewhere):
    "Where no lock is seen, a trial is taken over only after a long silence; else that is said"
    import os, time
    folder = one(tmp_path).folder
    w = held_elsewhere(folder)
    w._life.release()  # as if its lock did not reach here
    elsewhere()
    with pytest.warns(UserWarning, match='trial 1: .*is not visible here.*res.study.tell.1'): res = one(tmp_path, n=2)
    assert dict(zip(res.trials.number, res.trials.state))=={0: 'complete', 1: 'running'}
    os.utime(w._file(w.id), (time.time()-1e4,)*2)
    assert set(one(tmp_path, n=2).trials.state)=={'complete'}

def test_a_copied_folder_on_another_host(tmp_path, elsewhere):
    "It does not take the other's trial for dead"
    storage = db(tmp_path, 's')
    folder = one(tmp_path/'a', storage=storage).folder
    shutil.copytree(tmp_path/'a', tmp_path/'b')
    w = held_elsewhere(folder, storage)
    import socket
    home = socket.gethostname()
    elsewhere()
    with pytest.warns(UserWarning, match='is not visible here'): res = one(tmp_path/'b', n=2, storage=storage)
    assert dict(zip(res.trials.number, res.trials.state))[1]=='running'
    w.close()
    elsewhere(home)
    refused(tmp_path/'a', 'continued in another copy of the folder.*on host another', storage=storage)

def test_who_ends_first_says_that_others_are_at_work(tmp_path):
    w = held_elsewhere(one(tmp_path).folder)
    with pytest.warns(UserWarning, match='trial 1: other processes are still training.*Run the same line again'): one(tmp_path, n=2)
    w.close()
    assert set(one(tmp_path, n=2).trials.state)=={'complete'}  # it was on this host: taken over

@pytest.mark.parametrize('state', ['PRUNED', 'FAIL', 'COMPLETE'])
def test_a_trial_that_another_process_has_taken(tmp_path, state):
    "The line takes the next"
    class Taken(Callback):
        order,done = 40,[]
        def before_epoch(self):
            if self.epoch==1 and not self.done:
                self.done.append(1)
                plainly(tmp_path).tell(0, .5 if state=='COMPLETE' else None, state=optuna.trial.TrialState[state])
    Taken.done = []
    learn = digits(tmp_path)
    with pytest.warns(UserWarning, match='took over its trial 0, so this one starts the next'):
        res = learn.bayes_tune(3, lrs, n_trials=3, study_name='s', pruner='none', cbs=Taken(), **quick)
    assert len(res.trials)==3 and list(res.trials.epochs).count(3)==2 and picture(learn)[3] is None

def forked(path, code, n=4):
    "Runs `code` in `n` processes that begin at the same time"
    src = 'import os, sys, time; sys.path[:0] = [' + repr(str(Path(__file__).parent)) + ']\n' + code.split('---')[0] + f"""
begin = time.time()+.3
pids = []
for i in range({n}):
    pid = os.fork()
    if not pid:
        while time.time()<begin: pass
        try:
            exec({code.split('---')[1]!r})
            os._exit(0)
        except BaseException:
            import traceback; traceback.print_exc(); os._exit(1)
    pids.append(pid)
sys.exit(sum(os.waitstatus_to_exitcode(os.waitpid(p, 0)[1])!=0 for p in pids))"""
    in_fork(path, exec, src, {})

def test_four_processes_open_an_empty_database(tmp_path):
    code = f'from fastai_bayes.study.studies import open_study; from fastai_bayes.engine.space import Space; s = Space(dict(a=(0., 1.)))---' \
           f'for k in range(5): open_study(s, name="x" if k%2 else f"{{k}}{{i}}", storage=f"sqlite:///{tmp_path}/{{k}}.db")'
    forked(tmp_path, code)
    for k in range(5): assert len(optuna.get_all_study_names(f'sqlite:///{tmp_path}/{k}.db'))==(1 if k%2 else 4)

def test_pbt_in_several_processes(tmp_path):
    "All take part to the end"
    code = f"""from tuning import *; from fastai_bayes.all import *
class Slow(Callback):
    def before_epoch(self): time.sleep(.05)
---digits({str(tmp_path)!r}, loaders({str(tmp_path)!r}, 64)).bayes_tune(4, lrs, sampler='pbt', study_name='s', cbs=Slow(), **quick)"""
    forked(tmp_path, code.replace('class Slow', 'lrs = dict(lr=(1e-3, 1e-1, "log"))\nclass Slow'), 2)
    trials = plainly(tmp_path).trials
    last = [t for t in trials if len(t.intermediate_values)==4]
    assert len(last)==8 and all(len({t.user_attrs['worker'] for t in trials if len(t.intermediate_values)==n})==2 for n in (1, 2, 3, 4))

# 23. What reading the code showed


def test_knobs_are_applied_in_the_order_of_the_table():
    "Whatever the order of the parameters"
    params = dict(label_smoothing=.2, loss_func=CrossEntropyLossFlat(), lr=.02, opt_func=partial(Adam, lr=5.), wd=.1)
    for order in (params, dict(reversed(params.items()))):
        learn = apply_params(digits('.'), order)
        assert learn.loss_func.func.label_smoothing==.2
        learn.create_opt()
        assert learn.lr==.02 and params['loss_func'].func.label_smoothing==0

# What is imported is declared

root = Path(__file__).resolve().parent.parent
packages = dict(sklearn='scikit-learn', PIL='pillow', mlflow='mlflow-skinny', syne_tune='syne-tune', neps='neural-pipeline-search', optuna_dashboard='optuna-dashboard',
                optuna_integration='optuna-integration', mkdocs='mkdocs-material', IPython='ipython', ConfigSpace='configspace', skimage='scikit-image',
                chatterbot_corpus='chatterbot-corpus', yaml='pyyaml', efficientnet_lite_pytorch='efficientnet-lite-pytorch',
                fast_tabnet='fast-tabnet', self_supervised='self-supervised')
def imported(folder):
    "Packages that the Python files of a folder import"
    for f in (root/folder).rglob('*.py'):
        for n in ast.walk(ast.parse(f.read_text())):
            if isinstance(n, ast.Import): yield from (a.name.split('.')[0] for a in n.names)
            elif isinstance(n, ast.ImportFrom) and n.module and not n.level: yield n.module.split('.')[0]

folders = dict(fastai_bayes='integrations', tests='dev docs integrations ecosystem', tools='dev docs', benchmarks='bench dev peers sweeps', examples='')
@pytest.mark.parametrize('folder', folders)
def test_every_import_is_declared(folder):
    cfg = configparser.ConfigParser()
    cfg.read(root/'setup.cfg')
    lines = cfg['options']['install_requires']+''.join('\n'+cfg['options.extras_require'][o] for o in folders[folder].split())
    declared = {re.split('[^A-Za-z0-9._-]', o)[0].lower() for o in lines.split('\n') if o}
    own = {'fastai_bayes', *(o.stem for o in root.rglob('*.py'))}
    missing = {o for o in imported(folder) if o not in sys.stdlib_module_names and o not in own and packages.get(o, o).lower() not in declared}
    assert not missing

# The engine's constants, by what they do

def under_way(n=30, T=60, l=10, done=1):
    "Trainings of which `done` are finished, and the others have had `l` epochs; the higher the number the worse"
    curve = lambda i, l: [1-i/n-.5*.9**e for e in range(l)]
    ts = [Training(np.array([(i+.5)/n]), curve(i, T if i<done else l), 'complete' if i<done else 'running') for i in range(n)]
    return policy.Surrogate(Space(dict(lr=(0., 1.))), T, ts)

def test_the_best_third_goes_on_whatever_the_model_says():
    view = under_way(n=31, done=1)
    view.prob_best = lambda idx: np.zeros(len(idx))
    goes_on = [i for i in range(1, 31) if not policy.decide(view, i).stop]
    assert goes_on==list(range(1, len(goes_on)+1)) and .3*31<=len(goes_on)+1<=.4*31

@pytest.mark.parametrize('resumable,least', [(True, .1), (False, .03)])
def test_the_probability_that_is_worth_more_epochs(resumable, least):
    "A tenth where a stop can be taken back, three in a hundred where it is for good"
    view = under_way(l=11)
    def stops(p):
        view.prob_best = lambda idx: np.full(len(idx), p)
        return policy.decide(view, 25, 1, resumable).stop
    ps = np.arange(0, .3, .005)
    assert min(p for p in ps if not stops(p))==pytest.approx(least, abs=.006) and stops(0.) and not stops(.29)

@pytest.mark.parametrize('T', [30, 60, 120])
def test_no_stop_for_good_before_a_sixth_of_the_epochs(T):
    def stops(l):
        view = under_way(T=T, l=l)
        view.prob_best = lambda idx: np.zeros(len(idx))
        return policy.decide(view, 28).stop
    assert min(l for l in range(1, T//2) if stops(l))==T//6

def test_a_new_training_is_expected_to_take_a_quarter_of_its_epochs(monkeypatch):
    "Beyond the first ones: what is paused is resumed if it promises as much for an epoch as that"
    view = under_way(n=8, T=44, l=11, done=2)
    view.state[2:] = states.index('paused')
    monkeypatch.setattr(policy, 'min_prob', 0.)
    monkeypatch.setattr(policy, 'few', 0)  # forecasts alone say which one
    idx = np.arange(2, 8)
    m,v = view.forecast(idx)
    rate = (policy.log_ei(m, v, view.incumbent)[0]-np.log(44-11)).max()
    epochs = [e for e in range(1, 44) if policy.resume(view, rate+np.log(e)-1e-6) is not None]
    first = view.look
    assert max(epochs)==int(first+(44-first)/4)

def test_where_early_values_mean_nothing_they_are_no_reason_to_stop():
    view = under_way(done=20)
    view.rank_reversal = lambda l: 1.
    assert view.prob_best([29])[0]==pytest.approx(.12)
    assert not policy.decide(view, 29, 1, True).stop and not policy.decide(view, 29).stop

def test_jitter_is_part_of_a_process_and_said_when_it_is_large():
    X,theta = np.full((4, 1), .5),np.log([.3, 1., 1e-12])
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        g = gp_mod.GP(gp_mod.Data(np.linspace(0, 1, 4)[:,None], np.arange(4.), [False]), np.log([[.3, 1., .1]]))
        assert g.predict(X) and g.jitter[0]==0.
    s = gp_mod.GP(gp_mod.Data(X, np.arange(4.), [False]), theta[None])
    assert s.predict(X) and 0<s.jitter[0]<1e-4
    with pytest.warns(UserWarning, match='a covariance matrix needed'): gp_mod._warn_of_jitter(np.array([0., .01]), np.ones(2))

# Mends that had no test of their own
@pytest.mark.parametrize('by_run', [False, True])
def test_brute_force_ends_by_itself(tmp_path, by_run):
    "When all was tried, and at once if the line is run again"
    def new_learner(trial): return digits(tmp_path, loaders(tmp_path, bs=trial.suggest_categorical('bs', [8, 16])), lr=trial.suggest_categorical('lr', [.01, .1]))
    line = dict(new_learner=new_learner) if by_run else dict(space=dict(lr=[.01, .1], bs=[8, 16]))
    for _ in range(2):
        res = digits(tmp_path).bayes_tune(1, n_trials=20, sampler=optuna.samplers.BruteForceSampler(seed=0), pruner='none', study_name='s', **line, **quick)
        assert len(res.trials)==4 and {tuple(sorted(t.params.items())) for t in res.study.trials}=={(('bs', b), ('lr', l)) for b in (8, 16) for l in (.01, .1)}
        if not by_run: assert res.note=='all 4 configurations were tried'

def test_studies_of_several_directions_are_refused_by_all_but_the_sampler(tmp_path):
    "Wherever one may come from: its values could not be ranked"
    storage,ways = f'sqlite:///{tmp_path}/a.db',['maximize', 'minimize']
    study = optuna.create_study(directions=ways, storage=storage, study_name='m')
    before = tree(tmp_path)
    for kwargs in (dict(storage=storage, study_name='m'), dict(from_studies=[study])):
        with pytest.raises(StudyError, match="directions of study 'm': expected one, got 2"): digits(tmp_path).bayes_tune(1, lrs, n_trials=2, **kwargs, **quick)
    assert tree(tmp_path)==before and not study.trials
    with (learn := digits(tmp_path)).no_bar(), pytest.raises(MonitorError, match='expected a study with one direction, got 2'):
        learn.fit(1, cbs=BayesPruningCallback(study.ask(), 'accuracy'))
    own = optuna.create_study(directions=ways, sampler=BayesSampler())
    with pytest.raises(StudyError, match='expected a study with one objective, got 2'): BayesPruner().prune(own, own.ask())

def test_the_training_loader_need_not_be_the_first(tmp_path):
    "All but the batch size can be tuned: fastai's own `new_empty` and copies take the first for it"
    class Reversed(DataLoaders):
        @property
        def train(self): return self.loaders[1]
        @property
        def valid(self): return self.loaders[0]
    def line(**kwargs):
        dls = loaders(tmp_path)
        learn = digits(tmp_path, Reversed(dls.valid, dls.train, path=tmp_path))
        return learn,learn.bayes_tune(1, n_trials=2, pruner='none', **kwargs, **quick)
    learn,res = line()
    assert set(res.best_params)=={'opt_func', 'lr', 'wd'} and len(learn.dls.train.dataset)==160
    with learn.no_bar(): assert learn.validate()[1]==pytest.approx(res.best_value)  # of the second loader, as in a fit
    with pytest.raises(LoaderError, match='Reversed.train is not the first of its loaders'): line(space=dict(lrs, bs=[8, 16]))

@pytest.mark.parametrize('ext', ['db', 'log'])
def test_a_copy_of_a_storage_that_is_behind_its_folder_is_noticed(tmp_path, ext):
    "When it is opened, not only when weights do not fit; the copy with all trials goes on without a word"
    def line(name, n):
        storage = f'sqlite:///{tmp_path}/{name}.db' if ext=='db' else tmp_path/f'{name}.log'
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter('always')
            digits(tmp_path).bayes_tune(1, lrs, n_trials=n, study_name='s', storage=storage, **quick)
        return [str(o.message) for o in seen if 'another copy of its storage' in str(o.message)]
    assert not line('a', 2)
    shutil.copy(tmp_path/f'a.{ext}', tmp_path/f'b.{ext}')
    assert not line('a', 4)
    said = line('b', 3)
    assert len(said)==1 and "has trial_3, but study 's' only 2 trials" in said[0]
    assert not line('a', 5)

@pytest.mark.parametrize('args', [dict(space=dict(lr=[.03], wd=[.1])), dict(space=dict(lr=[.01]), n_trials=1), dict(n_trials=2, new_learner=None)],
                         ids=['one configuration', 'one trial', 'nothing suggested'])
def test_the_only_configuration_is_trained_to_its_end(tmp_path, args):
    "It pauses to be compared with others, of which there are none"
    def _same(trial): return digits(tmp_path)
    if 'new_learner' in args: args = dict(args, new_learner=_same)
    res = digits(tmp_path).bayes_tune(6, **quick, **args)
    assert res.study.trials[-1].state==optuna.trial.TrialState.COMPLETE and len(res.study.trials[-1].intermediate_values)==6

def test_weights_of_trials_outside_a_narrower_space_are_kept(tmp_path):
    def _tune(high): return digits(tmp_path).bayes_tune(3, dict(lr=(1e-3, high, 'log')), n_trials=4, study_name='s', extend=True, **quick)
    best = _tune(.1).best_value
    assert _tune(3e-3).best_value<best
    learn = digits(tmp_path)
    res = learn.bayes_tune(3, dict(lr=(1e-3, .1, 'log')), n_trials=4, study_name='s', extend=True, **quick)
    assert res.best_value==best==pytest.approx(learn.validate()[1])

def test_numbers_of_numpy_among_choices(tmp_path):
    res = digits(tmp_path).bayes_tune(2, dict(lr=list(np.geomspace(1e-3, 1e-1, 4)), bs=list(np.array([16, 32]))), n_trials=2, **quick)
    assert {type(v) for v in res.best_params.values()}=={float, int}

def test_a_table_of_categories_with_a_number_to_predict(tmp_path):
    "Its loaders have a list as the number of classes"
    from fastai.tabular.all import Categorify, TabularDataLoaders, tabular_learner, RegressionBlock
    df = pd.DataFrame(dict(c=np.arange(200.)%7, y=np.arange(200.)%2))
    dls = TabularDataLoaders.from_df(df, path=tmp_path, cat_names=['c'], procs=[Categorify], y_names='y', y_block=RegressionBlock, bs=64)
    assert not isinstance(dls.c, int)
    res = tabular_learner(dls, layers=[4], n_out=1, metrics=mae).bayes_tune(1, lrs, n_trials=1, **quick)
    assert 'classes' not in res.study.user_attrs['setup']
