/* Answers of the control API on paper: aligned tables for people, indented JSON for programs. */
#ifndef CLI_VIEW_H
#define CLI_VIEW_H

#include <jansson.h>
#include <stdio.h>

enum view_kind {
	VIEW_TEXT,  /* string, number or boolean as it is; "-" for null */
	VIEW_COUNT, /* number, aligned to the right */
	VIEW_ID,    /* the first 12 digits */
	VIEW_AGE,   /* seconds as 12s, 3m05s, 2h05m, 3d04h */
	VIEW_RTT,   /* microseconds as milliseconds */
	VIEW_LIST,  /* array of strings, joined by ", " */
};

struct view_column {
	const char *title;
	const char *member;
	enum view_kind kind;
};

#define VIEW_CELL_MAX 512

/* One cell's text. What is no printable character becomes '?': names come from other hosts and must not drive the terminal. */
void view_cell(json_t *object, const char *member, enum view_kind kind, char buf[VIEW_CELL_MAX]);
/* Columns end with a NULL title. Without rows only the titles are written. */
void view_table(FILE *out, const struct view_column *columns, json_t *rows);
/* "title  value" lines of one object. */
void view_facts(FILE *out, const struct view_column *facts, json_t *object);
void view_json(FILE *out, json_t *answer);
/* Replaces what is no printable character, in place. */
void view_printable(char *text);
/* Seconds as VIEW_AGE writes them. */
void view_age(json_int_t seconds, char buf[32]);

#endif
