"Every knob: what a training sees is what was suggested; what cannot be changed is refused; the learner holds the best one's value at the end"
import os, pytest, signal, torch
from multiprocessing import get_context
from optuna.pruners import NopPruner
from optuna.samplers import RandomSampler
from test_applications import apps, images, label, language_model, small, tabular_classes, text_classes
from tuning import *
from fastai.tabular.all import tabular_config, tabular_learner
from fastai_bayes.all import *
from fastai_bayes.learner.adjust import activation_of, augmentations, drops, text_drops, y_range_of
from fastai_bayes.learner.knobs import knobs

def plain(path): return digits(path, splitter=lambda m: L(params(m[:1]), params(m[1:])))
def vision(path):
    dls = images(path, CategoryBlock, label, n=40, item_tfms=Resize(32), batch_tfms=aug_transforms(size=24))
    return vision_learner(dls, small, pretrained=False, metrics=accuracy)
def small2(pretrained=False): return small()
def small3(pretrained=False): return small()
def mean_reduced(pred, targ): return F.cross_entropy(pred, targ)

def bounded(path):
    learn = plain(path)
    learn.model = nn.Sequential(learn.model, SigmoidRange(0, 1))
    learn.splitter = trainable_params
    return learn
def alpha(learn, cls): return float(next((o.distrib.concentration1 for o in learn.cbs if type(o) is cls), 0.))

def three(path):
    "A learner with three groups of layers"
    return digits(path, splitter=lambda m: L(params(m[0]), params(m[1]), params(m[3])))
class Noting(Module):
    "Notes the type of its input"
    def forward(self, x):
        self.seen = x.dtype
        return x
def noting(path): return digits(path, model=nn.Sequential(net(), Noting()))
def rates(name): return lambda learn: [float(h[name]) for h in learn.opt.hypers]
def ratio(name): return lambda learn: rates(name)(learn)[0]/rates(name)(learn)[1]
def which(learn):
    "The schedule of a training, by what its learning rate is at three points"
    f = learn.param_scheduler.scheds if hasattr(learn, 'param_scheduler') else {}
    if not f: return 'constant'
    early,share = [float(f['lr'](o)[-1])/.003 for o in (0., .025)]
    if early>.99: return 'flat_cos'
    return 'one_cycle' if 'mom' in f else 'cosine' if share==pytest.approx(.52) else 'another'

def hyper(name): return lambda learn: learn.opt.hypers[-1][name]
def schedule(name): return lambda learn: learn.param_scheduler.scheds[name]
def angle(learn): return next(f.keywords['max_deg'] for f in augmentations(learn.dls) if 'max_deg' in getattr(f, 'keywords', {}))/10

# name: (learner, fit, range, what the training sees)
cases = {
    'arch': (vision, 'fit', [small, small2], lambda l: l.arch),
    'layers': (tabular_classes, 'fit', [[20, 10], [8]], lambda l: [o[0].out_features for o in l.model.layers][:-1]),
    'bs': (plain, 'fit', [16, 32, 64], lambda l: len(l.xb[0])),
    'size': (vision, 'fit', [16, 40], lambda l: l.xb[0].shape[-1]),
    'aug': (vision, 'fit', (0., 2.), angle),
    'ps': (vision, 'fit', (.1, .9), lambda l: drops(l.model)[-1].p),
    'drop_mult': (language_model, 'fit', (0., 1.5), lambda l: l.model[0].input_dp.p/.25),
    'loss_func': (plain, 'fit', [CrossEntropyLossFlat(), mean_reduced], lambda l: l.loss_func),
    'label_smoothing': (plain, 'fit', (0., .5), lambda l: l.loss_func.func.label_smoothing),
    'opt_func': (plain, 'fit', [Adam, SGD], lambda l: SGD if len(l.opt.cbs)==2 else Adam),
    'lr': (plain, 'fit', (1e-3, 1e-1, 'log'), hyper('lr')),
    'wd': (plain, 'fit', (1e-3, 1e-1, 'log'), hyper('wd')),
    'moms': (plain, 'fit_one_cycle', [(.95, .85, .95), (.8, .7, .8)], lambda l: tuple(round(float(schedule('mom')(l)(o)), 6) for o in (0., .25, 1.))),
    'mom': (plain, 'fit', (.5, .9), hyper('mom')),
    'sqr_mom': (plain, 'fit', (.9, .999), hyper('sqr_mom')),
    'eps': (plain, 'fit', (1e-8, 1e-2, 'log'), hyper('eps')),
    'div': (plain, 'fit_one_cycle', (2., 50.), lambda l: .003/float(schedule('lr')(l)(0.)[-1])),
    'div_final': (plain, 'fit_one_cycle', (10., 1e4), lambda l: .003/float(schedule('lr')(l)(1.)[-1])),
    'pct_start': (plain, 'fit_one_cycle', (.2, .8), lambda l: max(torch.linspace(0, 1, 1001).tolist(), key=lambda o: schedule('lr')(l)(o)[-1])),
    'embed_p': (tabular_classes, 'fit', (0., .5), lambda l: l.model.emb_drop.p),
    'act_cls': (plain, 'fit', [nn.ReLU, nn.Mish, nn.GELU], lambda l: activation_of(l.model)),
    'y_range': (bounded, 'fit', [(0, 1), (-.5, 1.5)], lambda l: tuple(l.model[-1](tensor([-1e9, 1e9])).tolist())),
    'mixup': (plain, 'fit', (0., 1.), lambda l: alpha(l, MixUp)),
    'cutmix': (vision, 'fit', (0., 1.), lambda l: alpha(l, CutMix)),
    'max_norm': (plain, 'fit', [0, .1, 1.], lambda l: l.gradient_clip.max_norm if hasattr(l, 'gradient_clip') else 0),
    'n_acc': (plain, 'fit', [0, 64, 128], lambda l: l.gradient_accumulation.n_acc if hasattr(l, 'gradient_accumulation') else 0),
    'ema': (plain, 'fit', [0, .5, .9], lambda l: l.ema.decay if hasattr(l, 'ema') else 0),
    'precision': (noting, 'fit', ['fp32', 'bf16'], lambda l: 'bf16' if l.model[-1].seen==torch.bfloat16 else 'fp32'),
    'schedule': (plain, 'fit_one_cycle', ['one_cycle', 'flat_cos', 'cosine', 'constant'], which),
    'wd_mult': (three, 'fit', (2., 100.), lambda l: rates('wd')(l)[-1]/rates('wd')(l)[0]),
    'lr_decay': (three, 'fit', (.1, .9), ratio('lr')),
    'lr_mult': (plain, 'fit', (2., 100.), lambda l: l.opt.hypers[-1]['lr']/l.opt.hypers[0]['lr'])}

