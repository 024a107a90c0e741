/* The end of Trestle on a host (see purge.c). */
#ifndef DAEMON_PURGE_H
#define DAEMON_PURGE_H

#include "base/err.h"
#include "daemon/options.h"

/* ERR_EXISTS: a daemon uses the directories. Run again after a failure: it goes on. */
int purge_host(const struct options *options, struct err *err);

#endif
