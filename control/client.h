/* A blocking client of the control API for the CLI and CNI: one request, one connection, own few lines of HTTP, no event loop. */
#ifndef CONTROL_CLIENT_H
#define CONTROL_CLIENT_H

#include <jansson.h>

#include "base/err.h"

#define CONTROL_SOCKET_DEFAULT "/run/trestle/trestled.sock"
#define CLIENT_REPLY_MAX (64 * 1024 * 1024)

/* Sends method and path (already encoded, with query) with body (may be NULL). On 200 returns the answer (new reference). On an
 * error answer fills err from it. No daemon: ERR_UNREACHABLE with the socket's path and how to start the daemon. */
json_t *client_call(const char *socket_path, const char *method, const char *path, json_t *body, int timeout_ms, struct err *err);
/* The same for people, who start a daemon and ask it in one line: waits for up to a second while no socket is there, or one that
 * a killed daemon left. */
json_t *client_ask(const char *socket_path, const char *method, const char *path, json_t *body, int timeout_ms, struct err *err);
/* Percent-encodes one path part or query value; the caller frees. */
char *client_encode(const char *text);

#endif
