#!/usr/bin/env bash
# Serves an agent over HTTP, on this machine alone: OpenAI's API at http://127.0.0.1:8377/v1.
#
#   bash launch/serve.sh [FLAG ...]
#
# Flags go to dreaming.main, for example --config.life.user=Ana or --config.serve.port=9000. To be
# reached from elsewhere it needs a file of tokens: see dreaming/serve/access.py. It ends on SIGTERM
# or Ctrl-C, once running streams have ended. Relative paths start at the project's root.
set -euo pipefail

root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)"
bash "$root/launch/setup.sh" embedded serve
cd "$root"
exec .venv/bin/python -m dreaming.main --config=configs/gemma3_270m.py --mode=serve "$@"
