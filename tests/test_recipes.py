"""The recipes that ship, and the recorded trainings that they come from"""
import json, sys
from copy import deepcopy
from itertools import combinations
from pathlib import Path
import numpy as np, pytest
from fastai.vision.all import (CategoryBlock, ConvLayer, CrossEntropyLossFlat, DataBlock, ImageBlock, Learner, MaskBlock, MultiCategoryBlock,
                               PILImage, accuracy, nn, unet_learner, vision_learner)
from fastai_bayes.all import *
from fastai_bayes.learner.recipes import application_of, recipes_for
from fastai_bayes.study.records import trials_of
root = Path(__file__).resolve().parent.parent
sys.path.append(str(root/'benchmarks'))
import sweeps
from tuning import *
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

def test_writing_one_recipe_leaves_the_others(tmp_path, monkeypatch):
    f = tmp_path/'recipes.json'
    monkeypatch.setattr(sweeps, 'shipped', f)
    f.write_text(json.dumps(dict(shipped, about='', labels=shipped['images'])))
    sweeps.write(dict(ratings=[sweeps.start]), ['ratings', 'labels'])
    res = json.loads(f.read_text())
    assert res=={'about': sweeps.about, **{k: v for k,v in shipped.items() if k!='labels'}, 'ratings': [sweeps.short(sweeps.start)]}

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

def body(pretrained=False): return nn.Sequential(ConvLayer(3, 8, stride=2), ConvLayer(8, 8), nn.AdaptiveAvgPool2d(1))

def test_no_recipes_for_models_that_were_trained_before(tmp_path):
    "Nor for optimizers that they were not recorded with, or a fit that is for pretrained weights"
    def _kind(fit='fit_one_cycle', **kwargs): return application_of(digits(tmp_path, **kwargs), fit)
    assert _kind()=='own' and _kind('fine_tune') is _kind(splitter=lambda m: [params(m[:2]), params(m[2:])]) is None
    learn,one = digits(tmp_path),dict(n_trials=1, enqueue=False, **quick)
    first = recipes_for(learn)[0][0]
    def _lr(learn, **kwargs): return learn.bayes_tune(1, dict(lr=None, wd=None), **one, **kwargs).params_of(0)['lr']
    assert _lr(learn)==pytest.approx(first['lr']) and _lr(digits(tmp_path, opt_func=SGD))!=pytest.approx(first['lr'])
    learn = digits(tmp_path)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(1)
    assert application_of(learn) is None and recipes_for(learn)==([], '')
    for new in (lambda p: digits(tmp_path), lambda p: digits(tmp_path, lr=p['lr'])): assert _lr(learn, new_learner=new)==pytest.approx(first['lr'])
    assert _lr(digits(tmp_path), new_learner=lambda p: digits(tmp_path, model=deepcopy(learn.model)))!=pytest.approx(first['lr'])

def test_loaders_that_have_no_batch_size(tmp_path):
    "Of whole batches as items, or of torch: the rest of a recipe counts"
    batches = [(x[i:i+32], y[i:i+32]) for i in range(0, 160, 32)]
    for make in (lambda items: TfmdDL(items, bs=None), lambda items: torch.utils.data.DataLoader(items, batch_size=None)):
        learn = digits(tmp_path, DataLoaders(make(batches), make(batches[:2]), path=tmp_path))
        first = recipes_for(learn)[0][0]
        res = learn.bayes_tune(1, dict(lr=None, wd=None), n_trials=1, **quick)
        assert res.params_of(0)['lr']==pytest.approx(first['lr'])

@pytest.mark.parametrize('name', ['tables', sweeps.other])
def test_what_judges_a_recipe_has_not_made_it(name):
    "All tables but one judge that for tables; no set of the same kind has made the one for other kinds"
    pool = sweeps.Pool(name, 'value')
    for s in pool.sets:
        kin = [o for o in pool.sets if sweeps.recipe_of(o[0])==sweeps.recipe_of(s[0])] if name==sweeps.other else [s]
        assert s in kin and {*pool.others(s)}=={*pool.sets}-{*kin}
    assert all(len(o)==len(pool.names) for o in pool.regret)

