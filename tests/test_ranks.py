"Two processes that train each trial together, with fastai's DistributedTrainer, on the CPU or on one card"
import json, os, socket, subprocess, sys
from pathlib import Path
import optuna, pytest, torch
pytest.importorskip('accelerate')
from fastai_bayes.all import *

def launch(path, cases, wait=300):
    "As `torchrun` does, run `tests/ranks.py` in two processes; what each has said, by case, and how they ended"
    with socket.socket() as s:
        s.bind(('localhost', 0))
        port = s.getsockname()[1]
    env = dict(os.environ, WORLD_SIZE='2', MASTER_ADDR='localhost', MASTER_PORT=str(port), OMP_NUM_THREADS='1')
    args = [sys.executable, Path(__file__).parent/'ranks.py', cases, path]
    cards = max(1, torch.cuda.device_count()) # which the ranks share where there are fewer
    ranks = [subprocess.Popen(args, env=dict(env, RANK=str(i), LOCAL_RANK=str(i%cards))) for i in range(2)]
    codes = [o.wait(wait) for o in ranks]
    def said(case): return [json.loads(f.read_text()) for f in sorted(path.glob(f'{case}_?.json'))]
    return {o: said(o) for o in cases.split(',')},codes

def the_same(ranks, *keys):
    "What `ranks` have said under `keys`, which all must have said"
    a,b = ([o[k] for k in keys] for o in ranks)
    assert a==b
    return a

@pytest.fixture(scope='module')
def first(tmp_path_factory):
    path = tmp_path_factory.mktemp('ranks')
    cases = 'whole,first+parts,rest+parts,plain,other+plain,saves,ctx,asks,differs,workers,every,within,interrupt,fails'
    return path,launch(path, cases)[0]

@pytest.fixture(scope='module')
def second(first):
    path,_ = first
    return path,*launch(path, 'plain+fails,dies')

def test_ranks_train_the_same_trials(first):
    "Each with its own items and random numbers; all stop at the same epoch, and have the same weights"
    _,said = first
    a,b = said['plain']
    for k in ('epoch', 'lr', 'loss'): assert [o[k] for o in a['rows']]==[o[k] for o in b['rows']]
    trials,weights,*_ = the_same(said['plain'], 'trials', 'weights', 'best', 'rate', 'values', 'curves', 'bare')
    assert len(a['rows'])==sum(n for _,n,_ in trials)==15 and {'complete', 'stopped'}=={s for s,*_ in trials}
    for one,two in zip(a['rows'], b['rows']):
        assert one['draw']!=two['draw'] and not {*one['items']} & {*two['items']}
    assert a['bare'] and a['rate']==a['best']['lr']

def test_only_rank_0_writes(first):
    path,said = first
    for case in ('plain', 'saves', 'ctx', 'asks'): assert the_same(said[case], 'files', 'error')==[[], None]
    assert {o['path'] for o in said['plain'][1]['rows']}.isdisjoint(o['path'] for o in said['plain'][0]['rows'])
    study = path/'plain'/'models'/'bayes'/'ranks'
    assert (study/'study.log').exists()
    state = torch.load(next(study.glob('trial_*/checkpoint.pt')), weights_only=True)
    assert [*state['model']]==['0.weight', '0.bias', '3.weight', '3.bias']

def test_resumed_is_uninterrupted(first):
    "A frozen and two other epochs, cut within the second fit: items, dropout and weights of both ranks are the same"
    _,said = first
    for a,b,whole in zip(said['first+parts'], said['rest+parts'], said['whole']):
        assert [len(o['rows']) for o in (a, b)]==[2, 1]
        seen = [{k: v for k,v in o.items() if k!='path'} for o in a['rows']+b['rows']]
        assert seen==[{k: v for k,v in o.items() if k!='path'} for o in whole['rows']]
        assert b['weights']==whole['weights'] and b['curves']==whole['curves']

def test_ways_to_say_it(first):
    "`distrib_ctx`, a factory that suggests, a callback that loads what rank 0 has saved"
    _,said = first
    for case in ('ctx', 'asks', 'saves'): assert the_same(said[case], 'error', 'weights', 'trials', 'bare')[0] is None
    assert [*said['asks'][1]['best']]==['lr']

def test_refused(first):
    "In all ranks, also what only rank 0 can know"
    _,said = first
    texts = dict(differs="limits: rank 0 has {'n_trials': None, 'budget': 9", workers='workers: does not go with',
                 every='every: does not go with', within='within learn.distrib_ctx', **{'other+plain': 'StudyError'})
    for case,text in texts.items(): assert text in the_same(said[case], 'error')[0]

def test_interrupted(first):
    "Ctrl-C ends the study after the epoch; all ranks have the best so far"
    _,said = first
    error,trials,_ = the_same(said['interrupt'], 'error', 'trials', 'weights')
    assert error is None and [n for _,n,_ in trials]==[2]

def test_an_error_in_one_rank(first, second):
    "Ends the study in all, is recorded, and the same line goes on with another trial"
    _,said = first
    error, = the_same(said['fails'], 'error')
    assert error.startswith('RankError: rank 1 has failed: MemoryError')
    _,later,_ = second
    trials,_ = the_same(later['plain+fails'], 'trials', 'weights')
    assert [s for s,*_ in trials].count('failed')==1 and sum(n for _,n,_ in trials)>=14

def test_a_rank_dies(first, second):
    "The other one has an error, and the trial is resumed later"
    path,said,codes = second
    one, = said['dies']
    assert codes==[7, -9] and one['error'].startswith('RankError: ')
    study = optuna.load_study(study_name='ranks', storage=optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(path/'dies'/'models'/'bayes'/'ranks'/'study.log'))))
    last = study.trials[-1]
    assert last.state.is_finished() and last.user_attrs['cut']=='died'
