"""Somebody else's victims: whether their memory, on its way back already, is enough to wait for.

The kernel, systemd-oomd, earlyoom, a container's own limit, a person with
``kill -9``: whoever did it, between the signal and the memory lie a tenth of a
second for each GiB, and more when the processor is short. To choose somebody in
that time would cost a second life for nothing. A process that leaves by itself
looks the same, and waiting for it is as right.

Rule: such a wait may be in vain, never long and never repeated. What counts is
what would end the shortage; each death is waited for once; and after a wait
that did not help there is none for ten times as long, so that a storm of
processes that come and go cannot hold the guard's hand.
"""

from __future__ import annotations

from forestall.core.events import Tell
from forestall.core.rules import Limit, Signal
from forestall.core.sentence import plain
from forestall.core.state import Settling
from forestall.core.trend import headroom_bytes
from forestall.core.units import MIB, MS, SECOND, human_bytes
from forestall.core.value import TYPE_CHECKING, replace

if TYPE_CHECKING:
    from forestall.core.events import Request, Surveyed
    from forestall.core.model import Leaving, Memory
    from forestall.core.rules import Rules
    from forestall.core.state import Choosing, State

WAIT_NS = 1 * SECOND
"""At most; less when the memory is back sooner, or what is left runs out meanwhile."""
REST_TIMES = 10
"""After a wait that did not help there is no other for so many times as long."""
REST_LEAST_NS = 500 * MS
LEAST = Limit(0.02, 256 * MIB)
"""Less than this on its way back is the usual coming and going of processes."""
DRAINED_SHARE = 0.5
"""When only this share of the headroom is left, the one that leaves was not the cause."""


def wait_for_others(
    seen: State, hunt: Choosing, event: Surveyed, rules: Rules
) -> tuple[State, tuple[Request, ...]] | None:
    """Settle for the memory of those that leave already; None when it is time to choose.

    Cost: nothing while nobody leaves.
    """
    memory, others = seen.memory, seen.others
    if memory is None or not event.leaving or seen.now_ns < others.rest_until_ns:
        return None
    fresh = tuple(
        one for one in event.leaving if one.id not in others.awaited and one.id not in hunt.spared
    )
    coming_bytes = sum(one.frees_bytes for one in fresh)
    if not fresh or coming_bytes < _wanted_bytes(seen, hunt, memory, rules):
        return None
    present = {one.id for one in event.leaving}
    awaited = (others.awaited & present) | {one.id for one in fresh}
    settling = Settling(
        fresh[0].comm,
        hunt.trigger,
        seen.now_ns,
        seen.now_ns + WAIT_NS,
        coming_bytes,
        headroom_bytes(memory),
        hunt.spared,
        foreign=True,
    )
    state = replace(seen, hunt=settling, others=replace(others, awaited=frozenset(awaited)))
    ours = {victim for end in seen.ends for victim in end.victims}
    foreign = tuple(one for one in fresh if one.id not in ours)
    return state, (_told(state, hunt, foreign, coming_bytes),) if foreign else ()


def drained(seen: State, hunt: Settling) -> bool:
    """Tell whether memory shrank so much during a wait for others that it must end."""
    assert seen.memory is not None
    return hunt.foreign and headroom_bytes(seen.memory) < DRAINED_SHARE * hunt.before_bytes


def waited_in_vain(seen: State, hunt: Settling) -> State:
    """Take note that a wait for others did not end the shortage."""
    if not hunt.foreign:
        return seen
    rest_ns = max(REST_LEAST_NS, REST_TIMES * (seen.now_ns - hunt.since_ns))
    return replace(seen, others=replace(seen.others, rest_until_ns=seen.now_ns + rest_ns))


def _wanted_bytes(seen: State, hunt: Choosing, memory: Memory, rules: Rules) -> int:
    """How much must come back that the trigger no longer holds, for it alone."""
    limits = [
        condition.amount.of(memory.total_bytes)
        for trigger in rules.triggers
        for condition in trigger.conditions
        if trigger.name == hunt.trigger
        and condition.signal is Signal.AVAILABLE
        and condition.below
        and condition.amount is not None
    ]
    ceiling_bytes = seen.ceilings.acting_bytes if seen.ceilings else memory.total_bytes
    missing_bytes = min(limits, default=ceiling_bytes) - memory.available_bytes
    return max(missing_bytes, LEAST.of(memory.total_bytes))


def _told(state: State, hunt: Choosing, foreign: tuple[Leaving, ...], coming_bytes: int) -> Tell:
    first = foreign[0]
    who = f"{plain(first.comm)} ({first.id.pid})"
    coming = human_bytes(coming_bytes)
    if len(foreign) == 1:
        how = f"{who} was ended by somebody else or leaves by itself"
    else:
        how = (
            f"{who} and {len(foreign) - 1} more were ended by somebody else or leave by themselves"
        )
    sentence = f"{how}; waiting for {coming} to come back before anybody is chosen"
    return Tell(
        "other-kill",
        sentence,
        state.level,
        hunt.stage,
        first.id,
        first.comm,
        trigger=hunt.trigger,
    )
