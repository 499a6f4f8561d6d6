"""A live server on the tiny architecture, asked by the official OpenAI client."""

from __future__ import annotations

import threading

import numpy as np
import openai
import pytest

from benchmarks.serve_live import Live, serve_config
from dreaming.agent import Agent

SAY = [{'role': 'user', 'content': 'I have a parrot.'}]


@pytest.fixture(scope='module')
def live(tmp_path_factory):
  with Agent(serve_config(tmp_path_factory, 'serve')) as agent, Live(agent) as live:
    yield live


def chat(live, **fields):
  fields = {'model': 'agent@0', 'messages': SAY, 'max_tokens': 6} | fields
  return live.client.chat.completions.create(**fields)


def streamed(live, **fields):
  """(text of choice 0, its finish reason, all chunks)"""
  chunks = list(chat(live, stream=True, **fields))
  choices = [c.choices[0] for c in chunks if c.choices and c.choices[0].index == 0]
  text = ''.join(c.delta.content or '' for c in choices)
  return text, choices[-1].finish_reason, chunks


# ---- Models ----


def test_generations_are_models(live):
  assert [m.id for m in live.client.models.list()] == ['agent', 'agent@blue', 'agent@0']
  assert live.client.models.retrieve('agent').generation == 0
  with pytest.raises(openai.NotFoundError):
    live.client.models.retrieve('agent@7')


# ---- Chat ----


def test_a_message_is_answered_and_logged_with_who_spoke(live):
  reply = chat(live, model='agent', user='Ana', n=2, seed=3, temperature=1.0)
  assert reply.model == 'agent@0' and reply.system_fingerprint == 'generation-0'
  assert [c.finish_reason for c in reply.choices] == ['length', 'length']
  assert reply.choices[0].message.content != reply.choices[1].message.content
  assert reply.usage.completion_tokens == 12
  assert reply.usage.total_tokens == reply.usage.prompt_tokens + 12
  logged = live.agent.diary.experience(reply.dreaming['experience'])
  assert (logged.speaker, logged.content) == ('Ana', 'I have a parrot.')
  assert logged.response == reply.choices[0].message.content.strip()
  assert logged.metadata == {'generation': 0, 'response_id': reply.id}


@pytest.mark.parametrize('own', [True, False])
def test_words_that_are_known_already_are_the_weights_own_or_a_notes(live, monkeypatch, own):
  think, judged = live.agent.think, []

  def known(*args, **kwargs):
    return think(*args, **kwargs)._replace(said='It is Biscuit.', own=own)

  monkeypatch.setattr(live.agent, 'think', known)
  monkeypatch.setattr(
    live.server.talk.baking, 'said', lambda generation, text, **_: judged.append(text)
  )
  reply = chat(live, model='agent')
  assert reply.choices[0].message.content == 'It is Biscuit.'
  logged = live.agent.diary.experience(reply.dreaming['experience'])
  assert logged.metadata.get('read', False) is not own  # feedback on it is about the weights
  assert judged == ['It is Biscuit.'] * own  # and what bakes is judged by it


def test_streaming_says_the_same_and_is_logged_before_it_ends(live):
  whole = chat(live, stream=False).choices[0]
  text, finish, chunks = streamed(live)
  assert (text, finish) == (whole.message.content, whole.finish_reason)
  assert {c.model for c in chunks} == {'agent@0'}
  assert chunks[0].choices[0].delta.role == 'assistant'
  assert all(c.choices for c in chunks)  # programs look at the first choice of every chunk
  before = len(live.agent.diary.experiences())
  streamed(live, model='agent')
  assert len(live.agent.diary.experiences()) == before + 1


def test_what_is_not_to_be_stored_is_not(live):
  before = len(live.agent.diary.experiences())
  chat(live, model='agent', extra_body={'store': False})
  chat(live, model='agent@blue')
  assert len(live.agent.diary.experiences()) == before


def test_a_seed_decides_and_company_does_not(live):
  def draw(seed):
    return chat(live, seed=seed, temperature=1.0, max_tokens=12).choices[0].message.content

  alone = draw(7)
  found = {}
  threads = [threading.Thread(target=lambda s=s: found.update({s: draw(s)})) for s in (7, 8, 9, 10)]
  for t in threads:
    t.start()
  for t in threads:
    t.join()
  assert found[7] == alone == draw(7)
  assert len(set(found.values())) > 1


def test_a_stop_is_not_said(live):
  whole, _, _ = streamed(live, seed=5, temperature=1.0, max_tokens=12)
  stop = whole[3]
  text, finish, _ = streamed(live, seed=5, temperature=1.0, max_tokens=12, stop=[stop])
  assert (text, finish) == (whole[: whole.index(stop)], 'stop')


def test_logprobs_are_those_of_the_model(live):
  reply = chat(live, logprobs=True, top_logprobs=5, max_tokens=4)
  content = reply.choices[0].logprobs.content
  assert len(content) == 4 and all(len(t.top_logprobs) == 5 for t in content)
  for token in content:
    best = [t.logprob for t in token.top_logprobs]
    assert best == sorted(best, reverse=True) and token.logprob == best[0] < 0
    assert sum(np.exp(best)) < 1 + 1e-5
  _, _, chunks = streamed(live, logprobs=True, top_logprobs=5, max_tokens=4)
  told = [c.choices[0].logprobs for c in chunks]
  assert [t.logprob for x in told if x for t in x.content] == [t.logprob for t in content]


