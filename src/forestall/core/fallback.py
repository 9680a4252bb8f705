"""The minimal policy, for when the real one has failed three times while memory is short.

It knows one limit and one order, and shares nothing with the real policy but
the values: below four percent available, the largest process that no rule
protects is killed; then it waits three seconds.
"""

from __future__ import annotations

from forestall.core.events import End, Missed, Sampled, Survey, Surveyed, Tell
from forestall.core.model import Force, Row, Stage, Standing
from forestall.core.state import Calm, Choosing, Settling, State
from forestall.core.units import SECOND
from forestall.core.value import TYPE_CHECKING, replace

if TYPE_CHECKING:
    from forestall.core.events import Event, Request
    from forestall.core.model import Memory
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
    match event:
        case Sampled(now_ns, memory):
            return _sampled(replace(state, now_ns=now_ns, memory=memory), memory)
        case Surveyed() if isinstance(state.hunt, Choosing):
            return _decide(state, state.hunt, event)
        case Missed(_, "survey") if isinstance(state.hunt, Choosing):
            return replace(state, hunt=replace(state.hunt, asked=False)), ()
    return state, ()


def _sampled(state: State, memory: Memory) -> tuple[State, tuple[Request, ...]]:
    hunt = state.hunt
    if isinstance(hunt, Settling) and state.now_ns < hunt.until_ns:
        return state, ()
    if memory.available_share >= SHORT_SHARE:
        return replace(state, hunt=Calm()), ()
    if isinstance(hunt, Choosing) and hunt.asked:
        return state, ()
    spared = hunt.spared if isinstance(hunt, Choosing | Settling) else frozenset()
    choosing = Choosing("fallback", Stage.KILL, state.now_ns, spared=spared)
    return replace(state, hunt=choosing), (Survey(),)


def _decide(state: State, hunt: Choosing, event: Surveyed) -> tuple[State, tuple[Request, ...]]:
    fair = (row for row in event.rows if row.standing in _FAIR and row.state != "Z")
    worst = max((row for row in fair if row.id not in hunt.spared), key=_size, default=None)
    # Whoever is still there after the wait refused or is stuck: the next one, then.
    spared = hunt.spared | {worst.id} if worst is not None else frozenset()
    until_ns = event.now_ns + WAIT_NS
    state = replace(state, hunt=Settling("", "fallback", event.now_ns, until_ns, 0, 0, spared))
    if worst is None:
        return state, ()
    why = "the minimal policy is in force; it is the largest"
    told = Tell("decision", why, state.level, Stage.KILL, worst.id, worst.comm)
    end = End((worst.id,), Force.KILL, why, worst.comm, worst.footprint_bytes)
    return state, (end, told)


_FAIR = frozenset({Standing.NORMAL, Standing.PREFER})


def _size(row: Row) -> tuple[int, int]:
    return row.footprint_bytes, row.id.pid
