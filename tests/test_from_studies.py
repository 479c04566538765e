"What earlier studies and beliefs say, through Optuna and `bayes_tune`"
import contextlib, shutil, sqlite3
import optuna, pytest
from optuna.distributions import FloatDistribution
from fastai_bayes.all import *
from fastai_bayes.learner.recipes import recipes_for
from fastai_bayes.engine.checks import OptimizerError
from fastai_bayes.study.folder import FolderError
from fastai_bayes.study.records import trials_of
from fastai_bayes.study.storage import StudyError
from tuning import *

SPACE = dict(lr=(1e-4, 1., 'log'), wd=(1e-4, .3, 'log'))

@pytest.fixture(scope='module')
def bayes(tmp_path_factory):
    "The folder of two studies: one of a loss, one of the accuracy"
    root = tmp_path_factory.mktemp('earlier')
    for i,o in enumerate(('valid_loss', 'accuracy')):
        digits(root).bayes_tune(3, SPACE, n_trials=5, monitor=o, study_name=f's{i}', verbose=False, seed=i)
    return root/'models'/'bayes'

def tried(res): return [t.params for t in trials_of(res.study.get_trials())]

def test_it_begins_with_what_was_good(bayes, tmp_path, capsys):
    "Studies with another metric and direction, two of five hyperparameters shared, and nothing is written to them"
    before = {o: o.read_bytes() for o in bayes.rglob('*') if o.is_file()}
    wide = dict(lr=(1e-5, 2., 'log'), wd=(1e-5, 1., 'log'), eps=(1e-8, 1e-3, 'log'), sqr_mom=(.9, .999), bs=[16, 32])
    res = digits(tmp_path).bayes_tune(3, wide, n_trials=3, from_studies=bayes, seed=0)
    assert 'known beforehand: 2 earlier studies' in capsys.readouterr().out.splitlines()[0]
    known = res.study.user_attrs['knowledge']
    tops = [optuna.load_study(study_name=o.name, storage=optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(o/'study.log')))).best_params for o in sorted(bayes.iterdir())]
    assert tried(res)[0]==known['points'][0] and 'present' in res.study.trials[1].user_attrs  # before the learner's own
    assert any(abs(np.log10(known['points'][0]['lr']/o['lr']))<.5 for o in tops)
    assert {o: o.read_bytes() for o in bayes.rglob('*') if o.is_file()}==before

def test_a_study_repeats_itself_without_them(bayes, tmp_path):
    "Interrupted in its fourth training, and resumed when the earlier studies are gone"
    shutil.copytree(bayes, tmp_path/'copy')
    args = dict(space=SPACE, n_trials=7, from_studies=tmp_path/'copy', study_name='s', **quick)
    whole = digits(tmp_path/'a').bayes_tune(3, **args)
    Break.count = 0
    digits(tmp_path/'b').bayes_tune(3, cbs=Break(KeyboardInterrupt(), (4,)), **args)
    shutil.rmtree(tmp_path/'copy')
    with pytest.warns(UserWarning, match='copy does not exist.* The study continues with what it knew at its start'):
        res = digits(tmp_path/'b').bayes_tune(3, cbs=Break(KeyboardInterrupt(), ()), **args)
    assert tried(res)==tried(whole) and res.study.user_attrs['knowledge']==whole.study.user_attrs['knowledge']

def test_all_studies_beside_it(bayes, tmp_path, capsys):
    "What cannot be read is named and left out; one about something else is left out"
    shutil.copytree(bayes, tmp_path/'models'/'bayes')
    shutil.copytree(bayes/'s0', tmp_path/'models'/'bayes'/'torn')
    log = tmp_path/'models'/'bayes'/'torn'/'study.log'
    log.write_bytes(b'{"op_code": 0}\n'+log.read_bytes())
    digits(tmp_path).bayes_tune(1, dict(sqr_mom=(.9, .99)), n_trials=1, study_name='other', **quick)
    with pytest.warns(UserWarning, match="from_studies='auto': .*torn is left out: .*(line 1 is damaged|not a journal)"):
        res = digits(tmp_path).bayes_tune(3, SPACE, n_trials=2, from_studies='auto', recipes=False, **quick)
    assert res.study.user_attrs['knowledge']['of']=='2 earlier studies' and 'id="plot_knowledge"' in res.report(tmp_path/'k.html').read_text()
    res = digits(tmp_path/'new').bayes_tune(1, SPACE, n_trials=1, from_studies='auto', recipes=False, seed=0)
    assert res.best_value>0 and 'there are no earlier studies in this search space' in capsys.readouterr().out
    res = digits(tmp_path/'alone').bayes_tune(1, SPACE, n_trials=1, from_studies='auto', recipes=False, study_name='first', seed=0)
    digits(tmp_path/'alone').bayes_tune(1, SPACE, n_trials=1, study_name='second', seed=1)
    res = digits(tmp_path/'alone').bayes_tune(1, SPACE, n_trials=2, from_studies='auto', recipes=False, study_name='first')
    assert not res.study.user_attrs['knowledge']['points']  # a study goes on with what it began with, also with nothing
    page = res.report(tmp_path/'r.html').read_text()
    assert 'known beforehand' not in page and not any(f'plot_{o}' in page for o in ('knowledge', 'limits', 'enough', 'runs'))

