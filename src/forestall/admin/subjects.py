"""The processes of this machine as an administrator's tools see them; read once, judged elsewhere.

Rule: what cannot be read is None, a process that is gone is left out, and
nothing here decides.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from forestall.config.trust import find_problems
from forestall.kernel import parse_process
from forestall.kernel.errors import KernelError
from forestall.kernel.files import read_whole
from forestall.kernel.parse import try_kib_field

if TYPE_CHECKING:
    from collections.abc import Callable

    from forestall.core.model import ProcessId

T = TypeVar("T")

PROCESSES_MAX = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One process that is no kernel thread."""

    id: ProcessId
    name: str
    parent_pid: int
    adjust: int
    uid: int | None = None
    """The real one: whoever started it, also when it runs a program of root's."""
    cgroup: str | None = None
    exe: str | None = None
    cmdline: str | None = None
    held_bytes: int | None = None
    """What the kernel's badness counts of it: resident, swapped, page tables."""

    @property
    def system_unit(self) -> str:
        """The system's service that holds it; empty in a user's session, or in none.

        The outermost one: what lies below a unit may have been made by whoever runs in it,
        and everything below user.slice by a user.
        """
        path = self.cgroup or ""
        if path.startswith(("/user.slice/", "/machine.slice/")):
            return ""
        return next((part for part in path.split("/") if part.endswith(".service")), "")

    @property
    def unit(self) -> str:
        """The innermost service or scope, for people."""
        parts = (self.cgroup or "").split("/")
        return next((part for part in reversed(parts) if part.endswith((".service", ".scope"))), "")


class Machine:
    """Reads processes, and what they run.

    Args:
        root: Where /proc is.
        owners: Who may own a program file that is trusted; tests add themselves.
    """

    def __init__(self, root: str | Path = "/", owners: frozenset[int] = frozenset({0})) -> None:
        self._root = Path(root)
        self._proc = self._root / "proc"
        self._owners = owners
        self._trusted: dict[str, bool] = {}

    def pids(self) -> list[int]:
        """List all process numbers.

        Raises: OSError without /proc.
        """
        names = os.listdir(self._proc)  # noqa: PTH208 - names only
        return sorted(int(name) for name in names if name.isdigit())[:PROCESSES_MAX]

    def subjects(self) -> list[Subject]:
        """Read every process that is no kernel thread.

        Raises: OSError without /proc.
        """
        read = (self.subject(pid) for pid in self.pids())
        return [subject for subject in read if subject is not None]

    def stat(self, pid: int) -> parse_process.Stat | None:
        """Read the cheap part of a process: who it is, under which name, whose child."""
        return _read(self._proc / str(pid) / "stat", parse_process.parse_stat)

    def subject(self, pid: int) -> Subject | None:
        """Read one process; None when it is gone, a zombie or the kernel's own."""
        folder = self._proc / str(pid)
        stat = self.stat(pid)
        if stat is None or stat.kernel_thread or stat.state in "XZ":
            return None
        adjust = _read(folder / "oom_score_adj", parse_process.parse_oom_score_adj)
        if adjust is None:
            return None
        status = _read(folder / "status", parse_process.parse_status)
        return Subject(
            id=stat.id,
            name=stat.comm,
            parent_pid=stat.parent_pid,
            adjust=adjust,
            uid=status.uid if status else None,
            cgroup=_read(folder / "cgroup", parse_process.parse_cgroup),
            exe=_exe(folder),
            cmdline=_read(folder / "cmdline", parse_process.parse_cmdline),
            held_bytes=_read(folder / "status", _held),
        )

    def runs_roots_program(self, subject: Subject) -> bool:
        """Tell whether the program file, and every folder above it, belongs to root alone.

        Race: who is not trusted cannot change what was found to be root's, so the
        answer stays true after the look. A file that was replaced (an upgrade) is
        not the one that runs, and is not trusted.
        """
        if subject.exe is None:
            return False
        path = Path(subject.exe)
        try:
            there, running = path.stat(), (self._proc / str(subject.id.pid) / "exe").stat()
        except OSError:
            return False
        if (there.st_dev, there.st_ino) != (running.st_dev, running.st_ino):
            return False
        if subject.exe not in self._trusted:
            problems = find_problems(path, owners=self._owners)
            self._trusted[subject.exe] = next(problems, None) is None
        return self._trusted[subject.exe]


def _exe(folder: Path) -> str | None:
    try:
        return os.readlink(folder / "exe")  # noqa: PTH115 - text, not a path of ours
    except OSError:
        return None


def _held(raw: bytes) -> int:
    fields = [try_kib_field("status", b"\n" + raw, name) for name in _HELD]
    return sum(size_bytes or 0 for size_bytes in fields)


# mm/oom_kill.c oom_badness() adds these three.
_HELD = (b"VmRSS:", b"VmSwap:", b"VmPTE:")


def _read(path: Path, parse: Callable[[bytes], T]) -> T | None:
    try:
        return parse(read_whole(str(path)))
    except (OSError, KernelError):
        return None
