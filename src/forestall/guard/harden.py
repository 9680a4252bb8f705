"""What the guard and relief do for their own survival, step by step."""

from __future__ import annotations

from forestall.core.value import TYPE_CHECKING
from forestall.effects import protect
from forestall.kernel import libc

if TYPE_CHECKING:
    from forestall.core.rules import Options
    from forestall.guard.priority import Priority


def harden(options: Options, priority: Priority, *, realtime: bool) -> list[str]:
    """Take every step that is permitted; returns what was not, in words.

    Call after a warm-up: what has been touched by then is locked.
    """
    failures = [
        protect.set_own_oom_score_adj(options.oom_score_adj),
        priority.find(),
        protect.never_wait_for_a_disk(libc.prctl_set_io_flusher),
        protect.run_realtime() if realtime else None,
        protect.lock_memory(libc.mlockall) if options.lock_memory else None,
    ]
    return [failure for failure in failures if failure is not None]