def test_a_belief_is_tried_first(tmp_path):
    res = digits(tmp_path).bayes_tune(3, SPACE, n_trials=2, prior=dict(lr=(.03, .2)), enqueue=False, **quick)
    assert tried(res)[0]['lr']==pytest.approx(.03)

def rater(path):
    "A learner for which there are recipes"
    from fastai.collab import CollabDataLoaders, collab_learner
    df = pd.DataFrame(dict(user=np.arange(200)%9, item=np.arange(200)%7, rating=np.arange(200)%5*1.))
    return collab_learner(CollabDataLoaders.from_df(df, path=path, bs=64, seed=0), n_factors=4)

def test_recipes_come_first(tmp_path, capsys):
    "The first two that fit the space, before the learner's own values"
    args = dict(space=dict(lr=None, wd=None), n_trials=3, seed=0)
    res = rater(tmp_path).bayes_tune(1, **args)
    for o,first in zip(tried(res), recipes_for(rater(tmp_path))[0][:2]): assert o==pytest.approx({k: first[k] for k in o})
    assert tried(res)[2]['lr']==1e-3
    n = len(recipes_for(rater(tmp_path))[0])  # two of them differ in little but the batch size
    assert f'known beforehand: {n-1} recipes for ratings' in capsys.readouterr().out
    plain = rater(tmp_path).bayes_tune(1, recipes=False, **args)
    assert tried(plain)[0]['lr']==1e-3 and 'knowledge' not in plain.study.user_attrs

@pytest.mark.parametrize('args', [dict(sampler='random'), dict(space=dict(moms=[(.9, .8, .9), (.95, .85, .95)])), dict(space=dict(lr=(1e-9, 1e-8, 'log')))],
                         ids=['another sampler', 'another space', 'another range'])
def test_nothing_changes_without_recipes(tmp_path, args):
    args = dict(space=dict(lr=None, wd=None), n_trials=3, **quick) | args
    a,b = (rater(tmp_path/str(o)).bayes_tune(1, recipes=o, **args) for o in (True, False))
    assert tried(a)==tried(b) and 'knowledge' not in a.study.user_attrs

def test_a_study_that_began_without_recipes_goes_on_without(tmp_path):
    args = dict(space=dict(lr=None, wd=None), study_name='s', **quick)
    for o in 'ab': rater(tmp_path/o).bayes_tune(2, n_trials=2, recipes=False, **args)
    res,without = (rater(tmp_path/o).bayes_tune(2, n_trials=5, **args, **kw) for o,kw in (('a', {}), ('b', dict(recipes=False))))
    assert tried(res)==tried(without) and 'knowledge' not in res.study.user_attrs

@pytest.mark.parametrize('n', [1, 2, 3])
def test_recipes_and_own_values_come_in_order_over_sessions(tmp_path, n):
    args = dict(space=dict(lr=None, wd=None), study_name='s', **quick)
    whole = rater(tmp_path/'a').bayes_tune(1, n_trials=4, **args)
    rater(tmp_path/'b').bayes_tune(1, n_trials=n, **args)
    res = rater(tmp_path/'b').bayes_tune(1, n_trials=4, **args)
    assert tried(res)==tried(whole) and [t.params['lr'] for t in whole.study.trials].index(1e-3)==2

def test_an_interruption_in_the_first_training_changes_nothing(tmp_path, capfd):
    args = dict(space=SPACE, prior=dict(lr=.03), study_name='s', **quick)
    whole = digits(tmp_path/'a').bayes_tune(3, n_trials=4, **args)
    Break.count = 0
    digits(tmp_path/'b').bayes_tune(3, n_trials=4, cbs=Break(KeyboardInterrupt()), **args)
    res = digits(tmp_path/'b').bayes_tune(3, n_trials=4, **args)
    assert tried(res)==tried(whole) and 'enqueue' not in ''.join(capfd.readouterr())

