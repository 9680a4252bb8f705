#define _GNU_SOURCE
#include "monitor.h"
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SCHED_RESET_ON_FORK 0x40000000
#define TICK_S 0.02   /* events are drained this often */
#define SAMPLE_S 0.1  /* memory is looked at this often ... */
#define TELL_S 0.25   /* ... and told this often */
enum { BEATS_BEFORE_START = 10, SETTLE_MAX_S = 45 };

struct shared *shared;
int shared_fd;

static double next_tick, longest_gap, last_tick;

/* Sleep until the next tick; how much later we wake is our own stall. */
static void tick(void)
{
	double wait;

	next_tick += TICK_S;
	wait = next_tick - now();
	if (wait > 0)
		usleep(wait * 1e6);
	else
		next_tick = now();
	if (last_tick && now() - last_tick - TICK_S > longest_gap)
		longest_gap = now() - last_tick - TICK_S;
	last_tick = now();
	drain_deaths();
}

static void watch(double seconds)
{
	double end = now() + seconds, told = 0, looked = 0;

	while (now() < end) {
		tick();
		if (now() - looked >= SAMPLE_S) {
			looked = now();
			sample(looked - told >= TELL_S);
			if (looked - told >= TELL_S)
				told = looked;
		}
	}
}

static bool is_settled(void)
{
	return __atomic_load_n(&shared->settled, __ATOMIC_RELAXED) >= plan.settlers &&
	       shared->beats >= BEATS_BEFORE_START;
}

static void get_ready(void)
{
	struct sched_param priority = { .sched_priority = 20 };

	write_path("/proc/self/oom_score_adj", "-1000");
	shared_fd = memfd_create("shm", MFD_CLOEXEC);
	if (ftruncate(shared_fd, sizeof *shared))
		_exit(1);
	shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, shared_fd, 0);
	if (mlockall(MCL_CURRENT | MCL_FUTURE) ||
	    sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &priority))
		warn("not locked or not real-time");
	signal(SIGPIPE, SIG_IGN);
}

/* Trouble: until those whose end is awaited are gone and some time has passed, or for too long. */
static double make_trouble(double start)
{
	double gone = 0, told = 0, looked = 0;
	bool frozen = *plan.freeze;

	if (frozen)
		set_frozen(true);
	shared->go = 1;
	for (;;) {
		double at = now() - start;

		start_actors("trouble", at);
		tick();
		if (now() - looked >= SAMPLE_S) {
			looked = now();
			sample(looked - told >= TELL_S);
			if (looked - told >= TELL_S)
				told = looked;
		}
		if (frozen && at > plan.thaw_s) {
			set_frozen(false);
			frozen = false;
		}
		if (!gone && at > 0.3 && all_ended()) {
			gone = now();
			report("{\"ev\":\"gone\",\"t\":%.3f}", since_start(gone));
		}
		if ((gone && now() - gone > plan.after_s && !frozen) || at > plan.limit_s)
			break;
	}
	if (frozen)
		set_frozen(false);
	return gone;
}

int main(int count, char **word)
{
	double trouble, gone, give_up;

	if (count < 3) {
		fprintf(stderr, "usage: monitor PLAN PORT\n");
		return 2;
	}
	open_report(word[2]);
	get_ready();
	read_plan(word[1]);
	open_deaths();
	open_samples();
	next_tick = now();
	start_actors("before", 1e9);
	for (give_up = now() + SETTLE_MAX_S; !is_settled() && now() < give_up;)
		watch(TICK_S);
	if (!is_settled())
		warn("the landscape did not settle");
	watch(plan.settle_s);
	report_guard("before");
	report_ready();
	watch(plan.base_s);

	longest_gap = 0;
	trouble = now();
	report("{\"ev\":\"trouble\",\"t\":%.3f}", since_start(trouble));
	gone = make_trouble(trouble);
	drain_deaths();
	report_end(trouble, gone, longest_gap);
	report_guard("after");
	report_roles();
	report_beats();
	close_deaths();
	kill_watched();
	report("{\"ev\":\"done\"}");
	return 0;
}
