"""The hunt: from a trigger to memory that came back. Pure, like all of the policy.

Calm     -> Choosing   a trigger asks for a victim
Choosing -> Calm       memory came back before anyone was touched
Choosing -> Ending     a victim was found
Calm     -> Ending     the last survey had found it, and looking again could not change that
Choosing -> Settling   nobody is suitable, or ending would not help
Ending   -> Settling   all victims are gone
Ending   -> Calm       the memory is back; who was killed and is not gone yet is remembered
Choosing -> Ending     those who were killed before hold what is missing: they come first
Ending   -> Choosing   refused, not even SIGKILL helped, or it has let go of memory itself
Settling -> Calm       enough has come back
Settling -> Choosing   it has not, and there was time; also when it was shared and stays
Calm, Choosing -> Settling   the kernel ended somebody: its memory comes back first
Choosing -> Settling   somebody else did, or somebody leaves: likewise (``core.others``)
"""

from __future__ import annotations

from forestall.core.decide import DOOM_NS, shared_to_blame
from forestall.core.events import (
    CONFIRM,
    READ_BACK,
    End,
    Gone,
    Missed,
    Refused,
    Relieve,
    Survey,
    Tell,
)
from forestall.core.foregone import end_foregone, foregone
from forestall.core.judge import MIN_FREES_BYTES
from forestall.core.model import Force, Stage
from forestall.core.others import drained, waited_in_vain
from forestall.core.sentence import plain
from forestall.core.signals import holds
from forestall.core.state import (
    Calm,
    Choosing,
    Ending,
    Settling,
    State,
    still_dying,
    without,
)
from forestall.core.trend import Trail, headroom_bytes, stall_share, time_left_ns
from forestall.core.units import MS, SECOND, human_bytes, human_ns
from forestall.core.value import TYPE_CHECKING, replace

if TYPE_CHECKING:
    from forestall.core.events import Request
    from forestall.core.model import ProcessId
    from forestall.core.rules import Rules, Trigger

RETURN_NS = 150 * MS
"""Exit has given the memory back before a pidfd tells; the counters follow within this."""
CHOOSING_NS = 3 * SECOND
"""A choice that takes longer than this begins anew, with what holds by then."""
UNFREED_NS = 2 * SECOND
UNFREED_SHARE = 0.05
"""So much of that somebody waited for memory: more than a healthy machine's moments, less than
what ends somebody by itself."""


def pursue(seen: State, acting: Trigger | None, rules: Rules, requests: list[Request]) -> State:
    """Go on with the hunt as far as a sample can take it."""
    hunt = seen.hunt
    match hunt:
        case Calm():
            if acting is None:
                return seen
            return _begin(seen, acting, rules, requests)
        case Choosing():
            if acting is None and _still_short(seen, hunt, rules):
                acting = next(trigger for trigger in rules.triggers if trigger.name == hunt.trigger)
            if acting is None:
                sentence = "memory came back before anyone was touched"
                requests.append(Tell("outcome", sentence, seen.level, trigger=hunt.trigger))
                return replace(seen, hunt=Calm())
            if not hunt.asked:
                requests.append(Survey(shared=hunt.shared))
            return replace(
                seen,
                hunt=replace(hunt, trigger=acting.name, stage=acting.stage, asked=True),
            )
        case Ending():
            return _press_on(seen, hunt, acting, rules, requests)
        case Settling():
            return _settle(seen, hunt, acting, rules, requests)


def _begin(seen: State, acting: Trigger, rules: Rules, requests: list[Request]) -> State:
    hunt = Choosing(acting.name, acting.stage, seen.now_ns)
    found = foregone(seen)
    if found is None:
        requests.append(Survey(shared=shared_to_blame(seen)))
        return replace(seen, hunt=hunt)
    seen, asked = end_foregone(seen, hunt, found, rules)
    requests += asked
    return seen


def _still_short(seen: State, hunt: Choosing, rules: Rules) -> bool:
    """Tell whether as little is left as when the trigger fired, whatever became of its rates.

    A survey takes a moment, and paces and stalls flicker: in a fork storm four hunts were given
    up for a pace that paused, in five seconds in which nothing came back.
    """
    if seen.now_ns - hunt.since_ns > CHOOSING_NS:
        return False
    return any(
        trigger.name == hunt.trigger and _amounts_hold(seen, trigger) for trigger in rules.triggers
    )


def _amounts_hold(seen: State, trigger: Trigger) -> bool:
    memory = seen.memory
    assert memory is not None
    amounts = [one for one in trigger.conditions if one.amount is not None]
    return bool(amounts) and all(holds(one, seen.trail, seen.now_ns, memory) for one in amounts)


