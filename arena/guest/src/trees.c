/* Innocent and guilty in one family: a browser and its tabs, a pool of
 * workers, a build. */
#define _GNU_SOURCE
#include "actor.h"
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHUNK = 1 << 20 };

static void set_oom_score_adj(int value)
{
	char digits[16];
	int file = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	snprintf(digits, sizeof digits, "%d", value);
	if (file < 0 || write(file, digits, strlen(digits)) < 0)
		exit(5);
	close(file);
}

/* Arguments come as one word with commas for spaces. */
static pid_t start_child(const char *exe, const char *arguments, int oom_score_adj,
			 const char *script)
{
	char *argv[16], words[256];
	int ends[2], count = 0;
	pid_t child;

	if (pipe2(ends, O_CLOEXEC))
		return -1;
	child = fork();
	if (child) {
		close(ends[0]);
		if (write(ends[1], script, strlen(script)) < 0)
			perror("script");
		close(ends[1]);
		return child;
	}
	set_oom_score_adj(oom_score_adj);
	dup2(ends[0], SCRIPT_FD);
	fcntl(SCRIPT_FD, F_SETFD, 0); /* the pipe may have had that very number */
	fcntl(SHARED_FD, F_SETFD, 0);
	snprintf(words, sizeof words, "%s", arguments);
	for (char *word = strtok(words, ","); word && count < 15; word = strtok(NULL, ","))
		argv[count++] = word;
	argv[count] = NULL;
	execv(exe, argv);
	_exit(127);
}

static void claim_role(pid_t pid, const char *role)
{
	struct claim *claim = &shared->claim[shared->claims % MAX_CLAIMS];

	claim->pid = pid;
	snprintf(claim->role, sizeof claim->role, "%s", role);
	shared->claims++;
}

/* A browser: itself, and children with a higher oom_score_adj, one of which leaks. */
void tree(void)
{
	long children = number("children", 6), leaky = number("leaky", -1);
	char script[256];

	for (long i = 0; i < children; i++) {
		const char *role = i == leaky ? text("leaky_role", "leak") : text("role", "child");

		if (i == leaky)
			snprintf(script, sizeof script, "leak rate=%ld start_mem=%ld",
				 number("rate", 0), number("child_mem", 30));
		else
			snprintf(script, sizeof script, "app mem=%ld", number("child_mem", 30));
		claim_role(start_child(text("exe", ""), text("arguments", "child"),
				       number("adj", 0), script), role);
	}
	signal(SIGCHLD, SIG_IGN);
	app();
}

/* A pool: many workers of medium size, which together are too much. */
void pool(void)
{
	long children = number("children", 16);
	char script[256];

	wait_for_go();
	signal(SIGCHLD, SIG_IGN);
	for (long i = 0; i < children; i++) {
		snprintf(script, sizeof script, "leaf mem=%ld rate=%ld", number("child_mem", 60),
			 number("rate", 8));
		start_child(text("exe", ""), text("arguments", "worker"), 0, script);
	}
	wait(NULL); /* with SIGCHLD ignored: returns when the last worker is gone */
}

/* Grow at a rate up to a size, then use it, for a time or for ever. */
static void grow_and_use(long mib, double rate, double seconds)
{
	static char *chunks[4096];
	double start = now();

	for (long i = 0; i < mib && i < 4096; i++) {
		chunks[i] = take(CHUNK, SPARSE);
		pause_ms((start + (i + 1) / rate - now()) * 1000);
	}
	while (!seconds || now() - start < seconds) {
		char *chunk = chunks[random_word() % mib];

		if (chunk)
			chunk[random_word() % CHUNK]++;
		pause_ms(2);
	}
}

void leaf(void)
{
	grow_and_use(number("mem", 60), number("rate", 8), 0);
}

/* One compiler process of a build. */
void compile(void)
{
	grow_and_use(number("mem", 80), number("rate", 20), number("seconds", 60));
}

/* A worker that computes and churns through memory, but has a limit and an end. */
void work(void)
{
	long mib = number("mem", 60), churn = number("churn", 20);
	double end;
	char *memory;
	unsigned long sum = 0;

	wait_for_go();
	memory = take((size_t)mib << 20, SPARSE);
	for (end = now() + number("seconds", 12); now() < end;) {
		char *fresh = take((size_t)churn << 20, SPARSE);

		for (long i = 0; memory && i < 400000; i++)
			sum += ++memory[random_word() % ((size_t)mib << 20)];
		if (fresh)
			give_back(fresh, (size_t)churn << 20);
		pause_ms(20);
	}
	prctl(PR_SET_TIMERSLACK, sum); /* the sum is used */
}