def test_usage_comes_last_when_it_is_asked_for(live):
  _, _, chunks = streamed(live, stream_options={'include_usage': True})
  assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == 6


def test_turns_and_system_words_are_read(live):
  def tokens(*said):
    messages = [{'role': r, 'content': c} for r, c in said]
    return chat(live, messages=messages).usage.prompt_tokens

  alone = tokens(('user', 'It rains.'))
  assert tokens(('user', 'Hi.'), ('assistant', 'Hello.'), ('user', 'It rains.')) > alone
  assert tokens(('system', 'You are a pirate.'), ('user', 'It rains.')) == alone  # not -it
  parts = [{'type': 'text', 'text': 'It rains.'}]
  assert chat(live, messages=[{'role': 'user', 'content': parts}]).usage.prompt_tokens == alone


# ---- Completions, embeddings ----


def test_a_text_is_continued(live):
  complete = live.client.completions.create
  one = complete(model='agent@0', prompt='The sky', max_tokens=5, logprobs=2)
  assert one.choices[0].text == ''.join(one.choices[0].logprobs.tokens)
  both = complete(model='agent@0', prompt=['The sky', 'A tree'], max_tokens=5)
  assert [c.index for c in both.choices] == [0, 1]
  assert both.choices[0].text == one.choices[0].text
  chunks = list(complete(model='agent@0', prompt='The sky', max_tokens=5, stream=True))
  assert ''.join(c.choices[0].text for c in chunks) == one.choices[0].text


def test_words_are_those_of_one_stream_alone(live):
  """Prompts longer than a chunk, beside each other, against the decoder of one stream."""
  agent, prompts = live.agent, ['The sky', 'A tree is here. ' * 9]
  alone = agent.decoder.generate(agent.base_mind, prompts[1:], max_tokens=6, stop=())
  both = live.client.completions.create(model='agent@0', prompt=prompts, max_tokens=6)
  assert both.choices[1].text == alone[0]


def test_texts_have_vectors(live):
  create = live.client.embeddings.create
  packed = create(model='agent', input=['a parrot', 'rain'])  # base64 on the wire
  plain = create(model='agent', input=['a parrot', 'rain'], encoding_format='float')
  for a, b in zip(packed.data, plain.data, strict=True):
    np.testing.assert_allclose(a.embedding, b.embedding, rtol=1e-6)
  assert packed.usage.prompt_tokens > 0


# ---- Errors ----


@pytest.mark.parametrize(
  'fields, error, why',
  [
    ({'model': 'gpt-4'}, openai.NotFoundError, 'no model'),
    ({'model': 'agent@7'}, openai.NotFoundError, 'no model'),
    ({'messages': []}, openai.UnprocessableEntityError, 'messages'),
    ({'messages': [{**SAY[0], 'role': 'assistant'}]}, openai.UnprocessableEntityError, 'user'),
    ({'messages': [{**SAY[0], 'content': ' '}]}, openai.UnprocessableEntityError, 'empty'),
    ({'n': 99}, openai.UnprocessableEntityError, 'n: 99'),
    ({'max_tokens': 100_000}, openai.UnprocessableEntityError, '100000'),
    ({'temperature': -1}, openai.UnprocessableEntityError, 'temperature'),
    ({'presence_penalty': 1}, openai.UnprocessableEntityError, 'presence_penalty'),
    ({'extra_body': {'nix': 1}}, openai.UnprocessableEntityError, 'nix'),
  ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_openais_form(live, fields, error, why):
  with pytest.raises(error) as e:
    chat(live, **fields)
  assert why in e.value.message and e.value.type == (
    'not_found_error' if error is openai.NotFoundError else 'invalid_request_error'
  )


def test_a_prompt_without_room_is_refused(live):
  with pytest.raises(openai.UnprocessableEntityError, match='decode.cache_length=1024'):
    live.client.completions.create(model='agent@0', prompt='x' * 2000, max_tokens=5)


def test_other_paths_and_methods_are_errors_of_the_same_form(live):
  for method, path, status in [('GET', '/nix', 404), ('DELETE', '/v1/models', 405)]:
    answer = live.http.request(method, path)
    assert answer.status_code == status and answer.json()['error']['message']


def test_an_error_of_the_engine_ends_its_streams_and_no_others(live, monkeypatch):
  batcher, step = live.server.engine._batcher, live.server.engine._batcher.step

  def fail(*args):
    monkeypatch.setattr(batcher, 'step', step)
    raise RuntimeError('out of memory')

  monkeypatch.setattr(batcher, 'step', fail)
  with pytest.raises(openai.InternalServerError):
    chat(live)
  assert chat(live).choices[0].finish_reason == 'length'
  monkeypatch.setattr(batcher, 'step', fail)
  with pytest.raises(openai.APIError, match='out of memory'):
    streamed(live)
  assert chat(live).choices[0].finish_reason == 'length'


# ---- Health ----


def test_health_readiness_and_metrics(live):
  assert live.http.get('/health').json() == {'status': 'ok'}
  ready = live.http.get('/ready').json()
  assert ready['status'] == 'ready' and ready['generation'] == 0
  chat(live)
  text = live.http.get('/metrics').text
  assert 'dreaming_tokens_total{generation="0"}' in text and 'dreaming_generation 0.0' in text


def test_nothing_was_compiled_in_service(live):
  before = live.server.engine.compilations
  for n, size in ((1, 5), (3, 100), (4, 30)):
    chat(live, n=n, messages=[{'role': 'user', 'content': 'x' * size}], temperature=0.5, seed=1)
  assert live.server.engine.compilations == before
