/* actor: every process of the landscape, good or bad.
 *
 * It is linked under ordinary program names and started with ordinary
 * arguments. What it really does comes as one line on descriptor 3, which is
 * read and closed at once, so that nothing about the process tells what it is
 * except its behaviour. */
#define _GNU_SOURCE
#include "actor.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct shared *shared;
static char script[1024];
static char *settings[32];
static uint64_t state = 88172645463325252ull;

static const struct {
	const char *name;
	behaviour *run;
} behaviours[] = {
	{ "app", app },     { "beat", beat },       { "tree", tree },   { "pool", pool },
	{ "leaf", leaf },   { "work", work },       { "compile", compile },
	{ "leak", leak },   { "storm", storm },     { "thrash", thrash },
	{ "cache", cache }, { "files", fill_files }, { "burst", burst }, { "blocked", blocked },
};

const char *text(const char *key, const char *otherwise)
{
	size_t length = strlen(key);

	for (char **setting = settings; *setting; setting++)
		if (!strncmp(*setting, key, length) && (*setting)[length] == '=')
			return *setting + length + 1;
	return otherwise;
}

long number(const char *key, long otherwise)
{
	const char *value = text(key, NULL);

	return value ? atol(value) : otherwise;
}

uint64_t random_word(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

void reseed(void)
{
	state ^= getpid() * 2654435761u;
}

void pause_ms(long ms)
{
	if (ms > 0)
		usleep(ms * 1000);
}

void wait_for_go(void)
{
	while (!shared->go)
		pause_ms(20);
}

void say_settled(void)
{
	__atomic_add_fetch(&shared->settled, 1, __ATOMIC_RELAXED);
}

static void read_script(void)
{
	ssize_t length, total = 0;
	int words = 0;

	while ((length = read(SCRIPT_FD, script + total, sizeof script - 1 - total)) > 0)
		total += length;
	close(SCRIPT_FD);
	script[total] = 0;
	for (char *word = strtok(script, " \n"); word && words < 31; word = strtok(NULL, " \n"))
		settings[words++] = word;
}

static void map_shared(void)
{
	shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, SHARED_FD, 0);
	fcntl(SHARED_FD, F_SETFD, FD_CLOEXEC);
	if (shared == MAP_FAILED) { /* started by a program that does not know of it */
		shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		shared->go = 1;
	}
}

int main(void)
{
	map_shared();
	read_script();
	reseed();
	if (settings[0])
		for (size_t i = 0; i < sizeof behaviours / sizeof *behaviours; i++)
			if (!strcmp(settings[0], behaviours[i].name)) {
				behaviours[i].run();
				return 0;
			}
	return 2;
}
