"Arrows only point downwards: each wing, a folder, imports with what it may not use blocked"
import ast, builtins, importlib, subprocess, symtable, sys
from pathlib import Path
import pytest

root = Path(__file__).resolve().parent.parent
pkg = root/'fastai_bayes'
sys.path.append(str(root/'tools'))
import density

wings = {  # lowest first, each with the packages that it and those below it may not import
    'engine': 'fastai optuna matplotlib pandas fastprogress', 'study': 'fastai matplotlib fastprogress',
    'results': 'fastai fastprogress', 'learner': ''}
names = list(wings)

def modules(wing): return [f'fastai_bayes.{wing}.{o.stem}' for o in sorted((pkg/wing).glob('[!_]*.py'))]

@pytest.mark.parametrize('wing', wings)
def test_imports_with_what_is_above_blocked(wing):
    above = [f'fastai_bayes.{o}' for o in names[names.index(wing)+1:]]
    code = f"import sys\nsys.modules.update(dict.fromkeys({wings[wing].split()+above!r}))\n" + ''.join(f'import {o}\n' for o in modules(wing))
    r = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True)
    assert r.returncode==0, r.stderr

def test_every_module_is_in_a_wing():
    assert {o.name for o in pkg.iterdir() if o.is_dir() and not o.name.startswith('__')}==set(wings)
    assert {o.stem for o in pkg.glob('*.py')}=={'__init__', '_docstrings', '_modidx', 'all', 'ray'}

@pytest.mark.parametrize('folder', sorted(o.parent for o in (root/'nbs').glob('*/00_*.ipynb')), ids=lambda o: o.name)
def test_notebooks_are_numbered(folder):
    assert [int(o.name[:2]) for o in sorted(folder.glob('*.ipynb'))]==[*range(len([*folder.glob('*.ipynb')]))]

def imported(fn):
    "Names of the modules that a source file imports"
    for n in ast.walk(ast.parse(fn.read_text())):
        if isinstance(n, ast.Import): yield from (a.name for a in n.names)
        elif isinstance(n, ast.ImportFrom) and n.module: yield from (f'{n.module}.{a.name}' for a in n.names)

@pytest.mark.parametrize('fn', sorted((pkg/'learner').glob('[!_]*.py')), ids=lambda o: o.stem)
def test_the_learner_holds_no_numerics(fn):
    bad = [o for o in imported(fn) if o.startswith(('scipy', 'sklearn', 'numpy.linalg', 'torch.linalg'))]
    assert not bad

def test_code_is_no_denser_than_agreed(): assert not density.exceeded(density.wings())

def test_all_loads_nothing_that_is_slow_and_rarely_needed():
    code = """import sys
import fastai.vision.all, optuna
optuna.create_study
before = set(sys.modules)
import fastai_bayes.all
print(*{o.partition('.')[0] for o in set(sys.modules)-before})"""
    new = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True, check=True).stdout.split()
    assert not {'sqlalchemy', 'plotly', 'sklearn', 'jinja2', 'wandb', 'mlflow'} & set(new)

def used(table):
    "Names that a scope and those within it take from the module"
    own = table.get_type()=='module'
    for s in table.get_symbols():
        if s.is_referenced() and not s.is_assigned() and (own or s.is_global()): yield s.get_name()
    for o in table.get_children(): yield from used(o)

@pytest.mark.parametrize('fn', sorted(o for o in pkg.rglob('*.py') if not o.stem.startswith('_')), ids=lambda o: o.stem)
def test_names_are_defined(fn):
    "Star imports hide from ruff what is not"
    if fn.stem=='ray': pytest.importorskip('ray.tune')
    module = importlib.import_module('.'.join(fn.relative_to(root).with_suffix('').parts))
    table = symtable.symtable(fn.read_text(), str(fn), 'exec')
    assert not [n for n in set(used(table)) if not hasattr(module, n) and not hasattr(builtins, n)]

@pytest.mark.parametrize('fn', sorted((root/'benchmarks').glob('*.py')), ids=lambda o: o.stem)
def test_benchmarks_import_what_is_there(fn):
    nodes = [n for n in ast.walk(ast.parse(fn.read_text())) if isinstance(n, ast.ImportFrom) and (n.module or '').startswith('fastai_bayes.')]
    for n in nodes:
        module = importlib.import_module(n.module)
        for a in n.names:
            if a.name!='*' and not hasattr(module, a.name): importlib.import_module(f'{n.module}.{a.name}')
