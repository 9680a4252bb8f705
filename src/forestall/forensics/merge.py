"""Never counted twice: copies of one report folded, claims on one death linked.

The same report comes through two log files, is pasted twice, or is repeated by a
logger. Two killers may claim one death: the kernel's line is the account of the
effective kill, and the agent's says who else tried.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace

from forestall.forensics.model import Incident
from forestall.forensics.times import second_of_hour

_NEAR_LINES = 400
_SAME_SECONDS = 5.0
_FOLDED = tuple(
    field.name
    for field in fields(Incident)
    if field.name
    not in {
        "lines",
        "first_line",
        "repeats",
        "counts",
        "complete",
        "missing",
        "kind",
        "kind_from",
        "source",
    }
)


def identity(incident: Incident) -> tuple[object, ...] | None:
    """Name the decision, where time and victim are exact enough to name it; else None."""
    when = incident.uptime_s if incident.uptime_s is not None else incident.time
    if when is None:
        return None
    victim = incident.victim
    if victim is not None and victim.pid is not None:
        # The uptime of a copy may be that of another of its lines: the victim decides there.
        size = (victim.total_vm_kb, victim.anon_rss_kb)
        if incident.uptime_s is not None or None not in size:
            return (incident.agent, victim.pid, victim.comm, *size)
        return None
    if incident.invoker is None or incident.uptime_s is None:
        return None
    return (incident.uptime_s, incident.invoker.comm, incident.invoker.pid)


def settle(incidents: Iterable[Incident]) -> list[Incident]:
    """Put one log's incidents in its order, fold copies into their first, link double claims."""
    return _link(fold_copies(sorted(incidents, key=lambda one: one.first_line)))


def fold_copies(incidents: Iterable[Incident]) -> list[Incident]:
    """Fold copies of one report, as two log files have them, into the first."""
    kept: dict[tuple[object, ...], int] = {}
    result: list[Incident] = []
    for incident in incidents:
        key = identity(incident)
        at = kept.get(key) if key is not None else None
        if at is not None and _same_moment(result[at], incident):
            result[at] = fold(result[at], incident)
            continue
        if key is not None:
            kept[key] = len(result)
        result.append(incident)
    return result


def _same_moment(one: Incident, other: Incident) -> bool:
    if one.host and other.host and one.host != other.host:
        return False
    if one.uptime_s is not None and other.uptime_s is not None:
        return abs(one.uptime_s - other.uptime_s) < _SAME_SECONDS
    mine, its = (second_of_hour(i.time) if i.time else None for i in (one, other))
    if mine is None or its is None:
        return True
    return min((mine - its) % 3600, (its - mine) % 3600) < _SAME_SECONDS


def fold(first: Incident, copy: Incident) -> Incident:
    """Fill what the first account lacks from its copy."""
    rich, poor = (copy, first) if len(copy.missing) < len(first.missing) else (first, copy)
    filled = {
        name: getattr(poor, name)
        for name in _FOLDED
        if getattr(rich, name) in (None, (), {}) and getattr(poor, name) not in (None, (), {})
    }
    return replace(
        rich,
        **filled,
        first_line=first.first_line,
        source=first.source,
        repeats=first.repeats + copy.repeats + 1,
    )


def _link(incidents: list[Incident]) -> list[Incident]:
    by_pid: dict[int, list[int]] = {}
    for number, incident in enumerate(incidents):
        for victim in incident.victims:
            if victim.pid is not None:
                by_pid.setdefault(victim.pid, []).append(number)
    for numbers in by_pid.values():
        for one in numbers:
            for other in numbers:
                _link_pair(incidents, one, other)
    return incidents


def _link_pair(incidents: list[Incident], one: int, other: int) -> None:
    claim, kernel = incidents[one], incidents[other]
    if claim.agent is None or kernel.agent is not None:
        return
    near = abs(claim.first_line - kernel.first_line) < _NEAR_LINES
    names = {v.comm for v in claim.victims} & {v.comm for v in kernel.victims}
    if near and names:
        incidents[one] = replace(claim, counts=False, also_by="kernel")
        incidents[other] = replace(kernel, also_by=claim.agent)


def on_one_line(read: list[Incident], records: Iterable[Incident]) -> list[Incident]:
    """Put the guard's own records among what was read, by uptime; logs without one stay first."""
    own = list(records)
    if not own:
        return read
    place = {id(incident): number for number, incident in enumerate(read)}
    early = float("-inf")

    def moment(incident: Incident) -> tuple[float, int]:
        uptime = incident.uptime_s if incident.uptime_s is not None else early
        return (uptime, place.get(id(incident), len(read)))

    return _link(fold_copies(sorted([*read, *own], key=moment)))
