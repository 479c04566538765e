"Weights & Biases and MLflow: one run a training, closed however the training ends"
import json, struct
import pytest
from test_applications import CtrlC, Second, pictures
from tuning import *
from fastai_bayes.all import *

@pytest.fixture
def wandb(monkeypatch, tmp_path):
    wandb = pytest.importorskip('wandb')
    for k,v in dict(WANDB_MODE='offline', WANDB_DIR=str(tmp_path), WANDB_SILENT='true').items(): monkeypatch.setenv(k, v)
    yield wandb
    wandb.finish()

def wandb_callback():
    from fastai.callback.wandb import WandbCallback
    class Wandb(WandbCallback):
        "With fastcore 2.2, fastai's fails at the settings of the learner; without them it works"
        def before_fit(self):
            self.learn.gather_args = dict
            super().before_fit()
    return Wandb(log_preds=False)

def records(data):
    "The records of a file that W&B writes offline: after 7 bytes, parts with checksum, length and type, in blocks of 32 KB"
    from wandb.proto.wandb_internal_pb2 import Record
    i,part = 7,b''
    while i+7<=len(data):
        if 32768-i%32768<7: i += 32768-i%32768
        n,kind = struct.unpack('<HB', data[i+4:i+7])
        part,i = part+data[i+7:i+7+n],i+7+n
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(part)
            part = b''

def runs(res, n):
    "Last values in each of the runs of training `n`, and its exit code"
    def _end(file):
        found = list(records(file.read_bytes()))
        values = {(o.key or o.nested_key[0]): json.loads(o.value_json) for r in found for o in (*r.history.item, *r.summary.update)}
        return dict(values, exit=[r.exit.exit_code for r in found if r.WhichOneof('record_type')=='exit'])
    return [_end(o) for o in sorted((res.folder/f'trial_{n}'/'wandb').glob('offline-run-*/*.wandb'))]

@pytest.mark.parametrize('given', ['learner', 'study', 'used'])
def test_wandb(tmp_path, wandb, given):
    cb = wandb_callback()
    if given=='used':
        wandb.init(project='mine')
        other = pictures(tmp_path/'other')
        with other.no_bar(), other.no_logging(): other.fit(1, cbs=cb)
    learn = pictures(tmp_path/'l', **(dict(cbs=cb) if given=='learner' else {}))
    res = learn.bayes_tune(3, n_trials=2, pruner=Second(), study_name='s', **quick, **({} if given=='learner' else dict(cbs=cb)))
    assert res.trials.sort_values('number').state.tolist()==['complete', 'stopped'], res.trials.reason.tolist()
    ends = [o.value.iloc[-1] for _,o in res.curves.groupby('number')]
    for n,(state,epochs) in enumerate((('complete', 3), ('stopped', 1))):
        (run,) = runs(res, n)
        assert (run['state'], run['epoch'], run['exit'])==(state, epochs, [0]) and run['accuracy']==pytest.approx(ends[n])
    assert wandb.run is None

def test_wandb_after_a_failure_and_an_interruption(tmp_path, wandb):
    Break.count = 0
    def tune(*cbs): return pictures(tmp_path).bayes_tune(2, n_trials=3, study_name='s', pruner='none', cbs=[wandb_callback(), *cbs], **quick)
    res = tune(Break(RuntimeError('bad batch'), (1,)), CtrlC(2))
    assert wandb.run is None and [(runs(res, n)[0]['state'], *runs(res, n)[0]['exit']) for n in range(3)]==[('failed', 1), ('complete', 0), ('failed', 1)]
    ids = lambda: json.loads((res.folder/'trial_2'/'runs.json').read_text())
    before = ids()
    res = tune()
    assert ids()==before and len(runs(res, 2))==2 and runs(res, 2)[1]['state']=='complete'
    assert {o.name.split('-')[-1] for o in (res.folder/'trial_2'/'wandb').glob('offline-run-*')}<={before['wandb'], '1'}

@pytest.fixture
def mlflow(monkeypatch, tmp_path):
    mlflow = pytest.importorskip('mlflow')
    monkeypatch.setenv('MLFLOW_ALLOW_FILE_STORE', 'true')
    mlflow.set_tracking_uri((tmp_path/'mlruns').as_uri())
    yield mlflow
    while mlflow.active_run(): mlflow.end_run()

class Logs(Callback):
    "As people write it; begins and ends runs, or leaves that to MLflow"
    order = 60
    def __init__(self, begins): self.begins = begins
    def before_fit(self):
        import mlflow
        if self.begins: mlflow.start_run()
    def after_epoch(self):
        import mlflow
        mlflow.log_metric('accuracy', self.recorder.values[-1][-1], step=self.epoch)
    def after_fit(self):
        import mlflow
        if self.begins: mlflow.end_run()

def logged(mlflow, **kwargs):
    "Status, number of values and tags of each run, the first one first"
    client = mlflow.MlflowClient()
    found = client.search_runs(['0'], order_by=['attribute.start_time ASC'], **kwargs)
    return [(o.info.status, len(client.get_metric_history(o.info.run_id, 'accuracy')), o) for o in found]

@pytest.mark.parametrize('begins', [True, False])
def test_mlflow(tmp_path, mlflow, begins):
    Break.count = 0
    res = pictures(tmp_path).bayes_tune(3, n_trials=3, pruner=Second(), cbs=[Logs(begins), Break(RuntimeError('bad batch'), (3,), 2)], **quick)
    assert res.trials.sort_values('number').state.tolist()==['complete', 'stopped', 'failed'], res.trials.reason.tolist()
    assert [o[:2] for o in logged(mlflow)]==[('FINISHED', 3), ('FINISHED', 1), ('FAILED', 2)] and mlflow.active_run() is None

@pytest.mark.parametrize('begins', [True, False])
def test_mlflow_goes_on_in_the_same_run(tmp_path, mlflow, begins):
    def tune(*cbs): return pictures(tmp_path).bayes_tune(3, n_trials=1, study_name='s', cbs=[Logs(begins), *cbs], **quick)
    tune(CtrlC(0)), tune()
    assert [o[:2] for o in logged(mlflow)]==[('FINISHED', 3)] and 'MLFLOW_RUN_ID' not in os.environ

def test_runs_of_mlflow_below_the_one_that_is_open(tmp_path, mlflow):
    with mlflow.start_run() as parent:
        res = pictures(tmp_path).bayes_tune(3, n_trials=2, pruner=Second(), cbs=Logs(False), **quick)
        assert mlflow.active_run().info.run_id==parent.info.run_id
    children = logged(mlflow, filter_string=f"tags.mlflow.parentRunId = '{parent.info.run_id}'")
    assert [(*o[:2], o[2].data.tags['state']) for o in children]==[('FINISHED', 3, 'complete'), ('FINISHED', 1, 'stopped')]
    for n,(_,_,o) in enumerate(children):
        assert o.info.run_name==f'trial_{n}' and float(o.data.params['lr'])==res.params_of(n)['lr']
