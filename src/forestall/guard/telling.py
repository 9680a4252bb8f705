"""How the guard words what it knows anyway: as an event of ``control.schema``, as a line.

Rule: nothing is read, searched or sorted here; an event costs a dictionary.
"""

from __future__ import annotations

from forestall.control.schema import SCHEMA
from forestall.core.sentence import plain
from forestall.core.trend import time_left_ns
from forestall.core.units import human_bytes, human_ns, human_share
from forestall.core.value import TYPE_CHECKING, replace

_DEEDS = frozenset({"decision", "outcome"})

if TYPE_CHECKING:
    from typing import Any

    from forestall.core.events import Tell
    from forestall.core.state import State


def describe(tell: Tell, state: State, *, run: str, wall_ns: int, moment_ns: int) -> dict[str, Any]:
    """Fill in an event; what is not known is None."""
    victim = tell.victim
    event: dict[str, Any] = {
        "schema": SCHEMA,
        "run": run,
        "what": tell.what,
        "sentence": tell.sentence,
        "level": tell.level.value,
        "time_ns": wall_ns,
        "monotonic_ns": moment_ns,
        "trigger": tell.trigger,
        "name": plain(tell.comm) if tell.comm else "",
        "pid": victim.pid if victim else None,
        "start_ticks": victim.start_ticks if victim else None,
        "time_left_ns": tell.time_left_ns,
    }
    memory = state.memory
    if memory is not None:
        swap = memory.swap_total_bytes
        event["used_share"] = memory.used_share
        event["swap_used_share"] = memory.swap_used_bytes / swap if swap else None
        event["available_bytes"] = memory.available_bytes
        event["total_bytes"] = memory.total_bytes
        event["swap_total_bytes"] = swap
        if tell.time_left_ns is None:
            event["time_left_ns"] = time_left_ns(state.trail, state.now_ns, memory)
    prospect = state.prospect
    if prospect is not None and prospect.victim is not None:
        event["likely_name"] = plain(prospect.comm)
        event["likely_pid"] = prospect.victim.pid
        event["likely_start_ticks"] = prospect.victim.start_ticks
        event["likely_frees_bytes"] = prospect.frees_bytes
    return event


def in_dry_run(tell: Tell) -> Tell:
    """Mark what a guard that touches nobody says of its deeds; alerts repeat it word for word."""
    if tell.what not in _DEEDS:
        return tell
    sentence: str = f"dry run: {tell.sentence}"
    return replace(tell, sentence=sentence)


def live_line(state: State, columns: int) -> str:
    """One line about now: level, memory, swap, and who would go; it ends before the last column.

    A line that wraps could not be written over: it would leave its upper half behind.
    """
    memory = state.memory
    assert memory is not None
    parts = [
        f"{state.level.value}: {human_share(memory.used_share)} of "
        f"{human_bytes(memory.total_bytes)} used, {human_bytes(memory.available_bytes)} available"
    ]
    if memory.swap_total_bytes:
        parts.append(f"swap {human_bytes(memory.swap_usable_bytes)} free")
    prospect = state.prospect
    if prospect is not None and prospect.victim is not None:
        age = human_ns(max(0, state.now_ns - prospect.now_ns))
        who = f"{plain(prospect.comm)} ({prospect.victim.pid})"
        parts.append(f"next to go {who}, {human_bytes(prospect.frees_bytes)}, seen {age} ago")
    text = "; ".join(parts)
    return text if len(text) < columns else text[: max(0, columns - 2)] + "…"
