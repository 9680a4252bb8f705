"""One look at all processes through the kernel's eyes: scores, sizes, who would be next.

Rule: a number that the kernel did not give is None; what it hides is said to be
hidden; the command that looks leaves itself out, for it is gone when it is read.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from forestall.core.sentence import plain
from forestall.core.standing import unit_of
from forestall.core.value import value
from forestall.inspect.badness import (
    Machine,
    Scale,
    find_scale,
    points_of,
    points_of_pages,
    printed,
    weight_pages,
    why_not,
)
from forestall.kernel.errors import KernelError, ProcessGone
from forestall.kernel.scores import ScoreTable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence, Set

    from forestall.core.model import ProcessId
    from forestall.kernel.scores import KillerSettings, Portrait, Weight

WARN_POINTS = 500
CRITICAL_POINTS = 800
"""The seed's marks, on the unscaled value: half, and four fifths, of RAM + swap."""
CONTENDERS_MAX = 512
"""Portraits taken to find the kernel's next victim, the largest first: 35 ms."""
CONTENDER_POINTS = 2
"""The printed score is this coarse; whoever is nearer to the top may be the top."""
CALIBRATION_MAX = 16


@value
class Scored:
    """One process as the kernel's killer sees it."""

    id: ProcessId
    name: str
    """As it calls itself; to be escaped by who shows it."""
    state: str
    parent_pid: int
    uid: int | None
    oom_score: int | None
    """As printed: an idle process shows 666 since v5.9."""
    points: int | None
    """Unscaled, in thousandths of RAM + swap, adjustment included; None: never considered."""
    oom_score_adj: int | None
    rss_bytes: int | None
    anon_bytes: int | None
    swap_bytes: int | None
    page_tables_bytes: int | None
    pss_bytes: int | None
    cgroup: str | None
    spared: str | None
    """Why the kernel's killer would not look at it."""
    badness_pages: int | None
    change_points: int | None = None
    """Since the last look; None at the first, or when it was not seen then."""

    @property
    def unit(self) -> str | None:
        """The service or scope it runs in; empty where it runs in none."""
        return None if self.cgroup is None else unit_of(self.cgroup)

    @property
    def mark(self) -> str:
        """Return ``warning`` above 500 points, ``critical`` above 800, else nothing."""
        if self.points is None or self.points <= WARN_POINTS:
            return ""
        return "critical" if self.points > CRITICAL_POINTS else "warning"


@value
class _Unknown:
    """In the place of a footing that is hidden, or not there."""

    rss_bytes: int | None = None
    anon_bytes: int | None = None
    swap_bytes: int | None = None
    page_tables_bytes: int | None = None


_UNKNOWN = _Unknown()


@dataclass(frozen=True, slots=True, kw_only=True)
class NextVictim:
    """Whom the kernel's killer would take now, if the whole machine ran out."""

    pid: int | None
    name: str = ""
    points: int | None = None
    frees_bytes: int | None = None
    why: str
    exact: bool
    """False: some of what it depends on cannot be seen from here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What was seen at one moment."""

    scored: tuple[Scored, ...]
    """Highest first; those never considered last. Not everybody: see ``processes``."""
    processes: int
    """How many there are, without kernel threads."""
    machine: Machine
    kernel: NextVictim
    hidden: bool
    dropped: int
    sees_all: bool | None
    """False in a PID namespace: the machine has processes without a number in here."""
    settings: KillerSettings


@value
class _Seen:
    """What was read for one look."""

    portraits: dict[int, Portrait]
    wanted: Set[int]
    idle: tuple[int, ...]
    """Some that stand low: they show how this kernel prints."""
    processes: int
    hidden: bool
    dropped: int


