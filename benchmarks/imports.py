"""Imports: hostile files are refused with a reason in bounded memory, honest ones come in right.

  python benchmarks/imports.py [--quick] [--json=FILE] [--file=FILE ...]

Files are made as they are needed: archives that lead out of themselves, zip bombs (nested ones and
ones with lying headers too), PNG bombs, 100 MB of JSON in several shapes, wrong encodings, deep
JSON, files that were cut off, 500 random mutants of good files; and honest ones, among them a large
ChatGPT export and a value as costly as the limits allow. Each is imported in a process of its own
whose address space is limited (mutants share one, an import at a time), into a new diary. A hostile
file counts as refused when the import ends with a reason and no traceback and nothing of it is in
the diary; a mutant may also come in, in part. `--file` imports a file that you bring in the same
way, and prints what became of it. Linux only: it reads /proc. Expected: 5 minutes on two cores.
"""

from __future__ import annotations

import base64
import codecs
import json
import pathlib
import random
import resource
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from benchmarks import common

MIB = 2**20
ADDRESS_SPACE = 4096 * MIB  # of a child: jax and its libraries map 2 GiB before anything is read
MEMORY_BAR = 256.0  # MiB beyond what the child holds before its import
SPEED_BAR = 1000.0  # messages a second
MUTANTS = 500


# ---- Files ----


def talk(id: str, turns: int, words: int = 40) -> dict[str, Any]:
  """A conversation of a ChatGPT export: `turns` messages of the user, each answered."""
  rng = random.Random(id)
  nodes: dict[str, Any] = {'root': {'id': 'root', 'parent': None, 'message': None}}
  parent = 'root'
  for i in range(2 * turns):
    text = ' '.join(
      rng.choice('ein zwei drei vier fünf sechs sieben'.split()) for _ in range(words)
    )
    node = f'{id}-{i}'
    nodes[node] = {'id': node, 'parent': parent, 'children': [], 'message': {
      'id': node, 'author': {'role': 'assistant' if i % 2 else 'user', 'metadata': {}},
      'create_time': 1.7e9 + i, 'recipient': 'all', 'weight': 1.0,
      'content': {'content_type': 'text', 'parts': [f'{i} {text}']},
      'metadata': {'model_slug': 'm', 'citations': [], 'id': f'{rng.random()}'}}}  # fmt: skip
    parent = node
  return {'conversation_id': id, 'title': id, 'create_time': 1.7e9, 'current_node': parent,
          'mapping': nodes}  # fmt: skip


def export(conversations: int, turns: int) -> bytes:
  texts = (json.dumps(talk(f'c{i}', turns), ensure_ascii=False) for i in range(conversations))
  return ('[' + ','.join(texts) + ']').encode()


def costly() -> bytes:
  """A conversation with as many objects in it as the limits allow; a message costs the least."""
  value = talk('c', 1) | {'plugin': [{f'{i}': 'ab'} for i in range(240_000)]}
  return json.dumps([value], indent=4).encode()


def tavern(turns: int) -> bytes:
  lines = [{'user_name': 'Ana', 'character_name': 'Rex', 'create_date': '2024-01-02@03h04m05s'}]
  for i in range(turns):
    date = f'June {1 + i % 30}, 2023 {1 + i // 60 % 12}:{i % 60:02}pm'
    lines.append({'name': 'Ana', 'is_user': True, 'send_date': date, 'mes': f'message {i}'})
    lines.append({'name': 'Rex', 'is_user': False, 'send_date': date, 'mes': f'answer {i}'})
  return '\n'.join(map(json.dumps, lines)).encode()


CARD = {'spec': 'chara_card_v3', 'spec_version': '3.0', 'data': {
  'name': 'Rex', 'description': 'A knight.', 'personality': 'Brave.', 'first_mes': 'Hail!',
  'character_book': {'entries': [{'keys': ['sword'], 'content': 'It is blue.'}]}}}  # fmt: skip


def chunk(kind: bytes, data: bytes) -> bytes:
  crc = zlib.crc32(data, zlib.crc32(kind))
  return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', crc)


