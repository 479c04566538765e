"The number of epochs is a hyperparameter: trials of different lengths, each complete at its own last epoch"
import math
import numpy as np, optuna, pytest
from tuning import *
from fastai_bayes.all import *
from fastai_bayes.engine.acquisition import log_ei
from fastai_bayes.engine.policy import decide, expected_epochs, explain, propose, resume
from fastai_bayes.engine.surrogate import Surrogate
from fastai_bayes.engine.trainings import Training

T = 20
base = Space(dict(lr=(0., 1.)))
varied = base.with_epochs((1, T))
plain = Space.of(varied.dims, of_length=())  # the same coordinates, but all trials are as long

def trainings(stretched, n=9, rng=0):
    "Trials of 1 to 20 epochs, most of them stopped; at their own epochs, or at the places of these among 20"
    rng,res = np.random.default_rng(rng),[]
    for i in range(n):
        own,x = [20, 5, 7, 13, 2][i%5],rng.random()
        x = varied.encode(dict(lr=x, n_epoch=own))
        done = own if i%3==0 else max(1, int(rng.integers(1, own+1)))
        curve = [float(1-abs(x[0]-.3)-.5*math.exp(-3*e/own)+.01*rng.standard_normal()) for e in range(1, done+1)]
        state = 'running' if i==n-1 else 'complete' if done==own else 'paused'
        at = [e*T//own for e in range(1, done+1)] if stretched else None
        res.append(Training(x, curve, state, at=at))
    return res

@pytest.mark.parametrize('rng', range(4))
def test_a_short_trial_is_judged_as_a_long_one_at_the_same_share(rng):
    own,long = (Surrogate(space, T, trainings(o, rng=rng)) for space,o in ((varied, False), (plain, True)))
    noise = long.noise = own.noise  # of interpolated epochs it would be too small
    assert noise>=0 and np.array_equal(own.rows, long.rows, equal_nan=True)
    assert np.array_equal(own.final[0], long.final[0])
    for i in range(len(own.trainings)):
        if own.first[i]>1 and own.first.max()>own.epochs[i]: continue  # it is not compared with those that have no value yet
        for how in ((0, False), (9, True)):
            a,b = (decide(s, i, *how) for s in (own, long))
            assert (a.stop, a.prob_best)==(b.stop, b.prob_best)

