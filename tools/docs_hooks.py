"What mkdocs does while building: menu and version, formulas as MathML, which browsers show without scripts or fonts, and a short search index"
import html, json, re
from pathlib import Path
from latex2mathml.converter import convert
from fastai_bayes import __version__

reference = 'learner/', 'results/', 'study/', 'engine/', 'all.html', 'ray.html'

def on_config(config):
    config['nav'] = json.loads((Path(config['docs_dir'])/'nav.json').read_text())
    config['site_name'] += f' {__version__}'
    return config

def on_post_build(config):
    "The search index without the code of the reference, which is most of it"
    fn = Path(config['site_dir'])/'search'/'search_index.json'
    index = json.loads(fn.read_text())
    for o in index['docs']:
        if o['location'].startswith(reference): o['text'] = re.sub('<pre.*?</pre>', '', o['text'], flags=re.S)
    short = json.dumps(index, ensure_ascii=False, separators=(',', ':'))
    fn.write_text(short)
    fn.with_suffix('.js').write_text(f'var __index = {short}')  # what a page asks for that is opened from a disk

def _math(m): return convert(html.unescape(m[2]).strip(), display='block' if m[1]=='div' else 'inline')

def on_page_content(content, **kwargs):
    content = re.sub(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', _math, content, flags=re.S)
    return re.sub(r'<table>.*?</table>', _wide, content, flags=re.S)

def _wide(m): return f'<div class="wide{" parameters" if "<th>Parameter</th>" in m[0] else ""}">{m[0]}</div>'
