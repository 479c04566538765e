"The live display in terminals, real and narrow and made narrower; in a kernel; in a pipe"
import fcntl, io, os, pty, select, struct, subprocess, sys, termios, textwrap
import nbformat, pyte, pytest
from nbclient import NotebookClient
from fastai_bayes.learner.display import Status, Terminal, status_text

def status(n=6, **kwargs):
    "A study of which `n` trainings have ended"
    ended = [dict(number=i, state='stopped' if i%2 else 'complete', value=.5+.05*((i*7)%5), epochs=2 if i%2 else 5, params=dict(lr=.01*(i+1), arch=f'vit_small_patch16_{i}'),
                  reason='number 3 of 4 after 2 epochs, and the probability of ending best, 3%, is too small' if i%2 else '') for i in range(n)]
    return Status(**{**dict(monitor='accuracy', mode='max', n_epoch=5, budget=100, spent=31, saved=9, seconds=40, trials=ended, number=n,
                            params=dict(lr=.1, arch='resnet18'), curve=[.3]), **kwargs})

class Tty(io.StringIO):
    "A stream that says it is a terminal, and shows what is written on a `pyte` screen"
    def __init__(self, columns, lines):
        super().__init__()
        self.resize(columns, lines)
    def resize(self, columns, lines):
        "As terminals do that wrap their lines anew"
        old = self.rows() if hasattr(self, 'screen') else []
        at = len(old)
        self.screen = pyte.HistoryScreen(columns, lines, history=1000)
        self.screen.set_mode(pyte.modes.LNM)
        self.stream = pyte.Stream(self.screen)
        if at: self.stream.feed(''.join(f'{o}\n' for o in old))
    def isatty(self): return True
    def write(self, text):
        self.stream.feed(text)
        return super().write(text)
    def rows(self):
        "All rows with something on them, also those that have left the screen"
        past = [''.join(row[x].data for x in range(self.screen.columns)) for row in self.screen.history.top]
        return [o.rstrip() for o in (*past, *self.screen.display) if o.strip()]

@pytest.fixture
def terminal(monkeypatch):
    "A function that begins a display in a terminal of a size"
    made = []
    def begin(columns, lines=24):
        size(columns, lines)
        out = Tty(columns, lines)
        monkeypatch.setattr(sys, 'stdout', out)
        monkeypatch.setattr(sys, 'stderr', out)
        made.append(Terminal(out))
        return made[0],out
    def size(columns, lines=24):
        monkeypatch.setenv('COLUMNS', str(columns)), monkeypatch.setenv('LINES', str(lines))
    begin.size = size
    yield begin
    made[0].close(status())

@pytest.mark.parametrize('columns,lines', [(20, 10), (40, 12), (80, 24), (200, 50), (60, 4)])
def test_table_is_drawn_over_itself(terminal, columns, lines):
    v,out = terminal(columns, lines)
    for i in range(8):
        for e in range(4): v.show(status(i, curve=[.1]*e))
    v.show(s := status(8))
    assert out.rows()==[o.rstrip() for o in status_text(s, columns, lines)]
    assert len(out.rows())<lines

def test_a_table_that_gets_shorter_leaves_nothing_behind(terminal):
    v,out = terminal(100)
    v.show(status(8))
    v.show(s := status(0, number=None))
    assert out.rows()==status_text(s, 100, 24) and len(out.rows())==1

def test_what_others_print_stays_above(terminal):
    v,out = terminal(60, 12)
    said = []
    for i in range(20):
        v.show(status(i%7))
        print(f'said {i}'); said.append(f'said {i}')
        print(f'warned {i}', file=sys.stderr); said.append(f'warned {i}')
    v.show(s := status(3))
    assert out.rows()==[*said, *status_text(s, 60, 12)]

def test_a_line_that_goes_on_is_not_overwritten(terminal):
    v,out = terminal(60)
    v.show(status(3))
    print('loading', end=' ')
    print('...', end='')
    v.show(status(4))
    print('done')
    v.show(s := status(5))
    assert out.rows()==['loading ...', 'done', *status_text(s, 60, 24)]

