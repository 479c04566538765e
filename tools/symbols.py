"What the documentation says about functions and classes: signature, parameters with their comments, source"
import ast, importlib, inspect, re, textwrap
from fastcore.docments import docments

def _patched(node):
    "Name of the class that function `node` is patched into, or None"
    if not any(getattr(o, 'id', None)=='patch' for o in node.decorator_list) or not node.args.args: return None
    anno = node.args.args[0].annotation
    return getattr(anno, 'id', None)

def defined(src):
    "Names of the public functions, classes and patched methods that the code `src` defines, in order"
    for o in ast.parse(src).body:
        if not isinstance(o, (ast.FunctionDef, ast.ClassDef)) or o.name.startswith('_'): continue
        cls = _patched(o) if isinstance(o, ast.FunctionDef) else None
        yield f'{cls}.{o.name}' if cls else o.name

def resolve(module, name):
    "The object that is called `name` in `module`"
    res = importlib.import_module(module)
    for o in name.split('.'): res = inspect.getattr_static(res, o) if inspect.isclass(res) else getattr(res, o)
    return res

def _bare(o): return o.__func__ if isinstance(o, (classmethod, staticmethod)) else o.fget if isinstance(o, property) else getattr(o, 'func', o)

def methods(module, name):
    "Names of the public methods and properties in the body of class `name`; without docstring only if they are its own idea, and not a base's"
    cls = resolve(module, name)
    for k,v in vars(cls).items():
        if k.startswith('_') or getattr(_bare(v), '__qualname__', '')!=f'{name}.{k}': continue
        if inspect.getdoc(_bare(v)) or cls.__bases__==(object,): yield f'{name}.{k}'

def _show(o):
    "A default or an annotation as one would write it"
    s = getattr(o, '__name__', None) or inspect.formatannotation(o) if not isinstance(o, str) else o
    return re.sub(r'\b(fastai_bayes|__main__|typing|fastai|torch|optuna|numpy|pandas)\.([\w]+\.)*', '', s)

def _parameters(f):
    if inspect.isclass(f) and f.__init__ in (object.__init__, Exception.__init__): return []
    try: ps = [*inspect.signature(f).parameters.values()]
    except (TypeError, ValueError): return []
    return [p for i,p in enumerate(ps) if i or p.name!='self']

def _default(p):
    "The default of parameter `p` as one would write it"
    res = '' if p.default is p.empty else getattr(p.default, '__name__', None) or repr(p.default)
    return '...' if res.startswith('<') or len(res)>60 else res

def _named(p): return {p.VAR_POSITIONAL: '*', p.VAR_KEYWORD: '**'}.get(p.kind, '')+p.name

def signature(name, f):
    "Call of `f` in one line, or with a line for each parameter"
    if inspect.isclass(f) and issubclass(f, BaseException): return ''
    parts,star = [],False
    for p in _parameters(f):
        if p.kind==p.KEYWORD_ONLY and not star: parts.append('*')
        star = star or p.kind in (p.KEYWORD_ONLY, p.VAR_POSITIONAL)
        parts.append(_named(p) + (f'={_default(p)}' if _default(p) else ''))
    short = name.rsplit('.', 1)[-1] if '.' in name and name.split('.')[0]!='Learner' else name.replace('Learner.', 'learn.')
    return '\n'.join(textwrap.wrap(f'{short}({", ".join(parts)})', 84, subsequent_indent='    ', break_long_words=False, break_on_hyphens=False))

def _row(code, comment): return f"| `{code}` | {comment or ''} |".replace('\n', ' ')
def _typed(p):
    anno = '' if p.annotation is p.empty else f':{_show(p.annotation)}'
    default = f'={_default(p)}' if _default(p) else ''
    return (_named(p)+anno+default).replace('|', r'\|')

def parameters(f):
    "Table of the parameters of `f` and what it returns, with their comments"
    known = docments(f, full=True, args_kwargs=True)
    rows = [_row(_typed(p), (known.get(p.name) or {}).get('docment')) for p in _parameters(f)]
    ret = known.get('return') or {}
    if ret.get('docment'): rows.append(_row('return' if ret.anno in (None, inspect._empty) else f'->{_show(ret.anno)}', ret.docment))
    said = any(isinstance(o, dict) and o.get('docment') for o in known.values())
    return '\n'.join(['| Parameter | What it is |', '|---|---|', *rows]) if said else ''

def explanation(f):
    "The docstring of `f`, without the parameters, which have a table of their own"
    return (inspect.getdoc(f) or '').partition('\n\nParameters:\n')[0]

def line(o):
    "Number of the first line of `o` in its file"
    return inspect.getsourcelines(_bare(o))[1]
