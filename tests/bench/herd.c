/* A herd of idle processes, for surveys to read: herd COUNT
 *
 * Says "ready" when all are there, and ends them all when its input ends. They also end when
 * this process does, however it goes.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int count, char **arguments)
{
	long wanted = count > 1 ? atol(arguments[1]) : 0;
	pid_t *herd = calloc(wanted + 1, sizeof(*herd));
	pid_t own = getpid();
	char byte;

	if (!herd)
		return 1;
	for (long i = 0; i < wanted; i++) {
		herd[i] = fork();
		if (herd[i] < 0) {
			perror("fork");
			wanted = i;
			break;
		}
		if (herd[i] == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			while (getppid() == own)
				pause();
			_exit(0);
		}
	}
	printf("ready %ld\n", wanted);
	fflush(stdout);
	while (read(STDIN_FILENO, &byte, 1) > 0)
		;
	for (long i = 0; i < wanted; i++)
		kill(herd[i], SIGKILL);
	for (long i = 0; i < wanted; i++)
		waitpid(herd[i], NULL, 0);
	return 0;
}
