"""Where what trained comes from, and that nothing trains that is trusted less than it must be."""

from __future__ import annotations

import dataclasses

import hypothesis
import hypothesis.strategies as st
import pytest

from dreaming import types
from dreaming.memory import trim
from dreaming.memory.diary import Diary
from dreaming.sleep import ledger, lineage, provenance
from dreaming.sleep.select import SelectConfig, chosen, select
from dreaming.types import QA, Trust


@pytest.fixture(scope='module')
def diary(tmp_path_factory):
  with Diary(tmp_path_factory.mktemp('trust') / 'diary.sqlite') as diary:
    yield diary


TRUSTS = st.lists(st.sampled_from(Trust), min_size=1, max_size=6)


@hypothesis.settings(
  max_examples=30, deadline=None, suppress_health_check=list(hypothesis.HealthCheck)
)
@hypothesis.given(trusts=TRUSTS, least=st.sampled_from(Trust), data=st.data())
def test_a_dream_has_the_least_trust_of_its_lineage_and_nothing_below_the_limit_trains(
  diary, trusts, least, data
):
  with diary.transaction():
    ids = [
      diary.append(time=float(i), speaker='Ana', content=f'x {i}', trust=t).id
      for i, t in enumerate(trusts)
    ]
    night = diary.begin_night({})
    claimed = st.lists(st.sampled_from(Trust), min_size=1, max_size=4)
    dreams = [
      types.Dream(
        id=0, night=night, style='statement', text='x', trust=own,
        sources=tuple(data.draw(st.lists(st.sampled_from(ids), min_size=1, unique=True))),
      )
      for own in data.draw(claimed)
    ]  # fmt: skip
    kept = diary.add_dreams(dreams)
    diary.end_night(night, 'rejected')
  of = dict(zip(ids, trusts, strict=True))
  for before, after in zip(dreams, kept, strict=True):
    assert after.trust == min([before.trust, *(of[i] for i in after.sources)])
  trained = lineage.lessons(kept, least)
  assert all(of[i] >= least for d in trained for i in d.sources)
  assert [d for d in kept if d not in trained] == [d for d in kept if d.trust < least]
  config = SelectConfig(trust=least.name.lower(), top_k=10_000)
  taken = {e.id for e in select(diary, diary.embeddings('e'), config, 1e9)} & set(ids)
  assert taken == {i for i in ids if of[i] >= least}
  assert {e.id for e in chosen(diary, ids, config)} == taken  # also where it was withdrawn since


WEEK = 604_800.0
SAID = st.lists(  # whose words, in which week, learned in which of two nights, and their trust
  st.tuples(st.sampled_from('AB'), st.integers(0, 1), st.integers(0, 1), st.sampled_from(Trust)),
  min_size=1,
  max_size=8,
)


@hypothesis.settings(
  max_examples=30, deadline=None, suppress_health_check=list(hypothesis.HealthCheck)
)
@hypothesis.given(said=SAID, least=st.sampled_from(Trust), data=st.data())
def test_a_summary_has_the_least_trust_of_what_it_stands_for(diary, said, least, data):
  with diary.transaction():
    ids = [
      diary.append(time=week * WEEK + i, speaker=who, content=f'x {i}', trust=t).id
      for i, (who, week, _, t) in enumerate(said)
    ]
    diary.approve(data.draw(st.sets(st.sampled_from(ids))))  # it is the trust of now that counts
    for number in (0, 1):
      learn(diary, [id for id, (_, _, night, _) in zip(ids, said, strict=True) if night == number])
    done = trim.trim(diary, diary.experiences(ids=ids), trim.TrimConfig())
  assert sorted(done.archived) == ids
  stood = [diary.summarised(id) for id in done.summaries]
  assert sorted(sum(stood, [])) == ids
  for id, some in zip(done.summaries, stood, strict=True):
    assert diary.experience(id).trust == min(e.trust for e in diary.experiences(ids=some))
  config = SelectConfig(trust=least.name.lower(), top_k=10_000)
  taken = {e.id for e in select(diary, diary.embeddings('e'), config, 1e9)}
  assert not taken & {*ids, *done.summaries}  # no night learns them again, nor what stands for them


