"""Loaders of folds, from those of every application of fastai, with real data: who is validated when, with which transforms, and what cannot be split"""
import pytest
from fastai.callback.data import PartialDL, WeightedDL
from fastai.tabular.all import TabularDataLoaders
from sklearn.datasets import load_wine
from sklearn.model_selection import GroupKFold, KFold, StratifiedKFold, TimeSeriesSplit
from torch.utils.data import IterableDataset, SubsetRandomSampler, WeightedRandomSampler, random_split
from test_applications import Few, apps, image, images, label, made
from tuning import *
from fastai_bayes.all import *
from fastai_bayes.learner.copies import clone, seeded
from fastai_bayes.learner.folds import fold_loaders
from fastai_bayes.learner.loaders import seeded_loaders, with_bs

def keys(ds):
    "What tells the items of a dataset apart"
    if isinstance(ds, torch.utils.data.Subset): return list(ds.indices)
    return list(ds.items.index) if isinstance(ds.items, pd.DataFrame) else list(ds.items)

def form(dl):
    "Types of a batch and shapes of its items; texts are padded to the longest of a batch"
    b = dl.one_batch() if hasattr(dl, 'one_batch') else first(dl)
    def _form(o): return type(o),o.dtype,o.device,o.ndim if o.dtype==torch.int64 else o.shape[1:]
    return [_form(o) for o in flatten(b)]

def flatten(o): return [p for q in o for p in flatten(q)] if isinstance(o, (tuple, list)) else [o]

def settings(dl):
    names = 'bs batch_size shuffle drop_last num_workers device indexed seq_len pin_memory'.split()
    return type(dl), {k: getattr(dl, k, None) for k in names}, [type(f) for f in getattr(getattr(dl, 'after_batch', None), 'fs', ())]

@pytest.mark.parametrize('app', apps)
def test_each_item_is_validated_once(tmp_path, app):
    learn = made(app, tmp_path)
    dls = learn.dls
    with seeded_loaders(dls, 0): forms = [form(o) for o in dls.loaders]
    was,state = picture(learn),process()
    folds = fold_loaders(dls, 4, seed=1)
    everything = sorted(keys(dls.train_ds)+keys(dls.valid_ds)) if app!='torch_loaders' else list(range(160))
    seen = []
    for fold in folds:
        train,valid = map(keys, (fold.train_ds, fold.valid_ds))
        assert not set(train)&set(valid) and sorted(train+valid)==everything
        assert type(fold) is type(dls) and fold.path==dls.path and settings(fold.train)==settings(dls.train) and settings(fold.valid)==settings(dls.valid)
        seen += valid
    assert sorted(seen)==everything and len(folds)==4
    assert same(was, picture(learn)) and state==process()
    with seeded_loaders(fold, 0): assert [form(o) for o in fold.loaders]==forms
    c = clone(learn)
    c.dls = fold
    with c.no_bar(), c.no_logging(): c.fit(1, cbs=Few())
    assert np.isfinite(c.recorder.values[-1][1])

@pytest.mark.parametrize('app', ['classification', 'tabular_classes', 'text_classes', 'language_model', 'plain'])
def test_another_batch_size_and_seeds(tmp_path, app):
    "Folds repeat themselves, also with another batch size"
    learn = made(app, tmp_path)
    def losses():
        with seeded(3):
            c = clone(learn)
            c.dls = with_bs(fold_loaders(learn.dls, 3)[2], 4)
            with seeded_loaders(c.dls, 3), c.no_bar(), c.no_logging(): c.fit(1, cbs=Few())
        assert c.dls.train.bs==4
        return [float(o) for o in c.recorder.losses]
    assert losses()==losses()

def test_transforms_for_training_apply_to_training_items_only(tmp_path):
    "Validation items are as in the original data; of those for training each pass sees another picture"
    dls = images(tmp_path, CategoryBlock, label, n=48, batch_tfms=aug_transforms(size=32, max_warp=0., p_affine=1., p_lighting=1.))
    fold = fold_loaders(dls, 3)[0]
    def pictures(dl): return torch.cat([o[0] for o in dl])
    want = torch.stack([tensor(image(i)).permute(2, 0, 1)/255. for i in fold.valid_ds.items])
    assert set(fold.valid_ds.items)&set(dls.train_ds.items) and torch.allclose(pictures(fold.valid), TensorImage(want), atol=1e-6)
    still = fold.train.new(shuffle=False, drop_last=False)
    a,b = pictures(still),pictures(still)
    assert set(fold.train_ds.items)&set(dls.valid_ds.items) and all((a[i]!=b[i]).any() for i in range(len(a)))

