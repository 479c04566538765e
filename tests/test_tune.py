"`bayes_tune`: what it leaves alone, what it leaves behind, and when it ends"
import math, subprocess, sys
import optuna, pytest, torch
from optuna.pruners import NopPruner
from optuna.samplers import RandomSampler
from tuning import *
from fastai_bayes.all import *

lrs = dict(lr=(1e-3, 1e-1, 'log'))
@pytest.fixture
def learn(tmp_path): return digits(tmp_path)
@pytest.fixture(autouse=True)
def _count(): Break.count = 0

def tune(learn, n=2, space=lrs, **kwargs):
    return learn.bayes_tune(n, space, **{**quick, **dict(sampler=RandomSampler(seed=0), pruner=NopPruner(), n_trials=2), **kwargs})
def reasons(res): return res.trials.sort_values('number').reason.tolist()
def states(res): return res.trials.sort_values('number').state.tolist()
def agrees(learn, res):
    "Does the learner perform as the result says?"
    row = dict(zip(['valid_loss', 'accuracy'], learn.validate()))
    return abs(row[res.study.user_attrs['monitor']]-res.best_value)<1e-6

def test_default_call(learn):
    res = learn.bayes_tune(2, verbose=False, seed=1)
    assert set(res.best_params)=={'lr', 'wd', 'bs', 'opt_func'}
    assert res.trials.epochs.sum()==40 and agrees(learn, res)
    p = res.best_params
    assert (learn.lr, learn.wd, learn.dls.train.bs)==(p['lr'], p['wd'], p['bs']) and learn.opt_func is p['opt_func']
    assert res.best_value==res.trials.value.max()>.5

@pytest.mark.parametrize('fit', ['fit', 'fit_one_cycle', 'fit_flat_cos', 'fine_tune'])
def test_learner_holds_the_best(learn, fit):
    res = tune(learn, fit=fit, n=3, n_trials=4)
    assert agrees(learn, res) and learn.lr==res.best_params['lr']
    assert res.trials.epochs.tolist()==[4 if fit=='fine_tune' else 3]*4

def test_minimises_losses(learn):
    res = tune(learn, monitor='valid_loss', n_trials=4)
    assert res.best_value==res.trials.value.min() and agrees(learn, res)

def test_fine_tune_frozen(tmp_path):
    "Both stages are one curve, and the best may lie in the frozen one"
    learn = digits(tmp_path, splitter=lambda m: L(params(m[:2]), params(m[2:])), cbs=Curve(lambda lr, epoch: [.9, .1, .2][epoch]))
    learn.freeze()
    res = tune(learn, fit='fine_tune', freeze_epochs=1)
    assert res.curves.groupby('number').value.apply(list).tolist()==[[.9, .9, .1]]*2 and res.best_epoch==1
    assert all(o.requires_grad for o in learn.model.parameters())

def test_callable_fit(learn):
    def train(learn, n_epoch, cbs, pct_start): learn.fit_one_cycle(n_epoch, pct_start=pct_start, cbs=cbs)
    res = tune(learn, space=dict(lrs, pct_start=(.1, .5)), fit=train)
    assert agrees(learn, res) and states(res)==['complete']*2

def test_fit_arguments_reach_the_fit(learn):
    seen = []
    def train(learn, n_epoch, cbs, div, lr): seen.append((div, lr, learn.lr)); learn.fit_one_cycle(n_epoch, div=div, cbs=cbs)
    res = tune(learn, fit=train, div=7.)
    lr = [t.params['lr'] for t in res.study.trials]
    assert seen[-len(lr):]==[(7., o, o) for o in lr] and len(seen)>len(lr)  # first steps, on copies that are thrown away, come first

# What is left alone

def test_process_and_loaders_as_before(learn):
    learn.dls.train.rng.seed(3)
    before,rngs = process(),[o.rng.getstate() for o in learn.dls.loaders]
    cbs,mets,dls = list(learn.cbs),list(learn.metrics),learn.dls
    learn.bayes_tune(2, n_trials=3, verbose=False)
    assert process()==before and [o.rng.getstate() for o in dls.loaders]==rngs
    assert list(learn.cbs)==cbs and list(learn.metrics)==mets and dls.train.bs==32

