"Whatever the space and the curves: a valid suggestion in finite time or a typed error; no warning, no LinAlgError"
import functools, itertools, math, warnings
from datetime import timedelta
import numpy as np, optuna, pytest
from hypothesis import given, settings, strategies as st
from optuna.trial import TrialState, create_trial
from fastai_bayes.engine.checks import OptimizerError
from fastai_bayes.engine.optimizer import BayesOptimizer
from fastai_bayes.engine.policy import Explanation, Verdict
from fastai_bayes.engine.trainings import Training
from fastai_bayes.study.pruner import BayesPruner
from fastai_bayes.study.cache import space_of
from fastai_bayes.study.sampler import BayesSampler
from fastai_bayes.study.search_space import as_stored
from fastai_bayes.engine.space import Choice, Space, SpaceError, dimension
from fastai_bayes.study.search_space import ask, distributions
from fastai_bayes.study.storage import quiet_optuna

# Spaces: all kinds of dimensions, from two values to more than can be listed
def relu(x): return max(x, 0)
class Net: pass
things = [None, True, False, 0, 1, 1., .5, math.nan, math.inf, 'a', 'b', '', relu, Net,
          functools.partial(relu, x=1), (1, 2), [64, 32], np.float32(.1)]
ends = st.one_of(st.floats(-100, 100), st.floats(-1e6, 1e6), st.sampled_from([-1e300, -1., 0., .1, 1e-300, 1e300]))
whole = st.one_of(st.integers(-20, 20), st.integers(-10**15, 10**15))
wide = st.one_of(st.integers(1, 5), st.integers(1, 300), st.integers(1, 10**15))

@st.composite
def floats(draw):
    low = draw(ends)
    return low, low+draw(st.one_of(st.floats(1e-5, 1e6), st.sampled_from([1e-15, 1e-12])))*max(abs(low), 1e-3)
@st.composite
def logs(draw):
    low = 10.**draw(st.integers(-300, 290))
    return low, low*10**draw(st.floats(.001, 9)), 'log'
@st.composite
def steps(draw):
    low,step,n = draw(st.sampled_from([-3., 0., .1, .7, 32.])), draw(st.sampled_from([.1, .01, .3, 1e-9, 8.])), draw(wide)
    return low, low+(1+min(n, 10**9)+draw(st.sampled_from([0, .5])))*step, step
@st.composite
def ints(draw):
    low,n = draw(whole),draw(wide)
    return draw(st.sampled_from([(low, low+n), (low, low+3*n+1, 3), (abs(low)+1, abs(low)+1+n, 'log')]))
choices = st.lists(st.sampled_from(things), min_size=1, max_size=6, unique_by=id)
dims = st.one_of(floats(), logs(), steps(), ints(), choices)
flat = st.lists(dims, min_size=1, max_size=12).map(lambda l: Space({f'p{i}': o for i,o in enumerate(l)}))

@st.composite
def trees(draw, dims):
    "Spaces in which some hyperparameters depend on choices"
    count = itertools.count()
    def level(depth):
        res = {}
        for _ in range(draw(st.integers(0 if depth else 1, 3))):
            name,deeper = f'p{next(count)}',depth<3 and draw(st.booleans())
            res[name] = options(depth) if deeper else draw(dims)
        return res
    def options(depth):
        opts = draw(st.sampled_from([['a'], ['a', 'b'], [1, 2.5, 2], [None, 'c', 1]]))
        subs = [level(depth+1) for _ in opts]
        if draw(st.booleans()): subs[-1] = subs[0]  # the same names below two options
        return dict(zip(opts, subs))
    return Space(level(0))
spaces = st.one_of(flat, trees(dims))

def number_ok(d, v):
    "Is `v` of the right type, within the ends, and on the grid of `d`?"
    if not isinstance(v, int if d.whole else float) or not d.low<=v<=d.high: return False
    if d.whole: return (v-d.low)%d.step==0
    return d.step is None or abs(v-d.low-round((v-d.low)/d.step)*d.step)<=1e-9*max(abs(d.low), abs(d.high))
