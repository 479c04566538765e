"Every plot of every kind of study: its data say what the study holds, and its texts can be read"
import inspect, itertools, math, warnings
from datetime import datetime, timedelta
import matplotlib; matplotlib.use('agg')
from matplotlib.colors import to_rgba
import matplotlib.pyplot as plt, numpy as np, pandas as pd, pytest
from optuna.trial import TrialState, create_trial
from fastai_bayes.results import forecasts, surrogate_plots as surrogate
from fastai_bayes.results.goals import _numbers
from fastai_bayes.results.history import curves_data, history_data
from fastai_bayes.results.hyperparameters import choices_data, importance_errors, importances_data, parallel_data, params_data
from fastai_bayes.results.result import TuneResult, plots
from fastai_bayes.results.style import turns
from fastai_bayes.results.timeline import saved_data, timeline_data
from fastai_bayes.study.pruner import BayesPruner
from fastai_bayes.study.sampler import BayesSampler
from fastai_bayes.engine.space import Space
from fastai_bayes.study.records import best_of, bounds_of, curve_frame, epochs_saved, epochs_spent, ended, resume_trial, trial_frame
from fastai_bayes.study.search_space import distributions
from fastai_bayes.study.storage import check_study
from fastai_bayes.study.studies import open_study

usual = dict(arch=['small_cnn', 'resnet18', 'xresnet18'], lr=(1e-5, 1., 'log'), wd=(0., .3), bs=[16, 32, 64])
names = [f'{a}_{b}_patch16_224.augreg_in21k_ft_in1k' for a in ('vit_tiny', 'convnextv2_femto', 'swin_base') for b in range(10)]
long = {'arch': names, 'a_hyperparameter_with_a_long_name': (1e-7, 1e-3, 'log'), 'opt_func': [f'partial(OptimWrapper, opt=AdamW{i}, eps=1e-08)' for i in range(3)],
        **{f'weight_{i}': (0., 1.) for i in range(6)}}
branches = dict(opt_func={'SGD': dict(mom=(.8, .99)), 'Adam': dict(sqr_mom=(.9, .999))}, lr=(1e-5, 1e-1, 'log'))
start = datetime(2026, 1, 5, 12)

def curve_of(params, rng, T=6, sign=1):
    "A made-up learning curve that depends on the numbers in `params` and on the first choice"
    lr = next((v for v in params.values() if isinstance(v, float)), .01)
    top = .9-.05*(math.log10(max(lr, 1e-9))+2.5)**2-.03*(len(str(next(iter(params.values()))))%3)
    return [sign*(top-(top-.1)*math.exp(-e/1.5)+.01*rng.normal()) for e in range(1, T+1)]

def filled(spec, n, T=6, mode='maximize', curve=curve_of, seed=0, **attrs):
    "A study of `n` trials drawn at random, some stopped, some failed, that two workers trained"
    space,rng = Space(spec),np.random.default_rng(seed)
    known,clock = [],[start, start]
    for i in range(n):
        params = space.labels(space.decode(space.snap(rng.random((1, len(space))))[0]))
        y,state = curve(params, rng, T),'COMPLETE'
        if i%9==5 or not any(map(math.isfinite, y)): y,state = [*y[:2], math.nan],'FAIL'
        elif i>4 and i%3: y,state = y[:2],'PRUNED'
        w = int(clock[1]<clock[0])
        begin,clock[w] = clock[w],clock[w]+timedelta(seconds=20*len(y))
        bad = {k: v for k,v in dict(reason='RuntimeError: CUDA out of memory. '*6 if state=='FAIL' else '').items() if v}
        t = create_trial(params=params, distributions={k: v for k,v in distributions(space).items() if k in params}, state=TrialState[state],
                         value=(max if mode=='maximize' else min)(y) if state=='COMPLETE' else None,
                         intermediate_values=dict(enumerate(y, 1)), user_attrs=dict(n_epoch=T, worker=f'h-{w}', **bad))
        t.datetime_start,t.datetime_complete = begin,clock[w]
        known.append(t)
    study = open_study(space, mode, sampler=BayesSampler(T, seed=0, space=space), pruner=BayesPruner(T), monitor='accuracy', n_epoch=T, seed=0)
    study.add_trials(known)
    return study