class Look(Callback):
    "Notes what a training sees in its first batch"
    order = 1000
    def __init__(self, see, notes): self.see,self.notes = see,notes
    def __deepcopy__(self, memo): return Look(self.see, self.notes)
    def after_loss(self):
        if self.training and self.epoch==0 and self.iter==0: self.notes.append(self.see(self.learn))

def tune(learn, space, see=None, **kwargs):
    notes = []
    args = dict(n_trials=3, sampler=RandomSampler(seed=1), pruner=NopPruner(), cbs=Look(see, notes) if see else None, **quick)
    return learn.bayes_tune(1, space, **{**args, **kwargs}),notes

def test_every_knob_has_a_case(): assert set(knobs)-set(cases)=={'n_epoch', 'freeze_epochs'}  # test_lengths, and below

elsewhere = dict(
    emb_drop='embed_p', embedding_dropout='embed_p', rand_aug='aug', RandAugment='aug', aug_mult='aug', reg='wd', layer_decay='lr_decay', layerwise_decay='lr_decay',
    discriminative_lr='lr_mult', frozen_epochs='freeze_epochs', lr_scheduler='schedule', betas='moms', gradient_clip='max_norm', clip_grad='max_norm',
    accumulation='n_acc', ema_decay='ema', amp='precision', smoothing='label_smoothing', mixup_alpha='mixup', cutmix_alpha='cutmix', activation='act_cls')
@pytest.mark.parametrize('name', elsewhere)
def test_what_others_call_it(tmp_path, name):
    with pytest.raises(KnobError, match=f"unknown hyperparameter '{name}', did you mean '{elsewhere[name]}'"): tune(plain(tmp_path), {name: (.1, .2)})

@pytest.mark.parametrize('name', cases)
def test_what_is_suggested_is_what_is_seen(tmp_path, name):
    mk,fit,spec,see = cases[name]
    learn = mk(tmp_path)
    if name in ('div', 'div_final', 'pct_start', 'schedule'): learn.lr = .003
    before = picture(learn)
    others = dict(lr=(1e-3, 1e-2, 'log')) if name=='lr_mult' else {}
    res,notes = tune(learn, {name: spec, **others}, see, fit=fit)
    n = len(res.trials)  # a small space is done when all of it was tried
    assert n==3 or n>=res.space.size
    assert res.trials.sort_values('number').state.tolist()==['complete']*n, res.trials.reason.tolist()
    want = [res.params_of(i)[name] for i in range(n)]
    assert len(set(map(str, want)))>1
    for a,b in zip(notes, want, strict=True): assert (a==pytest.approx(b, rel=1e-2 if name=='pct_start' else 1e-5) if isinstance(b, float) else a==b)
    assert before[4]==[id(o) for o in learn.dls.loaders] or name in ('bs', 'size', 'aug')

