"What earlier studies know: where a search begins, that it is better for it, and that it is hardly worse if they mislead"
import itertools
import numpy as np, pytest
from fastai_bayes.engine.checks import OptimizerError
from fastai_bayes.engine.knowledge import EarlierStudy, Knowledge, config_points, order_share, portfolio, slack
from fastai_bayes.engine.optimize_acqf import among
from fastai_bayes.engine.optimizer import BayesOptimizer
from fastai_bayes.engine.space import Space
from fastai_bayes.engine.surrogate import Surrogate
from fastai_bayes.engine.trainings import Training

SPACE = dict(x=(0., 1.), y=(0., 1.), z=(0., 1.))
T = 9
def optimum(seed): return [.7, .3, .5]+.06*np.random.default_rng(seed).standard_normal(3)
def curve(params, best):
    "Ends at minus the distance from the optimum"
    far = sum((params[k]-b)**2 for k,b in zip('xyz', best))**.5
    return [-far-.3/e for e in range(1, T)]+[-far]
def study(seed, n=20, sign=1):
    "Random configurations, fully trained, of a function whose optimum is near (.7, .3, .5)"
    U = np.random.default_rng(seed).random((n, 3))
    trials = [dict(zip('xyz', map(float, u))) for u in U]
    return [(p, [sign*v for v in curve(p, optimum(seed))]) for p in trials]

def search(seed, full, **kwargs):
    "The best final value within the epochs of `full` trainings, and the configurations in order"
    opt,spent,best,tried = BayesOptimizer(SPACE, T, seed=seed, **kwargs),0,-np.inf,[]
    while True:
        t = opt.next()
        if not t.epoch: tried.append(t.params)
        values = curve(t.params, optimum(1000+seed))
        for e in range(t.epoch+1, T+1):
            if spent==full*T: return best, tried
            opt.report(t.id, e, values[e-1])
            spent,best = spent+1,max(best, values[e-1])
            if opt.should_stop(t.id): break
        opt.finish(t.id)

def mean(full, **kwargs): return np.mean([search(s, full, **kwargs)[0] for s in range(6)])

def test_it_is_better_from_the_first_trial_on():
    known = [study(i) for i in range(8)]
    assert mean(2, from_studies=known)>.7*mean(2)  # the distance from the optimum is at most seven tenths

def test_wrong_studies_cost_little():
    "Their best is what is worst here; the first of them costs a training"
    wrong = [study(i, sign=-1) for i in range(8)]
    assert mean(8, from_studies=wrong)>1.5*mean(7)

def test_it_repeats_itself():
    known = [study(i) for i in range(3)]
    assert search(3, 3, from_studies=known)==search(3, 3, from_studies=known)

def test_without_studies_nothing_changes(): assert search(0, 3, from_studies=())==search(0, 3)

def test_values_count_by_order_within_their_study():
    "The same study in units of another metric"
    space = Space(SPACE)
    a,b = (EarlierStudy([(p, [k*v+c for v in vs]) for p,vs in study(0)], space) for k,c in ((1, 0), (.01, 7)))
    assert portfolio([a], space)==pytest.approx(portfolio([b], space))

def test_the_portfolio_adds_most_each_time():
    "By trying all: the sum over the studies of the best value, one configuration more each time"
    space = Space(SPACE)
    studies = [EarlierStudy(study(i), space) for i in range(5)]  # fewer would stand for several each
    X = np.unique(np.concatenate([o.best(15, space) for o in studies]), axis=0)
    V = np.minimum([o.predict(X) for o in studies], 1.2)
    P = portfolio(studies, space, 5)
    rows = [int(np.abs(X-x).sum(1).argmin()) for x in P]
    for k in range(1, 6):
        def _total(i): return V[:,rows[:k-1]+[i]].max(1).sum()
        assert _total(rows[k-1])==pytest.approx(max(_total(i) for i in range(len(X)) if i not in rows[:k-1]))

def test_what_both_spaces_have_counts():
    "Two of three names are shared; one of them has a narrower range, and the search adds a choice"
    space = Space(dict(c=['a', 'b'], y=(0., 1.), x=(.5, 1.)))
    o = EarlierStudy(study(0), space)
    inside = [p for p,_ in study(0) if p['x']>=.5]
    assert o.space.names==['y', 'x'] and sorted(o.gp.data.X[:,0])==pytest.approx(sorted(p['y'] for p in inside))
    opt = BayesOptimizer(space, T, seed=0, from_studies=[study(i) for i in range(4)])
    first = [opt.next().params for _ in range(4)]
    assert all(.5<=p['x']<=1 and p['c'] in 'ab' for p in first) and abs(first[0]['x']-.7)+abs(first[0]['y']-.3)<.35

