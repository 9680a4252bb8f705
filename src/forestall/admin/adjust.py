"""Writing an oom_score_adj, to the process that is meant and to no other.

The one place that writes. Raw descriptors, because a buffered file hides EACCES
until it is closed, or for ever.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from forestall.kernel.errors import KernelError
from forestall.kernel.parse_process import parse_oom_score_adj, parse_stat

if TYPE_CHECKING:
    from collections.abc import Callable

    from forestall.core.model import ProcessId

GONE = "it is gone"
_READ_BYTES = 4096


def write_adjust(
    root: str,
    process: ProcessId,
    new: int,
    *,
    expect: int | None = None,
    write: Callable[[int, bytes], int] = os.write,
) -> str:
    """Write an oom_score_adj; returns why not, or nothing.

    Args:
        expect: Write only over this value; anything else is somebody's own doing.

    Race: the folder is opened first and the identity read through it; a folder of
    /proc stays with its process, so the number may be given away meanwhile.
    """
    try:
        folder = os.open(f"{root.rstrip('/')}/proc/{process.pid}", os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        return _why(error)
    try:
        if parse_stat(_slurp(folder, "stat")).id != process:
            return GONE
        held = parse_oom_score_adj(_slurp(folder, "oom_score_adj"))
        if expect is not None and held != expect:
            return f"somebody has set it to {held} since"
        # Truncating means nothing to /proc, and lets a plain file stand in for it.
        fd = os.open("oom_score_adj", os.O_WRONLY | os.O_TRUNC, dir_fd=folder)
        try:
            write(fd, b"%d\n" % new)
        finally:
            os.close(fd)
        now = parse_oom_score_adj(_slurp(folder, "oom_score_adj"))
    except OSError as error:
        return _why(error)
    except KernelError as error:
        return str(error)
    finally:
        os.close(folder)
    return "" if now == new else f"the kernel has {now} instead"


def _slurp(folder: int, name: str) -> bytes:
    fd = os.open(name, os.O_RDONLY, dir_fd=folder)
    try:
        return os.read(fd, _READ_BYTES)
    finally:
        os.close(fd)


def _why(error: OSError) -> str:
    if error.errno in {errno.ENOENT, errno.ESRCH}:
        return GONE
    if error.errno == errno.EACCES:
        # fs/proc/base.c __set_oom_adj: below the least value that a privileged writer ever set.
        return "refused: going below what it had takes CAP_SYS_RESOURCE"
    return os.strerror(error.errno or 0)
