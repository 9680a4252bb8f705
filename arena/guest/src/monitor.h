/* monitor: stages one plan inside the guest and tells the host what happens,
 * one JSON object per line. It is locked in memory, out of the OOM killer's
 * reach and real-time, so that what it measures is the landscape and not
 * itself. Times are seconds since its start. */
#ifndef MONITOR_H
#define MONITOR_H
#include <stdbool.h>
#include <stddef.h>
#include "shared.h"

extern struct shared *shared;
extern int shared_fd;

/* ---- report.c: the way out ---- */
void open_report(const char *path);
double since_start(double monotonic);
__attribute__((format(printf, 1, 2))) void report(const char *format, ...);
__attribute__((format(printf, 1, 2))) void warn(const char *format, ...);
/* A name from outside, fit for a JSON string. Valid until the fourth next call. */
const char *clean(const char *name);

/* ---- files.c ---- */
/* Read from the start; the buffer always ends in 0. */
long read_open(int fd, char *buffer, size_t size);
long read_path(const char *path, char *buffer, size_t size);
bool write_path(const char *path, const char *text);
long field(const char *buffer, const char *key);

/* ---- roles.c: who plays which part, who is alive ---- */
enum { MAX_ROLES = 40, ROLE_NONE = 0 };
int role_number(const char *name);
const char *role_name(int role);
void give_role(int pid, int role);
void map_program(const char *comm, const char *role);
void note_claims(void);
void watch_for_end(const char *roles);
bool all_ended(void);
void kill_watched(void);
void report_roles(void);

/* ---- deaths.c: exits, signals and kernel kills, in order ---- */
void open_deaths(void);
void drain_deaths(void);
void close_deaths(void);

/* ---- plan.c: what to stage ---- */
struct plan {
	unsigned settlers; /* actors that say when they have settled */
	double settle_s, base_s, after_s, limit_s;
	char guard_group[128]; /* control group whose processes are the guard */
	char freeze[64];       /* mount point to freeze at the start of trouble, or empty */
	double thaw_s;
};
extern struct plan plan;
void read_plan(const char *path);
/* Start the actors of a phase ("before" or "trouble") that are due. */
void start_actors(const char *phase, double since_phase);
void set_frozen(bool frozen);

/* ---- samples.c ---- */
void open_samples(void);
void sample(bool tell);
void report_guard(const char *when);
void report_ready(void);
void report_end(double trouble, double gone, double gap);
void report_beats(void);
#endif
