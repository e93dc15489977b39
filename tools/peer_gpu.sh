#!/bin/bash
# peer_gpu.sh [OPTIONS_OF_time_peer.py...]: on a machine with a GPU and torch: auto-round beside `signround bench --shape llama3-8b` in
# the same run, as JSON lines. No network: what Python lacks comes from the wheels in WHEELS (.whl): auto-round 0.16.1, pydantic,
# pydantic-core, annotated-types, typing-inspection, typing-extensions, py-cpuinfo, requests and what that needs, psutil.
# BUILT: the folder of the program; ITERS: steps of each (50).
set -u
cd "$(dirname "$0")/.." || exit 4
build=${BUILT:-build-gpu} iters=${ITERS:-50}
packages=$(mktemp -d)
trap 'rm -rf "$packages"' EXIT
for wheel in "${WHEELS:-.whl}"/*.whl; do python3 -m zipfile -e "$wheel" "$packages" || exit 4; done

IFS=, read -r name driver < <(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader -i 0)
printf '{"device": "%s", "driver": "%s", "commit": "%s"}\n' "$name" "${driver# }" \
  "${COMMIT:-$(git rev-parse --short HEAD 2>/dev/null)}"
ok=true
signround() {
  timeout 120 "$build/signround" bench --shape llama3-8b --iters "$iters" --json |
    python3 -c 'import json, sys; print(json.dumps({"program": "signround"} | json.load(sys.stdin)))' || ok=false
}
signround
HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 PYTHONPATH=$packages timeout "${LIMIT:-240}" \
  python3 tests/peer/time_peer.py --iters "$iters" "$@" > "$packages/log" 2> "$packages/errors"
if [ $? = 0 ]; then tail -n 1 "$packages/log"; else ok=false; tail -n 30 "$packages/errors" >&2; fi
signround  # once more: the card is as warm as it was for the peer
printf '{"all": %s}\n' "$ok"
[ "$ok" = true ]