@pytest.mark.parametrize('pruner', ['none', 'bayes'])
def test_freeze_epochs(tmp_path, pruner):
    "Trainings of different lengths; none is stopped at its last epoch, and one that is interrupted goes on to its own end"
    def tune(learn, **kwargs):
        return learn.bayes_tune(2, dict(freeze_epochs=(1, 3), lr=None), n_trials=5, fit='fine_tune', pruner=pruner, study_name='s', **quick, **kwargs)
    whole = tune(plain(tmp_path/'a'))
    Break.count = 0
    tune(plain(tmp_path/'b'), cbs=Break(KeyboardInterrupt(), (4,), 1))
    res = tune(plain(tmp_path/'b'))
    assert res.trials.drop(columns=['seconds', 'number', 'reason']).equals(whole.trials.drop(columns=['seconds', 'number', 'reason']))
    t = res.trials
    assert ((t.state=='complete')==(t.epochs==2+t.freeze_epochs)).all() and t.epochs.nunique()>1 and res.study.user_attrs['n_epoch']==5

def agree(a, b): return a==pytest.approx(b, rel=1e-2) if isinstance(b, float) else a==b

@pytest.mark.parametrize('name', cases)
def test_present_is_what_an_untuned_training_sees(tmp_path, name):
    mk,fit,spec,see = cases[name]
    learn,notes = mk(tmp_path),[]
    if name in ('div', 'div_final', 'pct_start', 'schedule'): learn.lr = .003
    with learn.no_bar(), learn.no_logging(): getattr(learn, fit)(1, cbs=Look(see, notes))
    assert agree(notes[0], knobs[name].current_for(learn, fit))

def test_present_comes_first(tmp_path):
    learn = vision(tmp_path)
    space = dict(aug=(0., 2.), ps=(0., .9), size=[16, 24], label_smoothing=(0., .5), lr=None)
    res,_ = tune(learn, space, n_trials=1)
    assert res.params_of(0)==dict(aug=1., ps=.5, size=24, label_smoothing=0., lr=.001)

@pytest.mark.parametrize('name', ['size', 'aug', 'ps', 'drop_mult', 'loss_func', 'label_smoothing', 'bs', 'act_cls', 'y_range', 'embed_p', 'mixup', 'max_norm'])
def test_the_winner_is_in_the_learner_and_can_be_tuned_again(tmp_path, name):
    mk,fit,spec,see = cases[name]
    learn = mk(tmp_path)
    res,_ = tune(learn, {name: spec})
    now,best = [],res.best_params[name]
    with learn.no_bar(), learn.no_logging(): learn.fit(1, cbs=Look(see, now))
    if mk is vision:
        learn.export('out.pkl')
        with learn.no_bar(): assert torch.allclose(load_learner(tmp_path/'out.pkl').predict(0)[2], learn.predict(0)[2], atol=1e-6)
    res,notes = tune(learn, {name: spec}, see)
    for a,b in ((now[0], best), (notes[0], res.params_of(0)[name])): assert a==(pytest.approx(b) if isinstance(b, float) else b)

def test_a_trial_with_a_tuned_callback_resumes(tmp_path):
    "The callback comes with the hyperparameter, and its state from the checkpoint"
    def study(path, **kwargs): return plain(path).bayes_tune(4, dict(mixup=(.1, 1.), n_acc=[64, 96]), n_trials=3, pruner='none', study_name='s', **quick, **kwargs)
    whole = study(tmp_path/'a')
    Break.count = 0
    study(tmp_path/'b', cbs=Break(KeyboardInterrupt(), (5,), 1))
    assert study(tmp_path/'b').curves.equals(whole.curves)

def test_one_option_is_used(tmp_path):
    "Also if nothing else varies, and below an option: with each search"
    seen = lambda l: (rates('lr')(l)[0], rates('wd')(l)[0], rates('mom')(l)[0])
    for space in (dict(lr=[.01], wd=[.2]), dict(wd=[.2, .3], lr=[.01]), dict(opt_func={SGD: dict(mom=[.5]), Adam: {}}, lr=[.01], wd=[.2])):
        for sampler in (None, 'random', 'tpe'):
            res,notes = tune(digits(tmp_path), space, seen, fit='fit', enqueue=False, sampler=sampler)
            for n,(lr,wd,mom) in enumerate(notes):
                p = res.params_of(n)
                assert set(p)>={'lr', 'wd'} and (lr, wd)==(p['lr'], p['wd'])==(.01, wd) and ('mom' in p)==(p.get('opt_func') is SGD)
                assert mom==p.get('mom', .9)

# Schedules, averaged weights, precision, rates per group

