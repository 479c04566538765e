"Learners of libraries that build on fastai are tuned, stopped, exported and resumed. Each needs its library: `pip install fastai_bayes[ecosystem]`"
import importlib.util
import pytest
from ecosystem import *
from fastai_bayes.learner.monitor import MonitorError

@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('row', [o for o,f in libraries.items() if f not in apps.values()], ids=' '.join)
def test_library(tmp_path, row, capsys):
    if importlib.util.find_spec(package_of(row)) is None: pytest.skip(f'needs {package_of(row)}')
    found = facts(row, tmp_path)
    assert found==dict.fromkeys(('tune', 'stop', 'export', 'resume'), True)

def test_every_application_has_a_row():
    "test_applications.py runs those of fastai; fastai cannot export PyTorch's own loaders"
    assert {k for k,f in apps.items() if f not in libraries.values()}=={'torch_loaders'}

def test_gan_needs_a_direction(tmp_path):
    "Whether a loss of a GAN should fall or rise nobody knows"
    with pytest.raises(MonitorError, match="direction of 'gen_loss' is unknown; pass mode='min' or mode='max'"):
        gan(tmp_path).bayes_tune(2, **quick)
