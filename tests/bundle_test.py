"""A whole agent as one file: it comes back as it was, and nothing else comes in."""

from __future__ import annotations

import io
import json
import pathlib
import random
import time
import zipfile

import pytest

from benchmarks.serve_live import Live, plant, serve_config
from dreaming import bundle, live
from dreaming.agent import Agent


@pytest.fixture(scope='module')
def config(tmp_path_factory):
  return serve_config(tmp_path_factory, 'bundle')


@pytest.fixture(scope='module')
def packed(config, tmp_path_factory):
  """(file, what the agent said, its experiences)"""
  to = tmp_path_factory.mktemp('packed') / 'ana.agent'
  with Agent(config) as agent:
    for text in ('I have a parrot.', 'His name is Biscuit.'):
      agent.observe(text, 'I see.')
    digest = agent.media.put(b'\x89PNG\r\n\x1a\n' + b'x' * 100)
    from dreaming.types import Media

    agent.observe('Look.', media=(Media(kind='image', digest=digest, description='a parrot'),))
    plant(agent, 1)
    plant(agent, 2)
    agent.rollback(1)
    seen = []
    size = bundle.pack(agent, to, lambda done, total: seen.append((done, total)))
    assert size == to.stat().st_size and seen[-1][0] == seen[-1][1]
    said = agent.answer(['Who is there?'], max_tokens=6)
    return to, said, agent.diary.experiences()


def elsewhere(config, tmp_path):
  other = config.copy_and_resolve_references()
  other.workdir = str(tmp_path / 'life')
  return other


def test_it_comes_back_as_it_was(config, packed, tmp_path):
  to, said, experiences = packed
  other = elsewhere(config, tmp_path)
  assert bundle.unpack(to, other.workdir)['active'] == 1
  with Agent(other) as agent:
    assert agent.diary.experiences() == experiences and agent.status().active == 1
    assert [g.number for g in agent.generations()] == [1, 2]
    assert agent.answer(['Who is there?'], max_tokens=6) == said
    assert agent.media.read(experiences[2].media[0].digest).endswith(b'xxx')
    agent.rollback(2)
  with pytest.raises(ValueError, match='has an agent already'):
    bundle.unpack(to, other.workdir)
  (pathlib.Path(other.workdir) / '.unpacking-x').mkdir()
  bundle.sweep(pathlib.Path(other.workdir))
  assert not list(pathlib.Path(other.workdir).glob('.*pack*'))


def test_what_is_gone_is_told(config, packed, tmp_path):
  other = elsewhere(config, tmp_path)
  bundle.unpack(packed[0], other.workdir)
  with Agent(other) as agent:
    assert bundle.lost(agent) == []
    digest = packed[2][2].media[0].digest
    (agent.media.directory / digest[:2] / digest).unlink()
    assert bundle.lost(agent) == [digest]
    bundle.pack(agent, tmp_path / 'less.agent')
    with zipfile.ZipFile(tmp_path / 'less.agent') as archive:
      assert json.loads(archive.read('agent.json'))['lost'] == [digest]
    (agent.workdir / 'generations' / '2').rename(tmp_path / 'gone')
    with pytest.raises(FileNotFoundError, match='2 is not there: put it back'):
      bundle.pack(agent, tmp_path / 'none.agent')
    assert not (tmp_path / 'none.agent').exists()


def test_modes_of_the_command_line(config, packed, tmp_path, capsys):
  other = elsewhere(config, tmp_path)
  again = tmp_path / 'again.agent'
  flags = dict.fromkeys(('files', 'format', 'to', 'session', 'ids', 'do'))
  assert live.run('import', other, flags | {'files': str(packed[0])}) == 0
  assert live.run('export', other, flags | {'to': str(again)}) == 0
  told = capsys.readouterr().out
  assert '3 experiences' in told and 'whole agent is in' in told
  with pytest.raises(ValueError, match='is there already'):
    live.run('export', other, flags | {'to': str(again)})


def rewritten(path, tmp_path, change, compress=zipfile.ZIP_STORED):
  """The archive with its entries as `change` leaves them in a dict."""
  with zipfile.ZipFile(path) as archive:
    entries = {e.filename: archive.read(e) for e in archive.infolist()}
  change(entries)
  made = tmp_path / 'changed.agent'
  with zipfile.ZipFile(made, 'w', compress) as archive:
    for name, data in entries.items():
      archive.writestr(name, data)
  return made


def name(old, new):
  def change(entries):
    listing = json.loads(entries['files.json'])
    entries[new], listing[new] = entries.pop(old), listing.pop(old)
    entries['files.json'] = json.dumps(listing).encode()

  return change


