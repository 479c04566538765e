"When a study ends: a target, and what is unlikely to bring more"
import math, pytest
from fastai_bayes.all import *
from fastai_bayes.results.history import enough_data
from tuning import *

lrs = dict(lr=(1e-4, 1., 'log'))
def by_lr(lr, epoch): return .95-.1*(math.log10(lr)+2)**2-.3/(epoch+1)  # best .85 after 3 epochs, at lr=.01
def tune(path, n=3, **kwargs):
    return digits(path).bayes_tune(n, lrs, **{**quick, 'fit': 'fit', 'cbs': Curve(by_lr), 'study_name': 's', **kwargs})

def test_a_target_ends_the_study_in_the_epoch_that_reaches_it(tmp_path):
    res = tune(tmp_path, target=.78)
    assert .78<=res.best_value<.86
    assert (res.curves.value>=.78).sum()==1 and res.trials.reason.str.contains('target').sum()==1  # not one epoch more
    before = res.curves
    assert len(tune(tmp_path, target=.78).study.trials)==len(res.study.trials)  # it is reached
    more = tune(tmp_path, target=.849)
    assert more.best_value>=.849 and len(more.curves)>len(before)
    cut = before.number[before.value>=.78].iloc[0]
    assert (more.curves.number==cut).sum()>(before.number==cut).sum()  # what was cut goes on

def test_a_target_below(tmp_path):
    res = digits(tmp_path).bayes_tune(3, lrs, monitor='valid_loss', target=2.25, **quick)
    values = [v for t in res.study.trials for v in t.intermediate_values.values()]
    assert values[-1]<=2.25<min(values[:-1], default=9) and res.best_value==values[-1]

def test_a_target_in_single_precision(tmp_path):
    "90 of 100 are .9, although as float32 they are a little less"
    value = float(np.float32(.9))
    assert value<.9 and len(tune(tmp_path, target=.9, cbs=Curve(lambda lr, epoch: value)).curves)==1

def test_a_target_that_is_not_reached(tmp_path):
    assert tune(tmp_path, target=.99, budget=9).trials.epochs.sum()==9

def test_enough(tmp_path):
    "It ends before its budget, with less to gain than asked for, and says how sure it is"
    res = tune(tmp_path, enough=.02)
    spent = res.trials.epochs.sum()
    assert spent<60 and res.note.startswith('enough: the chance of more than 0.02 better in the') and res.best_value>=.85-.02
    df = enough_data(res.study)
    assert df.spent.is_monotonic_increasing and df.chance.iloc[0]==1 and (df.chance.iloc[-2:]<.05).all() and not any((df.chance[:-2]<.05) & (df.chance.shift(-1)[:-2]<.05)) and df.spent.iloc[-1]==spent
    assert len(tune(tmp_path, enough=.02).study.trials)==len(res.study.trials)  # the same line ends at once
    assert tune(tmp_path, budget=int(spent)+3).trials.epochs.sum()==spent+3  # without it, it goes on
    page = res.report(tmp_path/'r.html').read_text()
    assert 'chance of a gain' in page

@pytest.mark.parametrize('limit', [dict(n_trials=30), dict(timeout=600), dict(budget=60, n_trials=30)], ids=str)
def test_enough_with_other_limits(tmp_path, limit):
    res = tune(tmp_path, enough=.05, **limit)
    assert 'enough' in res.note and res.best_value>=.8 and len(res.trials)<30

def test_a_gain_that_everything_has_left(tmp_path):
    "Zero: any gain matters"
    assert tune(tmp_path, enough=0, budget=15).trials.epochs.sum()==15
