"Ways through the code, for the pages of nbs/explanations: a picture of the wings, and a table of functions with links"
import importlib, re
from pathlib import Path
import matplotlib.pyplot as plt
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch

nbs = Path(__file__).resolve().parent.parent/'nbs'
wings = dict(learner='#0072B2', results='#CC79A7', study='#009E73', engine='#D55E00') # From the top, with the colour of each
ink,grey,faint = '#222222','#555555','#999999'

def notebook(module):
    "Path below nbs of the notebook that is the source of `module`"
    path = importlib.import_module(f'fastai_bayes.{module}').__file__
    head = re.search(r'File to edit: (?:\.\./)+nbs/(\S+\.ipynb)', Path(path).read_text())
    return head[1]

def resolve(module, name):
    "The function that is called `name` in `module`; an AttributeError if there is none"
    o = importlib.import_module(f'fastai_bayes.{module}')
    for part in name.split('.'): o = getattr(o, part)
    return o

class Step:
    "A function on the way: `Step('study.sampler', 'BayesSampler.ask', 'what happens there')`"
    def __init__(self, module, name, text):
        o = resolve(module, name)
        own = getattr(getattr(o, 'fget', o), '__module__', None)
        if own!=f'fastai_bayes.{module}': raise AttributeError(f'{name} is in {own}, not in {module}')
        self.module,self.name,self.text = module,name,text
        self.has_anchor = bool(o.__doc__) and not re.search(r'(^|\.)_', name) # Is it explained on its page?
        self.wing = module.split('.')[0]

    def link(self):
        "Markdown link to its page"
        anchor = f'#{self.name.lower()}' if self.has_anchor else ''
        return f'[`{self.name}`](../{notebook(self.module)}{anchor})'

class Way:
    "`steps`, tuples of module, name and text, in the order in which they run"
    def __init__(self, *steps): self.steps = [Step(*o) for o in steps]

    def _repr_markdown_(self):
        rows = [f'| {i} | {o.link()} | `{o.module}` | {o.text} |' for i,o in enumerate(self.steps, 1)]
        return '\n'.join(['| | function | module | what it does |', '|---|---|---|---|', *rows])

    def _boxes(self):
        "Module -> its place from the left, and the numbered names of its functions"
        res = {}
        for i,o in enumerate(self.steps, 1):
            res.setdefault(o.module, (len(res), []))[1].append((i, o.name.split('.')[-1]))
        return res

    def plot(self):
        "The wings, the modules on the way, and arrows from each to the next"
        boxes = self._boxes()
        used = [o for o in wings if any(m.startswith(f'{o}.') for m in boxes)]
        tall = {w: max((len(f) for m,(_,f) in boxes.items() if m.startswith(f'{w}.')), default=0) for w in wings}
        heights = {w: .42+.19*tall[w]+.5*(tall[w]>0) for w in wings}
        n,step,width = len(boxes),1.72,1.52
        total = sum(heights.values())+.1*len(wings)
        fig,ax = plt.subplots(figsize=((n*step+.4)*.7, total*.7), dpi=110)
        fig.subplots_adjust(0, 0, 1, 1)
        ax.set(xlim=(-.1, n*step+.3), ylim=(0, total), aspect='equal')
        ax.axis('off')
        y,middle = total,{}
        for w,colour in wings.items():
            y -= heights[w]
            ax.add_patch(FancyBboxPatch((0, y), n*step+.2, heights[w], boxstyle='round,pad=0,rounding_size=.08', fc=colour, ec='none', alpha=.1 if w in used else .05))
            ax.text(.1, y+heights[w]-.09, w, color=colour, weight='bold', size=9, va='top')
            middle[w] = y+(heights[w]-.3)/2+.05
            y -= .1
        place = {}
        for m,(k,names) in boxes.items():
            w,file = m.split('.')
            h = .34+.19*len(names)
            x,y = .22+k*step,middle[w]-h/2
            ax.add_patch(FancyBboxPatch((x, y), width, h, boxstyle='round,pad=0,rounding_size=.06', fc='white', ec=wings[w], lw=1.3, zorder=3))
            ax.text(x+width/2, y+h-.07, file, color=wings[w], weight='bold', size=8, ha='center', va='top', zorder=4)
            for j,(i,name) in enumerate(names):
                yy = y+h-.34-.19*j
                ax.text(x+.12, yy-.008, f'{i}', color='white', size=6 if i<10 else 5, ha='center', va='center', zorder=6, weight='bold')
                ax.add_patch(Circle((x+.12, yy), .085, fc=wings[w], ec='none', zorder=5))
                size = min(7, 105/len(name))
                ax.text(x+.25, yy-.008, name, color=ink, size=size, va='center', zorder=4, family='monospace')
            place[m] = x,y,width,h
        seen = set()
        for a,b in zip(self.steps, self.steps[1:]):
            if a.module==b.module or (a.module, b.module) in seen: continue
            seen.add((a.module, b.module))
            ax.add_patch(arrow(place[a.module], place[b.module]))
        plt.close(fig)
        return fig

def arrow(a, b):
    "From box `a` to box `b`; the way back, to the left, is faint"
    (ax,ay,aw,ah),(bx,by,bw,bh) = a,b
    back,down,side = bx<ax,by<ay,.28 if bx>ax else -.28
    start = ax+aw/2+side,ay if down else ay+ah
    end = bx+bw/2-side,by+bh if down else by
    bend = .12 if down!=back else -.12
    if abs(ay+ah/2-by-bh/2)<.5: # The same wing: from side to side to a neighbour, else below
        near = not back and bx-ax<2*aw
        start,end = ((ax+aw, ay+ah/2),(bx, by+bh/2)) if near else ((ax+aw/2, ay),(bx+bw/2, by))
        bend = 0 if near else min(.12, .3*aw/abs(bx-ax))*(-1 if back else 1)
    look = dict(color=faint, lw=1, ls=(0, (4, 2))) if back else dict(color=grey, lw=1.2)
    return FancyArrowPatch(start, end, connectionstyle=f'arc3,rad={bend}', arrowstyle='-|>', mutation_scale=10, shrinkA=1, shrinkB=1, zorder=2, **look)
