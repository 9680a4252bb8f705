"""What the guard says, and to whom: the journal or a terminal, and who listens at the socket.

Rule: it reads the state and changes nothing in it; and it waits for nobody.
"""

from __future__ import annotations

import sys

from forestall import __version__
from forestall.core.events import Tell
from forestall.core.units import SECOND, human_bytes
from forestall.core.value import TYPE_CHECKING
from forestall.guard.glance import columns
from forestall.guard.telling import describe, in_dry_run, live_line
from forestall.kernel.clock import now_ns, wall_ns

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from forestall.core.rules import Options
    from forestall.core.state import State
    from forestall.guard.journal import Speaker

LINE_EVERY_NS = 1 * SECOND


class Voice:
    """Tells events, and keeps count of them.

    Args:
        speaker: Writes to the journal, or plain lines.
        state: How things stand now.
        publish: Hands an event to the control socket; returns its sequence number.
        foreground: A person is watching: there is a live line.
        dry_run: Nothing is done, and each event says so.
    """

    def __init__(
        self,
        speaker: Speaker,
        *,
        state: Callable[[], State],
        publish: Callable[[dict[str, Any]], int],
        foreground: bool,
        dry_run: bool,
    ) -> None:
        self._speaker = speaker
        self._state = state
        self._publish = publish
        self._foreground = foreground
        self._dry_run = dry_run
        self._run_name = f"{wall_ns():x}"
        self._sequence = 0
        self._counts: dict[str, int] = {}
        self._line_ns = 0
        self._lacks: list[str] = []

    def tell(self, tell: Tell, moment_ns: int) -> None:
        """Tell an event everywhere."""
        if self._dry_run:
            tell = in_dry_run(tell)
        self._counts[tell.what] = self._counts.get(tell.what, 0) + 1
        event = describe(
            tell, self._state(), run=self._run_name, wall_ns=wall_ns(), moment_ns=moment_ns
        )
        self._sequence = self._publish(event)
        if self._foreground and self._line_ns:
            self.clear()
        self._speaker.say(tell, self._sequence)

    def say(self, what: str, sentence: str) -> None:
        """Tell something of the guard's own."""
        self.tell(Tell(what, sentence, self._state().level), now_ns())

    def lack(self, sentence: str) -> None:
        """Note what the guard would need and does not have; told once it has started."""
        self._lacks.append(sentence)

    def announce(self, options: Options) -> str:
        """Say that the guard is ready, what it lacks, and who would go; returns its mode."""
        state = self._state()
        memory, prospect = state.memory, state.prospect
        size = human_bytes(memory.total_bytes) if memory else "unknown memory"
        swap = human_bytes(memory.swap_total_bytes) if memory else "unknown"
        mode = "dry run, nobody is touched" if options.dry_run else "guarding"
        if options.only_uid is not None:
            mode += f", processes of uid {options.only_uid} only"
        self.say("start", f"forestall {__version__}: {mode}; {size} of memory, {swap} of swap")
        for lack in self._lacks:
            self.say("degraded", lack)
        if self._foreground and prospect is not None:
            self._speaker.line(f"forestall: if somebody had to go now: {prospect.why}\n")
        return mode

    def live(self, moment_ns: int) -> None:
        """Write the live line anew, if a person is watching and it is time."""
        if not self._foreground or moment_ns - self._line_ns < LINE_EVERY_NS:
            return
        self._line_ns = moment_ns
        state = self._state()
        if state.memory is None or not sys.stderr.isatty():
            return
        # Without wrapping, for a name may have characters two columns wide.
        text = live_line(state, columns(sys.stderr.fileno()))
        self._speaker.line(f"\r\x1b[K\x1b[?7l{text}\x1b[?7h")

    def clear(self) -> None:
        """Take the live line away."""
        if self._foreground and sys.stderr.isatty():
            self._speaker.line("\r\x1b[K")

    def facts(self) -> dict[str, Any]:
        """What status tells of it."""
        return {
            "log_dropped": self._speaker.dropped,
            "events": dict(self._counts),
            "lacks": list(self._lacks),
            "sequence": self._sequence,
        }
