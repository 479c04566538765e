"""The recipes that ship, and the recorded trainings that they come from"""
import json, sys
from itertools import combinations
from pathlib import Path
import numpy as np, pytest
root = Path(__file__).resolve().parent.parent
sys.path.append(str(root/'benchmarks'))
import sweeps
from sweep_sets import APPLICATIONS, SETS

shipped = {k: v for k,v in json.loads(sweeps.shipped.read_text()).items() if k!='about'}

@pytest.mark.parametrize('application', shipped)
def test_recipes_lie_in_the_inferred_space(application):
    space,recipe = sweeps.relative_space(application),shipped[application]
    assert 3<=len(recipe)<=16 and len({json.dumps(o) for o in recipe})==len(recipe)
    for o in recipe: assert list(o)==list(sweeps.start) + ['drop_mult']*(application=='texts') and all(v in space[k] for k,v in o.items())

@pytest.mark.parametrize('application', APPLICATIONS)
def test_what_is_recorded_is_what_is_trained(application):
    "Names of configurations stand for the same values in all sets, and curves have all epochs"
    rows,known = sweeps.recorded(application),sweeps.configs(application, sweeps.n_max)
    assert len({r['set'] for r in rows})>=6 and len({(r['set'], r['config']) for r in rows})==len(rows)
    for r in rows:
        assert (application, r['set']) in SETS
        own = {k: v for k,v in known['default' if r['config']=='lr_find' else r['config']].items() if (k, r['config'])!=('lr', 'lr_find')}
        for k,v in own.items(): assert r[k]==v if isinstance(v, str) else np.isclose(float(r[k]), v, rtol=1e-4)
        for k in ('train_loss', 'valid_loss', 'value'): assert len(sweeps.floats(r[k]))==APPLICATIONS[application].n_epoch

@pytest.mark.parametrize('k', [1, 2, 5])
def test_the_best_of_several_at_random(k):
    "As the mean over all ways to draw them"
    r = np.random.default_rng(0).random(7)
    assert np.isclose(sweeps.best_of_random(r, k), np.mean([min(o) for o in combinations(r, k)]))

def test_a_line_that_was_cut_off_is_trained_again(tmp_path, monkeypatch):
    monkeypatch.setattr(sweeps, 'folder', tmp_path)
    o = sweeps.configs('classes', 1)['0']
    row = sweeps.line('tumours', '0', o, np.ones((3, 8)), 1.)
    for _ in range(2): sweeps.append('classes', row)
    f = sweeps.file_of('classes')
    f.write_text(f.read_text()[:-30])
    assert len(sweeps.recorded('classes'))==1
    sweeps.append('classes', row)
    assert len(sweeps.recorded('classes'))==2

def test_a_set_repeats_itself():
    "Two trainings on data that come with scikit-learn are equal, whatever was trained before"
    def _train(): return sweeps.train(('classes', 'tumours'), sweeps.configs('classes', 1)['0'], 0)[0]
    a,b = _train(),_train()
    assert np.array_equal(a, b) and a.shape==(3, 8)