def test_not_trained_before_the_end(learn):
    before,seen = list(picture(learn)),[]
    class Look(Callback):
        def after_fit(self): seen.append(same(before, [*picture(learn)[:-1], before[-1]]))  # the loaders' generators are put back later
    tune(learn, cbs=Look(), space=dict(lrs, bs=[16, 32]), n_trials=3)
    assert seen==[True]*3

def test_nothing_outside_the_folder(tmp_path):
    learn = digits(tmp_path, cbs=[CSVLogger(), SaveModelCallback()])
    res = tune(learn, study_name='s', n_trials=5)
    assert {o.split('/')[0] for o in files(tmp_path)}=={'models'} and {o.name for o in (tmp_path/'models').iterdir()}=={'bayes'}
    d = tmp_path/'models'/'bayes'/'s'
    assert res.folder==d and res.best_path==d/f'trial_{res.best_trial.number}'/'best.pth'
    assert (d/'study.log').exists() and (d/'trial_0'/'history.csv').exists()
    kept = {int(o.parent.name[6:]) for o in d.glob('*/best.pth')}
    assert kept==set(res.trials.number[:3])

def test_other_learners_of_the_result(learn):
    res = tune(learn, n_trials=5)
    for n in res.trials.number[:3]:
        other = res.learner(n)
        assert abs(other.validate()[1]-res.trials.set_index('number').value[n])<1e-6
    with pytest.raises(TuneError, match='were not kept'): res.learner(int(res.trials.number.iloc[-1]))

# Learners as people have them

def test_after_lr_find(learn):
    learn.lr_find(show_plot=False)
    assert agrees(learn, tune(learn))

@pytest.mark.parametrize('cbs', [MixUp, partial(GradientAccumulation, 64), CSVLogger, SaveModelCallback, ShowGraphCallback,
                                 partial(GradientClip, 1.), partial(EarlyStoppingCallback, patience=1)])
def test_with_callbacks(tmp_path, cbs):
    learn = digits(tmp_path, cbs=cbs())
    assert agrees(learn, tune(learn))
    res = tune(digits(tmp_path), cbs=cbs())
    assert states(res)==['complete']*2

def test_mixed_precision(tmp_path):
    "Without a GPU fastai warns and trains in full precision; so do we"
    learn = digits(tmp_path).to_fp16()
    with pytest.warns(UserWarning): learn.fit(1)
    learn = digits(tmp_path).to_fp16()
    res = tune(learn)
    assert agrees(learn, res) and hasattr(learn, 'mixed_precision')

def test_after_fits_that_ended_or_failed(tmp_path):
    learn = digits(tmp_path, cbs=[MixUp(), CSVLogger()])
    with learn.no_bar(): learn.fit(1)
    assert agrees(learn, tune(learn))
    with pytest.raises(RuntimeError): learn.fit(1, cbs=Break(RuntimeError('x')))
    Break.count = 9
    assert agrees(learn, tune(learn))

@pytest.mark.parametrize('opt', [torch.optim.AdamW, partial(torch.optim.SGD, momentum=.9), ranger])
def test_optimizers(learn, opt):
    res = tune(learn, space=dict(lrs, opt_func=[opt], wd=(.01, .1)), n_trials=1)
    assert agrees(learn, res)
    learn.fit(1)

def test_optim_wrapper_instance(tmp_path):
    model = net()
    learn = digits(tmp_path, model=model, opt_func=OptimWrapper(opt=torch.optim.AdamW(model.parameters(), lr=.1)))
    res = learn.bayes_tune(2, n_trials=2, **quick)
    assert 'opt_func' not in res.best_params and agrees(learn, res)

