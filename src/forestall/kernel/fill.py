"""How fast memory can be used up here: the kernel's own pace at handing out pages.

Nobody takes memory faster than the kernel clears it, on all processors at once.
On a workstation that is more than anybody could watch for; on a small board, or
under emulation, it is a hundredth of that, and ticks of a millisecond there
would take the processor from those they are for.
"""

from __future__ import annotations

import os

from forestall.core.units import GIB, MIB, SECOND
from forestall.core.value import TYPE_CHECKING
from forestall.kernel import clock, libc

if TYPE_CHECKING:
    from collections.abc import Callable

TRY_BYTES = 4 * MIB
TRIES = 4
"""The best counts: the first has page tables to make, and any may be interrupted."""
MARGIN = 4
"""A clock that is slow now, a host that is busy now, pages that are larger than ours."""
LEAST_PER_S = 1 * GIB


def fastest_per_s(
    most_per_s: int, *, cpus: int | None = None, populate_ns: Callable[[], int | None] | None = None
) -> int:
    """Estimate from above how many bytes this machine can use up in a second.

    Cost: 5 ms on a workstation, 0.2 s under emulation; 4 MiB for that long.

    Args:
        most_per_s: More is never answered, nor less where it cannot be measured.
        cpus: How many processors; absent: those online.
        populate_ns: Takes TRY_BYTES and says how long that took; absent: the kernel's.
    """
    best_ns = (populate_ns or _populate_ns)()
    if best_ns is None:
        return most_per_s
    cpus = cpus or os.cpu_count() or 1
    found = MARGIN * cpus * TRY_BYTES * SECOND // max(1, best_ns)
    return min(most_per_s, max(LEAST_PER_S, found))


def _populate_ns() -> int | None:
    address = libc.map_memory(TRY_BYTES)
    if address is None:
        return None
    best_ns = None
    # Where huge pages are to be had a hog has them too.
    libc.advise(address, TRY_BYTES, libc.MADV_HUGEPAGE)
    for _ in range(TRIES):
        began_ns = clock.now_ns()
        if libc.advise(address, TRY_BYTES, libc.MADV_POPULATE_WRITE):
            best_ns = None
            break
        took_ns = clock.now_ns() - began_ns
        best_ns = took_ns if best_ns is None else min(best_ns, took_ns)
        libc.advise(address, TRY_BYTES, libc.MADV_DONTNEED)
    libc.unmap_memory(address, TRY_BYTES)
    return best_ns
