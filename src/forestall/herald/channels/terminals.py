"""Terminals: SSH sessions and consoles of everybody who takes messages (mesg y).

Found by looking, not by utmp, which newer systems no longer have.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from forestall.herald.outcome import Never, Outcome, Sent

if TYPE_CHECKING:
    from collections.abc import Iterable

TERMINALS_MAX = 256


def terminals(root: Path = Path("/dev")) -> list[Path]:
    """Find the terminals that take messages: writable by their group, as mesg(1) sets it."""
    names = [*(root / "pts").glob("[0-9]*"), *root.glob("tty[0-9]*")]
    return [path for path in sorted(names)[:TERMINALS_MAX] if _takes_messages(path)]


def write(text: str, paths: Iterable[Path]) -> Outcome:
    """Write to every terminal that takes it at once; fails when none of several did."""
    raw = text.encode("utf-8", "replace")
    reached, missed = 0, 0
    for path in paths:
        if _write_one(path, raw):
            reached += 1
        else:
            missed += 1
    # Nobody logged in is no failure: there is nobody to be told, now or later.
    if missed and not reached:
        return Never(f"none of {missed} terminals took it")
    return Sent()


def _takes_messages(path: Path) -> bool:
    try:
        status = path.stat()
    except OSError:
        return False
    logged_in = path.parent.name == "pts" or status.st_uid != 0
    return stat.S_ISCHR(status.st_mode) and bool(status.st_mode & stat.S_IWGRP) and logged_in


def _write_one(path: Path, raw: bytes) -> bool:
    try:
        # A terminal stopped by Ctrl-S must not stop us.
        fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.write(fd, raw) == len(raw)
    except OSError:
        return False
    finally:
        os.close(fd)
