"""Folding storms: the first event of a quiet channel goes out at once, the rest as one summary.

    quiet --event--> sent at once; a window opens
    open  --event--> held, or sent at once when it is more urgent than all that was sent
    open  --window over, something held--> one summary; a new window opens
    open  --window over, nothing held--> quiet

Pure: time is an argument, and what is held is named by the caller's numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from forestall.core.units import MINUTE, SECOND

WINDOW_NS = 30 * SECOND
WINDOW_NS_MAX = 10 * MINUTE
"""Each summary that follows another waits twice as long, up to this."""
HELD_MAX = 1000
"""A window that holds this many is closed early; the summary counts them all."""


@dataclass(frozen=True, slots=True)
class Fold:
    """Where one channel stands."""

    until_ns: int | None = None
    """When the window ends, and ``close`` has something to do; None when the channel is quiet."""
    window_ns: int = 0
    """How long the open window is."""
    urgency: int = -1
    """The highest that was sent since the channel was quiet."""
    held: tuple[int, ...] = ()
    """Events that wait for the summary, oldest first."""


def take(
    fold: Fold, event: int, urgency: int, now_ns: int, *, window_ns: int = WINDOW_NS
) -> tuple[Fold, tuple[int, ...]]:
    """Take one event; returns the events that one letter shall hold now, perhaps none.

    Args:
        window_ns: Of the first window; 0 folds nothing.
    """
    if window_ns == 0:
        return fold, (event,)
    if fold.until_ns is None:
        return Fold(now_ns + window_ns, window_ns, urgency), (event,)
    if urgency > fold.urgency:
        # What was held goes along: a later summary would tell an older story.
        return Fold(now_ns + window_ns, window_ns, urgency), (*fold.held, event)
    held = (*fold.held, event)
    if len(held) >= HELD_MAX:
        return replace(fold, until_ns=now_ns + fold.window_ns, held=()), held
    return replace(fold, held=held), ()


def close(fold: Fold, now_ns: int) -> tuple[Fold, tuple[int, ...]]:
    """End a window that is over; returns the events of the summary, perhaps none."""
    if fold.until_ns is None or now_ns < fold.until_ns:
        return fold, ()
    if not fold.held:
        return Fold(), ()
    window_ns = min(2 * fold.window_ns, WINDOW_NS_MAX)
    return Fold(now_ns + window_ns, window_ns, fold.urgency), fold.held
