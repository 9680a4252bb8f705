"""Processes put together: as a tree under who started them, or by unit with sums. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from forestall.inspect.looking import Scored

DEPTH_MAX = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """A process in a tree."""

    scored: Scored
    depth: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitSum:
    """A unit, and what its processes hold together."""

    unit: str | None
    """Empty: in no unit; None: it may not be read which."""
    processes: int
    rss_bytes: int
    """The sum counts shared pages once for each process, so it is an upper bound."""
    anon_bytes: int
    swap_bytes: int
    points_max: int | None
    leader: Scored
    complete: bool
    """False when a size of some member is unknown: the sums are then what is known."""


def tree(everybody: Sequence[Scored], chosen: Iterable[Scored]) -> list[Branch]:
    """Arrange the chosen ones under their ancestors; siblings keep the order they came in.

    A parent that is not among everybody (hidden, or just gone) makes its child a root.
    """
    by_pid = {one.id.pid: one for one in everybody}
    kept: set[int] = set()
    for one in chosen:
        pid = one.id.pid
        # The set also ends the climb where a recycled number closed a circle.
        while pid in by_pid and pid not in kept:
            kept.add(pid)
            pid = by_pid[pid].parent_pid
    children: dict[int, list[Scored]] = {}
    for one in everybody:
        if one.id.pid in kept:
            home = one.parent_pid if one.parent_pid in kept and one.parent_pid != one.id.pid else 0
            children.setdefault(home, []).append(one)
    branches: list[Branch] = []
    stack = [(one, 0) for one in reversed(children.get(0, ()))]
    while stack:
        one, depth = stack.pop()
        branches.append(Branch(scored=one, depth=min(depth, DEPTH_MAX)))
        stack += [(child, depth + 1) for child in reversed(children.pop(one.id.pid, []))]
    return branches


def by_unit(everybody: Iterable[Scored]) -> list[UnitSum]:
    """Sum up the units, the largest holder of anonymous memory and swap first."""
    homes: dict[str | None, list[Scored]] = {}
    for one in everybody:
        homes.setdefault(one.unit, []).append(one)
    sums = [_sum(unit, members) for unit, members in homes.items()]
    return sorted(
        sums, key=lambda unit: (unit.anon_bytes + unit.swap_bytes, unit.unit or ""), reverse=True
    )


def _sum(unit: str | None, members: list[Scored]) -> UnitSum:
    sizes = [(one.rss_bytes, one.anon_bytes, one.swap_bytes) for one in members]
    rss, anon, swap = (sum(part or 0 for part in column) for column in zip(*sizes, strict=True))
    points = [one.points for one in members if one.points is not None]
    return UnitSum(
        unit=unit,
        processes=len(members),
        rss_bytes=rss,
        anon_bytes=anon,
        swap_bytes=swap,
        points_max=max(points, default=None),
        leader=max(members, key=lambda one: (one.anon_bytes or 0) + (one.swap_bytes or 0)),
        complete=not any(None in size for size in sizes),
    )
