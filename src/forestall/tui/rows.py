"""The table of the live screen: sorted, filtered, as a tree or by unit. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from forestall.core.sentence import plain
from forestall.fields import BY_NAME, Unit
from forestall.inspect.groups import by_unit, tree
from forestall.tui.history import held

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from forestall.inspect.groups import UnitSum
    from forestall.inspect.looking import Scored
    from forestall.inspect.scores import Scene

NAME_CHARACTERS = 15
NAME_CHARACTERS_MIN = 8
LAST_CHARACTERS_MIN = 6
TREE_CHARACTERS = 26
UNIT_CHARACTERS = 30
MARKS = {"": "", "warning": "!", "critical": "!!"}


class Arrangement(Enum):
    """How the processes are put together."""

    FLAT = "flat"
    TREE = "tree"
    UNITS = "by unit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of the table."""

    name: str
    width: int

    @property
    def title(self) -> str:
        """The head, from the one table of quantities."""
        return BY_NAME[self.name].title

    @property
    def text(self) -> bool:
        """Whether it is words, and so flush left."""
        return BY_NAME[self.name].unit is Unit.TEXT


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One row of the table."""

    pid: int
    """Whom the cursor means there: of a unit, its largest process."""
    key: str
    cells: tuple[str, ...]
    mark: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """How the table is wanted."""

    arrangement: Arrangement = Arrangement.FLAT
    sort: str = "points"
    reverse: bool = False
    """Smallest first."""
    filter: str = ""


SORTS = ("points", "change_points", "rss_bytes", "anon_bytes", "swap_bytes", "name", "pid", "unit")
_FLAT = ("pid", "name", "points", "change_points", "oom_score_adj", "rss_bytes", "anon_bytes")
_WIDTHS = {
    "pid": 7,
    "name": NAME_CHARACTERS,
    "points": 5,
    "change_points": 6,
    "oom_score_adj": 5,
    "rss_bytes": 8,
    "anon_bytes": 8,
    "swap_bytes": 8,
    "mark": 4,
    "next": 4,
    "unit": UNIT_CHARACTERS,
    "processes": 9,
    "points_max": 5,
    "leader": 24,
}


def columns(scene: Scene, asked: Asked, width: int = 200) -> tuple[Column, ...]:
    """Choose the columns; a machine without swap needs none for it.

    Args:
        width: Of the screen. Where it is narrow the last column gets what is left, or nothing.
    """
    swap = scene.memory is not None and scene.memory.swap_total_bytes > 0
    if asked.arrangement is Arrangement.UNITS:
        names = ["unit", "processes", "points_max", "rss_bytes", "anon_bytes"]
        names += ["swap_bytes"] * swap + ["leader"]
    else:
        names = [*_FLAT, *(["swap_bytes"] * swap), "mark", "next", "unit"]
    widths = _WIDTHS | ({"name": TREE_CHARACTERS} if asked.arrangement is Arrangement.TREE else {})
    # Each column has a blank after it, and the scroll bar takes two.
    room = width - 2 - sum(widths[name] + 1 for name in names[:-1])
    last = names[-1]
    if room - 1 < LAST_CHARACTERS_MIN:
        names.pop()
        first = "unit" if asked.arrangement is Arrangement.UNITS else "name"
        widths[first] = max(NAME_CHARACTERS_MIN, widths[first] + min(0, room))
    else:
        widths[last] = min(widths[last], room - 1)
    return tuple(Column(name=name, width=widths[name]) for name in names)


def arrange(scene: Scene, asked: Asked, width: int = 200) -> list[Line]:
    """Write the rows that were asked for."""
    names = [column.name for column in columns(scene, asked, width)]
    wanted = [one for one in scene.look.scored if _matches(one, asked.filter)]
    if asked.arrangement is Arrangement.UNITS:
        return [_unit_line(unit, names) for unit in by_unit(wanted)]
    ordered = in_order(scene.look.scored, asked)
    if asked.arrangement is Arrangement.FLAT:
        kept = {one.id for one in wanted}
        return [_line(one, scene, names, depth=0) for one in ordered if one.id in kept]
    return [
        _line(branch.scored, scene, names, depth=branch.depth) for branch in tree(ordered, wanted)
    ]


def in_order(scored: Sequence[Scored], asked: Asked) -> list[Scored]:
    """Sort: the largest first, words by the alphabet, the unknown always last."""
    look = _KEYS[asked.sort]
    words = BY_NAME[asked.sort].unit is Unit.TEXT
    known = [one for one in scored if look(one) is not None]
    unknown = [one for one in scored if look(one) is None]
    # Stable, so that equals stay in the order of their scores.
    known.sort(key=look, reverse=words == asked.reverse)
    return known + unknown


def _matches(one: Scored, wanted: str) -> bool:
    if not wanted:
        return True
    text = f"{one.id.pid} {plain(one.name)} {one.unit or ''}".lower()
    return all(word in text for word in wanted.lower().split())


def _line(one: Scored, scene: Scene, names: Sequence[str], *, depth: int) -> Line:
    kernel = "K" if one.id.pid == scene.look.kernel.pid else ""
    guard = "G" if one.id.pid == scene.guard.pid else ""
    found: dict[str, object] = {
        "pid": one.id.pid,
        "name": "  " * min(depth, 10) + plain(one.name),
        "points": one.points if one.spared is None else "never",
        "change_points": one.change_points or 0,
        "oom_score_adj": one.oom_score_adj,
        "rss_bytes": one.rss_bytes,
        "anon_bytes": one.anon_bytes,
        "swap_bytes": one.swap_bytes,
        "mark": MARKS[one.mark],
        "next": kernel + guard,
        "unit": None if one.unit is None else one.unit and plain(one.unit),
    }
    cells = tuple(BY_NAME[name].show(found[name]) for name in names)
    return Line(
        pid=one.id.pid, key=f"{one.id.pid}-{one.id.start_ticks}", cells=cells, mark=one.mark
    )


def _unit_line(unit: UnitSum, names: Sequence[str]) -> Line:
    name = unit.unit and plain(unit.unit)
    least = "" if unit.complete else "≥"
    shown = {
        "unit": BY_NAME["unit"].show(name) or "(none)",
        "processes": BY_NAME["processes"].show(unit.processes),
        "points_max": BY_NAME["points_max"].show(unit.points_max),
        "rss_bytes": BY_NAME["rss_bytes"].show(unit.rss_bytes),
        "anon_bytes": least + BY_NAME["anon_bytes"].show(unit.anon_bytes),
        "swap_bytes": least + BY_NAME["swap_bytes"].show(unit.swap_bytes),
        "leader": f"{plain(unit.leader.name)} ({unit.leader.id.pid})",
    }
    cells = tuple(shown[column] for column in names)
    return Line(pid=unit.leader.id.pid, key=f"unit-{name}", cells=cells, mark="")


_KEYS: dict[str, Callable[[Scored], Any]] = {
    "points": lambda one: one.points,
    "change_points": lambda one: one.change_points,
    "rss_bytes": lambda one: one.rss_bytes,
    "anon_bytes": held,
    "swap_bytes": lambda one: one.swap_bytes,
    "name": lambda one: plain(one.name).lower(),
    "pid": lambda one: one.id.pid,
    "unit": lambda one: one.unit or None,
}
