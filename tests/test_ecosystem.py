"Learners of libraries that build on fastai are tuned, stopped, exported and resumed. Each needs its library: `pip install fastai_bayes[ecosystem]`"
import importlib.util
import pytest
from ecosystem import *
from fastai_bayes.learner.monitor import MonitorError

@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', libraries)
def test_library(tmp_path, name, capsys):
    package,_ = libraries[name]
    if importlib.util.find_spec(package) is None: pytest.skip(f'needs {package}')
    found = facts(name, tmp_path)
    assert found==dict.fromkeys(('tune', 'stop', 'export', 'resume'), True)

def test_gan_needs_a_direction(tmp_path):
    "Whether a loss of a GAN should fall or rise nobody knows"
    with pytest.raises(MonitorError, match="direction of 'gen_loss' is unknown; pass mode='min' or mode='max'"):
        make('fastai, GANLearner', tmp_path).bayes_tune(2, **quick)
