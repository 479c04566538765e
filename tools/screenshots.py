"Pictures of the documentation and of a report for the README: docs/img/*.png. Needs `make docs` before, and Chromium"
import io, os, tempfile
from pathlib import Path
from PIL import Image
from browser import browsing, served

root = Path(__file__).resolve().parent.parent
shots = dict(start='index.html', tutorial='tutorials/first_tune.html#what-came-out', api='learner/tune.html#learner.bayes_tune')

def report(folder):
    "A report on a small study, in `folder`"
    import torch
    from fastai.vision.all import CrossEntropyLossFlat, DataLoaders, Learner, TfmdDL, accuracy, nn, tensor
    from sklearn.datasets import load_digits
    from torch.utils.data import TensorDataset, random_split
    import fastai_bayes.all  # noqa: F401  adds bayes_tune
    x,y = load_digits(return_X_y=True)
    trn,val = random_split(TensorDataset(tensor(x).float()/16, tensor(y)), [1297, 500], torch.Generator().manual_seed(0))
    dls = DataLoaders(TfmdDL(trn, bs=64, shuffle=True, num_workers=0), TfmdDL(val, bs=250, num_workers=0))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    learn = Learner(dls, model, loss_func=CrossEntropyLossFlat(), metrics=accuracy, path=folder)
    learn.bayes_tune(5, n_trials=20, study_name='digits', seed=0, verbose=False).report(Path(folder)/'report.html')

def shoot(browser, url, name):
    "Write docs/img/`name`.png, with few colours so that it is small"
    page = browser.new_page(viewport=dict(width=1280, height=860))
    page.goto(url)
    page.wait_for_timeout(500)  # the page scrolls to its anchor
    im = Image.open(io.BytesIO(page.screenshot()))
    im.quantize(64, dither=Image.Dither.NONE).save(root/'docs'/'img'/f'{name}.png', optimize=True)

def main():
    with tempfile.TemporaryDirectory() as d, browsing() as browser:
        with served(root/'_docs') as url:
            for name,page in shots.items(): shoot(browser, f'{url}/{page}', f'docs_{name}')
        report(d)
        with served(d) as url: shoot(browser, f'{url}/report.html', 'report')
    for o in sorted((root/'docs'/'img').glob('*.png')): print(o.name, os.path.getsize(o)//1000, 'kB')

if __name__=='__main__': main()
