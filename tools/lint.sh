#!/bin/bash
# The rules of the house that a script can check. Prints what breaks one; silent when nothing does.
set -u
cd "$(dirname "$0")/.."
bad=0

mapfile -t files < <(find src cuda tests bench \( -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' -o -name '*.S' \) | sort)
check() {  # check MESSAGE < lines that break a rule
  local lines
  lines=$(cat)
  [ -z "$lines" ] && return
  sed "s/^/$1: /" <<<"$lines"
  bad=1
}
check "over 400 lines" < <(wc -l "${files[@]}" | awk '$2 != "total" && $1 > 400 {print $2 " (" $1 ")"}')
check "over 130 columns" < <(LC_ALL=C.UTF-8 awk 'length > 130 {print FILENAME ":" FNR}' "${files[@]}")
check "unfinished" < <(grep -nE '\b(TODO|FIXME|XXX)\b' "${files[@]}" /dev/null)
check "tab or trailing space" < <(grep -nP '\t| $' "${files[@]}" /dev/null | cut -d: -f1,2)
check "Makefile over 120 lines" < <(wc -l Makefile | awk '$1 > 120')
check "wrong direction" < <(tools/deps.sh)
exit $bad
