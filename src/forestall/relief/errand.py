"""Blocking calls from the outside: started, watched, given up when the machine suffers.

Rule: whoever starts an errand ends it; ``end`` is called on every way out.
"""

from __future__ import annotations

import os
import select
import signal
import sys

from forestall.core.value import TYPE_CHECKING
from forestall.kernel.errors import KernelError
from forestall.kernel.files import read_whole

if TYPE_CHECKING:
    from typing import Protocol

    Step = tuple[signal.Signals, int]

    class Running(Protocol):
        """An errand under way; the real one, or a test's."""

        def wait(self, timeout_ms: int) -> int | None:
            """Wait for its end; the status, or None while it runs."""

        def cpu_ns(self) -> int:
            """CPU time it has used; what it did not use it waited."""

        def end(self) -> int | None:
            """Give it up; the status, or None if it goes on for now."""


INTERRUPT_MS = 10_000
KILL_MS = 10_000
KEEPER_MS = 1_000
"""It ends when the kernel lets go, soon or in minutes; relief has more urgent work than to wait."""
UNKNOWN_STATUS = 255
KEEPER = "recycle"
"""The mode of the worker that is never killed."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE)
_NS_PER_SECOND = 1_000_000_000


class Errand:
    """A process that carries out one blocking call.

    Args:
        arguments: What ``relief.worker`` is told.

    Raises: OSError when it cannot be started.
    """

    def __init__(self, *arguments: str) -> None:
        _reap_what_was_left()
        # Who switches swap on again must not be killed.
        self._killable = arguments[:1] != (KEEPER,)
        worker = os.path.join(os.path.dirname(os.path.abspath(__file__)), "worker.py")
        command = [sys.executable, "-I", "-S", "-E", worker, *arguments]
        # A group of its own: Ctrl-C is for us, and we decide what becomes of the errand.
        # Not fork: the caller may be a program with threads.
        # Relief ignores what ends it; its errands must not inherit that.
        self.pid = os.posix_spawn(
            sys.executable,
            command,
            {"PATH": os.defpath},
            setpgroup=0,
            setsigmask=(),
            setsigdef=_SIGNALS,
        )
        self._status: int | None = None
        try:
            self._pidfd = os.pidfd_open(self.pid)
        except OSError:
            os.kill(self.pid, signal.SIGKILL)  # our own child, not yet waited for
            os.waitpid(self.pid, 0)
            raise

    def wait(self, timeout_ms: int) -> int | None:
        """Wait for its end; the exit status, or None while it runs."""
        if self._status is None:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            if poll.poll(timeout_ms):
                self._status = self._reap()
                os.close(self._pidfd)
        return self._status

    def cpu_ns(self) -> int:
        """CPU time it and its child have used so far; zero when that cannot be read."""
        try:
            children = read_whole(f"/proc/{self.pid}/task/{self.pid}/children").split()
        except (OSError, KernelError):
            children = []
        ticks = _ticks_of(str(self.pid))
        ticks += sum(_ticks_of(child.decode()) for child in children)
        return ticks * _NS_PER_SECOND // os.sysconf("SC_CLK_TCK")

    def end(self) -> int | None:
        """Interrupt it, then kill it; None if it is stuck in the kernel even so.

        Whoever recycles swap is not killed: it ends by itself once the kernel lets go.
        """
        steps: tuple[Step, ...] = ((signal.SIGINT, KEEPER_MS),)
        if self._killable:
            steps = ((signal.SIGINT, INTERRUPT_MS), (signal.SIGKILL, KILL_MS))
        for number, patience_ms in steps:
            if self._status is not None:
                break
            try:
                signal.pidfd_send_signal(self._pidfd, number)
            except ProcessLookupError:
                pass  # it has just ended, and wait takes its status
            self.wait(patience_ms)
        if self._status is None:
            _left.append(self)
        return self._status

    def _reap(self) -> int:
        try:
            _pid, status = os.waitpid(self.pid, 0)
        except ChildProcessError:
            # The program we live in reaps everybody's children.
            return UNKNOWN_STATUS
        return os.waitstatus_to_exitcode(status) & 0xFF


_left: list[Errand] = []
"""Those that went on when they were given up, to be waited for some day."""


def _reap_what_was_left() -> None:
    _left[:] = [errand for errand in _left if errand.wait(0) is None]


def _ticks_of(pid: str) -> int:
    """Return clock ticks used; source: proc(5), fields 14 and 15 of /proc/PID/stat."""
    try:
        raw = read_whole(f"/proc/{pid}/stat")
        fields = raw[raw.rfind(b")") + 1 :].split()
        return int(fields[11]) + int(fields[12])
    except (OSError, KernelError, IndexError, ValueError):
        return 0
