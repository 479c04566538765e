"A study that version 0.0.1 wrote still opens, goes on, and ends, without its checkpoints; it is in tests/data, with the script that wrote it"
import importlib.util, json, shutil
from pathlib import Path
import pytest
from tuning import *
from fastai_bayes.all import *
from fastai_bayes.study.records import curve_of, trials_of

data = Path(__file__).parent/'data'
spec = importlib.util.spec_from_file_location('write_study', data/'write_study.py')
old = importlib.util.module_from_spec(spec)
spec.loader.exec_module(old)

@pytest.fixture
def folder(tmp_path):
    "The study where the same line looks for it"
    shutil.copytree(data/'study_0_0_1'/'models', tmp_path/'models')
    return tmp_path
def ends(study):
    "As `write_study.ends`, by this version"
    return [[t.params, t.state.name, curve_of(t)] for t in trials_of(study.get_trials(deepcopy=False))]

def trials(folder):
    "What plain Optuna reads"
    file = str(folder/'models'/'bayes'/'old'/'study.log')
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(file))
    return optuna.load_study(study_name='old', storage=storage).trials

def test_it_goes_on_and_ends(folder):
    "What was trained stays, digit by digit; the trial whose process died trains its epochs again, and ends as without that"
    before,end = trials(folder),json.loads((data/'study_0_0_1'/'end.json').read_text())
    begun = {t.user_attrs.get('carries_on', t.number) for t in before}
    res = old.line(folder)
    after = res.study.trials
    assert [t.state.name for t in before].count('RUNNING')==1
    for a,b in zip(before, after):
        assert (a.params, a.distributions, a.intermediate_values)==(b.params, b.distributions, b.intermediate_values)
        if not a.state.is_finished(): continue
        assert (a.state, a.value, a.user_attrs, a.datetime_complete)==(b.state, b.value, b.user_attrs, b.datetime_complete)
    died = after[before[-1].number]
    assert died.state.name=='PRUNED' and died.user_attrs['cut']=='died'
    again = [t for t in after if t.user_attrs.get('resumes')==died.number]
    assert again[0].user_attrs['resumed_from']==0 and len(died.intermediate_values)==4 and again[0].params==died.params
    assert 'trained again from the start' in again[0].user_attrs['reason']
    assert len(res.trials)==7 and all(t.state.is_finished() for t in after)
    for (params,_,curve),(now,_,got) in zip(end[:len(begun)], ends(res.study)):
        n = min(len(curve), len(got))
        assert now==params and n>=3 and got[:n]==pytest.approx(curve[:n], rel=1e-3)  # another processor rounds otherwise
    best = res.learner()
    with best.no_bar(), best.no_logging(): assert best.validate()[0]==pytest.approx(res.best_value, rel=1e-4)
    assert res.best_value==min(v for t in after for v in curve_of(t))
