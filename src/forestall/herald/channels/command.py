"""Own commands: an argument list, no shell, the facts in the environment, ended in time.

A command runs as herald's own user, in its own session; root's herald runs it as
the user of the settings. What it leaves behind is ended with it: the process
group first, then whoever still carries the mark in its environment.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import threading
from typing import TYPE_CHECKING

from forestall.core.units import SECOND
from forestall.herald.event import clean
from forestall.herald.outcome import Later, Never, Outcome, Sent
from forestall.kernel.largest import marked

if TYPE_CHECKING:
    from collections.abc import Mapping

    from forestall.config.alerts import Channel

COMMANDS_MAX = 2
"""At once, over all channels; another waits for its turn, as long as its time limit."""
SWEEPS_MAX = 10
_MARK = "FORESTALL_COMMAND"
_turns = threading.BoundedSemaphore(COMMANDS_MAX)


def run(channel: Channel, facts: Mapping[str, str]) -> Outcome:
    """Run a command for one letter; exit code 0 is success, 75 asks for another try."""
    keys = channel.keys
    timeout_s = keys["timeout"] / SECOND
    if not _turns.acquire(timeout=timeout_s):
        return Later(f"{COMMANDS_MAX} other commands are running")
    try:
        return _run(keys["command"], facts, timeout_s, keys["user"])
    finally:
        _turns.release()


def _run(
    command: tuple[str, ...], facts: Mapping[str, str], timeout_s: float, user: str
) -> Outcome:
    mark = secrets.token_hex(16)
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", **facts, _MARK: mark}
    as_user = user if os.geteuid() == 0 else None
    try:
        child = subprocess.Popen(
            command,
            env=environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            user=as_user,
            group=_group_of(as_user),
            extra_groups=[] if as_user else None,
        )
    except (OSError, KeyError, ValueError, subprocess.SubprocessError) as error:
        return Never(f"{command[0]} cannot be started: {clean(str(error), 120)}")
    overdue = False
    try:
        # The child stays unreaped meanwhile, so the number of its group is nobody else's.
        overdue = not _ended(child.pid, timeout_s)
    finally:
        _end_group(child.pid)
        child.wait()
        _sweep(f"{_MARK}={mark}".encode())
    if overdue:
        return Never(f"{command[0]} took longer than {timeout_s:g} s and was ended")
    if child.returncode == 0:
        return Sent()
    why = f"{command[0]} ended with {child.returncode}"
    return Later(why) if child.returncode == os.EX_TEMPFAIL else Never(why)


def _ended(pid: int, timeout_s: float) -> bool:
    """Wait without reaping; False when time is up."""
    import select  # noqa: PLC0415 - only commands need it

    fd = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(int(timeout_s * 1000)))
    finally:
        os.close(fd)


def _end_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass  # Nobody is left in it; or nobody whom we may end.


def _sweep(mark: bytes) -> None:
    """End who left the group but carries the mark; new ones may be born while we look."""
    for _ in range(SWEEPS_MAX):
        left = marked(mark)
        if not left:
            return
        for pid in left:
            try:
                fd = os.pidfd_open(pid)
            except OSError:
                continue
            try:
                # Looked at again: between the look and the pidfd the number may have changed hands.
                if pid in marked(mark):
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
            except OSError:
                pass  # Gone meanwhile.
            finally:
                os.close(fd)


def _group_of(user: str | None) -> int | None:
    if user is None:
        return None
    import pwd  # noqa: PLC0415 - only root's herald needs it

    return pwd.getpwnam(user).pw_gid
