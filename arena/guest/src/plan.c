/* The plan: lines of tab-separated words, written by the host.
 *   set KEY VALUE
 *   map COMM ROLE
 *   group PATH FILE=VALUE;FILE=VALUE
 *   actor PHASE DELAY_MS ROLE UID ADJ GROUP EXE ARGUMENTS SCRIPT
 */
#define _GNU_SOURCE
#include "monitor.h"
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CGROUP "/sys/fs/cgroup/"
enum { MAX_ACTORS = 48, ACTOR_WORDS = 10 };

struct plan plan = { .settle_s = 2, .base_s = 3, .after_s = 4, .limit_s = 40 };

static struct actor {
	const char *phase, *role, *group, *exe, *script;
	char *arguments;
	double delay_s;
	int uid, oom_score_adj;
	bool started;
} actors[MAX_ACTORS];
static int actor_count;
static char text[32768];

/* Make a group and every group above it, each with the controllers of ours. */
static void make_group(const char *path)
{
	char part[300], control[340];

	snprintf(part, sizeof part, CGROUP "%s", path);
	for (char *slash = part + strlen(CGROUP); slash; ) {
		slash = strchr(slash + 1, '/');
		if (slash)
			*slash = 0;
		if (mkdir(part, 0755) && errno != EEXIST)
			warn("%s: %s", part, strerror(errno));
		if (slash) {
			snprintf(control, sizeof control, "%s/cgroup.subtree_control", part);
			if (!write_path(control, "+memory +pids"))
				warn("%s: %s", control, strerror(errno));
			*slash = '/';
		}
	}
}

static void limit_group(const char *path, char *limits)
{
	make_group(path);
	for (char *limit = strtok(limits, ";"); limit; limit = strtok(NULL, ";")) {
		char file[400], *value = strchr(limit, '=');

		if (!value)
			continue;
		*value++ = 0;
		snprintf(file, sizeof file, CGROUP "%s/%s", path, limit);
		if (!write_path(file, value))
			warn("%s: %s", file, strerror(errno));
	}
}

static void set(const char *key, const char *value)
{
	if (!strcmp(key, "settlers"))
		plan.settlers = atoi(value);
	else if (!strcmp(key, "settle_s"))
		plan.settle_s = atof(value);
	else if (!strcmp(key, "base_s"))
		plan.base_s = atof(value);
	else if (!strcmp(key, "after_s"))
		plan.after_s = atof(value);
	else if (!strcmp(key, "limit_s"))
		plan.limit_s = atof(value);
	else if (!strcmp(key, "thaw_s"))
		plan.thaw_s = atof(value);
	else if (!strcmp(key, "freeze"))
		snprintf(plan.freeze, sizeof plan.freeze, "%s", value);
	else if (!strcmp(key, "guard_group"))
		snprintf(plan.guard_group, sizeof plan.guard_group, "%s", value);
	else if (!strcmp(key, "end_roles"))
		watch_for_end(value);
	else
		warn("unknown setting %s", key);
}

static void add_actor(char **word)
{
	struct actor *actor = &actors[actor_count];

	if (actor_count == MAX_ACTORS) {
		warn("too many actors");
		return;
	}
	*actor = (struct actor){ .phase = word[1], .delay_s = atof(word[2]) / 1000, .role = word[3],
				 .uid = atoi(word[4]), .oom_score_adj = atoi(word[5]),
				 .group = word[6], .exe = word[7], .arguments = word[8],
				 .script = word[9] };
	make_group(actor->group);
	role_number(actor->role);
	actor_count++;
}

static void read_line(char *line)
{
	char *word[ACTOR_WORDS] = { 0 };
	int count = 0;

	while (count < ACTOR_WORDS && (word[count] = strsep(&line, "\t")))
		count++;
	if (count == 3 && !strcmp(word[0], "set"))
		set(word[1], word[2]);
	else if (count == 3 && !strcmp(word[0], "map"))
		map_program(word[1], word[2]);
	else if (count == 3 && !strcmp(word[0], "group"))
		limit_group(word[1], word[2]);
	else if (count == ACTOR_WORDS && !strcmp(word[0], "actor"))
		add_actor(word);
	else if (count > 1)
		warn("bad line in plan: %s with %d words", word[0], count);
}

