#!/bin/bash
# cppcheck over the sources named as arguments. Its answers per file are kept in build/cppcheck, so a second run is short.
set -euo pipefail
mkdir -p build/cppcheck
# System headers are not looked at, so uthash's macros are unknown to it and what they assign looks unset: uninitvar and its like are left to gcc and
# the sanitizers.
exec cppcheck --quiet --enable=warning,performance,portability --std=c11 --inline-suppr --error-exitcode=1 -j 2 \
	--cppcheck-build-dir=build/cppcheck --suppress=missingIncludeSystem --suppress=unknownMacro --suppress=uninitvar --suppress=ctuuninitvar \
	--suppress='*:/usr/include/*' --library=posix,gnu -D_GNU_SOURCE -D__linux__ -DTRESTLE_VERSION='""' -I . \
	--template='{file}:{line}: {severity}: {message} [{id}]' "$@"
