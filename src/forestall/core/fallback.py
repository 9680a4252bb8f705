"""The minimal policy, for when the real one has failed three times while memory is short.

It knows one limit and one order, and shares nothing with the real policy but
the values: below four percent available, the largest process that no rule
protects is killed; then it waits three seconds.
"""

from __future__ import annotations

from forestall.core.events import End, Gone, Refused, Sampled, Survey, Surveyed, Tell
from forestall.core.model import Force, Row, Stage, Standing
from forestall.core.state import Calm, Choosing, Settling, State
from forestall.core.units import SECOND
from forestall.core.value import TYPE_CHECKING, replace

if TYPE_CHECKING:
    from forestall.core.events import Event, Request
    from forestall.core.rules import Rules

SHORT_SHARE = 0.04
WAIT_NS = 3 * SECOND


def is_short(state: State) -> bool:
    """Tell whether memory is so short that the guard must not leave."""
    memory = state.memory
    return memory is not None and memory.available_share < 2 * SHORT_SHARE


def step(
    state: State,
    event: Event,
    rules: Rules,  # noqa: ARG001 - the shape of a policy
) -> tuple[State, tuple[Request, ...]]:
    """Advance by one event, knowing next to nothing."""
    match state.hunt, event:
        case Calm(), Sampled(now_ns, memory):
            state = replace(state, now_ns=now_ns, memory=memory)
            if memory.available_share >= SHORT_SHARE:
                return state, ()
            return replace(state, hunt=Choosing("fallback", Stage.KILL, now_ns)), (Survey(),)
        case Choosing(), Surveyed(now_ns):
            resting = Settling("", "fallback", now_ns, now_ns + WAIT_NS, 0, 0)
            state = replace(state, hunt=resting)
            worst = max(
                (row for row in event.rows if row.standing in _FAIR and row.state != "Z"),
                key=_size,
                default=None,
            )
            if worst is None:
                return state, ()
            why = "the minimal policy is in force; it is the largest"
            told = Tell("decision", why, state.level, Stage.KILL, worst.id, worst.comm)
            end = End((worst.id,), Force.KILL, why, worst.comm, worst.footprint_bytes)
            return state, (told, end)
        case Choosing(), Sampled(now_ns, memory):
            return replace(state, now_ns=now_ns, memory=memory), (Survey(),)
        case _, Sampled(now_ns, memory):
            state = replace(state, now_ns=now_ns, memory=memory)
            hunt = state.hunt
            if not isinstance(hunt, Settling) or now_ns >= hunt.until_ns:
                state = replace(state, hunt=Calm())
            return state, ()
        case _, Gone() | Refused():
            return state, ()
    return state, ()


_FAIR = frozenset({Standing.NORMAL, Standing.PREFER})


def _size(row: Row) -> tuple[int, int]:
    return row.footprint_bytes, row.id.pid
