/* Log lines to stderr: level, module token, one sentence with the object in it. The level is the only global state. */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

void log_set_level(enum log_level level);
bool log_shows(enum log_level level);
bool log_level_parse(const char *text, enum log_level *ret_level);
void log_write(enum log_level level, const char *module, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#define log_error(module, ...) log_write(LOG_LEVEL_ERROR, module, __VA_ARGS__)
#define log_warn(module, ...) log_write(LOG_LEVEL_WARN, module, __VA_ARGS__)
#define log_info(module, ...) log_write(LOG_LEVEL_INFO, module, __VA_ARGS__)
#define log_debug(module, ...) log_write(LOG_LEVEL_DEBUG, module, __VA_ARGS__)

/* For what a packet or a client can trigger: at most `burst` lines a minute from this limiter; what was swallowed is said with
 * the next line that passes. Zero-initialise apart from burst. */
struct log_limit {
	unsigned burst;
	unsigned used;
	unsigned long swallowed;
	uint64_t window_start_ms;
};
void log_limited(struct log_limit *limit, uint64_t now_ms, enum log_level level, const char *module, const char *fmt, ...)
	__attribute__((format(printf, 5, 6)));

#endif