def test_the_present_configuration_does_not_wait_for_a_turn_that_never_comes(tmp_path):
    res = digits(tmp_path).bayes_tune(3, SPACE, prior=dict(lr=.03), n_trials=1, **quick)
    assert [t.state.name for t in res.study.trials]==['COMPLETE']

@pytest.mark.parametrize('known', [dict(recipes=False), dict(prior=dict(lr=.1))], ids=['nothing', 'a belief'])
def test_the_present_configuration_may_pause(tmp_path, known):
    res = digits(tmp_path).bayes_tune(8, dict(lr=(1e-4, 1., 'log')), n_trials=3, **quick, **known)
    own = [t for t in res.study.trials if 'present' in t.user_attrs][0]
    assert own.number==('prior' in known) and own.state.name=='PRUNED'

@pytest.mark.parametrize('begin', [b'', 'create table t (a int)'], ids=['empty', 'foreign'])
def test_nothing_is_written_to_a_database_without_studies(tmp_path, begin):
    f = tmp_path/'f.db'
    if begin:
        with contextlib.closing(sqlite3.connect(f)) as c: c.execute(begin)
    else: f.write_bytes(begin)
    before = f.read_bytes()
    with pytest.raises(StudyError, match='from_studies: the database at sqlite:.*f.db contains no study'):
        BayesSampler(from_studies=f'sqlite:///{f}')
    assert f.read_bytes()==before

wrong = {  # name -> arguments (a function of the folder of earlier studies), and what the error says
    'a number': (lambda d: dict(from_studies=3), 'from_studies: expected studies, results, folders or URLs, got 3'),
    'an empty path': (lambda d: dict(from_studies=''), "from_studies: expected the path of a folder or file, or a URL, got ''"),
    'no folder': (lambda d: dict(from_studies=d/'none'), r'from_studies: .*none does not exist'),
    'an empty folder': (lambda d: dict(from_studies=[d.parent]), 'contains no study'),
    'no journal': (lambda d: dict(from_studies=d/'s0'/'folder.id'), 'begins with'),
    'no database': (lambda d: dict(from_studies='sqlite:///none.db'), 'there is no database at sqlite:///none.db'),
    'another space': (lambda d: dict(from_studies=d, space=dict(eps=(1e-8, 1e-3, 'log'))), 'no trial of the study is in the search space of eps'),
    'another sampler': (lambda d: dict(from_studies=d, sampler='tpe'), "TPESampler cannot use them; use sampler='bayes'"),
    'belief of another name': (lambda d: dict(prior=dict(mom=.9)), "prior: 'mom' is not in the space, which has lr, wd"),
    'belief outside': (lambda d: dict(prior=dict(lr=5.)), 'prior: lr: expected a value from 0.0001 to 1.0'),
    'belief without width': (lambda d: dict(prior=dict(lr=(.1, 0))), 'and a positive standard deviation'),
    'recipes that are text': (lambda d: dict(recipes='yes'), "recipes: expected True or False, got 'yes'"),
    'belief of another sampler': (lambda d: dict(prior=dict(lr=.1), sampler='random'), 'RandomSampler cannot use them')}

@pytest.mark.parametrize('case', wrong)
def test_wrong_use(case, bayes, tmp_path):
    args,text = wrong[case]
    learn = digits(tmp_path)
    before,here = picture(learn),files(tmp_path)
    with pytest.raises((StudyError, FolderError, OptimizerError, TuneError), match=text):
        learn.bayes_tune(3, **{**dict(space=SPACE, n_trials=2, **quick), **args(bayes)})
    assert same(before, picture(learn)) and files(tmp_path)==here

def test_an_optuna_study_of_the_other_direction():
    "Values count by their order, in the direction of their study"
    def _run(sampler, direction, sign, n):
        study = optuna.create_study(direction=direction, sampler=sampler)
        study.optimize(lambda t: sign*(t.suggest_float('x', 0, 1)-.8)**2, n_trials=n)
        return study
    old = _run(optuna.samplers.RandomSampler(0), 'maximize', -1, 30)
    new = _run(BayesSampler(seed=0, space=dict(x=FloatDistribution(0, 1)), from_studies=old), 'minimize', 1, 3)
    assert abs(new.trials[0].params['x']-.8)<.05 and abs(new.trials[2].params['x']-.8)<.1

