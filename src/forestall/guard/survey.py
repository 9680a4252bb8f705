"""One survey as the guard takes it: what is read along, and for whom it stands aside."""

from __future__ import annotations

import os

from forestall.core.families import application_of
from forestall.core.pace import held_up, leisure
from forestall.core.state import Calm
from forestall.core.value import TYPE_CHECKING, replace, value
from forestall.guard.aside import Aside
from forestall.kernel.clock import now_ns
from forestall.kernel.group_activity import GroupActivities
from forestall.kernel.groups import Groups

if TYPE_CHECKING:
    from forestall.core.events import Surveyed
    from forestall.core.model import Row
    from forestall.core.state import State
    from forestall.kernel.processes import ProcessTable
    from forestall.kernel.sampler import Sampler


@value
class Readers:
    """What a survey reads with, beside the process table."""

    sampler: Sampler
    groups: Groups
    activities: GroupActivities


def readers_of(sampler: Sampler, cgroup_root: str) -> Readers:
    """Make what a survey reads with; the root is empty where there is no v2 hierarchy."""
    return Readers(
        sampler,
        Groups(cgroup_root, pread=os.pread),
        GroupActivities(cgroup_root, pread=os.pread),
    )


def survey(
    state: State,
    table: ProcessTable,
    readers: Readers,
    *,
    shared: bool,
    fill_per_s: int,
) -> Surveyed:
    """Read the process table, and in calm what would be too dear later.

    Args:
        shared: Also find who holds shared memory.
        fill_per_s: Bytes that this machine can use up in a second at most.

    Raises: OSError; KernelError.
    """
    memory = state.memory
    calm, spare = isinstance(state.hunt, Calm), held_up(state)
    warm = calm and not spare
    aside = Aside(leisure(state, fill_per_s), now_ns=now_ns, sample=readers.sampler.sample)
    surveyed = table.survey(
        now_ns,
        swap_used=memory is not None and memory.swap_used_bytes > 0,
        warm=warm,
        shared=shared,
        holdings=None if calm and spare else readers.sampler.holdings(),
        breathe=aside,
    )
    if warm:
        readers.groups.learn((row.cgroup for row in surveyed.rows if row.cgroup), now_ns())
        readers.activities.learn(_units(surveyed.rows))
    return replace(
        surveyed, paused_ns=aside.paused_ns, groups=readers.activities.read(with_refaults=warm)
    )


def _units(rows: tuple[Row, ...]) -> list[str]:
    """List the applications that hold memory, the largest first."""
    held: dict[str, int] = {}
    for row in rows:
        path = application_of(row.cgroup)
        if path:
            held[path] = held.get(path, 0) + row.footprint_bytes
    return sorted(held, key=lambda path: (held[path], path), reverse=True)