def wild(params, rng, T):
    "A curve with values of all sizes, and infinite ones"
    return [*rng.choice([.5, .6, .7, 1e9, -1e12, 1e308], T-1), rng.choice([math.inf, -math.inf, math.nan, .5])]

makers = dict(
    none=lambda: filled(usual, 0),
    one=lambda: filled(usual, 1),
    two=lambda: filled(usual, 2),
    failed=lambda: filled(usual, 7, curve=lambda p, rng, T: [math.nan]),
    some=lambda: filled(usual, 30),
    loss=lambda: filled(usual, 30, mode='minimize', curve=lambda p, rng, T: curve_of(p, rng, T, -1)),
    many=lambda: filled(usual, 200),
    long=lambda: filled(long, 60),
    conditions=lambda: filled(branches, 25),
    wild=lambda: filled(usual, 20, curve=wild),
    epoch=lambda: filled(usual, 20, T=1),
    flat=lambda: filled(usual, 12, curve=lambda p, rng, T: [.5]*T))
pictures = {k.removeprefix('plot_'): f for k,f in plots.items() if f.caption}
_made = {}
def study_of(kind):
    if kind not in _made: _made[kind] = makers[kind]()
    return _made[kind]

def draw(name, kind):
    "The picture `name` of the study `kind`, as a figure; `trial3` is that of trial 3"
    study = study_of(kind)
    ax = forecasts.plot_trial(study, int(name[5:])) if name[:5]=='trial' else pictures[name](study)
    fig = (ax.flat[0] if hasattr(ax, 'flat') else ax).figure
    fig.canvas.draw()
    return fig

def texts(ax):
    "Texts of the ticks of each axis; there are some beyond its ends, which are not drawn"
    for axis,i in ((ax.xaxis, 0), (ax.yaxis, 1)):
        lo,hi = sorted(axis.get_view_interval())
        yield [o for o in axis.get_ticklabels() if o.get_visible() and o.get_text() and lo<=o.get_position()[i]<=hi]

def overlap(a, b, slack=1.):
    "Do two upright texts cover each other by more than a pixel?"
    p,q = a.get_window_extent(),b.get_window_extent()
    return min(p.x1, q.x1)-max(p.x0, q.x0)>slack and min(p.y1, q.y1)-max(p.y0, q.y0)>slack

@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close('all')

@pytest.mark.parametrize('kind', makers)
@pytest.mark.parametrize('name', [*pictures, 'trial0'])
def test_texts_can_be_read(name, kind):
    if kind=='none' and name=='trial0': return
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        fig = draw(name, kind)
    w,h = fig.canvas.get_width_height()
    for ax in fig.axes:
        if not ax.axison: continue
        for group in texts(ax):
            upright = [o for o in group if not o.get_rotation()]
            bad = [(a.get_text(), b.get_text()) for a,b in itertools.pairwise(upright) if overlap(a, b)]
            assert not bad, bad
        tops = [o for o in (ax.get_legend().get_texts() if ax.get_legend() else []) + [ax.title, ax._left_title, ax.yaxis.offsetText] if o.get_text()]
        assert not any(overlap(a, b) for a,b in itertools.combinations(tops, 2))
        for o in [*itertools.chain(*texts(ax)), ax.title, ax.xaxis.label, ax.yaxis.label, *(ax.get_legend().get_texts() if ax.get_legend() else ())]:
            if not o.get_text(): continue
            p = o.get_window_extent()
            assert p.x0>=-2 and p.x1<=w+2 and p.y0>=-2 and p.y1<=h+2, (o.get_text(), p, w, h)
    assert w<=800