def test_vision_architectures(tmp_path):
    imgs = x.view(-1, 1, 8, 8).repeat(1, 3, 4, 4)
    dls = DataLoaders(*[TfmdDL(TensorDataset(imgs[o], y[o]), bs=16, shuffle=True, num_workers=0) for o in (slice(64), slice(64, 96))], path=tmp_path)
    dls.c = 10
    learn = vision_learner(dls, resnet18, pretrained=False, loss_func=CrossEntropyLossFlat(), metrics=accuracy)
    res = tune(learn, n=1, space=dict(arch=[resnet34], bs=[32]), n_trials=1)
    assert learn.arch is resnet34 and agrees(learn, res)
    assert sum(o.numel() for o in learn.model.parameters())>20e6

def test_factory(tmp_path):
    dls = loaders(tmp_path)
    def make(p): return digits(tmp_path, dls, net(p['width']), cbs=GradientClip(p['clip']))
    learn = digits(tmp_path, dls)
    res = tune(learn, space=dict(lrs, width=[8, 24], clip=(.1, 1.), bs=[16, 64]), new_learner=make, n_trials=4)
    p = res.best_params
    assert agrees(learn, res) and learn.model[0].out_features==p['width'] and learn.dls.train.bs==p['bs']
    assert learn.gradient_clip.max_norm==p['clip'] and dls.train.bs==32
    other = res.learner(int(res.trials.number[1]))
    assert other.model[0].out_features==res.params_of(int(res.trials.number[1]))['width']

# Seeds

def test_seeds_repeat_a_study(tmp_path):
    def curves(seed):
        torch.rand(1)
        return digits(tmp_path, cbs=MixUp()).bayes_tune(2, n_trials=6, seed=seed, verbose=False).curves.value.tolist()
    a = curves(4)
    assert curves(4)==a and curves(5)!=a

def test_by_hand(learn):
    "A trial is the training that one would write by hand with the same seed"
    from fastai_bayes.learner.copies import clone, seeded
    from fastai_bayes.learner.loaders import seeded_loaders
    seed = int(np.random.SeedSequence([0, 1]).generate_state(1)[0])
    c = clone(learn)
    res = tune(learn)
    with seeded(seed), seeded_loaders(c.dls, seed), c.no_bar(), c.no_logging(): c.fit_one_cycle(2, res.params_of(1)['lr'])
    assert [o[2] for o in c.recorder.values]==res.curves.query('number==1').value.tolist()

# Limits

def test_budget_is_exact_and_cuts(learn):
    res = tune(learn, n=3, n_trials=None, budget=8)
    assert states(res)==['complete', 'complete', 'stopped'] and res.trials.epochs.sum()==8
    assert reasons(res)==['', '', 'budget'] and agrees(learn, res)

def test_cut_training_can_win(tmp_path):
    learn = digits(tmp_path, cbs=Curve(lambda lr, epoch: [.9, .5, .4][epoch]))
    res = tune(learn, n=3, n_trials=None, budget=1)
    assert (states(res), res.best_value, res.best_epoch)==(['stopped'], .9, 1)
    assert learn.model.state_dict()['0.weight'].equal(torch.load(res.best_path, weights_only=True)['0.weight'])

def test_timeout(tmp_path):
    class Slow(Callback):
        def after_epoch(self): time.sleep(.3)
    res = tune(digits(tmp_path), n=50, n_trials=None, timeout=.5, cbs=Slow())
    assert states(res)==['stopped'] and reasons(res)==['timeout'] and 1<=res.trials.epochs[0]<=3

def test_limits_count_the_whole_study(learn):
    tune(learn, study_name='s', n_trials=2)
    res = tune(learn, study_name='s', n_trials=3)
    assert len(res.trials)==3
    assert len(tune(learn, study_name='s', n_trials=3).trials)==3 and agrees(learn, res)
    assert tune(learn, study_name='s', n_trials=None, budget=7).trials.epochs.sum()==7

