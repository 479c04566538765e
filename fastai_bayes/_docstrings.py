"An `export_procs` of nbdev: docstrings get the comments of their parameters, so that `help` and `?` show them"
import ast, io, textwrap, tokenize

_defs = ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef

def _comments(src):
    "Line -> text of its comment"
    toks = tokenize.generate_tokens(io.StringIO(src).readline)
    return {t.start[0]: t.string.lstrip('# ') for t in toks if t.type==tokenize.COMMENT}

def _params(o):
    "Line -> name of the parameter there, of a function or of what makes a class; the last one if there are several"
    if isinstance(o, ast.ClassDef):
        init = [m for m in o.body if getattr(m, 'name', '')=='__init__']
        return _params(init[0]) if init else {m.lineno: m.target.id for m in o.body if isinstance(m, ast.AnnAssign)}
    a,stars = o.args,{}
    if a.vararg: stars[a.vararg] = '*'
    if a.kwarg: stars[a.kwarg] = '**'
    args = sorted([*a.posonlyargs, *a.args, *a.kwonlyargs, *stars], key=lambda p: (p.lineno, p.col_offset))
    res = {p.lineno: stars.get(p, '')+p.arg for p in args}
    res.setdefault(o.returns.lineno if o.returns else o.body[0].lineno-1, 'returns')
    return res

def _explained(o, comments):
    "`name: comment` for the parameters of `o` with a comment beside or above them"
    params = _params(o)
    for line,name in params.items():
        above = line
        while line not in comments and above-1 in comments and above-1 not in params: above -= 1
        said = [comments[i] for i in range(above, line+1) if i in comments]
        if said: yield f'{name}: {" ".join(said)}'

def _public(body):
    "Public functions and classes in `body` that begin with a docstring, and such methods of these classes"
    for o in body:
        if not isinstance(o, _defs) or o.name.startswith('_'): continue
        if ast.get_docstring(o): yield o
        if isinstance(o, ast.ClassDef): yield from _public(o.body)

def _literal(text, said, pad):
    "The docstring `text`, as it is in the source, with the lines `said`"
    quote = '"""' if '"""' in text else text[-1]
    start = text.index(quote)
    def wrap(o): return textwrap.fill(o, 100, initial_indent=f'{pad}    ', subsequent_indent=f'{pad}        ', break_on_hyphens=False)
    lines = [wrap(o) if 'r' in text[:start] else wrap(o).replace('\\', r'\\') for o in said]
    return '\n'.join([f'{text[:start]}"""{text[start+len(quote):-len(quote)].rstrip()}', '', f'{pad}Parameters:', *lines, f'{pad}"""'])

def documented(src):
    "`src` with the comments of parameters in the docstrings of what is public"
    comments,lines = _comments(src),src.split('\n')
    for o in reversed([*_public(ast.parse(src).body)]):
        doc,said = o.body[0],[*_explained(o, comments)]
        if not said: continue
        first,last = doc.lineno-1,doc.end_lineno-1
        before = lines[first].encode()[:doc.col_offset].decode()
        after = lines[last].encode()[doc.end_col_offset:].decode()
        new = _literal(ast.get_source_segment(src, doc), said, ' '*doc.col_offset)
        lines[first:last+1] = (before+new+after).split('\n')
    return '\n'.join(lines)

def with_parameters(cell):
    "Add the comments of parameters to the docstrings of an exported cell"
    if cell.cell_type=='code' and {'export', 'exports'} & set(cell.directives_): cell.set_source(documented(cell.source))
