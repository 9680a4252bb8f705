/* The monitor's table of processes; filled by deaths.c, kept by roles.c. */
#ifndef PROCESS_H
#define PROCESS_H
#include <stdbool.h>

enum { PROCESSES = 65536 };

struct process {
	int pid;
	short role;
	bool alive;
	char comm[16];
};
extern struct process processes[PROCESSES];

static inline struct process *process_of(int pid)
{
	return &processes[pid & (PROCESSES - 1)];
}

void process_forked(int pid, int parent);
void process_named(int pid, const char *comm);
/* Returns the role it played. */
int process_ended(int pid, int signal, int status);
void recount(void);
#endif
