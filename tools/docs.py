"""Write the pages of the documentation site, `_md`, from the notebooks, of which `mkdocs build` makes `_docs`; with `--index` only nbs/index.ipynb

The start page is README.md. Every other notebook is a page, grouped by its number: see `groups`.
"""
import ast, base64, inspect, json, re, shutil, sys
from functools import cached_property
from pathlib import Path
from symbols import defined, explanation, line, methods, parameters, resolve, signature

root = Path(__file__).resolve().parent.parent
nbs,md,pkg = root/'nbs',root/'_md',root/'fastai_bayes'
groups = {  # what a notebook's number says; those that make a module are API, by floors, whatever their number
    'Start': 'index', 'Tutorials': '4', 'Applications': '03', 'Explanations': '5[1-4]|50', 'How-to': '7',
    'API': {'Mathematics': '0', 'Bookkeeping': '1', 'fastai': '[23]'}, 'Limits and peers': '5[5-9]|6', 'More': ''}

# Notebooks

def read(fn): return json.loads(fn.read_text())['cells']
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
        self.fn,self.cells,self.slug = fn,read(fn),re.sub(r'^\d+\w?_', '', fn.stem)
        self.number = re.match(r'\d*', fn.stem)[0]
        srcs = [directives(text(c['source'])) for c in self.cells if c['cell_type']=='code']
        self.module = next((d['default_exp'] for d,_ in srcs if 'default_exp' in d), None)
        self.names = [n for d,s in srcs if d.keys()&{'export', 'exports'} for n in defined(s)] if self.module else []
        self.title = next((m[1] for c in self.cells if (m := re.match(r'# (.*)', text(c['source'])))), self.slug)

    @cached_property
    def symbols(self):
        "All that is explained on the page"
        module = f'fastai_bayes.{self.module}'
        return [o for n in self.names for o in (n, *(methods(module, n) if inspect.isclass(resolve(module, n)) else ()))]

def pages():
    "Pages by name of the notebook, in the order of their numbers: 045 is between 04 and 05"
    res = [Page(o) for o in nbs.glob('[!_.]*.ipynb')]
    for o in res:
        if not o.module and any(o.slug==p.slug for p in res if p is not o): o.slug = o.fn.stem  # 032_tables beside the module tables
    return {o.fn.name: o for o in sorted(res, key=lambda o: (o.number or '~', o.fn.name))}

def navigation(pages):
    "The site's menu, as mkdocs wants it"
    left,nav = [o for o in pages.values() if not o.module],[]
    def take(ps, pat):
        res = [o for p in pat.split('|') for o in ps if re.match(p, o.fn.stem)]
        for o in res: ps.remove(o)
        return [{o.title: f'{o.slug}.md'} for o in res]
    for group,pat in groups.items():
        mods = [o for o in pages.values() if o.module]
        if group=='Start': nav += [{group: f} for o in take(left, pat) for f in o.values()]
        elif isinstance(pat, dict): nav.append({group: [{floor: take(mods, p)} for floor,p in pat.items()]})
        elif sub := take(left, pat): nav.append({group: sub})
    return nav

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
        for n,p in list(self.where.items()): self.where.setdefault(n.rsplit('.', 1)[-1], p)

    def symbol(self, m):
        "Link to the symbol that code in prose names; plain words such as `fit` may mean anything"
        if re.fullmatch('[a-z]+', m[1]): return m[0]
        name = m[1].removesuffix('()').removeprefix('learn.')
        page = self.where.get(name, self.page)
        if page is self.page: return m[0]
        full = next(n for n in page.symbols if n==name or n.endswith(f'.{name}'))
        return f'[`{m[1]}`]({page.slug}.md#{full.lower()})'

    def link(self, s):
        "Links to notebooks and images of the repository become links to pages and copies; names of symbols become links"
        def target(m):
            name,hash = m[2].rsplit('/', 1)[-1],m[3] or ''
            if '://' in m[2]: return m[0]
            if name in self.pages: return f'{m[1]}({self.pages[name].slug}.md{hash})'
            return m[0] if name.endswith('.ipynb') else f'{m[1]}({self.image(m[2])})'
        s = re.sub(r'(\])\(([^)\s#]+\.(?:ipynb|png|svg|jpg))(#[^)\s]*)?\)', target, s)
        return re.sub(r'^(?!#)(?:.*)$', lambda l: re.sub(r'(?<![\[`\w])`([\w.]+(?:\(\))?)`(?![`\]])', self.symbol, l[0]), s, flags=re.M)

    def image(self, path):
        "Copy of an image of the repository, beside the pages"
        src = (self.page.fn.parent/path).resolve()
        dest = md/'img'/src.name
        dest.parent.mkdir(exist_ok=True)
        shutil.copy(src, dest)
        return f'img/{src.name}'

