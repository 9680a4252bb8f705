"""Listening to the guard: every event once, what was dropped fetched, hang-ups survived."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forestall.control.errors import ControlError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Stream = Callable[[int], Iterator[tuple[int, dict[str, Any]]]]

FIRST_PAUSE_S = 0.5
PAUSE_S_MAX = 15.0
BARREN_SKIP = 16
"""So many gaps are not asked for after one that was forgotten: the next ones are likely older."""


class Ear:
    """Follows the guard through hang-ups and gaps.

    Args:
        stream: Opens a connection; yields events after a sequence number. It ends when nothing
            came for a while: what the guard dropped last, and that it hangs, shows only to who
            asks again.
        heard: Called with each event.
        reached: Called with True when the guard answers, False when it does not.
        pause: Waits so many seconds; True when it is time to end.
    """

    def __init__(
        self,
        stream: Stream,
        *,
        heard: Callable[[int, dict[str, Any]], None],
        reached: Callable[[bool], None],
        pause: Callable[[float], bool],
    ) -> None:
        self._stream = stream
        self._heard = heard
        self._reached = reached
        self._pause = pause
        self.gaps = 0
        self._skip = 0
        self._since = 0
        self._answered = False

    def follow(self) -> None:
        """Listen until told to end.

        A gap within a connection is asked for on a second one, because the guard
        still keeps what a slow reader was not sent; the first is read on, for it
        may hold what the guard has forgotten. What neither has is passed on as
        the gap it is, for the engine to count.
        """
        pause_s = 0.0
        while not self._pause(pause_s):
            self._answered = False
            try:
                self._follow_once()
                self._answered = True  # And had nothing to say.
                self._reached(True)  # noqa: FBT003 - a port
            except (ControlError, OSError):
                self._since = 0  # Another guard counts anew.
                self._reached(False)  # noqa: FBT003 - a port
            pause_s = min(max(0.0 if self._answered else 2 * pause_s, FIRST_PAUSE_S), PAUSE_S_MAX)

    def _follow_once(self) -> None:
        for sequence, event in self._stream(self._since):
            self._answered = True
            self._reached(True)  # noqa: FBT003 - a port
            if self._since and sequence > self._since + 1:
                self.gaps += 1
                self._fetch(self._since, sequence)
            self._since = sequence
            self._heard(sequence, event)

    def _fetch(self, since: int, until: int) -> None:
        """Ask for what lies between two events, as far as it is still kept."""
        if self._skip:
            self._skip -= 1
            return
        found = False
        try:
            for sequence, event in self._stream(since):
                if sequence >= until:
                    break
                found = True
                self._heard(sequence, event)
        except (ControlError, OSError):
            pass  # The first connection tells what is the matter.
        self._skip = 0 if found else BARREN_SKIP
