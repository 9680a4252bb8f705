"""One survey as the guard takes it: what is read along, and for whom it stands aside."""

from __future__ import annotations

from forestall.core.pace import held_up, leisure
from forestall.core.state import Calm
from forestall.core.value import TYPE_CHECKING, replace
from forestall.guard.aside import Aside
from forestall.kernel.clock import now_ns

if TYPE_CHECKING:
    from forestall.core.events import Surveyed
    from forestall.core.state import State
    from forestall.kernel.groups import Groups
    from forestall.kernel.processes import ProcessTable
    from forestall.kernel.sampler import Sampler


def survey(
    state: State,
    table: ProcessTable,
    sampler: Sampler,
    groups: Groups,
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
    aside = Aside(leisure(state, fill_per_s), now_ns=now_ns, sample=sampler.sample)
    surveyed = table.survey(
        now_ns,
        swap_used=memory is not None and memory.swap_used_bytes > 0,
        warm=warm,
        shared=shared,
        holdings=None if calm and spare else sampler.holdings(),
        breathe=aside,
    )
    if warm:
        groups.learn((row.cgroup for row in surveyed.rows if row.cgroup), now_ns())
    return replace(surveyed, paused_ns=aside.paused_ns)
