"""Dreaming Machines: an agent that lives through days and learns from them at night.
  python -m dreaming.main --config=configs/gemma3_270m.py [--mode=MODE] [--config.FIELD=VALUE ...]
  live     live config.life.days ('-': stdin), sleep after each; life: forgetting; examine: 4 arms
  chat     in the terminal; serve: over HTTP; sleep: one night; prepare: ahead of one; status
  import   --files=A,B [--format=F]; export --to=A.jsonl or DIR; approve [--session=S | --ids=1,2]
  trim     [--do=archive|restore [--ids]]; forget --ids|--person=N [--do=diary|replay], --do=secrets
  review   [--do=on, refuse, 'approve 3,4', 'reject 5', 'answer 6 WORDS']; rescue: a damaged diary
Exits: 0, 1 nothing learnt, 2 mistaken, 3 a night waits, 130 interrupted."""

import pathlib
import re
import sys

from absl import app, flags, logging
from ml_collections import config_flags

_DEFAULT = str(pathlib.Path(__file__).parents[1] / 'configs' / 'gemma3_270m.py')
_CONFIG = config_flags.DEFINE_config_file('config', _DEFAULT, lock_config=True)
_MODES = 'live life chat serve sleep examine status prepare import export approve review trim'
_MODE = flags.DEFINE_enum('mode', 'live', [*_MODES.split(), 'forget', 'rescue'], '')
_CARRIED = 'files format to session ids do person'
_CARRY = {n: flags.DEFINE_string(n, None, '') for n in _CARRIED.split()}


def main(_: list[str]) -> None:
  try:
    from dreaming import start  # it brings JAX, which --help and a mistyped flag do not wait for

    sys.exit(start.run(_MODE.value, _CONFIG.value, {k: f.value for k, f in _CARRY.items()}))
  except KeyboardInterrupt:
    refuse('interrupted; what was said is kept, and a night goes on where it was', 130)
  except (ValueError, OSError) as e:
    if logging.level_debug():
      raise
    refuse(e)


def parse(argv: list[str]) -> list[str]:
  argv = [re.sub(r'^(--config\.life\.days=)([^(\'"].*)$', r'\1"\2"', a) for a in argv]  # paths
  if {'--help', '-h', '--helpshort'} & set(argv):
    sys.exit(print(__doc__.strip()))
  try:
    for word in flags.FLAGS(argv)[1:]:
      refuse(f'{word!r} is no flag: write --NAME=VALUE; --help says more')
    _CONFIG.value.to_dict()
  except (flags.Error, ValueError, TypeError, OSError, ImportError, SyntaxError) as e:
    refuse(e)
  except (AttributeError, KeyError) as e:
    refuse(f'no such field: {e.args[0]}; configs/default.py has all fields')
  return argv[:1]


def refuse(why: object, code: int = 2) -> None:
  print('dreaming:', ' '.join(str(why).replace(r'\n', ' ').split()), file=sys.stderr)
  sys.exit(code)


if __name__ == '__main__':
  app.run(main, flags_parser=parse)
