"""The errand boy: one blocking call in a process of its own, so that it can be given up.

Run as a file: ``python3 -I -S -E …/relief/worker.py MODE …``. Its exit status is
zero or an errno; what really happened the caller reads from the kernel.

Rule: whatever happens to it, swap stays switched on. A signal during swapoff
makes the kernel keep the area; a signal after it finds us at swapon.
"""

from __future__ import annotations

import os
import signal
import sys

SWAPON_FAILED = 200
USAGE = 201


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
    sys.path.insert(0, __file__.rpartition("/forestall/")[0])
    # The path must be set first.
    from forestall.kernel import libc  # noqa: PLC0415

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _only_interrupt)
    error = libc.swapoff(path)
    if error:
        return error
    return SWAPON_FAILED if libc.swapon(path, priority) else 0


def _only_interrupt(_number: int, _frame: object) -> None:
    # Not SIG_IGN: the system call must come back with EINTR.
    return


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
