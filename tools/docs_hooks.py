"What mkdocs does while building: the menu that tools/docs.py found, and formulas as MathML, which browsers show without scripts or fonts"
import html, json, re
from pathlib import Path
from latex2mathml.converter import convert

def on_config(config):
    config['nav'] = json.loads((Path(config['docs_dir'])/'nav.json').read_text())
    return config

def _math(m): return convert(html.unescape(m[2]).strip(), display='block' if m[1]=='div' else 'inline')

def on_page_content(content, **kwargs):
    content = re.sub(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', _math, content, flags=re.S)
    return re.sub(r'<table>.*?</table>', _wide, content, flags=re.S)

def _wide(m): return f'<div class="wide{" parameters" if "<th>Parameter</th>" in m[0] else ""}">{m[0]}</div>'