class Each(Look):
    "Notes what a training sees in the first batch of each epoch, and kills the process in epoch `kill` of all trials"
    count = 0
    def __init__(self, see=None, notes=None, kill=None): self.see,self.notes,self.kill = see or all_seen,notes,kill
    def __deepcopy__(self, memo): return Each(self.see, self.notes, self.kill)
    def after_loss(self):
        if self.training and self.iter==0: self.notes.append(self.see(self.learn))
    def after_epoch(self):
        Each.count += 1
        if Each.count==self.kill: os.kill(os.getpid(), signal.SIGKILL)

rows = 'schedule', 'ema', 'precision', 'wd_mult', 'lr_decay'
def all_seen(learn):
    return {n: cases[n][-1](learn) for n in rows}
def five(path, **kwargs):
    "A study of all five, whose parameters have three groups"
    learn = digits(path, lr=.003, model=nn.Sequential(net(), Noting()), splitter=lambda m: L(params(m[0][0]), params(m[0][1]), params(m[0][3])))
    space = dict(schedule=['one_cycle', 'cosine', 'flat_cos'], ema=[.5, .9], precision=['fp32', 'bf16'], wd_mult=(2., 9.), lr_decay=(.3, .9))
    return learn.bayes_tune(4, space, n_trials=3, pruner='none', monitor='valid_loss', study_name='s', **quick, **kwargs)
def five_killed(path, kill):
    Each.count = 0
    five(path, cbs=Each(notes=[], kill=kill))

def test_a_training_sees_them_also_after_a_kill(tmp_path):
    "Each epoch, with the curves of a study that was not killed"
    notes,rest = [],[]
    whole = five(tmp_path/'a', cbs=Each(notes=notes))
    p = get_context('fork').Process(target=five_killed, args=(tmp_path/'b', 6))
    p.start(); p.join()
    assert p.exitcode==-signal.SIGKILL
    res = five(tmp_path/'b', cbs=Each(notes=rest))
    want = [{k: whole.params_of(n)[k] for k in rows} for n in range(3) for _ in range(4)]
    assert len({str(o) for o in want})==3 and len({o['schedule'] for o in want})>1
    for found in (notes, rest):  # the first six of `rest` are from the checkpoint
        for a,b in zip(found, want, strict=True):
            assert a=={k: pytest.approx(v, rel=1e-5) if isinstance(v, float) else v for k,v in b.items()}
    assert res.curves.value.tolist()==whole.curves.value.tolist() and any('resumed_from' in t.user_attrs for t in res.study.trials)

def test_a_member_of_pbt_has_its_own_settings(tmp_path):
    "A checkpoint of another member brings the state of callbacks, but not its hyperparameters"
    def see(l): return dict(lr=hyper('lr')(l), **{n: cases[n][-1](l) for n in ('ema', 'max_norm', 'mixup', 'n_acc')})
    space,notes = dict(lr=(1e-4, 1e-1, 'log'), ema=(.1, .9), max_norm=(.1, 2.), mixup=(.1, 1.), n_acc=(32, 96)),[]
    res = plain(tmp_path).bayes_tune(4, space, n_trials=6, sampler='pbt', fit='fit', cbs=Each(see, notes), **quick)
    given = [t.params for t in res.study.trials]
    assert any('resumed_from' in t.user_attrs for t in res.study.trials)
    for o in notes: assert any(o==pytest.approx(p) for p in given), o

class Mean(Callback):
    "Averages the weights as `EMA` should, and notes the validation loss of the average after each epoch"
    name,order,seen = 'oracle',5,{}
    def __init__(self, decay): self.decay,self.mean,self.n = decay,None,0
    def before_train(self):
        if self.mean is None: self.mean = [p.detach().clone() for p in self.model.parameters()]
    def after_step(self):
        self.n += 1
        d = min(self.decay, (1+self.n)/(10+self.n))
        for m,p in zip(self.mean, self.model.parameters()): m.mul_(d).add_(p.detach(), alpha=1-d)
    def after_validate(self): Mean.seen[self.epoch] = [m.clone() for m in self.mean]

def test_the_best_epoch_has_the_average(tmp_path):
    "What was validated, what was saved, and what the winner holds are the average, computed here once more"
    learn = digits(tmp_path, model=nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10)))
    res = learn.bayes_tune(4, dict(ema=[.8]), n_trials=1, fit='fit', cbs=Mean(.8), enqueue=False, **quick)
    mean = Mean.seen[res.best_epoch-1]
    for o in (learn, res.learner()):
        for p,m in zip(o.model.parameters(), mean, strict=True): assert torch.allclose(p, m, atol=1e-6)
        with o.no_bar(): assert o.validate()[1]==pytest.approx(res.best_value, abs=1e-6)

