#!/bin/bash
# demo.sh PROGRAM: quantizes the model in data/ at 4 and 2 bits, by rounding to nearest and by SignRound, and shows what is left of it:
# perplexity on a text that it has not seen, size, time, and a sample of what it writes. The last line is for scripts.
set -euo pipefail
cd "$(dirname "$0")/.."
program=$1
model=data/model
prompt="Once upon a time"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
quiet=; [ -t 2 ] || quiet=--quiet
tuning="--iters 200 --nsamples 128 --seqlen 128 --batch-size 4"

perplexity() { "$program" eval "$1" --ppl data/heldout.txt --seqlen 256 --quiet | sed -nE 's/^perplexity ([^ ]+) .*/\1/p'; }
megabytes() { cat "$1"/*.safetensors | wc -c | awk '{printf "%.2f", $1 / 1e6}'; }
row() { printf '%-20s %12s %10s %10s\n' "$@"; }
measure() {  # measure DIRECTORY LABEL SECONDS: one row of the table
  printf '%.3f\n' "$(perplexity "$1")" > "$1.perplexity"
  row "$2" "$(cat "$1.perplexity")" "$(megabytes "$1")" "$3"
}
make_one() {  # make_one NAME SCHEME LABEL OPTION...
  local name=$1 scheme=$2 label=$3 begin
  shift 3
  begin=$(date +%s%N)
  "$program" quantize "$model" -o "$work/$name" --scheme "$scheme" "$@" $quiet > /dev/null
  measure "$work/$name" "$label" "$(awk -v ns=$(($(date +%s%N) - begin)) 'BEGIN {printf "%.1f", ns / 1e9}')"
}

cp -r "$model" "$work/full"
row "" perplexity MB seconds
measure "$work/full" "full precision" -
make_one w4-rtn W4A16G64 "W4 nearest" --iters 0
make_one w4-signround W4A16G64 "W4 SignRound" $tuning
make_one w2-rtn W2A16G64 "W2 nearest" --iters 0
make_one w2-signround W2A16G64 "W2 SignRound" $tuning
for name in full w4-rtn w4-signround w2-rtn w2-signround; do
  printf '\n%s: %s\n' "$name" "$("$program" generate "$work/$name" --prompt "$prompt" -n 48)"
done
value() { cat "$work/$1.perplexity"; }
printf '\ndemo W2 full=%s rtn=%s signround=%s\n' "$(value full)" "$(value w2-rtn)" "$(value w2-signround)"
