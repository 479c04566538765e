"Faults found by using it: one test an entry, and other members of its kind"
import matplotlib; matplotlib.use('agg')
import matplotlib.pyplot as plt, pytest, torch
from tuning import *
from fastai_bayes.all import *
from fastai_bayes.study import distributions
try: from fastai_bayes.axes import plain, told_apart
except ImportError: pass

lrs = dict(lr=(1e-3, 1e-1, 'log'))

# 1. Callback state changes its type on resume

# 2. Study and folder drift apart

# 3. `storage=` on an ordinary file

# 4. A resumed epoch that cancels at once

# 5. A foreign study folder

# 6. A damaged `best.pth` of the winner

# 7. Not measured is not diverged

# 8. The step is the epoch trained

# 9. A hyperparameter without effect

# 10. Loaders of a class of one's own

# 11. Data and `n_epoch` change under a study's name; `extend=True`

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
