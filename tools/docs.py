"""Write the pages of the documentation site, `_md`, from the notebooks, of which `mkdocs build` makes `_docs`; with `--index` only nbs/index.ipynb

The start page is README.md. Every other notebook is a page, and so are CONTRIBUTING.md and CHANGELOG.md; the folder says where a page stands in the menu: see `menu`.
"""
import ast, base64, inspect, json, os, re, shutil, sys
from functools import cached_property
from pathlib import Path
import fastai_bayes.all
from fastai_bayes.results.result import plots
from symbols import defined, explanation, line, methods, parameters, resolve, signature

root = Path(__file__).resolve().parent.parent
nbs,md,pkg = root/'nbs',root/'_md',root/'fastai_bayes'
menu = {  # heading -> folder of notebooks, headings of its parts, or a list of both
    'Get started': 'tutorials', 'Guides': ['guides', {'Coming from': 'coming_from'}], 'Examples': 'examples',
    'How it works': 'explanations', 'Benchmarks': 'benchmarks',
    'API': {'Learner': 'learner', 'Results': 'results', 'Study': 'study', 'Engine': 'engine'}, 'About': 'about'}
moved = {'..': 'about'}  # folder of files that are no notebooks -> where they stand in the menu
gallery = 'examples/gallery'  # the page to which links to the folder of examples lead

# Notebooks

def read(fn):
    "Cells of a notebook; a Markdown file is one cell"
    s = fn.read_text()
    return json.loads(s)['cells'] if fn.suffix=='.ipynb' else [dict(cell_type='markdown', source=s)]

def text(o): return o if isinstance(o, str) else ''.join(o)

def directives(src):
    "Directives of a cell, name -> value, and the source below them"
    lines,res = src.splitlines(),{}
    while lines and lines[0].startswith('#|'):
        name,_,value = lines.pop(0)[2:].strip().replace(':', ' ').partition(' ')
        res[name] = value.strip()
    return res,'\n'.join(lines).strip('\n')

class Page:
    "What the other pages must know of a notebook"
    def __init__(self, fn):
        self.fn,self.cells = fn,read(fn)
        self.path,folder = (os.path.relpath(o, nbs) for o in (fn, fn.parent))
        self.folder = moved.get(folder, folder)
        self.slug = re.sub(r'(^|/)\d+_', r'\1', self.path.rsplit('.', 1)[0]).removeprefix('../').lower()  # engine/00_space.ipynb -> engine/space
        srcs = [directives(text(c['source'])) for c in self.cells if c['cell_type']=='code']
        self.module = next((d['default_exp'] for d,_ in srcs if 'default_exp' in d), None)
        self.names = [n for d,s in srcs if d.keys()&{'export', 'exports'} for n in defined(s)] if self.module else []
        self.title = next((m[1] for c in self.cells if (m := re.match(r'# (.*)', text(c['source'])))), self.slug)

    @property
    def is_public(self):
        "Does the page explain something that people call, and not only an error?"
        called = [o for o in fastai_bayes.all.__all__ if not o.endswith('Error')]
        return any(o in called or o.startswith(('Learner.', 'TuneResult.')) for o in self.names)

    @cached_property
    def symbols(self):
        "All that is explained on the page"
        module = f'fastai_bayes.{self.module}'
        return [o for n in self.names for o in (n, *(methods(module, n) if inspect.isclass(resolve(module, n)) else ()))]

def pages():
    "Pages by path of the notebook below nbs, in the order of folders and numbers"
    res = [Page(o) for o in nbs.rglob('[!_.]*.ipynb') if '.ipynb_checkpoints' not in o.parts]
    res += [Page(root/o) for o in ('CHANGELOG.md', 'CONTRIBUTING.md')]
    return {o.path: o for o in sorted(res, key=lambda o: o.path)}

def navigation(pages):
    "The site's menu, as mkdocs wants it"
    def of(folder, internal=None):
        first = [{'Gallery': f'{gallery}.md'}] if folder==Path(gallery).parent.name else []
        shown = [o for o in pages.values() if o.folder==folder and internal in (None, not o.is_public)]
        return first + [{o.title: f'{o.slug}.md'} for o in shown]
    def entry(part):
        if isinstance(part, list): return [o for p in part for o in entry(p)]
        return of(part) if isinstance(part, str) else [{k: entry(v)} for k,v in part.items()]
    top = [o for o in pages.values() if o.folder=='.']
    start = [f'{o.slug}.md' for o in top if o.slug=='index']
    rest = [{o.title: f'{o.slug}.md'} for o in top if o.slug!='index']
    nav = [{'Start': o} for o in start] + [{k: entry(v)} for k,v in menu.items()]
    api = next(o for o in nav if 'API' in o)
    parts = [{heading: of(folder, internal) for heading,folder in menu['API'].items()} for internal in (False, True)]
    public,internal = ([{k: v} for k,v in o.items() if v] for o in parts)
    api['API'] = [*rest, *public, {'Internals': internal}]
    return [o for o in nav if all(o.values())]

