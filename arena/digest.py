"""From a guest's event lines to the figures of one run.

Rule: pure. ``None`` means that the run did not say, never zero.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from math import inf
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from arena.guards import Guard

BEAT_MS = 100.0
LATE_MS = 250.0
"""A beat this much too late is felt; shorter lapses are the emulator's."""
THRASH_SHARE = 0.2

SIGKILL = 9
SIGTERM = 15
LAST_SIGNAL_S = 15.0
"""How long before a death a TERM may lie that caused it."""

SERIES_POINTS = 60

Event = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """A process that died of a signal."""

    role: str
    """Empty for a process that no actor started."""

    program: str
    signal: int
    by: str
    """``guard``, ``kernel``, ``memcg`` (the kernel inside a limited group), another
    program's name, or ``unknown``."""

    at_s: float
    """Since the start of trouble."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleCount:
    """What became of all processes of a role."""

    started: int
    live: int
    killed: int
    failed: int
    finished: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Beats:
    """Latencies of the watched service, in ms."""

    base_p50: float | None = None
    p50: float | None = None
    p99: float | None = None
    on_time_share: float | None = None
    stall: float | None = None
    """The longest time without a finished beat, beyond the beat's own 100 ms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardCost:
    """What the guard itself took, over all its processes."""

    pss_kib: int | None = None
    private_dirty_kib: int | None = None
    cpu_ms: float | None = None
    run_delay_ms: float | None = None
    """Time it was ready to run and had to wait for a CPU."""

    major_faults: int | None = None
    processes: int = 0
    restarted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Everything kept about one run."""

    complete: bool
    panic: str | None = None
    ready_mib: float | None = None
    """MemAvailable when the landscape had settled."""

    gone_s: float | None = None
    """When the last of those whose end was awaited was gone, since the start of trouble."""

    recovered_s: float | None = None
    """When the service beat evenly again for good."""

    thrash_s: float | None = None
    """Beginning of the first second of which a fifth went in waiting for the disk, all of us."""

    first_signal_s: float | None = None
    first_signal_mib: float | None = None
    """MemAvailable about when the guard sent its first signal."""

    lowest_mib: float | None = None
    kernel_kills: int | None = None
    full_avg10: float | None = None
    full_stall_s: float | None = None
    monitor_gap_ms: float | None = None
    trouble_length_s: float | None = None
    beats: Beats = field(default_factory=Beats)
    cost: GuardCost = field(default_factory=GuardCost)
    deaths: tuple[Death, ...] = ()
    roles: Mapping[str, RoleCount] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    series: tuple[tuple[float, float], ...] = ()
    """(seconds since the start of trouble, MemAvailable in MiB), thinned."""


def parse_events(data: bytes) -> list[Event]:
    """Read the lines of the out port; a line cut short by the guest's end is dropped."""
    events: list[Event] = []
    for line in data.splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and isinstance(event.get("ev"), str):
            events.append(event)
    return events


def quantile(values: Sequence[float], share: float) -> float | None:
    """Return the value below which this share lies; None of nothing."""
    if not values:
        return None
    return round(sorted(values)[min(len(values) - 1, int(len(values) * share))], 1)


def _of(events: Iterable[Event], kind: str) -> list[Event]:
    return [event for event in events if event["ev"] == kind]


