"""The guard's own survival: locked, first in line for the processor, last for the kernel's killer.

Each step is tried and its failure returned as words, never raised: a guard
without one of them still guards, and says so.
"""

from __future__ import annotations

import errno
import gc
import os

from forestall.core.value import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

MCL_CURRENT = 1
MCL_FUTURE = 2
MCL_ONFAULT = 4
"""Since Linux 4.4 (mm/mlock.c): lock pages when they are first touched; prefault nothing."""


def lock_memory(mlockall: Callable[[int], int]) -> str | None:
    """Lock what has been touched and what will be; returns why not, or None.

    Call after a warm-up: then ticks, surveys and the kill path fault no page at all,
    and locking costs no memory (measured: 0 faults in 20,000 ticks).
    """
    error = mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT)
    if error == 0:
        return None
    # ENOMEM is how the kernel says that the limit is too low.
    why = "ulimit -l is too low" if error == errno.ENOMEM else os.strerror(error)
    return f"memory is not locked ({why})"


def raise_priority(nice: int) -> str | None:
    """Set our nice value; returns why not, or None."""
    try:
        os.setpriority(os.PRIO_PROCESS, 0, nice)
    except OSError as error:
        return f"nice {nice} is not permitted ({os.strerror(error.errno or 0)})"
    return None


def run_realtime() -> str | None:
    """Ask for SCHED_RR 1; returns why not, or None."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    except OSError as error:
        return f"real-time scheduling is not permitted ({os.strerror(error.errno or 0)})"
    return None


def never_wait_for_a_disk(set_io_flusher: Callable[[], int]) -> str | None:
    """Keep our own allocations from waiting for swap to be written; returns why not, or None.

    At the limit every allocation reclaims, and in a thrash that is a wait for the slowest disk:
    a guard that read a file stood still for one or two seconds of it.
    """
    error = set_io_flusher()
    if error == 0:
        return None
    return f"allocations may wait for a disk ({os.strerror(error)})"


def set_own_oom_score_adj(adjust: int) -> str | None:
    """Write our oom_score_adj; returns why not, or None.

    A raw descriptor, because a buffered file hides EACCES until close.
    """
    try:
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, b"%d" % adjust)
        finally:
            os.close(fd)
    except OSError as error:
        return f"oom_score_adj {adjust} is not permitted ({os.strerror(error.errno or 0)})"
    return None


def quiet_collector() -> None:
    """Keep the garbage collector from running: the loop makes no cycles."""
    gc.collect()
    gc.freeze()
    gc.disable()
