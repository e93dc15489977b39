#!/bin/sh
# need.sh PACKAGE...: installs those Debian packages that are missing where the rights are there, else says in one line how.
set -eu
missing=
for package; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
install() { DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing >/dev/null 2>&1; }
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  install || { apt-get update >/dev/null 2>&1 && install; } && exit 0
fi
echo "missing:$missing; to install: sudo apt-get install -y$missing" >&2
exit 1