def picture(*chunks: bytes, side: int = 1, pixels: bytes = b'\0\0') -> bytes:
  header = chunk(b'IHDR', struct.pack('>IIBBBBB', side, side, 8, 0, 0, 0, 0))
  body = chunk(b'IDAT', zlib.compress(pixels)) + chunk(b'IEND', b'')
  return b'\x89PNG\r\n\x1a\n' + header + b''.join(chunks) + body


def card_picture(**fields: Any) -> bytes:
  text = base64.b64encode(json.dumps(CARD).encode())
  return picture(chunk(b'tEXt', b'ccv3\0' + text), **fields)


def lines(count: int) -> bytes:
  row = '{"time": %d, "speaker": "Ana", "content": "line %d", "response": "yes"}\n'
  return ''.join(row % (1.6e9 + i, i) for i in range(count)).encode()


def zipped(*entries: tuple[str, bytes], link: bool = False, method: int = 8) -> bytes:
  import io

  held = io.BytesIO()
  with zipfile.ZipFile(held, 'w', method) as z:
    for name, data in entries:
      info = zipfile.ZipInfo(name)
      info.compress_type = method
      info.external_attr = (0o120777 if link and data == b'/etc/passwd' else 0o100644) << 16
      z.writestr(info, data)
  return held.getvalue()


def lying(archive: bytes, size: int) -> bytes:
  """An archive whose list of entries claims another size for the first one."""
  data = bytearray(archive)
  at = data.index(b'PK\1\2') + 24
  data[at : at + 4] = struct.pack('<I', size)
  return bytes(data)


def hostile() -> dict[str, Callable[[], bytes]]:
  good = export(1, 2)
  main = ('conversations.json', good)
  blank = b'[' + b' ' * (400 * MIB) + b']'
  json_bomb = zlib.compress(b'A' * (400 * MIB))
  text = '[{"content": "Grüße", "time": 1}]'
  deep = b'[' * 5_000_000 + b']' * 5_000_000
  return {
    'path ..': lambda: zipped(main, ('../../x.json', b'x')),
    'path absolute': lambda: zipped(main, ('/tmp/x.json', b'x')),
    'path drive': lambda: zipped(main, ('C:\\x.json', b'x')),
    'path backslash': lambda: zipped(main, ('..\\x.json', b'x')),
    'link': lambda: zipped(main, ('l', b'/etc/passwd'), link=True),
    'zip bomb': lambda: zipped(('conversations.json', blank)),
    'zip bomb, lying': lambda: lying(zipped(('conversations.json', blank)), 1000),
    'zip bomb, claims 4 GB': lambda: lying(zipped(main), 2**32 - 2),
    'zip in a zip': lambda: zipped(('a.zip', zipped(('conversations.json', blank)))),
    'zip, lzma': lambda: zipped(main, method=zipfile.ZIP_LZMA),
    'zip, 200,000 entries': lambda: zipped(
      main, *((f'{i}', b'') for i in range(200_000)), method=0
    ),
    'zip, cut off': lambda: zipped(main)[:-30],
    'PNG bomb, pixels': lambda: picture(side=60_000, pixels=b'\0' * (100 * MIB)),
    'PNG bomb, pixels and a card': lambda: card_picture(side=60_000, pixels=b'\0' * (100 * MIB)),
    'PNG bomb, zTXt': lambda: picture(chunk(b'zTXt', b'chara\0\0' + json_bomb)),
    'PNG bomb, iTXt': lambda: picture(chunk(b'iTXt', b'ccv3\0\1\0\0\0' + json_bomb)),
    'PNG, long chunk': lambda: picture()[:33] + struct.pack('>I4s', 2**31 - 1, b'tEXt') + b'chara',
    'PNG, cut off': lambda: card_picture()[:-40],
    '100 MB, one text': lambda: b'[{"mapping": {"a": "' + b'a' * 100_000_000 + b'"}}]',
    '100 MB, escapes': lambda: b'[{"mapping": {"a": "' + b'\\"' * 50_000_000 + b'"}}]',
    '100 MB, empty lists': lambda: b'[[' + b'[],' * 33_000_000 + b'[]]]',
    '100 MB, empty objects': lambda: b'{"mapping": [' + b'{},' * 33_000_000 + b'{}]}',
    '100 MB, one line': lambda: b'{"time": 1, "content": "' + b'a' * 100_000_000 + b'"}',
    '100 MB, nothing': lambda: b' ' * 100_000_000,
    '100 MB, random': lambda: random.Random(0).randbytes(100_000_000),
    'deep JSON': lambda: deep,
    'deep object': lambda: b'{"mapping": ' + b'{"a":' * 5000 + b'1' + b'}' * 5001,
    'digits': lambda: b'{"time": ' + b'9' * 1_000_000 + b', "content": "x"}',
    'Latin-1': lambda: text.encode('latin-1'),
    'Windows-1252 far behind': lambda: lines(50_000) + 'Grüße'.encode('cp1252'),
    'UTF-16 without a mark': lambda: text.encode('utf-16-le'),
    'UTF-32': lambda: codecs.BOM_UTF32_LE + text.encode('utf-32-le'),
    'Shift JIS': lambda: '[{"content": "日本語", "time": 1}]'.encode('shift_jis'),
    'empty': lambda: b'',
    'cut off at once': lambda: good[:200],
  }


