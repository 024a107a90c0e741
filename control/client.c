/* A blocking client of the control API. One request on one connection, which the server closes behind its answer. */
#include "control/client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/json_text.h"
#include "base/clock.h"
#include "base/jd.h"
#include "base/number.h"

#define HEAD_MAX 16384 /* of the answer */
#define STARTS_MS 1000 /* `trestled & trestle token`: so long may a daemon take until somebody listens */
#define KNOCK_GAP_MS 10

struct buffer {
	char *data;
	size_t len, capacity;
};

struct exchange {
	const char *socket_path; /* for errors */
	int fd;
	uint64_t deadline_ms;
	int timeout_ms;
};

/* ---- connection ---- */

static int connect_error(const char *path, int errnum, struct err *err)
{
	if (errnum == EACCES || errnum == EPERM)
		return err_set(err, ERR_UNREACHABLE, "the control socket %s may not be opened by this user: run as root", path);
	if (errnum == ECONNREFUSED)
		return err_set(err, ERR_UNREACHABLE,
			"no daemon answers at %s, the socket of one that was killed: start it (`systemctl start trestled`; "
			"`journalctl "
			"-u trestled` has what it said last), or name another socket with --socket",
			path);
	return err_set(err, ERR_UNREACHABLE,
		"no daemon answers at %s (%s): start it (`systemctl start trestled`), or name its socket with --socket", path,
		strerror(errnum));
}

/* Blocks while the daemon has many callers waiting: a socket that does not block is refused then (EAGAIN), as if nobody were
 * there. */
static int connect_once(const struct sockaddr_un *addr, int timeout_ms, struct err *err)
{
	struct timeval patience = {.tv_sec = timeout_ms / 1000, .tv_usec = (suseconds_t)(timeout_ms % 1000) * 1000};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), errnum;

	if (fd < 0)
		return err_sys(err, errno, "unix socket");
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
	if (connect(fd, (const struct sockaddr *)addr, sizeof *addr) == 0 && fcntl(fd, F_SETFL, O_NONBLOCK) == 0)
		return fd;
	errnum = errno;
	close(fd);
	connect_error(addr->sun_path, errnum, err);
	errno = errnum;
	return -1;
}

static int open_connection(const char *path, int timeout_ms, int starts_ms, struct err *err)
{
	const uint64_t until_ms = clock_boot_ms() + starts_ms;
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd;

	if (strlen(path) >= sizeof addr.sun_path)
		return err_set(err, ERR_INVALID, "socket path %.200s is too long: expected at most %zu bytes", path,
			sizeof addr.sun_path - 1);
	memcpy(addr.sun_path, path, strlen(path));
	while ((fd = connect_once(&addr, timeout_ms, err)) < 0 && (errno == ENOENT || errno == ECONNREFUSED) &&
		clock_boot_ms() < until_ms)
		poll(NULL, 0, KNOCK_GAP_MS);
	return fd;
}

static int wait_for(const struct exchange *x, short events, struct err *err)
{
	struct pollfd pfd = {.fd = x->fd, .events = events};
	uint64_t now_ms = clock_boot_ms();
	int left_ms = now_ms < x->deadline_ms ? (int)(x->deadline_ms - now_ms) : 0;
	int rc = poll(&pfd, 1, left_ms);

	if (rc < 0 && errno != EINTR)
		return err_sys(err, errno, "poll %s", x->socket_path);
	if (rc == 0)
		return err_set(err, ERR_UNREACHABLE,
			"the daemon at %s did not answer within %d ms; what was asked may come about all the same. `trestle "
			"status` and `journalctl -u trestled` may say what it waits for",
			x->socket_path, x->timeout_ms);
	return 0;
}

static int send_all(const struct exchange *x, const char *data, size_t len, struct err *err)
{
	while (len) {
		ssize_t n = send(x->fd, data, len, MSG_NOSIGNAL);

		if (n >= 0) {
			data += n;
			len -= n;
			continue;
		}
		/* Refused before it was read to the end: the answer says why. */
		if (errno == EPIPE || errno == ECONNRESET)
			return 0;
		if (errno != EAGAIN && errno != EINTR)
			return err_sys(err, errno, "send to %s", x->socket_path);
		if (wait_for(x, POLLOUT, err) < 0)
			return -1;
	}
	return 0;
}

static int grow(struct buffer *buf, struct err *err)
{
	size_t capacity = buf->capacity ? buf->capacity * 2 : 16384;
	char *data;

	if (buf->len >= (size_t)CLIENT_REPLY_MAX + HEAD_MAX)
		return err_set(err, ERR_TOO_BIG, "expected an answer of at most %d bytes, found more", CLIENT_REPLY_MAX);
	data = realloc(buf->data, capacity);
	if (!data)
		return err_sys(err, ENOMEM, "answer of %zu bytes", capacity);
	buf->data = data;
	buf->capacity = capacity;
	return 0;
}

static int receive_all(const struct exchange *x, struct buffer *buf, struct err *err)
{
	for (;;) {
		ssize_t n;

		/* One byte is kept for the NUL that ends the head's strings. */
		if (buf->len + 1 >= buf->capacity && grow(buf, err) < 0)
			return -1;
		n = recv(x->fd, buf->data + buf->len, buf->capacity - buf->len - 1, 0);
		if (n > 0)
			buf->len += n;
		else if (n == 0 || errno == ECONNRESET) /* what came may be whole; split_answer tells */
			break;
		else if (errno != EAGAIN && errno != EINTR)
			return err_sys(err, errno, "receive from %s", x->socket_path);
		else if (wait_for(x, POLLIN, err) < 0)
			return -1;
	}
	buf->data[buf->len] = '\0';
	return 0;
}

