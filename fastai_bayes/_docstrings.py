"An `export_procs` of nbdev: docstrings get the comments of their parameters, so that `help` and `?` show them"
import ast, io, textwrap, tokenize

_defs = ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef

def _comments(src):
    "Line -> text of its comment; and the lines without code"
    toks = tokenize.generate_tokens(io.StringIO(src).readline)
    found = [t for t in toks if t.type==tokenize.COMMENT]
    alone = {t.start[0] for t in found if t.line.strip()==t.string}
    return {t.start[0]: t.string.lstrip('# ') for t in found}, alone

def _arguments(f):
    "Line -> name of the argument of function `f` there, the last one if there are several"
    a = f.args
    pairs = (a.vararg, '*'),(a.kwarg, '**')
    stars = {o: star for o,star in pairs if o}
    args = [*a.posonlyargs, *a.args, *a.kwonlyargs, *stars]
    args.sort(key=lambda o: (o.lineno, o.col_offset))
    res = {o.lineno: stars.get(o, '')+o.arg
           for o in args if o.arg!='self'}
    end = f.returns.lineno if f.returns else f.body[0].lineno-1
    if end>=f.lineno: res.setdefault(end, 'returns')
    return res

def _params(o):
    "Line -> name of the parameter of a function, or of what makes a class"
    if not isinstance(o, ast.ClassDef): return _arguments(o)
    init = [m for m in o.body if getattr(m, 'name', '')=='__init__']
    if init: return _arguments(init[0])
    return {m.lineno: m.target.id for m in o.body if isinstance(m, ast.AnnAssign)}

def _explained(o, comments, alone):
    "`name: comment` for the parameters of `o` with a comment beside or above them"
    params = _params(o)
    for line,name in params.items():
        above = line
        own = {i for i in alone if i>o.lineno and i not in params}
        while line not in comments and above-1 in own: above -= 1
        text = ' '.join(comments[i] for i in range(above, line+1) if i in comments)
        if text: yield f'{name}: {text}'

def _public(body):
    "Public functions and classes in `body` that begin with a docstring, and such methods of these classes"
    for o in body:
        if not isinstance(o, _defs) or o.name.startswith('_'): continue
        if ast.get_docstring(o): yield o
        if isinstance(o, ast.ClassDef): yield from _public(o.body)

def _literal(doc, params, pad):
    "The docstring literal `doc` with the lines `params`, indented by `pad`"
    quote = '"""' if '"""' in doc else doc[-1]
    prefix,_,text = doc.partition(quote)
    wrap = textwrap.TextWrapper(100, pad+' '*4, pad+' '*8, break_on_hyphens=False)
    lines = [wrap.fill(o if prefix else o.replace('\\', r'\\')) for o in params]
    text = text[:-len(quote)].rstrip()
    return '\n'.join([f'{prefix}"""{text}\n', f'{pad}Parameters:', *lines, f'{pad}"""'])

def documented(src):
    "`src` with the comments of parameters in the docstrings of what is public"
    found,lines = _comments(src),src.split('\n')
    for o in reversed([*_public(ast.parse(src).body)]):
        doc,params = o.body[0],[*_explained(o, *found)]
        if not params: continue
        first,last,col = doc.lineno-1,doc.end_lineno-1,doc.col_offset
        before = lines[first].encode()[:col].decode()
        after = lines[last].encode()[doc.end_col_offset:].decode()
        new = _literal(ast.get_source_segment(src, doc), params, ' '*col)
        lines[first:last+1] = (before+new+after).split('\n')
    return '\n'.join(lines)

def with_parameters(cell):
    "Add the comments of parameters to the docstrings of an exported cell"
    exported = {'export', 'exports'} & set(cell.directives_)
    if cell.cell_type=='code' and exported: cell.set_source(documented(cell.source))
