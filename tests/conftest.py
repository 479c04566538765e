"""One thread per process of tests, as there are several; how many examples the property tests try: 100, always the same, or as
HYPOTHESIS_PROFILE or --hypothesis-profile says"""
import os
os.environ.setdefault('OMP_NUM_THREADS', '1')  # before numpy and torch are imported; also for the processes that tests begin
from hypothesis import HealthCheck, settings

slow = dict(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a study of 500 trials takes its time
settings.register_profile('ci', max_examples=100, derandomize=True, **slow)
settings.register_profile('nightly', max_examples=1000, print_blob=True, **slow)
settings.load_profile(os.environ.get('HYPOTHESIS_PROFILE', 'ci'))
