#!/usr/bin/env bash
# Lives the same days under every combination of settings, one after the other, into one table.
#
#   bash launch/sweep.sh [--out=lives/sweep] --config=configs/gemma3_270m.py \
#     --config.train.learning_rate=1e-4,3e-4 --config.seed=0,1,2
#
# See launch/sweep.py. Relative paths start at the project's root.
set -euo pipefail

root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)"
bash "$root/launch/setup.sh" embedded
cd "$root"
exec .venv/bin/python launch/sweep.py "$@"
