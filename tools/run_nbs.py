"""Run notebooks in a real kernel and keep their outputs, leaving out the cells that `nbdev-test` leaves out, but with `--slow` not the slow ones

    python tools/run_nbs.py [--slow] [NOTEBOOK ...]"""
import os, sys, time
from pathlib import Path
import nbformat
from nbclient import NotebookClient
from nbdev.clean import nbdev_clean
from nbdev.config import get_config
from nbdev.test import nb_test_cells

def run_nb(fn, flags=()):
    "Execute the cells of notebook `fn` that are meant to run, and save it clean"
    skip = get_config().tst_flags
    skip = skip.split() if isinstance(skip, str) else skip
    keep = {c.id for c in nb_test_cells(fn, skip, flags)}
    nb = nbformat.read(fn, as_version=4)
    for c in nb.cells:
        if c.id not in keep: c.metadata['tags'] = ['skip-execution']
    NotebookClient(nb, kernel_name='python3', timeout=600, resources={'metadata': {'path': str(fn.parent)}}).execute()
    for c in nb.cells: c.metadata.pop('tags', None)
    nbformat.write(nb, fn)
    nbdev_clean(str(fn))

if __name__ == '__main__':
    os.environ['IN_TEST'] = '1'
    os.environ['PYTHONWARNINGS'] = 'ignore'  # import warnings of others would be saved with their paths
    flags = ['slow'] if '--slow' in sys.argv else []
    files = [Path(o) for o in sys.argv[1:] if o!='--slow'] or sorted(o for o in get_config().nbs_path.rglob('[!_.]*.ipynb') if '.ipynb_checkpoints' not in o.parts)
    for f in files:
        t = time.time(); run_nb(f, flags); print(f'{f.name}: {time.time()-t:.1f}s')
