"""What the kernel's own OOM killer would go by: its score of every process, and what is behind it.

For people, never for the guard: a command may read more than a tick may. Two
stages like the survey of ``processes``: one light reading of everybody, then a
portrait of those worth showing. Rule: who vanishes in between is left out, and
what may not be read is None.
"""

from __future__ import annotations

import os
import re

from forestall.core.model import ProcessId
from forestall.core.value import TYPE_CHECKING, value
from forestall.kernel.errors import KernelFormatError, ProcessGone
from forestall.kernel.files import read_whole
from forestall.kernel.identity import (
    ADJ_BYTES,
    CGROUP_BYTES,
    STAT_BYTES,
    STATM_BYTES,
    STATUS_BYTES,
    ProcFolder,
    thread_with_memory,
)
from forestall.kernel.parse import parse_meminfo, try_kib_field
from forestall.kernel.parse_process import (
    parse_cgroup,
    parse_oom_score,
    parse_oom_score_adj,
    parse_stat,
    parse_status,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from forestall.kernel.parse_process import Stat

    T = TypeVar("T")

SCORE_BYTES = 16
FIRST_PID_NAMESPACE = "pid:[4026531836]"
PROCESSES_MAX = 100_000
"""More than that are counted and not read."""
CGROUPS_MAX = 4096
"""Different texts of /proc/PID/cgroup that are remembered; beyond that they are read anew."""

# What follows VmRSS has stood in this order since v4.5; VmPMD came and went (v4.0 to v4.14).
# Where a kernel has another, the lines are looked for one by one.
_FOOTING = re.compile(
    rb"\nVmRSS:\s+(\d+) kB\nRssAnon:\s+(\d+) kB\nRssFile:\s+(\d+) kB\nRssShmem:\s+(\d+) kB\n"
    rb"(?:Vm[DSEL]\w+:[^\n]*\n)*VmPTE:\s+(\d+) kB\n(?:VmPMD:[^\n]*\n)?VmSwap:\s+(\d+) kB\n"
)
_UID = re.compile(rb"\nUid:\t(\d{1,10})\t")


@value
class Weight:
    """The light reading of a process."""

    pid: int
    oom_score: int
    """As the kernel prints it."""
    resident_pages: int
    """Without what is in swap; 0 for kernel threads, zombies, and headless processes."""


@value
class Weighed:
    """The light reading of everybody."""

    weights: tuple[Weight, ...]
    """Without kernel threads and zombies, which have neither score nor memory."""
    hidden: bool
    """Somebody's files may not be read, or init is not to be seen: others may be there."""
    dropped: int
    """Processes that could not be read for another reason, or were too many."""


@value
class Footing:
    """Memory of one process, from /proc/PID/status."""

    rss_bytes: int
    """What the kernel counts: anonymous, file and shared pages in RAM."""
    anon_bytes: int | None
    file_bytes: int | None
    shmem_bytes: int | None
    swap_bytes: int | None
    page_tables_bytes: int | None


@value
class Portrait:
    """Everything about one process that a score can depend on."""

    id: ProcessId
    comm: str
    state: str
    parent_pid: int
    kernel_thread: bool
    uid: int | None
    threads: int
    oom_score: int | None
    oom_score_adj: int | None
    memory: Footing | None
    """None for kernel threads, zombies, and where it may not be read."""
    cgroup: str | None


@value
class Crowd:
    """Everything about everybody."""

    portraits: tuple[Portrait, ...]
    """Without kernel threads and zombies."""
    hidden: bool
    dropped: int
    """Both as in ``Weighed``."""


@value
class KillerSettings:
    """Settings of the kernel's killer that change whom it takes; None is unknown."""

    panic_on_oom: int | None
    kill_allocating_task: bool | None


class ScoreTable:
    """Reads scores and what is behind them.

    Cost: 20 µs a process for the light reading, 80 for everything, of which the kernel takes 50
    (Python 3.11, Linux 6.18, a busy machine).

    Args:
        root: Where /proc is.
        open_file: ``os.open``, or a test's that fails.
        read_file: ``os.read``, likewise.

    Raises: OSError without /proc.
    """

    def __init__(
        self,
        root: str = "/",
        *,
        open_file: Callable[..., int] = os.open,
        read_file: Callable[[int, int], bytes] = os.read,
    ) -> None:
        self._root = root.rstrip("/")
        self._folder = ProcFolder(root, open_file=open_file, read_file=read_file)
        self._cgroups: dict[bytes, str] = {}

    def weigh(self) -> Weighed:
        """Read score and size of everybody, in no order.

        Raises: OSError when /proc cannot be listed.
        """
        names = [name for name in self._folder.names() if name.isdigit()]
        slurp = self._folder.slurp
        weights = []
        hidden = "1" not in names
        dropped = max(0, len(names) - PROCESSES_MAX)
        for name in names[:PROCESSES_MAX]:
            try:
                score = int(slurp(name + "/oom_score", SCORE_BYTES))
                resident = int(slurp(name + "/statm", STATM_BYTES).split()[1])
            except ProcessGone:
                continue
            except PermissionError:
                hidden = True
                continue
            except (OSError, ValueError, IndexError):
                dropped += 1
                continue
            if score or resident:
                weights.append(Weight(int(name), score, resident))
        return Weighed(tuple(weights), hidden, dropped)

    def everybody(self) -> Crowd:
        """Read everything of everybody, each file once.

        Raises: OSError when /proc cannot be listed.
        """
        names = [name for name in self._folder.names() if name.isdigit()]
        portraits = []
        hidden = "1" not in names
        dropped = max(0, len(names) - PROCESSES_MAX)
        for name in names[:PROCESSES_MAX]:
            try:
                portrait = self._full_portrait(name)
            except ProcessGone:
                continue
            except PermissionError:
                hidden = True
                continue
            except (OSError, KernelFormatError):
                dropped += 1
                continue
            if portrait is not None and (portrait.oom_score or portrait.memory is not None):
                portraits.append(portrait)
        return Crowd(tuple(portraits), hidden, dropped)

    def portrait(self, pid: int) -> Portrait:
        """Read everything about a process.

        Raises: ProcessGone; OSError when not even /proc/PID/stat may be read; KernelFormatError.
        """
        stat = parse_stat(self._folder.slurp(f"{pid}/stat", STAT_BYTES))
        score = self._try(f"{pid}/oom_score", SCORE_BYTES, parse_oom_score)
        return self._portrait(str(pid), stat, score)

    def parent(self, pid: int) -> tuple[int, str] | None:
        """Return a process's parent and its own name; None if it is gone or hidden."""
        stat = self._try(f"{pid}/stat", STAT_BYTES, parse_stat)
        return None if stat is None else (stat.parent_pid, stat.comm)

    def pss_bytes(self, pid: int) -> int | None:
        """Read a process's proportional share of what it maps; None where not permitted.

        Cost: a walk over its page tables: 0.15 ms for a small one, 13 ms per GiB.
        """
        try:
            raw = read_whole(f"{self._root}/proc/{pid}/smaps_rollup")
            return try_kib_field("smaps_rollup", b"\n" + raw, b"Pss:")
        except (OSError, KernelFormatError):
            return None

    def totals(self) -> tuple[int, int]:
        """Return RAM and swap as /proc/meminfo has them, in bytes.

        Raises: OSError; KernelFormatError.
        """
        memory = parse_meminfo(read_whole(f"{self._root}/proc/meminfo"))
        return memory.total_bytes, memory.swap_total_bytes

    def settings(self) -> KillerSettings:
        """Read what an administrator told the kernel's killer."""
        panic = self._sysctl("panic_on_oom")
        allocating = self._sysctl("oom_kill_allocating_task")
        return KillerSettings(panic, None if allocating is None else bool(allocating))

    def sees_all(self) -> bool | None:
        """Tell whether every process of the machine has a number here; None if it is not known.

        Source: include/linux/proc_ns.h PROC_PID_INIT_INO, the first PID namespace's inode.
        """
        try:
            return os.readlink(f"{self._root}/proc/self/ns/pid") == FIRST_PID_NAMESPACE
        except OSError:
            return None

    def close(self) -> None:
        """Close the descriptor of /proc."""
        self._folder.close()

    def _full_portrait(self, name: str) -> Portrait | None:
        """Read the portrait of one of many; None for a kernel thread."""
        slurp = self._folder.slurp
        stat = parse_stat(slurp(name + "/stat", STAT_BYTES))
        if stat.kernel_thread:
            return None
        score = parse_oom_score(slurp(name + "/oom_score", SCORE_BYTES))
        try:
            status = slurp(name + "/status", STATUS_BYTES)
            return Portrait(
                stat.id,
                stat.comm,
                stat.state,
                stat.parent_pid,
                False,  # noqa: FBT003 - by position takes half the time, for thousands
                parse_uid(status),
                stat.threads,
                score,
                parse_oom_score_adj(slurp(name + "/oom_score_adj", ADJ_BYTES)),
                self._memory(stat, status),
                self._cgroup(slurp(name + "/cgroup", CGROUP_BYTES)),
            )
        except (OSError, KernelFormatError):
            # A kernel without one of these files, or some of it is kept from us.
            return self._portrait(name, stat, score)

    def _portrait(self, name: str, stat: Stat, oom_score: int | None) -> Portrait:
        try:
            status = self._folder.slurp(name + "/status", STATUS_BYTES)
        except OSError:  # hidden: hidepid leaves us its name at most
            status = None
        return Portrait(
            id=stat.id,
            comm=stat.comm,
            state=stat.state,
            parent_pid=stat.parent_pid,
            kernel_thread=stat.kernel_thread,
            uid=None if status is None else parse_uid(status),
            threads=stat.threads,
            oom_score=oom_score,
            oom_score_adj=self._try(name + "/oom_score_adj", ADJ_BYTES, parse_oom_score_adj),
            memory=None if status is None else self._memory(stat, status),
            cgroup=self._try(name + "/cgroup", CGROUP_BYTES, self._cgroup),
        )

    def _cgroup(self, raw: bytes) -> str:
        # Thousands share a few cgroups, and the text takes longer to parse than to compare.
        known = self._cgroups.get(raw)
        if known is None:
            if len(self._cgroups) >= CGROUPS_MAX:
                self._cgroups.clear()
            known = self._cgroups[raw] = parse_cgroup(raw)
        return known

    def _memory(self, stat: Stat, status: bytes) -> Footing | None:
        memory = parse_footing(status)
        if memory is not None or stat.kernel_thread or stat.threads < 2:
            return memory
        # The first thread has ended and the others hold the memory.
        try:
            tid = thread_with_memory(self._folder, stat.id.pid)
        except (OSError, ProcessGone):
            return None
        if tid is None:
            return None
        return self._try(f"{stat.id.pid}/task/{tid}/status", STATUS_BYTES, parse_footing)

    def _try(self, name: str, size_bytes: int, parse: Callable[[bytes], T]) -> T | None:
        try:
            return parse(self._folder.slurp(name, size_bytes))
        except (OSError, KernelFormatError, ProcessGone):
            return None  # gone by now, or a kernel without that file

    def _sysctl(self, name: str) -> int | None:
        try:
            return int(read_whole(f"{self._root}/proc/sys/vm/{name}"))
        except (OSError, ValueError, KernelFormatError):
            return None


def parse_footing(raw: bytes) -> Footing | None:
    """Read the memory lines of /proc/PID/status; None for who has no memory.

    Source: fs/proc/task_mmu.c task_mem. RssAnon and its siblings came in v4.5.
    Cost: 5 µs; 13 where the order of the lines is another (Python 3.11).
    Raises: KernelFormatError.
    """
    usual = _FOOTING.search(raw)
    if usual is not None:
        rss, anon, file, shmem, tables, swap = [int(digits) * 1024 for digits in usual.groups()]
        return Footing(rss, anon, file, shmem, swap, tables)
    text = b"\n" + raw
    rss_bytes = try_kib_field("status", text, b"VmRSS:")
    if rss_bytes is None:
        return None
    return Footing(
        rss_bytes,
        try_kib_field("status", text, b"RssAnon:"),
        try_kib_field("status", text, b"RssFile:"),
        try_kib_field("status", text, b"RssShmem:"),
        try_kib_field("status", text, b"VmSwap:"),
        try_kib_field("status", text, b"VmPTE:"),
    )


def parse_uid(raw: bytes) -> int:
    """Read the real user out of /proc/PID/status.

    Raises: KernelFormatError.
    """
    found = _UID.search(raw)
    return int(found[1]) if found is not None else parse_status(raw).uid