def digest(events: Sequence[Event], guard: Guard, panic: str | None = None) -> Run:
    """Work out the figures of a run."""
    warnings = tuple(str(event.get("what")) for event in _of(events, "warn"))[:10]
    started = _of(events, "trouble")
    if not started:
        return Run(complete=False, panic=panic, warnings=warnings)
    start = float(started[0]["t"])
    ends = _of(events, "end")
    end: Event = ends[0] if ends else {}
    samples = [event for event in _of(events, "sample") if event["t"] >= start]
    gone = [event["t"] - start for event in _of(events, "gone")]
    deaths = _deaths(events, guard, start, float(end.get("t", inf)))
    beats, recovered = _beats(events, start, end, gone[0] if gone else None)
    first = _first_signal(events, guard, start)
    ready = _of(events, "ready")
    return Run(
        complete=bool(_of(events, "done")) and bool(ends),
        panic=panic,
        ready_mib=_mib(ready[0]["available_kib"]) if ready else None,
        gone_s=round(gone[0], 2) if gone else None,
        recovered_s=recovered,
        thrash_s=_thrash(samples, start),
        first_signal_s=round(first, 3) if first is not None else None,
        first_signal_mib=_available_at(samples, first + start) if first is not None else None,
        lowest_mib=_mib(end["lowest_kib"]) if end else None,
        kernel_kills=end.get("kernel_kills"),
        full_avg10=max((event["full_avg10"] for event in samples), default=None),
        full_stall_s=round((samples[-1]["full_us"] - samples[0]["full_us"]) / 1e6, 2)
        if samples
        else None,
        monitor_gap_ms=round(end["monitor_gap_s"] * 1000, 1) if end else None,
        trouble_length_s=round(end["t"] - start, 1) if end else None,
        beats=beats,
        cost=_cost(events),
        deaths=deaths,
        roles={
            event["role"]: RoleCount(
                **{key: event[key] for key in ("started", "live", "killed", "failed", "finished")}
            )
            for event in _of(events, "role")
        },
        warnings=warnings,
        series=_series(samples, start),
    )


def _thrash(samples: Sequence[Event], start: float) -> float | None:
    """Find when the disk began to hold everybody up (PSI io full)."""
    then: Event | None = None
    for event in samples:
        if then is None:
            then = event
        elif event["t"] - then["t"] >= 1.0:
            waited_s = (event["io_full_us"] - then["io_full_us"]) / 1e6
            if waited_s >= THRASH_SHARE * (event["t"] - then["t"]):
                return round(float(then["t"]) - start, 2)
            then = event
    return None


def without_guard(run: Run) -> Run:
    """Mark a run whose guard never started: it is incomplete, whatever else it shows."""
    return replace(run, complete=False, warnings=("the guard did not start", *run.warnings))


def _mib(kib: float) -> float:
    return round(kib / 1024, 1)


def _available_at(samples: Sequence[Event], moment: float) -> float | None:
    before = [event for event in samples if event["t"] <= moment]
    return _mib(before[-1]["available_kib"]) if before else None


