"""What every cleanup needs: eyes, hands, and when to stop. All of it replaceable in tests.

The machine counts as stalled by what others wait for: an errand that reads
swap back waits for the disk itself, and the kernel counts that as a stall too.
So its own waiting is subtracted, and other control groups are asked by themselves.
"""

from __future__ import annotations

import errno
import os
import select

from forestall.core.sentence import plain
from forestall.core.units import MS, SECOND, human_bytes, human_ns, human_share
from forestall.core.value import TYPE_CHECKING, value
from forestall.kernel import clock
from forestall.kernel.errors import KernelError
from forestall.kernel.sampler import Sampler
from forestall.relief.errand import Errand
from forestall.relief.others import Others, worst

if TYPE_CHECKING:
    from collections.abc import Callable

    from forestall.core.events import Sampled
    from forestall.core.model import Memory
    from forestall.relief.errand import Running

STALL_SHARE_MAX = 0.05
"""More than this, before we begin: the machine needs its memory where it is."""
STALL_SHARE_ABORT = 0.20
SCAN_PAGES_ABORT = 2_000
"""Pages a second that others had to scan themselves to get memory: 8 MiB."""
LOOK_MS = 1_000
WATCH_MS = 100
SWITCH_ON_MS = 30_000


@value
class Strain:
    """How much others suffered between two readings."""

    stall_share: float | None
    """Of the time; None without PSI."""
    scan_pages_per_s: float | None

    def reason(self, *, stall_max: float, scan_max: float) -> str:
        """Say why this is too much; empty when it is not."""
        if self.stall_share is not None and self.stall_share > stall_max:
            return f"tasks waited for memory {human_share(self.stall_share)} of the last moments"
        if self.scan_pages_per_s is not None and self.scan_pages_per_s > scan_max:
            return "processes have to reclaim memory themselves just now"
        if self.stall_share is None and self.scan_pages_per_s is None:
            return "nothing here tells whether the machine is stalled (no PSI, no vmstat)"
        return ""


class Tools:
    """The real ones.

    Args:
        interrupted: Says why to stop, or nothing; asked ten times a second.
    """

    def __init__(  # noqa: PLR0913 - seams are parameters
        self,
        root: str = "/",
        *,
        uid: int | None = None,
        interrupted: Callable[[], str] = str,
        errand: Callable[..., Running] = Errand,
        swapon: Callable[[bytes, int], int] | None = None,
        now_ns: Callable[[], int] = clock.now_ns,
        pause: Callable[[int], object] | None = None,
    ) -> None:
        self.root = root.rstrip("/")
        self.uid = os.geteuid() if uid is None else uid
        self.interrupted = interrupted
        self.errand = errand
        self.swapon = swapon or self._switch_on
        self._now_ns = now_ns
        self._pause = pause or select.poll().poll
        self._sampler = Sampler(root)
        self._others = Others(self.root)

    def close(self) -> None:
        """Close every descriptor."""
        self._sampler.close()

    def sample(self) -> Sampled:
        """Read memory, pressure and activity now.

        Raises: OSError; KernelError.
        """
        return self._sampler.sample(self._now_ns(), with_activity=True)

    def memory(self) -> Memory:
        """Read memory now.

        Raises: OSError; KernelError.
        """
        return self.sample().memory

    def not_calm(self) -> str:
        """Look for a second; say why the machine should be left alone, or nothing."""
        before = self.sample()
        self._pause(LOOK_MS)
        strain = strain_between(before, self.sample())
        return strain.reason(stall_max=STALL_SHARE_MAX, scan_max=0)

    def watch(self, errand: Running, *, floor_bytes: int, deadline_ns: int) -> str:
        """Let an errand run; end it when others suffer.

        Returns: Why it was given up; empty when it came to its own end.
        """
        try:
            why = self._until_it_ends(errand, floor_bytes, deadline_ns)
        finally:
            status = errand.end()
        return why if status is not None else f"{why}; it cannot be stopped at once"

    def _switch_on(self, path: bytes, priority: int) -> int:
        """Switch an area on, from where the machine's own mounts are; returns an errno."""
        errand = self.errand("on", os.fsdecode(path), str(priority))
        status = errand.wait(SWITCH_ON_MS)
        return errno.ETIMEDOUT if status is None and errand.end() is None else status or 0

    def _until_it_ends(self, errand: Running, floor_bytes: int, deadline_ns: int) -> str:
        began = before = self.sample()
        cpu_ns, lost = errand.cpu_ns(), self._others.look()
        while errand.wait(WATCH_MS) is None:
            why = self.interrupted()
            try:
                now = self.sample()
            except (OSError, KernelError) as error:
                return f"memory cannot be read: {error}"
            if now.now_ns - began.now_ns > deadline_ns:
                why = why or f"it was not done within {human_ns(deadline_ns)}"
            if now.memory.available_bytes < floor_bytes:
                left = human_bytes(now.memory.available_bytes)
                why = why or f"memory ran short meanwhile: {left} available"
            if now.now_ns - before.now_ns >= SECOND:
                cpu_now_ns = errand.cpu_ns()
                own_wait_ns = max(0, now.now_ns - before.now_ns - (cpu_now_ns - cpu_ns))
                strain = strain_between(before, now, own_wait_ns=own_wait_ns)
                why = why or strain.reason(stall_max=STALL_SHARE_ABORT, scan_max=SCAN_PAGES_ABORT)
                lost_now = self._others.look()
                share, group = worst(lost, lost_now, now.now_ns - before.now_ns)
                if share > STALL_SHARE_ABORT:
                    shown = human_share(min(1.0, share))
                    why = why or f"{plain(group)} waited for memory {shown} of the last moments"
                before, cpu_ns, lost = now, cpu_now_ns, lost_now
            if why:
                return why
        return ""


def strain_between(before: Sampled, now: Sampled, *, own_wait_ns: int = 0) -> Strain:
    """Say how much others suffered between two samples.

    Args:
        own_wait_ns: What our own errand waited; the kernel counts it as somebody's stall.
    """
    span_ns = max(1 * MS, now.now_ns - before.now_ns)
    stall: float | None = None
    if before.pressure is not None and now.pressure is not None:
        lost_ns = (now.pressure.some_us - before.pressure.some_us) * 1000 - own_wait_ns
        stall = min(1.0, max(0.0, lost_ns / span_ns))
    scans: float | None = None
    if before.activity is not None and now.activity is not None:
        first, last = before.activity.scan_direct_pages, now.activity.scan_direct_pages
        if first is not None and last is not None:
            scans = max(0, last - first) * SECOND / span_ns
    return Strain(stall, scans)
