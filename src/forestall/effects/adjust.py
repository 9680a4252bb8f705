"""Another process's oom_score_adj, written so that a recycled number cannot be hit."""

from __future__ import annotations

import errno
import os

from forestall.core.value import TYPE_CHECKING, value
from forestall.kernel.errors import KernelFormatError
from forestall.kernel.parse_process import parse_oom_score_adj, parse_stat

if TYPE_CHECKING:
    from forestall.core.model import ProcessId

_READ_BYTES = 1024
_NOBODY = {errno.ENOENT, errno.ESRCH}


@value
class Adjusted:
    """It was written."""

    before: int


@value
class Denied:
    """It was not."""

    why: str
    gone: bool = False
    """The process is no more, or was never meant: its number is somebody else's now."""


def adjust(process: ProcessId, adj: int, *, root: str = "/", raise_only: bool) -> Adjusted | Denied:
    """Write a process's oom_score_adj.

    Args:
        raise_only: Refuse to lower it: that shields it from the kernel at others' cost.

    Race: the folder's descriptor stays with the process it was opened for. Once that has
    ended, everything below it is ESRCH, whoever has the number by then.
    Source: proc(5); lowering needs CAP_SYS_RESOURCE, and a buffered file would hide EACCES.
    """
    folder = -1
    try:
        folder = os.open(
            f"{root.rstrip('/')}/proc/{process.pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        )
        if parse_stat(_read(folder, "stat")).id != process:
            return Denied("its number belongs to another process now", gone=True)
        before = parse_oom_score_adj(_read(folder, "oom_score_adj"))
        if raise_only and adj < before:
            return Denied(f"only root may lower it (it is {before})")
        fd = os.open("oom_score_adj", os.O_WRONLY | os.O_CLOEXEC, dir_fd=folder)
        try:
            os.write(fd, b"%d" % adj)
        finally:
            os.close(fd)
    except OSError as error:
        return Denied(os.strerror(error.errno or 0), gone=error.errno in _NOBODY)
    except KernelFormatError as error:
        return Denied(str(error))
    finally:
        if folder >= 0:
            os.close(folder)
    return Adjusted(before)


def _read(folder: int, name: str) -> bytes:
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    try:
        return os.read(fd, _READ_BYTES)
    finally:
        os.close(fd)