@pytest.mark.parametrize('space', (dict(q=(0., 1.)), dict(x=(2., 3.)), dict(x=['a', 'b'])), ids=('other names', 'outside', 'other options'))
def test_a_study_that_says_nothing_is_refused(space):
    with pytest.raises(OptimizerError, match=r'from_studies\[0\]: no trial of the study is in the search space of'):
        BayesOptimizer(space, T, from_studies=[study(0)])

def test_what_depends_on_a_choice_counts_where_it_is_active():
    space = Space(dict(opt={'adam': {}, 'sgd': dict(mom=(0., 1.))}, lr=(0., 1.)))
    trials = [(dict(opt='sgd', mom=m, lr=.5), [-abs(m-.8)]) for m in np.linspace(0, 1, 9)]+[(dict(opt='adam', lr=.2), [-1.])]
    o = EarlierStudy(trials, space)
    assert {*o.space.names}=={*space.names} and abs(space.decode(portfolio([o], space)[0])['mom']-.8)<.1
    assert EarlierStudy([*trials, (dict(opt='sgd', lr=.2), [-1.])], space).space.names==['opt', 'lr']  # one lacks it
    assert EarlierStudy([(dict(lr=.1, mom=.5), [1.])], space).space.names==['lr']  # nothing says what it depended on

def test_something_else_is_tried_where_all_so_far_was_known():
    opt = BayesOptimizer(SPACE, T, seed=0, from_studies=[study(i) for i in range(4)])
    known = [opt.space.decode(x) for x in opt.knowledge.points]
    assert [opt.next().params in known for _ in range(4)]==[True, False, True, True]

@pytest.mark.parametrize('n_epoch, expected', [(52, [True, False]*4), (9, [True, False, True, True])])
def test_the_list_has_more_rivals_while_a_look_is_cheap(n_epoch, expected):
    "One rival may be bad by chance: of 52 epochs a look takes 4, less than 8 %; of 9 it takes 3"
    opt,found = BayesOptimizer(SPACE, n_epoch, seed=0, from_studies=[study(i) for i in range(4)]),[]
    known = [opt.space.decode(x) for x in opt.knowledge.points]
    for _ in expected:
        t = opt.next()
        found.append(t.params in known)
        for e in range(1, n_epoch+1 if found[-1] else 5): opt.report(t.id, e, float(found[-1]))
        opt.finish(t.id)
    assert found==expected

@pytest.mark.parametrize('wrong', [5, 'studies', {}, [5], [[1]], [[({}, 5)]], [[(dict(x=.5), ['high'])]]], ids=str)
def test_what_is_no_list_of_studies_is_a_typed_error(wrong):
    with pytest.raises(OptimizerError, match='^from_studies'): BayesOptimizer(SPACE, T, from_studies=wrong)

LIST = np.array([[.1], [.5], [.9]])
def of_ends(*ends):
    "Conclusions from complete trials of `LIST` that end at `ends`"
    trials = [Training(x, [v-1., v-.5, v], 'complete') for x,v in zip(LIST, ends)]
    return Surrogate(Space(dict(x=(0., 1.))), 3, trials)

def test_shares_of_studies_in_which_one_is_better():
    share = order_share(np.array([[1., 0., 0.], [1., 2., 0.], [0., 1., 2.], [3., 1., 1.]]))
    assert share.tolist()==[[.5, .5, .75], [.5, .5, .5], [.25, .5, .5]]

@pytest.mark.parametrize('agree', [True, False])
def test_the_weight_by_hand(agree):
    "Two trials that have ended, one from the median to the best: half the distance to the best is one"
    both = of_ends(0., 1.)
    gap = float(np.diff(both.final[0])[0])
    assert gap>1
    known = Knowledge(LIST, [[0., 1., 0.]] if agree else [[1., 0., 0.]])
    ratio = (2*(.95 if agree else .05))**3
    assert known.weight(both)==pytest.approx(4*ratio/(1+4*ratio))

def test_studies_that_order_it_the_other_way_are_not_followed():
    seen = of_ends(0., .5, 1.)
    assert Knowledge(LIST, [[0., .5, 1.]]*4).is_followed(seen)
    assert not Knowledge(LIST, [[1., .5, 0.]]*4).is_followed(seen)
    assert Knowledge(LIST).is_followed(seen)  # a list of which nobody expects an order

@pytest.mark.parametrize('share', [0., .4])
def test_the_belief_is_the_share_of_studies(share):
    "In which the trial under way is better than the best of the list so far, the second"
    each = [[0., 1., 2.]]*round(10*share)+[[0., 2., 1.]]*round(10*(1-share))
    seen = of_ends(0., 1.)
    seen = Surrogate(seen.space, 3, [*seen.trainings, Training(LIST[2], [-.6])])
    w,p = Knowledge(LIST, each).belief(seen, 2)
    assert p==pytest.approx(share) and w>.8

