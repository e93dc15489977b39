#!/bin/bash
# test.sh TESTS [ARGUMENTS]: runs the test program; the last line is "N passed, N failed". A crash counts as one more failure.
set -u
log=$(mktemp)
trap 'rm -f "$log"' EXIT
"$@" 2>&1 | tee "$log"
status=${PIPESTATUS[0]}
counts=$(sed -nE 's/.*test cases: *[0-9]+ \| *([0-9]+) passed \| *([0-9]+) failed.*/\1 \2/p' "$log" | tail -n 1)
read -r passed failed <<<"${counts:-0 0}"
if [ "$status" != 0 ] && [ "$failed" = 0 ]; then failed=1; fi
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