# Cells

def fence(s, lang='', **opts):
    opts = ''.join(f' {k}="{v}"' for k,v in opts.items())
    return f'````{lang}{opts}\n{s.rstrip()}\n````'

def folded(s, title): return f'??? quote "{title}"\n\n' + '\n'.join(f'    {l}' if l else '' for l in s.splitlines())

def outside_code(f, s):
    "Apply `f` to the parts of Markdown `s` that are not fenced code"
    parts = re.split(r'(^```.*?^```[^\n]*$)', s, flags=re.M|re.S)
    return ''.join(o if i%2 else f(o) for i,o in enumerate(parts))

_callout = re.compile(r'^:::+ *\{\.callout-(\w+)[^}]*\}\n(.*?)^:::+ *$', flags=re.M|re.S)
_item = r'(?:[-*+]|\d+\.) '

def prose(s, ctx):
    "A Markdown cell as mkdocs wants it: links to pages, blank lines before lists, no dashes after headings"
    def fix(s):
        s = _callout.sub(lambda m: f'!!! {m[1]}\n\n' + ''.join(f'    {l}\n' for l in m[2].strip().splitlines()), s)
        s = re.sub(rf'^((?!\s*{_item})(?!\s*$)\S[^\n]*)\n(?={_item})', r'\1\n\n', s, flags=re.M)
        s = re.sub(r'^(#{2,} .*?) -$', lambda m: '' if m[1].lstrip('# ') in ctx.page.names else m[1], s, flags=re.M)
        s = re.sub(r'^( +)(?=[-*+] )', lambda m: m[1]*2, s, flags=re.M)
        return ctx.link(s)
    return outside_code(fix, s)

class Context:
    "What turning a cell into Markdown needs beside the cell: page, all pages, where symbols are"
    def __init__(self, page, pages):
        self.page,self.pages = page,pages
        self.where = {n: p for p in pages.values() for n in p.symbols}

    def to(self, path):
        "`path`, below the pages, as this page links to it"
        return os.path.relpath(path, Path(self.page.slug).parent)

    def symbol(self, m):
        "Link to the symbol that code in prose names; of methods only a learner's goes by its own name, as `after_fit` may be anyone's"
        if re.fullmatch('[a-z]+', m[1]): return m[0]
        name = m[1].removesuffix('()')
        full = next((o for o in (name, f"Learner.{name.removeprefix('learn.')}") if o in self.where), None)
        if full is None or self.where[full] is self.page: return m[0]
        return f'[`{m[1]}`]({self.to(self.where[full].slug)}.md#{full.lower()})'

    def link(self, s):
        "Links to notebooks and images of the repository become links to pages and copies; names of symbols become links"
        def target(m):
            if '://' in m[2]: return m[0]
            path = os.path.relpath(self.page.fn.parent/m[2], nbs)
            if path==Path(gallery).parent.name: return f'{m[1]}({self.to(gallery)}.md)'
            if path in self.pages: return f'{m[1]}({self.to(self.pages[path].slug)}.md{m[3] or ""})'
            return f'{m[1]}({self.file(m[2])})' if (self.page.fn.parent/m[2]).is_file() else m[0]
        s = re.sub(r'(\])\(([^)\s#]+)(#[^)\s]*)?\)', target, s)
        s = re.sub(r'(<script src=")([^"]+)', lambda m: m[1]+self.file(m[2]), s)
        return re.sub(r'^(?!#)(?:.*)$', lambda l: re.sub(r'(?<![\[`\w])`([\w.]+(?:\(\))?)`(?![`\]])', self.symbol, l[0]), s, flags=re.M)

    def file(self, path):
        "Copy of a file of the repository, an image for one, beside the pages"
        src = (self.page.fn.parent/path).resolve()
        dest = md/'files'/src.name
        dest.parent.mkdir(exist_ok=True)
        shutil.copy(src, dest)
        return self.to(f'files/{src.name}')

def joined(outputs):
    "`outputs` with what was printed in one go, though a notebook may keep it in pieces"
    res = []
    for o in outputs:
        if o['output_type']=='stream' and res and res[-1]['output_type']=='stream': res[-1] = {**o, 'text': text(res[-1]['text'])+text(o['text'])}
        else: res.append(o)
    return res

