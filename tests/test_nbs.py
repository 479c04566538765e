"The notebooks run, are clean, and match the package"
import inspect, shutil, subprocess, sys
from pathlib import Path
import pytest
from fastai_bayes._docstrings import documented

root = Path(__file__).resolve().parent.parent
nbs = sorted(p for p in (root/'nbs').rglob('[!_.]*.ipynb') if '.ipynb_checkpoints' not in p.parts)

def run(cmd, *args, cwd=root):
    "Run an nbdev command installed beside this Python"
    r = subprocess.run([Path(sys.executable).with_name(cmd), *args], cwd=cwd, capture_output=True, text=True)
    assert r.returncode==0, r.stdout+r.stderr

@pytest.fixture(scope='module')
def fresh(tmp_path_factory):
    "A copy of the project, exported and cleaned"
    d = tmp_path_factory.mktemp('proj')
    for o in ('nbs', 'fastai_bayes'): shutil.copytree(root/o, d/o, ignore=shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints'))
    shutil.copy(root/'pyproject.toml', d)
    run('nbdev-export', cwd=d)
    run('nbdev-clean', cwd=d)
    return d

def files(d, pat): return {o.relative_to(d).as_posix(): o.read_text() for o in sorted(d.rglob(pat)) if '.ipynb_checkpoints' not in o.parts}

def test_package_matches_notebooks(fresh): assert files(fresh/'fastai_bayes', '*.py')==files(root/'fastai_bayes', '*.py')
def test_docstrings_get_their_parameters():
    src = "def area(\n    width, # In metres\n    # In metres,\n    # too\n    height=1.,\n    **kwargs # Ignored\n): # In square metres\n    'Size'\n"
    scope = {}
    exec(documented(src), scope)
    said = 'Size\n\nParameters:\n    width: In metres\n    height: In metres, too\n    **kwargs: Ignored\n    returns: In square metres'
    assert inspect.getdoc(scope['area'])==said

def test_notebooks_are_clean(fresh): assert files(fresh/'nbs', '*.ipynb')==files(root/'nbs', '*.ipynb')

@pytest.mark.parametrize('nb', nbs, ids=lambda o: o.relative_to(root/'nbs').with_suffix('').as_posix())
def test_notebook(nb): run('nbdev-test', nb)