def joined(outputs):
    "`outputs` with what was printed in one go, though a notebook may keep it in pieces"
    res = []
    for o in outputs:
        if o['output_type']=='stream' and res and res[-1]['output_type']=='stream': res[-1] = {**o, 'text': text(res[-1]['text'])+text(o['text'])}
        else: res.append(o)
    return res

def output(o, ctx, name):
    "Markdown of one output of a cell; `name` for files"
    if o['output_type']=='stream': return fence(text(o['text']))
    if o['output_type']=='error': return fence(f"{o['ename']}: {o['evalue']}")
    d = {k: text(v) for k,v in o['data'].items() if not k.endswith('json')}
    for mime,ext in (('image/svg+xml', 'svg'), ('image/png', 'png')):
        if mime not in d: continue
        fn = md/f'{ctx.page.slug}_files'/f'{name}.{ext}'
        fn.parent.mkdir(exist_ok=True)
        fn.write_bytes(base64.b64decode(d[mime]) if ext=='png' else d[mime].encode())
        return f'![Plot of the code above]({fn.parent.name}/{fn.name}){{ .plot }}'
    if 'text/html' in d: return _html(d['text/html'])
    return d['text/markdown'] if 'text/markdown' in d else fence(d.get('text/plain', '').replace('__main__.', ''))

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
    where = f'[Source](source/{ctx.page.module}.md#__codelineno-0-{line(o)}){{ .source }}'
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

def code(c, ctx, told):
    "Blocks of Markdown of a code cell; `told` if prose stands right before it"
    d,src = directives(text(c['source']))
    if d.keys()&{'hide', 'default_exp', 'exporti'} or d.get('include')=='false' or not src: return
    if d.keys()&{'export', 'exports'}:
        yield from (symbol(n, ctx) for n in defined(src))
        imports = _imports(src)
        if not imports: yield folded(fence(src, 'python'), 'Code')
        elif told and all(o.startswith('fastai') for o in imports): yield fence(src, 'python')
    elif not d.keys()&{'hide_input'} and d.get('echo')!='false': yield fence(src, 'python')
    if 'hide_output' in d or d.get('output')=='false': return
    for i,o in enumerate(joined(c['outputs'])): yield output(o, ctx, f"{c['id']}-{i}")

def page(ctx):
    "Markdown of a page"
    res,told = [],False
    for c in ctx.page.cells:
        if c['cell_type']=='code': res += code(c, ctx, told)
        elif c['cell_type']=='markdown':
            s = prose(text(c['source']), ctx)
            if not res: s = re.sub(r'^> (.*?)(\n- [\w-]+:.*)*\Z', r'\1\n{: .lead }', s, flags=re.M)
            res.append(s)
        told = c['cell_type']=='markdown'
    if ctx.page.module: res.insert(1, f'`from fastai_bayes.{ctx.page.module} import *`')
    return '\n\n'.join(o for o in res if o) + '\n'

def source_page(module):
    "A page with the code of a module, for the links to it"
    src = (pkg/f'{module}.py').read_text()
    return f'---\nsearch:\n  exclude: true\nhide: [toc]\n---\n# {module}.py\n\n' + fence(src, 'python', linenums=1) + '\n'

# All of it

def index():
    "Cells of nbs/index.ipynb: one for each section of README.md"
    s = (root/'README.md').read_text().replace('](nbs/', '](').replace('](nbs)', '](30_all.ipynb)')
    s = re.sub(r'\]\((?!https?:|#|[\w.]+\.ipynb)([^)]+)\)', r'](../\1)', s)
    parts = re.split(r'\n(?=## )', s)
    return [dict(cell_type='markdown', id=f'readme{i}', metadata={}, source=o.strip('\n').splitlines(keepends=True)) for i,o in enumerate(parts)]

def write_index():
    meta = json.loads((nbs/'30_all.ipynb').read_text())
    nb = {**meta, 'cells': index()}
    (nbs/'index.ipynb').write_text(json.dumps(nb, indent=1, ensure_ascii=False, sort_keys=True)+'\n')

def main():
    write_index()
    shutil.rmtree(md, ignore_errors=True)
    (md/'source').mkdir(parents=True)
    ps = pages()
    for p in ps.values(): (md/f'{p.slug}.md').write_text(page(Context(p, ps)))
    for p in ps.values():
        if p.module: (md/'source'/f'{p.module}.md').write_text(source_page(p.module))
    (md/'nav.json').write_text(json.dumps(navigation(ps)))
    shutil.copy(root/'tools'/'docs.css', md/'docs.css')

if __name__=='__main__': write_index() if '--index' in sys.argv else main()
