"""Who grew, kept cheaply: three running means per process that was worth a row.

A process is compared with its own past. The short mean (3 s) tells who grows
now, the long one (30 s) who has grown lately; together they answer "who grew
while memory shrank" at the moment of decision, without a history per process.
The slow one (20 min) knows who crept up, when nobody has grown lately. Between
two surveys the means move towards the footprint by the share
``1 - exp(-dt / constant)``.
"""

from __future__ import annotations

from math import exp

from forestall.core.model import ProcessId, Row
from forestall.core.refaults import follow
from forestall.core.units import SECOND
from forestall.core.value import TYPE_CHECKING, replace, value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from forestall.core.model import GroupActivity
    from forestall.core.refaults import GroupRates

SHORT_NS = 3 * SECOND
LONG_NS = 30 * SECOND
SLOW_NS = 20 * 60 * SECOND
NOW_WEIGHT = LONG_NS // SHORT_NS
"""A steady climb stands equally in both terms; one that has stopped keeps the fading one only."""


@value
class Track:
    """What is remembered of one process."""

    short_bytes: float
    long_bytes: float
    slow_bytes: float
    held_bytes: int
    shared_bytes: int | None
    """Of it, shared memory as last looked for; None before the first look."""
    major_faults: int
    fault_rate: float
    """Faults per second that waited for a disk, over about the last 3 s."""


@value
class Census:
    """What is remembered of all processes worth a row, as of one survey."""

    now_ns: int = 0
    tracks: Mapping[ProcessId, Track] = {}
    shmem_short_bytes: float = 0.0
    shmem_long_bytes: float = 0.0
    shmem_bytes: int | None = None
    shmem_slow_bytes: float = 0.0
    groups: Mapping[str, GroupRates] = {}
    """Of the units in which they live, by path."""


@value
class Blame:
    """How far a process answers for the shortage."""

    growth_bytes: int
    """Weighted growth; comparable between processes, not a size."""
    recent_bytes: int
    """Growth over about the last half minute: the number people are shown."""
    drift_bytes: int
    """Growth over about the last twenty minutes."""
    fault_rate: float


def count(
    census: Census,
    now_ns: int,
    rows: tuple[Row, ...],
    shmem_bytes: int | None,
    *,
    shared: bool = True,
    groups: tuple[GroupActivity, ...] = (),
) -> Census:
    """Take a survey into account. Processes without a row are forgotten.

    Args:
        groups: What the units in which they live have waited for.
        shared: Whether the survey looked for holders of shared memory. Where it did
            not, what was last seen stands; nobody is blamed for being looked at.
    """
    span_ns = now_ns - census.now_ns if census.now_ns else 0
    short = 1.0 - exp(-span_ns / SHORT_NS)
    long = 1.0 - exp(-span_ns / LONG_NS)
    slow = 1.0 - exp(-span_ns / SLOW_NS)
    before = census.tracks
    tracks: dict[ProcessId, Track] = {}
    for row in rows:
        track = before.get(row.id)
        if track is None:
            tracks[row.id] = _begin(row, shared=shared, first=not census.now_ns)
            continue
        if shared and track.shared_bytes is None:
            track = _first_look(track, row)
        found = row.held_bytes - row.anon_bytes - row.swap_bytes if shared else track.shared_bytes
        held = row.anon_bytes + row.swap_bytes + (found or 0)
        faults = max(0, row.major_faults - track.major_faults)
        rate = faults * SECOND / span_ns if span_ns > 0 else track.fault_rate
        tracks[row.id] = Track(
            track.short_bytes + (held - track.short_bytes) * short,
            track.long_bytes + (held - track.long_bytes) * long,
            track.slow_bytes + (held - track.slow_bytes) * slow,
            held,
            found,
            row.major_faults,
            track.fault_rate + (rate - track.fault_rate) * short,
        )
    shmem = float(shmem_bytes or 0)
    if census.now_ns:
        shmem_short = census.shmem_short_bytes + (shmem - census.shmem_short_bytes) * short
        shmem_long = census.shmem_long_bytes + (shmem - census.shmem_long_bytes) * long
        shmem_slow = census.shmem_slow_bytes + (shmem - census.shmem_slow_bytes) * slow
    else:
        shmem_short = shmem_long = shmem_slow = shmem
    followed = follow(census.groups, groups, now_ns)
    return Census(now_ns, tracks, shmem_short, shmem_long, shmem_bytes, shmem_slow, followed)


def blame_of(census: Census, process: ProcessId) -> Blame:
    """Say how far a process answers for the shortage; nothing for the unknown."""
    track = census.tracks.get(process)
    if track is None:
        return Blame(0, 0, 0, 0.0)
    recent = max(0.0, track.held_bytes - track.long_bytes)
    now = max(0.0, track.held_bytes - track.short_bytes)
    drift = max(0.0, track.held_bytes - track.slow_bytes)
    return Blame(int(recent + NOW_WEIGHT * now), int(recent), int(drift), track.fault_rate)


def shmem_growth_bytes(census: Census) -> int:
    """Weighted growth of tmpfs and shared memory, comparable to a process's blame."""
    if census.shmem_bytes is None:
        return 0
    recent = max(0.0, census.shmem_bytes - census.shmem_long_bytes)
    now = max(0.0, census.shmem_bytes - census.shmem_short_bytes)
    return int(recent + NOW_WEIGHT * now)


def shmem_drift_bytes(census: Census) -> int:
    """Growth of tmpfs and shared memory over about the last twenty minutes."""
    return int(max(0.0, (census.shmem_bytes or 0) - census.shmem_slow_bytes))


def _begin(row: Row, *, shared: bool, first: bool) -> Track:
    # Young enough that all it holds was taken within a window: all of it is growth.
    # Older and never seen: unknown, and unknown is nobody's fault.
    held = row.held_bytes
    short = 0.0 if row.age_ns < SHORT_NS and not first else float(held)
    long = 0.0 if row.age_ns < LONG_NS else float(held)
    slow = 0.0 if row.age_ns < SLOW_NS else float(held)
    known = held - row.anon_bytes - row.swap_bytes if shared else None
    return Track(short, long, slow, held, known, row.major_faults, 0.0)


def _first_look(track: Track, row: Row) -> Track:
    # What an older process turns out to hold in shared memory it may have held for long.
    found = row.held_bytes - row.anon_bytes - row.swap_bytes
    return replace(
        track,
        short_bytes=track.short_bytes + (0 if row.age_ns < SHORT_NS else found),
        long_bytes=track.long_bytes + (0 if row.age_ns < LONG_NS else found),
        slow_bytes=track.slow_bytes + (0 if row.age_ns < SLOW_NS else found),
    )