def _press_on(
    seen: State,
    hunt: Ending,
    acting: Trigger | None,
    rules: Rules,
    requests: list[Request],
) -> State:
    now_ns = seen.now_ns
    assert seen.memory is not None
    back_bytes = headroom_bytes(seen.memory) - hunt.before_bytes
    # After SIGTERM the victim is still waited for: memory that came back by other hands is
    # no reason to forget that somebody was asked to end.
    killed = hunt.force is Force.KILL
    if killed and acting is None and back_bytes >= max(1, hunt.expected_bytes // 2):
        requests += _over(seen, hunt, back_bytes, rules)
        return replace(_rested(seen, Calm()), dying=still_dying(seen, hunt))
    if hunt.force is Force.TERM:
        left_ns = time_left_ns(seen.trail, now_ns, seen.memory)
        doomed = left_ns is not None and left_ns < DOOM_NS
        urgent = acting is not None and (acting.stage is Stage.KILL or doomed)
        if not urgent and now_ns < hunt.patient_until_ns:
            return seen
        if not urgent and acting is None:
            sentence = (
                f"{plain(hunt.comm)} was asked to end and has not, but memory is no longer short"
            )
            requests.append(Tell("outcome", sentence, seen.level, trigger=hunt.trigger))
            # Whoever was asked may still obey: it is not asked again, should memory fall at once.
            return replace(_rested(seen, Calm()), dying=still_dying(seen, hunt))
        why = "memory is nearly out" if urgent else "its time to end by itself is over"
        requests.append(
            End(
                tuple(victim for victim in hunt.victims if victim in hunt.left),
                Force.KILL,
                f"{plain(hunt.comm)}: {why}",
                hunt.comm,
                hunt.expected_bytes,
                hunt.cgroup,
                hunt.trigger,
            )
        )
        patient_ns = now_ns + rules.kill_patience_ns
        return replace(seen, hunt=replace(hunt, force=Force.KILL, patient_until_ns=patient_ns))
    if now_ns < hunt.patient_until_ns:
        return seen
    # Not even SIGKILL ends a process in uninterruptible sleep.
    sentence = f"{plain(hunt.comm)} does not go even by SIGKILL (uninterruptible sleep?)"
    requests.append(Tell("stuck", sentence, seen.level, trigger=hunt.trigger))
    return _again(seen, hunt.spared | hunt.left, acting, requests)


def _settle(
    seen: State,
    hunt: Settling,
    acting: Trigger | None,
    rules: Rules,
    requests: list[Request],
) -> State:
    assert seen.memory is not None
    back_bytes = headroom_bytes(seen.memory) - hunt.before_bytes
    came_back = hunt.expected_bytes > 0 and back_bytes >= hunt.expected_bytes // 2
    if acting is None:
        unfreed = None if came_back else _unfreed(seen, hunt, rules)
        if unfreed is not None and seen.now_ns < hunt.until_ns:
            return seen
        if unfreed is not None and _waited_for(seen):
            requests.append(_in_vain(seen, hunt, back_bytes))
            return _again(seen, hunt.spared, unfreed, requests)
        if hunt.comm:
            requests += _over(seen, hunt, back_bytes, rules)
        return _rested(seen, Calm())
    waited_ns = seen.now_ns - hunt.since_ns
    over = (came_back and waited_ns >= RETURN_NS) or drained(seen, hunt)
    if seen.now_ns < hunt.until_ns and not over:
        return seen
    return _again(waited_in_vain(seen, hunt), hunt.spared, acting, requests)


def _unfreed(seen: State, hunt: Settling, rules: Rules) -> Trigger | None:
    """Return the trigger whose amounts still hold after a death that freed next to nothing.

    Whoever forked after filling memory shares it with the child: one dies, and all of it stays.
    """
    if not hunt.comm or hunt.expected_bytes < MIN_FREES_BYTES:
        return None
    for trigger in rules.triggers:
        if trigger.name == hunt.trigger and _amounts_hold(seen, trigger):
            return trigger
    return None


def _waited_for(seen: State) -> bool:
    # The stall is another once half of those who made it are gone, so its limits do not count
    # any more; but where nobody waits for memory nobody has to end for it.
    stall = stall_share(seen.trail, seen.now_ns, UNFREED_NS, full=False)
    return stall is not None and stall >= UNFREED_SHARE


def _in_vain(seen: State, hunt: Settling, back_bytes: int) -> Tell:
    sentence = (
        f"only {human_bytes(max(0, back_bytes))} of {human_bytes(hunt.expected_bytes)} came back "
        f"after the end of {plain(hunt.comm)}; others share them or have taken them: looking again"
    )
    return Tell("outcome", sentence, seen.level, comm=hunt.comm, trigger=hunt.trigger)


def _again(
    seen: State,
    spared: frozenset[ProcessId],
    acting: Trigger | None,
    requests: list[Request],
) -> State:
    if acting is None:
        return _rested(seen, Calm())
    requests.append(Survey(shared=shared_to_blame(seen)))
    return replace(seen, hunt=Choosing(acting.name, acting.stage, seen.now_ns, spared=spared))


def _rested(seen: State, hunt: Calm) -> State:
    # What was lost before the kill must not speak for another one.
    trail = Trail(seen.trail.points[-1:], seen.trail.flows[-1:])
    return replace(seen, hunt=hunt, trail=trail, holding=(None,) * len(seen.holding))


def _over(
    seen: State, hunt: Ending | Settling, back_bytes: int, rules: Rules
) -> tuple[Request, ...]:
    took = human_ns(seen.now_ns - hunt.since_ns)
    assert seen.memory is not None
    sentence = (
        f"{human_bytes(max(0, back_bytes))} came back within {took} of the end of "
        f"{plain(hunt.comm)}; {human_bytes(seen.memory.available_bytes)} are available"
    )
    told = Tell("outcome", sentence, seen.level, comm=hunt.comm, trigger=hunt.trigger)
    if not rules.read_back:
        return (told,)
    return told, Relieve(READ_BACK, f"{plain(hunt.comm)} has gone")


def gone(state: State, event: Gone, rules: Rules) -> tuple[State, tuple[Request, ...]]:
    """Take note of an end, whoever brought it about."""
    if state.dying:
        state = replace(state, dying=without(state.dying, frozenset((event.victim,))))
    hunt = state.hunt
    if not isinstance(hunt, Ending) or event.victim not in hunt.left:
        return state, ()
    left = hunt.left - {event.victim}
    if left:
        return replace(state, hunt=replace(hunt, left=left)), ()
    resting = Settling(
        hunt.comm,
        hunt.trigger,
        event.now_ns,
        event.now_ns + rules.settle_ns,
        hunt.expected_bytes,
        hunt.before_bytes,
        hunt.spared,
    )
    # The stall before this death must not count towards the next decision.
    return replace(_rested(state, Calm()), hunt=resting), ()


def refused(state: State, event: Refused) -> tuple[State, tuple[Request, ...]]:
    """Step over somebody who cannot be ended."""
    hunt = state.hunt
    if not isinstance(hunt, Ending) or event.victim not in hunt.left:
        return state, ()
    told = Tell(
        "refused",
        f"{plain(hunt.comm)} ({event.victim.pid}) cannot be ended: {event.why}",
        state.level,
        victim=event.victim,
        comm=hunt.comm,
        trigger=hunt.trigger,
    )
    left = hunt.left - {event.victim}
    spared = hunt.spared | {event.victim}
    if left:
        return replace(state, hunt=replace(hunt, left=left, spared=spared)), (told,)
    return _choose_again(state, hunt, event.now_ns, spared, told)


def _choose_again(
    state: State, hunt: Ending, now_ns: int, spared: frozenset[ProcessId], told: Tell
) -> tuple[State, tuple[Request, ...]]:
    stage = Stage.KILL if hunt.force is Force.KILL else Stage.TERMINATE
    choosing = Choosing(hunt.trigger, stage, now_ns, spared=spared)
    return replace(state, hunt=choosing), (told, Survey(shared=shared_to_blame(state)))


def missed(state: State, event: Missed) -> tuple[State, tuple[Request, ...]]:
    """Ask again at the next sample when a survey failed."""
    hunt = state.hunt
    if event.what == "survey":
        # The cost of a failed survey is not known: wait as long as after a good one.
        state = replace(state, survey_ns=event.now_ns, warning="", within=None)
        if isinstance(hunt, Choosing):
            state = replace(state, hunt=replace(hunt, asked=False))
    elif event.what == CONFIRM and isinstance(hunt, Ending):
        # It has let go of memory since it was chosen: now it is worth looking.
        told = Tell(
            "refused",
            f"{plain(hunt.comm)} was not ended: {event.why}; looking again",
            state.level,
            comm=hunt.comm,
            trigger=hunt.trigger,
        )
        return _choose_again(state, hunt, event.now_ns, hunt.spared, told)
    return state, ()
