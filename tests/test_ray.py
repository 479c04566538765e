"Workers on a Ray cluster of two nodes on this machine; nodes die"
import threading, time
import pytest
ray = pytest.importorskip('ray')
from ray.cluster_utils import Cluster
from fastai_bayes.all import *
from fastai_bayes.study.records import curve_of, trials_of
from tuning import *

space = dict(lr=(1e-3, 1e-1, 'log'), bs=[8, 16, 32])
points = [dict(lr=lr, bs=bs) for lr in (.003, .01, .03) for bs in (8, 16)]

class Slow(Callback):
    def before_train(self): time.sleep(.5)

@pytest.fixture
def cluster():
    res = Cluster(initialize_head=True, head_node_args=dict(num_cpus=1, include_dashboard=False))
    node = res.add_node(num_cpus=2)
    ray.init(res.address, log_to_driver=False)
    yield res,node
    ray.shutdown()
    res.shutdown()

def curves(res): return [curve_of(t) for t in trials_of(res.study.trials)]

def test_a_node_dies(tmp_path, cluster):
    "Its trials are resumed by the workers that are left; curves are those of one process, whatever was trained where"
    nodes,node = cluster
    given = dict(enqueue=points, n_trials=7, pruner='none', **quick)
    paths = [tmp_path/n for n in ('alone', 'cluster')]
    for p in paths: p.mkdir()
    one = digits(paths[0]).bayes_tune(3, space, **given)
    def remove():
        while not list(paths[1].rglob('checkpoint.pt')): time.sleep(.05)
        nodes.remove_node(node)
    threading.Thread(target=remove, daemon=True).start()
    learn = digits(paths[1])
    two = learn.bayes_tune(3, space, workers=Ray(3, push=0), cbs=Slow(), **given)
    assert curves(one)==curves(two) and set(two.trials.state)=={'complete'}
    assert (two.trials.reason.fillna('')!='').any() and {t.user_attrs['on'] for t in two.study.trials}>={0}
    assert learn.validate()[1]==pytest.approx(one.best_value)

def test_no_room(tmp_path, cluster):
    with pytest.raises(TuneError, match='none was ready after 3 seconds'):
        digits(tmp_path).bayes_tune(1, space, n_trials=2, workers=Ray(2, cpus=50, wait=3), **quick)

def test_no_cluster(tmp_path):
    with pytest.raises(TuneError, match='^address: no cluster'):
        digits(tmp_path).bayes_tune(1, space, workers=Ray(2, address='127.0.0.1:1'), **quick)
