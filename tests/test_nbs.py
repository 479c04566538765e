"The notebooks run, are clean, and match the package"
import ast, inspect, shutil, subprocess, sys
from functools import partial
from pathlib import Path
import pytest
from nbdev.test import nbdev_test
from fastai_bayes._docstrings import documented
from forks import in_fork

root = Path(__file__).resolve().parent.parent
nbs = sorted(p for p in (root/'nbs').rglob('[!_.]*.ipynb') if '.ipynb_checkpoints' not in p.parts)

def run(cmd, *args, cwd=root):
    "Run an nbdev command installed beside this Python"
    r = subprocess.run([Path(sys.executable).with_name(cmd), *args], cwd=cwd, capture_output=True, text=True)
    assert r.returncode==0, r.stdout+r.stderr

def files(d, pat): return {o.relative_to(d).as_posix(): o.read_text() for o in sorted(d.rglob(pat)) if '.ipynb_checkpoints' not in o.parts}

def test_export_and_clean_change_nothing(tmp_path):
    for o in ('nbs', 'fastai_bayes'):
        shutil.copytree(root/o, tmp_path/o, ignore=shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints'))
    shutil.copy(root/'pyproject.toml', tmp_path)
    for o in ('nbdev-export', 'nbdev-clean'): run(o, cwd=tmp_path)
    for o,pat in (('fastai_bayes', '*.py'), ('nbs', '*.ipynb')): assert files(tmp_path/o, pat)==files(root/o, pat)

def test_docstrings_get_their_parameters():
    src = "def area(\n    width, # In metres\n    # In metres,\n    # too\n    height=1.,\n    **kwargs # Ignored\n): # In square metres\n    'Size'\n"
    scope = {}
    exec(documented(src), scope)
    said = ['width: In metres', 'height: In metres, too', '**kwargs: Ignored', 'returns: In square metres']
    assert inspect.getdoc(scope['area'])=='\n    '.join(['Size\n\nParameters:', *said])

def test_docstrings_take_no_comments_of_others():
    src = "class A:\n    'Is'\n    most = 3 # At most\n    def __init__(self, n): pass\n    def f(self): # What f is\n        'Gives'\n    def g(self, x):\n        'Takes'\n"
    scope = {}
    exec(documented(src), scope)
    got = [inspect.getdoc(o) for o in (scope['A'], scope['A'].f, scope['A'].g)]
    assert got==['Is', 'Gives\n\nParameters:\n    returns: What f is', 'Takes']

def test_no_docstring_has_its_parameters_twice():
    "As they have if a notebook contains a docstring as it was exported"
    for f in (root/'fastai_bayes').rglob('*.py'):
        docs = [ast.get_docstring(o) or '' for o in ast.walk(ast.parse(f.read_text())) if isinstance(o, (ast.FunctionDef, ast.ClassDef))]
        assert not [o for o in docs if o.count('Parameters:\n')>1], f

@pytest.mark.parametrize('nb', nbs, ids=lambda o: o.relative_to(root/'nbs').with_suffix('').as_posix())
def test_notebook(nb, tmp_path): in_fork(tmp_path, partial(nbdev_test, str(nb), n_workers=0))
