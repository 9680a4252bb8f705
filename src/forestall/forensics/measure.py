"""Sums and shares over one incident that several rules ask for."""

from __future__ import annotations

from forestall.core.units import KIB, human_bytes
from forestall.forensics.badness import UNKILLABLE, footprint_pages
from forestall.forensics.model import Evidence, Incident, Task


def size(size_kb: int | None) -> str:
    """Write a size in kB for people."""
    return "an unknown amount" if size_kb is None else human_bytes(size_kb * KIB)


def pages_kb(incident: Incident, pages: int | None) -> int | None:
    """Turn pages into kB where the page size is known."""
    if pages is None or incident.page_size_kb is None:
        return None
    return pages * incident.page_size_kb


def vm_kb(incident: Incident, *names: str) -> int | None:
    """Add up counters of the Mem-Info block, in kB; None when any is absent."""
    pages = [incident.vm_pages.get(name) for name in names]
    known = [count for count in pages if count is not None]
    return pages_kb(incident, sum(known)) if len(known) == len(pages) else None


def room_kb(incident: Incident) -> int | None:
    """What there was to use: the limit of a control group, else the machine's RAM."""
    return incident.memcg_limit_kb if incident.kind == "memcg" else incident.total_ram_kb


def footprint_kb(incident: Incident, task: Task) -> int | None:
    """Resident and swapped memory of a task."""
    return pages_kb(incident, footprint_pages(task))


def largest(incident: Incident) -> Task | None:
    """The task that held most, killable or not."""
    return max(incident.tasks, key=footprint_pages, default=None)


def largest_killable(incident: Incident) -> Task | None:
    """The task that held most among those the kernel may take."""
    eligible = [t for t in incident.tasks if t.oom_score_adj != UNKILLABLE and t.pid != 1]
    return max(eligible, key=footprint_pages, default=None)


def all_tasks_kb(incident: Incident) -> int | None:
    """Resident memory of all tasks; shared pages count many times, so it is an upper bound."""
    if not incident.tasks or incident.tasks_lost:
        return None
    return pages_kb(incident, sum(task.rss_pages or 0 for task in incident.tasks))


def row(incident: Incident, task: Task) -> tuple[Evidence, ...]:
    """The table's row as evidence."""
    if task.line is None:
        return ()
    held = size(footprint_kb(incident, task))
    text = f"[{task.pid}] {task.comm}: {held} in RAM and swap, oom_score_adj {task.oom_score_adj}"
    return (Evidence(line=task.line, text=text),)


def victim_row(incident: Incident) -> Task | None:
    """The first victim's row in the table."""
    victim = incident.victim
    if victim is None:
        return None
    for task in incident.tasks:
        if victim.pid in {task.pid, task.tgid}:
            return task
    return None


def victim_kb(incident: Incident) -> int | None:
    """What ending the first victim could give back, in RAM and swap."""
    task = victim_row(incident)
    if task is not None:
        held = footprint_kb(incident, task)
        if held is not None:
            return held
    return incident.victim.resident_kb if incident.victim else None
