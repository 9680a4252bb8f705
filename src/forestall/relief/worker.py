"""The errand boy: one blocking call in a process of its own, so that it can be given up.

Run as a file: ``python3 -I -S -E …/relief/worker.py MODE …``. Its exit status is
zero or an errno; what really happened the caller reads from the kernel.

Rule: whatever happens to it, swap stays switched on. The kernel looks for signals
only between the processes whose pages it reads back; who is killed in the last one
has switched the area off and dies before switching it on again. So a child makes
the call, and we, whom nobody kills, switch the area on.

Source: mm/swapfile.c try_to_unuse: signal_pending between mms; zero, not EINTR, once
nothing is left in the area. The caller of swapoff is the first the OOM killer takes.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import sys

TYPE_CHECKING = False  # Importing typing costs more than all we do.
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

SWAPON_FAILED = 200
USAGE = 201
NOTE = "/run/forestall-recycling"
"""Priority and path of the area that is being recycled; who finds it after us switches it on."""
ENDED = 202
"""The child was killed; the area is in use as before."""
_ASK_TO_END = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(arguments: list[str]) -> int:
    """Do the errand; returns the exit status."""
    # Interrupted means ended, without a traceback on somebody's terminal.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    match arguments:
        case ["sync"]:
            os.sync()
            return 0
        case ["write", path, text]:
            return _write(path, text.encode())
        case ["recycle", path, priority]:
            return _recycle(os.fsencode(path), int(priority))
        case ["forget"]:
            leave_sandbox(_libc().setns_mount)
            _forget()
            return 0
        case ["on", path, priority]:
            return _switch_on(os.fsencode(path), int(priority))
    return USAGE


def _write(path: str, text: bytes) -> int:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text)
        finally:
            os.close(fd)
    except OSError as error:
        return error.errno or USAGE
    return 0


def _recycle(path: bytes, priority: int) -> int:
    libc = _libc()
    leave_sandbox(libc.setns_mount)
    write_note(NOTE, b"%d %b\n" % (priority, path))
    status = keep(lambda: libc.swapoff(path), lambda: libc.swapon(path, priority))
    if status != SWAPON_FAILED:
        _forget()
    return status


def _switch_on(path: bytes, priority: int) -> int:
    libc = _libc()
    leave_sandbox(libc.setns_mount)
    error: int = libc.swapon(path, priority)
    if error in {0, errno.EBUSY}:
        _forget()
    return error


def leave_sandbox(
    enter: Callable[[int], int], own: str = "/proc/self/ns/mnt", first: str = "/proc/1/ns/mnt"
) -> None:
    """Enter the mounts of the machine, if a service has some of its own.

    The kernel keeps the path by which an area was switched on. In a service's own mounts
    that is one which dies with the service: /dev/vdc stood as /vdc in /proc/swaps then,
    and could not be found again. Without the right to leave we stay; the kernel decides.
    """
    try:
        if os.readlink(own) == os.readlink(first):
            return
        fd = os.open(first, os.O_RDONLY | os.O_CLOEXEC)
        try:
            enter(fd)
        finally:
            os.close(fd)
    except OSError:
        pass  # Not root, or no /proc: neither could switch swap.


def _libc() -> ModuleType:
    sys.path.insert(0, __file__.rpartition("/forestall/")[0])
    # The path must be set first.
    from forestall.kernel import libc  # noqa: PLC0415

    return libc


def _forget() -> None:
    try:
        os.unlink(NOTE)
    except OSError:
        pass


def write_note(note: str, text: bytes) -> int:
    """Write down what is under way: a service that is killed as a whole takes us along.

    Not synced: at a reboot swap is switched on by others, and the note is gone with /run.
    Returns: A descriptor that holds a lock on it for as long as we, or our child, live; -1
    when it could not be written, and then everything works but the mending.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(note, flags, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(fd, 0)
        os.write(fd, text)
    except OSError:
        return -1
    return fd


def keep(off: Callable[[], int], on: Callable[[], int]) -> int:
    """Switch off in a child, then on again ourselves, whatever became of the child.

    Args:
        off: Returns an errno; may block for minutes.
        on: Returns an errno; EBUSY when it is on already.

    Returns: The exit status.
    """
    # Blocked until each of us has its handlers: a signal in between would end the keeper.
    signal.pthread_sigmask(signal.SIG_BLOCK, _ASK_TO_END)
    child = os.fork()
    handler = _give_up if child == 0 else _tell_child(child)
    for number in _ASK_TO_END:
        signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ASK_TO_END)
    if child == 0:
        os._exit(min(off(), SWAPON_FAILED - 1))
    _pid, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code not in {0, errno.EINTR} and code > 0:
        return code  # It was not switched off, and not by us before either.
    error = on()
    if not error:
        return 0
    if error == errno.EBUSY:
        return ENDED if code < 0 else code
    return SWAPON_FAILED


def _tell_child(child: int) -> Callable[[int, object], None]:
    pidfd = os.pidfd_open(child)

    def tell(_number: int, _frame: object) -> None:
        try:
            signal.pidfd_send_signal(pidfd, signal.SIGINT)
        except ProcessLookupError:
            pass

    return tell


def _give_up(_number: int, _frame: object) -> None:
    # Before the call there is nothing to undo; after it the keeper finds out.
    os._exit(errno.EINTR)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
