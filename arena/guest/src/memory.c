/* Taking memory, and looking how much is left. */
#define _GNU_SOURCE
#include "actor.h"
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 4096 };

long meminfo_kib(const char *key)
{
	static char buffer[4096];
	int file = open("/proc/meminfo", O_RDONLY | O_CLOEXEC);
	ssize_t length = read(file, buffer, sizeof buffer - 1);
	char *found;

	close(file);
	buffer[length > 0 ? length : 0] = 0;
	found = strstr(buffer, key);
	return found ? atol(found + strlen(key)) : 0;
}

void fill(char *memory, size_t bytes, int kind)
{
	/* Under emulation the words written decide how fast memory fills, so
	 * only those who mean to defeat a compressor pay for it. */
	int step = kind == DENSE ? 4 : kind == SPARSE ? 64 : PAGE / 8;

	for (size_t page = 0; page < bytes; page += PAGE) {
		uint64_t *word = (uint64_t *)(memory + page);

		for (int i = 0; i < PAGE / 8; i += step)
			word[i] = random_word();
	}
}

char *take(size_t bytes, int kind)
{
	char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED) {
		pause_ms(100);
		return NULL;
	}
	madvise(memory, bytes, MADV_NOHUGEPAGE);
	fill(memory, bytes, kind);
	return memory;
}

void take_until_available(long mib)
{
	while (meminfo_kib("MemAvailable:") > mib * 1024)
		take(4 << 20, SPARSE);
}

void give_back(char *memory, size_t bytes)
{
	munmap(memory, bytes);
}
