#!/usr/bin/env bash
# One day and one night of a Dreaming Machine, on the real Gemma 3 270M, on a CPU.
#
#   bash launch/demo.sh [FLAG ...]
#
# The set-up converts the weights and prepares what depends on them alone, once.
# Flags go to dreaming.main, for example --config.life.days=/path/to/day.json. Relative paths start
# at the project's root.
set -euo pipefail

root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)"
bash "$root/launch/setup.sh" embedded
cd "$root"
run() { .venv/bin/python -m dreaming.main --config=configs/gemma3_270m.py "$@"; }
run "$@" --mode=prepare
run "$@"
