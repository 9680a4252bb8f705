"""A long survey stands aside for others: the guard goes before everybody, but not all the time.

A survey takes 2 ms on a workstation, 100 ms with ten thousand processes and as
long on an emulated or throttled machine: a service that shared the processor
with it stood still for 0.2 s, on a machine that was busy and healthy.

Rule: only while there is time (``core.pace.leisure``). Memory is looked at
after each pause, and when it moves the survey hurries to its end.
"""

from __future__ import annotations

from forestall.core.pace import ASIDE_AFTER_NS, ASIDE_NS, nothing_new
from forestall.core.units import MS
from forestall.core.value import TYPE_CHECKING
from forestall.kernel.wakeups import pause_ms

if TYPE_CHECKING:
    from collections.abc import Callable

    from forestall.core.events import Sampled
    from forestall.core.pace import Rest


class Aside:
    """Called every now and then by who works for long.

    Args:
        rest: What must hold; None: never stand aside.
        now_ns: The clock.
        sample: Looks whether it does, ``Sampler.sample``.
        pause: Sleeps for milliseconds.
    """

    def __init__(
        self,
        rest: Rest | None,
        *,
        now_ns: Callable[[], int],
        sample: Callable[[int, bool], Sampled],
        pause: Callable[[int], object] = pause_ms,
    ) -> None:
        self._rest = rest
        self._now_ns = now_ns
        self._sample = sample
        self._pause = pause
        self._since_ns = now_ns()
        self.paused_ns = 0

    def __call__(self) -> None:
        """Stand aside for a moment, if it is time.

        Raises: OSError; KernelError when memory cannot be read.
        """
        rest = self._rest
        if rest is None:
            return
        now_ns = self._now_ns()
        if now_ns - self._since_ns < ASIDE_AFTER_NS:
            return
        self._pause(ASIDE_NS // MS)
        self._since_ns = self._now_ns()
        self.paused_ns += self._since_ns - now_ns
        seen = self._sample(self._since_ns, False)  # noqa: FBT003 - a port
        if self._since_ns >= rest.until_ns or not nothing_new(rest, seen):
            self._rest = None
