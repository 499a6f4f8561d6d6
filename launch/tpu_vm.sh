#!/usr/bin/env bash
# Runs a config on a Cloud TPU VM: creates it, copies this checkout (HEAD), sets it up with
# jax[tpu], lives the config's days, and fetches lives/ back. The VM stays, and costs, until it is
# deleted. (Tested as --dry-run only: the commands, not a TPU.)
#
#   bash launch/tpu_vm.sh --name=dreamer [--config=configs/gemma3_4b.py] [--zone=us-west4-a]
#     [--type=v5litepod-8] [--version=v2-alpha-tpuv5-lite] [--project=PROJECT] [--spot] [--delete]
#     [--dry-run] [-- FLAG ...]
#
# FLAGs go to dreaming.main. --delete deletes the VM at the end, also after a failure. --dry-run
# prints the commands and runs none. Needs gcloud, logged in. One host only (v5litepod-8, v6e-8 and
# smaller): the mesh spans the chips of one VM.
set -euo pipefail

root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)"
name="" zone=us-west4-a type=v5litepod-8 version=v2-alpha-tpuv5-lite project=""
config=configs/gemma3_4b.py spot="" delete="" dry="" created="" archive=""

fail() { printf 'tpu_vm: %s\n' "$*" >&2; exit 2; }

while (($#)); do
  case "$1" in
    --name=*) name="${1#*=}" ;;
    --zone=*) zone="${1#*=}" ;;
    --type=*) type="${1#*=}" ;;
    --version=*) version="${1#*=}" ;;
    --project=*) project="${1#*=}" ;;
    --config=*) config="${1#*=}" ;;
    --spot) spot=1 ;;
    --delete) delete=1 ;;
    --dry-run) dry=1 ;;
    --) shift; break ;;
    *) fail "unknown argument '$1'; see launch/tpu_vm.sh (flags of main come after --)" ;;
  esac
  shift
done
[[ "$name" =~ ^[a-z]([-a-z0-9]*[a-z0-9])?$ ]] \
  || fail "--name='$name' must be lower-case letters, digits and hyphens, such as --name=dreamer"
[[ "$config" != /* && -f "$root/$config" ]] \
  || fail "--config=$config is no file of this checkout; see configs/"
[[ -n "$dry" ]] || command -v gcloud >/dev/null \
  || fail 'gcloud is missing; install the Google Cloud CLI'

run() {
  if [[ -n "$dry" ]]; then
    printf '%q ' "$@"
    printf '\n'
  else
    "$@"
  fi
}

tpu() {  # gcloud's TPU command, with where the VM is
  run gcloud compute tpus tpu-vm "$@" --zone="$zone" --quiet ${project:+"--project=$project"}
}

end() {
  [[ -z "$archive" ]] || rm -f -- "$archive"
  [[ -n "$created" ]] || return 0
  if [[ -n "$delete" ]]; then
    tpu delete "$name"
  elif [[ -z "$dry" ]]; then
    printf 'tpu_vm: %s still runs, and costs; delete it with: %s\n' "$name" \
      "gcloud compute tpus tpu-vm delete $name --zone=$zone${project:+ --project=$project}" >&2
  fi
}
trap end EXIT

# The remote shell sees the words of main's flags exactly as they came.
flags=""
(($# == 0)) || flags="$(printf ' %q' "$@")"

if [[ -n "$dry" ]]; then
  archive_path=/tmp/dreaming-machines.tgz
else
  archive="$(mktemp)"
  archive_path="$archive"
  [[ -z "$(git -C "$root" status --porcelain)" ]] \
    || printf 'tpu_vm: uncommitted changes stay here: the VM gets HEAD\n' >&2
fi

run git -C "$root" archive --format=tar.gz --output="$archive_path" HEAD
tpu create "$name" --accelerator-type="$type" --version="$version" ${spot:+--spot}
created=1
tpu scp "$archive_path" "$name:dreaming-machines.tgz"
tpu ssh "$name" --command="mkdir -p dreaming-machines && tar -xzf dreaming-machines.tgz -C\
 dreaming-machines && bash dreaming-machines/launch/setup.sh embedded official tpu"
tpu ssh "$name" --command="cd dreaming-machines && .venv/bin/python -m dreaming.main\
 --config=$(printf %q "$config")$flags"
run mkdir -p "$root/lives/$name"
tpu scp --recurse "$name:dreaming-machines/lives" "$root/lives/$name"
