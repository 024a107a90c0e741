#!/bin/bash
# Compiles every header alone: one that works only behind another hides what it needs. Arguments: the compiler and its flags.
set -euo pipefail
echo "  CHECK headers"
failed=0
while read -r header; do
	echo "#include \"$header\"" | "$@" -x c -fsyntax-only - || { echo "$header does not stand alone" >&2; failed=1; }
	guard=$(tr 'a-z/.-' 'A-Z___' <<<"$header")
	grep -q "^#ifndef $guard\$" "$header" || { echo "$header: expected the guard $guard" >&2; failed=1; }
done < <(git ls-files --cached --others --exclude-standard '*.h')
exit $failed
