"""How scores look on a terminal: columns read off ``fields``, names made harmless."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from forestall.cli.console import safe
from forestall.cli.scenes import next_mark, plain_text
from forestall.core.sentence import plain
from forestall.core.units import human_bytes, human_ns, human_share
from forestall.fields import BY_NAME, UNKNOWN, Unit

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from forestall.inspect.groups import Branch, UnitSum
    from forestall.inspect.looking import Scored
    from forestall.inspect.scores import Scene

MARKS = {"": "", "warning": "!", "critical": "!!"}
STYLES = {"": "", "warning": "yellow", "critical": "bold red"}
_SYSTEM = {
    "": ("", ""),
    "caution": ("; memory is getting short", "yellow"),
    "danger": ("; memory may run out", "bold red"),
}
_COLUMNS = (
    *("pid", "name", "points", "change_points", "oom_score", "oom_score_adj"),
    *("rss_bytes", "anon_bytes", "swap_bytes", "pss_bytes", "mark", "next", "unit"),
)
_UNIT_COLUMNS = (
    *("unit", "processes", "points_max", "rss_bytes", "anon_bytes", "swap_bytes", "leader"),
)


def process_cells(one: Scored, scene: Scene, *, name: str | None = None) -> dict[str, str]:
    """Write every column of a process."""
    found = {
        "pid": one.id.pid,
        "name": safe(plain(one.name)) if name is None else name,
        "points": one.points if one.spared is None else "never",
        "change_points": one.change_points or 0,
        "oom_score": one.oom_score,
        "oom_score_adj": one.oom_score_adj,
        "rss_bytes": one.rss_bytes,
        "anon_bytes": one.anon_bytes,
        "swap_bytes": one.swap_bytes,
        "pss_bytes": one.pss_bytes,
        "mark": MARKS[one.mark],
        "next": next_mark(one, scene),
        "unit": None if one.unit is None else safe(plain_text(one.unit)),
    }
    return {column: BY_NAME[column].show(value) for column, value in found.items()}


def process_lines(rows: Iterable[Scored], scene: Scene) -> list[Text]:
    """Write a table of processes."""
    shown = [(process_cells(one, scene), STYLES[one.mark]) for one in rows]
    return _table(_useful(_COLUMNS, scene, [cells for cells, _ in shown]), shown)


def tree_lines(branches: Iterable[Branch], scene: Scene) -> list[Text]:
    """Write a table of processes, each under the one that started it."""
    shown = []
    for branch in branches:
        one = branch.scored
        name = "  " * branch.depth + safe(plain(one.name))
        shown.append((process_cells(one, scene, name=name), STYLES[one.mark]))
    return _table(_useful(_COLUMNS, scene, [cells for cells, _ in shown]), shown)


def unit_lines(sums: Iterable[UnitSum]) -> list[Text]:
    """Write a table of units; sums that miss a member are marked as lower bounds."""
    shown = []
    for one in sums:
        least = "" if one.complete else ">="
        leader = f"{safe(plain(one.leader.name))} ({one.leader.id.pid})"
        cells = {
            "unit": UNKNOWN if one.unit is None else safe(plain_text(one.unit)) or "(none)",
            "processes": BY_NAME["processes"].show(one.processes),
            "points_max": BY_NAME["points_max"].show(one.points_max),
            "rss_bytes": "<=" + BY_NAME["rss_bytes"].show(one.rss_bytes),
            "anon_bytes": least + BY_NAME["anon_bytes"].show(one.anon_bytes),
            "swap_bytes": least + BY_NAME["swap_bytes"].show(one.swap_bytes),
            "leader": leader,
        }
        shown.append((cells, ""))
    return _table(_UNIT_COLUMNS, shown)


def summary_lines(scene: Scene) -> list[Text]:
    """Write the system line, both next victims and why they differ, and what is not seen."""
    lines = [system_line(scene), kernel_line(scene), guard_line(scene)]
    lines.append(Text("             " + safe(scene.difference)))
    return lines + [Text("note         ", style="yellow") + Text(safe(n)) for n in scene.notes]


def system_line(scene: Scene) -> Text:
    """Write how full memory is, with the seed's words above 80 and 90 %."""
    memory = scene.memory
    if memory is None:
        return Text(f"memory       {UNKNOWN}")
    words, style = _SYSTEM[scene.mark]
    line = Text(
        f"memory       {human_share(memory.used_share)} used of "
        f"{human_bytes(memory.total_bytes)}, {human_bytes(memory.available_bytes)} available"
    )
    if memory.swap_total_bytes:
        line.append(
            f", swap {human_bytes(memory.swap_free_bytes)} free of "
            f"{human_bytes(memory.swap_total_bytes)}"
        )
    line.append(words, style=style)
    return line


def kernel_line(scene: Scene) -> Text:
    """Write whom the kernel would take."""
    victim = scene.look.kernel
    sure = "" if victim.exact else " (estimate)"
    return Text("kernel next  ") + Text(f"{safe(victim.why)}{sure}")


def guard_line(scene: Scene) -> Text:
    """Write whom the guard would end."""
    choice = scene.guard
    line = Text("guard next   ")
    if choice.told:
        age = "" if choice.age_ns is None else f" (seen {human_ns(choice.age_ns)} ago)"
    else:
        age = " (no guard runs: this is what its rules would choose, knowing less)"
    return line.append(safe(choice.why or UNKNOWN) + age)


def _useful(
    columns: Sequence[str], scene: Scene, rows: Sequence[dict[str, str]]
) -> tuple[str, ...]:
    # A machine without swap needs no column for it; a first look has no changes to show.
    unneeded = set()
    if scene.memory is not None and not scene.memory.swap_total_bytes:
        unneeded.add("swap_bytes")
    if not any(row["change_points"] for row in rows):
        unneeded.add("change_points")
    if not any(row["mark"] for row in rows):
        unneeded.add("mark")
    return tuple(column for column in columns if column not in unneeded)


def _table(columns: Sequence[str], rows: Sequence[tuple[dict[str, str], str]]) -> list[Text]:
    heads = {column: BY_NAME[column].title for column in columns}
    widths = {
        column: max(len(heads[column]), *(len(cells[column]) for cells, _ in rows), 1)
        for column in columns
    }
    lines = [Text(_line(columns, heads, widths), style="bold")]
    return lines + [Text(_line(columns, cells, widths), style=style) for cells, style in rows]


def _line(columns: Sequence[str], cells: dict[str, str], widths: dict[str, int]) -> str:
    parts = []
    for column in columns:
        text = BY_NAME[column].unit is Unit.TEXT
        parts.append(f"{cells[column]:{'<' if text else '>'}{widths[column]}}")
    return "  ".join(parts).rstrip()
