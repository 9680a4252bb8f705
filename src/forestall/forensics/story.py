"""An incident told in plain words: what, who asked, who died and why, the cause, what to do.

Text comes out ready for a terminal: whatever the log chose is made visible, never obeyed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from forestall.forensics.badness import UNKILLABLE, Candidate, ranking, total_pages
from forestall.forensics.causes import Finding
from forestall.forensics.escape import visible
from forestall.forensics.measure import pages_kb, size
from forestall.forensics.model import Incident, Victim
from forestall.forensics.rules import findings

_SHOWN = 4

_WHAT = {
    "global": "The machine ran out of memory and the kernel ended a process.",
    "memcg": "A control group reached its memory limit and the kernel ended a process in it.",
    "memcg-or-global": "The kernel ended a process for want of memory; the log does not say"
    " whether the machine's or a control group's.",
    "cpuset": "The memory nodes that a cpuset allows were exhausted.",
    "mempolicy": "The memory node that a policy asks for was exhausted.",
    "sysrq": "A person asked the kernel to end a process (SysRq f); memory need not have been"
    " short.",
    "no-killable": "The machine ran out of memory and there was nothing left to end.",
    "panic_on_oom": "The machine ran out of memory and was set to panic rather than end a"
    " process (vm.panic_on_oom).",
    "userspace-oom": "A guard in user space ended something to keep memory free.",
}


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A heading and what stands under it."""

    heading: str
    lines: tuple[str, ...]


def tell(incident: Incident, log: Sequence[Incident] = ()) -> tuple[Paragraph, ...]:
    """Tell one incident."""
    found = findings(incident, log)
    parts = (
        Paragraph("What happened", _what(incident)),
        Paragraph("Who asked", _asked(incident)),
        Paragraph("Who died", _died(incident)),
        Paragraph("Why it and not another", _choice(incident)),
        Paragraph("The cause", _cause(found)),
        Paragraph("What to do", _advice(found)),
        Paragraph("What the log does not say", _unsaid(incident)),
    )
    return tuple(
        Paragraph(part.heading, tuple(visible(line) for line in part.lines))
        for part in parts
        if part.lines
    )


def headline(incident: Incident) -> str:
    """One line for a list."""
    when = incident.time or (
        f"{incident.uptime_s:.6f} s" if incident.uptime_s is not None else "unknown time"
    )
    by = f" by {incident.agent}" if incident.agent else ""
    more = f" and {len(incident.victims) - 1} more" if len(incident.victims) > 1 else ""
    victim = incident.victim
    if victim is not None:
        who = f"{_name(victim)}{more}"
        held = victim.resident_kb
        who += f", {size(held)} resident" if held is not None else ""
    else:
        who = incident.cgroup or incident.unit or _ending(incident)
    place = incident.oom_memcg if incident.kind == "memcg" else None
    at = f" in {place}" if place else ""
    return visible(f"{when}: {incident.kind}{by}{at}: {who}")


def _ending(incident: Incident) -> str:
    if incident.panic is not None:
        return "panic"
    return "nothing to kill" if incident.no_killable else "the log ends before the victim"


def _name(victim: Victim) -> str:
    return f"{victim.comm or 'unnamed'} ({victim.pid if victim.pid is not None else 'pid unknown'})"


def _what(incident: Incident) -> tuple[str, ...]:
    when = f"At {incident.time}. " if incident.time else ""
    if incident.uptime_s is not None:
        when += f"{incident.uptime_s:.0f} s after the start of the kernel. "
    lines = [when + _WHAT.get(incident.kind, "")]
    if incident.oom_memcg:
        limit = f", limited to {size(incident.memcg_limit_kb)}" if incident.memcg_limit_kb else ""
        lines.append(f"The group at its limit: {incident.oom_memcg}{limit}.")
    if incident.agent is not None:
        target = incident.cgroup or incident.unit
        lines.append(f"It was {incident.agent}" + (f", ending {target}." if target else "."))
        if incident.reason:
            lines.append(f"Its reason: {incident.reason}.")
    if incident.also_by is not None:
        lines.append(
            "The kernel reports the same death: its kill was the one that worked."
            if incident.agent
            else f"{incident.also_by} had tried to end the same process."
        )
    if incident.panic is not None:
        lines.append(f"The kernel panicked: {incident.panic}.")
    if incident.total_ram_kb is not None:
        swap = incident.swap_total_kb
        with_swap = f", {size(swap)} swap ({size(incident.swap_free_kb)} free)" if swap else ""
        lines.append(f"RAM: {size(incident.total_ram_kb)}{with_swap}.")
    if incident.hidden_kills:
        lines.append(f"{incident.hidden_kills} earlier reports were suppressed by rate limiting.")
    return tuple(lines)