def printed(s):
    "A block of text; columns of a table stay side by side, other long lines wrap"
    lines = [o for o in s.splitlines() if o.strip()]
    aligned = sum(len(re.findall('  +', o.strip()))>1 for o in lines)>len(lines)/2
    dense = ' .dense' if max(map(len, lines), default=0)>100 else ''
    return fence(s, f' {{ .text .aligned{dense} }}' if aligned else '')

def pictured(src, said):
    "What a picture of the code `src` shows, in words: what its plot is for, or the sentence that ends in a colon before it"
    known = [plots[o].__doc__ for o in re.findall(r'\bplot_\w+', src) if o in plots]
    if known: return known[0].splitlines()[0]
    last = re.split(r'(?<=[.:])\s|\n\n', re.sub(r'[`*]', '', said).strip())[-1]
    return last[:-1] if re.fullmatch(r'[\w ,;.%\'()-]+:', last) else 'Plot of the code above'

def output(o, ctx, name, kind='.plot', seen='Plot of the code above'):
    "Markdown of one output of a cell; `name` for files, `kind` of an image and what is `seen` on it"
    if o['output_type']=='stream': return printed(text(o['text']))
    if o['output_type']=='error': return fence(f"{o['ename']}: {o['evalue']}")
    d = {k: text(v) for k,v in o['data'].items() if not k.endswith('json')}
    for mime,ext in (('image/svg+xml', 'svg'), ('image/png', 'png')):
        if mime not in d: continue
        fn = md/f'{ctx.page.slug}_files'/f'{name}.{ext}'
        fn.parent.mkdir(parents=True, exist_ok=True)
        fn.write_bytes(base64.b64decode(d[mime]) if ext=='png' else d[mime].encode())
        to = ctx.to(fn.relative_to(md))
        return f'[![{seen}]({to}){{ {kind} }}]({to})'  # a click shows it in full size
    if 'text/html' in d: return _html(d['text/html'])
    if 'text/markdown' in d: return ctx.link(d['text/markdown'])
    return printed(d.get('text/plain', '').replace('__main__.', ''))

def _html(s):
    "HTML of an output in one block, without the styles of notebooks; nothing if it shows nothing"
    s = re.sub(r'<style.*?</style>', '', s, flags=re.S)
    s = re.sub(r' border="1" class="dataframe"| class="fastprogress"', '', s)
    s = re.sub(r'\n\s*', ' ', s).strip()
    return f'<div class="output">{s}</div>' if re.sub(r'<[^>]*>', '', s).strip() or '<img' in s or '<svg' in s else ''

def symbol(name, ctx, level=3):
    "Signature, explanation, parameters and source of one symbol"
    module = f'fastai_bayes.{ctx.page.module}'
    o = resolve(module, name)
    f = getattr(o, '__func__', o.fget if isinstance(o, property) else getattr(o, 'func', o))
    head = f'{"#"*level} `{name}` {{ #{name.lower()} .symbol }}'
    where = f'[Source]({ctx.to(source_of(ctx.page.module))}#__codelineno-0-{line(o)}){{ .source }}'
    data = isinstance(o, property) or hasattr(o, 'func')
    res = [head, where, name.split('.')[-1] if data else signature(name, f), ctx.link(explanation(f)), parameters(f)]
    if res[2]: res[2] = fence(res[2], 'python')
    if inspect.isclass(o): res += [symbol(n, ctx, level+1) for n in methods(module, name)]
    return '\n\n'.join(o for o in res if o)

def _imports(src):
    "Modules that `src` imports, if it does nothing else"
    body = ast.parse(src).body
    if not all(isinstance(o, (ast.Import, ast.ImportFrom)) for o in body): return []
    return [getattr(o, 'module', None) or o.names[0].name for o in body]

def code(c, ctx, told, said=''):
    "Blocks of Markdown of a code cell; `told` if prose stands right before it, `said` is the last"
    d,src = directives(text(c['source']))
    if d.keys()&{'hide', 'default_exp', 'exporti'} or d.get('include')=='false' or not src: return
    if d.keys()&{'export', 'exports'}:
        yield from (symbol(n, ctx) for n in defined(src))
        imports = _imports(src)
        if not imports: yield folded(fence(src, 'python'), 'Code')
        elif told and all(o.startswith('fastai') for o in imports): yield fence(src, 'python')
    elif not d.keys()&{'hide_input'} and d.get('echo')!='false': yield fence(src, 'python')
    if 'hide_output' in d or d.get('output')=='false': return
    for i,o in enumerate(joined(c['outputs'])): yield output(o, ctx, f"{c['id']}-{i}", kind(src), d.get('fig-alt') or pictured(src, said))

