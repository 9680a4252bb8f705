/* What goes wrong. */
#define _GNU_SOURCE
#include "actor.h"
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PAGE = 4096, CHUNK = 1 << 20, THP_REGION = 32 << 20 };

/* One more MiB of the kind asked for: plain, in huge pages, or in a memfd. */
static void take_plain(long turn)
{
	(void)turn;
	take(CHUNK, number("dense", 0) ? DENSE : SPARSE);
}

static void take_huge(long turn)
{
	static char *region;
	size_t offset = (size_t)turn * CHUNK % THP_REGION;

	if (!offset) {
		region = mmap(NULL, THP_REGION, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		madvise(region, THP_REGION, MADV_HUGEPAGE);
	}
	if (region != MAP_FAILED)
		fill(region + offset, CHUNK, SPARSE);
}

static void take_memfd(long turn)
{
	static int file = -1;
	char *part;

	if (file < 0)
		file = memfd_create("buffers", MFD_CLOEXEC);
	if (ftruncate(file, (off_t)(turn + 1) * CHUNK))
		return;
	part = mmap(NULL, CHUNK, PROT_READ | PROT_WRITE, MAP_SHARED, file, (off_t)turn * CHUNK);
	if (part != MAP_FAILED)
		fill(part, CHUNK, SPARSE);
}

/* rate=MiB/s (0: as fast as it goes), until_available=MiB first at full speed,
 * in=plain|huge|memfd, dense=1 defeats compression, stubborn=1 ignores TERM, start_mem=MiB held from the start. */
void leak(void)
{
	const char *in = text("in", "plain");
	void (*take_one)(long) = !strcmp(in, "huge") ? take_huge
			       : !strcmp(in, "memfd") ? take_memfd
						      : take_plain;
	long rate = number("rate", 0);
	double start;

	if (number("stubborn", 0))
		signal(SIGTERM, SIG_IGN);
	if (number("start_mem", 0)) {
		take((size_t)number("start_mem", 0) << 20, SPARSE);
		say_settled();
	}
	wait_for_go();
	if (number("until_available", 0))
		take_until_available(number("until_available", 0));
	start = now();
	for (long turn = 0;; turn++) {
		take_one(turn);
		if (rate)
			pause_ms((start + (double)(turn + 1) / rate - now()) * 1000);
	}
}

/* per_s=N children of child_mem=MiB each, without end. */
void storm(void)
{
	size_t size = (size_t)number("child_mem", 8) << 20;

	wait_for_go();
	signal(SIGCHLD, SIG_IGN);
	for (;;) {
		if (!fork()) {
			char *memory;

			reseed();
			memory = take(size, SPARSE);
			for (;;) {
				for (int i = 0; memory && i < 50; i++)
					memory[random_word() % size]++;
				pause_ms(200);
			}
		}
		pause_ms(1000 / number("per_s", 20));
	}
}

/* Two processes walk at random over share=percent of all memory. */
void thrash(void)
{
	size_t size = (size_t)meminfo_kib("MemTotal:") * 1024 / 100 * number("share", 95);
	char *memory;

	wait_for_go();
	memory = take(size, SPARSE);
	if (!memory)
		return;
	if (!fork())
		reseed();
	for (;;)
		memory[random_word() % (size / PAGE) * PAGE]++;
}

/* Files read by calls: no page fault tells of it. */
static void read_at_random(int file, size_t pages)
{
	char page[PAGE];

	for (;;)
		if (pread(file, page, PAGE, random_word() % pages * PAGE) < 0)
			return;
}

/* Anonymous memory until available=MiB is left, then a file larger than that, read at random:
 * mapped, or by readers=count processes with calls. */
void cache(void)
{
	int file = open("/srv/data/archive", O_RDONLY | O_CLOEXEC);
	volatile unsigned long seen = 0;
	long readers = number("readers", 0);
	struct stat info;
	char *archive;

	if (file < 0 || fstat(file, &info))
		return;
	archive = mmap(NULL, info.st_size, PROT_READ, MAP_SHARED, file, 0);
	wait_for_go();
	take_until_available(number("available", 130));
	for (long reader = 1; reader < readers; reader++)
		if (!fork()) {
			reseed();
			break;
		}
	if (readers)
		read_at_random(file, info.st_size / PAGE);
	for (;;)
		seen += archive[random_word() % (info.st_size / PAGE) * PAGE];
}

/* A file that grows without end, at=path on a tmpfs. */
void fill_files(void)
{
	static char block[CHUNK];
	int file;

	wait_for_go();
	file = open(text("at", "/dev/shm/spool"), O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
	for (;;) {
		fill(block, sizeof block, SPARSE);
		if (write(file, block, sizeof block) <= 0)
			pause_ms(100);
	}
}

/* times=N bursts of share=percent of what is available, each held for hold_ms; then the end. */
void burst(void)
{
	wait_for_go();
	for (long i = number("times", 3); i > 0; i--) {
		size_t size = (size_t)meminfo_kib("MemAvailable:") * 1024 / 100 * number("share", 90);
		char *memory = take(size, SPARSE);

		pause_ms(number("hold_ms", 1500));
		if (memory)
			give_back(memory, size);
		pause_ms(1500);
	}
}

static void *write_into(void *path)
{
	int file = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);

	if (write(file, "x", 1) < 0)
		perror("write");
	return NULL;
}

/* A leak with a thread in uninterruptible sleep: it writes into a file system
 * that is frozen (as one on a dead server is). The memory outlives SIGKILL. */
void blocked(void)
{
	pthread_t thread;

	wait_for_go();
	pthread_create(&thread, NULL, write_into, (void *)text("at", "/mnt/share/log"));
	leak();
}