@pytest.mark.parametrize('fit', ['fit', 'fit_one_cycle', 'fit_flat_cos', 'fit_cosine', 'fine_tune'])
def test_rates_per_group(tmp_path, fit):
    "Group i of n has lr*lr_decay**(n-1-i) in each batch, and the weight decay that a constant ratio gives"
    def see(l):
        lr,wd = rates('lr')(l),rates('wd')(l)
        return [lr[0]/lr[2], lr[1]/lr[2], wd[0], wd[1], wd[2]]
    notes = []
    res,_ = tune(three(tmp_path), dict(lr_decay=(.3, .9), wd_mult=(2., 50.)), fit=fit, wd=.2, cbs=Each(see, notes))
    if fit=='fine_tune': notes = notes[1::2]  # the first stage is frozen
    ps = [res.params_of(n) for n in range(3)]
    assert notes==[pytest.approx([p['lr_decay']**2, p['lr_decay'], .2/p['wd_mult'], .2/p['wd_mult']**.5, .2]) for p in ps]

def test_the_winner_keeps_its_rates(tmp_path):
    "Another study begins with them, and a tuned weight decay is that of the last group"
    learn = three(tmp_path)
    res,_ = tune(learn, dict(wd=(.1, .3), wd_mult=(2., 50.)), fit='fit')
    best = res.best_params
    assert learn.wd==slice(pytest.approx(best['wd']/best['wd_mult']), best['wd'])
    again,notes = tune(learn, dict(wd=(.1, .3), wd_mult=(2., 50.)), rates('wd'), fit='fit', n_trials=2)
    assert again.params_of(0)==pytest.approx(best)
    assert [o[-1] for o in notes]==pytest.approx([again.params_of(n)['wd'] for n in range(2)])

def test_a_schedule_has_hyperparameters_of_its_own(tmp_path):
    "What only one fit has is passed to that"
    space = dict(schedule=dict(one_cycle=dict(div=(2., 50.), moms=[(.9, .8, .9), (.8, .7, .8)]), cosine=dict(pct_start=(.1, .5)), constant={}))
    res,notes = tune(digits(tmp_path, lr=.003), space, which, fit='fit', n_trials=6, sampler=RandomSampler(seed=0))
    assert res.params_of(0)==dict(schedule='constant') and set(res.trials.state)=={'complete'}
    assert {o for o in res.trials.schedule}=={'one_cycle', 'cosine', 'constant'}

def test_factories_see_to_names_that_were_theirs(tmp_path):
    "A factory that has its own schedule, precision and decay, with other values, is left alone"
    def make(p):
        assert p['schedule'] in ('a', 'b') and p['precision'] in (1, 2) and p['lr_decay']>1
        return digits(tmp_path)
    res,_ = tune(digits(tmp_path), dict(schedule=['a', 'b'], precision=[1, 2], lr_decay=(2., 3.)), new_learner=make)
    assert set(res.trials.state)=={'complete'}

def test_embeddings_have_their_own_dropout(tmp_path):
    "`ps` scales the dropouts with the last one, but what `embed_p` says is the embeddings'"
    learn = tabular_learner(tabular_classes(tmp_path).dls, [8, 4], config=tabular_config(ps=[.1, .2], embed_p=.1), metrics=accuracy, path=tmp_path)
    def see(l): return [round(o.p, 6) for o in drops(l.model)]
    for space,want in ((dict(ps=[.4]), [.2, .2, .4]), (dict(ps=[.4], embed_p=[.3]), [.3, .2, .4])):
        assert tune(learn, space, see, n_trials=1, enqueue=False)[1]==[want]

def test_architecture_and_dropout_together(tmp_path):
    learn = vision(tmp_path)
    for _ in range(2):
        res,notes = tune(learn, dict(arch=[small, small2], ps=(.1, .9)), lambda l: (l.arch, drops(l.model)[-1].p))
        assert notes==[(p['arch'], pytest.approx(p['ps'])) for p in map(res.params_of, range(3))]

@pytest.mark.parametrize('mk', [text_classes, language_model])
def test_text_dropout_as_if_made_so(tmp_path, mk):
    seen = []
    tune(mk(tmp_path), dict(drop_mult=[.5]), lambda l: seen.append([getattr(*o) for o in text_drops(l.model)]), n_trials=1)
    want = [getattr(m, k)*.5 for m,k in text_drops(mk(tmp_path).model)]
    assert seen==[pytest.approx(want)]

def test_factories_see_to_their_own(tmp_path):
    "A factory that makes dropout, layers or size gets what it made: nothing is scaled twice"
    def make(p):
        learn = language_model(tmp_path)
        for m,k in text_drops(learn.model): setattr(m, k, getattr(m, k)*p['drop_mult'])
        assert p['layers'] in ('a', 'b')
        return learn
    res,notes = tune(language_model(tmp_path), dict(drop_mult=(.1, 1.), layers=['a', 'b']), cases['drop_mult'][-1], new_learner=make)
    assert notes==[pytest.approx(res.params_of(n)['drop_mult']) for n in range(3)]