class Looker:
    """Looks again and again, and tells what changed in between.

    Cost: 20 µs for each process of the machine and 80 for each one shown, or 90 each for all.

    Args:
        spare: Processes to leave out.
    """

    def __init__(
        self,
        root: str = "/",
        *,
        spare: frozenset[int] = frozenset(),
        page_bytes: int | None = None,
        table: ScoreTable | None = None,
    ) -> None:
        self._table = table or ScoreTable(root)
        self._spare = spare
        self._page_bytes = page_bytes or os.sysconf("SC_PAGE_SIZE")
        self._scale = Scale.UNKNOWN
        self._before: dict[ProcessId, int] = {}

    def look(
        self, *, portraits_max: int | None, pss: bool = False, keep: Iterable[int] = ()
    ) -> Look:
        """Read scores of all, and everything of those that lead.

        Args:
            portraits_max: How many leading ones are wanted; None for all.
            pss: Also walk the page tables of those wanted.
            keep: Processes to take in however low they stand.

        Raises: OSError; KernelError when /proc/meminfo makes no sense.
        """
        seen = self._everybody() if portraits_max is None else self._leaders(portraits_max, keep)
        machine = self._machine(seen)
        scored = [
            self._scored(portrait, machine, pss=pss and portrait.id.pid in seen.wanted)
            for portrait in seen.portraits.values()
            if not portrait.kernel_thread
        ]
        scored.sort(key=order_of, reverse=True)
        settings = self._table.settings()
        sees_all = self._table.sees_all()
        look = Look(
            scored=tuple(scored),
            processes=seen.processes,
            machine=machine,
            kernel=next_victim(scored, settings, hidden=seen.hidden, sees_all=sees_all is True),
            hidden=seen.hidden,
            dropped=seen.dropped,
            sees_all=sees_all,
            settings=settings,
        )
        self._before = {one.id: one.points for one in scored if one.points is not None}
        return look

    def portrait(self, pid: int) -> Portrait:
        """Read one process.

        Raises: ProcessGone; OSError; KernelError.
        """
        return self._table.portrait(pid)

    def pss_bytes(self, pid: int) -> int | None:
        """Read the proportional share of one process; None where not permitted."""
        return self._table.pss_bytes(pid)

    def ancestry(self, pid: int) -> list[tuple[int, str]]:
        """Return who started a process, the nearest first: number and name."""
        line: list[tuple[int, str]] = []
        seen = {pid}
        found = self._table.parent(pid)
        while found is not None and found[0] > 0 and found[0] not in seen:
            parent = found[0]
            seen.add(parent)
            found = self._table.parent(parent)
            line.append((parent, found[1] if found else "?"))
        return line

    def close(self) -> None:
        """Close what is open."""
        self._table.close()

    def _everybody(self) -> _Seen:
        crowd = self._table.everybody()
        taken = {one.id.pid: one for one in crowd.portraits if one.id.pid not in self._spare}
        return _Seen(taken, taken.keys(), (), len(taken), crowd.hidden, crowd.dropped)

    def _leaders(self, portraits_max: int, keep: Iterable[int]) -> _Seen:
        """Read sizes of all, and everything of those who lead."""
        weighed = self._table.weigh()
        weights = sorted(
            (weight for weight in weighed.weights if weight.pid not in self._spare),
            key=lambda weight: (weight.oom_score, weight.resident_pages),
            reverse=True,
        )
        wanted = {weight.pid for weight in weights[:portraits_max]} | set(keep)
        taken = self._portraits([w.pid for w in weights if w.pid in wanted])
        taken |= self._portraits([pid for pid in _contenders(weights) if pid not in taken])
        idle = tuple(weight.pid for weight in weights[-CALIBRATION_MAX:])
        return _Seen(taken, wanted, idle, len(weights), weighed.hidden, weighed.dropped)

    def _portraits(self, pids: Sequence[int]) -> dict[int, Portrait]:
        taken = {}
        for pid in pids:
            try:
                taken[pid] = self._table.portrait(pid)
            except (ProcessGone, OSError, KernelError):
                continue  # gone since it was weighed, or not ours to see
        return taken

    def _machine(self, seen: _Seen) -> Machine:
        total_bytes, swap_bytes = self._table.totals()
        if self._scale is Scale.UNKNOWN:
            machine = Machine(total_bytes, swap_bytes, self._page_bytes, self._scale)
            own = self._portraits([os.getpid(), *seen.idle])
            leading = islice(seen.portraits.values(), CALIBRATION_MAX)
            self._scale = find_scale([*own.values(), *leading], machine)
        return Machine(total_bytes, swap_bytes, self._page_bytes, self._scale)

    def _scored(self, portrait: Portrait, machine: Machine, *, pss: bool) -> Scored:
        spared = why_not(portrait, machine.scale)
        points = pages = None
        if spared is None and portrait.oom_score is not None:
            pages = weight_pages(portrait, machine)
            points = points_of(portrait.oom_score, machine.scale)
            if points is not None and pages is not None:
                # A printed number stands for one or two points; the sizes tell which.
                exact = points_of_pages(pages, machine)
                points = exact if printed(exact, machine.scale) == portrait.oom_score else points
        before = self._before.get(portrait.id)
        memory = portrait.memory or _UNKNOWN
        return Scored(
            id=portrait.id,
            name=portrait.comm,
            state=portrait.state,
            parent_pid=portrait.parent_pid,
            uid=portrait.uid,
            oom_score=portrait.oom_score,
            points=points,
            oom_score_adj=portrait.oom_score_adj,
            rss_bytes=memory.rss_bytes,
            anon_bytes=memory.anon_bytes,
            swap_bytes=memory.swap_bytes,
            page_tables_bytes=memory.page_tables_bytes,
            pss_bytes=self._table.pss_bytes(portrait.id.pid) if pss else None,
            cgroup=portrait.cgroup,
            spared=spared,
            badness_pages=pages,
            change_points=None if before is None or points is None else points - before,
        )


