#!/usr/bin/env bash
# Gathers what a program needs to run without its build tree.
#
#   docker/collect.sh PROGRAM... DIR
#
# DIR/bin: the programs, stripped. DIR/lib: shared libraries that no Debian package owns (LibTorch's).
# DIR/packages: names of the Debian packages that own the others.
set -euo pipefail
out=${*: -1}
programs=("${@:1:$#-1}")
mkdir -p "$out/bin" "$out/lib"

owner() { dpkg-query -S "$1" 2>/dev/null | head -n1 | cut -d: -f1; }

for program in "${programs[@]}"; do
  install -s "$program" "$out/bin/"
done
ldd "${programs[@]}" | awk '/not found/ { print "missing: " $1 > "/dev/stderr"; bad = 1 }
                            $2 == "=>" && $3 ~ /^\// { print $3 }
                            END { exit bad }' | sort -u |
  while read -r library; do
    file=$(realpath "$library")
    # Debian 12 calls /lib what is /usr/lib, and packages know a file by either name.
    package=$(owner "$library" || true)
    [ -n "$package" ] || package=$(owner "$file" || true)
    [ -n "$package" ] || package=$(owner "${file#/usr}" || true)
    if [ -n "$package" ]; then
      echo "$package"
    else
      install -m 644 "$file" "$out/lib/$(basename "$library")"
    fi
  done | sort -u >"$out/packages"
