"""The only module that can end a process.

Every signal goes through a pidfd, and the pidfd stays open until the process is
gone: the loop polls it, because its readiness says that memory was given back
and not only that a number is free.
"""

from __future__ import annotations

import errno
import os
import signal

from forestall.core.events import End, Gone, Refused
from forestall.core.model import Force, ProcessId
from forestall.core.value import TYPE_CHECKING
from forestall.effects.unit_mark import mark
from forestall.kernel.errors import KernelError, ProcessGone

if TYPE_CHECKING:
    from collections.abc import Callable

# A PID can come back as the id of a thread; pidfd_open() refuses those with
# EINVAL, and newer kernels with ENOENT. Either way our victim is no more.
_NOBODY = {errno.ESRCH, errno.EINVAL, errno.ENOENT}
_SIGNALS = {Force.TERM: signal.SIGTERM, Force.KILL: signal.SIGKILL}

WATCHED_MAX = 512
"""Victims watched at once; of a larger family the rest is signalled and not waited for."""
FOLDERS_MAX = 64
"""Control groups looked into for who else is in a unit."""
STRANGERS_MAX = 64
"""So many whom no survey showed are asked about; a unit with more ends member by member."""
PROCS_BYTES = 64 * 1024


class EndProcess:
    """Carries out End requests through pidfds.

    Args:
        identify: Reads who holds a PID now; raises ProcessGone if nobody does.
        never: PIDs that are refused whatever the policy says: ours, our parent's, init.
        dry_run: Do everything but send the signal, and report the victims as
            gone: a policy that waits for a death that cannot come would go on
            to the next process, which no real run would do.
        cgroup_root: Mount point of the v2 hierarchy, for cgroup.kill and marks; empty without one.
        may_go: Tells of a PID that is in a unit and was not chosen whether it may go with the
            unit; who is protected, or unknown, may not.
        reap: Called with each pidfd after SIGKILL, to have its memory freed early.
        watched_max: Victims watched at once.
        open_pidfd: ``os.pidfd_open``, or a test's that fails.
        send: ``signal.pidfd_send_signal``, likewise.
        leave_mark: Tells the manager of a unit why it goes: its cgroup's folder, how many, and
            now; returns what takes that back, None where it could not be told.
    """

    def __init__(  # noqa: PLR0913 - seams are parameters
        self,
        identify: Callable[[int], ProcessId],
        *,
        never: frozenset[int],
        dry_run: bool,
        cgroup_root: str = "",
        may_go: Callable[[int], bool] = lambda _pid: False,
        reap: Callable[[int], None] = lambda _pidfd: None,
        watched_max: int = WATCHED_MAX,
        open_pidfd: Callable[[int], int] = os.pidfd_open,
        send: Callable[[int, int], None] = signal.pidfd_send_signal,
        leave_mark: Callable[[str, int, int], Callable[[], None] | None] = mark,
    ) -> None:
        self._identify = identify
        self._never = never | {0, 1}
        self._dry_run = dry_run
        self._cgroup_root = cgroup_root
        self._may_go = may_go
        self._reap = reap
        self._watched_max = watched_max
        self._open_pidfd = open_pidfd
        self._send = send
        self._leave_mark = leave_mark
        self.watched: dict[int, ProcessId] = {}
        """pidfd -> victim, for the loop to poll."""
        self._pidfds: dict[ProcessId, int] = {}
        self.unwatched = 0
        """Victims signalled but not waited for, because there were too many."""
        self.unmarked = 0
        """Units whose manager could not be told why they went."""

    def perform(self, request: End, now_ns: int) -> list[Gone | Refused]:
        """Send the signals; return the news that is known at once."""
        news: list[Gone | Refused] = []
        signalled = []
        left = None
        if (request.unit or request.cgroup) and not self._dry_run and self._leads(request):
            left = self._mark(request, now_ns)
            if request.force is Force.KILL and request.cgroup and self._alone(request):
                # One write ends them all, while signalling a hundred takes a while.
                self._kill_unit(request.cgroup)
        for victim in request.victims:
            answer = self._signal(victim, request.force, now_ns)
            if isinstance(answer, Refused):
                # Once more: what fails for want of memory may pass, and a hog that is stepped
                # over costs somebody else's life.
                answer = self._signal(victim, request.force, now_ns)
            if answer is not None:
                news.append(answer)
            else:
                signalled.append(victim)
        if left is not None and all(isinstance(one, Refused) for one in news) and not signalled:
            left()
        if request.force is Force.KILL and not self._dry_run:
            # All signals first: freeing one victim's memory must not delay the next signal.
            for victim in signalled:
                pidfd = self._pidfds.get(victim)
                if pidfd is not None:
                    self._reap(pidfd)
        return news

    def gone(self, pidfd: int, now_ns: int) -> Gone | None:
        """Turn a readable pidfd into news, and close it."""
        victim = self.watched.pop(pidfd, None)
        if victim is None:
            return None
        self._pidfds.pop(victim, None)
        os.close(pidfd)
        return Gone(now_ns, victim)

    def forget(self) -> list[int]:
        """Stop watching everybody; returns the descriptors, now closed, for the poll to drop."""
        closed = list(self.watched)
        for pidfd in closed:
            os.close(pidfd)
        self.watched.clear()
        self._pidfds.clear()
        return closed

    def _signal(self, victim: ProcessId, force: Force, now_ns: int) -> Gone | Refused | None:
        # Race: the PID may have been recycled since the survey. The pidfd is opened
        # *before* the identity is read again, so a match proves that the descriptor
        # holds the process that was chosen, and a later exit turns the signal into
        # ESRCH and not into a stranger's death.
        if victim.pid in self._never:
            return Refused(now_ns, victim, "it is init, the guard, or the guard's parent")
        pidfd = self._pidfds.get(victim)
        try:
            if pidfd is None:
                pidfd = self._open_pidfd(victim.pid)
                if self._identify(victim.pid) != victim or self._dry_run:
                    os.close(pidfd)
                    return Gone(now_ns, victim)
                self._watch(victim, pidfd)
            self._send(pidfd, _SIGNALS[force])
        except ProcessGone:
            self._drop(victim, pidfd)
            return Gone(now_ns, victim)
        except OSError as error:
            self._drop(victim, pidfd)
            if error.errno in _NOBODY:
                return Gone(now_ns, victim)
            return Refused(now_ns, victim, os.strerror(error.errno or 0))
        except KernelError as error:
            self._drop(victim, pidfd)
            return Refused(now_ns, victim, f"nobody can tell who it is: {error}")
        if victim not in self._pidfds:
            os.close(pidfd)
            self.unwatched += 1
            return Gone(now_ns, victim)
        return None

    def _watch(self, victim: ProcessId, pidfd: int) -> None:
        if len(self.watched) < self._watched_max:
            self.watched[pidfd] = victim
            self._pidfds[victim] = pidfd

    def _drop(self, victim: ProcessId, pidfd: int | None) -> None:
        self._pidfds.pop(victim, None)
        if pidfd is not None:
            self.watched.pop(pidfd, None)
            os.close(pidfd)

    def _leads(self, request: End) -> bool:
        # The unit was chosen for its members: its leading one must still be who it was.
        # cgroup.kill asks nobody: where one member is never to be touched, none goes by it.
        if any(victim.pid in self._never for victim in request.victims):
            return False
        leader = request.victims[0]
        try:
            return self._identify(leader.pid) == leader
        except (KernelError, OSError):
            return False

    def _mark(self, request: End, now_ns: int) -> Callable[[], None] | None:
        if not self._cgroup_root or not request.unit or ".." in request.unit:
            return None
        path = f"{self._cgroup_root}{request.unit}"
        left = self._leave_mark(path, len(request.victims), now_ns)
        self.unmarked += left is None
        return left

    def _alone(self, request: End) -> bool:
        # A survey shows who is large. cgroup.kill takes the small ones too, and whoever is in
        # groups below: a protected helper of 500 KiB, a rule's process in a container.
        if not self._cgroup_root or ".." in request.cgroup:
            return False
        chosen = {victim.pid for victim in request.victims}
        strangers: list[int] = []
        folders = [f"{self._cgroup_root}{request.cgroup}"]
        for looked, folder in enumerate(folders):
            if looked >= FOLDERS_MAX:
                return False
            try:
                members = _members(folder)
                folders += [entry.path for entry in os.scandir(folder) if entry.is_dir()]
            except (OSError, ValueError):
                return False
            strangers += [pid for pid in members if pid not in chosen]
            if len(strangers) > STRANGERS_MAX:
                return False
        return all(pid not in self._never and self._may_go(pid) for pid in strangers)

    def _kill_unit(self, cgroup: str) -> None:
        # Race-free against fork (since Linux 5.14); where it fails the signals stand.
        try:
            fd = os.open(f"{self._cgroup_root}{cgroup}/cgroup.kill", os.O_WRONLY | os.O_CLOEXEC)
        except OSError:
            return
        try:
            os.write(fd, b"1")
        except OSError:
            pass  # threaded, or going away
        finally:
            os.close(fd)


def _members(folder: str) -> list[int]:
    # A process of a PID namespace that we cannot see into shows as 0, which is never to go.
    fd = os.open(f"{folder}/cgroup.procs", os.O_RDONLY | os.O_CLOEXEC)
    try:
        raw = os.read(fd, PROCS_BYTES)
    finally:
        os.close(fd)
    if len(raw) == PROCS_BYTES:
        raise ValueError("more members than can be looked at")
    return [int(line) for line in raw.split()]
