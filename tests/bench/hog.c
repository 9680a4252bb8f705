/* A hog on a leash: hog BYTES HUGE
 *
 * Maps BYTES, says "ready", waits for a byte of input, then touches the mapping from front to
 * back as fast as it can, and waits for its end. How far it has come stands in the first eight
 * bytes of the file at descriptor 3, which outlives it. It can never hold more than BYTES, and
 * it ends with its parent, or after thirty seconds.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#define STEP (2UL << 20)

int main(int count, char **arguments)
{
	unsigned long size = count > 2 ? strtoul(arguments[1], NULL, 10) : 0;
	int huge = count > 2 && atoi(arguments[2]);
	_Atomic unsigned long *touched;
	char *memory, *aligned, byte;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	alarm(30);
	touched = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, 3, 0);
	memory = mmap(NULL, size + STEP, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (touched == MAP_FAILED || memory == MAP_FAILED)
		return 1;
	aligned = (char *)(((unsigned long)memory + STEP - 1) & ~(STEP - 1));
	madvise(aligned, size, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	printf("ready\n");
	fflush(stdout);
	if (read(STDIN_FILENO, &byte, 1) != 1)
		return 0;
	for (unsigned long at = 0; at < size; at += STEP) {
		memset(aligned + at, 1, STEP);
		atomic_store(touched, at + STEP);
	}
	printf("full\n");
	fflush(stdout);
	for (;;)
		pause();
}
