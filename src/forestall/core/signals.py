"""Signals: what a trigger's conditions look at, and whether they hold.

``None`` is unknown, and an unknown signal never makes a condition hold.
"""

from __future__ import annotations

from forestall.core.model import Level, Memory, Stage
from forestall.core.rules import Condition, Rules, Signal, Trigger
from forestall.core.trend import (
    Trail,
    io_stall_share,
    readback_share,
    refaults_per_s,
    remainder_share,
    stall_share,
    surge_left_ns,
    time_left_ns,
)
from forestall.core.units import MIB, MS, PAGE_BYTES
from forestall.core.value import replace

STILL_NS = 400 * MS
"""Below half a second, over which ``time_left`` reads its faster pace."""


def measure(  # noqa: C901 - a case for each signal
    condition: Condition, trail: Trail, now_ns: int, memory: Memory
) -> float | None:
    """Read one signal, in the unit its description in ``Signal`` gives."""
    window_ns = condition.window_ns
    match condition.signal:
        case Signal.AVAILABLE:
            return memory.available_bytes
        case Signal.SWAP_FREE:
            return memory.swap_usable_bytes
        case Signal.STALL_SOME:
            return stall_share(trail, now_ns, window_ns, full=False)
        case Signal.STALL_FULL:
            return stall_share(trail, now_ns, window_ns, full=True)
        case Signal.STALL_IO:
            return io_stall_share(trail, now_ns, window_ns)
        case Signal.TIME_LEFT:
            return time_left_ns(trail, now_ns, memory)
        case Signal.SURGE_LEFT:
            return surge_left_ns(trail, now_ns, memory)
        case Signal.REMAINDER:
            return remainder_share(trail, now_ns, memory)
        case Signal.REFAULTS:
            return refaults_per_s(trail, now_ns, window_ns, PAGE_BYTES)
        case Signal.READBACK:
            return readback_share(trail, now_ns, window_ns)


def holds(condition: Condition, trail: Trail, now_ns: int, memory: Memory) -> bool:
    """Tell whether one condition holds now."""
    if condition.signal is Signal.AVAILABLE and condition.amount is not None:
        return _compare(condition, memory.available_bytes, condition.amount.of(memory.total_bytes))
    if condition.signal is Signal.SWAP_FREE and condition.amount is not None:
        if memory.swap_total_bytes == 0:
            return condition.below
        limit = condition.amount.of(memory.swap_total_bytes)
        return _compare(condition, memory.swap_usable_bytes, limit)
    found = measure(condition, trail, now_ns, memory)
    return found is not None and _compare(condition, found, condition.number)


def all_hold(trigger: Trigger, trail: Trail, now_ns: int, memory: Memory) -> bool:
    """Tell whether every condition of a trigger holds now."""
    for condition in trigger.conditions:  # noqa: SIM110 - all() with a generator costs twice as much
        if not holds(condition, trail, now_ns, memory):
            return False
    return True


def ceiling_bytes(rules: Rules, memory: Memory) -> int:
    """Available memory above which no trigger can hold; the calm tick compares nothing else.

    The total where some trigger does not look at available memory at all.
    """
    ceiling = 0
    for trigger in rules.triggers:
        limits = [
            condition.amount.of(memory.total_bytes)
            for condition in trigger.conditions
            if condition.signal is Signal.AVAILABLE and condition.below and condition.amount
        ]
        if not limits:
            return memory.total_bytes
        ceiling = max(ceiling, min(limits))
    return ceiling


def acting_ceiling_bytes(rules: Rules, memory: Memory) -> int:
    """Available memory below which a trigger may end something: what the pace aims at."""
    acting = tuple(trigger for trigger in rules.triggers if trigger.stage.rank >= 2)
    return ceiling_bytes(replace(rules, triggers=acting), memory)


def amounts(rules: Rules, memory: Memory) -> tuple[tuple[int, int], ...]:
    """List the limits (available, swap) of the acting triggers that look at amounts only.

    A trigger that also looks at stalls or trends cannot be overrun in a millisecond:
    its windows are longer than that. Left out are those that another always comes before.
    """
    found: list[tuple[int, int]] = []
    for trigger in rules.triggers:
        limits = {
            condition.signal: condition.amount
            for condition in trigger.conditions
            if condition.below and condition.amount is not None
        }
        if trigger.stage.rank < Stage.TERMINATE.rank or len(limits) < len(trigger.conditions):
            continue
        available = limits.get(Signal.AVAILABLE)
        swap = limits.get(Signal.SWAP_FREE)
        found.append(
            (
                available.of(memory.total_bytes) if available else memory.total_bytes,
                swap.of(memory.swap_total_bytes) if swap else memory.swap_total_bytes,
            )
        )
    return tuple(
        one
        for index, one in enumerate(found)
        if not any(
            other[0] >= one[0] and other[1] >= one[1] and (other != one or at < index)
            for at, other in enumerate(found)
            if at != index
        )
    )


def still_ns(rules: Rules) -> int:
    """Say how long a machine that does not move may go unsampled without weakening a trigger.

    Zero where an acting trigger could hold with nobody waiting for memory and amounts as they
    are. Otherwise less than half of every window, so that each always has a point in its
    older half, and a stall is measured from the first moment on.
    """
    windows = [STILL_NS]
    for trigger in rules.triggers:
        if trigger.stage.rank < Stage.TERMINATE.rank:
            continue
        # As in ``amounts``: those are kept at a distance by the pace.
        of_amounts = all(one.below and one.amount is not None for one in trigger.conditions)
        if not of_amounts and not any(_wants_stall(one) for one in trigger.conditions):
            return 0
        windows += [one.window_ns * 2 // 5 for one in trigger.conditions if one.window_ns]
    return min(windows)


def _wants_stall(condition: Condition) -> bool:
    memory_stalls = Signal.STALL_SOME, Signal.STALL_FULL
    return condition.signal in memory_stalls and not condition.below and condition.number > 0.0


def level_of(memory: Memory, current: Level, rules: Rules) -> Level:
    """Find the level of fullness, with hysteresis on the way down."""
    level = Level.NORMAL
    used_share, available_bytes = memory.used_share, memory.available_bytes
    for rule in rules.levels:
        margin = rules.level_margin_share if rule.level.rank <= current.rank else 0.0
        full = used_share >= rule.used_share - margin
        if full and available_bytes <= rule.available_max_bytes * (1.0 + margin):
            level = rule.level
    return level


def levels_bytes(rules: Rules, memory: Memory) -> int:
    """Available memory above which no level but normal is entered: calm looks no further."""
    total_bytes = memory.total_bytes
    highest = 0
    for rule in rules.levels:
        entered = min(total_bytes * (1.0 - rule.used_share), rule.available_max_bytes)
        highest = max(highest, int(entered))
    # Shares are floats: leave the last megabyte to the exact comparison.
    return highest + MIB


def _compare(condition: Condition, found: float, limit: float) -> bool:
    return found < limit if condition.below else found > limit
