/* The innocent: applications, a beating service, workers, process trees. */
#define _GNU_SOURCE
#include "actor.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096, SMALL_FILES = 200 };
#define BEAT_S 0.1

static volatile unsigned long seen; /* keeps reads from being optimised away */

/* Half of the pages compress, as an application's do. */
static char *belongings(long mib)
{
	size_t half = (size_t)mib << 19;
	char *memory = mmap(NULL, 2 * half, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		exit(3);
	madvise(memory, 2 * half, MADV_NOHUGEPAGE);
	fill(memory, half, DENSE);
	fill(memory + half, half, TRACE);
	return memory;
}

/* Touch some pages: a quarter of them is hot. */
static void use(char *memory, size_t pages, int touches)
{
	for (int i = 0; i < touches; i++) {
		size_t page = random_word() % pages;

		if (i % 8)
			page %= pages / 4 + 1;
		memory[page * PAGE + 16]++;
	}
}

void app(void)
{
	long mib = number("mem", 40);
	char *memory = belongings(mib);

	say_settled();
	for (;;) {
		use(memory, (size_t)mib << 8, 200);
		pause_ms(250);
	}
}

/* ---- the service whose beats are measured ---- */

static char *map_table(size_t *pages)
{
	static char buffer[65536];
	int file = open("/srv/data/table", O_RDONLY | O_CLOEXEC);
	struct stat info;
	char *table;

	if (file < 0 || fstat(file, &info))
		exit(4);
	while (read(file, buffer, sizeof buffer) > 0)
		;
	table = mmap(NULL, info.st_size, PROT_READ, MAP_SHARED, file, 0);
	*pages = info.st_size / PAGE;
	for (size_t page = 0; page < *pages; page++)
		seen += table[page * PAGE];
	madvise(table, info.st_size, MADV_RANDOM);
	return table;
}

static void read_small_file(void)
{
	static char buffer[PAGE];
	char name[64];
	int file;

	snprintf(name, sizeof name, "/srv/data/small/%03d", (int)(random_word() % SMALL_FILES));
	file = open(name, O_RDONLY | O_CLOEXEC);
	if (file >= 0) {
		seen += read(file, buffer, sizeof buffer);
		close(file);
	}
}

static void use_fresh_memory(void)
{
	size_t size = 16 * PAGE;
	char *fresh = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (fresh == MAP_FAILED)
		return;
	for (size_t at = 0; at < size; at += PAGE)
		fresh[at] = 1;
	munmap(fresh, size);
}

static void record(struct beat *beats, uint32_t limit, volatile uint32_t *count, double due)
{
	if (*count < limit) {
		beats[*count].due = due;
		beats[*count].latency_us = (now() - due) * 1e6;
	}
	++*count;
}

static void spawn_something(void)
{
	double start = now();
	pid_t child;

	shared->since = start;
	shared->busy = 1;
	child = fork();
	if (!child) {
		execl("/bin/true", "true", (char *)NULL);
		_exit(1);
	}
	if (child > 0)
		waitpid(child, NULL, 0);
	record(shared->spawn, MAX_SPAWNS, &shared->spawns, start);
	shared->busy = 0;
}

/* What a small service does ten times a second: its own memory in rotation, a
 * mapped file, two small files, fresh memory; once a second a program. */
void beat(void)
{
	size_t pages = (size_t)number("mem", 24) << 8, table_pages, turn = 0;
	char *memory = belongings(pages >> 8), *table = map_table(&table_pages);
	double due = now() + BEAT_S;

	say_settled();
	for (uint32_t count = 0;; count++) {
		pause_ms((due - now()) * 1000);
		shared->since = due;
		shared->busy = 1;
		for (int i = 0; i < 128; i++, turn++)
			memory[turn % pages * PAGE + 32]++;
		for (int i = 0; i < 32; i++)
			seen += table[random_word() % table_pages * PAGE];
		read_small_file();
		read_small_file();
		use_fresh_memory();
		record(shared->beat, MAX_BEATS, &shared->beats, due);
		shared->busy = 0;
		if (count % 10 == 5)
			spawn_something();
		due += BEAT_S;
		if (due < now()) /* beats that were slept through are not made up for */
			due += (long)((now() - due) / BEAT_S) * BEAT_S;
	}
}