@dataclasses.dataclass
class Life:
  """What was told, who let it be dreamt of, and what became of it: the diary must agree with it."""

  was: dict[int, Trust]  # id -> the trust that it came with
  approved: set[int] = dataclasses.field(default_factory=set)
  witness: dict[int, int] = dataclasses.field(default_factory=dict)
  lowered: dict[int, Trust] = dataclasses.field(default_factory=dict)
  gone: set[int] = dataclasses.field(default_factory=set)

  @property
  def left(self) -> list[int]:
    return [i for i in self.was if i not in self.gone]

  def trust(self, id: int) -> Trust:
    if id in self.approved:
      found = Trust.APPROVED
    else:
      found = self.was[id]
      by = self.witness.get(id)
      if by is not None and by not in self.gone and self.trust(by) >= Trust.USER:
        found = max(found, Trust.USER)
    return min(found, self.lowered.get(id, found))

  def least(self, ids) -> Trust:
    return min(self.trust(i) for i in ids)

  def approve(self, diary, ids):
    diary.approve(ids)
    self.approved |= {*ids}
    self.witness = {i: by for i, by in self.witness.items() if i not in ids}

  def corroborate(self, diary, draw):
    """What came later says it: the user's own words, or others' that are corroborated by then."""
    for i in reversed(self.left):
      later = [j for j in self.left if j > i and self.trust(j) == Trust.USER]
      if later and self.trust(i) < Trust.USER:
        self.witness[i] = draw(st.sampled_from(later))
        diary.corroborate({i: self.witness[i]})

  def forget(self, diary, id):
    diary.forget([id])
    self.gone.add(id)
    self.witness = {
      i: by for i, by in self.witness.items() if by in self.left and self.trust(by) >= Trust.USER
    }

  def lower(self, diary, id, trust):
    self.lowered[id] = trust
    diary._run('UPDATE experiences SET trust = min(trust, ?) WHERE id = ?', (int(trust), id))


@hypothesis.settings(
  max_examples=120, deadline=None, suppress_health_check=list(hypothesis.HealthCheck)
)
@hypothesis.given(
  trusts=st.lists(st.sampled_from([*Trust, Trust.USER]), min_size=3, max_size=6),
  limits=st.tuples(*[st.sampled_from([*Trust, Trust.USER])] * 3),
  data=st.data(),
)
def test_what_lost_its_trust_or_is_gone_is_rehearsed_in_no_later_night(diary, trusts, limits, data):
  """Two nights dream; then approvals and witnesses go; the third night rehearses what is left."""
  draw = data.draw
  diary.activate(0)
  with diary.transaction():
    told = [
      diary.append(time=float(i), speaker='Ana', content=f'x {i}', trust=t).id
      for i, t in enumerate(trusts)
    ]
    life = Life(dict(zip(told, trusts, strict=True)))
    some = st.lists(st.sampled_from(told), unique=True, max_size=2)
    life.approve(diary, draw(some))
    life.corroborate(diary, draw)
    dreamt: list[tuple[types.Dream, Trust]] = []  # with what its night asked for
    for limit in limits[:2]:
      if able := [i for i in told if life.trust(i) >= limit]:
        sources = st.lists(st.sampled_from(able), min_size=1, max_size=2, unique=True)
        sources = draw(st.lists(sources, min_size=1, max_size=3))
        dreamt += [(d, limit) for d in dreams_of(diary, sources, able, limit)]
  # ---- And then ----
  life.approve(diary, draw(some))
  for id in draw(st.lists(st.sampled_from(told), unique=True, min_size=1, max_size=2)):
    life.forget(diary, id)
  for id in draw(some):
    if id in life.left and id not in life.witness.values():
      life.lower(diary, id, draw(st.sampled_from(Trust)))
  now = {e.id: e.trust for e in diary.experiences(ids=told)}
  assert now == {i: life.trust(i) for i in life.left}
  rehearsed = ledger.rehearsal(diary, [], 1, limits[2])
  assert [d.text for d in rehearsed] == [
    d.text
    for d, asked in dreamt
    if {*d.sources} <= {*life.left} and life.least(d.sources) >= asked
    if min(d.trust, life.least(d.sources)) >= limits[2]
  ]


