"""Run a benchmark, and keep what it prints in benchmarks/results/NAME.json, with the command, the date, the commit and the versions.

    python benchmarks/save.py NAME benchmarks/synthetic.py --seeds 30

Pages say only what is in these files: `python tools/results.py` writes the tables, and tests/test_results.py holds the numbers of the text against them."""
import datetime, json, os, platform, subprocess, sys, time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

root = Path(__file__).resolve().parent.parent
packages = 'fastai_bayes', 'fastai', 'torch', 'optuna', 'numpy', 'scipy', 'ray', 'botorch', 'smac', 'neural-pipeline-search', 'syne-tune'

def versions():
    "Versions of Python and of the packages that are installed"
    res = dict(python=platform.python_version())
    for o in packages:
        try: res[o] = version(o)
        except PackageNotFoundError: pass
    return res

def printed(args):
    "What the benchmark prints, line by line, shown as it comes"
    with subprocess.Popen([sys.executable, *args], cwd=root, stdout=subprocess.PIPE, text=True) as p:
        res = []
        for line in p.stdout:
            print(line, end='', flush=True)
            res.append(line.rstrip())
    if p.returncode: sys.exit(p.returncode)
    return res

def cells(line): return [o.strip() for o in line.strip('|').split('|')]

def tables(lines):
    "Tables among `lines` of Markdown, each with the text before it, and the other lines"
    res,text,inside = [],[],False
    for line in lines:
        if not line.startswith('|'):
            if line: text.append(line)
        elif not inside: res.append(dict(title=text[-1] if text else '', columns=cells(line), rows=[]))
        elif not line.startswith('| ---'): res[-1]['rows'].append(cells(line))
        inside = line.startswith('|')
    return dict(tables=res, text=text)

def shown(arg): return Path(arg).name.upper() if os.path.isabs(arg) else arg  # folders of data have other places elsewhere

def git(*args): return subprocess.run(['git', *args], cwd=root, capture_output=True, text=True).stdout.strip()

def main(name, script, *args):
    start = time.time()
    lines = printed([script, *args])
    res = dict(command=' '.join(['python', script, *map(shown, args)]), origin='run', date=str(datetime.date.today()),
               commit=git('rev-parse', '--short', 'HEAD'), cores=os.cpu_count(), seconds=round(time.time()-start), versions=versions())
    write(name, {**res, **tables(lines)})

def write(name, res):
    fn = root/'benchmarks'/'results'/f'{name}.json'
    fn.parent.mkdir(exist_ok=True)
    fn.write_text(json.dumps(res, indent=1, ensure_ascii=False)+'\n')

if __name__=='__main__': main(*sys.argv[1:])
