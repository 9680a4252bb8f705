/* A hog on a leash: hog BYTES HUGE
 *
 * Maps BYTES, says "ready", waits for a byte of input, then touches the mapping from front to
 * back as fast as it can, and waits for its end. How far it has come, and in how many
 * nanoseconds, stands in the first sixteen bytes of the file at descriptor 3, which outlives it.
 * It can never hold more than BYTES, and it ends with its parent, or after sixty seconds.
 *
 * hog BYTES HUGE prime
 *
 * Fetches memory for a hog to take at full speed. A virtual machine's host hands out pages that
 * were never touched as slowly as 0.1 GiB/s, and takes back what lies free for a second. So
 * this one touches BYTES and gives them back lazily (MADV_FREE): they count as available, and
 * stay. It says "ready"; at a byte of input it lets go of them and says "freed".
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define STEP (2UL << 20)

static unsigned long now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000UL + now.tv_nsec;
}

int main(int count, char **arguments)
{
	unsigned long size = count > 2 ? strtoul(arguments[1], NULL, 10) : 0;
	int huge = count > 2 && atoi(arguments[2]), prime = count > 3;
	unsigned long began_ns;
	_Atomic unsigned long *touched;
	char *memory, *aligned, byte;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	alarm(60);
	touched = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, 3, 0);
	memory = mmap(NULL, size + STEP, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (touched == MAP_FAILED || memory == MAP_FAILED)
		return 1;
	aligned = (char *)(((unsigned long)memory + STEP - 1) & ~(STEP - 1));
	madvise(aligned, size, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	if (prime) {
		memset(aligned, 1, size);
		madvise(aligned, size, MADV_FREE);
	}
	printf("ready\n");
	fflush(stdout);
	if (read(STDIN_FILENO, &byte, 1) != 1)
		return 0;
	if (prime) {
		madvise(aligned, size, MADV_DONTNEED);
		printf("freed\n");
	}
	began_ns = now_ns();
	for (unsigned long at = 0; at < size && !prime; at += STEP) {
		memset(aligned + at, 1, STEP);
		atomic_store(touched, at + STEP);
		atomic_store(touched + 1, now_ns() - began_ns);
	}
	if (!prime)
		printf("full\n");
	fflush(stdout);
	for (;;)
		pause();
}
