#!/usr/bin/env bash
# The set-up with all extras, then the whole test suite: first the fast tests, then those that run
# the real Gemma 3 270M.
#
#   bash launch/test.sh [PYTEST_ARGUMENT ...]
#
# Fails when a test fails, when none ran, or when one was skipped for want of something that the
# set-up should have brought (launch/verdict.py).
set -euo pipefail

root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)"
bash "$root/launch/setup.sh" embedded official senses serve dev
cd "$root"
# Tests start many processes: without its bytecode each would compile all that it imports.
unset PYTHONDONTWRITEBYTECODE
# Large pages, as dreaming/start.py has them.
export GLIBC_TUNABLES="${GLIBC_TUNABLES-glibc.malloc.hugetlb=1}"
reports="$(mktemp -d)"
trap 'rm -rf -- "$reports"' EXIT

failed=0
suite() {
  local name="$1" marker="$2" code=0
  shift 2
  .venv/bin/python -m pytest -q --durations=10 --timeout=600 \
    --junit-xml="$reports/$name.xml" -m "$marker" "$@" || code=$?
  .venv/bin/python launch/verdict.py "$name" "$reports/$name.xml" "$code" || failed=1
}

# Most of the time of the fast ones goes into compiling toys.
JAX_DISABLE_MOST_OPTIMIZATIONS=1 suite fast 'not real' "$@"
suite real 'real' "$@"
exit "$failed"
