#!/bin/bash
# cppcheck over the sources named as arguments. Its answers per file are kept in build/cppcheck, so a second run is short.
set -euo pipefail
mkdir -p build/cppcheck
suppress=(
	missingIncludeSystem
	# System headers are not looked at: uthash's macros are unknown, and what they assign looks unset. gcc and the sanitizers see it.
	unknownMacro uninitvar ctuuninitvar
	incorrectLogicOperator:cni/config.c # does not read hexadecimal floating constants
	resourceLeak:cni/netns.c            # does not follow a conditional that returns the descriptor
	memleak:daemon/main.c               # the process ends there
)
exec cppcheck --quiet --enable=warning,performance,portability --std=c11 --inline-suppr --error-exitcode=1 -j 2 \
	--cppcheck-build-dir=build/cppcheck "${suppress[@]/#/--suppress=}" --library=posix,gnu -D_GNU_SOURCE -D__linux__ \
	-DTRESTLE_VERSION='""' -I . --template='{file}:{line}: {severity}: {message} [{id}]' "$@"
