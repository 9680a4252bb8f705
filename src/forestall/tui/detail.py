"""The detail pane and the head of the live screen, as lines of text. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from forestall.core.sentence import plain
from forestall.core.units import human_bytes, human_ns, human_share
from forestall.fields import BY_NAME, UNKNOWN
from forestall.tui.history import draw

if TYPE_CHECKING:
    from forestall.inspect.scores import Scene
    from forestall.tui.history import History
    from forestall.tui.source import Detail, Moment

_SIZES = ("rss_bytes", "anon_bytes", "swap_bytes", "page_tables_bytes")
_SYSTEM = {"": "", "caution": " - getting short", "danger": " - MAY RUN OUT"}


def head_lines(moment: Moment, history: History, width: int) -> list[str]:
    """Write memory, its graph and that of the stalls, and both next victims."""
    scene = moment.scene
    graph = max(4, (width - 34) // 2)
    used = draw(history.used, graph, top=1.0)
    stall = draw(history.stall, graph, top=1.0)
    share = UNKNOWN if moment.stall_share is None else human_share(moment.stall_share)
    used_share = UNKNOWN if scene.memory is None else human_share(scene.memory.used_share)
    sure = "" if scene.look.kernel.exact else " (estimate)"
    return [
        _memory_line(scene),
        f"used {used_share:>5} {used:<{graph}}  stalled {share:>5} {stall:<{graph}}",
        f"next: kernel {_who(scene.look.kernel.pid, scene.look.kernel.name)}{sure}, "
        f"guard {_guard(scene)}",
        _last_line(moment),
    ]


def detail_lines(detail: Detail | None, history: History, width: int) -> list[str]:
    """Write everything about the process under the cursor."""
    if detail is None:
        return ["No such process any more."]
    found = detail.explanation
    one = found.scored
    unit = UNKNOWN if one.unit is None else one.unit and plain(one.unit)
    owner = UNKNOWN if one.uid is None else str(one.uid)
    above = " < ".join(f"{name} ({pid})" for pid, name in found.ancestry)
    values = (one.rss_bytes, one.anon_bytes, one.swap_bytes, one.page_tables_bytes)
    sizes = [
        f"{BY_NAME[name].title} {BY_NAME[name].show(value)}"
        for name, value in zip(_SIZES, values, strict=True)
    ]
    sizes.append(f"PSS {BY_NAME['pss_bytes'].show(detail.pss_bytes)}")
    return [
        f"{plain(one.name)} ({one.id.pid})  uid {owner}  state {one.state}  unit {unit or 'none'}",
        "  ".join(sizes),
        f"started by {above or UNKNOWN}",
        _minutes(detail, history, width),
        f"kernel: {_kernel_words(detail)}",
        f"guard: {_guard_words(detail)}",
    ]


def _memory_line(scene: Scene) -> str:
    memory = scene.memory
    if memory is None:
        return f"memory {UNKNOWN}"
    text = (
        f"memory {human_bytes(memory.total_bytes)}, {human_bytes(memory.available_bytes)} available"
    )
    if memory.swap_total_bytes:
        text += (
            f", swap {human_bytes(memory.swap_free_bytes)}/{human_bytes(memory.swap_total_bytes)}"
            " free"
        )
    return text + _SYSTEM[scene.mark]


def _who(pid: int | None, name: str) -> str:
    return "nobody" if pid is None else f"{plain(name)} ({pid})"


def _guard(scene: Scene) -> str:
    choice = scene.guard
    more = f" and {choice.processes - 1} more" if choice.processes > 1 else ""
    return _who(choice.pid, choice.name) + more + ("" if choice.told else " (its rules)")


def _last_line(moment: Moment) -> str:
    if moment.scene.notes:
        return moment.scene.notes[0]
    if moment.why_not:
        return f"read-only: {moment.why_not}"
    return moment.scene.difference


def _minutes(detail: Detail, history: History, width: int) -> str:
    sizes = history.of(detail.explanation.scored.id)
    known = [size for size in sizes if size is not None]
    if not known:
        return "lately: nothing known yet"
    span = human_ns(history.span_ns)
    return (
        f"last {span}: {draw(sizes, max(8, width - 48))} "
        f"{human_bytes(known[0])} to {human_bytes(known[-1])}"
    )


def _kernel_words(detail: Detail) -> str:
    found = detail.explanation
    if found.scored.spared is not None:
        return found.scored.spared
    score = BY_NAME["points"].show(found.scored.points)
    if found.rank is None:
        return f"score {score}; its exact place cannot be seen from here"
    return f"score {score}, place {found.rank} of those shown; oom_score {found.scored.oom_score}"


def _guard_words(detail: Detail) -> str:
    found = detail.explanation
    place = "" if found.guard_place is None else f"place {found.guard_place}: "
    without = f"; without it {found.without_it}" if found.guard_place == 1 else ""
    return f"{place}{found.guard_words}{without}"
