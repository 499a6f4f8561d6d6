"""WordLlama from its files: unit rows, meaning, and nothing heavy or online behind it."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import numpy as np
import pytest

from dreaming import types
from dreaming.memory import embed


@pytest.fixture(scope='module')
def wordllama():
  return embed.wordllama()


def test_rows_are_unit_and_do_not_depend_on_their_neighbours(wordllama):
  texts = ['My parrot is called Kiwi.', 'x', 'Ein längerer Satz über das Wetter. ' * 400]
  rows = wordllama(texts)
  assert rows.shape == (3, wordllama.dim) and rows.dtype == np.float32
  np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
  for text, row in zip(texts, rows, strict=True):
    np.testing.assert_array_equal(wordllama([text])[0], row)


def test_an_empty_text_is_a_zero_row_and_no_texts_no_rows(wordllama):
  assert not wordllama(['']).any()
  assert wordllama([]).shape == (0, wordllama.dim)


def test_it_is_the_mean_of_the_token_vectors(wordllama):
  text = 'a dog and a dog and a cat'
  ids = wordllama._tokenizer.encode(text, add_special_tokens=False).ids
  mean = wordllama._table[ids].astype(np.float64).mean(0)
  np.testing.assert_allclose(wordllama([text])[0], mean / np.linalg.norm(mean), atol=1e-6)


def test_questions_find_their_facts(wordllama):
  facts = ['My sister Anita lives in Lisbon.', 'My dentist appointment is on Thursday at four.']
  questions = ['Where does my sister live?', 'When do I see the dentist?']
  cosines = wordllama(questions) @ wordllama(facts).T
  assert cosines.argmax(1).tolist() == [0, 1]
  assert cosines.diagonal().min() > 0.4


def test_the_text_of_an_experience_holds_what_was_shown(wordllama):
  e = types.Experience(
    id=1,
    time=0.0,
    kind='chat',
    speaker='Priya',
    content='Look!',
    response='Nice.',
    media=(types.Media(kind='image', digest='00', description='a green parrot'),),
  )
  assert embed.experience_text(e) == 'Look!\na green parrot'


def test_it_needs_no_torch_no_network_and_not_the_package_itself():
  code = (
    'import socket, sys\n'
    'def refuse(*_, **__): raise AssertionError("network")\n'
    'socket.socket.connect = refuse; socket.getaddrinfo = refuse\n'
    'from dreaming.memory import embed\n'
    'assert not {"tokenizers", "safetensors"} & set(sys.modules), "not lazy"\n'
    'assert embed.make("wordllama")(["hello"]).any()\n'
    'heavy = {"torch", "wordllama", "requests", "tensorflow", "transformers"} & set(sys.modules)\n'
    'assert not heavy, heavy\n'
  )
  subprocess.run([sys.executable, '-c', code], check=True)


def test_an_unknown_name_says_which_are_known():
  with pytest.raises(ValueError, match="'glove', known is 'wordllama'"):
    embed.make('glove')


@pytest.mark.parametrize('file', ['weights/l2_supercat_256.safetensors', 'tokenizers/x', ''])
def test_missing_or_damaged_files_are_named(tmp_path, monkeypatch, file):
  root = tmp_path / 'wordllama'
  for name in (
    '__init__.py',
    'weights/l2_supercat_256.safetensors',
    'tokenizers/l2_supercat_tokenizer_config.json',
  ):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(b'garbage')
  spec = embed.importlib.util.spec_from_file_location('wordllama', root / '__init__.py')
  if not file:
    spec = None
  elif file.startswith('tokenizers'):
    next((root / 'tokenizers').iterdir()).unlink()
  monkeypatch.setattr(embed.importlib.util, 'find_spec', lambda name: spec)
  error = ValueError if file.startswith('weights') else FileNotFoundError
  with pytest.raises(error, match='install.* wordllama') as caught:
    embed.wordllama()
  assert '\n' not in str(caught.value)
  assert not file or pathlib.Path(file).parts[0] in str(caught.value)
