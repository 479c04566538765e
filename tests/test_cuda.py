"""What needs a card: `pytest -m cuda` does it where there is one; without one the same lines are tried on the CPU, where they are quick"""
import argparse, sys
from pathlib import Path
import pytest, torch
sys.path.append(str(Path(__file__).parent.parent/'benchmarks'))
import gpu

needs_card = pytest.mark.skipif(not torch.cuda.is_available(), reason='no card')

def look(name, **kwargs):
    found = [*gpu.rows(argparse.Namespace(**kwargs), name)]
    assert found and all(ok for *_,ok in found), found

@pytest.mark.parametrize('name', ['memory', 'precision', 'formats'])
def test_dry_run(name): look(name, device='cpu', small=True)

@pytest.mark.cuda
@needs_card
@pytest.mark.parametrize('name', [o for o in gpu.checks if o!='checkpoints'])  # which takes minutes
def test_card(name): look(name, device='cuda', small=True)
