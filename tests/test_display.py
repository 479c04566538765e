"The live display in terminals of several sizes; with loader workers, in a kernel, in a pipe, and while Ctrl-C comes"
import fcntl, io, os, pty, select, struct, subprocess, sys, termios, textwrap
import nbformat, pyte, pytest
from nbclient import NotebookClient
from rich.console import Console
from fastai_bayes.learner.display import Status, Terminal, progress, status_line, status_text, trial_line

def running(n, curve=(.3,)): return dict(number=n, params=dict(lr=.1, arch='resnet18'), curve=curve)
def status(n=6, **kwargs):
    "A study of which `n` trials have ended"
    why = 'number 3 of 4 after 2 epochs, and the probability of ending best, 3%, is too small'
    ended = [dict(number=i, state='stopped' if i%2 else 'complete', value=.5+.05*((i*7)%5), epochs=2 if i%2 else 5,
                  params=dict(lr=.01*(i+1), arch=f'vit_small_patch16_{i}'), reason=why if i%2 else '') for i in range(n)]
    return Status(**{**dict(monitor='accuracy', mode='max', n_epoch=5, budget=100, spent=31, saved=9, seconds=40, trials=ended,
                            running=[running(n)]), **kwargs})

class Screen(io.StringIO):
    "A stream that says it is a terminal, and shows what is written on a `pyte` screen"
    def __init__(self, columns, lines):
        super().__init__()
        self.screen = pyte.HistoryScreen(columns, lines, history=1000)
        self.screen.set_mode(pyte.modes.LNM)
        self.stream = pyte.Stream(self.screen)
    def isatty(self): return True
    def write(self, text):
        self.stream.feed(text)
        return super().write(text)
    def rows(self): return rows_of(self.screen)

def rows_of(screen):
    "All rows with something on them, also those that have left the screen"
    past = [''.join(row[x].data for x in range(screen.columns)) for row in screen.history.top]
    return [o.rstrip() for o in (*past, *screen.display) if o.strip()]

@pytest.fixture
def terminal(monkeypatch):
    "A function that begins a display in a terminal of a size"
    made = []
    def begin(columns, lines=24):
        out = Screen(columns, lines)
        for k in ('stdout', 'stderr'): monkeypatch.setattr(sys, k, out)
        made.append(Terminal(Console(file=out, width=columns, height=lines)))
        return made[0],out
    yield begin
    made[0].live.stop()

def words(rows): return ' '.join(' '.join(rows).split())
def shown(s, columns): return words(status_text(s, columns).splitlines())

@pytest.mark.parametrize('columns', [20, 40, 80, 200])
def test_table_is_drawn_over_itself(terminal, columns):
    v,out = terminal(columns, 40)
    for i in range(8):
        for e in range(4): v.show(status(i, running=[running(i, [.1]*e)]))
    v.show(s := status(8))
    assert words(out.rows())==shown(s, columns) and len(out.rows())<20

@pytest.mark.parametrize('columns', [*range(10, 60, 3), 80, 160])
def test_table_fits(columns):
    assert all(len(o)<=columns for o in status_text(status(), columns).splitlines()[1:])

def test_few_lines(terminal):
    v,out = terminal(60, 4)
    for i in range(8): v.show(status(i))
    assert len(out.rows())==4

def test_a_table_that_gets_shorter_leaves_nothing_behind(terminal):
    v,out = terminal(120)
    v.show(status(8))
    v.show(s := status(0, running=[]))
    assert words(out.rows())==shown(s, 120) and len(out.rows())==1

def test_what_others_print_stays_above(terminal):
    v,out = terminal(60, 20)
    said = []
    for i in range(20):
        v.show(status(i%7))
        print(f'printed {i}'); said.append(f'printed {i}')
        print(f'warned {i}', file=sys.stderr); said.append(f'warned {i}')
    v.show(s := status(3))
    assert out.rows()[:40]==said and words(out.rows()[40:])==shown(s, 60)

def test_a_line_that_goes_on_is_not_overwritten(terminal):
    v,out = terminal(60)
    v.show(status(3))
    print('loading', end=' ')
    print('...', end='')
    v.show(status(4))
    print('done')
    v.show(s := status(5))
    assert out.rows()[0]=='loading ...done' and words(out.rows()[1:])==shown(s, 60)

