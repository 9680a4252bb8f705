/* Numbers: the machine's memory over time, the guard's own cost, the beats. */
#define _GNU_SOURCE
#include "monitor.h"
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int meminfo, vmstat, memory_pressure, io_pressure;
static char memory_text[8192], vm_text[32768], pressure_text[512], io_text[512];
static long lowest_kib = LONG_MAX, kills_before = -1;

static void look(void)
{
	read_open(meminfo, memory_text, sizeof memory_text);
	read_open(vmstat, vm_text, sizeof vm_text);
	read_open(memory_pressure, pressure_text, sizeof pressure_text);
	read_open(io_pressure, io_text, sizeof io_text);
}

void open_samples(void)
{
	meminfo = open("/proc/meminfo", O_RDONLY | O_CLOEXEC);
	vmstat = open("/proc/vmstat", O_RDONLY | O_CLOEXEC);
	memory_pressure = open("/proc/pressure/memory", O_RDONLY | O_CLOEXEC);
	io_pressure = open("/proc/pressure/io", O_RDONLY | O_CLOEXEC);
	look();
	kills_before = field(vm_text, "oom_kill ");
}

static double average10(const char *text, const char *line)
{
	const char *found = strstr(text, line);

	found = found ? strstr(found, "avg10=") : NULL;
	return found ? atof(found + 6) : -1;
}

static long total_us(const char *text, const char *line)
{
	const char *found = strstr(text, line);

	return found ? field(found, "total=") : -1;
}

void sample(bool tell)
{
	long available;

	look();
	available = field(memory_text, "MemAvailable:");
	if (available < lowest_kib)
		lowest_kib = available;
	if (!tell)
		return;
	report("{\"ev\":\"sample\",\"t\":%.3f,\"available_kib\":%ld,\"free_kib\":%ld,"
	       "\"swap_free_kib\":%ld,\"shmem_kib\":%ld,\"some_avg10\":%.2f,\"full_avg10\":%.2f,"
	       "\"some_us\":%ld,\"full_us\":%ld,\"io_full_us\":%ld,\"oom_kill\":%ld,"
	       "\"pswpin\":%ld,\"pswpout\":%ld,\"pgmajfault\":%ld,\"refault_file\":%ld,"
	       "\"beats\":%u}",
	       since_start(now()), available, field(memory_text, "MemFree:"),
	       field(memory_text, "SwapFree:"), field(memory_text, "Shmem:"),
	       average10(pressure_text, "some"), average10(pressure_text, "full"),
	       total_us(pressure_text, "some"), total_us(pressure_text, "full"),
	       total_us(io_text, "full"), field(vm_text, "oom_kill ") - kills_before,
	       field(vm_text, "pswpin "), field(vm_text, "pswpout "),
	       field(vm_text, "pgmajfault "), field(vm_text, "workingset_refault_file "),
	       shared->beats);
}

void report_ready(void)
{
	look();
	report("{\"ev\":\"ready\",\"t\":%.3f,\"total_kib\":%ld,\"available_kib\":%ld,"
	       "\"swap_kib\":%ld}",
	       since_start(now()), field(memory_text, "MemTotal:"),
	       field(memory_text, "MemAvailable:"), field(memory_text, "SwapTotal:"));
}

struct cost {
	long pss_kib, private_kib, rss_kib, swap_kib, run_delay_us, major_faults;
	int processes, first;
};

static void add_cost(int pid, struct cost *cost)
{
	static char text[16384];
	char path[64], *after;
	unsigned long running, waiting;
	long major = 0;

	cost->processes++;
	if (!cost->first)
		cost->first = pid;
	snprintf(path, sizeof path, "/proc/%d/smaps_rollup", pid);
	if (read_path(path, text, sizeof text) > 0) {
		cost->pss_kib += field(text, "Pss:");
		cost->rss_kib += field(text, "Rss:");
		cost->private_kib += field(text, "Private_Dirty:");
		cost->swap_kib += field(text, "Swap:");
	}
	snprintf(path, sizeof path, "/proc/%d/schedstat", pid);
	if (read_path(path, text, sizeof text) > 0 && sscanf(text, "%lu %lu", &running, &waiting) == 2)
		cost->run_delay_us += waiting / 1000;
	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	if (read_path(path, text, sizeof text) > 0 && (after = strrchr(text, ')')) &&
	    sscanf(after + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %ld", &major) == 1)
		cost->major_faults += major;
}

void report_guard(const char *when)
{
	struct cost cost = { 0 };
	char path[256], list[4096], *rest = list, *line, pids[512] = "";
	size_t used = 0;
	long cpu;

	if (!*plan.guard_group)
		return;
	snprintf(path, sizeof path, "/sys/fs/cgroup/%s/cpu.stat", plan.guard_group);
	read_path(path, list, sizeof list);
	cpu = field(list, "usage_usec ");
	snprintf(path, sizeof path, "/sys/fs/cgroup/%s/cgroup.procs", plan.guard_group);
	read_path(path, list, sizeof list);
	while ((line = strsep(&rest, "\n")))
		if (atoi(line) > 0) {
			add_cost(atoi(line), &cost);
			if (used < sizeof pids - 12)
				used += snprintf(pids + used, sizeof pids - used, "%s%d",
						 used ? "," : "", atoi(line));
		}
	report("{\"ev\":\"guard\",\"when\":\"%s\",\"t\":%.3f,\"pids\":[%s],\"pss_kib\":%ld,"
	       "\"rss_kib\":%ld,\"private_dirty_kib\":%ld,\"swap_kib\":%ld,\"cpu_us\":%ld,"
	       "\"run_delay_us\":%ld,\"major_faults\":%ld}",
	       when, since_start(now()), pids, cost.pss_kib, cost.rss_kib, cost.private_kib,
	       cost.swap_kib, cpu, cost.run_delay_us, cost.major_faults);
}

static void report_list(const char *name, const struct beat *beats, uint32_t count)
{
	static char line[8192];

	for (uint32_t i = 0; i < count;) {
		size_t used = 0;

		for (int on_line = 0; on_line < 200 && i < count; on_line++, i++)
			used += snprintf(line + used, sizeof line - used, "%s[%.0f,%u]",
					 on_line ? "," : "", since_start(beats[i].due) * 1000,
					 beats[i].latency_us);
		report("{\"ev\":\"%s\",\"list\":[%s]}", name, line);
	}
}

void report_beats(void)
{
	report_list("beats", shared->beat, shared->beats < MAX_BEATS ? shared->beats : MAX_BEATS);
	report_list("spawns", shared->spawn,
		    shared->spawns < MAX_SPAWNS ? shared->spawns : MAX_SPAWNS);
}

void report_end(double trouble, double gone, double gap)
{
	double open_for = shared->busy ? now() - shared->since : 0;

	look();
	report("{\"ev\":\"end\",\"t\":%.3f,\"trouble_at\":%.3f,\"gone_at\":%.3f,"
	       "\"lowest_kib\":%ld,\"available_kib\":%ld,\"kernel_kills\":%ld,"
	       "\"open_beat_s\":%.3f,\"monitor_gap_s\":%.3f}",
	       since_start(now()), since_start(trouble), gone ? since_start(gone) : -1, lowest_kib,
	       field(memory_text, "MemAvailable:"), field(vm_text, "oom_kill ") - kills_before,
	       open_for, gap);
}