def boxes(fig):
    "Texts of a figure with their extents; slanted ones, whose boxes say little, are left out, as are ticks that are not drawn"
    ticks = {o for ax in fig.axes for axis in (ax.xaxis, ax.yaxis) for o in axis.get_ticklabels(which='both')}
    drawn = {o for ax in fig.axes if ax.axison for group in texts(ax) for o in group}
    found = [o for o in fig.findobj(matplotlib.text.Text) if o.get_visible() and o.get_text().strip() and (o not in ticks or o in drawn)]
    return [(o, o.get_window_extent()) for o in found if o.get_rotation() in (0, 90)]

def check_texts(fig):
    "No text leaves the figure, and no two cover each other, whatever panels they are in"
    w,h = fig.canvas.get_width_height()
    shown = boxes(fig)
    for o,p in shown: assert p.x0>=-2 and p.x1<=w+2 and p.y0>=-2 and p.y1<=h+2, (o.get_text(), p, w, h)
    for (a,p),(b,q) in itertools.combinations(shown, 2):
        assert min(p.x1, q.x1)-max(p.x0, q.x0)<=1 or min(p.y1, q.y1)-max(p.y0, q.y0)<=1, (a.get_text(), b.get_text())

def axes_for(width, f, *args):
    "The axes of the plot `f` of `args` on a figure of `width` inches; its own if None"
    ax = f(*args)
    if width is None: return ax
    n = np.size(ax)
    plt.close('all')
    fig,axs = plt.subplots(n, 1, figsize=(width, max(3, 2.4*n)), layout='constrained')
    return f(*args, ax=axs)

