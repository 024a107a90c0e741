/* Tables and JSON. A table is two passes over the rows: widths, then lines; cells are made twice rather than kept. */
#include "cli/view.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/json_text.h"

#define COLUMNS_MAX 16
#define GAP 2 /* blanks between columns */

void view_age(json_int_t seconds, char buf[32])
{
	long long s = seconds;

	if (s < 60)
		snprintf(buf, 32, "%llds", s);
	else if (s < 3600)
		snprintf(buf, 32, "%lldm%02llds", s / 60, s % 60);
	else if (s < 86400)
		snprintf(buf, 32, "%lldh%02lldm", s / 3600, s / 60 % 60);
	else
		snprintf(buf, 32, "%lldd%02lldh", s / 86400, s / 3600 % 24);
}

void view_printable(char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < ' ' || *text == 0x7f)
			*text = '?';
}

static void plain_cell(json_t *value, char buf[VIEW_CELL_MAX])
{
	switch (value ? json_typeof(value) : JSON_NULL) {
	case JSON_STRING:
		snprintf(buf, VIEW_CELL_MAX, "%s", json_string_value(value));
		break;
	case JSON_INTEGER:
		snprintf(buf, VIEW_CELL_MAX, "%lld", (long long)json_integer_value(value));
		break;
	case JSON_TRUE:
		snprintf(buf, VIEW_CELL_MAX, "yes");
		break;
	case JSON_FALSE:
		snprintf(buf, VIEW_CELL_MAX, "no");
		break;
	default:
		snprintf(buf, VIEW_CELL_MAX, "-");
	}
}

static void list_cell(json_t *value, char buf[VIEW_CELL_MAX])
{
	char cell[VIEW_CELL_MAX];
	size_t len = 0, i;
	json_t *item;

	json_array_foreach(value, i, item)
	{
		if (len >= VIEW_CELL_MAX)
			break;
		plain_cell(item, cell);
		len += snprintf(buf + len, VIEW_CELL_MAX - len, "%s%s", i ? ", " : "", cell);
	}
	if (!i)
		snprintf(buf, VIEW_CELL_MAX, "-");
}

void view_cell(json_t *object, const char *member, enum view_kind kind, char buf[VIEW_CELL_MAX])
{
	json_t *value = json_object_get(object, member);
	char age[32];

	plain_cell(value, buf);
	if (kind == VIEW_LIST)
		list_cell(value, buf);
	else if (kind == VIEW_ID && json_is_string(value) && strlen(buf) > 12)
		buf[12] = '\0';
	else if (kind == VIEW_RTT && json_is_integer(value))
		snprintf(buf, VIEW_CELL_MAX, "%.2f ms", json_integer_value(value) / 1000.0);
	else if (kind == VIEW_AGE && json_is_integer(value)) {
		view_age(json_integer_value(value), age);
		snprintf(buf, VIEW_CELL_MAX, "%s", age);
	}
	view_printable(buf);
}

static void put_cell(FILE *out, const char *text, int width, bool right, bool last)
{
	if (right)
		fprintf(out, "%*s%*s", width, text, last ? 0 : GAP, "");
	else if (last)
		fputs(text, out);
	else
		fprintf(out, "%-*s", width + GAP, text);
}

void view_table(FILE *out, const struct view_column *columns, json_t *rows)
{
	int width[COLUMNS_MAX];
	char cell[VIEW_CELL_MAX];
	size_t count = 0, row, c;
	json_t *object;

	for (; columns[count].title; count++) {
		width[count] = strlen(columns[count].title);
		json_array_foreach(rows, row, object)
		{
			view_cell(object, columns[count].member, columns[count].kind, cell);
			if ((int)strlen(cell) > width[count])
				width[count] = strlen(cell);
		}
	}
	for (c = 0; c < count; c++)
		put_cell(out, columns[c].title, width[c], columns[c].kind == VIEW_COUNT, c + 1 == count);
	fputc('\n', out);
	json_array_foreach(rows, row, object)
	{
		for (c = 0; c < count; c++) {
			view_cell(object, columns[c].member, columns[c].kind, cell);
			put_cell(out, cell, width[c], columns[c].kind == VIEW_COUNT, c + 1 == count);
		}
		fputc('\n', out);
	}
}

void view_facts(FILE *out, const struct view_column *facts, json_t *object)
{
	const struct view_column *fact;
	char cell[VIEW_CELL_MAX];
	int width = 0;

	for (fact = facts; fact->title; fact++)
		if ((int)strlen(fact->title) > width)
			width = strlen(fact->title);
	for (fact = facts; fact->title; fact++) {
		view_cell(object, fact->member, fact->kind, cell);
		fprintf(out, "%-*s%s\n", width + GAP, fact->title, cell);
	}
}

void view_json(FILE *out, json_t *answer)
{
	char *text = json_print(answer, JSON_INDENT(2));

	fprintf(out, "%s\n", text);
	free(text);
}
