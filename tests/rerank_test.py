"""Which memory a question is about, and whether a reply comes from it."""

from __future__ import annotations

import types

import numpy as np
import pytest

from dreaming.brain import chat, gguf, prompts, weights
from dreaming.brain.decode import Decoder
from dreaming.brain.tokenizer import Tokenizer
from dreaming.memory import rerank
from dreaming.memory.recall import Recalled
from dreaming.types import Experience, Mind


def note(id_, text):
  e = Experience(id=id_, time=0.0, kind='chat', speaker='Ana', content=text)
  return Recalled(experience=e, score=1.0, recency=1.0, importance=5.0, relevance=0.5)


class Words:
  """Likelier, the more words of what follows have come before."""

  cache_length = 1024

  def __init__(self):
    self.read = []
    self.tokenizer = types.SimpleNamespace(encode=str.split, decode=' '.join)

  def logprobs(self, mind, prompts, continuations, *, prefix):
    self.read += [f'{p}{c}' for p, c in zip(prompts, continuations, strict=True)]
    return [
      np.array([0.0 if w in p.split() else -3.0 for w in c.split()])
      for p, c in zip(prompts, continuations, strict=True)
    ]


def ids(recalled):
  return [[r.experience.id for r in own] for own in recalled]


def test_the_memory_that_makes_the_question_likeliest_comes_first():
  recalled = [
    [note(1, 'The bus is late'), note(2, 'The parrot is called Kiwi')],
    [note(3, 'Hm')],
    [],
  ]
  asked = ['Who is called Kiwi', 'What?', 'Why?']
  decoder = Words()
  assert ids(rerank.by_question(decoder, None, asked, recalled)) == [[2, 1], [3], []]
  assert len(decoder.read) == 2  # what is alone is not read
  assert decoder.read[0].endswith('Q: Who is called Kiwi\n')


def test_the_likelihood_of_a_question_is_that_after_all_its_memories():
  decoder = Words()
  recalled = [[note(1, 'the parrot sings'), note(2, 'is Kiwi now')], [note(3, 'the Kiwi sings')]]
  found = rerank.likelihood(decoder, None, ['Kiwi parrot', 'Kiwi parrot'], recalled)
  assert found == [0.0, -3.0] and rerank.likelihood(decoder, None, [], []) == []
  decoder.cache_length = 8
  assert rerank.likelihood(decoder, None, ['Kiwi'], recalled[:1]) == [0.0]


def test_evidence_is_what_the_notes_add_to_the_reply_and_some_of_what_they_add_to_the_question():
  decoder = Words()
  own = [[note(1, 'the parrot is Kiwi now')]] * 3
  asked, replies = ['Who?', 'Who?', 'parrot is Who?'], ['Kiwi', 'Rex', 'Kiwi']
  told, guessed, near = rerank.evidence(decoder, None, asked, own, replies)
  assert told == pytest.approx(3.0) and guessed == pytest.approx(0.0)
  assert near == pytest.approx(told + 0.1 * 2 * 3.0)
  assert rerank.evidence(decoder, None, [], [], []).size == 0


@pytest.mark.real
def test_question_and_reply_are_told_apart_by_their_tokens():
  encode = Tokenizer(gguf.load(gguf.EMBEDDED, weights.default_cache())[1]).encode
  for text in ('Who is it?', 'When, at 9 or 10?', "Where\u2019s Zsófi's \U0001f99c?"):
    for reply in (' Zsófi 19.\n', ' a cat\n', ' \n'):
      asked = prompts.question(text).removeprefix(prompts.QUESTION.rstrip())
      assert encode(asked + reply)[: len(encode(asked))] == encode(asked)


def test_a_long_question_and_a_long_memory_are_cut_to_the_room_there_is():
  base = weights.load(weights.ModelConfig(architecture='tiny', weights='random'))
  room = len(base.tokenizer.encode(chat.NOTES_PREFIX)) + 200
  mind, long = Mind(params=base.params), 'Who \U0001f99c is it? ' * 200
  recalled = [[note(1, long), note(2, 'Kiwi')]]
  for length in (room, 64):  # 64: not even room for the examples
    decoder = Decoder(base.arch, base.tokenizer, cache_length=length)
    (first,) = rerank.by_question(decoder, mind, [long], recalled)
    assert sorted(ids([first])[0]) == [1, 2]
    assert rerank.evidence(decoder, mind, [long], [first], ['Kiwi']).shape == (1,)
