"""Text survives the tokenizer, and control tokens come by id alone."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreaming.brain import weights
from dreaming.brain.tokenizer import Tokenizer, model_proto

BYTES = Tokenizer(weights._byte_proto(512))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(st.characters(codec='utf-8', exclude_characters='\x00▁')))
def test_any_text_comes_back(text):
  assert BYTES.decode(BYTES.encode(text)) == text


def test_spaces_and_line_breaks_stay_where_they_are():
  for text in ('  two', 'end ', ' \n\n  x\ty', '\n', ' '):
    assert BYTES.decode(BYTES.encode(text)) == text


def test_bos_is_put_in_front_on_demand():
  assert BYTES.encode('x', bos=True) == [BYTES.bos, *BYTES.encode('x')]
  assert BYTES.encode('', bos=True) == [BYTES.bos]


def test_control_tokens_never_come_from_text_and_vanish_from_it():
  control = {BYTES.pad, BYTES.eos, BYTES.bos, BYTES.start_of_turn, BYTES.end_of_turn}
  assert len(control) == 5 and min(control) == 0
  for token in control:
    assert not control & set(BYTES.encode(BYTES.piece(token)))
  ids = [BYTES.start_of_turn, *BYTES.encode('hi'), BYTES.end_of_turn]
  assert BYTES.decode(ids) == 'hi'


def test_newlines_are_the_tokens_that_begin_with_one():
  assert BYTES.newlines and all(BYTES.decode([i]).startswith('\n') for i in BYTES.newlines)


def test_a_file_gives_the_same_tokenizer(tmp_path):
  path = tmp_path / 'tokenizer.model'
  path.write_bytes(BYTES.model_proto)
  assert Tokenizer.from_file(path).encode('Ünder 3 trees') == BYTES.encode('Ünder 3 trees')


def test_a_missing_or_damaged_file_is_one_clear_line(tmp_path):
  with pytest.raises(FileNotFoundError, match='no tokenizer at .*set model.tokenizer to') as e:
    Tokenizer.from_file(tmp_path / 'tokenizer.model')
  assert '\n' not in str(e.value)
  for name, data in (('text', b'not a model'), ('half', BYTES.model_proto[:777]), ('empty', b'')):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=f'{name} is not a SentencePiece model') as e:
      Tokenizer.from_file(tmp_path / name)
    assert '\n' not in str(e.value)


def test_an_unknown_token_type_is_named():
  with pytest.raises(ValueError, match="GGUF token type 9 of 'x' is not one of"):
    model_proto(['<pad>', '<eos>', '<bos>', '<unk>', 'x'], [0.0] * 5, [3, 3, 3, 2, 9])


@pytest.mark.real
def test_gemmas_own_tokens():
  from dreaming.brain import gguf

  gemma = Tokenizer(gguf.load(gguf.EMBEDDED, weights.default_cache())[1])
  assert gemma.vocab_size == 262_144
  assert gemma.encode('The sky is', bos=True) == [2, 818, 7217, 563]
  assert (gemma.pad, gemma.eos, gemma.bos) == (0, 1, 2)
  assert (gemma.start_of_turn, gemma.end_of_turn) == (105, 106)
  assert gemma.end_of_turn not in gemma.encode('<end_of_turn>')
  assert all(gemma.piece(i).startswith('\n') for i in gemma.newlines) and len(gemma.newlines) > 20
  for text in ('Grüße, 東京! 🦜', '  indented\n\n\tand tabbed', 'x' * 500, "Priya's parrot"):
    assert gemma.decode(gemma.encode(text)) == text