def test_pruned_trials_keep_their_best(tmp_path):
    "The pruner stops what is bad after its second epoch, with the weights of its first"
    class Second(optuna.pruners.BasePruner):
        def prune(self, study, trial): return len(trial.intermediate_values)==2
    learn = digits(tmp_path, cbs=Curve(lambda lr, epoch: [.9, .5, .4][epoch]))
    res = tune(learn, n=3, pruner=Second())
    assert states(res)==['stopped']*2 and res.best_epoch==1 and res.trials.epochs.tolist()==[2, 2]

# Failures

def test_failures_are_recorded(learn):
    before = process()
    res = tune(learn, n_trials=4, cbs=Break(RuntimeError('CUDA out of memory'), (2, 3)))
    assert states(res)==['complete', 'failed', 'failed', 'complete'] and process()==before
    assert 'RuntimeError' in reasons(res)[1] and 'CUDA out of memory' in reasons(res)[1]
    assert agrees(learn, res) and res.trials.number[:2].isin([0, 3]).all()

def test_three_failures_at_the_start(learn):
    before,proc = picture(learn),process()
    with pytest.raises(TuneError, match='(?s)3 trials, none succeeded.*out of memory') as e:
        tune(learn, n_trials=9, cbs=Break(RuntimeError('out of memory'), range(9)))
    assert isinstance(e.value.__cause__, RuntimeError) and same(before, picture(learn)) and process()==proc

def test_one_trial_that_fails(learn):
    with pytest.raises(TuneError, match='none succeeded'): tune(learn, n_trials=1, cbs=Break(ValueError('bad item')))

def test_failures_use_up_the_budget(learn):
    res = tune(learn, n_trials=None, budget=6, cbs=Stop())
    assert states(res)==['complete']+['failed']*4

class Stop(Callback):
    "Fails before the first epoch, except the first time"
    n = 0
    def before_fit(self):
        Stop.n += 1
        if Stop.n>1: raise RuntimeError('no memory')

def test_nan_is_a_failure_and_loads_nothing_stale(tmp_path):
    learn = digits(tmp_path, cbs=Curve(lambda lr, epoch: math.nan if lr>.014 else .5))
    res = tune(learn, fit='fit', n_trials=6)
    bad = res.trials.query('state=="failed"')
    assert 0<len(bad)<6 and (bad.lr>.014).all() and bad.reason.str.startswith('accuracy never had a finite value, although the loss had').all()
    assert not any((res.folder/f'trial_{n}').exists() for n in bad.number)

def test_nan_later_keeps_what_was(tmp_path):
    learn = digits(tmp_path, cbs=Curve(lambda lr, epoch: [.5, .6, math.nan][epoch]))
    res = tune(learn, n=3)
    assert states(res)==['complete']*2 and (res.best_value, res.best_epoch)==(.6, 2)

def test_terminate_on_nan(tmp_path):
    class Diverge(Callback):
        def after_loss(self):
            if self.training and self.opt.hypers[-1]['lr']>.014: self.learn.loss_grad = self.loss_grad*math.nan; self.learn.loss = self.loss*math.nan
    res = tune(digits(tmp_path), fit='fit', n_trials=6, cbs=[Diverge(), TerminateOnNaNCallback()])
    assert (res.trials.query('lr>.014').state=='failed').all() and (res.trials.query('lr<=.014').state=='complete').all()

def test_ctrl_c(learn):
    before,proc = picture(learn),process()
    res = tune(learn, n_trials=9, cbs=Break(KeyboardInterrupt(), (3,)))
    assert states(res)==['complete', 'complete', 'stopped'] and reasons(res)[2]=='interrupted'
    assert process()==proc and picture(learn)[2]==before[2] and agrees(learn, res)

def test_ctrl_c_before_anything(learn):
    class Now(Callback):
        def before_fit(self): raise KeyboardInterrupt
    before = picture(learn)
    res = tune(learn, cbs=Now())
    assert states(res)==['failed'] and same(before, picture(learn))
    with pytest.raises(StudyError, match='no trial'): res.best_value

