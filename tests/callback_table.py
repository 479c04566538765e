"What a pruning callback does to trainings whose learning curves are known exactly"
import io, tempfile
from contextlib import redirect_stdout
import optuna
from fastai.basics import *
from fastai.callback.all import *
from fastai.test_utils import synth_learner
from optuna.trial import TrialState
from fastai_bayes.learner.callback import BayesPruningCallback
from fastai_bayes.study.pruner import BayesPruner

n_trials,n_epoch = 20,8
pruners = {
    'median': lambda: optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=1),
    'ASHA': lambda: optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2),
    'Hyperband': lambda: optuna.pruners.HyperbandPruner(min_resource=1, max_resource=n_epoch, reduction_factor=2),
    'BayesPruner': BayesPruner}
rules = dict(
    half='half-trained, but stored as COMPLETE', wasted='finished, but stored as PRUNED', failed='ended in an error',
    weights='cut short, and not left with the best weights', cleanup='cut short, and the last batch kept alive',
    lost='fine_tune: epochs trained but missing from the curve', on='fine_tune: epochs trained after the pruner said stop',
    elsewhere='values reported by lr_find, validate or get_preds')

class FakeRecords(Callback):
    "Let the recorded `valid_loss` follow `curve` over all fits, and note the weights after each epoch"
    order = Recorder.order+1
    def __init__(self, curve): self.curve,self.ws = curve,[]
    def after_epoch(self):
        self.learn.recorder.values[-1][1] = self.learn.final_record[1] = self.curve[len(self.ws)]
        self.ws.append(self.learn.model.a.item())

class SuggestedParams(GetAttr):
    "A trial that notes after how many epochs it was first told to stop"
    _default = 'trial'
    def __init__(self, trial, fake): self.trial,self.fake,self.told = trial,fake,None
    def should_prune(self):
        res = self.trial.should_prune()
        if res and self.told is None: self.told = len(self.fake.ws)
        return res

def curve_at(x):
    "Learning curve of a training with hyperparameter `x`: best near .3, bumpy, some gain much at the very end"
    e = np.arange(1, n_epoch+1)
    return list(.2+(x-.3)**2+np.exp(-e*(.3+x))+.05*np.sin(9*e*(x+1))-.3*abs(np.sin(20*x))*(e==n_epoch))

def ours(trial, n): return BayesPruningCallback(trial, 'valid_loss', n_epoch=n)
def our_value(learn, cb): return cb.value
def optunas(trial, n):
    from optuna_integration import FastAIPruningCallback
    return FastAIPruningCallback(trial, monitor='valid_loss')
def optunas_value(learn, cb): return learn.final_record[1]
callbacks = {'BayesPruningCallback': (ours, our_value), 'FastAIPruningCallback': (optunas, optunas_value)}

@contextmanager
def silent(learn):
    with learn.no_bar(), learn.no_logging(), redirect_stdout(io.StringIO()): yield

def play(callback, pruner, fit, save=False):
    "A study of `n_trials` trainings; each as its trial, learner, records and what the trial was asked"
    make,value = callbacks[callback]
    learners = []
    def objective(trial):
        fake = FakeRecords(curve_at(trial.suggest_float('x', 0, 1)))
        with tempfile.TemporaryDirectory() as d:
            learn = synth_learner(n_trn=2, n_val=1, path=d)
            asked = SuggestedParams(trial, fake)
            learners.append((learn, fake, asked))
            cb = make(asked, n_epoch)
            with silent(learn): fit(learn, cbs=[cb, fake] + ([SaveModelCallback()] if save else []))
        return value(learn, cb)
    # Hyperband deals its brackets by the study's name
    study = optuna.create_study(study_name='table', sampler=optuna.samplers.RandomSampler(seed=1), pruner=pruners[pruner]())
    study.optimize(objective, n_trials, catch=(Exception,))
    return [(t, *o) for t,o in zip(study.trials, learners)]

def straight(callback, pruner):
    "Counts for trainings of one fit, with a `SaveModelCallback`"
    done = play(callback, pruner, lambda learn, cbs: learn.fit(n_epoch, .1, cbs=cbs), save=True)
    cut = [(t, learn, fake) for t,learn,fake,_ in done if len(fake.ws)<n_epoch]
    return dict(
        half=sum(t.state==TrialState.COMPLETE for t,*_ in cut),
        wasted=sum(t.state==TrialState.PRUNED and len(fake.ws)==n_epoch for t,_,fake,_ in done),
        failed=sum(t.state==TrialState.FAIL for t,*_ in done),
        weights=sum(learn.model.a.item()!=fake.ws[int(np.argmin(fake.curve[:len(fake.ws)]))] for _,learn,fake in cut),
        cleanup=sum(learn.pred is not None for _,learn,_ in cut),
        cut=len(cut), pruned=sum(t.state==TrialState.PRUNED for t,*_ in done))

def two_stages(callback, pruner):
    "Counts for `fine_tune`, whose two fits are one training"
    done = play(callback, pruner, lambda learn, cbs: learn.fine_tune(n_epoch-2, .1, freeze_epochs=2, cbs=cbs))
    return dict(lost=sum(len(fake.ws)-len(set(fake.curve[:len(fake.ws)]) & set(t.intermediate_values.values())) for t,_,fake,_ in done),
                on=sum(len(fake.ws)-asked.told for *_,fake,asked in done if asked.told))

def elsewhere(callback, pruner):
    "Values reported, or errors raised, while a learner that carries the callback does anything but train"
    study = optuna.create_study(pruner=pruners[pruner]())
    n,learn = 0,synth_learner(metrics=mae, cbs=callbacks[callback][0](study.ask(), n_epoch))
    with tempfile.TemporaryDirectory() as d, silent(learn):
        learn.path = Path(d)
        for f in (partial(learn.lr_find, num_it=20, show_plot=False), learn.validate, learn.get_preds):
            try: f()
            except Exception: n += 1
    return dict(elsewhere=n+len(study.trials[0].intermediate_values))

def measure(callback, pruner):
    "All counts for one callback and one pruner"
    return {**straight(callback, pruner), **two_stages(callback, pruner), **elsewhere(callback, pruner)}

def table():
    "Counts by rule, callback and pruner, below the number of trainings that were cut short"
    cols = {(c, p): measure(c, p) for c in callbacks for p in pruners}
    return pd.DataFrame(cols).loc[['cut', *rules]].rename({'cut': '(trainings cut short)', **rules})

if __name__=='__main__':
    print(f'\nOf {n_trials} trials, recorded wrongly:\n')
    print("| pruner | `BayesPruningCallback` | Optuna's fastai callback |\n| --- | --- | --- |")
    for p in pruners:
        counts = [straight(c, p) for c in callbacks]
        print(f'| {p} |', ' | '.join(str(o['half']+o['wasted']+o['failed']) for o in counts), '|')
