"""The hunt: from a trigger to memory that came back. Pure, like all of the policy.

Calm     -> Choosing   a trigger asks for a victim
Choosing -> Calm       memory came back before anyone was touched
Choosing -> Ending     a victim was found
Choosing -> Settling   nobody is suitable, or ending would not help
Ending   -> Settling   all victims are gone
Ending   -> Calm       the memory is back; who was killed and is not gone yet is remembered
Choosing -> Ending     those who were killed before hold what is missing: they come first
Ending   -> Choosing   refused, or not even SIGKILL helped
Settling -> Calm       enough has come back
Settling -> Choosing   it has not, and there was time
Calm, Choosing -> Settling   the kernel ended somebody: its memory comes back first
Choosing -> Settling   somebody else did, or somebody leaves: likewise (``core.others``)
"""

from __future__ import annotations

from forestall.core.census import shmem_growth_bytes
from forestall.core.events import End, Gone, Missed, Refused, Survey, Surveyed, Tell
from forestall.core.judge import GROWTH_MIN_SHARE, MIN_FREES_BYTES, Chosen, Nobody
from forestall.core.managers import system_unit, unit_to_tell
from forestall.core.model import Force, Stage
from forestall.core.others import drained, wait_for_others, waited_in_vain
from forestall.core.repeats import advice, note_end, repeat_clause
from forestall.core.sentence import plain
from forestall.core.signals import holds
from forestall.core.state import Calm, Choosing, Ending, Settling, State, still_dying
from forestall.core.trend import Trail, headroom_bytes, surge_left_ns, time_left_ns
from forestall.core.units import MS, SECOND, human_bytes, human_ns
from forestall.core.value import TYPE_CHECKING, replace

if TYPE_CHECKING:
    from forestall.core.events import Request
    from forestall.core.judge import Verdict
    from forestall.core.model import Memory, ProcessId
    from forestall.core.rules import Rules, Trigger

DOOM_NS = 500 * MS
"""With less time left than this nobody is asked politely."""
RETURN_NS = 150 * MS
"""Exit has given the memory back before a pidfd tells; the counters follow within this."""
CHOOSING_NS = 3 * SECOND
"""A choice that takes longer than this begins anew, with what holds by then."""
HOPELESS_NS = 2 * SECOND
"""How long to leave things alone when nobody is suitable."""
NOBODY_REPEAT_NS = 30 * SECOND


def pursue(seen: State, acting: Trigger | None, rules: Rules, requests: list[Request]) -> State:
    """Go on with the hunt as far as a sample can take it."""
    hunt = seen.hunt
    match hunt:
        case Calm():
            if acting is None:
                return seen
            requests.append(Survey(shared=shared_to_blame(seen)))
            return replace(seen, hunt=Choosing(acting.name, acting.stage, seen.now_ns))
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
            return _settle(seen, hunt, acting, requests)


def _still_short(seen: State, hunt: Choosing, rules: Rules) -> bool:
    """Tell whether as little is left as when the trigger fired, whatever became of its rates.

    A survey takes a moment, and paces and stalls flicker: in a fork storm four hunts were given
    up for a pace that paused, in five seconds in which nothing came back.
    """
    memory = seen.memory
    assert memory is not None
    if seen.now_ns - hunt.since_ns > CHOOSING_NS:
        return False
    for trigger in rules.triggers:
        if trigger.name == hunt.trigger:
            amounts = [one for one in trigger.conditions if one.amount is not None]
            return bool(amounts) and all(
                holds(one, seen.trail, seen.now_ns, memory) for one in amounts
            )
    return False


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
        requests.append(_outcome(seen, hunt.comm, hunt.trigger, hunt.since_ns, back_bytes))
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
            return _rested(seen, Calm())
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


