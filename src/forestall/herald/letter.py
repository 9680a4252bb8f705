"""A letter: what one channel sends at once, for one event or for a storm of them."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from forestall.core.units import human_bytes, human_ns, human_share
from forestall.herald.event import INFO, URGENCY_NAMES, Event, clean, read_event

if TYPE_CHECKING:
    from collections.abc import Sequence

TOLD_CHARACTERS_MAX = 240
"""Of each sentence in a summary: or the newest would fall off the end of what a chat takes."""
SHOWN_MAX = 8
"""Sentences written out in a summary; the rest is counted by kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """What is to be sent."""

    shown: tuple[Event, ...]
    """The most urgent events, oldest first; a single one when nothing was folded."""
    count: int
    """Events that this letter stands for."""
    kinds: tuple[tuple[str, int], ...]
    """Kind and how many of it, over all of them."""
    urgency: int
    began_ns: int
    ended_ns: int

    @property
    def urgency_name(self) -> str:
        """Info, warning or error."""
        return URGENCY_NAMES[self.urgency]

    @property
    def last(self) -> Event:
        """The newest of the events shown."""
        return self.shown[-1]

    def to_json(self) -> str:
        """Write the letter, for the spool."""
        return json.dumps(
            {
                "shown": [event.to_dict() for event in self.shown],
                "count": self.count,
                "kinds": self.kinds,
                "urgency": self.urgency,
                "began_ns": self.began_ns,
                "ended_ns": self.ended_ns,
            }
        )


def from_json(text: str) -> Letter:
    """Read a letter back.

    Raises: ValueError when it is none.
    """
    try:
        raw: dict[str, Any] = json.loads(text)
        return Letter(
            shown=tuple(read_event(one.get("sequence", 0), one) for one in raw["shown"]),
            count=int(raw["count"]),
            kinds=tuple((str(kind), int(count)) for kind, count in raw["kinds"]),
            urgency=min(max(int(raw["urgency"]), 0), len(URGENCY_NAMES) - 1),
            began_ns=int(raw["began_ns"]),
            ended_ns=int(raw["ended_ns"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"a letter that cannot be read: {error}") from None


def write(events: Sequence[Event]) -> Letter:
    """Make one letter of at least one event, in the order in which they came."""
    ranked = sorted(range(len(events)), key=lambda place: (-events[place].urgency, -place))
    shown = tuple(events[place] for place in sorted(ranked[:SHOWN_MAX]))
    return Letter(
        shown=shown,
        count=len(events),
        kinds=tuple(sorted(Counter(event.what for event in events).items())),
        urgency=max((event.urgency for event in events), default=INFO),
        began_ns=events[0].time_ns,
        ended_ns=events[-1].time_ns,
    )


def title(letter: Letter) -> str:
    """Write a subject line."""
    event = letter.last
    where = event.host or "this machine"
    if letter.count > 1:
        span_ns = max(0, letter.ended_ns - letter.began_ns)
        return f"forestall: {where}: {letter.count} events in {human_ns(span_ns)}"
    return f"forestall: {where}: {_HEADINGS.get(event.what, event.what)}"


def lines(letter: Letter) -> list[str]:
    """Write the body, a line at a time: what happened, then how memory stands."""
    told = [event.sentence or event.what for event in letter.shown]
    if letter.count > 1:
        kinds = ", ".join(f"{count} {kind}" for kind, count in letter.kinds)
        told = [
            f"{letter.count} events: {kinds}",
            *(clean(one, TOLD_CHARACTERS_MAX) for one in told),
        ]
        if letter.count > len(letter.shown):
            told.append(f"and {letter.count - len(letter.shown)} more")
    return [*told, *facts(letter.last)]


def facts(event: Event) -> list[str]:
    """Write how memory stood at an event; only what is known."""
    found = []
    if event.used_share is not None:
        line = f"memory {human_share(event.used_share)} used"
        if event.available_bytes is not None:
            line += f", {human_bytes(event.available_bytes)} available"
        if event.swap_used_share is not None:
            line += f", swap {human_share(event.swap_used_share)} used"
        found.append(line + (f"; level {event.level}" if event.level else ""))
    if event.time_left_ns is not None:
        found.append(f"time left about {human_ns(event.time_left_ns)}")
    if event.likely_pid is not None:
        frees = event.likely_frees_bytes
        size = f", frees {human_bytes(frees)}" if frees is not None else ""
        found.append(f"next to go: {event.likely_name} ({event.likely_pid}){size}")
    if event.top:
        found.append(
            "largest: "
            + ", ".join(f"{one.name} ({one.pid}) {human_share(one.share)}" for one in event.top)
        )
    return found


_HEADINGS = {
    "level": "memory level changed",
    "critical": "memory is critical",
    "warning": "memory runs low",
    "decision": "a process will be ended",
    "ended": "a process was sent a signal",
    "outcome": "outcome",
    "nobody": "nobody can be ended",
    "futile": "ending a process would not help",
    "stuck": "a process does not go",
    "refused": "a signal was refused",
    "kernel-kill": "the kernel's OOM killer acted",
    "other-kill": "somebody else ended a process",
    "restart-loop": "it comes back and is ended again",
    "blind": "memory cannot be read",
    "went-down": "a sudden stop",
    "lost": "events were lost",
    "silent": "the guard",
    "test": "a test",
    "alert": "a message",
}
