#define _GNU_SOURCE
#include "monitor.h"
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

long read_open(int fd, char *buffer, size_t size)
{
	ssize_t length = pread(fd, buffer, size - 1, 0);

	buffer[length > 0 ? length : 0] = 0;
	return length;
}

long read_path(const char *path, char *buffer, size_t size)
{
	int file = open(path, O_RDONLY | O_CLOEXEC);
	long length = 0, more;

	buffer[0] = 0;
	if (file < 0)
		return -1;
	while (length < (long)size - 1 && (more = read(file, buffer + length, size - 1 - length)) > 0)
		length += more;
	buffer[length] = 0;
	close(file);
	return length;
}

bool write_path(const char *path, const char *text)
{
	int file = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
	bool good = file >= 0 && write(file, text, strlen(text)) >= 0;

	if (file >= 0)
		close(file);
	return good;
}

long field(const char *buffer, const char *key)
{
	const char *found = strstr(buffer, key);

	return found ? strtol(found + strlen(key), NULL, 10) : -1;
}
