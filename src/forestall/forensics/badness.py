"""The kernel's choice of victim, worked out again from the task table.

Source: mm/oom_kill.c oom_badness(): resident pages + swapped pages + page tables, all in
pages, plus oom_score_adj thousandths of what may be used (RAM and swap, or the limit).
Kernels from 2.6.36 to 4.16 took 3 % off for root. Numbers come from the table only; a
row that lacks one has no score, and without a total no adjustment can be added.
"""

from __future__ import annotations

from typing import NamedTuple

from forestall.forensics.model import Incident, Task

UNKILLABLE = -1000


class Candidate(NamedTuple):
    """A task with the points the kernel gave it, as far as the table tells."""

    task: Task
    points: int | None
    """None: never considered (-1000), or a number is missing."""
    footprint_pages: int
    adjustment_pages: int | None


def total_pages(incident: Incident) -> int | None:
    """Give what the adjustment is a thousandth of: the limit, or RAM and swap."""
    page_kb = incident.page_size_kb
    if page_kb is None:
        return None
    if incident.kind == "memcg":
        if incident.memcg_limit_kb is None:
            return None
        return incident.memcg_limit_kb // page_kb
    if incident.ram_pages is None:
        return None
    ram = incident.ram_pages - (incident.reserved_pages or 0)
    return ram + (incident.swap_total_kb or 0) // page_kb


def ranking(incident: Incident) -> list[Candidate]:
    """Rank the tasks of the table as the kernel would, the first to die first."""
    total = total_pages(incident)
    page_bytes = (incident.page_size_kb or 0) * 1024
    rows = [_candidate(task, total, page_bytes) for task in incident.tasks if task.pid != 1]
    return sorted(rows, key=lambda c: (c.points is not None, c.points or 0), reverse=True)


def footprint_pages(task: Task) -> int:
    """Resident and swapped pages of a task."""
    return (task.rss_pages or 0) + (task.swapents_pages or 0)


def _candidate(task: Task, total: int | None, page_bytes: int) -> Candidate:
    footprint = footprint_pages(task)
    adj = task.oom_score_adj or 0
    adjustment = adj * (total // 1000) if total is not None else (0 if adj == 0 else None)
    tables = _table_pages(task, page_bytes)
    known = task.rss_pages is not None and adjustment is not None
    if adj == UNKILLABLE or not known or adjustment is None:
        return Candidate(task, None, footprint, adjustment)
    points = footprint + tables
    if task.nr_ptes is not None and task.uid == 0:
        points -= points * 3 // 100
    return Candidate(task, points + adjustment, footprint, adjustment)


def _table_pages(task: Task, page_bytes: int) -> int:
    if task.pgtables_bytes is not None and page_bytes:
        return task.pgtables_bytes // page_bytes
    return (task.nr_ptes or 0) + (task.nr_pmds or 0)
