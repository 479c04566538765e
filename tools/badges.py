"The badges of the README, docs/img/badge_*.svg, from setup.cfg and the version: pictures of our own, as those of other hosts say who reads the page"
import ast, re
from configparser import ConfigParser
from pathlib import Path
from xml.sax.saxutils import escape

root = Path(__file__).resolve().parent.parent

def facts():
    "Text of each badge"
    cfg = ConfigParser()
    cfg.read(root/'setup.cfg')
    pythons = re.findall(r'Python :: (3\.\d+)', cfg['metadata']['classifiers'])
    body = ast.parse((root/'fastai_bayes'/'__init__.py').read_text()).body
    version = next(o.value.value for o in body if isinstance(o, ast.Assign) and o.targets[0].id=='__version__')
    return dict(version=version, python=f'{pythons[0]} to {pythons[-1]}', licence=cfg['metadata']['license'],
                tests='on every push')

def badge(name, text):
    a,b = (12+round(6.6*len(o)) for o in (name, text))
    return f'''<svg xmlns="http://www.w3.org/2000/svg" width="{a+b}" height="20" role="img" aria-label="{name}: {escape(text)}">
<rect width="{a+b}" height="20" rx="3" fill="#555"/><path d="M{a} 0h{b-3}a3 3 0 0 1 3 3v14a3 3 0 0 1-3 3H{a}z" fill="#3a6ea5"/>
<g fill="#fff" text-anchor="middle" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">
<text x="{a/2:g}" y="14">{name}</text><text x="{a+b/2:g}" y="14">{escape(text)}</text></g></svg>
'''

def badges(): return {f'badge_{k}.svg': badge(k, v) for k,v in facts().items()}

if __name__=='__main__':
    for name,svg in badges().items(): (root/'docs'/'img'/name).write_text(svg)
