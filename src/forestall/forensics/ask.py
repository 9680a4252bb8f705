"""Which incident a person means by a name, a pid or a unit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from forestall.forensics.model import Incident
from forestall.forensics.shapes import COMM_CHARS


def about(incidents: Iterable[Incident], asked: str | None) -> list[Incident]:
    """Keep the incidents that ended what was asked for; all of them for None."""
    if asked is None:
        return list(incidents)
    return [incident for incident in incidents if _is_about(incident, asked.strip())]


def survived(incidents: Sequence[Incident], asked: str) -> Incident | None:
    """Find the last report whose task table has the name or pid: it was there, and lived on."""
    for incident in reversed(incidents):
        for task in incident.tasks:
            if asked == str(task.pid) or _same_name(task.comm, asked):
                return incident
    return None


def _is_about(incident: Incident, asked: str) -> bool:
    if asked.isdigit() and any(victim.pid == int(asked[:18]) for victim in incident.victims):
        return True
    if any(_same_name(victim.comm, asked) for victim in incident.victims):
        return True
    paths = (incident.task_memcg, incident.oom_memcg, incident.oom_group, incident.cgroup)
    units = {part for path in paths if path for part in path.split("/")}
    if incident.unit is not None:
        units.add(incident.unit)
    return asked in units or f"{asked}.service" in units or f"{asked}.scope" in units


def _same_name(comm: str | None, asked: str) -> bool:
    # The kernel keeps 15 bytes of a name; people give the whole.
    return comm is not None and comm in {asked, asked[:COMM_CHARS]}
