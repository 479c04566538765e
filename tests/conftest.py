"""One thread per process of tests, as there are several; how many examples the property tests try: 100, always the same, or as
HYPOTHESIS_PROFILE or --hypothesis-profile says. No waits for the disk, and no garbage collection of what was imported"""
import gc, os, signal
os.environ.setdefault('OMP_NUM_THREADS', '1')  # before numpy and torch are imported; also for the processes that tests begin
os.fsync = lambda f: None  # no test cuts the power; that it is called: test_what_is_renamed_is_on_the_disk
import pytest
from hypothesis import HealthCheck, settings

slow = dict(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a study of 500 trials takes its time
settings.register_profile('ci', max_examples=100, derandomize=True, **slow)
settings.register_profile('nightly', max_examples=1000, print_blob=True, **slow)
settings.load_profile(os.environ.get('HYPOTHESIS_PROFILE', 'ci'))

def pytest_configure(config):
    "Cards are for the tests that ask for one: sums on a card differ from run to run, and processes cannot be forked that use one"
    if config.option.markexpr in ('', 'not cuda'): os.environ['CUDA_VISIBLE_DEVICES'] = ''

@pytest.fixture
def keyboard():
    "Python's own reaction to Ctrl-C, which processes in the background do not have"
    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, old)

def pytest_collection_finish():
    gc.collect()
    gc.freeze()  # else each trial that fails, which frees its memory, would look through all that was imported

# the tests that take longest begin first, half of them in each of two processes, so that none waits for the other at the end
longest = 'test_regret', 'test_workers', 'test_a_damaged_folder', 'tutorials/', 'examples/'
def pytest_collection_modifyitems(items):
    first = [o for o in items if any(n in o.nodeid for n in longest)]
    rest = [o for o in items if o not in first]
    n = len(rest)//2
    items[:] = first[::2]+rest[:n]+first[1::2]+rest[n:]
