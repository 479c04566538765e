"What pages say of benchmarks is in the files that the benchmarks wrote"
import json, sys
from pathlib import Path
import pytest

root = Path(__file__).resolve().parent.parent
sys.path += [str(root/'tools'), str(root/'benchmarks')]
import results, save
files = sorted((root/'benchmarks'/'results').glob('*.json'))
read = [(fn, o) for fn in results.places() for text in results.texts(fn) for o in results.paragraphs(text)]
def where(o): return f"{o[0].relative_to(root)}: {' '.join(o[1].split())[:90]}"

@pytest.mark.parametrize('fn', files, ids=lambda o: o.stem)
def test_files_say_how_they_were_made(fn):
    res = json.loads(fn.read_text())
    script = res['command'].split()[1]
    assert (root/script).exists() and res['date'] and res['versions']['python']
    assert res['origin']=='run' and res['commit'] or res['origin'].startswith('transcribed from ')
    assert res['tables'] or res['text']
    assert all(len(o)==len(t['columns']) for t in res['tables'] for o in t['rows'])

@pytest.mark.parametrize('fn', results.places(), ids=lambda o: str(o.relative_to(root)))
def test_tables_are_those_of_the_files(fn):
    assert results.rewritten(fn)==fn.read_text(), 'python tools/results.py'

def test_claims_name_their_files():
    assert not [where(o) for o in read if results.is_claim(o[1]) and '<!-- from:' not in o[1]]

def test_numbers_of_the_text_are_in_the_files():
    said = [o for o in read if '<!-- from:' in o[1]]
    bad = {where(o): results.unknown(o[1]) for o in said}
    assert len(said)>30 and not {k: v for k,v in bad.items() if v}

def test_a_wrong_number_is_found():
    name = files[0].stem
    assert results.unknown(f'Never 987654.321 <!-- from: {name} -->')==['987654.321']
    assert results.is_known('0.08', [.0772]) and not results.is_known('0.077', [.0782]) and results.is_known('1000', [1000.])

def test_what_is_printed_is_kept():
    lines = ['versions 1', '', 'Mean regret', '', '| method | 1 |', '| --- | --- |', '| ours | 0.1 (0.2) |', '', '0.3 s']
    res = save.tables(lines)
    assert res['tables']==[dict(title='Mean regret', columns=['method', '1'], rows=[['ours', '0.1 (0.2)']])]
    assert res['text']==['versions 1', 'Mean regret', '0.3 s']
    assert save.shown('/data/curves')=='CURVES' and save.shown('--seeds')=='--seeds'
