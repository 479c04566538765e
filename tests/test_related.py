"Choices with features: what was not tried is judged by its relatives; other spaces are as they were"
import numpy as np, optuna, pytest
from scipy.optimize import check_grad
from fastai_bayes.engine.gp import GP, Data, log_marginal
from fastai_bayes.engine.kernels import Kinds
from fastai_bayes.engine.optimizer import BayesOptimizer
from fastai_bayes.engine.space import Related, Space, least_distance
from fastai_bayes.study.sampler import BayesSampler
from fastai_bayes.study.search_space import as_stored

features = (0.,), (.1,), (.9,), (1.,)
archs = Related(('small', 'smaller', 'larger', 'large'), features)

def test_an_untried_option_is_predicted_by_its_relatives():
    "In closed form: with length scale 1 and nearly no noise, the mean is that of the two tried ones, weighted by the kernel"
    space = Space(dict(arch=archs))
    X = space.encode([dict(arch=o) for o in ('small', 'large')])
    y,s2,n2 = np.array([-1., 1.]),1.,1e-8
    gp = GP(Data(X, y, space.choice, b=[0.], B=[1e-12]), np.log([[1., s2**.5, n2**.5]]))
    mean,var = gp.predict(space.encode([dict(arch=o) for o in archs.options]))
    def k(a, b):
        r2 = 0. if a==b else least_distance+(1-least_distance)*(features[a][0]-features[b][0])**2
        s = (5*r2)**.5
        return (1+s+s*s/3)*np.exp(-s)
    K = np.array([[k(0, 0)+n2, k(0, 3)], [k(3, 0), k(3, 3)+n2]])
    for i in range(4):
        c = np.array([k(i, 0), k(i, 3)])
        assert mean[0,i]==pytest.approx(c@np.linalg.solve(K, y), abs=1e-6)
        assert var[0,i]==pytest.approx(max(k(i, i)-c@np.linalg.solve(K, c), 1e-12), abs=1e-6)
    assert mean[0,1]<-.5 and mean[0,2]>.5  # near its relative, and less sure than of that
    plain = Space(dict(arch=list(archs.options)))
    gp = GP(Data(X, y, plain.choice, b=[0.], B=[1e-12]), np.log([[1., 1., 1e-4]]))
    assert np.allclose(gp.predict(plain.encode([dict(arch='smaller')]))[0], 0, atol=1e-6)  # without features nothing is known

def test_gradient_of_the_likelihood():
    rng = np.random.default_rng(0)
    space = Space(dict(lr=(0., 1.), arch=archs, act=['relu', 'gelu', 'mish']))
    X = space.snap(rng.random((12, 3)))
    data = Data(X, rng.standard_normal(12), space.choice)
    theta = np.log([.5, .7, 1.2, 1.1, .3])
    assert check_grad(lambda o: log_marginal(data, o)[0], lambda o: log_marginal(data, o)[1], theta)<1e-4

def test_inactive_and_conditional():
    "Below another option; an inactive one is like itself, and unlike any option"
    space = Space(dict(kind=dict(net=dict(arch=archs), tree={})))
    a,b = space.encode(dict(kind='net', arch='small')),space.encode(dict(kind='tree'))
    assert space.decode(a)==dict(kind='net', arch='small') and space.decode(b)==dict(kind='tree')
    table = space.choice.tables[1]
    assert table[4,4]==0 and table[4,:4].min()>table[:4,:4].max()

def trained(space, n, f):
    opt,res = BayesOptimizer(space, 1, mode='max', seed=0),[]
    for _ in range(n):
        t = opt.next()
        res.append(t.params)
        opt.report(t.id, 1, f(t.params))
        opt.finish(t.id)
    return res

def test_relatives_of_the_good_are_tried_first():
    "Twenty options on a line, the best in its middle: after ten initial ones the search goes there, which without features it cannot know"
    names = tuple(f'a{i}' for i in range(20))
    def at(p): return int(p['arch'][1:])
    def seen(arch): return [at(p) for p in trained(dict(arch=arch), 13, lambda p: 1-abs(at(p)-10)/19)]
    line,plain = seen(Related(names, [(i/19,) for i in range(20)])),seen(list(names))
    assert 10 not in line[:10]==plain[:10] and line[10]==10 and {*line[11:]}=={9, 12} and 10 not in plain

def test_a_study_keeps_the_features():
    "In Optuna, where trials hold labels; a function is an option as well"
    def net(): "An option that no storage can hold"
    space = dict(arch=Related((net, 'other'), ((0.,), (1.,))), lr=(1e-3, 1., 'log'))
    stored = as_stored(space)
    assert stored['arch'].options==('net', 'other') and np.array_equal(stored['arch'].table, Space(space)['arch'].table)
    sampler = BayesSampler(space=space, seed=0)
    study = optuna.create_study(sampler=sampler)
    study.optimize(lambda t: t.suggest_categorical('arch', ['net', 'other'])=='net', n_trials=8)
    _,fits = {t.params['arch'] for t in study.trials},sampler.known
    assert isinstance(fits['arch'], Related) and isinstance(fits.choice, Kinds)