def late(params, best):
    "Near x=1 curves begin low and end high; elsewhere they rise at once and stay"
    v = -abs(params['x']-best)
    slow = 1.5 if params['x']>.8 else .1
    return [v-slow*(1-e/T)**.5 for e in range(1, T+1)]
def late_search(seed, **kwargs):
    opt,spent,best = BayesOptimizer(dict(x=(0., 1.)), T, seed=seed, **kwargs),0,-np.inf
    while spent<3*T:
        t = opt.next()
        for e,v in enumerate(late(t.params, .97)[t.epoch:], t.epoch+1):
            opt.report(t.id, e, v)
            spent,best = spent+1,max(best, v)
            if opt.should_stop(t.id): break
        opt.finish(t.id)
    return best

def test_what_begins_slowly_is_trained_to_its_end_where_studies_know_it():
    "In most of them the best is in the middle, in two it is one that begins slowly, as here"
    def _study(best, seed): return [(p, late(p, best)) for p in (dict(x=float(u)) for u in np.random.default_rng(seed).random(25))]
    known = [_study(.5, i) for i in range(5)]+[_study(.97, i) for i in (5, 6)]
    assert np.mean([late_search(s, from_studies=known) for s in range(4)])>-.05

def test_a_list_does_not_repeat_itself():
    "Of configurations that the space cannot tell apart, or hardly, the first stays"
    configs = [dict(lr=o, wd=w) for o,w in ((.01, .1), (.012, .3), (.1, .1), (5., .1), (.0101, .003), (.19, .19))]
    by_lr,both = Space(dict(lr=(1e-4, 1., 'log'))),Space(dict(lr=(1e-4, 1., 'log'), wd=(1e-3, 1., 'log')))
    assert [o['lr'] for o in map(by_lr.decode, config_points(configs, by_lr))]==pytest.approx([.01, .1])
    assert [(o['lr'], o['wd']) for o in map(both.decode, config_points(configs, both))]==[pytest.approx(o) for o in ((.01, .1), (.012, .3), (.1, .1), (.0101, .003))]

def test_configurations_are_compared_by_what_all_have():
    "One that is not in the space does not count, and if they have no name in common, none is near another"
    space = Space(dict(lr=(1e-4, 1., 'log'), wd=(1e-3, 1., 'log')))
    def _values(configs, name): return [o[name] for o in map(space.decode, config_points(configs, space))]
    assert _values([dict(lr=.1, wd=.1), dict(other=1), dict(lr=.01), dict(lr=.011, wd=.9)], 'lr')==pytest.approx([.1, .01])
    lr,wd = (_values([dict(lr=.1), dict(wd=.1)], k) for k in ('lr', 'wd'))
    assert (lr[0], wd[1])==pytest.approx((.1, .1))

# Whether the list leads
# Validation losses of two configurations for KDDCup09_appetency (LCBench: Zimmer, Lindauer and Hutter 2021, Apache-2.0)
good = """.438 .594 .549 .338 .502 .517 .390 .486 .758 .374 .422 .358 .472 .373 .295 .282 .316 .679 .491 .490 .374 .357 .440 .278 .324 .252
    .312 .263 .230 .328 .223 .220 .281 .202 .210 .192 .216 .188 .195 .202 .193 .194 .188 .188 .188 .185 .186 .184 .184 .185 .185"""
bad = '2.573 1.848 1.817 .964'
def test_a_forecast_from_one_curve_does_not_end_a_list():
    "A trial that was behind in each of its epochs is forecast to end far better; the list leads even so"
    opt = BayesOptimizer(dict(lr=(1e-5, 1., 'log'), wd=(1e-5, 1., 'log')), 51, 'min', seed=0, prior=dict(lr=1e-2))
    def train(t, values):
        for e,v in enumerate(values.split(), 1): opt.report(t.id, e, float(v))
        opt.finish(t.id)
    train(opt.next(), good)
    train(opt._begin(opt.first[0]), bad)
    known,surrogate = opt.knowledge,opt.surrogate
    values,listed = known._values(surrogate),among(surrogate.X, known.points)
    assert list(listed)==[True, False] and values[1]>values[0]+slack
    assert known.leads(surrogate)

@pytest.mark.parametrize('curve,pauses', [(lambda e: .5, True), (lambda e: .5+.001*(e%2), True), (lambda e: .5+.01*e, False), (lambda e: .5-.01*e, False)],
                         ids=['still', 'nearly still', 'rises', 'falls'])
def test_a_trial_of_the_list_that_does_not_learn_is_compared(curve, pauses):
    opt = BayesOptimizer(dict(lr=(1e-5, 1., 'log')), 50, seed=0, prior=dict(lr=1e-2))
    t = opt.next()
    for e in range(1, 51):
        opt.report(t.id, e, curve(e))
        if opt.should_stop(t.id): break
    assert e==(opt.surrogate.look if pauses else 50)
