"""The recorder's half in the guard: a ring in memory, written out after the episode.

Each entry keeps the state before its event. States are immutable and share
what did not change, so this costs a reference; it makes every entry a keyframe,
and a record that lost its beginning still replays byte for byte from its first
line on.

Rule: nothing is encoded, and no file touched, while anything is being decided.
"""

from __future__ import annotations

import json
from collections import deque

from forestall import __version__
from forestall.core.codec import encode
from forestall.core.events import Reset, Surveyed
from forestall.core.state import Calm
from forestall.core.value import TYPE_CHECKING, build, value

if TYPE_CHECKING:
    from collections.abc import Callable

    from forestall.core.events import Event, Request
    from forestall.core.rules import Rules
    from forestall.core.state import State

FORMAT_VERSION = 2
"""1: before an internal error was recorded (Reset), and who is still dying. Both are read."""
ENTRY_BYTES = 700
"""A sample with its state, measured with tracemalloc on 3.11."""
ROW_BYTES = 420
"""A row of a survey with its track."""
BEFORE_ENTRIES = 128
"""So much of the calm before an episode is kept with it."""
ENTRIES_PER_PUMP = 8
"""Encoded per turn when calm: 8 samples cost 0.4 ms."""
PIECE_BYTES = 32 * 1024


@value
class Entry:
    """One event, the state it met, and what was asked for."""

    state: State
    event: Event
    requests: tuple[Request, ...]
    late_ns: int


class Ring:
    """Remembers the last entries, and writes episodes out when they are over.

    Args:
        rules: In force; written into each record.
        bytes_max: Estimated size beyond which the oldest entries go.
        write: Takes (name, data, last) and says whether it could; never blocks.
    """

    def __init__(
        self,
        rules: Rules,
        *,
        bytes_max: int,
        write: Callable[[str, bytes, bool], bool],
    ) -> None:
        self._rules = rules
        self._outgoing_rules = rules
        self._bytes_max = bytes_max
        self._write = write
        self._entries: deque[Entry] = deque()
        self._bytes = 0
        self._episode = False
        self._outgoing: deque[Entry] = deque()
        self._name = ""
        self._opened = False
        self._piece = b""
        self.dropped = 0
        """Entries of an episode that did not fit."""
        self.written = 0
        """Episodes handed over completely."""

    @property
    def in_episode(self) -> bool:
        """Whether something is being decided, or was within this record."""
        return self._episode

    def append(
        self, state: State, event: Event, requests: tuple[Request, ...], late_ns: int
    ) -> None:
        """Remember an event, before what it asks for is done."""
        if not isinstance(state.hunt, Calm):
            self._episode = True
        entries = self._entries
        entries.append(build(Entry, (state, event, requests, late_ns)))
        # An entry more, an entry less: only the rows of surveys make one weigh more than another.
        self._bytes += ENTRY_BYTES
        if isinstance(event, Surveyed):
            self._bytes += ROW_BYTES * len(event.rows)
        if not self._episode and len(entries) > BEFORE_ENTRIES:
            self._drop()
        while self._bytes > self._bytes_max and len(entries) > 1:
            self._drop()
            self.dropped += self._episode

    def close_episode(self, name: str) -> None:
        """End the episode and queue it for writing; a no-op outside one."""
        if not self._episode:
            return
        self._episode = False
        if self._outgoing:
            # The record before this one is still being written: it goes first, this is lost.
            self.dropped += len(self._entries)
        else:
            self._outgoing = self._entries
            self._outgoing_rules = self._rules
            self._name = name
            self._opened = False
        self._entries = deque()
        self._bytes = 0

    def adopt(self, rules: Rules, name: str) -> None:
        """Go on under other rules: what was recorded under the old ones ends here.

        A record replays under the rules in its head, so it must not outlast them.
        """
        self.close_episode(name)
        self._entries.clear()
        self._bytes = 0
        self._rules = rules

    @property
    def pending(self) -> bool:
        """Whether a closed episode still has to be written."""
        return bool(self._outgoing or self._piece)

    def pump(self) -> None:
        """Encode and hand over a little of a closed episode. Call only when calm."""
        if not self.pending:
            return
        if len(self._piece) < PIECE_BYTES:
            lines = []
            if not self._opened:
                self._opened = True
                lines.append(self._header(self._outgoing[0]))
            for _ in range(min(ENTRIES_PER_PUMP, len(self._outgoing))):
                lines.append(_line(self._outgoing.popleft()))
            self._piece += b"".join(lines)
        last = not self._outgoing
        if not last and len(self._piece) < PIECE_BYTES:
            return
        head, rest = self._piece[:PIECE_BYTES], self._piece[PIECE_BYTES:]
        if self._write(self._name, head, last and not rest):
            self._piece = rest
            if last and not rest:
                self.written += 1

    def _header(self, first: Entry) -> bytes:
        return _json(
            {
                "record": "forestall",
                "version": FORMAT_VERSION,
                "forestall": __version__,
                "rules": encode(self._outgoing_rules),
                "state": encode(first.state),
                "dropped": self.dropped,
            }
        )

    def _drop(self) -> None:
        event = self._entries.popleft().event
        self._bytes -= ENTRY_BYTES
        if isinstance(event, Surveyed):
            self._bytes -= ROW_BYTES * len(event.rows)


def _line(entry: Entry) -> bytes:
    line = {
        "event": encode(entry.event),
        "requests": encode(entry.requests),
        "late_ns": entry.late_ns,
    }
    if isinstance(entry.event, Reset):
        # What an error of our own kept from being recorded must not spoil the rest.
        line["state"] = encode(entry.state)
    return _json(line)


def _json(plain: object) -> bytes:
    return json.dumps(plain, separators=(",", ":")).encode("ascii") + b"\n"
