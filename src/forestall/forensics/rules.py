"""Findings: a table of rules, each from evidence in the log to a cause and a next step.

A rule sees one incident and the whole log it came from, and answers with one finding
or none. It says nothing about what the log does not say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from shlex import quote

from forestall.forensics.badness import footprint_pages
from forestall.forensics.causes import Cause, Finding
from forestall.forensics.measure import (
    all_tasks_kb,
    footprint_kb,
    largest,
    largest_killable,
    pages_kb,
    row,
    size,
    victim_kb,
    victim_row,
    vm_kb,
)
from forestall.forensics.model import Incident
from forestall.forensics.rules_memory import MEMORY_RULES

Rule = Callable[[Incident, Sequence[Incident]], Finding | None]

_RUNTIMES = frozenset({"java", "node", "dotnet", "mono", "beam.smp", "ruby", "MainThread"})
_DATABASES = frozenset(
    {
        "mysqld",
        "mariadbd",
        "postgres",
        "mongod",
        "redis-server",
        "oracle",
        "memcached",
        "clickhouse",
    }
)
_SERVERS = ("httpd", "apache2", "php-fpm", "nginx", "uwsgi", "gunicorn", "puma", "php-cgi")
_MANY = 6
_LOOP = 3
_LOOP_SECONDS = 600.0


def limit_too_small(incident: Incident, _log: Sequence[Incident]) -> Finding | None:
    """A control group stands at its limit."""
    limit, usage = incident.memcg_limit_kb, incident.memcg_usage_kb
    if incident.kind != "memcg" or limit is None or usage is None or usage < limit * 0.97:
        return None
    path = incident.oom_memcg or "the control group"
    failed = f", refused {incident.memcg_failcnt} times" if incident.memcg_failcnt else ""
    return Finding(
        rule="limit-too-small",
        cause=Cause.NO_LIMIT,
        sentence=f"{path} used {size(usage)} of its limit of {size(limit)}{failed}. The machine"
        " itself need not have been short of memory.",
        confidence=0.7,
        advice="Compare the limit with what the service needs at its busiest; raise it, or"
        " give the service a smaller heap or fewer workers.",
        command="systemctl show UNIT -p MemoryMax,MemoryHigh,MemoryPeak",
        evidence=incident.evidence("memcg_usage", "oom_kill"),
    )


def one_process(incident: Incident, _log: Sequence[Incident]) -> Finding | None:
    """One process holds most of what there was."""
    task = largest(incident)
    room = _room(incident)
    held = footprint_kb(incident, task) if task else None
    if task is None or held is None or room is None or held < room * 0.5:
        return None
    cause, advice = _kind_of_program(task.comm or "")
    return Finding(
        rule="one-process",
        cause=cause,
        sentence=f"{task.comm} ({task.pid}) alone held {size(held)} of {size(room)}.",
        confidence=0.6 if held > room * 0.8 else 0.5,
        advice=advice,
        command=f"forestall memory {task.pid}",
        evidence=row(incident, task),
    )


def _kind_of_program(comm: str) -> tuple[Cause, str]:
    if comm in _RUNTIMES:
        return (
            Cause.GARBAGE_COLLECTION,
            "A runtime with its own heap: set the heap's limit well below the memory there is,"
            " leaving room for threads and native buffers, then look for growth between two"
            " heap dumps.",
        )
    if comm in _DATABASES:
        return (
            Cause.BUFFERS,
            "A database: add up its buffers and what each connection may take, and set them"
            " below the memory there is.",
        )
    return (
        Cause.APPLICATION,
        "Watch whether it grows at constant load (a leak) or with its input (too large a job);"
        " give it a limit of its own so that it fails alone.",
    )


def _room(incident: Incident) -> int | None:
    if incident.kind == "memcg":
        return incident.memcg_limit_kb
    if incident.total_ram_kb is None:
        return None
    return incident.total_ram_kb + (incident.swap_total_kb or 0)


def many_alike(incident: Incident, _log: Sequence[Incident]) -> Finding | None:
    """Many processes of one name hold most of it together."""
    groups: dict[str, list[int]] = {}
    for task in incident.tasks:
        if task.comm is not None and footprint_pages(task):
            groups.setdefault(task.comm, []).append(footprint_pages(task))
    comm, pages = max(groups.items(), key=lambda item: sum(item[1]), default=("", []))
    together = sum(pages)
    if len(pages) < _MANY or max(pages) > together * 0.6:
        return None
    room, held = _room(incident), pages_kb(incident, together)
    known = room is not None and held is not None
    if (known and (held or 0) < (room or 0) * 0.4) or (not known and len(pages) * 2 < len(groups)):
        return None
    amount = size(held) if held is not None else f"{together} pages"
    return Finding(
        rule="many-alike",
        cause=Cause.TRAFFIC if comm.startswith(_SERVERS) else Cause.CONCURRENCY,
        sentence=f"{len(pages)} processes called {comm} held up to {amount} together"
        " (shared pages count more than once), no one of them most of it.",
        confidence=0.6,
        advice="Lower the number of workers or parallel jobs, so that all of them at their"
        " largest fit.",
        command=f"ps -C {quote(comm)} -o pid,rss,etime,args --sort=-rss",
        evidence=incident.evidence("table", "head"),
    )


def protected_leaker(incident: Incident, _log: Sequence[Incident]) -> Finding | None:
    """The largest process may not be killed."""
    task = largest(incident)
    eligible = largest_killable(incident)
    held = footprint_kb(incident, task) if task else None
    if task is None or held is None or task.oom_score_adj is None:
        return None
    others = footprint_kb(incident, eligible) if eligible else 0
    if task.oom_score_adj > -900 or held < 2 * (others or 0) or held < 8192:
        return None
    return Finding(
        rule="protected-leaker",
        cause=Cause.NO_LIMIT,
        sentence=f"{task.comm} ({task.pid}) held {size(held)}, more than any other, and was"
        f" protected by oom_score_adj {task.oom_score_adj}: others had to go in its place.",
        confidence=0.85,
        advice="Take the protection off, or put the service under a limit of its own: what is"
        " protected must not grow.",
        command=f"systemctl show $(ps -o unit= -p {task.pid}) -p OOMScoreAdjust,MemoryMax",
        evidence=row(incident, task),
    )


def bystander(incident: Incident, _log: Sequence[Incident]) -> Finding | None:
    """What died held little."""
    freed = victim_kb(incident)
    room = _room(incident)
    task = largest(incident)
    if incident.agent is not None or freed is None or incident.kind in {"sysrq", "no-killable"}:
        return None
    held = footprint_kb(incident, task) if task else None
    mine = victim_row(incident)
    small_beside = held is not None and task is not mine and freed * 4 < held
    small_at_all = freed < (room * 0.01 if room else 1024)
    if not (small_beside or small_at_all) or incident.victim is None:
        return None
    beside = f" while {task.comm} ({task.pid}) held {size(held)}" if small_beside and task else ""
    return Finding(
        rule="bystander",
        cause=Cause.NO_LIMIT,
        sentence=f"The victim {incident.victim.comm} held {size(freed)} only{beside}: its end"
        " could not solve the shortage.",
        confidence=0.8 if small_beside or freed < 1024 else 0.6,
        advice="Do not look for the fault in the victim. See the other findings for where the"
        " memory was, and who was protected.",
        command="forestall scores",
        evidence=incident.evidence("killed", "oom_kill"),
    )


def restart_loop(incident: Incident, log: Sequence[Incident]) -> Finding | None:
    """The same program dies again and again."""
    victim = incident.victim
    if victim is None or victim.comm is None:
        return None
    same = [
        other
        for other in log
        if other.counts and other.victim is not None and other.victim.comm == victim.comm
    ]
    near = [other for other in same if _seconds_between(incident, other) <= _LOOP_SECONDS]
    # systemd's child bears the unit's name in brackets until it runs the unit's program.
    starting = victim.comm.startswith("(") and victim.comm.endswith(")")
    if len(near) < (_LOOP - 1 if starting else _LOOP):
        return None
    marks = [mark for other in near[:4] for mark in other.evidence("killed", "agent")]
    return Finding(
        rule="restart-loop",
        cause=Cause.NO_LIMIT,
        sentence=f"{victim.comm} died {len(near)} times in this log: something starts it again"
        " into the same shortage.",
        confidence=0.75,
        advice="Stop the restarts until the cause is found, then limit how often it may start.",
        command="systemctl show UNIT -p NRestarts,Restart,StartLimitBurst",
        evidence=tuple(marks),
    )


def _seconds_between(one: Incident, other: Incident) -> float:
    if one.uptime_s is None or other.uptime_s is None:
        return 0.0
    return abs(one.uptime_s - other.uptime_s)


def shrinking_victims(incident: Incident, log: Sequence[Incident]) -> Finding | None:
    """Every victim is smaller than the one before, and all of them are small."""
    sizes = [kb for other in log if other.agent is None and (kb := victim_kb(other)) is not None]
    if incident is not log[-1] or len(sizes) < _LOOP:
        return None
    falling = sum(later < earlier for earlier, later in pairwise(sizes))
    if falling < len(sizes) - 2 or sizes[-1] * 4 > sizes[0]:
        return None
    return Finding(
        rule="shrinking-victims",
        cause=Cause.KERNEL_MEMORY,
        sentence=f"The victims shrank from {size(sizes[0])} to {size(sizes[-1])}: the kernel was"
        " killing on the wrong side; the memory is not in these processes.",
        confidence=0.7,
        advice="Look where memory is when processes do not explain it: kernel, tmpfs, huge pages.",
        command="forestall memory",
        evidence=incident.evidence("killed"),
    )


def tiny_processes(incident: Incident, _log: Sequence[Incident]) -> Finding | None:
    """All processes together are small; the memory is the kernel's."""
    ram = incident.total_ram_kb
    together = all_tasks_kb(incident)
    if incident.kind == "memcg" or ram is None or together is None or incident.kind == "sysrq":
        return None
    user = vm_kb(incident, "active_anon", "inactive_anon", "active_file", "inactive_file")
    free = vm_kb(incident, "free")
    slab = vm_kb(incident, "slab_reclaimable", "slab_unreclaimable")
    if user is None or free is None or together > ram * 0.3 or user + free > ram * 0.5:
        return None
    largest_slab = max(incident.slabs, key=lambda one: one.total_kb, default=None)
    named = (
        f" The largest slab cache is {largest_slab.name} with {size(largest_slab.total_kb)}."
        if largest_slab and largest_slab.total_kb > ram * 0.02
        else ""
    )
    return Finding(
        rule="kernel-leak",
        cause=Cause.KERNEL_MEMORY,
        sentence=f"All processes together held at most {size(together)} of {size(ram)}; free"
        f" {size(free)}, slab {size(slab)}: the kernel or a driver holds the rest.{named}",
        confidence=0.85,
        advice="No kill can give this back. Watch slab and vmalloc over time and suspect the"
        " module that grows.",
        command="slabtop -o -s c; grep -E 'Slab|SUnreclaim|Vmalloc|Percpu' /proc/meminfo",
        evidence=incident.evidence("counters", "slabs", "ram"),
    )


RULES: tuple[Rule, ...] = (
    limit_too_small,
    *MEMORY_RULES,
    tiny_processes,
    shrinking_victims,
    protected_leaker,
    one_process,
    many_alike,
    bystander,
    restart_loop,
)


def findings(incident: Incident, log: Sequence[Incident] = ()) -> tuple[Finding, ...]:
    """Apply all rules; the surest finding first."""
    whole = log or (incident,)
    found = [finding for rule in RULES if (finding := rule(incident, whole)) is not None]
    return tuple(sorted(found, key=lambda finding: -finding.confidence))
