"""Readings into events: the guard's own eyes and judgement, for one program.

Rule: time comes in with each call, so a test needs no clock. What cannot be
read is left out (no victim, no time left); memory that cannot be read raises.
"""

from __future__ import annotations

import os

from forestall.core.census import Census, count
from forestall.core.events import Sampled
from forestall.core.judge import Chosen, judge
from forestall.core.model import Level, Memory
from forestall.core.sentence import plain
from forestall.core.signals import level_of
from forestall.core.standing import Matcher
from forestall.core.trend import Trail, extend, time_left_ns
from forestall.core.units import SECOND
from forestall.core.value import TYPE_CHECKING
from forestall.kernel.confinement import own_confinements
from forestall.kernel.errors import KernelError
from forestall.kernel.processes import ProcessTable
from forestall.kernel.sampler import Sampler
from forestall.library.event import PressureEvent, Process, Victim
from forestall.library.stream import KILLS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from forestall.core.events import Surveyed
    from forestall.core.model import Row
    from forestall.core.rules import Rules
    from forestall.kernel.confinement import Confinement

TOP_MAX = 5
TOP_SHARE_MIN = 0.01
NOBODY = -1
"""No process is the guard here: the program that watches may itself be the next to go."""


class Reader:
    """Reads memory and the process table, as far as we may.

    Cost: 30 µs for memory, 6 µs a process for the rest (Python 3.11, Linux 6.18).

    Args:
        rules: Levels and victim rules.
        root: Where /proc and /sys are; another one in tests.

    Raises: OSError without /proc/meminfo; KernelFormatError without MemAvailable in it.
    """

    def __init__(self, rules: Rules, root: str = "/") -> None:
        self._rules = rules
        self._sampler = Sampler(root)
        self._limits = own_confinements(root.rstrip("/"))
        self._table = ProcessTable(
            root,
            matcher=Matcher(rules.victim_rules),
            own_pid=NOBODY,
            page_bytes=os.sysconf("SC_PAGE_SIZE"),
            clk_tck=os.sysconf("SC_CLK_TCK"),
        )
        self._sys_folder = f"{root.rstrip('/')}/sys/fs/cgroup"
        self._trail = Trail()
        self._census = Census()
        self._rows: tuple[Row, ...] = ()
        self.memory: Memory | None = None
        self.limit = ""
        """Folder of the cgroup whose limit is nearer than the machine's; empty for none."""
        self.level = Level.NORMAL
        self.survey_errors = 0

    def look(self, now_ns: int) -> Level:
        """Read memory; remember it for the pace; return the level.

        Raises: OSError; KernelError.
        """
        machine = self._sampler.sample(now_ns, with_activity=False).memory
        memory, limit = machine, ""
        for confinement in self._limits:
            narrowed = _try_narrow(confinement, machine)
            if narrowed is not None and narrowed.used_share > memory.used_share:
                memory, limit = narrowed, confinement.folder
        if limit != self.limit:
            # What was seen of another whole says nothing about the pace of this one.
            self._trail = Trail()
        self.memory, self.limit = memory, limit
        self._trail = extend(self._trail, Sampled(now_ns, memory))
        self.level = level_of(memory, self.level, self._rules)
        return self.level

    def survey(self, now_ns: int) -> None:
        """Read who holds what, and remember it: growth is what tells the likely victim."""
        memory = self.memory
        try:
            found = self._table.survey(
                lambda: now_ns,
                swap_used=memory is not None and memory.swap_used_bytes > 0,
                warm=True,
            )
        except (OSError, KernelError):
            self.survey_errors += 1
            return
        self._rows = self._ours(found)
        shmem = memory.shmem_bytes if memory else None
        self._census = count(self._census, now_ns, self._rows, shmem, shared=False)

    def time_left_ns(self, now_ns: int) -> int | None:
        """Time until memory and swap are gone; None while they are not falling."""
        return None if self.memory is None else time_left_ns(self._trail, now_ns, self.memory)

    def event(
        self, now_ns: int, wall_ns: int, *, reason: str, news: Mapping[str, Any] | None = None
    ) -> PressureEvent:
        """Put together what was last read.

        Args:
            news: The guard's own words about now, which know more than ours.
        """
        memory = self.memory
        assert memory is not None, "look first"
        news = news or {}
        left_ns = news.get("time_left_ns")
        if not isinstance(left_ns, int):
            left_ns = self.time_left_ns(now_ns)
        swap_total = memory.swap_total_bytes
        return PressureEvent(
            timestamp=wall_ns / SECOND,
            pressure_level=self.level.value,
            memory_percent=round(100.0 * memory.used_share, 2),
            swap_percent=round(100.0 * memory.swap_used_bytes / swap_total, 2)
            if swap_total
            else 0.0,
            available_bytes=memory.available_bytes,
            total_bytes=memory.total_bytes,
            top_processes=self.top(),
            likely_victim=_guards_victim(news) or self.victim(),
            time_left_s=None if left_ns is None else left_ns / SECOND,
            reason=reason,
            what=str(news.get("what") or ""),
            sentence=_harmless(news.get("sentence")),
            source="guard" if news else "own",
            limit=self.limit.removeprefix(self._sys_folder) or "/" if self.limit else "",
        )

    def top(self) -> tuple[Process, ...]:
        """Return the largest users of memory above one percent."""
        memory = self.memory
        if memory is None:
            return ()
        rows = sorted(self._rows, key=lambda row: (row.footprint_bytes, row.id.pid), reverse=True)
        return tuple(
            Process(
                row.id.pid,
                plain(row.comm),
                round(100.0 * row.footprint_bytes / memory.total_bytes, 2),
            )
            for row in rows[:TOP_MAX]
            if row.footprint_bytes > TOP_SHARE_MIN * memory.total_bytes
        )

    def victim(self) -> Victim | None:
        """Say who would go if something had to go now."""
        memory = self.memory
        if memory is None or not self._rows:
            return None
        verdict = judge(self._rows, self._census, memory, self._rules, spared=frozenset())
        if not isinstance(verdict, Chosen):
            return None
        part = verdict.part
        return Victim(
            pid=part.root.id.pid,
            name=plain(part.root.comm),
            processes=len(part.members),
            frees_bytes=part.frees_bytes,
            why=verdict.why,
        )

    @property
    def rows(self) -> tuple[Row, ...]:
        """What the last survey found."""
        return self._rows

    def close(self) -> None:
        """Close every descriptor."""
        self._sampler.close()
        self._table.close()
        for confinement in self._limits:
            confinement.close()

    def _ours(self, found: Surveyed) -> tuple[Row, ...]:
        # Under a limit of our own cgroup, ending somebody outside of it would not help us.
        if not self.limit:
            return found.rows
        inside = self.limit.removeprefix(self._sys_folder).removeprefix("/memory/")
        inside = "/" + inside.lstrip("/")
        rows = tuple(row for row in found.rows if (row.cgroup + "/").startswith(inside + "/"))
        return rows or found.rows


def _try_narrow(confinement: Confinement, machine: Memory) -> Memory | None:
    try:
        return confinement.narrow(machine)
    except (OSError, KernelError):
        # The cgroup is being removed, or we were moved: the others still count.
        return None


def _guards_victim(news: Mapping[str, Any]) -> Victim | None:
    pid = news.get("pid")
    if not isinstance(pid, int) or news.get("what") in KILLS:
        return None  # Who was killed is not the next one to go.
    processes, frees = news.get("processes"), news.get("frees_bytes")
    return Victim(
        pid=pid,
        name=_harmless(news.get("name")),
        processes=processes if isinstance(processes, int) else 1,
        frees_bytes=frees if isinstance(frees, int) else None,
        why=_harmless(news.get("why") or news.get("sentence")),
    )


def _harmless(text: object) -> str:
    # A guard escapes what it tells; but who answers at a socket need not be one.
    if not isinstance(text, str) or not text:
        return ""
    return plain(text.encode("utf-8", "replace").decode())