@pytest.mark.parametrize('fit', ['fit', 'fit_one_cycle', 'fit_flat_cos', 'fine_tune'])
def test_discriminative_learning_rates(tmp_path, fit):
    ratios = lambda l: float(l.opt.hypers[-1]['lr']/l.opt.hypers[0]['lr'])
    class Ratio(Look):
        def after_loss(self):
            if self.training and self.iter==0: self.notes.append(self.see(self.learn))
    res,notes = tune(plain(tmp_path), dict(lr=(1e-3, 1e-2, 'log'), lr_mult=(2., 100.)), ratios, fit=fit)
    if fit=='fine_tune': notes = notes[1::2]  # the first stage is frozen
    assert notes==[pytest.approx(res.params_of(n)['lr_mult'], rel=1e-4) for n in range(3)]

def test_slices_as_choices(tmp_path):
    rates = lambda l: [float(o['lr']) for o in l.opt.hypers]
    res,notes = tune(plain(tmp_path), dict(lr=[slice(1e-4, 1e-2), slice(1e-3)]), rates, n_trials=4, fit='fit')
    want = {str(slice(1e-4, 1e-2)): [1e-4, 1e-2], str(slice(1e-3)): [1e-4, 1e-3]}
    assert notes==[pytest.approx(want[str(res.params_of(n)['lr'])]) for n in range(len(res.trials))]

@pytest.mark.parametrize('name', ['loss_func', 'label_smoothing'])
def test_losses_that_cannot_be_compared(tmp_path, name):
    with pytest.raises(KnobError, match='give the learner a metric'): tune(digits(tmp_path, metrics=[]), {name: cases[name][2]})

def test_metrics_that_are_called_loss_can_be(tmp_path):
    assert tune(digits(tmp_path, metrics=HammingLoss()), dict(label_smoothing=(0., .5)), n_trials=1)[0].best_value<=1

def test_lent_loaders_are_left_alone(tmp_path):
    learn = vision(tmp_path)
    dls,rngs = learn.dls,[o.rng.getstate() for o in learn.dls.loaders]
    tune(learn, dict(size=[16, 40], aug=(0., 2.), bs=[4, 8]))
    assert [o.rng.getstate() for o in dls.loaders]==rngs and dls.one_batch()[0].shape[-1]==24 and dls.bs==8

# Without effect, though a name is known

class Sets(Callback):
    "A callback of the user's own that has its own settings"
    def __init__(self, event, **hypers): self.event,self.hypers = event,hypers
    def __call__(self, event):
        if event==self.event: self.opt.set_hypers(**self.hypers)

@pytest.mark.parametrize('space,fit,cb,said', [
    (dict(lr=(1e-3, .1, 'log')), 'fit', Sets('before_fit', lr=.01), 'lr'), (dict(wd=(.1, .3)), 'fit_one_cycle', Sets('before_batch', wd=.2), 'wd'),
    (dict(moms=[(.95, .85, .95), (.8, .7, .8), (.7, .6, .7)]), 'fit_one_cycle', Sets('before_step', mom=.5), 'moms'),
    (dict(eps=(1e-8, 1e-2, 'log')), 'fit', Sets('before_fit', eps=1e-5), 'eps'), (dict(lr=(1e-3, .1, 'log')), 'fit_one_cycle', Sets('before_fit', lr=.01), None),
    (dict(lr=(1e-3, .1, 'log'), wd=(.1, .3)), 'fit_one_cycle', Sets('after_epoch', wd=.2), None)])
def test_a_callback_with_settings_of_its_own_is_said_once(tmp_path, recwarn, space, fit, cb, said):
    "A schedule wins over what was set before the fit, and what is set after the first epoch comes too late to be without effect"
    tune(plain(tmp_path), space, fit=fit, cbs=cb)
    got = [str(o.message) for o in recwarn if 'has no effect' in str(o.message)]
    assert len(got)==(said is not None) and all(o.startswith(f'{said} has no effect: whatever is suggested') for o in got), got

def test_a_schedule_of_fastais_that_overrides_what_is_tuned(tmp_path):
    with pytest.raises(KnobError, match='lr has no effect'): tune(plain(tmp_path), dict(lr=(1e-3, .1, 'log')), cbs=ParamScheduler(dict(lr=SchedNo(.01, .01))), fit='fit')
    assert files(tmp_path)==[]

def test_partials_as_optimizers(tmp_path):
    "With a weight decay of their own; one that is tuned counts for all of them"
    opts = [partial(Adam, wd=.3), partial(Adam, wd=.02), partial(SGD, mom=.9, wd=.1)]
    res,notes = tune(plain(tmp_path), dict(opt_func=opts), hyper('wd'), fit='fit', sampler='grid')
    assert sorted(notes)==[.02, .1, .3] and [res.params_of(i)['opt_func'].keywords['wd'] for i in range(3)]==notes
    res,notes = tune(plain(tmp_path), dict(opt_func=opts, wd=(.4, .5)), hyper('wd'), fit='fit')
    assert notes==[res.params_of(i)['wd'] for i in range(3)] and min(notes)>=.4