def test_rows_are_as_the_learner_has_them(tmp_path):
    "Statistics of tables stay those of the learner's own training part"
    dls = made('tabular_classes', tmp_path).dls
    rows = pd.concat([dls.train_ds.items, dls.valid_ds.items])
    for fold in fold_loaders(dls, 3):
        for ds in (fold.train_ds, fold.valid_ds): assert ds.items.equals(rows.loc[ds.items.index]) and all(p is q for p,q in zip(ds.procs.fs, dls.procs.fs, strict=True))
    to = fold.test_dl(load_wine(as_frame=True).frame.iloc[:3].assign(color_intensity='5.0'))
    assert len(to.one_batch()[0])==3

def test_classes_have_the_same_shares(tmp_path):
    "As near as their numbers allow: each class is in each fold, once more or less at most"
    dls = DataBlock((TransformBlock, CategoryBlock), get_x=lambda i: x[i], get_y=label, splitter=RandomSplitter(.3, seed=0)).dataloaders(range(500), bs=64)
    counts = np.array([np.bincount(y[list(o.valid_ds.items)], minlength=10) for o in fold_loaders(dls, 7)])
    assert np.ptp(counts, axis=0).max()<=1 and np.ptp(counts.sum(1))<=1
    assert (counts.sum(0)==np.bincount(y[:500])).all()
    for o in (digits(tmp_path).dls, DataLoaders(*[TfmdDL(list(zip(x[s], y[s])), bs=32) for s in (slice(160), slice(160, 260))])):
        got = fold_loaders(o, 4)
        counts = np.array([np.bincount([int(b[1]) for b in f.valid_ds], minlength=10) for f in got])
        assert np.ptp(counts, axis=0).max()<=1

def test_a_seed_and_a_splitter_of_scikit_learn(tmp_path):
    "The splits are those of scikit-learn, of the items in their original order"
    items = list(range(100, 200))
    dls = DataBlock((TransformBlock, CategoryBlock), get_x=lambda i: x[i], get_y=label, splitter=RandomSplitter(.3, seed=0)).dataloaders(items, bs=16)
    for splitter in (StratifiedKFold(3), KFold(4), StratifiedKFold(3, shuffle=True, random_state=5)):
        want = splitter.split(np.zeros(100), y[items])
        for fold,(train,valid) in zip(fold_loaders(dls, splitter), want, strict=True):
            assert list(fold.train_ds.items)==[items[i] for i in train] and list(fold.valid_ds.items)==[items[i] for i in valid]
    def parts(*args, **kwargs): return [list(o.valid_ds.items) for o in fold_loaders(dls, *args, **kwargs)]
    assert parts(3)==parts(3)!=parts(3, seed=1)
    assert parts(KFold(3, shuffle=True), seed=4)==parts(KFold(3, shuffle=True), seed=4)  # it has no seed of its own

def pictures(split=None, n=60):
    return DataBlock((TransformBlock, CategoryBlock), get_x=lambda i: x[i], get_y=label, splitter=split or RandomSplitter(.3, seed=0)).dataloaders(range(n), bs=8)

