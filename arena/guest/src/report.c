#define _GNU_SOURCE
#include "monitor.h"
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

static int out = 1;
static double started;

void open_report(const char *path)
{
	int file = open(path, O_WRONLY | O_CLOEXEC);

	started = now();
	if (file >= 0)
		out = file;
}

double since_start(double monotonic)
{
	return monotonic - started;
}

/* A virtio port takes a line at once or says "again"; it never loses one. */
static void write_line(const char *line, size_t length)
{
	while (length) {
		ssize_t written = write(out, line, length);

		if (written < 0 && (errno == EAGAIN || errno == EINTR)) {
			usleep(1000);
			continue;
		}
		if (written <= 0)
			return;
		line += written;
		length -= written;
	}
}

void report(const char *format, ...)
{
	static char line[16384];
	va_list arguments;
	int length;

	va_start(arguments, format);
	length = vsnprintf(line, sizeof line - 1, format, arguments);
	va_end(arguments);
	if (length > (int)sizeof line - 2)
		length = sizeof line - 2;
	line[length++] = '\n';
	write_line(line, length);
}

void warn(const char *format, ...)
{
	char words[300];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(words, sizeof words, format, arguments);
	va_end(arguments);
	report("{\"ev\":\"warn\",\"what\":\"%s\"}", clean(words));
}

const char *clean(const char *name)
{
	static char ring[4][300];
	static int turn;
	char *copy = ring[turn++ % 4];
	size_t i;

	for (i = 0; name[i] && i < sizeof ring[0] - 1; i++)
		copy[i] = name[i] < ' ' || name[i] > '~' || name[i] == '"' || name[i] == '\\'
				  ? '?'
				  : name[i];
	copy[i] = 0;
	return copy;
}
