"""The benchmark of passages: what counts as right, and which files are refused."""

from __future__ import annotations

import json

import pytest

from benchmarks import knowledge_incorporation as benchmark


@pytest.mark.parametrize(
  ('reply', 'answers', 'right'),
  [
    ('The Old Mill.', ['old mill'], True),
    ('It is in 1892, they say', ['1892'], True),
    ('18921', ['1892'], False),
    ('an oak', ['the oak'], True),
    ('Mill\nthe old mill', ['old mill'], False),  # only the first line counts
    ('', ['x'], False),
    ('blue-green algae', ['blue green'], True),
  ],
)
def test_words_count_normalised_and_whole(reply, answers, right):
  assert benchmark.right(reply, answers) is right


def test_the_shipped_file_and_squads_own_answers_are_read(tmp_path):
  passages = benchmark.load(benchmark.common.ROOT / 'benchmarks' / 'passages.json')
  assert len(passages) == 24 and all(len(p.questions) == 5 for p in passages)
  file = tmp_path / 'squad.json'
  question = {'question': 'Who?', 'answers': [{'text': 'Ana', 'answer_start': 0}]}
  file.write_text(json.dumps([{'title': 't', 'context': 'Ana.', 'questions': [question]}]))
  assert benchmark.load(file)[0].questions == (('Who?', ('Ana',)),)


@pytest.mark.parametrize(
  ('text', 'why'),
  [
    ('[]', 'no passage'),
    ('{', 'layout'),
    ('[{"title": "t"}]', 'layout'),
    ('[1]', 'layout'),
    ('[{"title": "t", "context": "c", "questions": [{"question": "q", "answers": []}]}]', 'none'),
    (
      '[{"title": "t", "context": "c", "questions": [{"question": "q", "answers": ["!"]}]}]',
      'none',
    ),
  ],
)
def test_other_files_are_refused_with_the_reason(tmp_path, text, why):
  file = tmp_path / 'x.json'
  file.write_text(text)
  with pytest.raises(ValueError, match=why):
    benchmark.load(file)