def kind(src):
    "Classes of a picture of the code `src`: lines and dots may be inverted on dark pages, photos not"
    return '.plot .drawn' if re.search(r'plot|plt\.|new_ax', src) else '.plot'

written = 'tutorials', 'guides', 'coming_from', 'about', 'explanations', 'benchmarks', 'examples'  # found before the reference, in this order

def front(page):
    "What mkdocs must know of a page: the start page has no menus, and pages that are written are found before the reference"
    if page.slug=='index': return '---\nhide: [navigation, toc]\n---'
    if page.folder in written: return f'---\nsearch:\n  boost: {4-written.index(page.folder)/2:g}\n---'

def page(ctx):
    "Markdown of a page"
    res,told,said = [],False,''
    for c in ctx.page.cells:
        if c['cell_type']=='code': res += code(c, ctx, told, said)
        elif c['cell_type']=='markdown':
            said = text(c['source'])
            s = prose(said, ctx)
            if not res: s = re.sub(r'^> (.*?)(\n- [\w-]+:.*)*\Z', r'\1\n{: .lead }', s, flags=re.M)
            res.append(s)
        told = c['cell_type']=='markdown'
    if (head := front(ctx.page)): res.insert(0, head)
    if ctx.page.module: res.insert(1, f'`from fastai_bayes.{ctx.page.module} import *`')
    return '\n\n'.join(o for o in res if o) + '\n'

def source_of(module): return f"source/{module.replace('.', '/')}.md"

def source_page(module):
    "A page with the code of a module, for the links to it"
    src = (pkg/f"{module.replace('.', '/')}.py").read_text()
    return f'---\nsearch:\n  exclude: true\nhide: [toc]\n---\n# {module}.py\n\n' + fence(src, 'python', linenums=1) + '\n'

def picture(page):
    "The first picture of a page, as bytes of a PNG, and its kind"
    outputs = ((o.get('data', {}), c) for c in page.cells for o in c.get('outputs', ()))
    png,src = next((o['image/png'], c['source']) for o,c in outputs if 'image/png' in o)
    return base64.b64decode(text(png)), kind(text(src))

def gallery_page(pages):
    "Markdown of a page with a picture of each example, which leads there"
    res = ['# Examples', 'One page for each kind of data, to copy from.\n{: .lead }', '<div class="gallery" markdown>']
    folder = Path(gallery).parent
    for o in pages.values():
        if o.folder!=folder.name: continue
        name = Path(o.slug).name
        png,classes = picture(o)
        put(folder/f'gallery_files/{name}.png', png)
        lead = next(m[1] for c in o.cells if (m := re.search('^> (.*)', text(c['source']), re.M)))
        res.append(f'[![{o.title}](gallery_files/{name}.png){{ {classes} }} **{o.title}**<br>{lead}]({name}.md)')
    return '\n\n'.join([*res, '</div>'])+'\n'

# All of it

def index():
    "Cells of nbs/index.ipynb: one for each section of README.md"
    def target(m):
        path = m[1].removeprefix('nbs/') if m[1].startswith('nbs/') else f'../{m[1]}'
        return f"]({'00_all.ipynb' if m[1]=='nbs' else path})"
    s = re.sub(r'\]\((?!https?:|#)([^)]+)\)', target, (root/'README.md').read_text())
    parts = re.split(r'\n(?=## )', s)
    return [dict(cell_type='markdown', id=f'readme{i}', metadata={}, source=o.strip('\n').splitlines(keepends=True)) for i,o in enumerate(parts)]

def write_index():
    meta = json.loads((nbs/'00_all.ipynb').read_text())
    nb = {**meta, 'cells': index()}
    (nbs/'index.ipynb').write_text(json.dumps(nb, indent=1, ensure_ascii=False, sort_keys=True)+'\n')

def put(path, text):
    "Write `text`, or bytes, to `path` below the pages"
    (md/path).parent.mkdir(parents=True, exist_ok=True)
    (md/path).write_bytes(text.encode() if isinstance(text, str) else text)

def main():
    write_index()
    shutil.rmtree(md, ignore_errors=True)
    ps = pages()
    for p in ps.values():
        put(f'{p.slug}.md', page(Context(p, ps)))
        if p.module: put(source_of(p.module), source_page(p.module))
    put(f'{gallery}.md', gallery_page(ps))
    put('nav.json', json.dumps(navigation(ps)))
    shutil.copy(root/'tools'/'docs.css', md/'docs.css')

if __name__=='__main__': write_index() if '--index' in sys.argv else main()
