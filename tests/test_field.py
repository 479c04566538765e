"Faults found by using it: one test an entry, and other members of its kind"
import matplotlib; matplotlib.use('agg')
import matplotlib.pyplot as plt, pytest, torch
import optuna, shutil
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

# 8. The step is the epoch trained

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

# 20. The recorder after tuning

# 21. The callback as a drop-in

# 22. Several hosts

# 23. What reading the code showed
