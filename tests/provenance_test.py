"""Where what trained comes from, and that nothing trains that is trusted less than it must be."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import pytest

from dreaming import types
from dreaming.memory import trim
from dreaming.memory.diary import Diary
from dreaming.sleep import lineage, provenance
from dreaming.sleep.select import SelectConfig, chosen, select
from dreaming.types import Trust


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


def learn(diary, ids):
  night = diary.begin_night({})
  manifest = types.Manifest(
    number=max((g.number for g in diary.generations()), default=0) + 1,
    parent=diary.active() or None, night=night, created=1.0, base='b', sources=tuple(ids), seed=0,
    files={}, lora={}, scores={}, config={},
  )  # fmt: skip
  diary.promote(manifest, ids, night)


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
