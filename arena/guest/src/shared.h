/* The page that the monitor and the landscape share. It is locked in memory,
 * so that writing a beat into it never waits for a disk. */
#ifndef SHARED_H
#define SHARED_H
#include <stdint.h>
#include <time.h>

enum { MAX_BEATS = 4000, MAX_SPAWNS = 400, MAX_CLAIMS = 64, ROLE_SIZE = 24 };

struct beat {
	double due;          /* when it should have started, seconds of CLOCK_MONOTONIC */
	uint32_t latency_us; /* from then until it was done */
};

struct claim {
	int32_t pid;
	char role[ROLE_SIZE];
};

struct shared {
	volatile uint32_t beats, spawns; /* how many were finished; the arrays hold the first ones */
	volatile uint32_t busy;          /* 1 while a beat is under way ... */
	volatile double since;           /* ... which was due then: an unfinished beat is a stall too */
	volatile uint32_t go;            /* set when trouble may start */
	uint32_t settled;                /* actors that hold all they want until trouble starts */
	volatile uint32_t claims;
	struct claim claim[MAX_CLAIMS]; /* children that play another role than their parent */
	struct beat beat[MAX_BEATS], spawn[MAX_SPAWNS];
};

static inline double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

/* Descriptors an actor finds open. */
enum { SCRIPT_FD = 3, SHARED_FD = 4 };
#endif
