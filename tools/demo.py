"""The moving picture of the README, docs/img/demo.webp: the live table of a real study, beside the value of each epoch

    OMP_NUM_THREADS=1 python tools/demo.py

The study is that of examples/digits.py, with the same seed. Each frame is one epoch, later on four, and the table has no reasons."""
import io, math, sys, tempfile
from copy import deepcopy
from pathlib import Path
import matplotlib
matplotlib.use('Agg')
import matplotlib.pyplot as plt
from matplotlib.font_manager import findfont, FontProperties
from PIL import Image, ImageDraw, ImageFont

root = Path(__file__).resolve().parent.parent
sys.path.append(str(root/'examples'))
import digits
from fastai_bayes.learner import runner
from fastai_bayes.learner.display import Silent, progress, status_rows
from fastai_bayes.results.style import blue, grey, orange
from fastai_bayes.results.tables import text_table

size,columns,rows,px = (1240, 452),88,11,13 # Of the picture; of the table, and of its letters
ink,paper = '#24292f','#ffffff'
line = 'res = learn.bayes_tune(5, space, budget=60)'
font,bold = (ImageFont.truetype(findfont(FontProperties(family='DejaVu Sans Mono', weight=o)), px) for o in ('normal', 'bold'))

class Recorder(Silent):
    "Keeps what the display is shown after each epoch"
    every = 0
    def __init__(self): self.seen = []
    def show(self, s):
        s = deepcopy(s)
        for o in s.trials: o['reason'] = ''
        self.seen.append(s)

def record():
    "A state of the display per epoch, and the last"
    recorder = Recorder()
    runner.view = lambda verbose: recorder
    dls,_ = digits.data()
    with tempfile.TemporaryDirectory() as tmp:
        digits.set_seed(0)
        def _make(p): return digits.learner(dls, p['arch'], tmp)
        digits.learner(dls, tmp=tmp).bayes_tune(5, digits.space, budget=60, seed=0, new_learner=_make)
    per_epoch = {s.spent: s for s in recorder.seen if s.running and s.running[0]['curve']}
    return [*per_epoch.values(), recorder.seen[-1]]

def colour(text):
    if text.strip().startswith('*'): return orange
    return blue if ' running ' in text else ink

def draw_table(im, s, x=20, wide=690):
    "The line, a bar, the progress, and the table of `s`"
    d = ImageDraw.Draw(im)
    d.text((x, 18), '>>> ', grey, font)
    d.text((x+d.textlength('>>> ', font), 18), line, ink, bold)
    d.rectangle((x, 50, x+wide, 58), '#eaeef2')
    d.rectangle((x, 50, x+round(wide*s.share), 58), blue)
    d.text((x, 70), ' | '.join(progress(s).split(' | ')[:4]), ink, font)
    for i,text in enumerate(text_table(status_rows(s, rows), columns)):
        d.text((x, 112+25*i), text, colour(text), font if i else bold)

def pieces(seen):
    "Epochs of each trial in a row: (number, epochs spent, values); one paused and resumed later has several"
    res = []
    for s in seen:
        o = s.running[0] if s.running else None
        if o is None: continue
        if not res or res[-1][0]!=o['number']: res.append((o['number'], [], []))
        res[-1][1].append(s.spent)
        res[-1][2].append(o['curve'][-1])
    return res

def draw_history(seen, total):
    "The value of each epoch so far, and the best, as a picture"
    fig,ax = plt.subplots(figsize=(6.4, 5.7), dpi=77, layout='constrained')
    now,best = seen[-1],math.nan
    xs,bests = [],[]
    complete = {o['number']: o['value'] for o in now.trials if o['state']=='complete'}
    parts = pieces(seen)
    last = {number: x[-1] for number,x,_ in parts}
    for number,x,y in parts:
        ax.plot(x, y, color=blue, lw=1.5, alpha=.7, zorder=2)
        full = number in complete and x[-1]==last[number]
        ax.plot(x[-1], y[-1], 'o', ms=7, mec=blue, mfc=blue if full else paper, zorder=3)
        for a,b in zip(x, y):
            best = max(b, best)  # the first comparison with NaN keeps the value
            xs.append(a), bests.append(best)
    ax.step(xs, bests, where='post', color=orange, lw=3, zorder=4)
    ax.plot([], [], color=orange, lw=3, label='best so far')
    ax.plot([], [], 'o', mec=blue, mfc=blue, label='complete')
    ax.plot([], [], 'o', mec=blue, mfc=paper, label='paused or stopped')
    ax.set(xlim=(0, total+2), ylim=(0, 1.02))
    ax.set_xlabel('epochs spent', fontsize=14, color=grey)
    ax.set_title('accuracy after each epoch', fontsize=14, loc='left', color=ink)
    ax.spines[['top', 'right']].set_visible(False)
    ax.tick_params(labelsize=12, colors=grey)
    fig.legend(frameon=False, fontsize=13, loc='outside lower center', ncols=3, columnspacing=1)
    file = io.BytesIO()
    fig.savefig(file)
    plt.close(fig)
    return Image.open(file).convert('RGB')

def frame(seen, total):
    im = Image.new('RGB', size, paper)
    draw_table(im, seen[-1])
    plot = draw_history(seen, total)
    im.paste(plot, (size[0]-plot.width-8, 8))
    ImageDraw.Draw(im).rectangle((0, 0, size[0]-1, size[1]-1), outline='#d0d7de', width=1)
    return im

def few_colours(frames):
    "`frames` in the colours of the last, so that the file is small"
    palette = frames[-1].quantize(16, dither=Image.Dither.NONE)
    return [o.quantize(palette=palette, dither=Image.Dither.NONE).convert('RGB') for o in frames]

def main():
    seen = record()
    shown = [*range(25), *range(25, len(seen)-1, 4), len(seen)-1]
    frames = few_colours([frame(seen[:i+1], seen[-1].spent) for i in shown])
    fn = root/'docs'/'img'/'demo.webp'
    frames[0].save(fn, save_all=True, append_images=frames[1:], duration=[150]*(len(frames)-1)+[4000], loop=0, lossless=True, method=6, quality=100)
    print(fn.name, len(frames), 'frames', fn.stat().st_size//1000, 'kB;', progress(seen[-1]))

if __name__=='__main__': main()