class Untrainable(Module):
    def forward(self, x): return x if not self.training else x/None
def wrong(pretrained=False): return nn.Sequential(ConvLayer(3, 8), Untrainable(), nn.AdaptiveAvgPool2d(1))
def test_each_architecture_takes_a_step(tmp_path):
    learn = vision(tmp_path)
    before = picture(learn)
    with pytest.raises(KnobError, match="arch: 'wrong' fails: .* the model fails in the first batch of training"): tune(learn, dict(arch=[small, small2, wrong], lr=None))
    assert files(tmp_path)==[] and same(before, picture(learn))

def test_architectures_are_only_built_when_time_is_up(tmp_path, monkeypatch):
    from fastai_bayes.learner.probe import Probe
    steps,step = [],Probe.step
    monkeypatch.setattr(Probe, 'step', lambda self, learn, *args: (steps.append(learn.arch), step(self, learn, *args))[1])
    for seconds,n in ((10., 3), (0., 1)):
        steps.clear()
        monkeypatch.setattr(Probe, 'seconds', seconds)
        tune(vision(tmp_path), dict(arch=[small, small2, small3]), n_trials=1)
        assert len(steps)==n

# Inferred spaces

def test_inferred_space_is_shown_once(tmp_path, capsys):
    plain(tmp_path).bayes_tune(1, n_trials=2)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0]=='inferred space: bs 8, 16, 32; opt_func Adam, QHAdam; lr 0.0003 to 0.1 (log); wd 0.003 to 0.3 (log)' and len(lines)==3
    plain(tmp_path).bayes_tune(1, n_trials=1, verbose=False)
    assert capsys.readouterr().out==''

