"The documentation site: every page in a browser, at the width of a screen and of a phone, without a network"
import ast, functools, json, os, re, shutil, subprocess, sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit
import numpy as np, pytest
from filelock import FileLock
from hypothesis import settings
from PIL import Image
from scipy.stats import norm
import fastai_bayes.all
from fastai_bayes.engine.kernels import matern52

root = Path(__file__).resolve().parent.parent
nightly = settings().max_examples>=1000
sys.path.append(str(root/'tools'))
import docs
from badges import badges
from browser import browsing, installed, names as browsers, served

def build(dest):
    "Copy what the site is made of to `dest`, and build it there"
    for o in ('nbs', 'fastai_bayes', 'docs', 'tools', 'benchmarks/results', '.github'):
        shutil.copytree(root/o, dest/o, ignore=shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints', 'models'))
    for o in ('README.md', 'CHANGELOG.md', 'CONTRIBUTING.md', 'LICENSE', 'CITATION.cff', 'mkdocs.yml', 'pyproject.toml'): shutil.copy(root/o, dest)
    env = {**os.environ, 'PYTHONPATH': str(dest), 'PYTHONWARNINGS': 'ignore', 'NO_MKDOCS_2_WARNING': '1'}
    for cmd in ('tools/docs.py',), ('-m', 'mkdocs', 'build', '--strict'):
        r = subprocess.run([sys.executable, *cmd], cwd=dest, env=env, capture_output=True, text=True)
        assert r.returncode==0, r.stdout+r.stderr
        assert 'WARNING' not in r.stderr, r.stderr

@pytest.fixture(scope='module')
def site(tmp_path_factory, worker_id):
    "Folder of the site; built once, though the tests run in several processes"
    if not os.environ.get('CI'): pytest.importorskip('material', reason="needs pip install -e '.[docs]'")
    base = tmp_path_factory.getbasetemp()
    dest = (base if worker_id=='master' else base.parent)/'site'
    with FileLock(f'{dest}.lock'):
        if not (dest/'built').exists():
            shutil.rmtree(dest, ignore_errors=True)
            dest.mkdir()
            build(dest)
            (dest/'built').touch()
    return dest/'_docs'

@pytest.fixture(scope='module')
def url(site):
    "Address of the site, served on loopback"
    with served(site) as res: yield res

@pytest.fixture(scope='module')
def browser():
    if installed() is None: (pytest.fail if os.environ.get('CI') else pytest.skip)(f'no Chromium: none of {", ".join(browsers)} is installed')
    with browsing() as res: yield res

def opened(browser, **kwargs):
    "A new page, and the list to which its errors and failed requests go"
    page,bad = browser.new_page(**kwargs),[]
    page.on('console', lambda m: bad.append(m.text) if m.type in ('error', 'warning') else None)
    page.on('pageerror', lambda e: bad.append(str(e)))
    page.on('requestfailed', lambda r: bad.append(f'{r.failure}: {r.url}') if r.failure!='net::ERR_ABORTED' else None)  # the page was left
    page.on('response', lambda r: bad.append(f'{r.status}: {r.url}') if r.status>=400 else None)
    page.on('request', lambda r: None if r.url.startswith(('http://127.0.0.1', 'data:', 'blob:')) else bad.append(f'outside: {r.url}'))
    return page,bad

def pages_of(site): return sorted(o.relative_to(site).as_posix() for o in site.rglob('*.html'))

@functools.cache
def links(fn): return Links(fn)

class Links(HTMLParser):
    "The addresses, the anchors and the text of a page, without the code that is folded"
    def __init__(self, fn):
        super().__init__()
        self.refs,self.ids,self.text,self.inside = [],{''},'',False
        self.feed(fn.read_text())
    def handle_starttag(self, tag, attrs):
        if tag in ('article', 'details'): self.inside = tag=='article'
        for k,v in attrs:
            if k in ('href', 'src') and v: self.refs.append(v)
            if k in ('id', 'name') and v: self.ids.add(v)
    def handle_endtag(self, tag):
        if tag in ('article', 'details'): self.inside = tag=='details'
    def handle_data(self, data):
        if self.inside and not self.cdata_elem: self.text += data  # no scripts and styles

def test_start_page_is_the_readme():
    assert docs.index()==json.loads((root/'nbs'/'index.ipynb').read_text())['cells'], 'README.md has changed: make index'

def readme_parts(): return re.split(r'\n(?=## )', (root/'README.md').read_text())

def test_readme_is_short():
    words = re.sub(r'```.*?```|\]\([^)]*\)', '', '\n'.join(readme_parts()), flags=re.S).split()
    assert len(words)<600 and len((root/'README.md').read_text().split())<700

def test_readme_has_the_command_that_tests_it():
    assert "pip install -e '.[dev,docs]' && pytest" in (root/'.ci'/'run').read_text()
    assert "pip install -e '.[dev,docs]' && pytest" in (root/'README.md').read_text()

def test_badges_say_what_is_so():
    assert {k: (root/'docs'/'img'/k).read_text() for k in badges()}==badges(), 'python tools/badges.py'

def test_links_of_the_readme_exist():
    refs = re.findall(r'\]\((?!https?:|#)([^)#]+)', (root/'README.md').read_text())
    assert len(refs)>10 and not [o for o in refs if not (root/o).exists()]

def test_moving_picture_is_small():
    im = Image.open(root/'docs'/'img'/'demo.webp')
    assert im.n_frames>20 and (root/'docs'/'img'/'demo.webp').stat().st_size<1e6

def test_every_page_is_in_the_menu(site):
    def leaves(o): return [o] if isinstance(o, str) else [l for x in (o.values() if isinstance(o, dict) else o) for l in leaves(x)]
    nav = leaves(json.loads((site.parent/'_md'/'nav.json').read_text()))
    assert sorted(nav)==sorted([f'{docs.gallery}.md', *(f'{o.slug}.md' for o in docs.pages().values())])

def test_public_names_are_explained(site):
    body = ast.parse((root/'fastai_bayes'/'all.py').read_text()).body
    public = next(ast.literal_eval(o.value) for o in body if isinstance(o, ast.Assign) and o.targets[0].id=='__all__')
    ids = {i for n in pages_of(site) for i in links(site/n).ids}
    assert len(public)>20 and not {o.lower() for o in [*public, 'Learner.bayes_tune']}-ids
    text = ''.join(''.join(c['source']) for c in docs.read(root/'nbs'/'00_all.ipynb') if c['cell_type']=='markdown')
    assert not [o for o in fastai_bayes.all.__all__ if f'`{o}`' not in text]

def test_public_members_have_words():
    "Methods and attributes of what people get in their hands: results, workers, sampler, pruner and callback"
    names,silent = [],[]
    for p in docs.pages().values():
        members = [o for o in p.symbols if o.split('.')[0] in fastai_bayes.all.__all__ and not p.slug.startswith('engine')]
        found = {o: docs.resolve(f'fastai_bayes.{p.module}', o) for o in members}
        names += members
        silent += [k for k,o in found.items() if not docs.explanation(getattr(o, 'fget', None) or getattr(o, 'func', o))]
    assert len(names)>60 and not silent

def test_links_lead_somewhere(site):
    pages,bad = {n: links(site/n) for n in pages_of(site)},[]
    for n,page in pages.items():
        for ref in set(page.refs):
            o = urlsplit(ref)
            if o.scheme or o.netloc: continue
            to = ((site/n).parent/unquote(o.path)).resolve() if o.path else site/n
            if to.is_dir(): to = to/'index.html'
            inside = to.relative_to(site.resolve()).as_posix() if to.exists() else None
            if inside is None or inside in pages and unquote(o.fragment) not in pages[inside].ids: bad.append(f'{n}: {ref}')
    assert not [o for o in bad if not o.startswith('404.html')]
    assert sum(len(o.refs) for o in pages.values())>1000

look = """() => ({
    maths: [...document.querySelectorAll('math')].map(o => o.getBoundingClientRect()).map(o => o.width*o.height),
    tables: [...document.querySelectorAll('.md-content table')].map(o => o.rows.length),
    images: [...document.querySelectorAll('.md-content img')].filter(o => !o.naturalWidth).map(o => o.src)})"""
cut = """() => [...document.querySelectorAll('.md-content div:not(.aligned) > pre > code')]
    .filter(o => o.scrollWidth>o.clientWidth+1).map(o => o.innerText.slice(0, 60))"""
scrolls = """() => [...document.querySelectorAll('.md-content :is(.wide, .output, .output div, pre > code)')]
    .filter(o => o.clientWidth && o.scrollWidth>o.clientWidth+1).map(o => o.innerText.slice(0, 60))"""
leaks = r'\(', '{target', '{:', '{ #', '__main__.', '&lt;', '| ---', '|---', '#|', ':::'  # what a reader must not see of how pages are made
generated = 'source/', 'learner/', 'results/', 'study/', 'engine/'

def test_pictures_have_words():
    "A plot is described by its docstring, another picture by the sentence that announces it"
    assert docs.pictured('res.plot_saved();', '').startswith('Epochs spent')
    assert docs.pictured('plt.plot(x)', 'First. All three for the same prediction; a `dotted` line is the next:')=='All three for the same prediction; a dotted line is the next'
    assert docs.pictured('plt.plot(x)', 'A file ([it](x.json)) <!-- end -->\n\nThe same, with a band of 95 %:')=='The same, with a band of 95 %'
    assert docs.pictured('plt.plot(x)', '## A heading')==docs.pictured('plt.plot(x)', '')=='Plot of the code above'

def test_code_in_prose_links_to_what_it_names():
    "A method is linked with its class, or as a learner's; the events of fastai and methods of others are not ours"
    ctx = docs.Context(docs.pages()['about/00_faq.ipynb'], docs.pages())
    linked = [o for o in ('bayes_tune', 'learn.fit_cosine', 'BayesPruner.explain', 'plot_history', 'after_fit', 'learn.load', 'get_preds', 'should_prune()')
              if ctx.link(f'`{o}`').startswith('[')]
    assert linked==['bayes_tune', 'learn.fit_cosine', 'BayesPruner.explain', 'plot_history']
    assert ctx.link('`bayes_tune`')=='[`bayes_tune`](../learner/tune.md#learner.bayes_tune)'

def test_no_picture_is_without_words(site):
    texts = {o: o.read_text() for o in (site.parent/'_md').rglob('*.md') if 'source' not in o.parts}
    assert not [o.name for o,s in texts.items() if '![Plot of the code above]' in s]
    assert sum(s.count('.drawn }') for s in texts.values())>60

def said_by(nb):
    "Texts that the cells of the notebook `nb` have printed or shown"
    for c in json.loads(nb.read_text())['cells']:
        for o in c.get('outputs', ()): yield ''.join(o.get('text', o.get('data', {}).get('text/plain', '')))

@pytest.mark.parametrize('folder', sorted({o.parent.relative_to(root).as_posix() for o in (root/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in o.parts}))
def test_outputs_can_be_read(folder):
    "No list of raw numbers stands for fastai's table, and nothing counts `1 trials`"
    for nb in (root/folder).glob('*.ipynb'):
        for text in said_by(nb):
            assert not re.search(r"^\[\d+, .*'\d+:\d+'\]$", text, re.M), (nb.name, text[:200])
            assert not re.search(r'(?<![\d.,])1 (trials|epochs|runs|workers|studies|items)\b', text), (nb.name, text[:200])

def test_no_page_shows_how_it_is_made(site):
    texts = {n: links(site/n).text for n in pages_of(site) if not n.startswith(('source/', 'contributing'))}
    assert not [f'{n}: {o!r} shows' for n,s in texts.items() for o in leaks if o in s]
    assert len(texts)>80 and sum(map(len, texts.values()))>400000

def to_open(site):
    "All pages that are written, and of the others those with formulas and, of source code and of the rest, the four with the longest lines; nightly all"
    def longest(n): return max(map(len, links(site/n).text.splitlines()))
    source,api = ([o for o in pages_of(site) if o.startswith(names)] for names in (generated[:1], generated[1:]))
    few = [o for names in (source, api) for o in sorted(names, key=longest)[-4:]]
    return [o for o in pages_of(site) if nightly or o in few or not o.startswith(generated) or '<math' in (site/o).read_text()]

@pytest.mark.parametrize('half', (0, 1))  # for two processes
def test_pages_in_a_browser(site, url, browser, half):
    page,bad = opened(browser)
    formulas = tables = 0
    for n in to_open(site)[half::2]:
        page.set_viewport_size(dict(width=1280, height=900))
        page.goto(f'{url}/{n}')
        seen = page.evaluate(look)
        bad += [f'{n}: a table or code is cut: {o}' for o in page.evaluate(scrolls)]
        bad += [f'{n}: image {o} is missing' for o in seen['images']] + [f'{n}: a formula cannot be seen' for o in seen['maths'] if o<=0]
        formulas,tables = formulas+len(seen['maths']),tables+sum(o>1 for o in seen['tables'])
        page.set_viewport_size(dict(width=390, height=844))
        width = page.evaluate('document.documentElement.scrollWidth')
        bad += [f'{n}: code is cut on a phone: {o}' for o in page.evaluate(cut)]
        if width>390: bad.append(f'{n}: {width} pixels wide on a phone')
    assert not bad, '\n'.join(bad)
    assert formulas>5 and tables>40

def test_search(site, url, browser):
    page,bad = opened(browser, viewport=dict(width=1280, height=900))
    page.goto(f'{url}/index.html')
    page.fill('input.md-search__input', 'bayes_tune')
    hit = page.wait_for_selector('.md-search-result__item a[href*="learner/tune.html"]')
    hit.click()
    page.wait_for_url('**/learner/tune.html**')
    assert not bad

@pytest.mark.parametrize('words,expected', {
    'resume': 'tutorials/resume', 'reproduce': 'tutorials/resume', 'conditional': 'guides/spaces', 'cross-validation': 'guides/repeats',
    'multi-objective': 'guides/goals', 'install': 'tutorials/first_tune', 'GPU': 'guides/processes', 'cluster': 'guides/processes',
    'learning rate': 'guides/spaces', 'Optuna': 'coming_from/optuna', 'Ray Tune': 'coming_from/ray_tune', 'Keras Tuner': 'coming_from/keras_tuner',
    'sweeps': 'coming_from/wandb_sweeps', 'transformers': 'coming_from/hugging_face', 'enqueue': 'learner/tune',
    'out of memory': 'guides/failed_trials', 'wandb': 'guides/logging', 'MLflow': 'guides/logging'}.items())
def test_search_finds_the_page_about(url, browser, words, expected):
    page,bad = opened(browser, viewport=dict(width=1280, height=900))
    page.goto(f'{url}/about/faq.html?q={words}')
    hit = page.wait_for_selector('.md-search-result__item a')
    assert f'{url}/{expected}.html' in hit.get_attribute('href') and not bad

def test_search_from_a_disk(site, browser):
    page,bad = browser.new_page(),[]
    page.on('pageerror', lambda e: bad.append(str(e)))
    page.goto((site/'index.html').as_uri())
    page.fill('input.md-search__input', 'resume')
    page.wait_for_selector('.md-search-result__item a[href*="tutorials/resume.html"]')
    assert not bad

def test_start_page_is_light(url, browser):
    page,got = browser.new_page(viewport=dict(width=1280, height=860)),[]
    page.on('response', lambda o: got.append((o.url, len(o.body()))))
    page.goto(f'{url}/index.html', wait_until='networkidle')
    assert sum(n for _,n in got)<512_000 and not [o for o,_ in got if 'search_index' in o], sorted(got, key=lambda o: -o[1])[:5]

def ten_minutes(url, browser):
    "The page with the moving picture, a function that reads its state, and its errors"
    page,bad = opened(browser, viewport=dict(width=1280, height=900))
    page.goto(f'{url}/tutorials/ten_minutes.html')
    def _state():
        o = page.evaluate("({...document.querySelector('.gp-demo').dataset})")
        return {k: json.loads(v) for k,v in o.items()}
    return page,_state,bad

def by_hand(points, x):
    "Mean, standard deviation and Expected Improvement at `x` of the process in the picture"
    a,y = np.array(points).T
    def _k(a, b): return .25*matern52((a[:,None]-b)**2/.15**2)
    K,k = _k(a, a)+1e-4*np.eye(len(a)),_k(np.array([x]), a)[0]
    mean,sd = .3+k@np.linalg.solve(K, y-.3),(.25-k@np.linalg.solve(K, k))**.5
    z = (mean-y.max())/sd
    return mean, sd, sd*(z*norm.cdf(z)+norm.pdf(z))

def test_moving_picture_is_a_gaussian_process(url, browser):
    page,state,bad = ten_minutes(url, browser)
    for _ in range(3):
        o = state()
        assert np.allclose((o['mean'], o['sd'], o['ei']), by_hand(o['points'], o['next']), atol=1e-6)
        assert o['ei']>=max(by_hand(o['points'], x)[2] for x in np.linspace(.005, .995, 100))-1e-3
        page.click('.gp-demo .train')
    assert len(state()['points'])==6 and state()['best']>.8 and not bad
    page.click('.gp-demo .again')
    assert len(state()['points'])==3

def test_observations_are_dragged(url, browser):
    page,state,bad = ten_minutes(url, browser)
    dot,before = page.locator('.gp-demo circle').nth(1),state()
    dot.scroll_into_view_if_needed()
    box = dot.bounding_box()
    x,y = box['x']+box['width']/2,box['y']+box['height']/2
    page.mouse.move(x, y), page.mouse.down(), page.mouse.move(x+40, y-120, steps=4), page.mouse.up()
    after = state()
    moved = np.array(after['points'])-before['points']
    assert moved[1].min()>.03 and not moved[[0, 2]].any() and after['best']>before['best'] and after['next']!=before['next']
    dot.press('ArrowLeft')
    assert state()['points'][1][0]<after['points'][1][0] and not bad

def test_dark_and_light(url, browser):
    page,bad = opened(browser, viewport=dict(width=1280, height=900), color_scheme='light')
    page.goto(f'{url}/index.html')
    def colour(): return page.evaluate("getComputedStyle(document.body).backgroundColor")
    light = colour()
    page.locator('label[for=__palette_1]').click()
    assert light!=colour() and not bad
