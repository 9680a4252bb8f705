"""A rehearsal at start: the kill path is tried on children of ours before it is needed.

A sandbox or security module that forbids a rare system call shows here, with a
name, and not at the first emergency (earlyoom#315, #321: died at every OOM, for
months, unnoticed).
"""

from __future__ import annotations

import errno
import os
import select
import signal

from forestall.core.events import End
from forestall.core.model import Force
from forestall.core.value import TYPE_CHECKING, value
from forestall.effects.end import EndProcess
from forestall.effects.unit_mark import mark

if TYPE_CHECKING:
    from collections.abc import Callable

    from forestall.core.model import ProcessId

DEATH_MS_MAX = 5_000
SACRIFICE_BYTES = 256 * 1024
NO_UNIT = "/proc/self/no-such-unit"
"""Where no mark can be left; to have gone through it once."""


@value
class Finding:
    """One thing that does not work, and what it means."""

    what: str
    means: str
    fatal: bool


def rehearse(mrelease: Callable[[int], int]) -> list[Finding]:
    """Kill two children and knock at a stranger's door; returns what failed.

    Cost: two forks, about 3 ms.
    """
    findings = []
    failure = _end_child(signal.SIGTERM, None)
    if failure:
        means = f"SIGTERM through a pidfd failed: {failure}"
        findings.append(Finding("signal", means, fatal=True))
    failure = _end_child(signal.SIGKILL, mrelease)
    if failure and failure.startswith("process_mrelease"):
        means = f"{failure}; a starved victim will give its memory back late"
        findings.append(Finding("mrelease", means, fatal=False))
    elif failure:
        means = f"SIGKILL through a pidfd failed: {failure}"
        findings.append(Finding("signal", means, fatal=True))
    failure = knock()
    if failure:
        findings.append(Finding("permission", failure, fatal=False))
    return findings


def rehearse_end(identify: Callable[[int], ProcessId], now_ns: int) -> None:
    """Go through an end of our own, dry, so that an emergency touches no page for the first time.

    Raises: ProcessGone; OSError.
    """
    dry = EndProcess(identify, never=frozenset(), dry_run=True)
    own = identify(os.getpid())
    dry.perform(End((own,), Force.TERM, "rehearsal", "forestall", 0), now_ns)
    mark(NO_UNIT, 1, now_ns)


def knock() -> str | None:
    """Send signal 0 to some process of another user; returns why that failed, or None."""
    stranger = _stranger()
    if stranger is None:
        return None
    pid, uid = stranger
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None  # gone meanwhile
    try:
        signal.pidfd_send_signal(pidfd, 0)
    except ProcessLookupError:
        return None
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        return f"processes of other users (such as uid {uid}) cannot be ended: {reason}"
    finally:
        os.close(pidfd)
    return None


def _stranger() -> tuple[int, int] | None:
    own = os.getuid()
    for name in os.listdir("/proc"):
        if name.isdigit() and name != "1":
            try:
                uid = os.stat("/proc/" + name).st_uid
            except OSError:
                continue
            if uid != own:
                return int(name), uid
    return None


def _end_child(number: int, mrelease: Callable[[int], int] | None) -> str | None:
    pid = os.fork()
    if pid == 0:
        _sacrifice()
    try:
        pidfd = os.pidfd_open(pid)
    except OSError as error:
        os.kill(pid, signal.SIGKILL)  # our own child, not yet reaped: its number cannot be reused
        os.waitpid(pid, 0)
        return f"pidfd_open: {os.strerror(error.errno or 0)}"
    failure = None
    try:
        signal.pidfd_send_signal(pidfd, number)
        if mrelease is not None:
            failure = _release(mrelease, pidfd)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(DEATH_MS_MAX):
            failure = f"a child did not end within {DEATH_MS_MAX} ms"
    except OSError as error:
        failure = os.strerror(error.errno or 0)
    finally:
        os.close(pidfd)
        _bury(pid)
    return failure


def _release(mrelease: Callable[[int], int], pidfd: int) -> str | None:
    error = mrelease(pidfd)
    # ESRCH: it was quicker. EAGAIN: it is at it.
    if error in {0, errno.ESRCH, errno.EAGAIN, errno.EINVAL}:
        return None
    return f"process_mrelease: {os.strerror(error)}"


def _sacrifice() -> None:
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        filled = bytearray(SACRIFICE_BYTES)
        while filled:
            signal.pause()
    finally:
        os._exit(1)


def _bury(pid: int) -> None:
    found, _status = os.waitpid(pid, os.WNOHANG)
    if found == 0:
        os.kill(pid, signal.SIGKILL)  # still our unreaped child
        os.waitpid(pid, 0)