def _settle(seen: State, hunt: Settling, acting: Trigger | None, requests: list[Request]) -> State:
    assert seen.memory is not None
    back_bytes = headroom_bytes(seen.memory) - hunt.before_bytes
    if acting is None:
        if hunt.comm:
            requests.append(_outcome(seen, hunt.comm, hunt.trigger, hunt.since_ns, back_bytes))
        return _rested(seen, Calm())
    waited_ns = seen.now_ns - hunt.since_ns
    came_back = hunt.expected_bytes > 0 and back_bytes >= hunt.expected_bytes // 2
    over = (came_back and waited_ns >= RETURN_NS) or drained(seen, hunt)
    if seen.now_ns < hunt.until_ns and not over:
        return seen
    return _again(waited_in_vain(seen, hunt), hunt.spared, acting, requests)


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


def _outcome(seen: State, comm: str, trigger: str, since_ns: int, back_bytes: int) -> Tell:
    took = human_ns(seen.now_ns - since_ns)
    assert seen.memory is not None
    sentence = (
        f"{human_bytes(max(0, back_bytes))} came back within {took} of the end of {plain(comm)}; "
        f"{human_bytes(seen.memory.available_bytes)} are available"
    )
    return Tell("outcome", sentence, seen.level, comm=comm, trigger=trigger)


def decide(
    seen: State, hunt: Choosing, event: Surveyed, verdict: Verdict, rules: Rules
) -> tuple[State, tuple[Request, ...]]:
    """Act on a verdict, or ask for what it still lacks."""
    memory = seen.memory
    assert memory is not None
    before = _before(seen, hunt, event)
    if before is not None:
        return replace(seen, hunt=before, dying=_without(seen.dying, before.left)), ()
    waiting = wait_for_others(seen, hunt, event, rules)
    if waiting is not None:
        return waiting
    if shared_to_blame(seen) and not event.shared and not hunt.shared:
        # Processes do not explain the growth: find who holds shared memory before judging.
        return replace(seen, hunt=replace(hunt, shared=True)), (Survey(shared=True),)
    if not isinstance(verdict, Chosen):
        return _nobody(seen, hunt, verdict)
    part = verdict.part
    left_ns = time_left_ns(seen.trail, seen.now_ns, memory)
    doomed = left_ns is not None and left_ns < DOOM_NS
    force = Force.KILL if hunt.stage is Stage.KILL or doomed else Force.TERM
    patience_ns = rules.kill_patience_ns
    if force is Force.TERM:
        patience_ns = _grace_ns(seen, memory, left_ns, rules)
    victims = tuple(row.id for row in part.members)
    cgroup = part.cgroup if rules.unit_kill else ""
    ending = Ending(
        victims,
        frozenset(victims),
        force,
        hunt.trigger,
        part.root.comm,
        cgroup,
        event.now_ns,
        event.now_ns + patience_ns,
        part.frees_bytes,
        headroom_bytes(memory),
        hunt.spared,
    )
    seen, ended = note_end(seen, part, event.now_ns)
    again = repeat_clause(ended)
    why = f"{verdict.why}; {again}" if again else verdict.why
    told = Tell(
        "decision",
        f"{force.value} by trigger {hunt.trigger}: {why}",
        seen.level,
        hunt.stage,
        part.root.id,
        part.root.comm,
        left_ns,
        hunt.trigger,
        system_unit(part.root.cgroup),
    )
    unit = unit_to_tell(part, event.rows)
    end = End(victims, force, why, part.root.comm, part.frees_bytes, cgroup, hunt.trigger, unit)
    # The end first: telling allocates in the kernel, and near the limit an allocation waits
    # (0.8 s measured in a fork storm). It is on record already.
    requests: tuple[Request, ...] = (end, told)
    if again:
        looping = f"{again}: {advice(ended)}"
        requests += (replace(told, what="restart-loop", sentence=looping),)
    return replace(seen, hunt=ending), requests