/* ---- answer ---- */

static int bad_answer(const struct exchange *x, const char *why, struct err *err)
{
	return err_set(err, ERR_CORRUPT, "what answers at %s is not trestled: %s", x->socket_path, why);
}

/* Finds status and body. The server always states the length, so a cut answer is told from a whole one. */
static int split_answer(const struct exchange *x, const struct buffer *buf, int *ret_status, const char **ret_body,
	size_t *ret_len, struct err *err)
{
	char *body = buf->len ? strstr(buf->data, "\r\n\r\n") : NULL, *line, *value;
	char digits[24];
	uint64_t status, length = UINT64_MAX;
	size_t n;

	if (!buf->len)
		return err_set(err, ERR_UNREACHABLE, "the daemon at %s closed the connection without an answer", x->socket_path);
	if (!body || strncmp(buf->data, "HTTP/1.", 7) || buf->len < 12 || body - buf->data > HEAD_MAX)
		return bad_answer(x, "no HTTP answer", err);
	snprintf(digits, sizeof digits, "%.3s", buf->data + 9);
	if (number_parse(digits, 100, 599, &status) < 0)
		return bad_answer(x, "no HTTP status", err);
	body += 4;
	for (line = strstr(buf->data, "\r\n") + 2; line < body - 2; line = strstr(line, "\r\n") + 2) {
		if (strncasecmp(line, "Content-Length:", 15))
			continue;
		value = line + 15 + strspn(line + 15, " \t");
		n = strspn(value, "0123456789");
		snprintf(digits, sizeof digits, "%.*s", n < sizeof digits ? (int)n : 0, value);
		if (number_parse(digits, 0, (uint64_t)CLIENT_REPLY_MAX, &length) < 0)
			return bad_answer(x, "no valid Content-Length", err);
	}
	if (length != buf->len - (body - buf->data))
		return bad_answer(x, "the answer is shorter or longer than it says", err);
	*ret_status = status;
	*ret_body = body;
	*ret_len = length;
	return 0;
}

static enum err_code code_of(const char *name)
{
	int code;

	for (code = ERR_INVALID; code <= ERR_INTERNAL; code++)
		if (!strcmp(err_code_name(code), name))
			return code;
	return ERR_INTERNAL;
}

static int error_answer(const struct exchange *x, int status, json_t *answer, struct err *err)
{
	json_t *error = json_object_get(answer, "error");
	const char *code = json_string_value(json_object_get(error, "code"));
	const char *message = json_string_value(json_object_get(error, "message"));

	if (!code || !message)
		return err_set(
			err, ERR_CORRUPT, "the daemon at %s answered with status %d and no reason", x->socket_path, status);
	return err_set(err, code_of(code), "%s", message);
}

static json_t *read_answer(const struct exchange *x, const struct buffer *buf, struct err *err)
{
	struct err why;
	const char *body = NULL;
	size_t len = 0;
	int status = 0;
	json_t *answer;

	if (split_answer(x, buf, &status, &body, &len, err) < 0)
		return NULL;
	answer = jd_parse(body, len, "answer", &why);
	if (status == 200 && answer)
		return answer;
	if (status == 200)
		bad_answer(x, why.text, err);
	else
		error_answer(x, status, answer, err);
	json_decref(answer);
	return NULL;
}

/* ---- request ---- */

static char *make_request(const char *method, const char *path, json_t *body, size_t *ret_len)
{
	char *text = body ? json_print(body, JSON_COMPACT) : NULL;
	char *request = alloc_format("%s %s HTTP/1.1\r\nHost: trestle\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%s",
		method, path, text ? strlen(text) : 0, text ? text : "");

	free(text);
	*ret_len = strlen(request);
	return request;
}

static json_t *call(const char *socket_path, const char *method, const char *path, json_t *body, int timeout_ms, int starts_ms,
	struct err *err)
{
	struct exchange x = {.socket_path = socket_path, .timeout_ms = timeout_ms};
	struct buffer buf = {0};
	json_t *answer = NULL;
	char *request;
	size_t len;

	x.fd = open_connection(socket_path, timeout_ms, starts_ms, err);
	if (x.fd < 0)
		return NULL;
	x.deadline_ms = clock_boot_ms() + timeout_ms;
	request = make_request(method, path, body, &len);
	if (send_all(&x, request, len, err) == 0 && receive_all(&x, &buf, err) == 0)
		answer = read_answer(&x, &buf, err);
	close(x.fd);
	free(request);
	free(buf.data);
	return answer;
}

json_t *client_call(const char *socket_path, const char *method, const char *path, json_t *body, int timeout_ms, struct err *err)
{
	return call(socket_path, method, path, body, timeout_ms, 0, err);
}

json_t *client_ask(const char *socket_path, const char *method, const char *path, json_t *body, int timeout_ms, struct err *err)
{
	return call(socket_path, method, path, body, timeout_ms, STARTS_MS, err);
}

char *client_encode(const char *text)
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
	char *encoded = alloc_array(char, strlen(text) * 3 + 1), *p = encoded;

	for (; *text; text++) {
		if (strchr(plain, *text))
			*p++ = *text;
		else
			p += snprintf(p, 4, "%%%02X", (unsigned char)*text);
	}
	*p = '\0';
	return encoded;
}
