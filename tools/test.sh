#!/bin/bash
# test.sh TESTS [ARGUMENTS]: runs the test program. Its last line is "N passed, N failed"; should it die before that, so is this one's.
set -u
log=$(mktemp)
trap 'rm -f "$log"' EXIT
"$@" 2>&1 | tee "$log"
status=${PIPESTATUS[0]}
if ! tail -n 1 "$log" | grep -qE '^[0-9]+ passed, [0-9]+ failed'; then
  echo "the test program ended with status $status"
  echo "0 passed, 1 failed"
  exit 1
fi
exit "$status"
