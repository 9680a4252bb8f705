"""The guard goes before everybody on the processors while there is no time to lose.

Rule: ``core.pace.urgent`` says when. Else it goes with the others; it sleeps nearly
always, so that the scheduler wakes it soon anyway.
"""

from __future__ import annotations

from forestall.core.value import TYPE_CHECKING
from forestall.effects.protect import raise_priority

if TYPE_CHECKING:
    from collections.abc import Callable

WITH_THE_OTHERS = 0


class Priority:
    """Our nice value; ``settle`` costs a system call when it changes, and else nothing.

    Args:
        hurried: The nice value for when there is no time. Not below ``WITH_THE_OTHERS``:
            it is kept all the time.
        set_nice: Returns why not, or None.
    """

    def __init__(
        self, hurried: int, *, set_nice: Callable[[int], str | None] = raise_priority
    ) -> None:
        self._hurried = hurried
        self._set_nice = set_nice
        self._now = hurried
        self._may_change = False

    def find(self) -> str | None:
        """Find out what we are granted and go with the others; returns why not, or None."""
        relaxed = max(self._hurried, WITH_THE_OTHERS)
        # From there, because a service manager may have given us what we may not give ourselves.
        self._set_nice(relaxed)
        refusal = self._set_nice(self._hurried)
        self._may_change = refusal is None and self._hurried < relaxed
        self.settle(urgent=False)
        return refusal

    def settle(self, *, urgent: bool) -> None:
        """Go before everybody, or with them."""
        wanted = self._hurried if urgent else WITH_THE_OTHERS
        if self._may_change and wanted != self._now:
            self._now = wanted
            self._set_nice(wanted)
