/* Memory of simulated hosts: see arena.h. */
#include "tests/sim/arena.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/sim/world.h"

#ifdef __SANITIZE_ADDRESS__
#define ARENA_POSSIBLE 0
#else
#define ARENA_POSSIBLE 1
#endif

/* Far from where the kernel puts things by itself, and of the size of what one entry of the third level of page tables maps, so
 * that mremap moves one entry. Memory is used from the beginning. */
#define WINDOW_AT 0x200000000000ull
#define PARKS_AT 0x210000000000ull
#define WINDOW_SIZE (1ull << 30)
#define WINDOWS_END (PARKS_AT + SIM_HOSTS_MAX * WINDOW_SIZE)
#define COPIES_MAX (3ull << 30)

#define CLASS_STEP 16u
#define CLASS_MAX 64u /* up to so many steps and 8 bytes a size has a list of its own, above it is 8 more than a power of two */
#define LISTS (CLASS_MAX + 32)
#define NOBODY UINT32_MAX

/* As with the C library a word stands before what is allocated, which begins at a multiple of 16. */
struct block {
	uint64_t list;
	struct block *next; /* while it is free */
};
#define HEAD offsetof(struct block, next)

/* At the window's beginning: part of the host's memory like everything else in there. */
struct window {
	uint64_t used;
	struct block *free[LISTS];
};

static struct {
	bool on, copies;
	int fd;
	char *at; /* what the host that entered has its memory in */
	unsigned hosts, current;
	uint64_t image_bytes;
} arena = {.fd = -1, .current = NOBODY};

static void give_up(const char *what)
{
	fprintf(stderr, "sim: memory of many hosts: %s: %s\n", what, strerror(errno));
	abort();
}

bool arena_possible(void)
{
	return ARENA_POSSIBLE;
}

static void *window(void)
{
	return (void *)(uintptr_t)WINDOW_AT;
}

static void *park(unsigned host)
{
	return (void *)(uintptr_t)(PARKS_AT + (uint64_t)host * WINDOW_SIZE);
}

static void map(void *at, int flags)
{
	int fd = flags & MAP_ANONYMOUS ? -1 : arena.fd;

	if (mmap(at, WINDOW_SIZE, PROT_READ | PROT_WRITE, flags | MAP_FIXED_NOREPLACE | MAP_NORESERVE, fd, 0) != at)
		give_up("mmap");
}

static void move(void *from, void *to)
{
	if (mremap(from, WINDOW_SIZE, WINDOW_SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, to) != to)
		give_up("mremap");
}

void arena_image_open(void)
{
	struct window *w = window();

	arena_close();
	arena.fd = memfd_create("sim", MFD_CLOEXEC);
	if (arena.fd < 0 || ftruncate(arena.fd, WINDOW_SIZE) < 0)
		give_up("memfd");
	map(w, MAP_SHARED);
	w->used = (sizeof(*w) + CLASS_STEP - 1) / CLASS_STEP * CLASS_STEP + HEAD;
	arena.at = window();
	arena.on = true;
}

/* Every word that points into the image points into the copy. A number that looks like such a pointer would have to lie in one
 * part in 2^40 of all numbers, and `warm_start_is_a_cold_one` would find it changed. */
static void copy_image(void *to)
{
	const uint64_t *from = window();
	uint64_t *word = to, by = (uint64_t)(uintptr_t)to - WINDOW_AT;

	for (size_t i = 0; i < arena.image_bytes / sizeof(*word); i++)
		word[i] = from[i] - WINDOW_AT < arena.image_bytes ? from[i] + by : from[i];
}

void arena_image_close(unsigned hosts)
{
	const struct window *w = window();

	arena.on = false;
	arena.image_bytes = w->used;
	arena.copies = arena.image_bytes * hosts <= COPIES_MAX;
	for (arena.hosts = 0; arena.hosts < hosts; arena.hosts++) {
		map(park(arena.hosts), arena.copies ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_PRIVATE);
		if (arena.copies)
			copy_image(park(arena.hosts));
	}
	munmap(window(), WINDOW_SIZE);
}