def test_streams_are_given_back(terminal):
    v,out = terminal(60)
    v.show(status())
    assert sys.stdout is not out and sys.stdout.isatty() and sys.stderr is not out
    v.close(status())
    assert sys.stdout is out and sys.stderr is out and not out.screen.cursor.hidden

@pytest.mark.parametrize('after', range(0, 30, 7))
def test_interrupted_while_it_draws(terminal, monkeypatch, after):
    "The first Ctrl-C draws again, from within; the second raises"
    v,out = terminal(60)
    v.show(status(3))
    write,count,calls = out.write,[0],[]
    def interrupted(text):
        count[0] += 1
        if count[0]==1: calls.append(v.show(status(4, note='ends after this epoch')))
        write(text[:after])
        raise KeyboardInterrupt
    monkeypatch.setattr(out, 'write', interrupted)
    with pytest.raises(KeyboardInterrupt): v.show(status(4))
    monkeypatch.setattr(out, 'write', write)
    v.close(s := status(5, running=[]))
    assert calls==[None] and words(out.rows()).endswith(shown(s, 60)) and sys.stdout is out

tuned = textwrap.dedent('''
    import warnings; warnings.simplefilter('ignore')
    import sys; sys.path.insert(0, 'TESTS')
    from tuning import *
    from fastai_bayes.all import *
    class Loud(torch.utils.data.TensorDataset):
        def __getitem__(self, i):
            if i==0: print('printed by a worker')
            return super().__getitem__(i)
    class Say(Callback):
        def after_fit(self): print('printed by a callback')
    learn = digits('PATH', cbs=Say())
    learn.dls = DataLoaders(DataLoader(Loud(x[:320], y[:320]), bs=32, n=320, num_workers=2), learn.dls.valid, path=learn.path)
    learn.bayes_tune(2, dict(lr=(1e-4, .1, 'log'), opt_func=[Adam, SGD]), n_trials=3, seed=0, pruner='none', recipes=False)
    print('after')''')

acted = textwrap.dedent('''
    import time
    from fastai_bayes.learner.display import Status, view
    def study(**kwargs):
        s,v = Status('accuracy', 'max', 2, n_trials=3),view(**kwargs)
        v.say('inferred <space>')
        for i in range(3):
            o = dict(number=i, params=dict(lr=.1), curve=[])
            s.running = [o]
            for e in range(2):
                o['curve'].append(.5+e/10)
                time.sleep(.11)
                v.update(s)
            s.trials.append(dict(number=i, state='complete', value=.6, epochs=2, params=o['params']))
            s.running = []
            v.finished(s)
            print('printed')
        v.close(s)
    study()''')

def in_terminal(code, columns, lines):
    "Exit code and screen of a real terminal in which `code` has run"
    main,child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack('HHHH', lines, columns, 0, 0))
    env = {k: v for k,v in os.environ.items() if k not in ('COLUMNS', 'LINES')} | dict(TERM='xterm-256color')
    p = subprocess.Popen([sys.executable, '-c', code], stdout=child, stderr=child, stdin=child, env=env, close_fds=True)
    os.close(child)
    screen = pyte.HistoryScreen(columns, lines, history=1000)
    stream = pyte.ByteStream(screen)
    while p.poll() is None or select.select([main], [], [], .2)[0]:
        if not select.select([main], [], [], .2)[0]: continue
        try: stream.feed(os.read(main, 65536))
        except OSError: break
    p.wait()
    os.close(main)
    return p.returncode,screen

def test_real_terminal_with_forked_workers(tmp_path):
    rc,screen = in_terminal(tuned.replace('TESTS', os.path.dirname(__file__)).replace('PATH', str(tmp_path)), 72, 20)
    rows = rows_of(screen)
    assert rc==0 and not screen.cursor.hidden, rows
    at = next(i for i,o in enumerate(rows) if '█' in o)
    above,table = rows[:at],rows[at:-1]
    assert {*above}=={'printed by a worker', 'printed by a callback'} and above.count('printed by a callback')==3, above
    assert len(table)==5 and '3 of 3 trials' in table[0] and sum('complete' in o for o in table)==3 and rows[-1]=='after', table