def test_fit_that_forgets_cbs(learn):
    with pytest.raises(TuneError, match='must pass cbs on'): tune(learn, fit=lambda learn, n, cbs: learn.fit(n))

def test_memory_is_freed_between_trials(learn):
    import gc, weakref
    seen = []
    class Spy(Callback):
        def before_fit(self): seen.append(weakref.ref(self.learn.model)); alive.append(sum(o() is not None for o in seen))
    alive = []
    gc.collect(); gc.disable()
    try: tune(learn, n_trials=4, cbs=[Spy(), Break(RuntimeError('x'), (2,))])
    finally: gc.enable()
    assert alive==[1]*4

# Afterwards

def test_export_without_the_package(tmp_path):
    from fastai.tabular.all import TabularDataLoaders, tabular_learner
    df = pd.DataFrame(x[:240].numpy(), columns=[f'p{i}' for i in range(64)]).assign(y=y[:240].numpy())
    dls = TabularDataLoaders.from_df(df, cont_names=list(df.columns[:-1]), y_names='y', y_block=CategoryBlock(),
                                       procs=[Normalize], valid_idx=range(60), bs=20, path=tmp_path)
    learn = tabular_learner(dls, layers=[20], metrics=accuracy)
    res = learn.bayes_tune(2, n_trials=3, **quick)
    assert agrees(learn, res)
    df.iloc[:1].to_pickle(tmp_path/'row.pkl')
    want = learn.predict(df.iloc[0])[2]
    learn.export('out.pkl')
    code = f'''import sys; sys.modules['fastai_bayes'] = sys.modules['optuna'] = None
from fastai.tabular.all import *
learn = load_learner({str(tmp_path/"out.pkl")!r})
with learn.no_bar(): print(learn.predict(pd.read_pickle({str(tmp_path/"row.pkl")!r}).iloc[0])[2].tolist())'''
    r = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True)
    assert r.returncode==0, r.stderr
    assert torch.allclose(torch.tensor(eval(r.stdout.splitlines()[-1])), want, atol=1e-6)

def test_silence(learn, capsys):
    with learn.no_logging(): tune(learn, verbose=False, cbs=[SaveModelCallback(), EarlyStoppingCallback(patience=1)])
    out = capsys.readouterr()
    assert out.out=='' and out.err==''

def test_plain_lines(learn, capsys):
    tune(learn, verbose=True)
    assert [o[:7] for o in capsys.readouterr().out.splitlines()]==['trial 0', 'trial 1']

def test_signature():
    import inspect
    names = 'self n_epoch space n_trials budget timeout monitor mode fit new_learner sampler pruner storage study_name seed enqueue cbs'
    names += ' verbose workers from_studies recipes prior subject_to goals target every cache_frozen enough repeats folds groups extend fit_kwargs'
    assert list(inspect.signature(Learner.bayes_tune).parameters)==names.split()

def test_the_same_line_twice(learn):
    res = [learn.bayes_tune(2, n_trials=n, study_name='s', **quick) for n in (2, 3)]
    assert len(res[1].trials)==3 and agrees(learn, res[1])

