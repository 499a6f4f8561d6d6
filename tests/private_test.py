"""Secrets are struck out of what nights read, and plain talk is left as it is."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import pytest

from dreaming import types
from dreaming.memory import private

KEY = 'sk_' + 'live_4eC39HqLyjWDarjtT1zdp7dc'  # joined, or scanners would take it for a real one


@pytest.mark.parametrize(
  ('text', 'secrets'),
  [
    ('My password is hunter2.', ['hunter2']),
    ('The password for the router is "correct horse", remember?', ['"correct horse"']),
    ('password: Tr0ub4dor&3', ['Tr0ub4dor&3']),
    ('My PIN is 4921!', ['4921']),
    ('the pin code of my card is now 0-0-7', ['0-0-7']),
    ('The alarm code is 77#12, please.', ['77#12']),
    ('CVV: 123', ['123']),
    ('The combination of the safe is 12-34-56.', ['12-34-56']),
    ('The wifi key is kiwi_2026', ['kiwi_2026']),
    ('Use https://bob:secretpw@example.com/x', ['secretpw']),
    (f'My key is {KEY} for payments.', [KEY]),
    ('xoxb-1234567890-123456-abcdefghijkl', ['xoxb-1234567890-123456-abcdefghijkl']),
    ('AKIAIOSFODNN7EXAMPLE', ['AKIAIOSFODNN7EXAMPLE']),
    ('ghp_16C7e42F292c6912E7710c838347Ae178B4a, ok', ['ghp_16C7e42F292c6912E7710c838347Ae178B4a']),
    ('My card is 4111 1111 1111 1111, valid to 2027.', ['4111 1111 1111 1111']),
    ('5500-0055-5555-5559', ['5500-0055-5555-5559']),
    ('My card is 4111 1111 1111 1111.', ['4111 1111 1111 1111']),
    ('Send it to DE89 3704 0044 0532 0130 00.', ['DE89 3704 0044 0532 0130 00']),
    (
      '-----BEGIN RSA PRIVATE KEY-----\nMIIB\n-----END RSA PRIVATE KEY----- there',
      ['-----BEGIN RSA PRIVATE KEY-----\nMIIB\n-----END RSA PRIVATE KEY-----'],
    ),
    ('The code for the front door is 4921.', ['4921']),
    ('Use the password Tulip-77 for the wifi.', ['Tulip-77']),
    ('The safe opens with 18-36-42, I think.', ['18-36-42']),
    ('I set the pin to 8080.', ['8080']),
    ('My password is Tulip, by the way', ['Tulip']),
    ('-----BEGIN PRIVATE KEY-----\nMIIB', ['-----BEGIN PRIVATE KEY-----\nMIIB']),
  ],
)
def test_secrets_are_found_whole(text, secrets):
  assert [text[f.start : f.end] for f in private.find(text)] == secrets
  struck = private.strike(text)
  assert not any(s in struck for s in secrets) and private.STRUCK in struck


@pytest.mark.parametrize(
  'text',
  [
    '',
    'I have adopted a parrot, his name is Biscuit.',
    'I forgot my password again.',
    'The password is wrong, it says.',
    'My secret is simple: I get up early.',
    'Secret: Cyril and I are plotting a party.',
    'The pin is made of silver.',
    'The combination of garlic and lemon is wonderful.',
    'His token was a ring.',
    'My daughter was born on 2019-04-23 at 07:45, in 2019.',
    'See https://example.com/articles/2026/11/a-very-long-title-of-a-page-12345',
    'We met in Llanfairpwllgwyngyllgogerychwyrndrobwllllantysiliogogogoch.',
    'The flat costs 1,250,000.00 and has 120 square metres.',
    'Order 1234 5678 9012 3456 is late.',  # not by Luhn's sum
    'Call me at +49 170 1234567 or write to ana@example.com.',
    'supercalifragilisticexpialidocious-and-more-2026',
    '0000 0000 0000 0000',
  ],
)
def test_plain_talk_is_left_as_it_is(text):
  assert private.strike(text) == text


def test_addresses_and_numbers_on_request():
  text = 'Call +49 170 1234567 or 0171/987654, or write to ana.b+x@mail.example.com on 4 May.'
  assert private.strike(text, contacts=True) == 'Call *** or ***, or write to *** on 4 May.'


def test_all_that_a_night_reads_is_struck():
  media = types.Media(kind='image', digest='0', description='text in the picture: PIN is 4921')
  e = types.Experience(
    id=1, time=0.0, kind='chat', speaker='Ana', content='My PIN is 4921.',
    response='I will remember that your PIN is 4921.', media=(media,),
  )  # fmt: skip
  assert '4921' not in repr(private.without_secrets(e))
  plain = types.Experience(id=1, time=0.0, kind='chat', speaker='Ana', content='Hello.')
  assert private.without_secrets(plain) == plain


def lived(id, content, response=''):
  return types.Experience(
    id=id, time=float(id), kind='chat', speaker='Ana', content=content, response=response
  )


def test_an_echo_of_a_secret_is_struck_where_its_form_says_nothing():
  e = lived(1, 'My password is "correct horse".', 'Correct horse, I will keep it to myself.')
  assert 'horse' not in repr(private.without_secrets(e)).casefold()


def test_what_is_a_secret_in_one_place_is_struck_in_all_of_a_diary():
  first, last = lived(1, 'I paid with 4921 today.'), lived(2, 'My PIN is 4921.')
  secrets = private.Secrets.of([last, first])
  assert secrets.without(first).content == 'I paid with *** today.'
  assert secrets.strike('In 14921 and 4921a nothing is.') == 'In 14921 and 4921a nothing is.'
  told = private.Secrets.of([lived(1, 'My password is "apple".')])
  assert told.strike('I have an apple.') == 'I have an apple.'  # which tells nobody the password


def test_an_answer_is_a_secret_when_the_message_before_speaks_of_one():
  asked = lived(1, 'I never remember the wifi password.', 'What is it?')
  secrets = private.Secrets.of([asked, lived(2, "It's heron-22.")])
  assert secrets.strike("It's heron-22.") == "It's ***."
  late = private.Secrets.of([asked, lived(2, "It's 7pm.")])
  assert late.strike('See you at 7pm.') == 'See you at 7pm.'
  plain = private.Secrets.of([lived(1, 'I have a new bike.'), lived(2, "It's a B-22.")])
  assert plain.strike("It's a B-22.") == "It's a B-22."


def test_a_dream_is_clean_without_a_secret_in_either_half():
  secrets = private.Secrets.of([])
  asked = types.QA(question="What is Ana's door code?", answer='4921')
  common = {'id': 0, 'night': 1, 'style': 'question', 'text': ''}
  assert not secrets.clean(types.Dream(pairs=(asked,), **common))
  assert secrets.clean(
    types.Dream(pairs=(types.QA(question='How old is Bo?', answer='4'),), **common)
  )
  assert not secrets.clean(types.Dream(**common | {'text': 'Her PIN is 4921.'}))


@hypothesis.given(st.text(max_size=300))
def test_whatever_is_said(text):
  found = private.find(text, contacts=True)
  assert all(0 <= f.start < f.end <= len(text) for f in found)
  assert all(a.end <= b.start for a, b in zip(found, found[1:], strict=False))


@pytest.mark.parametrize(
  'text', ['a' * 60_000, '1 ' * 30_000, 'password is ' * 5000, 'x:y@' * 9000]
)
def test_a_long_message_takes_no_longer_than_it_must(text):
  import time

  begin = time.process_time()
  private.strike(text, contacts=True)
  assert time.process_time() - begin < 5  # a backtracking pattern would take minutes