def test_what_is_inferred_from_a_learner(tmp_path):
    "Batches no larger than its own, its own optimizer beside the usual ones, smaller rates for pretrained weights"
    def inferred(bs=32, pretrained=False, drop_last=True, **kwargs):
        learn = digits(tmp_path, **kwargs)
        learn.dls = DataLoaders.from_dsets(learn.dls.train_ds, learn.dls.valid_ds, bs=bs, num_workers=0, drop_last=drop_last)
        learn.pretrained = pretrained
        return default_space(learn)
    assert [inferred(bs).get('bs') for bs in (1, 8, 16, 40, 64)]==[None, [4, 8], [8, 16], [10, 20, 40], [16, 32, 64]]
    n = len(plain(tmp_path).dls.train_ds)
    assert [inferred(bs, drop_last=False).get('bs') for bs in (n, n+1, 9*n)]==[[n//4, n//2, n], [(n+1)//4, (n+1)//2], None]
    assert [inferred(opt_func=o)['opt_func'] for o in (Adam, QHAdam, SGD)]==[[Adam, QHAdam], [Adam, QHAdam], [SGD, Adam, QHAdam]]
    assert [inferred(pretrained=o)['lr'][:2] for o in (False, True)]==[(3e-4, 1e-1), (1e-5, 1e-1)]

def test_dropouts_are_inferred_of_texts_only(tmp_path):
    spaces = {k: default_space(mk(tmp_path)) for k,mk in apps.items()}
    assert {k: o['drop_mult'] for k,o in spaces.items() if 'drop_mult' in o}==dict(text_classes=(.2, 1.5), language_model=(.2, 1.5))

@pytest.mark.parametrize('mk', [text_classes, language_model])
def test_inferred_dropouts_reach_the_model(tmp_path, mk):
    "In the first training as they are; in the others each times what is suggested, and not times what was suggested before"
    learn,seen = mk(tmp_path),[]
    given = [getattr(*o) for o in text_drops(learn.model)]
    for _ in range(2):
        res,_ = tune(learn, dict(drop_mult=None, lr=None), lambda l: seen.append([getattr(*o) for o in text_drops(l.model)]))
        mults = [res.params_of(n)['drop_mult'] for n in range(3)]
        assert len(set(mults))>1 and all(.2<=o<=1.5 for o in mults)  # the second study begins with the best of the first, which it may meet again
        assert seen[-3:]==[pytest.approx([o*m for o in given]) for m in mults]
        assert [getattr(*o) for o in text_drops(learn.model)]==pytest.approx([o*res.best_params['drop_mult'] for o in given])
    assert seen[0]==pytest.approx(given)

def test_dropouts_are_not_inferred_for_factories(tmp_path):
    "They would have to see to them"
    def make(p):
        p.get('drop_mult')
        return language_model(tmp_path)
    assert set(tune(make({}), None, n_trials=1, new_learner=make)[0].best_params)=={'lr', 'wd', 'bs', 'opt_func'}
    assert 'drop_mult' in tune(make({}), dict(lr=None, drop_mult=None), n_trials=1, new_learner=make)[0].best_params

def test_none_is_the_inferred_range(tmp_path):
    learn = plain(tmp_path)
    res,_ = tune(learn, dict(lr=(1e-3, 1e-2, 'log'), bs=None), n_trials=2)
    assert set(res.best_params)=={'lr', 'bs'} and list(res.space['bs'].options)==default_space(plain(tmp_path))['bs']
    with pytest.raises(KnobError, match='no range can be inferred'): tune(learn, dict(pct_start=None))

def test_lr_find_centres_the_range(tmp_path):
    learn = plain(tmp_path)
    before,proc,had = picture(learn),process(),files(tmp_path)
    space = default_space(learn, lr_find=True)
    assert same(before, picture(learn)) and process()==proc and files(tmp_path)==had
    low,high,_ = space['lr']
    assert 1e-5<low<high<10 and 500<high/low<2000
    assert tune(learn, space, n_trials=1)[0].best_params['lr']<=high

def test_lr_find_that_fails_leaves_no_trace(tmp_path):
    learn = digits(tmp_path, cbs=Break(RuntimeError('bad batch'), range(9)))
    learn.loss_func = lambda *args: 1/0
    before,proc,had = picture(learn),process(),files(tmp_path)
    with pytest.raises(KnobError, match='lr_find failed'): default_space(learn, lr_find=True)
    assert same(before, picture(learn)) and process()==proc and files(tmp_path)==had

@pytest.mark.parametrize('lent', [small, 'test_resnet'])
def test_architectures_of_timm(tmp_path, lent):
    "By name, beside functions, and also if the learner that is lent has one of them"
    pytest.importorskip('timm')
    dls = images(tmp_path, CategoryBlock, label, n=40)
    learn = vision_learner(dls, lent, pretrained=False, normalize=False, metrics=accuracy)
    res,notes = tune(learn, dict(arch=[small, 'test_resnet', 'test_convnext']), cbs=None, n_trials=4)
    assert set(res.trials.state)=={'complete'}, res.trials.reason.tolist()
    assert len(set(res.trials.arch))>1 and learn.arch==res.best_params['arch']
    again = res.learner()
    with again.no_bar(): assert again.validate()[1]==pytest.approx(res.best_value, abs=1e-6)
    with pytest.raises(KnobError, match="did you mean 'test_resnet'"): tune(learn, dict(arch=['test_resnett', small]))
    assert type(learn.model) is type(again.model)

def test_names_of_torchvision_are_its_functions(tmp_path):
    "Also in the winner, which can be tuned again; fastai alone would take a name for one of timm"
    dls = images(tmp_path, CategoryBlock, label, n=40)
    learn = vision_learner(dls, resnet18, pretrained=False, normalize=False, metrics=accuracy)
    res,notes = tune(learn, dict(arch=['resnet18', 'squeezenet1_1']), lambda l: l.arch, n_trials=2)
    assert res.params_of(0)==dict(arch='resnet18') and notes==[resnet18, squeezenet1_1]
    assert learn.arch.__name__==res.best_params['arch']
    assert type(learn.model[0]) is type(vision_learner(dls, learn.arch, pretrained=False, normalize=False).model[0])

def test_candidates_of_timm(tmp_path):
    "`timm_models` is a choice with features, from which a study builds and trains; the search sees relatives"
    pytest.importorskip('timm')
    archs = timm_models(params=(None, 3e6), top=3)
    learn = vision_learner(images(tmp_path, CategoryBlock, label, n=40), resnet18, pretrained=False, normalize=False, metrics=accuracy)
    res,notes = tune(learn, dict(arch=archs), lambda l: l.arch, n_trials=2)
    assert set(res.trials.state)=={'complete'} and notes==[res.params_of(n)['arch'] for n in range(2)] and {*notes}<={*archs.options}
    assert isinstance(res.space['arch'], Related) and res.space['arch'].features==archs.features

def test_a_trial_resumed_between_two_fits_counts_its_epochs(tmp_path):
    "What callbacks are told when a fit that had ended is resumed is no epoch"
    def study(**kwargs):
        Break.count = 0
        return plain(tmp_path).bayes_tune(4, dict(lr=(1e-3, 1e-1, 'log')), n_trials=1, fit='fine_tune', freeze_epochs=2, pruner='none', study_name='s', **quick, **kwargs)
    class Later(Break): "With a state of its own in the checkpoint"
    study(cbs=Break(KeyboardInterrupt(), (1,), 2))
    study(cbs=Later(KeyboardInterrupt(), (2,), 2))
    assert [t.user_attrs.get('resumed_from') for t in study().study.trials]==[None, 2, 4]
