/* Runs a fuzz target without a fuzzer: feeds it every file of the directories and files named as arguments, and says how many.
 *
 * `make test` replays the corpora with it, so an input that once broke a parser is tried for ever after, on every machine. Each
 * input is a heap block of its exact size: a read behind its end is one behind an allocation, which the address sanitizer sees.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"

#define INPUT_MAX (4u * 1024 * 1024) /* above every limit of ours, so that the limits themselves are reached */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned long count;

static int replay_file(const char *path)
{
	struct err err;
	uint8_t *exact;
	char *data;
	size_t len;

	if (file_read(path, INPUT_MAX, &data, &len, &err) < 0) {
		fprintf(stderr, "%s\n", err.text);
		return -1;
	}
	exact = malloc(len ? len : 1);
	if (!exact) {
		free(data);
		return -1;
	}
	memcpy(exact, data, len);
	free(data);
	/* Should the target crash, the last line names the input. */
	if (getenv("V"))
		fprintf(stderr, "%s\n", path);
	LLVMFuzzerTestOneInput(exact, len);
	free(exact);
	count++;
	return 0;
}

static int is_visible(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

static int replay_directory(const char *path)
{
	struct dirent **names;
	char file[4096];
	int n = scandir(path, &names, is_visible, alphasort);
	int rc = 0;

	if (n < 0) {
		perror(path);
		return -1;
	}
	for (int i = 0; i < n; i++) {
		snprintf(file, sizeof(file), "%s/%s", path, names[i]->d_name);
		rc |= replay_file(file);
		free(names[i]);
	}
	free(names);
	return rc;
}

int main(int argc, char **argv)
{
	struct stat st;
	int rc = 0;

	for (int i = 1; i < argc; i++) {
		if (stat(argv[i], &st) < 0) {
			perror(argv[i]);
			rc = -1;
		} else {
			rc |= S_ISDIR(st.st_mode) ? replay_directory(argv[i]) : replay_file(argv[i]);
		}
	}
	/* A corpus that is empty or elsewhere is a failure: nothing would be tried, silently. */
	if (count == 0) {
		fprintf(stderr, "%s: no inputs\n", argv[0]);
		rc = -1;
	}
	printf("%lu inputs\n", count);
	return rc == 0 ? 0 : 1;
}
