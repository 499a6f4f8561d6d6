"""What is exported is all there is, and reads back as the same experiences."""

from __future__ import annotations

import dataclasses
import json

import pytest

from dreaming import types
from dreaming.memory import export, trim
from dreaming.memory.diary import Diary
from dreaming.memory.imports import run
from dreaming.types import Trust

T = 1_700_000_000.25


@pytest.fixture
def diary(tmp_path):
  with Diary(tmp_path / 'life' / 'diary.sqlite') as diary:
    yield diary


@pytest.fixture
def full(diary):
  """Of every kind, with all that an experience can have; not in the order of time."""
  bird = types.Media(kind='image', digest='ab' * 32, description='a bird')
  note = types.Media(kind='audio', digest='cd' * 32)
  rated = types.Scores(importance=7.5, novelty=2.0, emotion=1.5, feedback=10.0, rater='r/g0')
  for fields in (
    {'time': T + 2, 'speaker': 'Ana', 'content': 'Grüße "x"\n2', 'response': 'Ja', 'session': 's',
     'metadata': {'a': [1, None, 'é'], 'language': 'de'}, 'scores': rated,
     'trust': Trust.APPROVED},
    {'time': T + 1, 'speaker': 'Bo', 'content': 'Look.', 'kind': 'observation', 'session': 'zoo',
     'media': (bird, note), 'trust': Trust.THIRD_PARTY,
     'metadata': {'media': [{'name': 'bird.png', 'tags': [['jay', 0.5]]}]}},
    {'time': T + 3, 'speaker': 'Robin', 'content': 'Ana likes birds.', 'kind': 'reflection',
     'metadata': {'of': [1, 2]}},
    {'time': T + 3, 'speaker': 'Ana', 'content': '', 'media': (note,), 'metadata': {'source': 'm'}},
    {'time': T, 'speaker': 'Bo', 'content': 'Earlier'},
  ):  # fmt: skip
    diary.append(**fields)
  return diary


def read_back(path, tmp_path):
  with Diary(tmp_path / 'other' / 'diary.sqlite') as other:
    report = run.import_file(other, path, user='Somebody else', now=1.0)
    return report, other.experiences()


def test_an_export_reads_back_as_the_same_experiences(full, tmp_path):
  path = tmp_path / 'sub' / 'out.jsonl'
  assert export.jsonl(full, path) == 5
  assert [p.name for p in path.parent.iterdir()] == ['out.jsonl']
  report, found = read_back(path, tmp_path)
  assert (report.added, report.damaged, report.skipped) == (5, 0, 0)
  came = {'format': 'jsonl', 'file': 'out.jsonl'}
  for a, b in zip(full.experiences(), found, strict=True):
    said = {'said': a.metadata['source']} if 'source' in a.metadata else {}
    metadata = {**a.metadata, 'source': came | said}
    assert b == dataclasses.replace(a, id=b.id, trust=Trust.IMPORTED, metadata=metadata)
  assert [e.kind for e in found] == ['chat', 'observation', 'chat', 'reflection', 'chat']
  before = path.read_bytes()
  with pytest.raises(ValueError, match='exists'):
    export.jsonl(full, path)
  assert path.read_bytes() == before
  assert run.import_file(full, path, user='Ana').known == 5  # where it was lived it is known


def test_a_reflection_that_came_back_waits_for_approval(full, tmp_path):
  export.jsonl(full, tmp_path / 'out.jsonl')
  with Diary(tmp_path / 'other' / 'diary.sqlite') as other:
    run.import_file(other, tmp_path / 'out.jsonl', user='Ana')
    (id,) = other.ids(kind='reflection')
    assert other.experience(id).content == 'Ana likes birds.' and id in other.unapproved()
    assert other.approve([id]) == 1
    assert other.experience(id).trust is Trust.APPROVED


def test_what_was_trimmed_is_exported_and_its_summary_is_not(diary, tmp_path):
  said = [
    diary.append(time=T + i, speaker='Ana', content=f'Word{i} was here.', session=f'{i}')
    for i in range(3)
  ]
  night = diary.begin_night({})
  manifest = types.Manifest(
    number=1, parent=None, night=night, created=1.0, base='b', sources=(), seed=0, files={},
    lora={}, scores={}, config={},
  )  # fmt: skip
  diary.promote(manifest, [e.id for e in said], night)
  done = trim.trim(diary, diary.experiences()[:2], trim.TrimConfig())
  assert len(done.archived) == 2 and len(diary.ids(kind='summary')) == 1
  assert export.jsonl(diary, tmp_path / 'out.jsonl') == 3
  _, found = read_back(tmp_path / 'out.jsonl', tmp_path)
  assert [(e.content, e.kind, e.session, e.night) for e in found] == [
    (f'Word{i} was here.', 'chat', f'{i}', None) for i in range(3)
  ]


def test_a_data_set_is_read_back_by_tfds(full, tmp_path):
  tfds = pytest.importorskip('tensorflow_datasets')
  done = []
  assert export.array_record(full, tmp_path / 'set', lambda *x: done.append(x)) == 5
  assert done == [(5, 5)]
  rows = tfds.builder_from_directory(str(tmp_path / 'set')).as_data_source('train')
  assert [r['time_us'] for r in rows] == [round(e.time * 1e6) for e in full.experiences()]
  kinds = [e.kind for e in full.experiences()]
  assert [r['kind'].decode() for r in rows] == kinds and 'reflection' in kinds
  assert rows[2]['content'].decode() == 'Grüße "x"\n2'
  assert rows[2]['scores']['importance'] == 7.5 and rows[2]['trust'] == Trust.APPROVED
  assert json.loads(rows[2]['metadata']) == {'a': [1, None, 'é'], 'language': 'de'}
  assert rows[1]['media']['digest'] == [b'ab' * 32, b'cd' * 32]
  assert {p.name for p in tmp_path.iterdir()} == {'set', 'life'}
  with pytest.raises(ValueError, match='exists'):
    export.array_record(full, tmp_path / 'set')