def choice_ok(d, v, label=False): return any(v is o or (label and (v==o or v!=v)) for o in (d.labels if label else d.options))
def valid(space, params, label=False):
    "Raise unless `params` is a configuration of `space`"
    assert list(params)==space.active(params)
    for k,v in params.items():
        d = space[k]
        assert choice_ok(d, v, label) if isinstance(d, Choice) else number_ok(d, v), (d, v)
def narrow(d): return not isinstance(d, Choice) and (d.step is None or d.log) and d.high-d.low<=1e-8*max(abs(d.low), abs(d.high))
def room(space, tried):
    "Are there certainly others?"
    if space.conditions and math.isfinite(space.size): return False  # those that differ only in what is not active count in its size
    return len(tried)<space.size and not any(map(narrow, space.dims.values()))
def key(params): return tuple(repr(o) for o in params.values())

# Worlds: where values come from, and what happens next
odd = [0., 1., -1., math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324, 1e-9]
pools = st.lists(st.one_of(st.sampled_from(odd), st.floats()), min_size=1, max_size=5)
nightly = settings().max_examples>=1000
few = settings(max_examples=settings().max_examples if nightly else settings().max_examples//4)  # of what takes its time
sizes = st.integers(1, 500).map(lambda n: (n if nightly else n//5) if n%50==0 else 1+n%(40 if nightly else 16))  # mostly small

class World:
    "Random values, a share `wild` of which comes from `pool`"
    def __init__(self, seed, pool, wild): self.rng,self.pool,self.wild = np.random.default_rng(seed),pool,wild
    def __repr__(self): return f'World({self.pool}, wild={self.wild})'
    def chance(self, p): return self.rng.random()<p
    def one(self, options): return options[self.rng.integers(len(options))]
    def curve(self, n):
        "(n,) values of a training, alike if the world is not wild"
        y = self.rng.normal()+np.arange(n)/(3+np.arange(n))+.1*self.rng.normal(size=n)
        return [float(self.one(self.pool)) if self.chance(self.wild) else float(o) for o in y]
    def seconds(self): return self.one([None, 0., 5e-324, 1., float(self.rng.lognormal()), 1e300])
worlds = st.builds(World, st.integers(0, 2**32-1), pools, st.sampled_from([0., .05, .5, 1.]))

goals = st.sampled_from([(c, a) for c in ('epochs', 'seconds') for a in ('logei', 'logei', 'ucb', 'pi') if (c, a)!=('seconds', 'ucb')])

def strict(f):
    "Make `f` fail on any warning, and keep Optuna quiet"
    @functools.wraps(f)
    def inner(*args, **kwargs):
        with warnings.catch_warnings(), quiet_optuna():
            warnings.simplefilter('error')
            warnings.filterwarnings('ignore', 'all .* configurations were tried')  # small spaces are, and Optuna cannot be told to end
            return f(*args, **kwargs)
    return inner

def read(o, id):
    "What the optimizer says of a trial can be read"
    e,v = o.explain(id),o.decide(id)
    assert isinstance(e, Explanation) and isinstance(v, Verdict) and v.reason and o.should_stop(id)==v.stop
    assert e.low<=e.forecast<=e.high and 0<=e.prob_best<=1, e

def assert_all_tried(o, tried): assert math.isfinite(o.space.size) and tried and not room(o.space, tried)

def suggest(o, tried):
    "Ask for a trial, which must be valid, and new while there are others; or one that was paused"
    paused = [i for i,t in enumerate(o.trainings) if t.state=='paused']
    t = o.next()
    if t is None: return assert_all_tried(o, tried)
    valid(o.space, t.params)
    if t.epoch: assert t.id in paused and o.resume and 0<t.epoch<o.n_epoch
    else: assert t.id==len(o.trainings)-1 and (key(t.params) not in tried or not room(o.space, tried))
    tried.add(key(t.params))
    return t.id

def step(o, world, under):
    "Report on, look at or end one of the trials under way"
    id = world.one(under)
    left = o.n_epoch-len(o.trainings[id].curve)
    for v in world.curve(world.rng.integers(left+1)):
        o.report(id, len(o.trainings[id].curve)+1, v, world.seconds())
        if world.chance(.2) and o.should_stop(id): break
    if world.chance(.3): read(o, id)
    if world.chance(.8):
        if not o.trainings[id].curve and world.chance(.3): o.infeasible(id, 'cannot be')
        else: o.fail(id, 'no reason') if world.chance(.1) else o.finish(id)
        under.remove(id)

def past(o, world, n):
    "`n` trainings of earlier days"
    X = o.space.snap(world.rng.random((n, len(o.space))))
    ts = [Training(x, [o.sign*v for v in world.curve(world.rng.integers(1, o.n_epoch+1))]) for x in X]
    for t in ts: t.state = 'failed' if t.diverged else 'complete' if len(t.curve)==o.n_epoch else 'paused'
    return ts

@few
@given(spaces, worlds, sizes, st.integers(1, 60), st.sampled_from(['min', 'max']), st.booleans(), goals)
@strict
def test_optimizer_always_has_a_valid_suggestion(space, world, n, n_epoch, mode, resume, goal):
    o,under = BayesOptimizer(space, n_epoch, mode, n, resume, *goal),[]
    if n>40 or n%3==0: o.trainings += past(o, world, max(n, len(o.first)))
    tried = {key(space.decode(t.x)) for t in o.trainings}
    for _ in range(n if n<=40 else 6):
        if not under or world.chance(.4): under += [i for i in [suggest(o, tried)] if i is not None]
        if under and world.chance(.6): step(o, world, under)
    for id in range(0, len(o.trainings), 1+len(o.trainings)//20): read(o, id)
    if o.best: valid(space, o.best[0]); assert math.isfinite(o.best[1]) and 1<=o.best[2]<=n_epoch

# Optuna
def storable(d):
    "`d` without what Optuna doesn't take: options that are objects or equal, and grids finer than it can tell apart"
    if isinstance(d, Choice): return [o for i,o in enumerate(d.labels) if o not in d.labels[:i]]
    return (d.low, d.high) if d.step is not None and not d.whole and (d.step<.01 or d.size>1e6) else d
states = [TrialState.COMPLETE]*4+[TrialState.PRUNED]*3+[TrialState.FAIL, TrialState.RUNNING]

def halved(d):
    "Another distribution of the same kind"
    if isinstance(d, optuna.distributions.FloatDistribution) and d.step is None: return type(d)(d.low, d.low+(d.high-d.low)/2, log=d.log)
    return type(d)(d.low, d.high+d.step, step=d.step) if isinstance(d, optuna.distributions.IntDistribution) and not d.log else d

def old_trial(dists, world, n_epoch):
    "A trial of another sampler: some lack a name or know other values for it, and its curve may be longer than a full training"
    dists = {k: halved(v) if world.chance(.01) else v for k,v in dists.items() if not world.chance(.01)}
    params = optuna.study.create_study(sampler=optuna.samplers.RandomSampler(int(world.rng.integers(2**31)))).ask(dists).params
    state,curve = world.one(states),world.curve(world.rng.integers(n_epoch*2))
    value = next((v for v in curve[::-1] if v==v), 1.) if state==TrialState.COMPLETE else None
    t = create_trial(state=state, value=value, params=params, distributions=dists, intermediate_values=dict(enumerate(curve, world.one([0, 1, -3]))))
    if state.is_finished(): t.datetime_complete = t.datetime_start+timedelta(seconds=world.one([-3600., 0., 1e-6, 1., 1e8]))  # clocks are set back
    return t

def look(study, pruner, trial):
    "What the pruner says of a trial can be read"
    now = study.get_trials(deepcopy=False)[trial.number]
    v = pruner.decide(study, now)
    assert isinstance(v, Verdict) and v.reason and pruner.prune(study, now)==v.stop
    try: e = pruner.explain(study, now)
    except ValueError as err: assert 'expected a trial with values' in str(err)
    else: assert e.low<=e.forecast<=e.high and 0<=e.prob_best<=1, e

def run_trial(study, world, dists, n_epoch, tried):
    "Ask for a trial, which must be valid, and new while there are others; report on it, and end it or leave it running"
    wanted = {k:v for k,v in dists.items() if not v.single()}
    shared,known,trial = study.sampler.infer_relative_search_space(study, None),space_of(study),study.ask(dists)
    params = {k: trial.params[k] for k in wanted or dists}
    valid(Space(wanted or dists), params, label=True)
    assert trial.relative_params.keys()==(set(known.active(trial.relative_params)) if known else set())
    plain = known and not known.conditions and not known.optional
    for k,v in trial.relative_params.items():  # else Optuna throws the proposal away and draws at random
        if shared[k]==dists[k]: assert trial.params[k]==v or v!=v
    if plain and shared==wanted!={}: assert key(params) not in tried or not room(Space(wanted), tried)
    tried.add(key(params))
    for i,v in enumerate(world.curve(world.rng.integers(n_epoch+2))):
        trial.report(v, i)
        if world.chance(.2) and trial.should_prune(): return study.tell(trial, state=TrialState.PRUNED)
    if world.chance(.5): look(study, study.pruner, trial)
    if world.chance(.8): study.tell(trial, state=world.one([TrialState.PRUNED, TrialState.FAIL])) if world.chance(.5) else study.tell(trial, 1.)

@few
@given(flat, worlds, sizes, st.integers(1, 60), st.booleans(), st.booleans(), st.sampled_from(['minimize', 'maximize']),
       st.sampled_from(['epochs', 'seconds']))
@strict
def test_sampler_always_has_a_valid_suggestion(space, world, n, n_epoch, given_epochs, given_space, direction, cost):
    space = Space({k: storable(d) for k,d in space.dims.items()})
    dists,T = distributions(space),n_epoch if given_epochs else None
    sampler,pruner = BayesSampler(T, seed=n, space=dists if given_space else None, cost=cost),BayesPruner(T)
    study = optuna.create_study(sampler=sampler, pruner=pruner, direction=direction)
    study.add_trials([old_trial(dists, world, n_epoch) for _ in range(n)])
    tried = {key({k: t.params[k] for k in t.params if not dists[k].single()}) for t in study.get_trials() if t.distributions==dists}
    for _ in range(1+n%5): run_trial(study, world, dists, n_epoch, tried)

def run_tree(study, world, space, n_epoch):
    "Ask for a trial, in which exactly what is active has a value, and that which was proposed; report on it, and end it or leave it running"
    trial = ask(study, space)
    valid(space, trial.params, label=True)
    for k,v in trial.relative_params.items(): assert k not in trial.params or trial.params[k]==v or v!=v
    known = space_of(study)
    if study.sampler.space: assert {k for k in trial.params if space[k].size>1}<=trial.relative_params.keys()
    elif known: assert set(trial.relative_params)==set(known.active(trial.relative_params))
    for i,v in enumerate(world.curve(world.rng.integers(n_epoch+1)), 1):
        trial.report(v, i)
        if world.chance(.2) and trial.should_prune(): return study.tell(trial, state=TrialState.PRUNED)
    if world.chance(.3): look(study, study.pruner, trial)
    if world.chance(.8): study.tell(trial, state=TrialState.FAIL) if world.chance(.1) else study.tell(trial, 1.)

@few
@given(trees(dims.map(lambda o: storable(dimension(o)))), worlds, st.integers(1, 16), st.integers(1, 60), st.sampled_from(['minimize', 'maximize']),
       goals, st.booleans())
@strict
def test_sampler_knows_what_depends_on_what(space, world, n, n_epoch, direction, goal, told):
    sampler = BayesSampler(n_epoch, n, space if told else None, goal[0], acq=goal[1])  # it sees it from the trials, if it is not told
    study = optuna.create_study(sampler=sampler, pruner=BayesPruner(n_epoch), direction=direction)
    for _ in range(n): run_tree(study, world, space, n_epoch)
    old = [t.number for t in study.trials if t.state==TrialState.PRUNED]
    i,params,_ = study.sampler.next(study, space, old)
    if i is None and as_stored(space): valid(as_stored(space), params, label=True)
    else: assert i in old or params=={}

# Nonsense
junk = st.recursive(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.sampled_from([10**400, relu, 1e308])),
                    lambda o: st.one_of(st.lists(o, max_size=3), st.tuples(o, o), st.tuples(o, o, st.one_of(o, st.just('log')))), max_leaves=4)

@given(junk, st.one_of(junk, st.just(3)), junk)
@strict
def test_nonsense_makes_a_valid_space_or_a_typed_error(spec, n_epoch, seed):
    try: o = BayesOptimizer(dict(p=spec), n_epoch, seed=seed)
    except (SpaceError, OptimizerError) as e: assert 'expected' in str(e) or str(e).startswith('p: ')
    else: valid(o.space, o.next().params)

calls = st.tuples(st.sampled_from(['report', 'should_stop', 'explain', 'finish', 'fail']), st.lists(st.one_of(st.integers(0, 3), junk), max_size=4))

@given(st.lists(calls))
@strict
def test_nonsense_calls_are_typed_errors_and_change_nothing(calls):
    o = BayesOptimizer(dict(x=(0., 1.), c=['a', 'b']), 3, seed=0)
    for name,args in calls:
        before = [(list(t.curve), t.state, t.seconds) for t in o.trainings]
        try: getattr(o, name)(0, *args)
        except OptimizerError: assert str(before)==str([(t.curve, t.state, t.seconds) for t in o.trainings])
        except TypeError as e: assert 'argument' in str(e)  # too many or too few
        valid(o.space, o.next().params)

@pytest.mark.parametrize('start,look', [('honest', 1), ('of an untrained network', 2), ('the other way round', 3)])
def test_first_looks_are_as_short_as_they_may_be(start, look):
    "Four trials show how long; the others of the start, which are more if looks are short, get as much"
    def value(x, e):
        if start=='of an untrained network' and e==1: return .1
        return (-1 if start=='the other way round' and e<3 else 1)*(1-(x-.6)**2)*e/52
    opt = BayesOptimizer(dict(x=(0., 1.)), 52, seed=0)
    for _ in range(12):
        t = opt.next()
        for e in range(t.epoch+1, 53):
            opt.report(t.id, e, value(t.params['x'], e))
            if opt.should_stop(t.id): break
        opt.finish(t.id)
    epochs = [len(t.curve) for t in opt.trainings]
    assert epochs[:4]==[4]*4 and epochs[4:]==[look]*8

@pytest.mark.parametrize('seed', [1, 8, 35, 37])
def test_a_rule_for_some_hyperparameters_does_not_hold_another_where_it_is(seed):
    "The width must be a multiple of the number of groups; that says nothing of the learning rate, though it may look so after a few refusals"
    opt = BayesOptimizer(Space(dict(lr=(1e-4, 1e-1, 'log'), width=(8, 32), groups=[2, 3, 4], bs=[32, 64, 128])), 3, 'max', seed)
    rng,spent = np.random.default_rng(seed),0
    while spent<24:
        t = opt.next()
        if t.params['width']%t.params['groups']:
            opt.infeasible(t.id)
            continue
        for e in range(t.epoch+1, 4):
            best = .9-.25*(np.log10(t.params['lr'])+1.7)**2*(1.2 if t.params['bs']>64 else 1)
            opt.report(t.id, e, max(best-.05*(4-e)+.004*rng.normal(), .1))
            spent += 1
            if opt.should_stop(t.id): break
        opt.finish(t.id)
    assert opt.best[1]>.8

def test_a_band_near_the_end_has_the_noise_of_a_value():
    "The last value of a curve has noise of its own: one epoch before the end the band is not narrower than that"
    rng,sd,T = np.random.default_rng(0),.02,12
    opt = BayesOptimizer(dict(x=(0., 1.)), T, seed=0)
    def value(x, e): return .8-.3*(x-.4)**2-.4*math.exp(-e/3)+sd*rng.normal()
    def played(n):
        t = opt.next()
        for e in range(t.epoch+1, n+1): opt.report(t.id, e, value(t.params['x'], e))
        return t
    for _ in range(16): opt.finish(played(T).id)
    t = played(T-1)
    e = opt.explain(t.id)
    assert 3.5*sd<e.high-e.low<8*sd
    opt.report(t.id, T, .7)
    e = opt.explain(t.id)
    assert e.low==e.high  # it is known
