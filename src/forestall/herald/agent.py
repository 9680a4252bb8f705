"""The agent of one session: runs as its user, so its bus lets it in, and shows notes.

One note at a time is kept: the newer replaces it, and it is withdrawn when
memory is normal again. Rule: without a desktop the agent waits; it never ends.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Protocol

from forestall.control.client import Client
from forestall.core.units import SECOND
from forestall.herald.channels.bus import Notes
from forestall.herald.event import WARNING, read_event
from forestall.herald.letter import write
from forestall.herald.listen import Ear
from forestall.herald.render import note
from forestall.kernel.clock import now_ns, wall_ns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from forestall.herald.event import Event

FRESH_NS = 10 * SECOND
"""What is older was told to those who were there."""
REPEAT_NS = 5 * SECOND
"""A note is not replaced sooner, unless by something more urgent."""


class Desktop(Protocol):
    """Where notes are shown."""

    def show(self, summary: str, body: str, *, urgency: int, replaces: int = 0) -> int:
        """Show a note and return its number."""

    def withdraw(self, number: int) -> None:
        """Take a note away."""

    def close(self) -> None:
        """Leave."""


class Agent:
    """Turns events into notes.

    Args:
        open_desktop: Connects to the session's desktop; raises OSError.
        say: Told why a note could not be shown, once per failure in a row.
    """

    def __init__(self, open_desktop: Callable[[], Desktop], say: Callable[[str], None]) -> None:
        self._open = open_desktop
        self._say = say
        self._desktop: Desktop | None = None
        self._number = 0
        self._urgency = -1
        self._shown_ns = -REPEAT_NS
        self._failing = False
        self.shown = 0
        self.failed = 0
        self.skipped = 0

    def take(self, event: Event, now_ns: int, wall_ns: int) -> None:
        """Show an event, or withdraw what it makes untrue."""
        if wall_ns - event.time_ns > FRESH_NS:
            return
        if event.what == "level" and event.level == "normal":
            self._withdraw()
            return
        if event.urgency < WARNING:
            return
        if now_ns - self._shown_ns < REPEAT_NS and event.urgency <= self._urgency:
            self.skipped += 1
            return
        self._show(event, now_ns)

    def _show(self, event: Event, now_ns: int) -> None:
        summary, body = note(write([event]))

        def show(desktop: Desktop) -> int:
            return desktop.show(summary, body, urgency=event.urgency, replaces=self._number)

        number = self._try(show)
        if number is None:
            self.failed += 1
            return
        self._number, self._urgency, self._shown_ns = number, event.urgency, now_ns
        self.shown += 1

    def _withdraw(self) -> None:
        number, self._number, self._urgency = self._number, 0, -1
        if number:
            self._try(lambda desktop: desktop.withdraw(number))

    def _try(self, act: Callable[[Desktop], Any]) -> Any:  # noqa: ANN401 - what act returns
        try:
            if self._desktop is None:
                self._desktop = self._open()
            done = act(self._desktop)
        except OSError as error:
            # A desktop that was restarted has another bus, or forgot our numbers.
            if self._desktop is not None:
                self._desktop.close()
            self._desktop, self._number = None, 0
            if not self._failing:
                self._say(f"no note could be shown: {error}")
            self._failing = True
            return None
        self._failing = False
        return done


def run(socket_path: str, bus: str, say: Callable[[str], None]) -> None:
    """Show notes until interrupted.

    Raises: MissingPart when jeepney is not installed.
    """
    # An agent that cannot speak at all should say so at the start.
    agent = Agent(lambda: Notes(bus), say)
    try:
        Notes(bus).close()
    except OSError as error:
        say(f"{error}; waiting for it")

    def stream(since: int) -> Iterator[tuple[int, dict[str, Any]]]:
        with Client(socket_path) as guard:
            yield from guard.monitor(since=since)

    Ear(
        stream,
        heard=lambda sequence, raw: agent.take(read_event(sequence, raw), now_ns(), wall_ns()),
        reached=lambda _answers: None,
        pause=threading.Event().wait,
    ).follow()
