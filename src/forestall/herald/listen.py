"""Listening to the guard: every event once, what was dropped fetched, hang-ups survived."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forestall.control.errors import ControlError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Stream = Callable[[int], Iterator[tuple[int, dict[str, Any]]]]

FIRST_PAUSE_S = 0.5
PAUSE_S_MAX = 15.0


class Ear:
    """Follows the guard through hang-ups and gaps.

    Args:
        stream: Opens a connection; yields events after a sequence number.
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
        self._answered = False

    def follow(self) -> None:
        """Listen until told to end.

        A gap within a connection is asked for once more, because the guard still
        keeps what a slow reader was not sent. What it has forgotten by then is
        passed on as the gap it is, for the engine to count.
        """
        pause_s = 0.0
        while not self._pause(pause_s):
            self._answered = False
            try:
                self._follow_once()
            except (ControlError, OSError):
                self._reached(False)  # noqa: FBT003 - a port
            pause_s = min(max(0.0 if self._answered else 2 * pause_s, FIRST_PAUSE_S), PAUSE_S_MAX)

    def _follow_once(self) -> None:
        since, asked_again = 0, False
        while True:
            gap = False
            for sequence, event in self._stream(since):
                self._answered = True
                self._reached(True)  # noqa: FBT003 - a port
                gap = bool(since) and sequence > since + 1 and not asked_again
                if gap:
                    break
                asked_again = False
                since = sequence
                self._heard(sequence, event)
            if not gap:
                return
            self.gaps += 1
            asked_again = True
