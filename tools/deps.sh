#!/bin/bash
# Includes point to the same room or one further down, never up. io and text are neighbours that do not know each other, except that a
# tokenizer is read from JSON.
set -u
cd "$(dirname "$0")/.."
declare -A floor=([cli]=8 [pipeline]=7 [eval]=6 [export]=5 [quant]=4 [model]=3 [text]=2 [io]=2 [ops]=1 [base]=0)
bad=0
while IFS=: read -r file include; do
  room=${file#src/} room=${room%%/*} target=${include%%/*}
  [ "$room" = "$target" ] && continue
  [ "$room $include" = "text io/json.h" ] && continue
  if [ "${floor[$target]:-9}" -ge "${floor[$room]:--1}" ]; then
    echo "$file: may not include \"$include\": $target is not below $room"
    bad=1
  fi
done < <(grep -rHoE '^ *# *include "[^"]+"' src --include='*.h' --include='*.cpp' | sed -E 's/: *# *include "/:/; s/"$//')
exit $bad
