"""What the last moments looked like: a short trail of samples, and rates read off it.

Raw counters only: PSI's ``total`` and vmstat's sums, never the kernel's own
averages, which lag by two seconds. A rate is the difference between now and the
oldest remembered point inside the window, so it needs no smoothing constants.
"""

from __future__ import annotations

from bisect import bisect_left

from forestall.core.model import Activity, Memory
from forestall.core.units import MS, SECOND
from forestall.core.value import TYPE_CHECKING, value

if TYPE_CHECKING:
    from typing import TypeVar

    from forestall.core.events import Sampled

    Moment = TypeVar("Moment", "Point", "Flow")

POINT_NS = 100 * MS
"""Points closer together than this are not remembered: 1 ms ticks would flood the trail."""
TRAIL_NS = 10 * SECOND
POINTS_MAX = 128
SURGE_NS = 6 * SECOND
PACE_NS = 500 * MS
"""A pace is read over at least this, at most twice this."""
MARK_NS = 1 * SECOND
MARKS_MAX = 60
"""A minute's descent is remembered, a mark a second."""


@value
class Point:
    """One remembered sample."""

    now_ns: int
    headroom_bytes: int
    """Available memory and usable free swap."""
    some_us: int | None
    """None where pressure was not known: a zero here would later look like a long stall."""
    full_us: int | None


@value
class Flow:
    """One remembered reading of vmstat."""

    now_ns: int
    swap_in_pages: int
    swap_out_pages: int
    refault_pages: int
    major_faults: int
    io_full_us: int | None = None


@value
class Trail:
    """What is remembered of the past; immutable, so every state is a keyframe."""

    points: tuple[Point, ...] = ()
    flows: tuple[Flow, ...] = ()
    marks: tuple[tuple[int, int], ...] = ()
    """(now_ns, headroom_bytes) once a second for the last minute, since the last death of ours."""


def headroom_bytes(memory: Memory) -> int:
    """Memory and swap that are left, at what they are worth."""
    return memory.available_bytes + memory.swap_usable_bytes


def extend(trail: Trail, event: Sampled) -> Trail:
    """Remember a sample if enough time has passed since the last one remembered."""
    now_ns = event.now_ns
    points = trail.points
    flows = trail.flows
    marks = trail.marks
    pressure = event.pressure
    if not points or now_ns - points[-1].now_ns >= POINT_NS:
        some_us, full_us = (pressure.some_us, pressure.full_us) if pressure else (None, None)
        headroom = headroom_bytes(event.memory)
        points = (*_recent(points, now_ns), Point(now_ns, headroom, some_us, full_us))
        if not marks or now_ns - marks[-1][0] >= MARK_NS:
            marks = (*marks[-MARKS_MAX + 1 :], (now_ns, headroom))
    activity = event.activity
    if activity is not None and (not flows or now_ns - flows[-1].now_ns >= POINT_NS):
        flows = (*_recent(flows, now_ns), _flow(now_ns, activity))
    if points is trail.points and flows is trail.flows:
        return trail
    return Trail(points, flows, marks)


def stall_share(trail: Trail, now_ns: int, window_ns: int, *, full: bool) -> float | None:
    """Share of the window in which tasks waited for memory.

    None before the window is filled, and where pressure is not known at either end of it.
    Where nobody had waited between the oldest point in the window and the one before, the
    share is of all the time since that one, up to the window: points are far apart while
    nothing moves, and a stall that begins then must not count for more than it is.
    """
    points = trail.points
    if not points:
        return None
    last = points[-1]
    index = _index_within(points, now_ns - window_ns)
    first = points[index]
    begins_ns = first.now_ns
    if index and points[index - 1].some_us == first.some_us:
        begins_ns = max(points[index - 1].now_ns, last.now_ns - window_ns)
    span_ns = last.now_ns - begins_ns
    if span_ns < window_ns // 2:
        return None
    then_us, now_us = (first.full_us, last.full_us) if full else (first.some_us, last.some_us)
    if then_us is None or now_us is None:
        return None
    lost_us = now_us - then_us
    return min(1.0, max(0.0, lost_us * 1000 / span_ns))


def refaults_per_s(trail: Trail, now_ns: int, window_ns: int, page_bytes: int) -> float | None:
    """Bytes per second read back soon after having been pushed out."""
    span = _flow_span(trail, now_ns, window_ns)
    if span is None:
        return None
    first, last = span
    pages = last.refault_pages - first.refault_pages
    return pages * page_bytes * SECOND / (last.now_ns - first.now_ns)


def readback_share(trail: Trail, now_ns: int, window_ns: int) -> float | None:
    """Of the traffic between memory and its backing over the window, the share read back.

    A burst that is being swapped out reads back nothing; memory that is too small
    for its users reads back as much as it pushes out. File pages push out for
    free, so a refault of a file page counts as traffic in both directions.
    """
    span = _flow_span(trail, now_ns, window_ns)
    if span is None:
        return None
    first, last = span
    pages_in = last.swap_in_pages - first.swap_in_pages
    pages_out = last.swap_out_pages - first.swap_out_pages
    refaults = max(0, last.refault_pages - first.refault_pages - pages_in)
    moved = pages_in + pages_out + 2 * refaults
    return (pages_in + refaults) / moved if moved > 0 else 0.0


