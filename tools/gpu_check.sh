#!/bin/bash
# gpu_check.sh [MORE_MAKE_ARGUMENTS...]: on a machine with a GPU and nvcc: builds with CUDA for this card, runs the tests of the CUDA
# backend, quantizes the model in data/ twice and compares the bytes, and looks for wrong memory accesses and for races in shared
# memory. JSON lines; the last one tells whether all is well. BUILT=folder: with the programs in there, built elsewhere, instead of
# building; COMMIT: theirs.
set -u
cd "$(dirname "$0")/.."
build=${BUILT:-build-gpu}
arch=sm_$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader -i 0 | tr -d .)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export SIGNROUND_PLANS=$work/plans
failed=0

json() { printf '{"check": "%s", "ok": %s, "seconds": %s%s}\n' "$1" "$2" "$3" "${4:-}"; }
check() {  # check NAME SECONDS COMMAND...: at most so long; the end of its output where it fails
  local name=$1 limit=$2 begin=$EPOCHREALTIME ok=true log
  log=$(mktemp -p "$work")
  shift 2
  timeout "$limit" "$@" > "$log" 2>&1 || { ok=false; failed=1; tail -n "${LINES_SHOWN:-60}" "$log"; }
  json "$name" "$ok" "$(awk -v a="$begin" -v b="$EPOCHREALTIME" 'BEGIN {printf "%.1f", b - a}')" \
    "$(sed -nE 's/^([0-9]+) passed, ([0-9]+) failed.*/, "passed": \1, "failed": \2/p' "$log" | tail -n 1)"
  [ "$ok" = true ]
}
sanitizer=(compute-sanitizer --error-exitcode 9 --tool)
quantize=("$build/signround" quantize data/model --scheme W4A16G64 --quiet)
settings=(--iters 50 --nsamples 64 --seqlen 256 --batch-size 8)
tiny=(--iters 3 --nsamples 2 --seqlen 48 --batch-size 2)

IFS=, read -r name driver < <(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader -i 0)
printf '{"device": "%s", "driver": "%s", "toolkit": "%s", "commit": "%s"}\n' "$name" "${driver# }" \
  "$(nvcc --version 2>/dev/null | sed -nE 's/.*release ([0-9.]+).*/\1/p')" \
  "${COMMIT:-$(git rev-parse --short HEAD 2>/dev/null)}"
[ -n "${BUILT:-}" ] || check build 3600 make CUDA=1 ARCH="$arch" BUILD="$build" "$@" "$build/signround" "$build/run-tests"
[ "$failed" = 0 ] || exit 1
check "cuda tests" 300 "$build/run-tests" -tc='cuda:*'
for precision in bf16 fp32; do
  for run in 1 2; do
    check "quantize $precision $run" 60 "${quantize[@]}" "${settings[@]}" -o "$work/$precision-$run" --device cuda --precision "$precision"
  done
  check "same bytes $precision" 60 diff -r "$work/$precision-1" "$work/$precision-2"
done
# Tools that slow kernels down a hundredfold: every kernel, on small shapes. racecheck gets only tests of kernels that share memory
# within a block; a whole run has the rest. Attention takes it minutes, most of them before a kernel's first run: all cases at once.
export SIGNROUND_SMALL=1 SIGNROUND_PLANS=
elsewhere='cuda: memory,cuda: families*,cuda: matrix products*,cuda: where results*,cuda: tuning with*'  # no kernels of their own
for tool in memcheck racecheck; do
  check "$tool, quantize" 60 "${sanitizer[@]}" "$tool" "${quantize[@]}" "${tiny[@]}" -o "$work/$tool" --device cuda
done
check "racecheck, kernels" 90 "${sanitizer[@]}" racecheck "$build/run-tests" -tc='cuda:*' \
  -tce="$elsewhere,cuda: a block*,cuda: integers*,cuda: attention*,cuda: gradients in fp8*"
# cuBLASLt's kernels (nvjet) order what they share by barriers in shared memory that racecheck does not follow; told to leave them
# out, it fails.
races_of_ours() { compute-sanitizer --tool racecheck "$@" > "$0" 2>&1 && ! grep 'access at' "$0" | grep -v nvjet; }
export -f races_of_ours
check "racecheck, fp8" 90 bash -c 'races_of_ours "$@"' "$work/races" "$build/run-tests" -tc='cuda: gradients in fp8*'
racing=()
for which in 'of 64 columns' 'of 128 columns' 'with a softcap' 'of other widths' 'with ALiBi' "with Falcon's ALiBi"; do
  check "racecheck, attention $which" 500 "${sanitizer[@]}" racecheck "$build/run-tests" -tc="cuda: attention $which" &
  racing+=($!)
done
for process in "${racing[@]}"; do wait "$process" || failed=1; done
check "memcheck, kernels" 150 "${sanitizer[@]}" memcheck "$build/run-tests" -tc='cuda:*' -tce="$elsewhere"
check "quantize cpu" 300 "${quantize[@]}" "${settings[@]}" -o "$work/cpu" --device cpu
for name in cpu bf16-1 fp32-1; do
  printf '{"model": "%s", "perplexity": "%s"}\n' "$name" \
    "$("$build/signround" eval "$work/$name" --ppl data/heldout.txt --seqlen 256 --quiet --device "$([ $name = cpu ] && echo cpu || echo cuda)" | head -n 1)"
done
[ "$failed" = 0 ] && echo '{"all": true}' || echo '{"all": false}'
exit "$failed"
