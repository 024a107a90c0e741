/* What this build is. TRESTLE_API is the version of the control paths (/v1), TRESTLE_WIRE that of the gossip bytes. */
#ifndef BASE_VERSION_H
#define BASE_VERSION_H

#define TRESTLE_VERSION "0.1.0"
#define TRESTLE_API 1
#define TRESTLE_WIRE 1

/* Set by the build when it knows the commit (-DTRESTLE_COMMIT=\"260fbae\"). */
#ifndef TRESTLE_COMMIT
#define TRESTLE_COMMIT ""
#endif

#endif