def test_pipe_and_silence():
    r = subprocess.run([sys.executable, '-c', acted+"\nprint('after')\nstudy(verbose=False)"], capture_output=True, text=True)
    want = 'inferred <space>', 'trial 0', 'printed', 'trial 1', 'printed', 'trial 2', 'printed', 'after', *['printed']*3
    lines = r.stdout.splitlines()
    assert len(lines)==len(want) and all(map(str.startswith, lines, want)) and '\x1b' not in r.stdout, r

def test_kernel():
    "One output, which is updated, and what others print"
    nb,updates = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(acted)]),[]
    client = NotebookClient(nb, timeout=300, kernel_name='python3')
    old = client.process_message
    def noted(msg, cell, i):
        if msg['msg_type']=='update_display_data': updates.append(msg['content']['data']['text/html'])
        return old(msg, cell, i)
    client.process_message = noted
    client.execute()
    shown = [o for o in nb.cells[0].outputs if o['output_type']=='display_data']
    assert len(shown)==1 and {o['output_type'] for o in nb.cells[0].outputs}=={'display_data', 'stream'}
    assert len(updates)==10 and all('inferred &lt;space&gt;' in o for o in updates) and '<table' in updates[0] and 'running' in updates[0]
    assert shown[0]['data']['text/html']==updates[-1] and '3 of 3 trials' in updates[-1] and '<table' not in updates[-1]

def test_numbers_are_counted_and_named():
    "One trial is no trials, what stopping saves are epochs, and a value is no count"
    one = dict(number=0, state='complete', value=1., epochs=1, params=dict(lr=.1))
    s = status(0, running=[], trials=[one], n_trials=1, budget=1, spent=1, saved=1, n_epoch=1)
    assert progress(s)=='best 1.0 (trial 0) | 1 of 1 trial | 1 of 1 epoch | 1 epoch saved by stopping | 0:40'
    more = status(0, running=[], trials=[one]*2, budget=None, spent=7, saved=60, seconds=5)
    assert progress(more)=='best 1.0 (trial 0) | 2 trials | 7 epochs | 60 epochs saved by stopping | 0:05'
    assert '| accuracy 1.0 |' in status_line(status(0, running=[running(1, [.5, 1.])])) and 'accuracy 1.0 ' in trial_line(one, s)
    assert ' 1.0 ' in status_text(s).splitlines()[2]

@pytest.mark.parametrize('columns', range(90, 170, 7))
def test_reasons_end_with_a_word(columns):
    "And with `…`, if they do not fit; columns that do not fit are named"
    why = 'number 3 of 4 after 2 epochs, and the probability of ending best, 3%, is too small'
    for o in status_text(status(), columns).splitlines():
        if 'stopped' not in o or 'number' not in o: continue
        said = o[o.index('number'):]
        if said==why: continue
        words = said.removesuffix('…')
        assert said.endswith('…') and why.startswith(words) and why[len(words)] in ' ,', said
    ended = [dict(number=i, state='stopped', value=.5, epochs=2, params=dict.fromkeys(('lr', 'wd', 'bs', 'n_layers', 'width', 'dropout', 'mixup'), 16)) for i in range(3)]
    lines = status_text(status(0, trials=ended, running=[]), 60).splitlines()
    hidden = lines[-1].removeprefix('not shown: ').split(', ')
    assert lines[-1].startswith('not shown: ') and {*lines[1].split(), *hidden}>={'lr', 'wd', 'bs', 'n_layers', 'width', 'dropout', 'mixup'}

@pytest.mark.parametrize('mode', ['max', 'min'])
def test_the_first_of_equals_is_the_best_whichever_ended_first(mode):
    "As in the result: a trial that was resumed ends after later ones"
    def _trial(n, value): return dict(number=n, state='complete', value=value, epochs=5, params={}, reason='')
    worse = .1 if mode=='max' else .9
    assert status(mode=mode, trials=[_trial(0, worse), _trial(6, .5), _trial(4, .5)]).best['number']==4
