"`BayesSampler` passes Optuna's own conformance suites for third-party samplers"
import pytest
from optuna.testing.pytest_samplers import BasicSamplerTestCase, MultiObjectiveSamplerTestCase, RelativeSamplerTestCase
from fastai_bayes.study.sampler import BayesSampler

class TestBayesSampler(BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase):
    @pytest.fixture
    def sampler(self): return lambda: BayesSampler(seed=0)
