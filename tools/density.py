"""How dense the package's code is, for each wing: tokens, tokens a line, crowded lines, wide lines, the longest function

    python tools/density.py [--check]

Comments, docstrings and the `__all__` that nbdev writes do not count, nor the arguments of a function for its length. A formula may crowd a line: crowded lines of engine have a bound
of their own. With `--check` the command fails if a bound is exceeded. Bounds are what holds today; they are lowered, and raised only for what is new: workers, limits, large files, recipes for all kinds, bands that hold, choices without order, trials that show what early epochs are worth, what an extended study resumes, what further runs may make the best, values far below all others, the range of a metric in every study, labels on two sides, bands with the noise of a value."""
import argparse, ast, io, sys, tokenize
from pathlib import Path

pkg = Path(__file__).resolve().parent.parent/'fastai_bayes'
crowded,wide = 30,120 # Tokens and columns from which on a line counts
bounds = dict(tokens=158_276, per_line=11.38, crowded=0, formulas=104, wide=0, longest=29) # Of the whole package
blank = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
defs = ast.FunctionDef, ast.AsyncFunctionDef

def docstring(node):
    "The expression that is the docstring of `node`, or None"
    o = node.body[0] if isinstance(node, (ast.Module, ast.ClassDef, *defs)) and node.body else None
    return o if isinstance(o, ast.Expr) and isinstance(getattr(o.value, 'value', None), str) else None

def body(f): return range(f.body[0].lineno, f.end_lineno+1)
def span(node): return range(node.lineno, node.end_lineno+1)

def names(tree):
    "Lines of `__all__`"
    found = [o for o in tree.body if isinstance(o, ast.Assign) and getattr(o.targets[0], 'id', None)=='__all__']
    return {i for o in found for i in span(o)}

def uncounted(tree):
    "Lines of docstrings and of `__all__`"
    docs = [o for n in ast.walk(tree) if (o := docstring(n))]
    return names(tree) | {i for o in docs for i in span(o)}

def tokens(src, skip):
    "Line -> number of its tokens; an f-string is one, as before Python 3.12"
    res,depth = {},0
    for t in tokenize.generate_tokens(io.StringIO(src).readline):
        kind = tokenize.tok_name[t.type]
        depth -= kind=='FSTRING_END'
        if not (t.type in blank or t.start[0] in skip or depth or kind=='FSTRING_END'): res[t.start[0]] = res.get(t.start[0], 0)+1
        depth += kind=='FSTRING_START'
    return res

def measure(fn):
    "What one module has: a dictionary"
    src = fn.read_text()
    tree = ast.parse(src)
    per = tokens(src, uncounted(tree))
    lengths = [(sum(i in per for i in body(n)), f'{fn.stem}.{n.name}') for n in ast.walk(tree) if isinstance(n, defs)]
    return dict(tokens=sum(per.values()), lines=len(per), crowded=sum(n>=crowded for n in per.values()),
                wide=sum(len(l)>wide for i,l in enumerate(src.splitlines(), 1) if i not in names(tree)), longest=max(lengths, default=(0, '')))

def total(rows):
    "Measures of several modules together"
    res = {k: sum(r[k] for r in rows) for k in ('tokens', 'lines', 'crowded', 'wide')}
    return dict(res, longest=max(r['longest'] for r in rows), per_line=res['tokens']/max(res['lines'], 1))

def wings():
    "Name of each wing, a folder of the package, -> measures; the modules at the top are the wing '.'"
    res = {}
    for fn in sorted(pkg.rglob('*.py')):
        if fn.stem!='_modidx': res.setdefault(fn.parent.relative_to(pkg).as_posix(), []).append(measure(fn))
    return {**{k: total(v) for k,v in res.items()}, 'all': total([o for v in res.values() for o in v])}

def exceeded(rows):
    "What in the measures `rows` of the wings exceeds its bound, in words"
    m,formulas = rows['all'],rows['engine']['crowded']
    got = {**m, 'longest': m['longest'][0], 'formulas': formulas, 'crowded': m['crowded']-formulas}
    return [f'{k}: {got[k]:.5g}, at most {most} wanted' for k,most in bounds.items() if got[k]>most]

def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--check', action='store_true')
    check,rows = p.parse_args().check,wings()
    print(f'{"wing":10} {"tokens":>7} {"lines":>6} {"a line":>6} {f">={crowded} tokens":>11} {f">{wide} columns":>12}  longest function')
    for k,m in rows.items():
        n,name = m['longest']
        print(f'{k:10} {m["tokens"]:7} {m["lines"]:6} {m["per_line"]:6.1f} {m["crowded"]:11} {m["wide"]:12}  {name} ({n})')
    bad = exceeded(rows)
    if check and bad: sys.exit('\n'.join(bad))

if __name__=='__main__': main()