def test_what_depends_on_a_choice(learn):
    "Each training gets the settings of its optimizer; the same line carries on, and another condition is refused"
    space = dict(lrs, opt_func={SGD: dict(mom=(.8, .99)), Adam: dict(sqr_mom=(.9, .999)), ranger: {}}, bs=[64, 16, 32])
    hypers = []
    class Seen(Callback):
        def after_fit(self): hypers.append((self.learn.opt_func, dict(self.learn.opt.hypers[0])))
    kwargs = dict(fit='fit_flat_cos', sampler=None, pruner=None, study_name='s')
    tune(learn, space=space, n_trials=6, cbs=Seen(), **kwargs)
    res = tune(learn, space=space, n_trials=9, cbs=Seen(), **kwargs)
    own = dict(SGD={'mom'}, Adam={'sqr_mom'}, ranger=set())
    trials = res.study.get_trials()
    assert agrees(learn, res) and len(res.trials)==9 and {t.params['opt_func'] for t in trials}==set(own)
    for t in trials: assert set(t.params)=={'lr', 'opt_func', 'bs', *own[t.params['opt_func']]}
    for f,h in hypers: assert all(.8<=h[k]<=.999 for k in own.get(f.__name__, ()))
    assert {h[k] for f,h in hypers for k in own[f.__name__]}>={v for t in trials for k,v in t.params.items() if k.endswith('mom')}
    assert set(res.best_params)=={'lr', 'opt_func', 'bs', *own[res.best_params['opt_func'].__name__]}
    for o in 'history slice parallel choices importances'.split(): getattr(res, f'plot_{o}')()
    repr(res), res._repr_html_()
    space['opt_func'] = {SGD: dict(mom=(.8, .99)), Adam: dict(sqr_mom=(.9, .999)), ranger: dict(sqr_mom=(.9, .999))}
    with pytest.raises(StudyError, match='(?s)- sqr_mom.*if opt_func is Adam.*if opt_func is Adam or ranger'): tune(learn, space=space, **kwargs)

def test_what_depends_on_a_choice_with_a_factory(tmp_path, learn):
    "Any names; any sampler"
    made = []
    def new(p):
        made.append(p)
        return digits(tmp_path, model=net(p['wide'] if p['n']==2 else 4))
    space = dict(lrs, n={1: {}, 2: dict(wide=(4, 16))})
    for sampler in (None, RandomSampler(seed=0), optuna.samplers.TPESampler(seed=0)):
        made.clear()
        res = tune(learn, space=space, new_learner=new, sampler=sampler, n_trials=5)
        assert len(res.trials)==5 and {('wide' in p)==(p['n']==2) for p in made}=={True} and len({p['n'] for p in made})==2

def test_the_best_configuration_as_code_runs(tmp_path):
    "With what the study was called with: the factory, the fit and its arguments, the monitor; and without this package"
    from fastai_bayes.results.report import best_code
    def make(p): return digits(tmp_path, model=nn.Sequential(nn.Linear(64, p['width']), nn.ReLU(), nn.Linear(p['width'], 10)))
    learn = digits(tmp_path)
    res = learn.bayes_tune(2, dict(width=[24, 40], lr=(1e-3, 1e-1, 'log'), bs=[32, 64]), n_trials=3, seed=0, fit='fit_flat_cos', pct_start=.5,
                           monitor='valid_loss', new_learner=make, verbose=False)
    code,p = best_code(res),res.best_params
    assert code.splitlines()[1]=="learn.bayes_tune(2, space, n_trials=1, enqueue=False, monitor='valid_loss', fit='fit_flat_cos', pct_start=0.5, new_learner=new_learner)"
    tuned,_,plain = code.partition('# with fastai alone')
    space = dict(learn=digits(tmp_path), new_learner=make)
    exec(tuned.replace('n_trials', "verbose=False, study_name='again', n_trials"), space)
    assert (space['learn'].lr, space['learn'].dls.train.bs, space['learn'].model[0].out_features)==(p['lr'], p['bs'], p['width'])
    assert plain.splitlines()[0]==f", if the learner has width={p['width']}, bs={p['bs']}" and plain.splitlines()[2]==f"learn.fit_flat_cos(2, lr={p['lr']!r}, pct_start=0.5)"
    exec('#'+plain, space)
    assert len(space['learn'].recorder.values)==2 and space['learn'].model[0].out_features==p['width']
    learn = digits(tmp_path)
    def fit(learn, n_epoch, cbs, lr=1e-2): learn.fit(n_epoch, lr, cbs=cbs)
    res = learn.bayes_tune(1, dict(lr=[.01]), n_trials=1, fit=fit, verbose=False)
    assert 'fit=fit' in best_code(res) and 'alone' not in best_code(res)
    bind = dict(learn=digits(tmp_path), fit=fit)
    exec(best_code(res).replace('n_trials', "verbose=False, study_name='fit', n_trials"), bind)
    assert len(bind['learn'].recorder.values)==1
