#!/bin/bash
# run.sh PROGRAM [MODEL]...: outside readers load what the program makes of data/model, of the MODELs, which are directories, and of
# tiny ones of many families. Makes a Python environment of its own (VENV, default build/venv-interop) from the package registry.
# llama-cpp-python is compiled there, with BLAS for the products of matrices (see llama_logits() in readers.py) and for any
# processor: its kernels for AMX end in a crash where the system does not give it that.
set -euo pipefail
cd "$(dirname "$0")/../.."
program=$1
shift
venv=${VENV:-build/venv-interop}
if [ ! -e "$venv/ready" ]; then
  tools/need.sh libopenblas-dev pkg-config
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet -r tests/interop/requirements.txt
  # Not from pip's cache: one that was built another way may lie there.
  CMAKE_ARGS="-DGGML_BLAS=ON -DGGML_BLAS_VENDOR=OpenBLAS -DGGML_CPU_REPACK=OFF -DGGML_NATIVE=OFF -DLLAVA_BUILD=OFF" \
    "$venv/bin/pip" install --quiet --no-cache-dir --no-binary llama-cpp-python llama-cpp-python==0.3.36
  touch "$venv/ready"
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$venv/bin/python" tests/interop/checks.py "$program" "$work" data/model "$@"
