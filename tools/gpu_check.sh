#!/bin/bash
# gpu_check.sh [MORE_MAKE_ARGUMENTS...]: on a machine with a GPU and nvcc: builds with CUDA for this card, runs the tests of the CUDA
# backend, quantizes the model in data/ twice and compares the bytes, and looks for wrong memory accesses. JSON lines; the last one
# tells whether all is well. BUILT=folder: with the programs in there, built elsewhere, instead of building.
set -u
cd "$(dirname "$0")/.."
build=${BUILT:-build-gpu}
arch=sm_$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader -i 0 | tr -d .)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

json() { printf '{"check": "%s", "ok": %s, "seconds": %s%s}\n' "$1" "$2" "$3" "${4:-}"; }
check() {  # check NAME COMMAND...: the end of its output where it fails
  local name=$1 begin=$EPOCHREALTIME ok=true
  shift
  "$@" > "$work/log" 2>&1 || { ok=false; failed=1; tail -n "${LINES_SHOWN:-60}" "$work/log"; }
  json "$name" "$ok" "$(awk -v a="$begin" -v b="$EPOCHREALTIME" 'BEGIN {printf "%.1f", b - a}')" \
    "$(sed -nE 's/^([0-9]+) passed, ([0-9]+) failed.*/, "passed": \1, "failed": \2/p' "$work/log" | tail -n 1)"
}
quantize() {  # quantize NAME OPTION...
  local name=$1
  shift
  "$build/signround" quantize data/model -o "$work/$name" --scheme W4A16G64 --iters 50 --nsamples 64 --seqlen 256 --batch-size 8 "$@"
}

IFS=, read -r name driver < <(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader -i 0)
printf '{"device": "%s", "driver": "%s", "toolkit": "%s", "commit": "%s"}\n' "$name" "${driver# }" \
  "$(nvcc --version | sed -nE 's/.*release ([0-9.]+).*/\1/p')" "$(git rev-parse --short HEAD 2>/dev/null)"
[ -n "${BUILT:-}" ] || check build make CUDA=1 ARCH="$arch" BUILD="$build" "$@" "$build/signround" "$build/run-tests"
[ "$failed" = 0 ] || exit 1
check "cuda tests" "$build/run-tests" -tc='cuda:*'
check "memcheck" timeout 150 compute-sanitizer --tool memcheck --error-exitcode 9 "$build/run-tests" -tc='cuda:*' -tce='cuda: memory'
for precision in bf16 fp32; do
  for run in 1 2; do check "quantize $precision $run" quantize "$precision-$run" --device cuda --precision "$precision"; done
  check "same bytes $precision" diff -r "$work/$precision-1" "$work/$precision-2"
done
check "quantize cpu" quantize cpu --device cpu
for name in cpu bf16-1 fp32-1; do
  printf '{"model": "%s", "perplexity": "%s"}\n' "$name" \
    "$("$build/signround" eval "$work/$name" --ppl data/heldout.txt --seqlen 256 --quiet --device "$([ $name = cpu ] && echo cpu || echo cuda)" | head -n 1)"
done
[ "$failed" = 0 ] && echo '{"all": true}' || echo '{"all": false}'
exit "$failed"