def _asked(incident: Incident) -> tuple[str, ...]:
    invoker = incident.invoker
    if invoker is None:
        return ()
    pid = f" ({invoker.pid})" if invoker.pid is not None else ""
    order = incident.order
    if order is not None and order > 0 and incident.page_size_kb:
        amount = f"{size(incident.page_size_kb << min(order, 20))} in one piece"
    else:
        amount = "memory"
    flags = f" ({incident.gfp_flags})" if incident.gfp_flags else ""
    line = f"{invoker.comm}{pid} asked for {amount}{flags}."
    if incident.victim is not None and incident.victim.comm == invoker.comm:
        return (line,)
    return (f"{line} It only happened to ask last; that does not make it the culprit.",)


def _died(incident: Incident) -> tuple[str, ...]:
    lines = []
    for victim in incident.victims[:_SHOWN]:
        held = f": {size(victim.resident_kb)} resident" if victim.resident_kb is not None else ""
        adj = f", oom_score_adj {victim.oom_score_adj}" if victim.oom_score_adj else ""
        lines.append(f"{_name(victim)}{held}{adj}.")
    if len(incident.victims) > _SHOWN:
        lines.append(f"And {len(incident.victims) - _SHOWN} more.")
    if incident.oom_group is not None:
        lines.append(f"All of {incident.oom_group} went together (memory.oom.group).")
    if incident.scored is not None:
        lines.append(
            f"The kernel had scored {incident.scored.comm} ({incident.scored.pid}) and took its"
            " child or leader."
        )
    if incident.task_memcg is not None:
        lines.append(f"It lived in {incident.task_memcg}.")
    return tuple(lines)


def _choice(incident: Incident) -> tuple[str, ...]:
    victim = incident.victim
    if victim is None or not incident.tasks or incident.agent is not None:
        return ()
    order = ranking(incident)
    mine = next((c for c in order if victim.pid in {c.task.pid, c.task.tgid}), None)
    lines = [
        "The kernel adds resident, swapped and page-table pages, and oom_score_adj thousandths"
        + _total(incident)
    ]
    if mine is not None:
        lines.append(_points(incident, mine))
    others = [c for c in order if c is not mine]
    above = [
        c for c in others if mine and mine.points is not None and (c.points or 0) > mine.points
    ]
    lines += [_points(incident, c) for c in (above or [c for c in others if c.points])[:3]]
    if above:
        lines.append(
            "By the table others scored higher: they may have been dying already, the counters"
            " may have lagged, or (before 5.9) rounding made scores equal."
        )
    spared = [c for c in others if c.task.oom_score_adj == UNKILLABLE]
    if spared and mine is not None:
        most = max(spared, key=lambda c: c.footprint_pages)
        if most.footprint_pages > mine.footprint_pages:
            lines.append(_points(incident, most))
    return tuple(lines)


def _total(incident: Incident) -> str:
    total = total_pages(incident)
    return f" of {total} pages." if total is not None else " of a total the log does not give."


def _points(incident: Incident, candidate: Candidate) -> str:
    task = candidate.task
    held = size(pages_kb(incident, candidate.footprint_pages))
    name = f"{task.comm} ({task.pid})"
    if task.oom_score_adj == UNKILLABLE:
        return f"{name}: {held}, never considered (oom_score_adj -1000)."
    parts = f"{task.rss_pages or 0} resident + {task.swapents_pages or 0} swapped"
    tables = (candidate.points or 0) - candidate.footprint_pages - (candidate.adjustment_pages or 0)
    if candidate.points is None:
        return f"{name}: {parts}, oom_score_adj {task.oom_score_adj}: no score can be given."
    adj = f" {candidate.adjustment_pages:+d} for {task.oom_score_adj}" if task.oom_score_adj else ""
    return f"{name}: {parts} {tables:+d} page tables{adj} = {candidate.points} points ({held})."


def _cause(found: Iterable[Finding]) -> tuple[str, ...]:
    lines = []
    for finding in found:
        family = f"{finding.cause.family.value}: {finding.cause.title}"
        lines.append(f"{finding.sentence} [{family}; {finding.confidence:.0%} sure]")
        lines += [f"    line {mark.line}: {mark.text}" for mark in finding.evidence[:2]]
    return tuple(lines)


def _advice(found: Sequence[Finding]) -> tuple[str, ...]:
    return tuple(
        line for finding in found[:3] for line in (finding.advice, f"    $ {finding.command}")
    )


def _unsaid(incident: Incident) -> tuple[str, ...]:
    if not incident.missing or incident.agent is not None:
        return ()
    return ("Not in this log: " + ", ".join(incident.missing) + ".",)
