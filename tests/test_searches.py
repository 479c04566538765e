"Every search of the field through the same line, and what is tried first"
from types import SimpleNamespace
import optuna, pytest, torch
from tuning import *
from fastai_bayes.engine.space import Space, counted
from fastai_bayes.all import *
from fastai_bayes.learner.copies import clone, seeded
from fastai_bayes.study.records import trial_id, trials_of
from fastai_bayes.study.searches import BayesSearch

space = dict(lr=(1e-4, 1e-1, 'log'), wd=(1e-4, .3, 'log'))
@pytest.fixture
def learn(tmp_path): return digits(tmp_path)

def trained(learn):
    with seeded(0), learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(6)
    return learn

searches = [('bayes', 'bayes'), ('tpe', 'median'), ('tpe', 'asha'), ('random', 'hyperband'), ('gp', 'patient'), ('cmaes', 'none'), ('qmc', 'none'),
            ('pbt', None)]
@pytest.mark.parametrize('sampler,pruner', searches)
def test_finds_what_the_learner_has_not(learn, sampler, pruner):
    "Its learning rate is the worst there is, and no trial is given another: what is better the search has found"
    learn.lr = 1e-4
    untuned = max(o[2] for o in trained(clone(learn)).recorder.values)
    res = learn.bayes_tune(6, space, n_trials=8, sampler=sampler, pruner=pruner, enqueue=False, **quick)
    assert len(res.trials)==8 and set(res.trials.state)<={'complete', 'stopped'} and res.trials.lr.nunique()>=5
    assert res.best_value>=untuned+.3
    assert abs(learn.validate()[1]-res.best_value)<1e-6
    stopped = res.trials[res.trials.state=='stopped']
    if len(stopped): assert f' trials ({len(stopped)} stopped), ' in str(res) and f', {counted(sum(6-stopped.epochs), "epoch")} saved by stopping, ' in str(res)

@pytest.mark.parametrize('sampler', ['tpe', optuna.samplers.RandomSampler(0), BayesSampler(seed=0)])
def test_our_pruner_knows_the_space_beside_any_sampler(learn, sampler):
    "Also what depends on a choice, which not all trials share"
    spec = dict(opt_func={SGD: dict(mom=(.5, .9)), Adam: dict(sqr_mom=(.9, .99))}, lr=(1e-4, 1e-1, 'log'))
    own = BayesPruner(4)
    res = learn.bayes_tune(4, spec, n_trials=6, fit='fit', sampler=sampler, pruner=own, **quick)
    assert set(res.trials.state)<={'complete', 'stopped'} and len(res.trials)==6 and own.known is None
    assert list(res.study.pruner.known)==['opt_func', 'mom', 'sqr_mom', 'lr']

def test_grid(learn, capsys):
    res = learn.bayes_tune(2, dict(lr=(1e-3, 1e-1, 'log'), bs=[16, 32]), n_trials=99, sampler='grid', pruner='none', seed=0)
    assert capsys.readouterr().out.startswith('grid of 10 combinations\ntrial 0')
    assert len(res.trials)==10==len({tuple(t.params.items()) for t in res.study.trials}) and set(res.trials.state)=={'complete'}

def test_a_grid_of_optuna(learn):
    own = optuna.samplers.GridSampler(dict(lr=[.01, .1, .001]))
    res = learn.bayes_tune(1, dict(lr=(1e-3, 1e-1, 'log')), budget=20, sampler=own, pruner='none', **quick)
    assert sorted(res.trials.lr)==[.001, .01, .1] and type(own) is optuna.samplers.GridSampler

# Population based training

class Look(Callback):
    "Notes the weights at the start and end of each part of a training, and the settings that it trains with"
    parts = []
    def weight(self): return [p.clone() for p in self.model.parameters()]
    def before_epoch(self):
        if self.epoch in (0, 2, 4, 6): Look.parts.append([self.epoch, self.weight(), None, None])
    def before_step(self): Look.parts[-1][3] = self.opt.hypers[-1]['lr'], self.opt.hypers[-1]['wd'],
    def after_train(self): Look.parts[-1][2] = self.weight()

def test_the_worst_go_on_from_the_best(learn):
    Look.parts = []
    res = learn.bayes_tune(8, space, sampler='pbt', fit='fit', n_trials=8, cbs=Look(), **quick)
    trials = res.study.trials
    assert len(trials_of(trials))==8 and set(res.trials.state)=={'complete'} and len(trials)==len(Look.parts)==32
    copied = 0
    for t,(epoch,start,_,hypers) in zip(trials, Look.parts):
        assert hypers==(t.params['lr'], t.params['wd'])  # also where the optimizer's state is that of another training
        if epoch==0: continue
        before = [o for o in trials[:t.number] if trial_id(o)==trial_id(t)][-1]
        copied += t.params!=before.params
        kept = list(t.intermediate_values.values())[:epoch]
        ends = [i for i,o in enumerate(trials[:t.number]) if list(o.intermediate_values.values())==kept]
        assert any(all(map(torch.equal, start, Look.parts[i][2])) for i in ends)  # the weights of the one whose curve it took
        assert t.params!=before.params or before.number in ends
    assert copied==6  # two of eight after each of three rounds