@pytest.mark.parametrize(
  'change, why',
  [
    (lambda e: e.pop('diary.sqlite'), 'no file of an agent'),
    (lambda e: e.update({'../x': b''}), 'no name that an agent has'),
    (name('diary.sqlite', 'media/../diary.sqlite'), 'no file of an agent'),
    (lambda e: e.update({'generations/1/../../x': b''}), 'no name'),
    (lambda e: e.update({'generations/01/x': b''}), 'no name'),
    (lambda e: e.update({'media/ab/' + 'c' * 64: b''}), 'no name'),
    (lambda e: e.update({'lock': b''}), 'no name'),
    (lambda e: e.update({'generations/3/x': b''}), 'does not hold what its listing names'),
    (lambda e: e.update({'files.json': b'{'}), 'no JSON'),
    (lambda e: e.update({'files.json': b'[' * 100_000}), 'no JSON'),
    (lambda e: e.update({'files.json': b'[]'}), 'does not hold'),
    (lambda e: e.update({'agent.json': b'{"format": 2}'}), 'format 2'),
    (lambda e: e.update({'diary.sqlite': e['diary.sqlite'][:-1] + b'!'}), 'is not what was packed'),
  ],
)
def test_what_is_no_agent_is_refused_and_leaves_nothing(packed, tmp_path, change, why):
  made = rewritten(packed[0], tmp_path, change)
  with pytest.raises(ValueError, match=why):
    bundle.unpack(made, tmp_path / 'life')
  assert not list((tmp_path / 'life').rglob('*'))


def test_what_is_compressed_is_refused(packed, tmp_path):
  made = rewritten(packed[0], tmp_path, lambda e: None, zipfile.ZIP_DEFLATED)
  with pytest.raises(ValueError, match='compressed'):
    bundle.unpack(made, tmp_path / 'life')


def test_damage_anywhere_is_noticed(packed, tmp_path):
  data, rng = packed[0].read_bytes(), random.Random(0)
  for i in range(40):
    broken = bytearray(data)
    at = rng.randrange(len(broken))
    broken[at] ^= 1 << rng.randrange(8)
    made = tmp_path / f'{i}.agent'
    made.write_bytes(broken[: rng.randrange(len(broken))] if i % 4 == 0 else broken)
    home = tmp_path / f'life{i}'
    try:
      bundle.unpack(made, home)
    except ValueError:
      assert not list(home.rglob('*'))
    else:  # a flipped bit of a date in the archive's own headers
      with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert (home / 'diary.sqlite').read_bytes() == archive.read('diary.sqlite')


def test_it_is_only_called_agent(config, tmp_path):
  with Agent(elsewhere(config, tmp_path)) as agent:
    with pytest.raises(ValueError, match='is called'):
      bundle.pack(agent, tmp_path / 'ana.zip')


def test_a_server_sends_it(config, packed, tmp_path):
  with Agent(config) as agent, Live(agent) as there:
    answer = there.http.get('/api/agent')
    assert answer.status_code == 200
    (tmp_path / 'sent.agent').write_bytes(answer.content)
    end = time.monotonic() + 20  # it is removed when it was sent
    while list(agent.workdir.glob('.sending-*')):
      assert time.monotonic() < end
      time.sleep(0.02)
  assert bundle.unpack(tmp_path / 'sent.agent', tmp_path / 'life')['experiences'] == 3


def test_a_server_takes_it_in_beside_its_own(config, packed, tmp_path):
  with Agent(config) as agent, Live(agent) as there:
    root = agent.workdir.parent

    def post(name: str, data: bytes):
      return there.http.post(f'/api/agent/{name}', content=data)

    file = packed[0].read_bytes()
    answer = post('bea', file)
    assert answer.status_code == 201 and answer.json()['experiences'] == 3
    assert answer.json()['same_base'] and "('bea',)" in answer.json()['next']
    assert (root / 'bea' / 'diary.sqlite').exists()
    assert (
      post('bea', file).status_code == 409 and post(agent.workdir.name, file).status_code == 409
    )
    for name in ('Bea', '..', 'a b', '%2e%2e%2fx', 'x' * 41):
      assert post(name, file).status_code in (404, 405, 422), name
    wrong = post('cleo', file[:-200])
    assert wrong.status_code == 422 and str(root) not in wrong.text
    assert post('cleo', b'').status_code == 422
    assert not (root / 'cleo').exists() and not list(agent.workdir.glob('.unpacking-*'))
  other = config.copy_and_resolve_references()
  other.workdir = str(root / 'bea')
  with Agent(other) as bea:
    assert len(bea.diary.experiences()) == 3


def test_a_file_that_is_too_large_is_not_read_to_its_end(config, packed):
  config = config.copy_and_resolve_references()
  config.serve.max_agent_bytes = 1000
  with Agent(config) as agent, Live(agent) as there:
    answer = there.http.post('/api/agent/dora', content=packed[0].read_bytes())
    assert answer.status_code == 413 and 'serve.max_agent_bytes' in answer.text
    assert not (agent.workdir.parent / 'dora').exists()