def _series(samples: Sequence[Event], start: float) -> tuple[tuple[float, float], ...]:
    step = max(1, -(-len(samples) // SERIES_POINTS))
    return tuple(
        (round(event["t"] - start, 1), round(event["available_kib"] / 1024, 0))
        for event in samples[::step]
    )


# ---- who died, by whose hand ----


def _guard_pids(events: Sequence[Event]) -> set[int]:
    return {pid for event in _of(events, "guard") for pid in event["pids"]}


def _is_guards(event: Event, guard: Guard, pids: set[int]) -> bool:
    return event["by_pid"] in pids or event["by"] in guard.programs


def _first_signal(events: Sequence[Event], guard: Guard, start: float) -> float | None:
    pids = _guard_pids(events)
    for event in _of(events, "signal"):
        if event["t"] >= start and _is_guards(event, guard, pids):
            return float(event["t"]) - start
    return None


def _deaths(events: Sequence[Event], guard: Guard, start: float, end: float) -> tuple[Death, ...]:
    pids = _guard_pids(events)
    kernel = {event["pid"]: event for event in _of(events, "oom")}
    sent: dict[int, list[Event]] = {}
    for event in _of(events, "signal"):
        sent.setdefault(event["pid"], []).append(event)
    deaths = []
    for event in _of(events, "exit"):
        if not start <= event["t"] <= end:
            continue
        signal, cause = event["signal"], _cause(event, sent.get(event["pid"], []))
        if not signal and cause is None:
            continue  # it ended by itself
        if event["pid"] in kernel:
            by = "memcg" if kernel[event["pid"]]["memcg"] else "kernel"
        elif cause is None:
            by = "unknown"
        else:
            by = "guard" if _is_guards(cause, guard, pids) else str(cause["by"])
        deaths.append(
            Death(
                role=event["role"],
                program=event["comm"],
                signal=signal or SIGTERM,
                by=by,
                at_s=round(event["t"] - start, 2),
            )
        )
    return tuple(deaths)


def _cause(exit_event: Event, sent: Sequence[Event]) -> Event | None:
    """Find the signal that an exit answers: the same one, or a TERM that led to an orderly end."""
    signal = exit_event["signal"] or SIGTERM
    for event in reversed(sent):
        # The two clocks of connector and trace agree to the millisecond.
        age = exit_event["t"] - event["t"]
        if event["signal"] == signal and -0.01 <= age <= LAST_SIGNAL_S:
            return event
    return None


# ---- the service's beats ----


def _list(events: Sequence[Event], kind: str) -> list[tuple[float, float]]:
    """Return (due in s, latency in ms) of every finished beat."""
    return [
        (due / 1000, latency / 1000)
        for event in _of(events, kind)
        for due, latency in event["list"]
    ]


def _beats(
    events: Sequence[Event], start: float, end: Event, gone: float | None
) -> tuple[Beats, float | None]:
    beats, spawns = _list(events, "beats"), _list(events, "spawns")
    if not beats or not end:
        return Beats(), None
    base = [latency for due, latency in beats if due < start]
    until = start + gone if gone is not None else end["t"]
    during = [latency for due, latency in beats if start <= due <= until]
    stalls = _stalls(beats, spawns, start, end)
    slots = (end["t"] - start) * 1000 / BEAT_MS
    on_time = sum(1 for due, latency in beats if due >= start and latency <= BEAT_MS)
    late_ends = [moment - start for moment, stall in stalls if stall >= LATE_MS]
    return (
        Beats(
            base_p50=quantile(base, 0.5),
            p50=quantile(during, 0.5),
            p99=quantile(during, 0.99),
            on_time_share=round(min(1.0, on_time / slots), 3) if slots > 0 else None,
            stall=round(max((stall for _, stall in stalls), default=0.0), 0),
        ),
        _recovered(late_ends, gone, end["t"] - start),
    )


def _stalls(
    beats: Sequence[tuple[float, float]],
    spawns: Sequence[tuple[float, float]],
    start: float,
    end: Event,
) -> list[tuple[float, float]]:
    """Return (when it ended, ms beyond the beat) of every lapse, the unfinished one included."""
    done = [due + latency / 1000 for due, latency in beats]
    stalls = [
        (later, max(0.0, (later - earlier) * 1000 - BEAT_MS))
        for earlier, later in pairwise(done)
        if later >= start
    ]
    stalls += [
        (began + length / 1000, max(0.0, length - BEAT_MS))
        for began, length in spawns
        if began + length / 1000 >= start
    ]
    # A service that died or hangs never finishes: the silence until the end counts.
    silence = (end["t"] - done[-1]) * 1000 - BEAT_MS
    stalls.append((end["t"], max(0.0, silence)))
    return stalls


def _recovered(late_ends: Sequence[float], gone: float | None, length: float) -> float | None:
    last_late = max(late_ends, default=0.0)
    if last_late >= length - 0.05:
        return None
    return round(max(last_late, gone or 0.0), 2)


def _cost(events: Sequence[Event]) -> GuardCost:
    by_when = {event["when"]: event for event in _of(events, "guard")}
    before, after = by_when.get("before"), by_when.get("after")
    if before is None or after is None or not after["pids"]:
        return GuardCost(restarted=bool(before and before["pids"] and after is not None))
    same = set(before["pids"]) <= set(after["pids"])
    return GuardCost(
        pss_kib=after["pss_kib"],
        private_dirty_kib=after["private_dirty_kib"],
        cpu_ms=round((after["cpu_us"] - before["cpu_us"]) / 1000, 1),
        run_delay_ms=round((after["run_delay_us"] - before["run_delay_us"]) / 1000, 1)
        if same
        else None,
        major_faults=after["major_faults"] - before["major_faults"] if same else None,
        processes=len(after["pids"]),
        restarted=not same,
    )


# ---- to and from JSON ----


def to_json(run: Run) -> dict[str, object]:
    """Return plain values for a JSON file."""
    return asdict(run)


def from_json(values: Mapping[str, Any]) -> Run:
    """Rebuild a run from :func:`to_json`'s values."""
    words = dict(values)
    words["beats"] = Beats(**words["beats"])
    words["cost"] = GuardCost(**words["cost"])
    words["deaths"] = tuple(Death(**death) for death in words["deaths"])
    words["roles"] = {name: RoleCount(**count) for name, count in words["roles"].items()}
    words["warnings"] = tuple(words["warnings"])
    words["series"] = tuple((point[0], point[1]) for point in words["series"])
    return Run(**words)