def dreams_of(diary, sources, ids, limit):
  """A night that asks for some trust, and is promoted; its dreams."""
  night = diary.begin_night({'select': {'trust': limit.name.lower()}})
  fields = {'id': 0, 'night': night, 'style': 'statement', 'trust': Trust.APPROVED}
  made = diary.add_dreams(
    types.Dream(text=f'night {night}, dream {i}', sources=tuple(s), **fields)
    for i, s in enumerate(sources)
  )
  end(diary, night, ids)
  return made


def learn(diary, ids):
  night = diary.begin_night({})
  end(diary, night, ids)


def end(diary, night, ids):
  manifest = types.Manifest(
    number=max((g.number for g in diary.generations()), default=0) + 1,
    parent=diary.active() or None, night=night, created=1.0, base='b', sources=tuple(ids), seed=0,
    files={}, lora={}, scores={}, config={},
  )  # fmt: skip
  diary.promote(manifest, ids, night)


@pytest.fixture
def own(tmp_path):
  with Diary(tmp_path / 'diary.sqlite') as own:
    yield own


def told(diary, content, trust=Trust.USER):
  time = float(len(diary.ids(archived=None)) + 1)
  return diary.append(time=time, speaker='Ana', content=content, trust=trust).id


def dreamt(diary, *dreams):
  """A night that is promoted with (style, question, answer, *sources)."""
  night, ids = diary.begin_night({}), sorted({i for _, _, _, *of in dreams for i in of})
  fields = {'id': 0, 'night': night}
  diary.add_dreams(
    types.Dream(style=s, text='', pairs=(QA(question=q, answer=a),), sources=tuple(of), **fields)
    for s, q, a, *of in dreams
  )
  end(diary, night, ids)


def answers(dreams):
  return [p.answer for d in dreams for p in d.pairs]


CITY = 'Which city is home?'


def test_what_is_withdrawn_neither_corrects_nor_is_examined(own):
  porto, page, said = told(own, 'Porto.'), told(own, 'Braga.', Trust.THIRD_PARTY), told(own, 'Ah.')
  dreamt(own, ('question', CITY, 'Porto', porto), ('exam', 'At home in?', 'Porto', porto))
  own.corroborate({page: said})
  dreamt(own, ('question', CITY, 'Braga', page), ('exam', 'Where is the house?', 'Braga', page))
  assert answers(ledger.rehearsal(own, [], 1)) == ['Braga']
  assert [q.answers for q in lineage.questions(own, limit=9)] == [('Braga',)]
  own.forget([said])
  assert answers(ledger.rehearsal(own, [], 1)) == ['Porto']
  assert [q.answers for q in lineage.questions(own, limit=9)] == [('Porto',)]
  assert answers(lineage.told(own, 2)) == ['Braga']  # it is in the weights, and told to be


def test_tonights_dreams_correct_only_where_they_train(own):
  porto, page = told(own, 'Porto.'), told(own, 'Braga.', Trust.THIRD_PARTY)
  dreamt(own, ('question', CITY, 'Porto', porto))
  fields = {'id': 0, 'night': 2, 'style': 'question', 'text': '', 'sources': (page,)}
  newer = types.Dream(pairs=(QA(question=CITY, answer='Braga'),), **fields)
  assert ledger.rehearsal(own, [newer], 1) == []
  for change in ({'status': types.Status.REJECTED}, {'trust': Trust.THIRD_PARTY}):
    tonight = [dataclasses.replace(newer, **change)]
    assert answers(ledger.rehearsal(own, tonight, 1)) == ['Porto'], change


