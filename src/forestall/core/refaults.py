"""Which units wait for memory, and which one makes the others wait: it reads back most.

A page that comes back soon after it was taken away is a refault. In a thrash
everybody has some; who has most of all of them keeps the disk from the others,
also where it reads files by calls that no fault of its own tells of.
"""

from __future__ import annotations

from math import exp

from forestall.core.units import SECOND
from forestall.core.value import TYPE_CHECKING, value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from forestall.core.model import GroupActivity

FADE_NS = 3 * SECOND
STALE_NS = 10 * SECOND
"""Older figures say nothing about this moment."""
READER_SHARE = 0.60
"""So much of all that is read back, and the unit makes the others wait."""
READER_PAGES_PER_S = 100.0
"""What a slow disk can bring back of pages that lie apart: less makes nobody wait."""


@value
class Rate:
    """A counter, and how fast it has risen over about the last 3 s."""

    now_ns: int
    """When it was read."""
    total: int
    per_s: float | None
    """None before the second reading."""


@value
class GroupRates:
    """What a unit waits for and reads back; None where the kernel does not say."""

    stall_some_us: Rate | None
    refault_pages: Rate | None


@value
class Reader:
    """The unit that reads back most."""

    path: str
    pages_per_s: float
    share: float
    """Of what all units read back together."""


def follow(
    known: Mapping[str, GroupRates], activities: tuple[GroupActivity, ...], now_ns: int
) -> dict[str, GroupRates]:
    """Take a reading into account; units that are not in it are forgotten."""
    unknown = GroupRates(None, None)
    return {
        one.path: GroupRates(
            _risen(known.get(one.path, unknown).stall_some_us, one.stall_some_us, now_ns),
            _risen(known.get(one.path, unknown).refault_pages, one.refault_pages, now_ns),
        )
        for one in activities
    }


def reader_of(rates: Mapping[str, GroupRates], now_ns: int) -> Reader | None:
    """Name the unit that makes the others wait; None where none stands out."""
    fresh = {path: rising(one.refault_pages, now_ns) or 0.0 for path, one in rates.items()}
    path = max(fresh, key=lambda each: (fresh[each], each), default="")
    most, everybody = fresh.get(path, 0.0), sum(fresh.values())
    if most < READER_PAGES_PER_S or most < READER_SHARE * everybody:
        return None
    return Reader(path, most, most / everybody)


def rising(rate: Rate | None, now_ns: int) -> float | None:
    """How fast a counter rises, each second; None where that is not known, or was long ago."""
    return None if rate is None or now_ns - rate.now_ns > STALE_NS else rate.per_s


def _risen(known: Rate | None, total: int | None, now_ns: int) -> Rate | None:
    if total is None:
        return known
    if known is None or now_ns <= known.now_ns:
        return known or Rate(now_ns, total, None)
    span_ns = now_ns - known.now_ns
    per_s = max(0, total - known.total) * SECOND / span_ns
    if known.per_s is not None:
        per_s = known.per_s + (per_s - known.per_s) * (1.0 - exp(-span_ns / FADE_NS))
    return Rate(now_ns, total, per_s)
