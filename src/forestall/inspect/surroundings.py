"""The machine as the settings see it: what runs here, how much memory there is.

For people, not for the guard: it reads every process's command line. Rule:
what cannot be read is None, and a process that is gone is left out.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from forestall.config.lint import Process, Surroundings
from forestall.kernel import parse_process
from forestall.kernel.errors import KernelError
from forestall.kernel.files import read_whole
from forestall.kernel.parse import parse_meminfo, parse_pressure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from forestall.core.model import Memory

T = TypeVar("T")

PROCESSES_MAX = 50_000


def read_surroundings(root: str = "/") -> Surroundings:
    """Look once at everything a lint may ask about."""
    base = Path(root) / "proc"
    return Surroundings(
        processes=tuple(for_each_process(root)),
        memory=_read_memory(base),
        psi=_read(base / "pressure/memory", parse_pressure) is not None,
    )


def for_each_process(root: str = "/") -> Iterator[Process]:
    """Yield every process that is no kernel thread."""
    base = Path(root) / "proc"
    try:
        pids = sorted(int(name) for name in os.listdir(base) if name.isdigit())  # noqa: PTH208 - names only
    except OSError:
        return
    for pid in pids[:PROCESSES_MAX]:
        process = _read_process(base / str(pid), pid)
        if process is not None:
            yield process


def _read_process(folder: Path, pid: int) -> Process | None:
    try:
        uid = folder.stat().st_uid
    except OSError:
        return None
    stat = _read(folder / "stat", parse_process.parse_stat)
    if stat is None or stat.kernel_thread:
        return None
    try:
        exe: str | None = os.readlink(folder / "exe").removesuffix(" (deleted)")  # noqa: PTH115 - text
    except OSError:
        exe = None
    return Process(
        pid=pid,
        name=stat.comm,
        uid=uid,
        exe=exe,
        cmdline=_read(folder / "cmdline", parse_process.parse_cmdline),
        cgroup=_read(folder / "cgroup", parse_process.parse_cgroup),
        oom_score_adj=_read(folder / "oom_score_adj", parse_process.parse_oom_score_adj),
    )


def _read_memory(base: Path) -> Memory | None:
    return _read(base / "meminfo", parse_meminfo)


def _read(path: Path, parse: Callable[[bytes], T]) -> T | None:
    try:
        return parse(read_whole(str(path)))
    except (OSError, KernelError):
        return None
