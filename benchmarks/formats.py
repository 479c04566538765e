"""File formats for weights and optimizer: seconds until the file is on the disk, and until it is read and added up, and the memory that each takes besides the tensors.

The state is that of a model of so many million parameters with Adam. Each row is the median of some runs, which alternate, each in a process of its own; the file is in the
cache of the system when it is read. `torch` is what checkpoints use: `torch.save`, and `torch.load` with `weights_only=True`; `mapped` is with `mmap=True` as well.

    python benchmarks/formats.py [--sizes 100] [--runs 3]
"""
import argparse, itertools, json, math, os, resource, statistics, subprocess, sys, tempfile, time
import torch
from fastai_bayes.study.folder import put

def save(way, state, file):
    if way!='safetensors': return put(file, lambda f: torch.save(state, f))
    from safetensors.torch import save_file
    save_file(state, file)
    with open(file, 'rb') as f: os.fsync(f.fileno())

def load(way, file):
    if way!='safetensors': return torch.load(file, map_location='cpu', weights_only=True, mmap=way=='torch, mapped')
    from safetensors.torch import load_file
    return load_file(file)

def measured(f):
    "Seconds and gigabytes of memory that `f` takes"
    def _peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1e6
    before,start = _peak(),time.perf_counter()
    f()
    print(json.dumps([time.perf_counter()-start, _peak()-before]))

def write(way, file, millions):
    width = round(math.sqrt(float(millions)*1e6/4))
    state = {f'{k}{i}': torch.randn(width, width) for k in ('weight', 'mean', 'square') for i in range(4)}
    measured(lambda: save(way, state, file))

def read(way, file, millions):
    with open(file, 'rb') as f:
        while f.read(2**24): pass
    measured(lambda: sum(float(v.sum()) for v in load(way, file).values()))

def run(*args):
    res = subprocess.run([sys.executable, __file__, *map(str, args)], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(res.stdout)

def main():
    from racing import header, row  # not in the processes that are measured
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--sizes', type=float, nargs='+', default=[100], help='million parameters')
    p.add_argument('--runs', type=int, default=3)
    o,rows = p.parse_args(),{}
    for _,millions,way in itertools.product(range(o.runs), o.sizes, ('torch', 'torch, mapped', 'safetensors')):
        with tempfile.TemporaryDirectory() as path:
            args = way,f'{path}/state',millions
            rows.setdefault((millions, way), []).append(run('write', *args)+run('read', *args))
    print(f'Medians of {o.runs} runs:\n')
    columns = 'million parameters', 'format', 'write, s', 'memory, GB', 'read, s', 'memory to read, GB'
    header(*columns)
    for (millions,way),found in rows.items():
        cells = [f'{statistics.median(v):.2f}' for v in zip(*found)]
        row(f'{millions:g}', way, *cells)

if __name__=='__main__':
    if sys.argv[1:2] in (['write'], ['read']): dict(write=write, read=read)[sys.argv[1]](*sys.argv[2:])
    else: main()
