"""Write the tables of benchmarks/results into README.md and the pages, where a comment asks for them, and draw docs/img/regret.png

    python tools/results.py

A table stands between `<!-- results: NAME -->` and `<!-- end -->`; `NAME 1` is the second one of the file, and
`NAME 0: a, b` has the first column and those called a and b. A paragraph of text with `<!-- from: NAME OTHER -->` at its
end has its numbers from these files; tests/test_results.py compares both. New files are written by benchmarks/save.py."""
import json, re
from functools import cache
from pathlib import Path

root = Path(__file__).resolve().parent.parent
_block = re.compile(r'<!-- results: (\w+)(?: (\d+))?(?:: ([^>]+))? -->\n.*?<!-- end -->', re.S)
_from = re.compile(r'<!-- from: ([\w ]+) -->')
_number = re.compile(r'(?<![\w.^-])\d[\d,]*(?:\.\d+)?(?!\w)')

@cache
def result(name): return json.loads((root/'benchmarks'/'results'/f'{name}.json').read_text())

def line(cells): return f"| {' | '.join(cells)} |"

def part(table, columns):
    "Rows of `table`, headers first, with its first column and those named in `columns`, all if None"
    names = table['columns']
    keep = range(len(names)) if columns is None else [0, *(names.index(o.strip()) for o in columns.split(','))]
    rows = [names, ['---']*len(names), *table['rows']]
    return [line([o[i] for i in keep]) for o in rows]

def block(name, i, columns, to):
    "A table with what it shows, how it was made, and the path `to` the root"
    res = result(name)
    t = res['tables'][i]
    made = f"`{res['command']}`, {res['date']}" + ('' if res['origin']=='run' else f", {res['origin']}")
    return '\n'.join([f"{t['title'].rstrip(':')}:", '', *part(t, columns), '', f"{made} ([file]({to}benchmarks/results/{name}.json))"])

def filled(text, to=''):
    "`text` with its tables as the files have them"
    def _new(m):
        head = m[0].splitlines()[0]
        return f'{head}\n\n{block(m[1], int(m[2] or 0), m[3], to)}\n\n<!-- end -->'
    return _block.sub(_new, text)

def places():
    "Files with text that people read"
    return [root/'README.md', *sorted(o for o in (root/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in o.parts and o.stem!='index')]

def texts(fn):
    "Pieces of Markdown of a file"
    if fn.suffix=='.md': return [fn.read_text()]
    return [''.join(c['source']) for c in json.loads(fn.read_text())['cells'] if c['cell_type']=='markdown']

def rewritten(fn):
    "The text of the file `fn` with its tables as the files have them"
    old = fn.read_text()
    if fn.suffix=='.md': return filled(old)
    nb,to = json.loads(old),'../'*len(fn.relative_to(root).parent.parts)
    found = [c for c in nb['cells'] if c['cell_type']=='markdown' and '<!-- results:' in ''.join(c['source'])]
    for c in found: c['source'] = filled(''.join(c['source']), to).splitlines(keepends=True)
    return json.dumps(nb, indent=1, ensure_ascii=False, sort_keys=True)+'\n' if found else old

# Numbers

def numbers(text): return [o.replace(',', '') for o in _number.findall(text)]

def known(names):
    "All numbers of these files"
    return [float(o) for name in names for o in numbers(json.dumps(result(name), ensure_ascii=False))]

def is_known(number, values):
    "Is `number` one of `values`, rounded to its digits?"
    digits = len(number.partition('.')[2])
    return any(abs(float(number)-o)<=.5*10**-digits*(1+1e-9) for o in values)

def paragraphs(text):
    "Paragraphs and items of lists, without the tables that are written here"
    return [o for o in re.split(r'\n\s*\n|\n(?=- )', _block.sub('', text)) if o.strip()]

def prose(text):
    "A paragraph without code, comments, and where links lead"
    return re.sub(r'<!--.*?-->|`[^`]*`|\]\([^)]*\)', '', text, flags=re.S)

def unknown(text):
    "Numbers of a paragraph that are in none of the files it names"
    m = _from.search(text)
    values = known(m[1].split())
    return [o for o in numbers(prose(text)) if not is_known(o, values)]

def is_claim(text):
    "Does a paragraph tell results of a benchmark?"
    exact = sum('.' in o for o in numbers(prose(text)))
    by_hand = text.lstrip().startswith('|') and exact>2  # a table that is not written here
    return by_hand or bool(exact and re.search(r'benchmarks/\w+\.py|standard error', text))

# The chart

shown = {  # method: name, colour, and points that the name is moved up
    'ours, without earlier studies': ('fastai_bayes', '#e07b00', 0), 'Optuna TPE + median': ('Optuna, TPE + median pruning', '#3a87c8', -6),
    'Optuna GPSampler, full trainings': ('Optuna, GPSampler', '#2f8f5b', 5), 'random, full trainings': ('random search', '#8c8c8c', 3)}

def chart(fn):
    "Mean regret with a standard error to both sides, against the epochs spent"
    import io
    import matplotlib.pyplot as plt
    from PIL import Image
    t = result('regret')['tables'][0]
    at = [float(o) for o in t['columns'][1:-1]]
    fig,ax = plt.subplots(figsize=(8.2, 3.6), layout='constrained')
    for method,*cells in t['rows']:
        name,color,up = shown[method]
        m,s = zip(*(map(float, re.findall(r'[\d.]+', o)) for o in cells[:-1]))
        ax.plot(at, m, color=color, lw=2.5, label=name)
        ax.fill_between(at, [a-b for a,b in zip(m, s)], [a+b for a,b in zip(m, s)], color=color, alpha=.18, lw=0)
        ax.annotate(name, (at[-1], m[-1]), (8, up), textcoords='offset points', color=color, va='center')
    ax.set(xscale='log', yscale='log', xlabel='epochs spent, in full trials', ylabel='mean regret (0 is the best)', xlim=(at[0], at[-1]))
    ax.set_title('20 data sets, 3 seeds; bands are standard errors to both sides', loc='left', fontsize=10)
    ax.set_yticks([1, .5, .2, .1, .05], ['1', '.5', '.2', '.1', '.05'])
    ax.set_xticks([1, 2, 5, 10, 20], ['1', '2', '5', '10', '20'])
    ax.minorticks_off()
    ax.spines[['top', 'right']].set_visible(False)
    file = io.BytesIO()
    fig.savefig(file, dpi=150)
    Image.open(file).convert('RGB').quantize(64, dither=Image.Dither.NONE).save(fn, optimize=True)

if __name__=='__main__':
    for fn in places(): fn.write_text(rewritten(fn))
    chart(root/'docs'/'img'/'regret.png')
