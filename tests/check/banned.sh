#!/bin/bash
# Greps for calls that nobody may make, and says what to use instead. A name in a comment counts as well: write around it.
set -euo pipefail
echo "  CHECK banned calls"
failed=0
refuse() { # refuse PATTERN INSTEAD [PATHSPEC...]
	local pattern=$1 instead=$2
	shift 2
	[ $# -gt 0 ] || set -- '*.c' '*.h'
	if git grep --untracked -nE "(^|[^A-Za-z0-9_])($pattern)" -- "$@"; then
		echo "  ^ $instead" >&2
		failed=1
	fi
}
refuse '(strcpy|strcat|strncpy|strncat|stpcpy|sprintf|vsprintf)\(' 'use snprintf or memcpy with a length that was compared'
refuse 'strtok\(' 'use strtok_r, or walk the text with strcspn'
refuse '(atoi|atol|atoll|atof)\(' 'use number_parse of base/number.h'
refuse '(gmtime|localtime|ctime|asctime)\(' 'use the _r form'
refuse 'inet_(ntoa|addr|aton)\(' 'use ip_parse and ip_format of base/addr.h'
refuse '(gets|tmpnam|tempnam|mktemp)\(' 'unsafe in itself'
refuse '(gethostbyname|gethostbyaddr)\(' 'use getaddrinfo'
refuse '(system|popen)\(' 'no shell in C code: netlink, or posix_spawn with arguments' '*.c' '*.h' ':!tests' ':!bench'
refuse 'rand\(|random\(\)|srand\(' 'use libsodium, or the random that is handed in'
refuse 'sleep\(|usleep\(|nanosleep\(' 'wait for a condition with a deadline' '*.c' '*.h' ':!tests/fuzz'
refuse 'exit\(' 'only main programs end the process: return an error' 'base/*' 'netlink/*' 'ipam/*' 'gossip/*' 'driver/*' 'http/*' 'plugin/*' 'control/*'
refuse 'include <uthash\.h>' 'base/uthash.h: with memory that is there, or a sentence' '*.c' '*.h' ':!base/uthash.h'
# The clock is read in base/clock.c; cores get the time as an argument.
refuse '(clock_gettime|gettimeofday|time)\((NULL|CLOCK|&)' 'use base/clock.h at the edge' '*.c' '*.h' ':!base/clock.c' ':!tests' ':!bench'
refuse '(TODO|FIXME|XXX)([^A-Z]|$)' 'do it or leave it' '*.c' '*.h' '*.py' '*.sh' 'Makefile' ':!tests/check/banned.sh'
exit $failed
