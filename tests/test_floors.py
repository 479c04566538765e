"Arrows only point upwards: each floor imports with the packages of the floors above it blocked"
import ast, subprocess, sys
from pathlib import Path
import pytest

pkg = Path(__file__).resolve().parent.parent/'fastai_bayes'
floors = {
    'ground': ('fastai optuna matplotlib pandas fastprogress', 'space kernels gp acq cost feasible curves optimizer manual'),
    'middle': ('fastai fastprogress', 'folder study identity workers seen sampler pruner searches tables axes plots timeline forecasts surrogate result report'),
    'top': ('', 'change clone knobs callback state checkpoint facts maker probe memory display loggers run tune all')}

@pytest.mark.parametrize('floor', floors)
def test_imports_with_higher_floors_blocked(floor):
    banned,mods = map(str.split, floors[floor])
    code = f"import sys\nsys.modules.update(dict.fromkeys({banned!r}))\n" + ''.join(f'import fastai_bayes.{o}\n' for o in mods)
    r = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True)
    assert r.returncode==0, r.stderr

def test_every_module_stands_on_a_floor():
    assert sorted(o.stem for o in pkg.glob('[!_]*.py'))==sorted(' '.join(mods for _,mods in floors.values()).split())

def imported(fn):
    "Names of the modules that a source file imports"
    for n in ast.walk(ast.parse(fn.read_text())):
        if isinstance(n, ast.Import): yield from (a.name for a in n.names)
        elif isinstance(n, ast.ImportFrom) and n.module: yield from (f'{n.module}.{a.name}' for a in n.names)

@pytest.mark.parametrize('mod', floors['top'][1].split())
def test_top_floor_holds_no_numerics(mod):
    bad = [o for o in imported(pkg/f'{mod}.py') if o.startswith(('scipy', 'sklearn', 'numpy.linalg', 'torch.linalg'))]
    assert not bad
