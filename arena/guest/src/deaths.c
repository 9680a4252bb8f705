/* Who died, of what, and by whose hand. Three witnesses:
 *  - the process connector: every fork, exec and exit, in order, with the
 *    kernel's own time, the exit code and the signal;
 *  - the tracepoint signal_generate: who sent TERM or KILL to whom;
 *  - the kernel log: what the OOM killer says about itself. */
#define _GNU_SOURCE
#include "monitor.h"
#include "process.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/cn_proc.h>
#include <linux/connector.h>
#include <linux/netlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <unistd.h>

#define TRACING "/sys/kernel/tracing/"
/* A storm that loses 500 children is told so far, then only counted. */
enum { TOLD_MAX = 60, SIGNALS_MAX = 400 };

static int connector = -1, trace = -1, kmsg = -1;
static int told[MAX_ROLES], signals_told;
static bool quiet;
static char trace_rest[4096];
static size_t trace_length;

static void open_connector(void)
{
	struct sockaddr_nl address = { .nl_family = AF_NETLINK, .nl_groups = CN_IDX_PROC,
				       .nl_pid = getpid() };
	int size = 8 << 20;
	char message[NLMSG_SPACE(sizeof(struct cn_msg) + sizeof(enum proc_cn_mcast_op))] = { 0 };
	struct nlmsghdr *header = (void *)message;
	struct cn_msg *body = NLMSG_DATA(header);

	connector = socket(PF_NETLINK, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, NETLINK_CONNECTOR);
	setsockopt(connector, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
	if (connector < 0 || bind(connector, (void *)&address, sizeof address)) {
		warn("no process connector: %s", strerror(errno));
		return;
	}
	header->nlmsg_len = sizeof message;
	header->nlmsg_type = NLMSG_DONE;
	header->nlmsg_pid = getpid();
	body->id.idx = CN_IDX_PROC;
	body->id.val = CN_VAL_PROC;
	body->len = sizeof(enum proc_cn_mcast_op);
	*(enum proc_cn_mcast_op *)body->data = PROC_CN_MCAST_LISTEN;
	if (send(connector, message, header->nlmsg_len, 0) < 0)
		warn("process connector refused: %s", strerror(errno));
}

static void open_trace(void)
{
	mount("tracefs", TRACING, "tracefs", 0, NULL);
	write_path(TRACING "trace_clock", "mono");
	write_path(TRACING "buffer_size_kb", "256");
	if (!write_path(TRACING "events/signal/signal_generate/filter", "sig == 9 || sig == 15") ||
	    !write_path(TRACING "events/signal/signal_generate/enable", "1"))
		warn("no signal tracepoint: %s", strerror(errno));
	trace = open(TRACING "trace_pipe", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
}

static void name_from_proc(int pid)
{
	char path[40], comm[20];

	snprintf(path, sizeof path, "/proc/%d/comm", pid);
	if (read_path(path, comm, sizeof comm) > 0) {
		comm[strcspn(comm, "\n")] = 0;
		process_named(pid, comm);
	}
}

void open_deaths(void)
{
	DIR *folder = opendir("/proc");
	struct dirent *entry;

	open_connector();
	open_trace();
	kmsg = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	lseek(kmsg, 0, SEEK_END);
	while (folder && (entry = readdir(folder)))
		if (atoi(entry->d_name) > 0) {
			name_from_proc(atoi(entry->d_name));
			give_role(atoi(entry->d_name), ROLE_NONE);
		}
	closedir(folder);
}

/* From here on only the monitor itself ends anyone. */
void close_deaths(void)
{
	quiet = true;
	write_path(TRACING "events/signal/signal_generate/enable", "0");
	close(trace);
	trace = -1;
}

static void note_exit(const struct proc_event *event)
{
	int pid = event->event_data.exit.process_tgid, code = event->event_data.exit.exit_code;
	int signal = code & 127, status = code >> 8 & 255, role;

	if (event->event_data.exit.process_pid != pid) /* a thread */
		return;
	role = process_ended(pid, signal, status);
	if (!quiet && (role || signal) && told[role]++ < TOLD_MAX)
		report("{\"ev\":\"exit\",\"t\":%.3f,\"pid\":%d,\"role\":\"%s\",\"comm\":\"%s\","
		       "\"signal\":%d,\"status\":%d}",
		       since_start(event->timestamp_ns / 1e9), pid, clean(role_name(role)),
		       clean(process_of(pid)->comm), signal, status);
}

static void note_event(const struct proc_event *event)
{
	switch (event->what) {
	case PROC_EVENT_FORK:
		if (event->event_data.fork.child_pid == event->event_data.fork.child_tgid)
			process_forked(event->event_data.fork.child_tgid,
				       event->event_data.fork.parent_tgid);
		break;
	case PROC_EVENT_EXEC:
		name_from_proc(event->event_data.exec.process_tgid);
		break;
	case PROC_EVENT_COMM:
		if (event->event_data.comm.process_pid == event->event_data.comm.process_tgid)
			process_named(event->event_data.comm.process_tgid,
				      event->event_data.comm.comm);
		break;
	case PROC_EVENT_EXIT:
		note_exit(event);
		break;
	default:
		break;
	}
}

static void drain_connector(void)
{
	static char buffer[65536];
	ssize_t length;

	while ((length = recv(connector, buffer, sizeof buffer, 0)) > 0 ||
	       (length < 0 && errno == ENOBUFS)) {
		unsigned left = length;

		if (length < 0) {
			warn("process events were lost");
			recount();
			continue;
		}
		for (struct nlmsghdr *header = (void *)buffer; NLMSG_OK(header, left);
		     header = NLMSG_NEXT(header, left))
			note_event((void *)((struct cn_msg *)NLMSG_DATA(header))->data);
	}
}

/* "   comm-PID   [000] d..1.  12.345678: signal_generate: sig=9 errno=0 code=0 comm=x pid=7 grp=1 res=0" */
static void note_signal(char *line)
{
	char *event = strstr(line, "signal_generate: "), *bracket = strstr(line, " [0"), *dash, *time;
	long signal, code, pid, sender;

	if (!event || !bracket || bracket > event)
		return;
	while (bracket > line && bracket[-1] == ' ')
		bracket--;
	*bracket = 0;
	dash = strrchr(line, '-');
	if (!dash)
		return;
	*dash = 0;
	sender = atol(dash + 1);
	event[-1] = 0; /* the space behind "TIME:" */
	time = strrchr(bracket + 1, ' ');
	signal = field(event, "sig=");
	code = field(event, "code=");
	pid = field(event, " pid=");
	while (*line == ' ')
		line++;
	if (!time || signals_told++ > SIGNALS_MAX)
		return;
	report("{\"ev\":\"signal\",\"t\":%.6f,\"signal\":%ld,\"pid\":%ld,\"role\":\"%s\","
	       "\"by\":\"%s\",\"by_pid\":%ld,\"code\":%ld}",
	       since_start(atof(time)), signal, pid, clean(role_name(process_of(pid)->role)),
	       clean(line), sender, code);
}

static void drain_trace(void)
{
	ssize_t length;

	while (trace >= 0 && (length = read(trace, trace_rest + trace_length,
					    sizeof trace_rest - 1 - trace_length)) > 0) {
		char *line = trace_rest, *end;

		trace_length += length;
		trace_rest[trace_length] = 0;
		while ((end = strchr(line, '\n'))) {
			*end = 0;
			note_signal(line);
			line = end + 1;
		}
		trace_length = strlen(line);
		memmove(trace_rest, line, trace_length + 1);
		if (trace_length == sizeof trace_rest - 1)
			trace_length = 0; /* no line is that long */
	}
}

static void drain_kernel_log(void)
{
	char record[4096];
	ssize_t length;

	while ((length = read(kmsg, record, sizeof record - 1)) > 0 || errno == EPIPE) {
		char *found;

		if (length < 0) { /* records were overwritten before we came: go on with the rest */
			errno = 0;
			continue;
		}
		record[length] = 0;
		found = strstr(record, "illed process ");
		if (found) {
			found[strcspn(found, "\n")] = 0;
			report("{\"ev\":\"oom\",\"t\":%.3f,\"pid\":%ld,\"memcg\":%s,\"text\":\"K%s\"}",
			       since_start(now()), field(found, "process "),
			       strstr(record, "Memory cgroup") ? "true" : "false", clean(found));
		}
	}
}

void drain_deaths(void)
{
	note_claims();
	drain_trace(); /* first: a signal comes before the death it causes */
	drain_connector();
	drain_kernel_log();
}