def test_a_correction_goes_with_whatever_its_night_has_learned(own):
  page, said, new = told(own, 'Braga.', Trust.IMPORTED), told(own, 'Ah.'), told(own, 'Faro.')
  own.corroborate({page: said})
  dreamt(
    own, ('question', CITY, 'Faro', new), ('correction', 'Braga or Faro?', 'Faro', new),
    ('question', 'Of what is the page?', 'Braga', page),
  )  # fmt: skip
  dreamt(own, ('correction', 'Porto or Lagos?', 'Lagos', new))
  assert len(ledger.rehearsal(own, [], 1)) == 4
  own.forget([said])
  left = [p.question for d in ledger.rehearsal(own, [], 1) for p in d.pairs]
  assert left == [CITY, 'Porto or Lagos?']


def test_what_others_corroborated_goes_with_what_corroborated_them(own):
  said, page = told(own, 'Kiwi is a parrot.'), told(own, 'Kiwi.', Trust.THIRD_PARTY)
  other = told(own, 'Parrot Kiwi.', Trust.IMPORTED)
  own.corroborate({page: said})
  own.corroborate({other: page})
  dreamt(own, ('question', 'Who?', 'Kiwi', other))
  assert len(ledger.rehearsal(own, [], 1)) == 1
  own.forget([said])
  assert [own.experience(i).trust for i in (page, other)] == [Trust.THIRD_PARTY, Trust.IMPORTED]
  assert own.approvals() == [] and ledger.rehearsal(own, [], 1) == []


def test_what_a_summary_corroborated_is_withdrawn_when_the_summary_goes(own):
  said = told(own, 'Kiwi is a parrot.')
  learn(own, [said])
  [summary] = trim.trim(own, [own.experience(said)], trim.TrimConfig()).summaries
  page = told(own, 'Kiwi, a parrot.', Trust.THIRD_PARTY)
  own.corroborate({page: summary})
  dreamt(own, ('question', 'Who?', 'Kiwi', page))
  assert len(ledger.rehearsal(own, [], 1)) == 1
  own.restore([said])
  assert own.experience(page).trust == Trust.THIRD_PARTY and own.approvals() == []
  assert ledger.rehearsal(own, [], 1) == []
  own.corroborate({page: said})  # who said it is at hand again
  assert len(ledger.rehearsal(own, [], 1)) == 1


def test_of_a_night_is_told_what_trained_and_who_let_it(tmp_path):
  with Diary(tmp_path / 'diary.sqlite') as diary:
    own = diary.append(time=1.0, speaker='Ana', content='My parrot is Kiwi.')
    page = diary.append(time=2.0, speaker='Ana', content='Read.', trust=Trust.THIRD_PARTY)
    diary.approve([page.id], 'Ines')
    night = diary.begin_night({})
    fields = {'id': 0, 'night': night, 'style': 'list', 'text': 'x'}
    [dream] = diary.add_dreams([types.Dream(sources=(own.id, page.id), **fields)])
    with pytest.raises(ValueError, match='has no lineage'):
      provenance.of_night(diary, night)
    left = [['prompt', 0, 50, 0], ['dream', dream.id, 30, 20], ['raw', own.id, 8, 7]]
    diary.set_night_step(night, 'corpus', {'lineage': left})
    diary.end_night(night, 'rejected')
    told = provenance.of_night(diary, night)
    assert [(t.kind, t.learned) for t in told] == [('dream', 20), ('raw', 7), ('prompt', 0)]
    first, raw, prompt = told
    assert first.sources == (own.id, page.id) and first.trust == Trust.USER
    assert [(a.experience, a.who) for a in first.approved] == [(page.id, 'Ines')]
    assert (raw.sources, raw.trust, raw.approved) == ((own.id,), Trust.USER, ())
    assert (prompt.sources, prompt.trust) == ((), None)
    diary.forget([page.id])
    with pytest.raises(ValueError, match='has no lineage'):
      provenance.of_night(diary, night)


def test_a_trust_that_does_not_exist_is_refused():
  with pytest.raises(ValueError, match="select.trust is 'everyone': take one of imported"):
    SelectConfig(trust='everyone')