def order_of(scored: Scored) -> tuple[bool, int, int, int]:
    """Sort key: by points, within the same step of the scale by the exact badness."""
    exact = scored.badness_pages
    points = scored.points if scored.points is not None else -1001
    return scored.spared is None, points, exact if exact is not None else -1, scored.id.pid


def next_victim(
    scored: Sequence[Scored], settings: KillerSettings, *, hidden: bool, sees_all: bool = True
) -> NextVictim:
    """Work out whom the kernel would take: the largest badness, on a tie the youngest.

    Source: mm/oom_kill.c select_bad_process; tasks are visited in the order of their birth and
    an equal one replaces the one before.
    """
    if settings.panic_on_oom:
        return NextVictim(
            pid=None, why="vm.panic_on_oom is set: the machine panics instead", exact=True
        )
    known = [one for one in scored if one.badness_pages is not None]
    best = max(
        known,
        key=lambda one: (one.badness_pages or 0, one.id.start_ticks, one.id.pid),
        default=None,
    )
    if best is None:
        return NextVictim(
            pid=None, why="nobody that can be seen may be taken", exact=sees_all and not hidden
        )
    why = f"{plain(best.name)} ({best.id.pid}) has the largest badness"
    if best.oom_score_adj:
        why += f", {best.oom_score_adj:+d} thousandths of it by oom_score_adj"
    if hidden or not sees_all:
        why += ", among those that can be seen"
    if settings.kill_allocating_task:
        why += "; but vm.oom_kill_allocating_task is set: whoever asks for memory is taken"
    blind = any(one.badness_pages is None and one.points is not None for one in scored)
    return NextVictim(
        pid=best.id.pid,
        name=plain(best.name),
        points=best.points,
        frees_bytes=_sum(best.rss_bytes, best.swap_bytes),
        why=why,
        exact=sees_all and not (hidden or blind or settings.kill_allocating_task),
    )


def high_risk(look: Look, above: int = 100) -> tuple[Scored, ...]:
    """Return those above so many points, the highest first; 100 as in the seed's call."""
    return tuple(one for one in look.scored if one.points is not None and one.points > above)


def describe_badness(scored: Scored, machine: Machine) -> int | None:
    """Return the exact points, worked out from the sizes; None if one of them is unknown."""
    if scored.badness_pages is None:
        return None
    return points_of_pages(scored.badness_pages, machine)


def _contenders(weights: Sequence[Weight]) -> list[int]:
    if not weights:
        return []
    floor = weights[0].oom_score - CONTENDER_POINTS
    return [w.pid for w in weights[:CONTENDERS_MAX] if w.oom_score >= floor]


def _sum(first: int | None, second: int | None) -> int | None:
    return None if first is None or second is None else first + second
