"Workers on a Ray cluster of two nodes on this machine; nodes die"
import os, subprocess, sys, threading, time
import pytest
ray = pytest.importorskip('ray')
from ray.cluster_utils import Cluster
from fastai_bayes.all import *
from test_pool import curves, points, space
from tuning import *

class Slow(Callback):
    "Takes its time, and says in which process"
    def __init__(self, path): self.path = path
    def before_train(self):
        (self.path/f'pid_{os.getpid()}').touch()
        time.sleep(.5)

@pytest.fixture
def cluster():
    res = Cluster(initialize_head=True, head_node_args=dict(num_cpus=1, include_dashboard=False))
    node = res.add_node(num_cpus=2)
    ray.init(res.address, log_to_driver=False)
    yield res,node
    ray.shutdown()
    res.shutdown()

def test_a_node_dies(tmp_path, cluster):
    "Its trials are resumed by the workers that are left; curves are those of one process, whatever was trained where"
    nodes,node = cluster
    given = dict(enqueue=points+[dict(lr=.1, bs=b) for b in (8, 16, 32)], n_trials=10, pruner='none', **quick)
    paths = [tmp_path/n for n in ('alone', 'cluster')]
    for p in paths: p.mkdir()
    one = digits(paths[0]).bayes_tune(3, space, **given)
    def remove():
        while len(list(tmp_path.glob('pid_*')))<3: time.sleep(.05)
        nodes.remove_node(node)
    threading.Thread(target=remove, daemon=True).start()
    learn = digits(paths[1])
    two = learn.bayes_tune(3, space, workers=Ray(3, push=0), cbs=Slow(tmp_path), **given)
    assert curves(one)==curves(two) and set(two.trials.state)=={'complete'}
    assert any(t.user_attrs.get('reason')=='its process died' for t in two.study.trials)
    assert learn.validate()[1]==pytest.approx(one.best_value)

def test_no_room(tmp_path, cluster):
    with pytest.raises(TuneError, match='none was ready after 3 seconds'):
        digits(tmp_path).bayes_tune(1, space, n_trials=2, workers=Ray(2, cpus=50, wait=3), **quick)

def test_no_cluster(tmp_path):
    with pytest.raises(TuneError, match='^address: no cluster'):
        digits(tmp_path).bayes_tune(1, space, workers=Ray(2, address='auto'), **quick)

def test_a_cluster_that_wants_a_token(tmp_path):
    "Ray says so by an error of its own, before it connects; the other way round it only says that it cannot connect"
    code = """from fastai_bayes.all import *
try: Ray(2, address='127.0.0.1:1').check()
except TuneError as e: print(e)"""
    env = {k: v for k,v in os.environ.items() if not k.startswith('RAY_')}
    env.update(RAY_AUTH_MODE='token', HOME=str(tmp_path))
    res = subprocess.run([sys.executable, '-c', code], env=env, capture_output=True, text=True)
    assert 'no authentication token was found' in res.stdout and 'RAY_AUTH_TOKEN, as its nodes' in res.stdout, res

# Ray Tune

tune = pytest.importorskip('ray.tune')

def height():
    class Height(tune.Trainable):
        "Rises to 1 where lr is .01 and `act` is b"
        def setup(self, config): self.config,self.n = config,0
        def step(self):
            self.n += 1
            off = (np.log10(self.config['lr'])+2)**2/10+.1*(self.config['inner']['act']!='b')+self.config['fixed']
            return dict(score=(1-off)*(1-.7**self.n))
        def save_checkpoint(self, folder): (Path(folder)/'n').write_text(str(self.n))
        def load_checkpoint(self, folder): self.n = int((Path(folder)/'n').read_text())
    return Height  # a class of a function travels by value: this module is not on the workers

@pytest.mark.parametrize('stop', [{}, dict(training_iteration=9)])
def test_tuner(tmp_path, cluster, stop):
    from fastai_bayes.ray import BayesScheduler, BayesSearch
    search = BayesSearch(9, seed=0)
    space = dict(lr=tune.loguniform(1e-4, 1.), fixed=0, inner=dict(act=tune.choice(['a', 'b'])))
    config = tune.TuneConfig(metric='score', mode='max', num_samples=10, search_alg=search, scheduler=BayesScheduler(search))
    res = tune.Tuner(height(), param_space=space, tune_config=config,
                     run_config=tune.RunConfig(stop=stop, verbose=0, storage_path=str(tmp_path))).fit()
    best = res.get_best_result()
    assert len(res)==10 and not res.errors and best.metrics['score']>.93 and best.metrics['training_iteration']==9
    assert sum(o.metrics['training_iteration'] for o in res)<75  # 90 without pauses
    assert [len(o.curve) for o in search.opt.trainings]==[o.metrics['training_iteration'] for o in res]
    assert any(o.state=='complete' for o in search.opt.trainings)

def test_a_tuner_without_a_mode_is_told():
    from fastai_bayes.ray import BayesSearch
    with pytest.raises(OptimizerError, match='^mode: expected'):
        BayesSearch(9).set_search_properties('score', None, dict(lr=tune.uniform(0, 1)))

def test_paused_trials_do_not_count_as_concurrent():
    from fastai_bayes.ray import BayesSearch
    from ray.tune.search import ConcurrencyLimiter
    search = BayesSearch(9, seed=0)
    limited = ConcurrencyLimiter(search, 2)  # as Tuner does for max_concurrent_trials=2
    limited.set_search_properties('score', 'max', dict(lr=tune.uniform(0, 1)))
    assert limited.suggest('a') and limited.suggest('b') and limited.suggest('c') is None
    search.opt.report(search.ids['a'], 1, .5)
    search.opt.finish(search.ids['a'])
    assert search.opt.trainings[0].state=='paused' and limited.suggest('c')