def test_bands_hold_on_recorded_trainings():
    "Forecasts after each epoch of a search, for data sets on which nothing was chosen; by the narrower ones the engine decides"
    import forecasts
    names = [o for o in forecasts.names_of(None, forecasts.SWEPT) if o[0] in ('ratings', 'labels')]
    found = [o for name in names for o in forecasts.run(None, forecasts.SWEPT, name, 0, 1.)]
    def _within(name): return np.mean([abs(e)<=1.96*sd for *_,said in found for e,sd in [said[name]]])
    assert len(found)>500 and .9<=_within('ours')<=.98 and _within('ours, for decisions')<.85

def pictures(path, block=CategoryBlock, y=lambda i: 'ab'[i%2]):
    items = [PILImage.create(np.full((16, 16, 3), i, np.uint8)) for i in range(48)]
    dblock = DataBlock((ImageBlock, block), get_items=lambda _: range(48), get_x=lambda i: items[i], get_y=y)
    return dblock.dataloaders(None, path=path, bs=8, num_workers=0)

def tuned(dls, make=vision_learner, **kwargs): return make(dls, body, pretrained=True, normalize=False, **kwargs)

def test_recipes_for_pretrained_weights_are_for_fine_tune(tmp_path):
    "Of one label per picture, by a metric; networks of one group of parameters that train from scratch have theirs, however they are trained"
    dls = pictures(tmp_path)
    scratch = Learner(dls, nn.Sequential(body(), nn.Flatten(), nn.Linear(8, 2)), loss_func=CrossEntropyLossFlat())
    how = [('fit_one_cycle', 'accuracy'), ('fine_tune', 'valid_loss'), ('fine_tune', 'accuracy')]
    assert [application_of(scratch, *o) for o in how]==['images']*3
    assert [application_of(tuned(dls), *o) for o in how]==[None, None, 'pretrained']
    several = pictures(tmp_path, MultiCategoryBlock, lambda i: ['ab'[i%2]])
    masks = pictures(tmp_path, MaskBlock(['a', 'b']), lambda i: np.full((16, 16), i%2, np.uint8))
    others = tuned(several),tuned(masks, unet_learner, n_out=2),vision_learner(dls, body, pretrained=False, normalize=False)
    assert [application_of(o, 'fine_tune') for o in others]==[None]*3

@pytest.mark.parametrize('monitor', ['accuracy', 'valid_loss'])
def test_a_pretrained_learner_begins_with_its_recipe(tmp_path, monitor):
    "If a metric is monitored, and its own settings are third"
    learn = tuned(pictures(tmp_path), metrics=accuracy)
    first = recipes_for(learn, 'fine_tune')[0][0]
    res = learn.bayes_tune(1, dict(lr=None, wd=None), fit='fine_tune', n_trials=3, monitor=monitor, seed=0, verbose=False)
    tried = [t.params['lr'] for t in trials_of(res.study.get_trials())]
    assert tried[0]==pytest.approx(first['lr']) and tried[2]==2e-3 if monitor=='accuracy' else tried[0]==2e-3

def test_the_first_two_have_the_learners_own_values_of_what_they_leave_open(tmp_path):
    learn = Learner(pictures(tmp_path), nn.Sequential(body(), nn.Flatten(), nn.Linear(8, 2)), loss_func=CrossEntropyLossFlat(), metrics=accuracy)
    res = learn.bayes_tune(1, dict(lr=None, wd=None, eps=(1e-8, 1e-4, 'log')), n_trials=4, monitor='accuracy', seed=0, verbose=False)
    *first,_ = (t.params for t in trials_of(res.study.get_trials()))
    assert [o['eps'] for o in first]==pytest.approx([1e-5]*3) and len({o['lr'] for o in first})==3
