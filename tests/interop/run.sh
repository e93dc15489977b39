#!/bin/bash
# run.sh PROGRAM: outside readers load what the program writes. Makes a Python environment of its own (VENV, default
# build/venv-interop) from the package registry; llama-cpp-python is compiled there.
set -euo pipefail
cd "$(dirname "$0")/../.."
program=$1
venv=${VENV:-build/venv-interop}
if [ ! -e "$venv/ready" ]; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet -r tests/interop/requirements.txt
  touch "$venv/ready"
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$venv/bin/python" tests/interop/readers.py "$program" data/model "$work"
