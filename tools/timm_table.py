"""Writes the table of published accuracies from which `timm_models` takes its candidates

    python tools/timm_table.py results-imagenet.csv

The argument is `results/results-imagenet.csv` of the repository huggingface/pytorch-image-models. Each architecture has one row: its most accurate weights, at the smallest size they were tested at."""
import csv, sys
from pathlib import Path

file = Path(__file__).resolve().parent.parent/'fastai_bayes'/'learner'/'timm.csv'
about = '# ImageNet-1k validation accuracy of pretrained weights, from results/results-imagenet.csv of huggingface/pytorch-image-models, commit aa4b585 (2026-08-08)'

def row(o): return o['model'],float(o['param_count'].replace(',', '')),float(o['top1']),int(o['img_size'])

def table(rows):
    "One row per architecture, most accurate first"
    smallest,best = {},{}
    for o in sorted(rows, key=lambda o: o[3]): smallest.setdefault(o[0], o)
    for o in sorted(smallest.values(), key=lambda o: -o[2]): best.setdefault(o[0].partition('.')[0], o)
    return [o for o in best.values() if not o[0].startswith('test_')]  # those are for timm's own tests

if __name__ == '__main__':
    with open(sys.argv[1], newline='') as f: rows = table(map(row, csv.DictReader(f)))
    lines = [about, 'model,params_m,top1,size', *(f'{m},{p:.2f},{a:.2f},{s}' for m,p,a,s in rows)]
    file.write_text('\n'.join(lines)+'\n')
