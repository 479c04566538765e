"Processes that need not import fastai: forks of one that has"
import multiprocessing, os
from functools import cache

@cache
def context():
    "As the module `multiprocessing`"
    res = multiprocessing.get_context('forkserver')
    libraries = *(f'fastai.{o}' for o in ('vision.all', 'text.all', 'tabular.all', 'collab')), 'scipy.stats', 'sklearn.datasets', 'matplotlib.pyplot'
    res.set_forkserver_preload(['nbdev.test', *libraries, 'matplotlib_inline.backend_inline', 'optuna', 'fastai_bayes.all'])
    return res

def logged(log, f, *args):
    "`f(*args)`, with what it prints in file `log`"
    multiprocessing.set_start_method('fork', force=True)  # for loaders' workers, as in a process of one's own
    fd = os.open(log, os.O_CREAT|os.O_WRONLY)
    for o in (1, 2): os.dup2(fd, o)
    f(*args)

def in_fork(path, f, *args):
    "Run `f(*args)`, which may be `exec` and code, in a process of its own that must not fail; its log goes to the folder `path`"
    p = context().Process(target=logged, args=(path/'log', f, *args))
    p.start()
    p.join()
    assert p.exitcode==0, (path/'log').read_text()