@pytest.mark.parametrize('before,after', [(100, 50), (100, 33), (50, 100)])
def test_resize(terminal, before, after):
    v,out = terminal(before, 40)
    print('first')
    v.show(status(5))
    terminal.size(after, 40)
    out.resize(after, 40)
    v.show(s := status(6))
    assert out.rows()==['first', *status_text(s, after, 40)]

def test_streams_are_given_back(terminal, monkeypatch):
    v,out = terminal(60)
    assert sys.stdout is not out and sys.stdout.isatty() and sys.stderr is not out
    v.close(status())
    assert sys.stdout is out and sys.stderr is out

script = textwrap.dedent('''
    import warnings; warnings.simplefilter('ignore')
    import sys; sys.path.insert(0, 'TESTS')
    from tuning import *
    from fastai_bayes.all import *
    class Say(Callback):
        def after_fit(self): print('said by a callback')
    learn = digits('PATH', cbs=Say())
    def tune(**kwargs): learn.bayes_tune(2, dict(lr=(1e-4, .1, 'log'), opt_func=[Adam, SGD]), n_trials=3, seed=0, pruner='none', **kwargs)
    tune()
    print('after')''')

def code(path): return script.replace('TESTS', os.path.dirname(__file__)).replace('PATH', str(path))

def in_terminal(path, columns, lines):
    "Rows of a real terminal in which a study has run"
    main,child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack('HHHH', lines, columns, 0, 0))
    env = {k: v for k,v in os.environ.items() if k not in ('COLUMNS', 'LINES')} | dict(TERM='xterm-256color')
    p = subprocess.Popen([sys.executable, '-c', code(path)], stdout=child, stderr=child, stdin=child, env=env, close_fds=True)
    os.close(child)
    screen = pyte.HistoryScreen(columns, lines, history=1000)
    stream,frames = pyte.ByteStream(screen),0
    while p.poll() is None or select.select([main], [], [], .2)[0]:
        if not select.select([main], [], [], .2)[0]: continue
        try: data = os.read(main, 65536)
        except OSError: break
        stream.feed(data)
        frames += data.count(b'\x1b[J')
    p.wait()
    os.close(main)
    past = [''.join(row[x].data for x in range(columns)) for row in screen.history.top]
    return p.returncode, [o.rstrip() for o in (*past, *screen.display) if o.strip()], frames

def test_real_terminal(tmp_path):
    code,rows,frames = in_terminal(tmp_path, 72, 20)
    assert code==0, rows
    assert rows.count('said by a callback')==3 and rows[-1]=='after'
    assert rows[:3]==['said by a callback']*3  # above the table
    table = rows[3:-1]
    assert sum('trial' in o and 'state' in o for o in table)==1 and len(table) in (5, 6) and '3 of 3 trials' in table[0]
    assert sum('complete' in o for o in table)==3
    assert 4<=frames<=30 and all(len(o)<72 for o in rows)

def test_pipe_and_silence(tmp_path):
    r = subprocess.run([sys.executable, '-c', code(tmp_path)+"\ntune(verbose=False)\nprint('end')"], capture_output=True, text=True)
    lines = r.stdout.splitlines()
    assert [o[:7] for o in lines if o!='said by a callback']==['trial 0', 'trial 1', 'trial 2', 'after', 'end'] and '\x1b' not in r.stdout, r
    assert lines[lines.index('after')+1:]==['said by a callback']*3+['end']

def test_kernel(tmp_path):
    "One table, which is updated, and nothing else"
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code(tmp_path))])
    updates = []
    client = NotebookClient(nb, timeout=300, kernel_name='python3')
    old = client.process_message
    def noted(msg, cell, i):
        if msg['msg_type']=='update_display_data': updates.append(msg['content']['data']['text/html'])
        return old(msg, cell, i)
    client.process_message = noted
    client.execute()
    kinds = [o['output_type'] for o in nb.cells[0].outputs]
    assert kinds.count('display_data')==1, kinds
    assert 4<=len(updates)<=30 and any('<table' in o and 'training' in o for o in updates)
    last = next(o for o in nb.cells[0].outputs if o['output_type']=='display_data')['data']['text/html']
    assert last==updates[-1] and '3 of 3 trials' in last
