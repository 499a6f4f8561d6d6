"""A text's language is told from a sentence on, and of what is no sentence nothing is claimed."""

from __future__ import annotations

import builtins
import lzma
import pathlib
import subprocess
import sys

import pytest

from dreaming.memory import language

ROOT = pathlib.Path(__file__).parents[1]
SENTENCES = {
  'en': ['My parrot is called Biscuit.', 'See you tomorrow, the bus was late again.'],
  'de': ['Mein Papagei heißt Kiwi.', 'Der Bus war heute wieder zu spät.'],
  'fr': ["Mon perroquet s'appelle Kiwi.", 'Le bus était encore en retard.'],
  'es': ['Mi hermana pequeña vive ahora en Lisboa.', 'El autobús llegó otra vez muy tarde.'],
  'it': ['Il mio pappagallo si chiama Kiwi.', "L'autobus era di nuovo in ritardo."],
  'nl': ['Mijn papegaai heet Kiwi.', 'Ik ben gisteren met de trein naar Utrecht gegaan.'],
  'pl': ['Moja papuga nazywa się Kiwi.'],
  'ru': ['Моего попугая зовут Киви.', 'Автобус сегодня опять опоздал.'],
  'ar': ['أختي تعيش في لشبونة وتعزف على التشيلو.'],
  'hi': ['मेरे तोते का नाम कीवी है।'],
  'ja': ['私のオウムはキウイといいます。'],
  'zh': ['我妹妹住在里斯本，在一个小乐团里拉大提琴。', '我養的鸚鵡叫奇異果，牠很聰明。'],
  'ko': ['제 앵무새 이름은 키위예요.'],
}


@pytest.mark.parametrize('code, text', [(c, t) for c, ts in SENTENCES.items() for t in ts])
def test_a_sentence_has_its_language(code, text):
  assert language.of(text) == code == language.of(text)
  assert language.of(f'🦜 {text} 🦜\n') == code


@pytest.mark.parametrize(
  'text',
  ['', ' \n', 'ok', 'Ok!', 'hmm', 'yes', 'да', '是', '東京', '😀😀', '...', '12345 67', 'Biscuit',
   'Priya Raman', 'Kiwi Mango Biscuit', 'Caffe Nero Open', 'ha ha ha ha ha', 'x' * 5000,
   'https://example.com/a/b?c=d', 'def f(x): return x+1', '{"time": 1}', '\0\0\0\0\0\0\0\0',
   'asdf qwer zxcv uiop hjkl'],
)  # fmt: skip
def test_of_what_is_no_sentence_nothing_is_claimed(text):
  assert language.of(text) == ''


def test_of_a_long_text_the_beginning_counts():
  german = 'Gestern sind wir mit dem Zug ans Meer gefahren und haben dort lange geredet. ' * 15
  assert language.of(german + 'The bus was late again, so I walked home. ' * 500) == 'de'


def test_dialects_count_to_their_language_and_what_has_no_code_is_unsaid():
  assert language.of('佢哋而家喺邊度呀？我哋聽日去飲茶好唔好？') == 'zh'  # Cantonese
  assert language.of('I dey go market, wetin you wan make I buy for you?') == ''  # Pidgin


@pytest.fixture
def unloaded():
  language._model.cache_clear()
  yield
  language._model.cache_clear()


def test_without_the_package_there_is_no_language(monkeypatch, unloaded):
  real = builtins.__import__

  def missing(name, *rest):
    if name.startswith('py3langid'):
      raise ImportError(name)
    return real(name, *rest)

  monkeypatch.setattr(builtins, '__import__', missing)
  assert language.of('My parrot is called Biscuit.') == ''


@pytest.mark.parametrize('error', [OSError('no space left'), EOFError(), lzma.LZMAError('damaged')])
def test_a_model_that_cannot_be_loaded_stops_nobody(monkeypatch, unloaded, error):
  from py3langid import langid

  def fail(_):
    raise error

  monkeypatch.setattr(langid, '_load_model_file', fail)
  assert language.of('My parrot is called Biscuit.') == ''


def test_the_core_loads_it_only_when_it_is_asked():
  script = (
    'import sys, dreaming.live\n'
    'from dreaming.memory import language\n'
    'from dreaming.memory.imports import run\n'
    'language.of("ok")\n'
    'print([m for m in sys.modules if m.startswith("py3langid")])'
  )
  done = subprocess.run(
    [sys.executable, '-c', script], cwd=ROOT, capture_output=True, text=True, check=True
  )
  assert done.stdout == '[]\n'