def test_pbt_repeats_itself_and_survives(tmp_path):
    def line(path, **kwargs): return digits(path).bayes_tune(8, space, sampler='pbt', n_trials=4, study_name='s', **kwargs, **quick)
    curves = lambda r: [list(t.intermediate_values.values()) for t in trials_of(r.study.trials)]
    whole = curves(line(tmp_path/'a'))
    Break.count = 0
    cut = curves(line(tmp_path/'b', cbs=Break(KeyboardInterrupt(), (7,), 3)))  # within the second round
    assert curves(line(tmp_path/'b'))==whole!=cut and sum(map(len, cut))==13

# What comes first

def test_present_hyperparameters_come_first(learn):
    learn.lr,learn.wd = .02,.2
    res = learn.bayes_tune(1, dict(lr=(1e-3, .1, 'log'), wd=(.1, .3), bs=[16, 32], opt_func=[SGD, Adam]), n_trials=2, recipes=False, **quick)
    assert res.params_of(0)==dict(lr=.02, wd=.2, bs=32, opt_func=Adam)

@pytest.mark.parametrize('resume', [True, False])
def test_the_present_ones_are_trained_to_the_end_if_a_stop_is_final(learn, resume):
    learn.lr = 1e-4  # the worst there is
    res = learn.bayes_tune(6, space, n_trials=4, sampler=BayesSampler(resume=resume), recipes=False, **quick)
    t = res.trials.set_index('number').loc[0]
    assert (t.state=='complete')==(t.epochs==6)==(not resume) and set(res.trials.state)=={'complete', 'stopped'}

def test_only_those_in_the_space(learn):
    learn.wd = .9
    res = learn.bayes_tune(1, dict(lr=(1e-3, .1, 'log'), wd=(.1, .3)), n_trials=1, recipes=False, **quick)
    assert res.params_of(0)['lr']==.001 and .1<=res.params_of(0)['wd']<=.3
    assert learn.bayes_tune(1, space, n_trials=1, enqueue=False, recipes=False, **quick).params_of(0)['lr']!=.001

def test_enqueue(tmp_path):
    more = [dict(lr=.05, opt_func=SGD), dict(lr=.01)]
    kwargs = dict(quick, enqueue=more, study_name='s', recipes=False)
    def line(n): return digits(tmp_path).bayes_tune(1, dict(lr=(1e-3, .1, 'log'), opt_func=[Adam, SGD]), n_trials=n, **kwargs)
    line(2)
    res = line(4)
    assert [res.params_of(i) for i in (0, 1)]==[dict(lr=.001, opt_func=Adam), more[0]] and res.params_of(2)['lr']==.01
    assert [t.params['lr'] for t in res.study.trials].count(.05)==1

@pytest.mark.parametrize('enqueue,match', [([dict(lr=5.)], 'lr=5.0 is outside float 0.0001 to 0.1, log'),
                                           ([dict(lrr=.1)], "'lrr' is not in the space"), (dict(lr=.1), 'list of dictionaries')])
def test_wrong_enqueue(learn, enqueue, match):
    with pytest.raises(TuneError, match=match): learn.bayes_tune(1, space, enqueue=enqueue, **quick)
    assert files(learn.path)==[]

@pytest.mark.parametrize('kwargs,match', [(dict(sampler='tpee'), "did you mean 'tpe'"), (dict(pruner='medain'), "did you mean 'median'"),
                                          (dict(pruner=3), 'got 3')])
def test_wrong_names(learn, kwargs, match):
    before = picture(learn)
    with pytest.raises(ValueError, match=match): learn.bayes_tune(1, space, **kwargs, **quick)
    assert same(before, picture(learn)) and files(learn.path)==[]

def test_pbt_whose_process_dies_while_it_queues_a_round(tmp_path, monkeypatch):
    "The rest of the round is queued first, from the checkpoints as they were"
    whole = digits(tmp_path/'a').bayes_tune(8, space, sampler='pbt', n_trials=4, study_name='s', fit='fit', **quick)
    from fastai_bayes.learner.runner import Run
    f,calls = Run.resume,[]
    def dies(self, *args, **kwargs):
        calls.append(1)
        if len(calls)==3: raise KeyboardInterrupt
        return f(self, *args, **kwargs)
    monkeypatch.setattr(Run, 'resume', dies)
    digits(tmp_path/'b').bayes_tune(8, space, sampler='pbt', n_trials=4, study_name='s', fit='fit', **quick)
    res = digits(tmp_path/'b').bayes_tune(8, space, sampler='pbt', n_trials=4, study_name='s', fit='fit', **quick)
    assert len(calls)>5 and res.study.trials[4].state.name!='WAITING'
    a,b = (o.trials.sort_values('value')[['state', 'value', 'epochs', 'lr']].reset_index(drop=True) for o in (whole, res))
    assert a.equals(b)

@pytest.mark.parametrize('meanwhile', [True, False])
def test_what_was_foreseen_counts_if_no_trial_has_begun(meanwhile):
    "Not even while it was foreseen: two processes would train the same"
    study,calls = optuna.create_study(),[]
    def say(*args):
        calls.append(args)
        if meanwhile: study.ask()
        return None, dict(lr=.1), None
    search = BayesSearch(SimpleNamespace(next=say), None, Space(dict(lr=(0., 1.))))
    def allowed(params): return True
    search.foresee(study, [], allowed)
    job, = search.next(study, [], [], allowed, True)
    assert job.params==dict(lr=.1) and len(calls)==1+meanwhile