slow_ones = 'plot_contour', 'plot_surrogate', 'plot_forecast', 'plot_importances', 'plot_trial' # Their texts depend little on the number of trials
sizes = [(n, width, name) for n,width in ((1, None), (20, None), (20, 3.5), (500, None)) for name in plots if n<500 or name not in slow_ones]
@pytest.mark.parametrize('n,width,name', sizes)
def test_texts_do_not_cover_each_other(n, width, name):
    "Long names, one trial to 500, in a notebook and on a phone"
    if n not in _made: _made[n] = filled(long | dict(arch=names[::4]), n)
    st = _made[n]
    with warnings.catch_warnings():
        warnings.simplefilter('error')  # of a layout that does not fit
        ax = axes_for(width, plots[name], st, *([n//2] if name=='plot_trial' else []))
        fig = np.ravel(ax)[0].figure
        fig.canvas.draw()
    if name!='plot_parallel' or width is None: check_texts(fig)

def test_values_off_the_scale():
    "They are marked as such, not moved; medians and numbers on axes are those of the values"
    st = filled(usual, 30)
    for v in (-50., -60.): st.add_trial(create_trial(params=st.trials[0].params, distributions=st.trials[0].distributions, value=v, intermediate_values={1: v}))
    values = history_data(st).value
    ax = plots['plot_history'](st)
    names = [o.get_text() for o in ax.get_legend().get_texts()]
    assert 'below the axis (2)' in names and f'best: trial {values.idxmax()}' in names
    edge = [o for o in ax.collections if o.get_label()=='below the axis (2)'][0].get_offsets()
    assert list(edge[:,1])==[ax.get_ylim()[0]]*2
    seen = np.concatenate([o.get_offsets()[:,1] for o in ax.collections if o.get_label() in ('complete', 'stopped') or o.get_label()[:4]=='best'])
    assert {*np.round(seen, 12)}<={*np.round(values.dropna(), 12)} and len(seen)==values.notna().sum()-2
    ax = plots['plot_choices'](st)
    lines = next(o for o in ax.collections if o.get_label()=='median').get_segments()
    rows,df = [o.get_text() for o in ax.get_yticklabels()],choices_data(st)
    medians = {rows[round(o[:,1].mean())].split('  ')[0]: o[0,0] for o in lines}
    for (k,c),g in df.groupby(['name', 'choice']): assert math.isclose(medians[f'{k} = {c}'], g.value.median(), rel_tol=1e-9)
    tops = [df[(df.name==k) & (df.choice==c)].value.max() for k,c in (o.split('  ')[0].split(' = ') for o in rows)]
    sizes = [df.choice[df.name==k].nunique() for k in reversed(df.name.unique())]
    for part in np.split(tops, np.cumsum(sizes)[:-1]): assert (np.diff(part)>=0).all()  # the option with the best trial is on top
    shown = [o.get_text() for o in plots['plot_parallel'](st).texts]
    assert f'{values.max():.3g}' in shown and any(o.startswith('< ') for o in shown)

def test_a_median_off_the_scale_is_not_drawn():
    "That of moved values would be on it"
    space = Space(dict(a=['x', 'y']))
    st = open_study(space, 'maximize')
    for a,v in (*(('x', v) for v in (.7, .8, .85, .9, .95)), ('y', .8), ('y', -50.)):
        st.add_trial(create_trial(params=dict(a=a), distributions=distributions(space), value=v))
    ax = plots['plot_choices'](st)
    (line,) = next(o for o in ax.collections if o.get_label()=='median').get_segments()
    assert [o.get_text() for o in ax.get_yticklabels()]==['a = y  (2)', 'a = x  (5)'] and line[:,1].mean()==1 and line[0,0]==.85
    assert 'left of the axis (1)' in [o.get_text() for o in ax.get_legend().get_texts()]

def test_forecasts_stay_where_the_metric_can_be():
    "An accuracy between 0 and 1, a loss not below 0; a metric of which nothing is known may be anything"
    def near(p, rng, T):
        top = rng.random()
        return [.999-.4*math.exp(-e*(.3+top)/2)-.001*rng.random() for e in range(1, T+1)]
    def frame(name, curve, mode):
        st = filled(usual, 30, mode=mode, curve=curve)
        st.set_user_attr('monitor', name)
        df,k = forecasts.forecast_data(st),surrogate.surrogate_data(st, 'lr')
        n = next(t.number for t in st.trials[::-1] if t.state==TrialState.PRUNED)
        return np.array([*df.low, *df.high, *k.low, *k.high, *(forecasts.trial_data(st, n)[o] for o in ('low', 'high', 'forecast'))])
    for name,over in (('accuracy', False), ('f1_score', False), ('speed', True)):
        assert (frame(name, near, 'maximize').max()>1)==over, name
    def low(p, rng, T): return [1-v for v in near(p, rng, T)]
    for name,under in (('valid_loss', False), ('error_rate', False), ('speed', True)):
        assert (frame(name, low, 'minimize').min()<0)==under, name
    for name,seen in (('accuracy', [.5, 87.]), ('valid_loss', [-.5, 1.])):  # in percent, and with a sign
        st = filled(usual, 0)
        st.set_user_attr('monitor', name)
        assert bounds_of(st, np.array(seen))==(-math.inf, math.inf)

def test_neighbours_on_a_front_are_both_numbered():
    "One label is below its point, the other above, and they do not overlap"
    fig,ax = plt.subplots(figsize=(7, 4))
    ax.set(xlim=(0, 1), ylim=(0, 1))
    _numbers(ax, pd.DataFrame(dict(number=[1, 2], front=True, cost=[.5, .52], value=[.5, .53])), 'cost', 'value')
    fig.canvas.draw()
    one,two = (o.get_window_extent() for o in ax.texts)
    assert [o.get_text() for o in ax.texts]==['1', '2'] and not one.overlaps(two)
    plt.close(fig)

def test_importance_of_many_options():
    "Shares of the variance are those of the function, in time that does not grow with 2 to the number of options"
    spec = dict(a=[*map(str, range(40))], x=(0., 1.))
    rng,st = np.random.default_rng(0),open_study(Space(spec), 'maximize')
    good = rng.permutation([0., 1.]*20)
    for i in range(240):
        a,x = i%40,rng.random()
        st.add_trial(create_trial(params=dict(a=str(a), x=x), distributions=distributions(Space(spec)), value=float(good[a]+2*x)))
    res,share = importances_data(st),(1/4)/(1/4+4/12)
    assert math.isclose(res.sum(), 1, rel_tol=1e-9) and abs(res.a-share)<.07, (res.a, share)

@pytest.mark.parametrize('kind', makers)
def test_data(kind):
    "What is drawn is what the study holds"
    st = study_of(kind)
    n,done = len(st.trials),ended(st)
    history,saved,when = history_data(st),saved_data(st),timeline_data(st)
    assert len(history)==len(saved)==len(when)==n
    assert (history.spent.max() if n else 0)==saved.epochs.sum()==epochs_spent(st) and saved.saved.sum()==epochs_saved(st)
    assert history.value.notna().sum()==len(params_data(st))==len(parallel_data(st))==len(done)
    assert list(history.value.dropna())==[v for _,v in done]
    assert len(curves_data(st))==n and len(choices_data(st))==sum(isinstance(v, (str, int)) for t,_ in done for v in t.params.values())
    for _,o in when.groupby('row'): assert (o.end.values[:-1]<=o.start.values[1:]).all() and o.worker.nunique()==1
    open = forecasts.forecast_data(st)
    stopped = [t.number for t in st.trials if t.state==TrialState.PRUNED and all(map(math.isfinite, t.intermediate_values.values()))
               and len(t.intermediate_values)<t.user_attrs['n_epoch']]
    assert sorted(open.number)==stopped and (open.low<=open.forecast).all() and (open.forecast<=open.high).all() and open.prob_best.between(0, 1).all()
    assert open.prob_best.is_monotonic_decreasing

@pytest.mark.parametrize('kind', ['some', 'loss', 'conditions'])
def test_surrogate_data(kind):
    "The model's sweep passes the best training where it crosses it, and its band is narrow there"
    st = study_of(kind)
    s = surrogate.Surface(st)
    for k in s.space:
        df = surrogate.surrogate_data(st, k)
        assert ((df.low<df.value) & (df.value<df.high)).all() and np.isfinite(df[['value', 'low', 'high']]).all(axis=None)
        x,n = s.around(k)
        value,low,high = (o[0] for o in s.predict(x[None]))
        luck = 3*s.surrogate.noise*s.surrogate.transform.scale  # the band is that of the value without the noise of the curves
        assert df.attrs['trial']==n and low-luck<=best_of(st.trials[n], st.direction)[0]<=high+luck and high-low<(df.high-df.low).max()+1e-9
        assert luck<.04, luck

def test_a_dead_process_does_not_stretch_the_timeline():
    "A trial that is still marked as running ends with the study, not today; one that may be running ends now"
    st = filled(usual, 12)
    t = create_trial(params=st.trials[0].params, distributions=st.trials[0].distributions, state=TrialState.RUNNING, user_attrs=dict(worker='h-0'))
    ended = [o.datetime_complete for o in st.trials]
    t.datetime_start = max(ended)
    st.add_trial(t)
    def end(**after): return timeline_data(st, max(ended)+timedelta(**after)).end.max()
    assert end(minutes=3)==max(ended)+timedelta(minutes=3) and end(days=300)==end(days=1)<max(ended)+timedelta(hours=1)

def test_failed_trials_are_in_the_plot_of_the_surrogate():
    "They count as bad and pull the prediction down, so that one must see where they are"
    st = study_of('some')
    n = sum(t.state==TrialState.FAIL for t in st.trials)
    for mode,end in (('some', 0), ('loss', 1)):
        axs = plots['plot_surrogate'](study_of(mode))
        for ax in axs:
            at = [o for o in ax.collections if o.get_label()=='failed']
            assert len(at)==1 and len(at[0].get_offsets())==n and {*at[0].get_offsets()[:,1]}=={ax.get_ylim()[end]}
        assert 'failed, counts as bad' in [o.get_text() for o in axs[0].figure.legends[0].get_texts()]

def test_trial_that_was_stopped():
    "What is said of a trial does not depend on those that came later"
    st = study_of('some')
    n = next(t.number for t in st.trials if t.state==TrialState.PRUNED)
    o = forecasts.trial_data(st, n)
    early = filled(usual, n+1)
    same = forecasts.trial_data(early, n)
    assert o['reason']==same['reason'] and 'probability' in o['reason']
    assert all(math.isclose(o[k], same[k], rel_tol=1e-9) for k in ('forecast', 'low', 'high', 'prob_best', 'best'))
    assert o['reason'] in ' '.join(forecasts.plot_trial(st, n).get_title(loc='left').split())

def test_a_resumed_trial_has_one_number():
    "That of its first Optuna trial, in every table and plot; it is found by any of them"
    st = filled(usual, 8)
    resume_trial(st, st.trials[7], 2)
    t = st.ask(distributions(Space(usual)))
    for e in range(3, 7): t.report(.99, e)
    st.tell(t, .99)
    res,made = TuneResult(st, Space(usual), make=lambda n: n),[0, 1, 2, 3, 4, 6, 7]
    assert t.number==8 and st.trials[7].state.name=='PRUNED' and res.best_trial.number==7
    frames = trial_frame(st),curve_frame(st),history_data(st),curves_data(st),timeline_data(st),saved_data(st)
    for df in frames: assert sorted({*df.number})==list(range(8))
    for df in (params_data(st), parallel_data(st), choices_data(st)): assert sorted({*df.number})==made
    assert surrogate.Surface(st).around('lr')[1]==7 and '(trial 7, epoch 3)' in repr(res) and '(trial 7, epoch 3)' in res._repr_html_()
    assert res.learner(7)==res.learner(8)==7 and res.params_of(7)==res.params_of(8)==res.best_params
    a,b = (forecasts.trial_data(st, n) for n in (7, 8))
    assert a==b and a['number']==7 and a['points'][-1]==(6, .99) and len(a['others'])==7
    assert forecasts.plot_trial(st, 8).get_title(loc='left').startswith('trial 7, complete')
    assert 'best: trial 7' in [o.get_text() for o in plots['plot_curves'](st).get_legend().get_texts()]
    assert list(res.plotly().data[0].x)==made
    plt.close('all')

def test_pictures_do_not_change_the_search():
    "A study that was looked at goes on as one that was not"
    a,b = filled(usual, 14),filled(usual, 14)
    def ask(st): return st.ask(distributions(Space(usual))).params
    assert ask(a)==ask(b)
    for f in pictures.values(): f(a)
    assert ask(a)==ask(b)

def test_register():
    "A decorated plot is a method of results"
    for name,f in plots.items():
        method = getattr(TuneResult, name)
        assert name.startswith('plot_') and method.__doc__==f.__doc__
        assert list(inspect.signature(method).parameters)[1:]==list(inspect.signature(f).parameters)[1:]
    assert plots['plot_trial'].caption is None

def legend_of(ax):
    "Legend of the axes `ax`, or of their figure"
    first = np.ravel(ax)[0]
    return next(iter(first.figure.legends), None) or first.get_legend()

def test_every_plot_has_a_title():
    "Above its legend, or above the axis; on axes of one's own there is none, and a sentence stays alone"
    st = study_of('some')
    for k,f in plots.items():
        ax = f(st, 3) if k=='plot_trial' else f(st)
        first,leg = np.ravel(ax)[0],legend_of(ax)
        title = ' '.join((leg.get_title().get_text() if leg else '').split()) or first.get_title('left')
        if first.get_gid()=='sentence': assert not title, k
        elif k=='plot_trial': assert first.get_title('left').startswith('trial 3')
        else: assert title==(f.caption or f.__doc__.splitlines()[0].split(';')[0]), k
        plt.close('all')
    _,ax = plt.subplots()
    assert plots['plot_history'](st, ax).get_legend().get_title().get_text()==''==ax.get_title('left')

def test_legends_say_what_marks_and_colors_mean():
    "The best trial is named, stopped ones are hollow, shades have a key; colors of the order of trials have their ends"
    st = study_of('some')
    for name in ('history', 'curves', 'slice', 'parallel', 'choices', 'surrogate'):
        ax = plots[f'plot_{name}'](st)
        leg = legend_of(ax)
        shown = {o.get_text(): h for o,h in zip(leg.get_texts(), leg.legend_handles)}
        assert sum(o.startswith('best: trial ') for o in shown)==1 and any(o.startswith('stopped') for o in shown), (name, [*shown])
        if name in ('curves', 'parallel'): assert {'better', 'worse'}<={*shown}
        hollow = next(h for o,h in shown.items() if o.startswith('stopped'))
        face = hollow.get_markerfacecolor() if hasattr(hollow, 'get_markerfacecolor') else hollow.get_facecolor()
        assert isinstance(face, str) and face=='none' or len(face)==0, (name, face)
        plt.close('all')

def test_slices_show_the_order_of_trials():
    "Each dot has the color of its trial's place in the order, but the best and the failed; the legend has the ends"
    st = study_of('some')
    axs = plots['plot_slice'](st)
    df,best = params_data(st),TuneResult(st, Space(usual)).best_trial.number
    df = df[df.number!=best]
    want = {tuple(np.round(turns((n-0)/params_data(st).number.max())[:3], 6)) for n in df.number}
    for ax in axs:
        seen = {tuple(np.round(c[:3], 6)) for o in ax.collections if len(o.get_offsets()) and o.get_zorder()==3 for c in o.get_edgecolors()}
        assert seen==want
        orange = [o for o in ax.collections if len(o.get_offsets()) and o.get_zorder()==4]
        assert len(orange)==1 and tuple(orange[0].get_facecolors()[0])==to_rgba('#e07b00')
    shown = [o.get_text() for o in legend_of(axs).get_texts()]
    assert {'first: trial 0', f'last: trial {params_data(st).number.max()}', f'best: trial {best}', 'complete', 'stopped'}<={*shown}

def test_importances_have_errors():
    "Whiskers are the standard deviation over bootstrap samples: smaller with more trials, about that of other studies of the same function"
    spec = dict(x=(0., 1.), y=(0., 1.))
    def made(n, seed):
        rng,st = np.random.default_rng(seed),open_study(Space(spec), 'maximize')
        for x,y in rng.random((n, 2)): st.add_trial(create_trial(params=dict(x=x, y=y), distributions=distributions(Space(spec)), value=2*x+y))
        return st
    few,more = importance_errors(made(20, 0)),importance_errors(made(60, 0))
    assert (more<few).all()
    between = np.std([importances_data(made(60, seed)).x for seed in range(6)], ddof=1)
    assert between/3<more.x<between*3, (more.x, between)
    ax = plots['plot_importances'](made(20, 0))
    assert ax.get_xlabel()=='share of the variance (fANOVA)' and 'standard error' in legend_of(ax).get_texts()[0].get_text()
    bars,whiskers = sorted(o.get_width() for o in ax.patches),ax.containers[-1].lines[2][0].get_segments()
    assert np.allclose(sorted(w[:,0].mean() for w in whiskers), bars) and np.allclose(sorted(np.ptp(w[:,0])/2 for w in whiskers), sorted(few))

def test_numbers_of_numpy():
    "Trials made by hand may hold them: tables and plots are those of the same numbers of Python"
    space = Space(dict(lr=(.1, 1.), n=(1, 9)))
    def made(f, i):
        st = open_study(space, 'maximize')
        for k in range(6): st.add_trial(create_trial(params=dict(lr=f(.125*(k+1)), n=i(k+1)), distributions=distributions(space), value=f(.5+k/16),
            intermediate_values={i(e): f(.25+k/16+e/8) for e in (1, 2)}, user_attrs=dict(n_epoch=i(2), seconds=f(1), measures=dict(size=f(2)))))
        return st
    want = made(float, int)
    for f,i in ((np.float64, np.int64), (np.float32, np.int32)):
        st = made(f, i)
        check_study(st)
        for g in (trial_frame, curve_frame, params_data, history_data): pd.testing.assert_frame_equal(g(st), g(want), check_dtype=False)
        assert np.allclose(importances_data(st), importances_data(want)) and repr(TuneResult(st, space)).split(':')[1:]==repr(TuneResult(want, space)).split(':')[1:]
        for k,g in plots.items(): g(st, 0) if k=='plot_trial' else g(st)
        plt.close('all')
