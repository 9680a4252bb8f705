/* Roles. A child plays its parent's role, unless its program is mapped to
 * another or its parent claimed one for it. */
#define _GNU_SOURCE
#include "monitor.h"
#include "process.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct {
	char name[ROLE_SIZE];
	int started, live, killed, failed, finished;
	bool watched;
} roles[MAX_ROLES];
static int role_count = 1; /* number 0 is every stranger */

static struct {
	char comm[16];
	int role;
} programs[16];
static int program_count;

/* Indexed by pid modulo the size: a run uses far fewer pids than that. */
struct process processes[PROCESSES];

static uint32_t claims_seen;

int role_number(const char *name)
{
	for (int i = 1; i < role_count; i++)
		if (!strcmp(roles[i].name, name))
			return i;
	if (role_count == MAX_ROLES)
		return ROLE_NONE;
	snprintf(roles[role_count].name, ROLE_SIZE, "%s", name);
	return role_count++;
}

const char *role_name(int role)
{
	return roles[role].name;
}

void give_role(int pid, int role)
{
	struct process *process = process_of(pid);

	if (process->role == role && process->alive)
		return;
	if (process->alive && process->role) { /* it changes parts */
		roles[process->role].live--;
		roles[process->role].started--;
	}
	process->pid = pid;
	process->role = role;
	process->alive = true;
	roles[role].started++;
	roles[role].live++;
}

void map_program(const char *comm, const char *role)
{
	if (program_count == 16)
		return;
	snprintf(programs[program_count].comm, 16, "%s", comm);
	programs[program_count++].role = role_number(role);
}

void note_claims(void)
{
	for (; claims_seen < shared->claims; claims_seen++) {
		struct claim *claim = &shared->claim[claims_seen % MAX_CLAIMS];

		give_role(claim->pid, role_number(claim->role));
	}
}

void process_forked(int pid, int parent)
{
	struct process *child = process_of(pid), *from = process_of(parent);

	/* Its role may be known already: whoever started it was faster than the kernel's note. */
	if (child->pid == pid && child->alive)
		return;
	child->pid = pid;
	child->alive = false;
	memcpy(child->comm, from->comm, sizeof child->comm);
	give_role(pid, from->pid == parent ? from->role : ROLE_NONE);
}

void process_named(int pid, const char *comm)
{
	struct process *process = process_of(pid);

	process->pid = pid;
	snprintf(process->comm, sizeof process->comm, "%.15s", comm);
	if (process->role) /* only descendants of actors may change parts */
		for (int i = 0; i < program_count; i++)
			if (!strcmp(programs[i].comm, process->comm))
				give_role(pid, programs[i].role);
}

int process_ended(int pid, int signal, int status)
{
	struct process *process = process_of(pid);
	int role = process->role;

	if (process->pid != pid || !process->alive)
		return ROLE_NONE;
	process->alive = false;
	roles[role].live--;
	if (signal)
		roles[role].killed++;
	else if (status)
		roles[role].failed++;
	else
		roles[role].finished++;
	return role;
}

/* Events were lost: ask the kernel who is still there. */
void recount(void)
{
	for (int i = 0; i < PROCESSES; i++)
		if (processes[i].alive && processes[i].role && kill(processes[i].pid, 0))
			process_ended(processes[i].pid, SIGKILL, 0);
}

void watch_for_end(const char *names)
{
	char copy[256];

	snprintf(copy, sizeof copy, "%s", names);
	for (char *name = strtok(copy, ","); name; name = strtok(NULL, ","))
		roles[role_number(name)].watched = true;
}

bool all_ended(void)
{
	int watched = 0;

	for (int i = 1; i < role_count; i++)
		if (roles[i].watched) {
			if (!roles[i].started || roles[i].live)
				return false;
			watched++;
		}
	return watched > 0;
}

void kill_watched(void)
{
	/* A storm forks on while it is being ended: go round until it is over. */
	for (int round = 0; round < 50; round++) {
		int found = 0;

		for (int i = 0; i < PROCESSES; i++)
			if (processes[i].alive && roles[processes[i].role].watched) {
				kill(processes[i].pid, SIGKILL);
				found++;
			}
		if (!found)
			return;
		usleep(20000);
		drain_deaths();
	}
}

void report_roles(void)
{
	for (int i = 1; i < role_count; i++)
		report("{\"ev\":\"role\",\"role\":\"%s\",\"started\":%d,\"live\":%d,\"killed\":%d,"
		       "\"failed\":%d,\"finished\":%d}",
		       clean(roles[i].name), roles[i].started, roles[i].live, roles[i].killed,
		       roles[i].failed, roles[i].finished);
}
