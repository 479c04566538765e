"Learners of libraries that build on fastai are tuned, stopped, exported and resumed. Each needs its library: `pip install fastai_bayes[ecosystem]`"
import importlib.util
import pytest
from ecosystem import *

@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', libraries)
def test_library(tmp_path, name, capsys):
    package,_ = libraries[name]
    if importlib.util.find_spec(package) is None: pytest.skip(f'needs {package}')
    found = facts(name, tmp_path)
    assert found=={k: True for k in ('tune', 'stop', 'export', 'resume')}
