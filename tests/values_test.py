"""Which words of a message may be the value of a fact, and of which kinds."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from dreaming.sleep import bank, belief, values
from dreaming.sleep.bank import fill
from dreaming.sleep.belief import Checked, Fact
from dreaming.sleep.relations import Message

LABELS = {'parrot': ' animal', 'cello': ' instrument', 'rang': ' verb', 'carrot': ' food',
          'cake': ' food', 'baker': ' person', 'swimming': ' verb', 'blue': ' quality'}  # fmt: skip


class Reader:
  """Knows for sure what a word is."""

  def choose(self, mind, prompts, options, *, prefix):
    del mind, prefix
    table = np.full((len(prompts), len(options)), -9.0, np.float32)
    for row, prompt in zip(table, prompts, strict=True):
      word = prompt.removesuffix(':').split('\n')[-1]
      label = 'verb' if '"I need a rest"' in prompt and word == 'rest' else LABELS[word].strip()
      row[options.index(f' {label}')] = 0.0
    return table


def types(*words, text='...'):
  return values.noun_types(Reader(), None, [(text, list(words))])[0]


def test_a_word_is_asked_about_as_what_it_is():
  found = types('parrot', 'cello', 'baker')
  assert set(found['parrot']) == {'animal', 'any'}
  assert set(found['cello']) == {'thing', 'activity', 'any'}
  assert set(found['baker']) == {'job', 'any'}
  assert found['baker']['job'] == pytest.approx(0, abs=0.01)


def test_verbs_and_qualities_are_no_values_but_doing_is():
  assert types('rang', 'blue') == {}
  assert set(types('swimming')['swimming']) == {'activity', 'any'}
  assert types() == {}


def test_each_message_has_its_own_words():
  found = values.noun_types(Reader(), None, [('a', ['cello', 'rang']), ('b', []), ('c', ['cake'])])
  assert [sorted(f) for f in found] == [['cello'], [], ['cake']]


def test_of_two_words_both_must_be_values():
  assert set(types('carrot cake')['carrot cake']) == {'food', 'any'}
  assert 'rang cake' not in types('rang cake', 'cake')


@pytest.mark.parametrize(
  ('text', 'value', 'whole'),
  [
    ('She was a telegraph operator, back then.', 'operator', 'telegraph operator'),
    ('The two goats got into the bean patch again.', 'patch', 'bean patch'),
    ('I sat for hours in the old town library.', 'library', 'town library'),
    ('The goats ate beans.', 'beans', 'beans'),
    ('The clay never dries, I like clay.', 'clay', 'clay'),
    ('A shelf collapsed in the kiln.', 'kiln', 'kiln'),
    ('The operator of the telegraph.', 'telegraph', 'telegraph'),
    ('The green Raleigh is mine.', 'Raleigh', 'Raleigh'),  # a name is one
    ('On the 19th of March.', '19th of March', '19th of March'),
    ("The old dairy's roof.", 'dairy', 'dairy'),
  ],
)
def test_a_word_is_taken_with_what_its_article_has(text, value, whole):
  assert values.whole(text, value) == whole


def test_a_contraction_is_no_name():
  found = dict(values.spans("I'll ask. Don't tell D'Arcy that I’ve met Mary O'Neil.", 'Ana'))
  assert [s for s, kinds in found.items() if kinds is values.NAMES] == ["D'Arcy", "Mary O'Neil"]


def test_spans_are_dates_names_and_words():
  found = dict(values.spans('On the 12th of March Leela bought a cello.', 'Priya'))
  assert {'the 12th of March', 'Leela', 'cello'} <= set(found)
  assert 'date' in found['the 12th of March'] and 'person' in found['Leela']
  assert 'Priya' not in dict(values.spans('I am Priya.', 'Priya'))


def test_a_capital_at_the_start_of_a_sentence_makes_no_name():
  text = 'Strawberries are out. Leela agrees. My Ana does not.'
  found = dict(values.spans(text, 'Priya', lambda word: word == 'Leela'))
  assert found['strawberries'] is values.NOUNS and 'Strawberries' not in found
  assert found['Leela'] is values.NAMES and found['Ana'] is values.NAMES


def test_what_was_moved_has_its_new_date_alone():
  found = dict(values.spans('It moved from the 12th to the 19th of March.', 'Priya'))
  assert 'the 19th of March' in found and 'the 12th' not in found


def test_whose_somebody_is_is_no_value():
  found = dict(values.spans('My wife met our neighbour in winter.', 'Priya'))
  assert not {'wife', 'neighbour'} & set(found)
  assert found['winter'] == {'season', 'any'}


@pytest.mark.parametrize(
  ('text', 'said'),
  [
    ('My old friend Ana rang.', True),
    ('Our friend, Ana, rang.', True),
    ('My friend is called Ana.', True),
    ('Ana, my best friend, rang.', True),
    ('My friend Dr Ana rang.', True),
    ("My brother's friend Ana rang.", False),
    ('My friend met Ana.', False),
    ('Ana has a friend.', False),
    ('My friend Anabel rang.', False),
  ],
)
def test_whose_name_it_is_stands_beside_it(text, said):
  assert values.apposed(text, ('friend', 'mate'), 'Ana') == said


@pytest.mark.parametrize(
  ('text', 'names', 'found'),
  [
    ('My sister sings.', [], ['sister']),
    ('My little sister Leela sings.', ['Leela'], []),
    ('Mum rang, and my uncle is ill.', [], ['mum', 'uncle']),
    ('A sister is a blessing.', [], []),
    ("My sister's cat is ill.", [], []),
    ('My coach shouts.', [], ['coach']),
  ],
)
def test_whom_a_message_speaks_of_without_a_name(text, names, found):
  assert values.roles(text, names) == found


def test_who_has_a_name_and_a_role_is_called_by_both():
  said = [Message(text='My sister Leela met Ivo, our neighbour.', source=1, user='Ana')]
  assert values.aliases(said) == {
    'Leela': ["Ana's sister", "Ana's sibling"],
    'Ivo': ["Ana's neighbour"],
    "Ana's sister": ["Ana's sibling"],
  }


@pytest.mark.parametrize(
  ('template', 'value', 'text'),
  [
    ('{user} goes there on {value}.', 'October', 'Ana goes there in October.'),
    ('{user} goes there on {value}.', 'March 12', 'Ana goes there on March 12.'),
    ('{user} has a {value}.', 'apple', 'Ana has an apple.'),
    ('{user} has a {value}.', 'the apple', 'Ana has an apple.'),
  ],
)
def test_templates_are_filled_grammatically(template, value, text):
  assert fill(template, user='Ana', person='', value=value) == text


# ---- What is believed ----


def fact(name, value, *, odds=0.0, source=1):
  """A fact whose statements say that much for it, beside its bias and its type."""
  relation = next(r for r in bank.bank() if r.name == name)
  return Fact(relation=relation, user='Ana', person='', value=value, source=source,
              score=odds / belief.WEIGHTS['score'], gain=0.0)  # fmt: skip


def checked(gain=0.0, passed=('Who?',)):
  return Checked(passed=list(passed), failed=[], gain=gain)


def settle(*pairs, threshold=0.0):
  believed, misread = belief.settle(pairs, threshold)
  return [(f.relation.name, f.value) for f, _ in believed], {f.relation.name for f, _ in misread}


def test_a_fact_is_believed_by_its_odds_and_what_reading_adds():
  good, bad = settle(
    (fact('pet_name', 'Biscuit', odds=6.0), checked()),
    (fact('boss_name', 'Henrik', odds=-6.0), checked()),
    (fact('thing_lost', 'office', odds=6.0), checked(passed=())),
  )
  assert good == [('pet_name', 'Biscuit')] and bad == {'boss_name', 'thing_lost'}
  told = fact('pet_name', 'Biscuit')
  assert belief.of(told, checked(6.0)) > belief.of(told, checked(0.0))


def test_every_feature_of_a_reading_has_its_weight_and_its_limits():
  told = fact('pet_name', 'Biscuit')
  assert set(belief.features(told, checked())) == set(belief.WEIGHTS)
  assert set(belief.WEIGHTS) - set(belief.features(told)) == {'reading', 'answer'}
  wild = dataclasses.replace(told, channel=1e6, shared=1e6, kind=-1e6)
  assert belief.features(wild)['channel'] == 8 and belief.features(wild)['shared'] == 12
  assert belief.rank(wild) - belief.rank(told) < 10


def test_of_several_readings_the_likeliest_is_believed():
  good, bad = settle(
    (fact('niece_name', 'Amara', odds=5.0), checked()),
    (fact('best_friend_name', 'Amara', odds=6.0), checked()),
  )
  assert good == [('best_friend_name', 'Amara')] and bad == {'niece_name'}


def test_one_message_gives_a_relation_one_value():
  good, _ = settle(
    (fact('dentist_date', 'the 19th of March', odds=7.0), checked(1.0)),
    (fact('dentist_date', 'the 12th', odds=6.0), checked(1.0)),
  )
  assert good == [('dentist_date', 'the 19th of March')]
