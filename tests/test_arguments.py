"What the page of `bayes_tune` says of each argument is so: its heading, type, default, errors and example"
import ast, inspect, json, re
import pytest
import fastai_bayes.all
from test_bad_input import bad
from tuning import *

page = Path(__file__).resolve().parent.parent/'nbs'/'learner'/'21_tune.ipynb'
text = '\n\n'.join(''.join(c['source']) for c in json.loads(page.read_text())['cells'] if c['cell_type']=='markdown')
intro,*rest = re.split(r'^### ', re.search(r'^## Arguments\n(.*?)^## ', text, re.M|re.S)[1], flags=re.M)
sections = {name.strip(): s.strip() for name,_,s in (o.partition('\n') for o in rest)}
parameters = {k: p for k,p in inspect.signature(Learner.bayes_tune).parameters.items() if k!='self'}

def errors(name): return set(re.findall(r'`(\w+Error)`', re.search(r'\*\*Errors:\*\* (.*)', sections[name])[1]))

def raised(name):
    "Errors that the table of bad input has for the argument `name`"
    return {error.__name__ for _,kwargs,error,match in bad.values() if name in kwargs and re.match(rf'\^?{name}\b', match)}

def test_every_argument_has_a_heading(): assert list(sections)==list(parameters)

def test_overview_has_every_argument_once(): assert sorted(re.findall(r'\(#(\w+)\)', intro))==sorted(parameters)

@pytest.mark.parametrize('name', parameters)
def test_type_and_default(name):
    p,line = parameters[name],sections[name].partition('\n')[0]
    assert ('no default' if p.kind==p.VAR_KEYWORD else f'default `{p.default!r}`') in line
    assert p.annotation is p.empty or f'`{p.annotation.__name__}`' in line

@pytest.mark.parametrize('name', parameters)
def test_errors(name):
    assert errors(name) and raised(name)<=errors(name)
    for o in errors(name): assert issubclass(getattr(fastai_bayes.all, o), ValueError)

def test_errors_are_compared(): assert sum(bool(raised(o)) for o in parameters)>20

def example(name): return re.search('```python\n(.*?)\n```', sections[name], re.S)[1]

@pytest.mark.parametrize('name', parameters)
def test_example_uses_it(name):
    call = ast.parse(example(name), mode='eval').body
    assert call.func.attr=='bayes_tune'
    given = [*list(parameters)[:len(call.args)], *(o.arg for o in call.keywords)]
    unknown = set(given)-set(parameters)
    assert name in given if name!='fit_kwargs' else unknown
    assert not unknown or name=='fit_kwargs'

def my_score(preds, targs): return accuracy(preds, targs)

class Quick:
    "Trains one epoch of one trial, or of three runs, with the arguments of an example"
    def __init__(self, path): self.learn = digits(path, metrics=[accuracy, my_score])
    def bayes_tune(self, n_epoch, **kwargs): return self.learn.bayes_tune(1, **{**kwargs, 'n_trials': 1, 'verbose': False})

needs = {'workers': 'GPUs', 'groups': 'a table', 'cache_frozen': 'frozen layers', 'extend': 'an earlier study'}

@pytest.mark.parametrize('name', [o for o in parameters if o not in needs])
def test_example_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = dict(globals(), learn=Quick(tmp_path), build=lambda width: digits(tmp_path))
    assert len(eval(example(name), names).trials)==1