def test_all_studies_in_the_same_storage(tmp_path):
    "A sampler finds them when its study begins; what it cannot use is named; later ones do not change the study"
    url,x = f'sqlite:///{tmp_path}/s.db',dict(x=FloatDistribution(0, 1))
    def _study(name, n, f=lambda t: (t.suggest_float('x', 0, 1)-.8)**2, goals=1, sampler=None):
        study = optuna.create_study(directions=['minimize']*goals, storage=url, study_name=name, load_if_exists=True,
                                    sampler=sampler or optuna.samplers.RandomSampler(0))
        study.optimize(f, n_trials=n)
        return study
    def _auto(): return BayesSampler(seed=0, space=x, from_studies='auto')
    _study('old', 30)
    _study('elsewhere', 3, lambda t: t.suggest_float('z', 0, 1))
    _study('goals', 2, lambda t: (t.suggest_float('x', 0, 1), 1.), 2)
    with pytest.warns(UserWarning, match="from_studies='auto': goals is left out: .*"): new = _study('new', 2, sampler=_auto())
    known = new.user_attrs['knowledge']
    assert known['of']=='1 earlier study' and abs(new.trials[0].params['x']-.8)<.05
    _study('later', 5)
    assert _study('new', 1, sampler=_auto()).user_attrs['knowledge']==known
    alone = optuna.create_study(sampler=_auto())
    alone.optimize(lambda t: t.suggest_float('x', 0, 1), n_trials=1)
    assert not alone.user_attrs['knowledge']['points']

def test_it_is_forgotten_when_the_space_is_another(bayes, tmp_path):
    "Configurations outside a changed space are left out, and new hyperparameters are spread"
    learn = digits(tmp_path)
    args = dict(from_studies=bayes, study_name='s', **quick)
    learn.bayes_tune(3, SPACE, n_trials=2, **args)
    res = learn.bayes_tune(3, dict(SPACE, lr=(1e-4, 2., 'log'), sqr_mom=(.9, .999)), n_trials=4, extend=True, **args)
    assert [p for p in tried(res) if 'sqr_mom' in p]

def test_another_belief_needs_a_new_study(tmp_path, recwarn):
    def tune(lr): return digits(tmp_path).bayes_tune(3, SPACE, prior=dict(lr=lr), n_trials=2, study_name='s', **quick)
    known = tune(.03).study.user_attrs['knowledge']
    tune(.03)
    assert not [o for o in recwarn if 'prior' in str(o.message)]
    with pytest.warns(UserWarning, match='prior: the study continues with the belief that it began with'): res = tune(.3)
    assert res.study.user_attrs['knowledge']==known

def test_the_first_trial_defines_the_space(tmp_path, capsys):
    def make(trial):
        learn = digits(tmp_path)
        learn.lr = trial.suggest_float('lr', 1e-4, 1., log=True)
        return learn
    res = digits(tmp_path).bayes_tune(3, new_learner=make, prior=dict(lr=.03), n_trials=2, seed=0)
    assert 'what is known beforehand is used from the second on' in capsys.readouterr().out and tried(res)[1]['lr']==pytest.approx(.03)

@pytest.mark.parametrize('bad', [dict(points=3), dict(points=[3]), dict(points=[{'lr': [1]}]), dict(points=[], expected=['x']), dict(points=[], of=3), dict(points=[], first=-1), dict(points=[], each=[[1.]]), []], ids=str)
def test_damaged_knowledge_is_named(bayes, tmp_path, bad):
    study = optuna.create_study()
    study.set_user_attr('knowledge', bad)
    study.add_trial(optuna.create_trial(value=1.))
    if bad==[]: assert plot_knowledge(study).texts  # it is the same as nothing
    else:
        for f in (plot_knowledge, lambda o: BayesSampler(from_studies=o)):
            with pytest.raises(StudyError, match='attributes of study .* knowledge: expected what was known beforehand, got'): f(study)

def test_one_of_several_studies_in_a_database_is_named(tmp_path):
    url = f'sqlite:///{tmp_path/"s.db"}'
    for n,k in dict(a='x', b='y').items():
        study = optuna.create_study(study_name=n, storage=url)
        study.optimize(lambda t: t.suggest_float(k, 0, 1), n_trials=2)
    with pytest.raises(OptimizerError, match='from_studies: b in sqlite:.*s.db: no trial'): BayesSampler(space=dict(x=(0., 1.)), from_studies=url)

def test_the_report_says_what_was_known(bayes, tmp_path):
    res = digits(tmp_path).bayes_tune(3, SPACE, n_trials=2, from_studies=bayes, **quick)
    assert '2 earlier studies' in (tmp_path/res.report(tmp_path/'r.html')).read_text()