def io_stall_share(trail: Trail, now_ns: int, window_ns: int) -> float | None:
    """Share of the window in which every task waited for a disk.

    Stall without it is reclaim at work: a burst that is being pushed out. Stall with it
    is memory waited for: a thrash. Measured in guests: 0.01 to 0.05 against 0.3 to 0.8.
    """
    span = _flow_span(trail, now_ns, window_ns)
    if span is None or span[0].io_full_us is None or span[1].io_full_us is None:
        return None
    first, last = span
    lost_us = span[1].io_full_us - span[0].io_full_us
    return min(1.0, max(0.0, lost_us * 1000 / (last.now_ns - first.now_ns)))


def falling_per_s(trail: Trail, now_ns: int, headroom_now_bytes: int, window_ns: int) -> float:
    """Bytes per second by which headroom fell over the window; 0.0 when it did not."""
    points = trail.points
    if not points:
        return 0.0
    first = _oldest_within(points, now_ns - window_ns)
    span_ns = now_ns - first.now_ns
    if span_ns < window_ns // 4:
        return 0.0
    return max(0.0, (first.headroom_bytes - headroom_now_bytes) * SECOND / span_ns)


def time_left_ns(trail: Trail, now_ns: int, memory: Memory) -> int | None:
    """Time until memory and swap are gone; None while they are not falling.

    The slower of two paces counts (half a second, two seconds), so that one jump
    is no forecast.
    """
    headroom = headroom_bytes(memory)
    pace = min(
        falling_per_s(trail, now_ns, headroom, SECOND // 2),
        falling_per_s(trail, now_ns, headroom, 2 * SECOND),
    )
    if pace < 1.0:
        return None
    return int(headroom * SECOND / pace)


def surge_left_ns(trail: Trail, now_ns: int, memory: Memory) -> int | None:
    """Time until memory and swap are gone at the fastest pace of the last seconds.

    Once memory is short, reclaim holds the greedy back and the present pace flatters:
    what counts is what they want. None when nothing fell, or no more over the last
    two seconds.
    Cost: one walk over at most 60 points.
    """
    pace = 0.0
    points = trail.points
    if falling_per_s(trail, now_ns, headroom_bytes(memory), 2 * SECOND) <= 0.0:
        return None
    late = len(points)
    for early in range(len(points) - 1, -1, -1):
        first = points[early]
        if now_ns - first.now_ns > SURGE_NS:
            break
        while late - 1 > early and points[late - 1].now_ns - first.now_ns >= 2 * PACE_NS:
            late -= 1
        last = points[late - 1]
        span_ns = last.now_ns - first.now_ns
        if span_ns >= PACE_NS:
            pace = max(pace, (first.headroom_bytes - last.headroom_bytes) * SECOND / span_ns)
    if pace < 1.0:
        return None
    return int(headroom_bytes(memory) * SECOND / pace)


def remainder_share(trail: Trail, now_ns: int, memory: Memory) -> float | None:
    """What is left, as a share of what went within the last minute; None when nothing went.

    How far something will still grow that has grown so far is not known, and a scale that is
    not known has one honest guess: as far again in half of all cases, and half as far again in
    two of three. So below 0.5 it is more than likely that it will not fit, on any machine and
    at any pace; a burst into a swap that is larger than itself stays above 1.
    Cost: one walk over at most 60 marks.
    """
    highest_bytes = max(
        (headroom for at_ns, headroom in trail.marks if now_ns - at_ns <= MARKS_MAX * MARK_NS),
        default=0,
    )
    left_bytes = headroom_bytes(memory)
    if highest_bytes <= left_bytes:
        return None
    return left_bytes / (highest_bytes - left_bytes)


def _flow(now_ns: int, activity: Activity) -> Flow:
    anon = activity.refault_anon_pages
    file = activity.refault_file_pages
    return Flow(
        now_ns,
        activity.swap_in_pages,
        activity.swap_out_pages,
        # Before 5.9 the kernel counted refaults of file pages only: swap-ins stand in for anon.
        (activity.swap_in_pages if anon is None else anon) + (file or 0),
        activity.major_faults,
        activity.io_full_us,
    )


def _flow_span(trail: Trail, now_ns: int, window_ns: int) -> tuple[Flow, Flow] | None:
    flows = trail.flows
    if len(flows) < 2:
        return None
    last = flows[-1]
    first = _oldest_within(flows, now_ns - window_ns)
    if last.now_ns - first.now_ns < window_ns // 2:
        return None
    return first, last


def _recent(points: tuple[Moment, ...], now_ns: int) -> tuple[Moment, ...]:
    # Two points beyond the window stay, so that a full window can always be read.
    if len(points) > 2 and now_ns - points[2].now_ns > TRAIL_NS:
        index = 1
        while index < len(points) - 2 and now_ns - points[index + 1].now_ns > TRAIL_NS:
            index += 1
        points = points[index:]
    return points[-POINTS_MAX + 1 :]


def _oldest_within(points: tuple[Moment, ...], since_ns: int) -> Moment:
    return points[_index_within(points, since_ns)]


def _index_within(points: tuple[Moment, ...], since_ns: int) -> int:
    # Moments are tuples that begin with their time, so a bare time sorts just before its moment.
    index = bisect_left(points, (since_ns,))  # type: ignore[type-var]
    return min(index, len(points) - 1)