void read_plan(const char *path)
{
	char *rest = text, *line;

	if (read_path(path, text, sizeof text) < 0)
		warn("no plan at %s", path);
	while ((line = strsep(&rest, "\n")))
		read_line(line);
}

/* ---- starting an actor ---- */

static void become(const struct actor *actor)
{
	char number[16], path[400];

	snprintf(path, sizeof path, CGROUP "%s/cgroup.procs", actor->group);
	if (!write_path(path, "0"))
		_exit(120);
	snprintf(number, sizeof number, "%d", actor->oom_score_adj);
	if (!write_path("/proc/self/oom_score_adj", number))
		_exit(121);
	setsid();
	clearenv();
	putenv("PATH=/usr/local/bin:/usr/bin:/bin");
	putenv("LANG=C.UTF-8");
	putenv(actor->uid ? "HOME=/home/alex" : "HOME=/root");
	putenv("TERM=xterm");
	if (chdir(getenv("HOME")) || setgroups(0, NULL) || setresgid(actor->uid, actor->uid, actor->uid) ||
	    setresuid(actor->uid, actor->uid, actor->uid))
		_exit(122);
}

static void hand_over(int script_end)
{
	int null = open("/dev/null", O_RDWR), page = dup(shared_fd), script = dup(script_end);

	/* Clear of the numbers that are about to be taken. */
	null = fcntl(null, F_DUPFD, 20);
	page = fcntl(page, F_DUPFD, 20);
	script = fcntl(script, F_DUPFD, 20);
	dup2(null, 0);
	dup2(null, 1);
	dup2(null, 2);
	dup2(script, SCRIPT_FD);
	dup2(page, SHARED_FD);
	syscall(SYS_close_range, 5, ~0u, 0);
}

static void start(struct actor *actor)
{
	char *argv[24], *save = NULL;
	int ends[2], count = 0;
	long pid;

	actor->started = true;
	if (pipe2(ends, O_CLOEXEC)) {
		warn("pipe: %s", strerror(errno));
		return;
	}
	/* CLONE_PARENT: it becomes a child of the service manager, as services and
	 * applications are, and not one of this process, which real machines have not. */
	pid = syscall(SYS_clone, 0x00008000 /* CLONE_PARENT */ | SIGCHLD, 0, 0, 0, 0);
	if (!pid) {
		become(actor);
		hand_over(ends[0]);
		for (char *word = strtok_r(actor->arguments, " ", &save); word && count < 23;
		     word = strtok_r(NULL, " ", &save))
			argv[count++] = word;
		argv[count] = NULL;
		execv(actor->exe, argv);
		_exit(123);
	}
	if (pid < 0)
		warn("clone: %s", strerror(errno));
	else
		give_role(pid, role_number(actor->role));
	close(ends[0]);
	if (strcmp(actor->script, "-") && write(ends[1], actor->script, strlen(actor->script)) < 0)
		warn("script: %s", strerror(errno));
	close(ends[1]);
}

void start_actors(const char *phase, double since_phase)
{
	for (int i = 0; i < actor_count; i++)
		if (!actors[i].started && !strcmp(actors[i].phase, phase) &&
		    since_phase >= actors[i].delay_s)
			start(&actors[i]);
}

void set_frozen(bool frozen)
{
	int folder = open(plan.freeze, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (folder < 0 || ioctl(folder, frozen ? FIFREEZE : FITHAW, 0))
		warn("%s %s: %s", frozen ? "freeze" : "thaw", plan.freeze, strerror(errno));
	if (folder >= 0)
		close(folder);
}
