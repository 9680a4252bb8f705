"""A record through ``step`` again: the recorded requests must come out, byte for byte."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from forestall.core import fallback, policy
from forestall.core.codec import encode
from forestall.core.events import End, Reset

if TYPE_CHECKING:
    from forestall.replay.record import Record

MISTAKES = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError)
"""What the policy may raise on a damaged record, or on one made by another policy."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Where the policy asked for something else than it did then."""

    line: int
    event: str
    """Class of the event that was answered differently."""
    now_ns: int
    recorded: Any
    """The requests, as plain data."""
    again: Any
    """Likewise; a text when the policy failed instead of answering."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a replay."""

    events: int
    """Replayed, up to the difference if there is one."""
    requests: int
    ends: int
    """Requests to end somebody."""
    resets: int
    """Internal errors of the guard, after which its policy started afresh."""
    difference: Difference | None


def replay(record: Record) -> Outcome:
    """Step through a record under the rules it was made under.

    Stops at the first difference: what follows it was answered to other deeds.
    """
    step, state = policy.step, record.state
    events = requests = ends = resets = 0
    for line in record.lines:
        if line.state is not None:
            state = line.state
        events += 1
        try:
            if isinstance(line.event, Reset):
                # Whichever policy stumbled, starting afresh is the real one's.
                resets += 1
                step = fallback.step if line.event.fallback else step
                state, asked = policy.step(state, line.event, record.rules)
            else:
                state, asked = step(state, line.event, record.rules)
        except MISTAKES as error:
            again: Any = f"{type(error).__name__}: {error}"
        else:
            again = encode(asked)
            requests += len(asked)
            ends += sum(isinstance(request, End) for request in asked)
        if _bytes(again) != _bytes(line.requests):
            kind = type(line.event).__name__
            now_ns = line.event.now_ns
            different = Difference(line.number, kind, now_ns, line.requests, again)
            return Outcome(events, requests, ends, resets, different)
    return Outcome(events, requests, ends, resets, None)


def _bytes(plain: Any) -> bytes:  # noqa: ANN401 - plain data of any depth
    return json.dumps(plain, separators=(",", ":")).encode("ascii")