def honest(quick: bool) -> dict[str, tuple[Callable[[], bytes], int]]:
  """Name -> (how it is made, how many experiences it holds)."""
  part = 30 if quick else 1500
  return {
    'ChatGPT': (lambda: export(20, 10), 200),
    'ChatGPT, zip of 2023': (lambda: zipped(('conversations.json', export(20, 10))), 200),
    'ChatGPT, zip of 2026': (lambda: zipped(
      ('user.json', b'{}'), ('conversations-000.json', export(20, 10)),
      ('conversations-001.json', json.dumps([talk('z', 5)]).encode())), 205),
    'ChatGPT, large': (lambda: export(part, 50), 50 * part),
    'ChatGPT, as costly as allowed': (costly, 1),
    'SillyTavern': (lambda: tavern(500), 500),
    'card': (lambda: json.dumps(CARD, indent=2).encode(), 4),
    'card in a picture': (card_picture, 4),
    'JSON Lines': (lambda: lines(5000), 5000),
    'JSON Lines, UTF-16': (lambda: lines(500).decode().encode('utf-16'), 500),
    'JSON Lines, UTF-8 with a mark': (lambda: codecs.BOM_UTF8 + lines(500), 500),
  }  # fmt: skip


def mutants(count: int) -> list[bytes]:
  goods = [export(2, 3), tavern(5), json.dumps(CARD).encode(), card_picture(), lines(20),
           zipped(('conversations.json', export(2, 3)))]  # fmt: skip
  rng = random.Random(0)
  made = []
  for i in range(count):
    data = bytearray(goods[i % len(goods)])
    for _ in range(rng.randint(1, 8)):
      data[rng.randrange(len(data))] = rng.randrange(256) if i % 2 else rng.randrange(32, 127)
    if i % 3 == 0:
      data = data[: rng.randrange(1, len(data))]
    made.append(bytes(data))
  return made


# ---- One import in a process of its own ----


def child() -> None:
  """Imports each path that comes on a line, and answers with a line of JSON."""
  resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
  from dreaming.memory.diary import Diary
  from dreaming.memory.imports import item, run

  for i, path in enumerate(sys.stdin):
    before, answer = _memory('VmRSS'), {}
    with Diary(pathlib.Path(sys.argv[2]) / f'{i}.sqlite') as diary:
      start = time.perf_counter()
      try:
        r = run.import_file(diary, path.rstrip('\n'), user='Ana')
        answer = {'added': r.added, 'damaged': r.damaged, 'why': [x.why for x in r.lines[:1]]}
      except (ValueError, OSError) as e:
        answer = {'refused': str(e), 'meant': isinstance(e, item.Refused)}
      answer['seconds'] = time.perf_counter() - start
      answer['held'] = len(diary.ids())
    peak = _memory('VmHWM')
    answer |= {'grew': (peak - before) / MIB, 'peak': peak / MIB}
    print(json.dumps(answer), flush=True)