@pytest.mark.parametrize('folds', [4, GroupKFold(4)])
def test_groups_are_not_separated(tmp_path, folds):
    rng = np.random.default_rng(0)
    dls,writer = pictures(),rng.integers(0, 13, 60)
    rows = load_wine(as_frame=True).frame
    rows['seller'] = rng.integers(0, 13, len(rows)).astype(str)
    rows = rows.sample(frac=1, random_state=0)
    table = TabularDataLoaders.from_df(rows, procs=[Normalize], cont_names=['hue'], y_names='target', y_block=CategoryBlock(), bs=16)
    for loaders,groups,of in ((dls, writer, dict(enumerate(writer))), (dls, lambda i: i//7, {i: i//7 for i in range(60)}),
                              (table, 'seller', dict(rows.seller)), (table, rows.seller.sort_index(), dict(rows.seller)),
                              (digits(tmp_path).dls, np.arange(260)//9, {i: i//9 for i in range(260)})):
        seen = []
        for fold in fold_loaders(loaders, folds, groups):
            train,valid = ({of[k] for k in keys(ds)} for ds in (fold.train_ds, fold.valid_ds))
            assert not train&valid
            seen += keys(fold.valid_ds)
        assert sorted(seen)==sorted(of)

def test_the_past_comes_before_the_future(tmp_path):
    "In the order of the original data, also if the learner's own split is random"
    rows = load_wine(as_frame=True).frame
    rows.index = pd.date_range('2020', periods=len(rows))
    table = TabularDataLoaders.from_df(rows, procs=[Normalize], cont_names=['hue'], y_names='target', y_block=CategoryBlock(), bs=16)
    sets = DataLoaders(*[TfmdDL(o, bs=8, num_workers=0) for o in random_split(TensorDataset(x[:80], y[:80]), (60, 20))])
    for dls in (pictures(), table, sets):
        for fold in fold_loaders(dls, TimeSeriesSplit(4, max_train_size=30)):
            train,valid = keys(fold.train_ds),keys(fold.valid_ds)
            assert train==sorted(train) and valid==sorted(valid) and train[-1]<valid[0] and len(train)<=30
        assert valid[-1]==max(keys(dls.train_ds)+keys(dls.valid_ds))

def test_several_splits_of_one_dataset(tmp_path):
    "`Subset`s are joined again, and not wrapped in one another"
    whole = TensorDataset(x[:80], y[:80])
    dls = DataLoaders(*[TfmdDL(o, bs=8, shuffle=True, num_workers=1) for o in random_split(whole, (60, 20))])
    fold = fold_loaders(dls, 4)[1]
    assert fold.train_ds.dataset is whole and len(fold.valid_ds)==20
    assert sorted(int(o) for b in fold.valid for o in b[1])==sorted(y[fold.valid_ds.indices].tolist())  # in another process

def test_loaders_of_torch_keep_their_arguments():
    def collate(rows): return torch.stack([o[0] for o in rows]),torch.stack([o[1] for o in rows])
    generator = torch.Generator().manual_seed(4)
    sets = TensorDataset(x[:70], y[:70]),TensorDataset(x[70:100], y[70:100])
    dls = DataLoaders(torch.utils.data.DataLoader(sets[0], 16, shuffle=True, collate_fn=collate, drop_last=True, generator=generator),
                      torch.utils.data.DataLoader(sets[1], 30))
    was = generator.get_state()
    fold = fold_loaders(dls, 4)[0]
    assert [len(b[1]) for b in fold.train]==[16]*4 and fold.train.collate_fn is collate and len(fold.valid)==1
    assert torch.equal(generator.get_state(), was)
    for sampler in (SubsetRandomSampler(range(50)), WeightedRandomSampler([1.]*70, 70)):
        dls.loaders[0] = torch.utils.data.DataLoader(sets[0], 16, sampler=sampler)
        with pytest.raises(LoaderError, match='with this sampler.*list of DataLoaders'): fold_loaders(dls, 4)

def test_weights_of_classes_and_of_items():
    "Items for validation have no weights; if all of a class weigh the same, theirs are known"
    block,n = DataBlock((TransformBlock, CategoryBlock), get_x=lambda i: x[i], get_y=label, splitter=RandomSplitter(.3, seed=0)),100
    by_class = np.arange(1., 11)[y[:n]]
    for fold in fold_loaders(block.weighted_dataloaders(range(n), by_class, bs=16), 3):
        want = by_class[list(fold.train_ds.items)]
        assert type(fold.train) is WeightedDL and np.allclose(fold.train.wgts, want/want.sum())
    with pytest.raises(LoaderError, match='weights of the items for validation are unknown'):
        fold_loaders(block.weighted_dataloaders(range(n), np.arange(1., n+1), bs=16), 3)
    part = fold_loaders(block.datasets(range(n)).partial_dataloaders(20, bs=4), 3)[0].train
    assert type(part) is PartialDL and len(part)==5

def test_texts_are_sorted_by_their_own_lengths(tmp_path):
    dls = made('text_classes', tmp_path).dls
    fold = fold_loaders(dls, 3)[0]
    assert list(fold.valid.res)==[len(o[0]) for o in fold.valid_ds] and list(fold.vocab)==list(dls.vocab)
    lm = made('language_model', tmp_path).dls
    fold = fold_loaders(lm, 3)[1]
    assert list(fold.train.lens.coll)==[len(o[0]) for o in fold.train_ds] and list(fold.train_ds.items.index)!=list(lm.train_ds.items.index)

class Numbers(IterableDataset):
    def __iter__(self): return iter(range(9))
    def __len__(self): return 9
class Flipped(torch.utils.data.Dataset):
    def __init__(self, x, flip): self.x,self.flip = x,flip
    def __len__(self): return len(self.x)
    def __getitem__(self, i): return self.x[i].flip(0) if self.flip else self.x[i], 0
class Balanced(TfmdDL):
    def __init__(self, dataset, labels=None, **kwargs):
        self.labels = labels
        super().__init__(dataset, **kwargs)
    def new(self, *args, **kwargs): return super().new(*args, **{'labels': self.labels, **kwargs})
class Forgetful(Balanced):
    def new(self, *args, **kwargs): return TfmdDL.new(self, *args, **kwargs)

def both(a, b, cls=TfmdDL, **kwargs): return DataLoaders(cls(a, bs=4, num_workers=0, **kwargs), TfmdDL(b, bs=4, num_workers=0))
def overlapping():
    ds = TensorDataset(x[:20], y[:20])
    return both(torch.utils.data.Subset(ds, range(15)), torch.utils.data.Subset(ds, range(10, 20)))
bad = dict(
    iterable=(lambda: DataLoaders(*[DataLoader(Numbers(), bs=4)]*2), 'no dataset with a length|cannot be chosen'),
    flags=(lambda: both(Flipped(x[:20], True), Flipped(x[20:40], False)), 'Flipped, differ in flip, so items cannot change sides'),
    kinds=(lambda: both(list(range(20)), TensorDataset(x[:20], y[:20])), 'a list and a TensorDataset'),
    overlap=(overlapping, '5 items occur more than once'),
    part=(lambda: both(list(range(20)), list(range(9)), n=12), 'uses 12 of 20 items'),
    labels=(lambda: both(list(range(20)), list(range(9)), Balanced, labels=[0, 1]*10), 'Balanced.new passes on labels, which is about other items'),
    forgets=(lambda: both(list(range(20)), list(range(9)), Forgetful, labels=[0, 1]*10), 'Forgetful.new does not pass on labels'),
    alone=(lambda: DataLoaders(TfmdDL(list(range(20)), bs=4)), 'no validation set'),
    batch=(lambda: DataLoaders(TfmdDL(list(range(20)), bs=18, shuffle=True, drop_last=True, num_workers=0), TfmdDL(list(range(4)), num_workers=0)),
           'fewer than a batch'))
@pytest.mark.parametrize('name', bad)
def test_what_cannot_be_split(name):
    make,why = bad[name]
    dls = make()
    with pytest.raises(LoaderError, match=why): fold_loaders(dls, 3)

def test_a_list_of_loaders(tmp_path):
    "They are used as they are, if a model for the learner's loaders fits them"
    dls,new = pictures(),pictures(RandomSplitter(.3, seed=1))
    got = fold_loaders(dls, (dls, new))
    assert got[1] is new and len(got)==2
    few = pictures(lambda items: [list(range(20)), list(range(20, 25))], n=25)
    few.train_ds.tls[1].tfms.fs[-1].vocab = few.vocab[:5]
    for o,why in (([dls, few], 'number 1 of the list has another vocab'), ([dls, DataLoaders(dls.train)], 'number 1 of the list needs batches'),
                  ([dls, 5], 'expected DataLoaders, got int'), ([], 'expected several'), ([digits(tmp_path), dls], 'number 0.*got Learner')):
        with pytest.raises(LoaderError, match=why): fold_loaders(dls, o)
