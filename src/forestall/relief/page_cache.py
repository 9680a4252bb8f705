"""Dropping the page cache: rarely of use, and only when nobody waits for memory.

MemAvailable counted that cache already, so the number hardly moves, and what is
needed again must be read again. The seed does it at 85 %; here a person or a
setting must ask for it, and a stalled machine is left alone.

Source: Documentation/admin-guide/sysctl/vm.rst drop_caches: clean pages only.
"""

from __future__ import annotations

import os

from forestall.core.units import MIB, SECOND, human_bytes
from forestall.core.value import TYPE_CHECKING
from forestall.kernel import inventory
from forestall.relief.outcome import Done, Plan, Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from forestall.relief.outcome import Outcome
    from forestall.relief.tools import Tools

ACTION = "page-cache"
WORTH_BYTES = 16 * MIB
SYNC_DEADLINE_NS = 10 * SECOND
DROP_DEADLINE_NS = 30 * SECOND
PATH = "/proc/sys/vm/drop_caches"


def plan(tools: Tools) -> Plan | Refusal:
    """Say what dropping the cache would give back, or why it would harm.

    Raises: OSError; KernelError.
    """
    if tools.uid != 0:
        return Refusal(ACTION, "only root may drop the page cache")
    why = tools.not_calm()
    if why:
        return Refusal(ACTION, f"{why}; what is dropped now would be read again at once")
    droppable = droppable_bytes(inventory.meminfo(tools.root))
    if droppable < WORTH_BYTES:
        return Refusal(ACTION, f"only {human_bytes(droppable)} of it could be dropped")
    return Plan(
        ACTION,
        droppable,
        f"would free up to {human_bytes(droppable)} of page cache; nearly all of that counts as "
        "available already, and what is needed again must be read again",
    )


def perform(tools: Tools) -> Outcome:
    """Write out what is dirty, then drop what is clean.

    Raises: OSError; KernelError.
    """
    planned = plan(tools)
    if isinstance(planned, Refusal):
        return planned
    why = tools.watch(tools.errand("sync"), floor_bytes=0, deadline_ns=SYNC_DEADLINE_NS)
    if why:
        return Refusal(ACTION, f"sync was given up: {why}; the disks are busy")
    before = inventory.meminfo(tools.root)
    errand = tools.errand("write", f"{tools.root}{PATH}", "1\n")
    why = tools.watch(errand, floor_bytes=0, deadline_ns=DROP_DEADLINE_NS)
    after = inventory.meminfo(tools.root)
    freed = after["MemFree"] - before["MemFree"]
    if why:
        return Refusal(ACTION, f"{why}; {human_bytes(max(0, freed))} were freed by then")
    status = errand.wait(0)
    if status:
        return Refusal(ACTION, f"the kernel refuses ({os.strerror(status)}): see {PATH}")
    gained = after.get("MemAvailable", 0) - before.get("MemAvailable", 0)
    return Done(
        ACTION,
        max(0, freed),
        f"freed {human_bytes(max(0, freed))} of page cache; "
        f"available memory changed by {human_bytes(gained)}",
    )


def droppable_bytes(table: Mapping[str, int]) -> int:
    """How much of the cache is clean and not mapped by anybody; at most.

    Source: mm/truncate.c invalidate_mapping_pages leaves dirty, mapped and locked pages.
    """
    get = table.get
    held = get("Cached", 0) - get("Shmem", 0) + get("Buffers", 0)
    kept = get("Mapped", 0) + get("Dirty", 0) + get("Writeback", 0) + get("Mlocked", 0)
    return max(0, held - kept)