def _memory(field: str) -> float:
  """Bytes of this process, by /proc: what getrusage tells may be its parent's."""
  lines = pathlib.Path('/proc/self/status').read_text().splitlines()
  return 1024.0 * next(int(x.split()[1]) for x in lines if x.startswith(f'{field}:'))


def imported(paths: list[pathlib.Path], home: pathlib.Path) -> list[dict[str, Any]]:
  """What became of each file; {'crash': ...} for one that ended the process."""
  home.mkdir()
  done = subprocess.run(
    [sys.executable, __file__, 'child', str(home)],
    input=''.join(f'{p}\n' for p in paths), capture_output=True, text=True, timeout=900,
  )  # fmt: skip
  answers = [json.loads(line) for line in done.stdout.splitlines()]
  crash = (done.stderr.strip().splitlines() or [f'exit code {done.returncode}'])[-1]
  return answers + [{'crash': crash}] * (len(paths) - len(answers))


def is_refused(answer: dict[str, Any]) -> bool:
  return bool(answer.get('meant')) and len(answer['refused']) > 20 and not answer['held']


def is_handled(answer: dict[str, Any]) -> bool:
  """A mutant may be whole enough for a part of it, which is then told."""
  return is_refused(answer) or 'added' in answer


def main() -> int:
  p = common.parser(__doc__)
  p.add_argument('--file', type=pathlib.Path, action='append', help='import this one, too')
  args = p.parse_args()
  result = common.Result('imports', args, address_space_mib=ADDRESS_SPACE // MIB)
  grew, runs, number = [], [], 0
  with tempfile.TemporaryDirectory() as tmp:
    root = pathlib.Path(tmp)

    def one(name: str, data: bytes) -> dict[str, Any]:
      nonlocal number
      number += 1
      path = root / 'file'
      path.write_bytes(data)
      del data
      (answer,) = imported([path], root / f'{number}')
      runs.append({'file': name} | answer)
      grew.append(answer.get('grew', float('inf')))
      what = answer.get('crash') or answer.get('refused') or f'{answer["added"]} imported'
      print(
        f'  {name}: {grew[-1]:.0f} MiB, {answer.get("seconds", 0):.1f} s: {what[:150]}', flush=True
      )
      return answer

    bad = hostile()
    if args.quick:
      bad = {k: v for k, v in bad.items() if '100 MB' not in k and 'bomb' not in k}
    refused = [is_refused(one(name, make())) for name, make in bad.items()]
    right, speeds = [], []
    for name, (make, count) in honest(args.quick).items():
      answer = one(name, make())
      right.append(answer.get('added') == answer.get('held') == count and not answer['damaged'])
      if name == 'ChatGPT, large':
        speeds.append(2 * count / answer['seconds'])  # both sides of a turn are messages
    paths = []
    for i, data in enumerate(mutants(20 if args.quick else MUTANTS)):
      paths.append(root / f'mutant{i}')
      paths[-1].write_bytes(data)
    changed = imported(paths, root / 'mutants')
    for answer in changed:
      if not is_handled(answer):
        print(f'  mutant: {answer}')
    for path in args.file or ():
      (answer,) = imported([path.resolve()], root / f'own{len(runs)}')
      runs.append({'file': str(path)} | answer)
      print(f'  {path}: {json.dumps(answer)}')
  whole = sum('added' in a for a in changed)
  print(f'  of {len(changed)} mutants {whole} were imported, whole or in part, the others refused')
  result.add('peak_rss', max(r.get('peak', float('inf')) for r in runs), 'MiB')
  result.bar('refused', sum(refused) / len(refused), '>=', 1.0)
  result.bar('mutants_handled', sum(map(is_handled, changed)) / len(changed), '>=', 1.0)
  result.bar('honest_right', sum(right) / len(right), '>=', 1.0)
  result.bar('memory_mib', result.add('memory', max(grew), 'MiB'), '<=', MEMORY_BAR)
  result.bar('messages_per_s', result.add('speed', speeds, 'messages/s'), '>=', SPEED_BAR)
  result.keep(runs)
  return result.finish()


if __name__ == '__main__':
  sys.exit(child() if sys.argv[1:2] == ['child'] else main())