def _before(seen: State, hunt: Choosing, event: Surveyed) -> Ending | None:
    """Find the killed whose memory is still to come; one victim at a time, also across hunts.

    Memory that came back by other hands had ended the wait for it. What they hold is asked of
    the survey: a victim whose memory was freed before it could leave gives nothing more.
    """
    for ending in reversed(seen.dying):
        if event.now_ns >= ending.patient_until_ns:
            continue
        here = [row.held_bytes for row in event.rows if row.id in ending.left]
        here += [one.frees_bytes for one in event.leaving if one.id in ending.left]
        held_bytes = sum(here)
        # Who fills a tmpfs frees nothing: what is waited for is that it stops.
        filler = bool(here) and ending.expected_bytes < MIN_FREES_BYTES
        if filler or held_bytes >= max(MIN_FREES_BYTES, ending.expected_bytes // 8):
            assert seen.memory is not None
            return replace(
                ending,
                trigger=hunt.trigger,
                expected_bytes=held_bytes,
                before_bytes=headroom_bytes(seen.memory),
                spared=ending.spared | hunt.spared,
            )
    return None


def _without(dying: tuple[Ending, ...], gone: frozenset[ProcessId]) -> tuple[Ending, ...]:
    kept = (replace(ending, left=ending.left - gone) for ending in dying)
    return tuple(ending for ending in kept if ending.left)


def _grace_ns(seen: State, memory: Memory, left_ns: int | None, rules: Rules) -> int:
    # While headroom still falls, half of the time that is left; by the pace the victim
    # showed before reclaim held it back, because it will show it again.
    if left_ns is None:
        return rules.grace_ns
    wanted_ns = surge_left_ns(seen.trail, seen.now_ns, memory)
    soonest_ns = left_ns if wanted_ns is None else min(left_ns, wanted_ns)
    return min(rules.grace_ns, soonest_ns // 2)


def _nobody(seen: State, hunt: Choosing, verdict: Nobody) -> tuple[State, tuple[Request, ...]]:
    assert seen.memory is not None
    requests: tuple[Request, ...] = ()
    told = seen.told
    if due(told.nobody_ns, seen.now_ns, NOBODY_REPEAT_NS):
        what = "futile" if verdict.futile else "nobody"
        requests = (Tell(what, verdict.why, seen.level, hunt.stage, trigger=hunt.trigger),)
        told = replace(told, nobody_ns=seen.now_ns)
    resting = Settling(
        "",
        hunt.trigger,
        seen.now_ns,
        seen.now_ns + HOPELESS_NS,
        0,
        headroom_bytes(seen.memory),
        # Those that were stuck may have become killable: forget them.
        frozenset(),
    )
    return replace(seen, hunt=resting, told=told), requests


def gone(state: State, event: Gone, rules: Rules) -> tuple[State, tuple[Request, ...]]:
    """Take note of an end, whoever brought it about."""
    if state.dying:
        state = replace(state, dying=_without(state.dying, frozenset((event.victim,))))
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
    stage = Stage.KILL if hunt.force is Force.KILL else Stage.TERMINATE
    choosing = Choosing(hunt.trigger, stage, event.now_ns, spared=spared)
    return replace(state, hunt=choosing), (told, Survey(shared=shared_to_blame(state)))


def missed(state: State, event: Missed) -> tuple[State, tuple[Request, ...]]:
    """Ask again at the next sample when a survey failed."""
    hunt = state.hunt
    if event.what == "survey":
        # The cost of a failed survey is not known: wait as long as after a good one.
        state = replace(state, survey_ns=event.now_ns, warning="", within=None)
        if isinstance(hunt, Choosing):
            state = replace(state, hunt=replace(hunt, asked=False))
    return state, ()


def shared_to_blame(state: State) -> bool:
    """Tell whether tmpfs and shared memory grew enough to look for who holds them."""
    if state.memory is None:
        return False
    grown = shmem_growth_bytes(state.census)
    return grown >= GROWTH_MIN_SHARE * state.memory.total_bytes


def due(last_ns: int | None, now_ns: int, every_ns: int) -> bool:
    """Tell whether something may be told again."""
    return last_ns is None or now_ns - last_ns >= every_ns