void *arena_object(unsigned host, void *in_image)
{
	return arena.copies ? (char *)in_image - WINDOW_AT + (uintptr_t)park(host) : in_image;
}

void arena_enter(unsigned host)
{
	if (arena.current != host && !arena.copies) {
		if (arena.current != NOBODY)
			move(window(), park(arena.current));
		move(park(host), window());
	}
	arena.current = host;
	arena.at = arena.copies ? park(host) : window();
	arena.on = true;
}

void arena_leave(void)
{
	arena.on = false;
}

bool arena_pause(void)
{
	bool was = arena.on;

	arena.on = false;
	return was;
}

void arena_resume(bool was)
{
	arena.on = was;
}

void arena_close(void)
{
	if (arena.fd < 0)
		return;
	arena.on = false;
	munmap(window(), WINDOW_SIZE);
	for (unsigned i = 0; i < arena.hosts; i++)
		munmap(park(i), WINDOW_SIZE);
	close(arena.fd);
	arena.fd = -1;
	arena.hosts = 0;
	arena.current = NOBODY;
}

uint64_t arena_bytes(void)
{
	uint64_t kib = 0;
	char line[128];
	FILE *f = fopen("/proc/self/status", "r");

	while (f && fgets(line, sizeof(line), f)) {
		uint64_t found;

		if (sscanf(line, "RssAnon: %" SCNu64, &found) == 1 || sscanf(line, "VmPTE: %" SCNu64, &found) == 1)
			kib += found;
	}
	if (f)
		fclose(f);
	return kib * 1024 + (arena.copies ? 0 : arena.image_bytes);
}

/* ---- malloc ---- */

#if ARENA_POSSIBLE

/* The C library's own, under the names that it keeps for those who replace malloc. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);
void __libc_free(void *old);

static uint64_t size_of(uint64_t list)
{
	return (list <= CLASS_MAX ? list * CLASS_STEP : (uint64_t)CLASS_MAX * CLASS_STEP << (list - CLASS_MAX)) + HEAD;
}

static uint64_t list_of(size_t size)
{
	uint64_t list = size <= HEAD ? 0 : (size - HEAD + CLASS_STEP - 1) / CLASS_STEP;

	if (list > CLASS_MAX)
		for (list = CLASS_MAX; size_of(list) < size;)
			list++;
	return list;
}

static void *take(size_t size)
{
	struct window *w = (struct window *)arena.at;
	uint64_t list;
	struct block *block;

	if (size > WINDOW_SIZE)
		return NULL;
	list = list_of(size);
	block = w->free[list];
	if (block) {
		w->free[list] = block->next;
		return &block->next;
	}
	if (w->used + HEAD + size_of(list) > WINDOW_SIZE)
		return NULL;
	block = (struct block *)((char *)w + w->used);
	w->used += HEAD + size_of(list);
	block->list = list;
	return &block->next;
}

static struct block *block_of(void *p)
{
	return (struct block *)((char *)p - HEAD);
}

static bool is_ours(const void *p)
{
	return (uintptr_t)p - WINDOW_AT < WINDOWS_END - WINDOW_AT;
}

void *malloc(size_t size)
{
	return arena.on ? take(size) : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
	void *p;

	if (!arena.on)
		return __libc_calloc(count, size);
	if (size && count > WINDOW_SIZE / size)
		return NULL;
	p = take(count * size);
	return p ? memset(p, 0, count * size) : NULL;
}

void free(void *p)
{
	struct window *w = (struct window *)((uintptr_t)p & ~(WINDOW_SIZE - 1));
	struct block *block;

	if (!is_ours(p)) {
		__libc_free(p);
		return;
	}
	block = block_of(p);
	block->next = w->free[block->list];
	w->free[block->list] = block;
}

void *realloc(void *old, size_t size)
{
	uint64_t had;
	void *p;

	if (!old)
		return malloc(size);
	if (!is_ours(old))
		return __libc_realloc(old, size);
	had = size_of(block_of(old)->list);
	if (size <= had)
		return old;
	p = take(size);
	if (!p)
		return NULL;
	memcpy(p, old, had);
	free(old);
	return p;
}

#endif
