"""The other process: relief, forked from the guard while memory is plentiful."""

from __future__ import annotations

from forestall.core.value import TYPE_CHECKING
from forestall.guard.harden import harden
from forestall.guard.priority import Priority
from forestall.kernel import libc
from forestall.relief.serve import Relief

if TYPE_CHECKING:
    import socket

    from forestall.core.rules import Options


def serve(end: socket.socket, options: Options) -> None:
    """Be relief until the guard is gone.

    Args:
        end: Our end of the socket; blocking.
    """
    libc.prctl_set_name(b"forestall-relief")
    priority = Priority(options.nice)
    # Refusals are told by the guard's own.
    harden(options, priority, realtime=False)
    Relief(
        end,
        mrelease=libc.process_mrelease,
        record_dir=options.record_dir,
        record_bytes_max=options.record_disk_bytes,
        hurry=priority.settle,
    ).run()
