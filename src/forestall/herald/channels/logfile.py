"""The log file: a line per event, rotated by size, readable by its group only."""

from __future__ import annotations

import os
from pathlib import Path

from forestall.herald.outcome import Later, Outcome, Sent

MODE = 0o640


def append(line: str, *, path: str, rotate_bytes: int, kept: int) -> Outcome:
    """Write one line; begins a new file when this one would grow too large.

    Race: one writer is assumed; a second would at worst rotate twice.
    """
    raw = line.encode("utf-8", "backslashreplace") + b"\n"
    try:
        fd = _open(path)
        if os.fstat(fd).st_size and os.fstat(fd).st_size + len(raw) > rotate_bytes:
            os.close(fd)
            _rotate(Path(path), kept)
            fd = _open(path)
        try:
            size_bytes = os.fstat(fd).st_size
            written = os.write(fd, raw)
            if written != len(raw):
                # A disk that fills up takes half of a line; the next try would go on in it.
                os.ftruncate(fd, size_bytes)
        finally:
            os.close(fd)
    except FileNotFoundError:
        return Later(f"the folder of {path} is missing; the service forestall-herald makes its own")
    except OSError as error:
        return Later(f"{path}: {error.strerror}")
    if written != len(raw):
        return Later(f"{path}: the disk is full")
    return Sent()


def _open(path: str) -> int:
    # No link is followed: in a folder of others it could lead anywhere.
    flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        fd = os.open(path, flags)
        new = False
    except FileNotFoundError:
        fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, MODE)
        new = True
    try:
        if new and os.geteuid() == 0:
            # `alert test` by root must not leave a file that herald cannot append to. Only one
            # that we made: giving away what was there already could be asked for by a hard link.
            folder = Path(path).parent.stat()
            os.fchown(fd, folder.st_uid, folder.st_gid)
        os.fchmod(fd, MODE)
    except OSError:
        os.close(fd)
        raise
    return fd


def _rotate(path: Path, kept: int) -> None:
    for number in range(kept, 0, -1):
        older = path.with_name(f"{path.name}.{number}")
        newer = path.with_name(f"{path.name}.{number - 1}") if number > 1 else path
        if newer.exists():
            newer.replace(older)
    if kept == 0:
        path.unlink(missing_ok=True)
