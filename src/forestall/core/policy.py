"""When to act, on whom, and what comes next. Pure: no clock, no files, no log.

    Calm     -> Choosing   a trigger asks for a victim
    Choosing -> Calm       memory came back before anyone was touched
    Choosing -> Ending     a victim was found
    Choosing -> Settling   nobody is suitable, or ending would not help
    Ending   -> Settling   all victims are gone
    Ending   -> Calm       the memory is back, whatever became of the victims
    Ending   -> Choosing   refused, or not even SIGKILL helped
    Settling -> Calm       enough has come back
    Settling -> Choosing   it has not, and there was time

Rule 1: every change of state is in step(). Rule 2: time enters only with an
event. These two make production, dry run, replay and simulation one code.
"""

from __future__ import annotations

from forestall.core.census import count, shmem_growth_bytes
from forestall.core.events import (
    Declined,
    End,
    Gone,
    Missed,
    Refused,
    Relieve,
    Relieved,
    Sampled,
    Survey,
    Surveyed,
    Tell,
)
from forestall.core.judge import GROWTH_MIN_SHARE, Chosen, judge
from forestall.core.model import Force, Level, Memory, Stage
from forestall.core.pace import survey_due
from forestall.core.sentence import plain
from forestall.core.signals import acting_ceiling_bytes, all_hold, ceiling_bytes, level_of
from forestall.core.state import (
    Calm,
    Ceilings,
    Choosing,
    Ending,
    Prospect,
    Settling,
    State,
)
from forestall.core.trend import Trail, extend, headroom_bytes, time_left_ns
from forestall.core.units import MS, SECOND, human_bytes, human_ns, human_share
from forestall.core.value import TYPE_CHECKING, replace

if TYPE_CHECKING:
    from forestall.core.events import Event, Request
    from forestall.core.rules import Rules, Trigger

DOOM_NS = 500 * MS
"""With less time left than this nobody is asked politely."""
RETURN_NS = 150 * MS
"""Exit has given the memory back before a pidfd tells; the counters follow within this."""
HOPELESS_NS = 2 * SECOND
"""How long to leave things alone when nobody is suitable."""
NOBODY_REPEAT_NS = 30 * SECOND
CRITICAL_REPEAT_NS = 1 * SECOND
RELIEVE_REPEAT_NS = 60 * SECOND
FALL_SHARE_PER_S = 0.005
"""A fall by half a percent of memory per second is fast: 80 MiB/s on a 16 GiB machine."""


def step(state: State, event: Event, rules: Rules) -> tuple[State, tuple[Request, ...]]:
    """Advance by one event; the same arguments give the same answer.

    News that no case waits for (a stranger's death, an answer that comes late)
    changes nothing.
    Cost: a calm sample 4 µs, one on watch 15 µs (Python 3.11).
    """
    match event:
        case Sampled():
            return _sampled(state, event, rules)
        case Surveyed():
            return _surveyed(state, event, rules)
        case Gone():
            return _gone(state, event, rules)
        case Refused():
            return _refused(state, event)
        case Missed():
            return _missed(state, event)
        case Relieved(_, action, gained_bytes):
            sentence = f"{action} gave back {human_bytes(gained_bytes)}"
            return state, (Tell("relieved", sentence, state.level),)
        case Declined(_, action, why):
            return state, (Tell("declined", f"{action} was not done: {why}", state.level),)


# A sample.


def _sampled(state: State, event: Sampled, rules: Rules) -> tuple[State, tuple[Request, ...]]:
    now_ns, memory = event.now_ns, event.memory
    ceilings = _ceilings(state.ceilings, memory, rules)
    points = state.trail.points
    falling_ns = state.falling_ns
    if points and _falls_fast(points[-1].now_ns, points[-1].headroom_bytes, now_ns, memory):
        falling_ns = now_ns
    seen = State(
        state.hunt,
        now_ns,
        memory,
        event.activity or state.activity,
        state.level,
        extend(state.trail, event),
        state.census,
        state.holding,
        ceilings,
        falling_ns,
        state.survey_ns,
        state.survey_cost_ns,
        state.prospect,
        state.holdings,
        state.told,
        state.warning,
    )
    requests: list[Request] = []
    seen = _level(seen, memory, rules, requests)
    if event.activity is not None and state.activity is not None:
        seen = _kernel_kills(state, seen, rules, requests)
    if memory.available_bytes < ceilings.any_bytes:
        seen = _triggers(seen, memory, rules, requests)
    else:
        seen = _out_of_reach(seen, rules, requests)
    if isinstance(seen.hunt, Calm) and survey_due(seen, now_ns):
        # Asked for once; the answer, or its failure, comes before the next sample.
        requests.append(Survey(shared=_shared_to_blame(seen)))
    return seen, tuple(requests)


def _falls_fast(then_ns: int, then_bytes: int, now_ns: int, memory: Memory) -> bool:
    lost_bytes = then_bytes - memory.available_bytes - memory.swap_usable_bytes
    span_ns = now_ns - then_ns
    return span_ns > 0 and lost_bytes * SECOND > FALL_SHARE_PER_S * memory.total_bytes * span_ns


def _ceilings(ceilings: Ceilings | None, memory: Memory, rules: Rules) -> Ceilings:
    total, swap_total = memory.total_bytes, memory.swap_total_bytes
    if (
        ceilings is not None
        and ceilings.total_bytes == total
        and ceilings.swap_total_bytes == swap_total
    ):
        return ceilings
    return Ceilings(
        total, swap_total, ceiling_bytes(rules, memory), acting_ceiling_bytes(rules, memory)
    )


def _level(seen: State, memory: Memory, rules: Rules, requests: list[Request]) -> State:
    level = level_of(memory, seen.level, rules)
    told = seen.told
    again = level is Level.CRITICAL and _due(told.critical_ns, seen.now_ns, CRITICAL_REPEAT_NS)
    if level is seen.level and not again:
        return seen
    sentence = (
        f"memory is {level.value}: {human_share(memory.used_share)} used, "
        f"{human_bytes(memory.available_bytes)} available"
    )
    what = "level" if level is not seen.level else "critical"
    requests.append(Tell(what, sentence, level))
    return replace(seen, level=level, told=replace(told, critical_ns=seen.now_ns))


def _kernel_kills(state: State, seen: State, rules: Rules, requests: list[Request]) -> State:
    """A kill by the kernel counts as ours: wait for its memory before choosing anybody."""
    before = state.activity.oom_kill if state.activity else None
    now = seen.activity.oom_kill if seen.activity else None
    if before is None or now is None or now <= before:
        return seen
    requests.append(
        Tell("kernel-kill", f"the kernel's OOM killer ended {now - before} process(es)", seen.level)
    )
    if isinstance(seen.hunt, Calm | Choosing) and seen.memory is not None:
        spared = seen.hunt.spared if isinstance(seen.hunt, Choosing) else frozenset()
        hunt = Settling(
            "",
            "kernel-kill",
            seen.now_ns,
            seen.now_ns + rules.settle_ns,
            0,
            headroom_bytes(seen.memory),
            spared,
        )
        return replace(seen, hunt=hunt)
    return seen


def _triggers(seen: State, memory: Memory, rules: Rules, requests: list[Request]) -> State:
    now_ns = seen.now_ns
    holding = tuple(
        (since if since is not None else now_ns)
        if all_hold(trigger, seen.trail, now_ns, memory)
        else None
        for trigger, since in zip(rules.triggers, seen.holding, strict=True)
    )
    fired = [
        trigger
        for trigger, since in zip(rules.triggers, holding, strict=True)
        if since is not None and now_ns - since >= trigger.hold_ns
    ]
    seen = replace(seen, holding=holding)
    acting = max(
        (trigger for trigger in fired if trigger.stage.rank >= Stage.TERMINATE.rank),
        key=lambda trigger: trigger.stage.rank,
        default=None,
    )
    seen = _mild_stages(seen, fired, rules, requests)
    return _pursue(seen, acting, rules, requests)


def _out_of_reach(seen: State, rules: Rules, requests: list[Request]) -> State:
    if any(since is not None for since in seen.holding):
        seen = replace(seen, holding=(None,) * len(rules.triggers))
    if isinstance(seen.hunt, Calm):
        return seen
    return _pursue(seen, None, rules, requests)


def _mild_stages(seen: State, fired: list[Trigger], rules: Rules, requests: list[Request]) -> State:
    for trigger in fired:
        if trigger.stage is Stage.WARN and _due(
            seen.told.warned_ns, seen.now_ns, rules.warn_repeat_ns
        ):
            seen = _warn(seen, trigger.name, requests)
        elif trigger.stage is Stage.RELIEVE and _due(
            seen.told.relieve_ns, seen.now_ns, RELIEVE_REPEAT_NS
        ):
            requests.append(Relieve("reclaim", f"trigger {trigger.name}"))
            seen = replace(seen, told=replace(seen.told, relieve_ns=seen.now_ns))
    return seen


def _warn(seen: State, trigger: str, requests: list[Request]) -> State:
    prospect = seen.prospect
    if prospect is None or seen.now_ns - prospect.now_ns > SECOND:
        # Who it would be is not known well enough: look first, warn with the answer.
        if not seen.warning:
            requests.append(Survey(shared=_shared_to_blame(seen)))
        return replace(seen, warning=trigger)
    requests.append(_warning(seen, trigger, prospect))
    return replace(seen, warning="", told=replace(seen.told, warned_ns=seen.now_ns))


def _warning(seen: State, trigger: str, prospect: Prospect) -> Tell:
    memory = seen.memory
    assert memory is not None
    left_ns = time_left_ns(seen.trail, seen.now_ns, memory)
    when = f", about {human_ns(left_ns)} left at this pace" if left_ns is not None else ""
    sentence = (
        f"memory runs low: {human_bytes(memory.available_bytes)} available"
        f" and {human_bytes(memory.swap_usable_bytes)} swap{when}; next to go: {prospect.why}"
    )
    return Tell(
        "warning",
        sentence,
        seen.level,
        Stage.WARN,
        prospect.victim,
        prospect.comm,
        left_ns,
        trigger,
    )


def _pursue(seen: State, acting: Trigger | None, rules: Rules, requests: list[Request]) -> State:
    hunt = seen.hunt
    match hunt:
        case Calm():
            if acting is None:
                return seen
            requests.append(Survey(shared=_shared_to_blame(seen)))
            return replace(seen, hunt=Choosing(acting.name, acting.stage, seen.now_ns))
        case Choosing():
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
    if acting is None and back_bytes >= max(1, hunt.expected_bytes // 2):
        requests.append(_outcome(seen, hunt.comm, hunt.trigger, hunt.since_ns, back_bytes))
        return _rested(seen, Calm())
    if hunt.force is Force.TERM:
        left_ns = time_left_ns(seen.trail, now_ns, seen.memory)
        doomed = left_ns is not None and left_ns < DOOM_NS
        urgent = acting is not None and (acting.stage is Stage.KILL or doomed)
        if not urgent and now_ns < hunt.patient_until_ns:
            return seen
        if acting is None:
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
    if seen.now_ns < hunt.until_ns and not (came_back and waited_ns >= RETURN_NS):
        return seen
    return _again(seen, hunt.spared, acting, requests)


def _again(
    seen: State,
    spared: frozenset,  # type: ignore[type-arg]
    acting: Trigger | None,
    requests: list[Request],
) -> State:
    if acting is None:
        return _rested(seen, Calm())
    requests.append(Survey(shared=_shared_to_blame(seen)))
    return replace(seen, hunt=Choosing(acting.name, acting.stage, seen.now_ns, spared=spared))


def _rested(seen: State, hunt: Calm) -> State:
    # What was lost before the kill must not speak for another one.
    trail = Trail(seen.trail.points[-1:], seen.trail.flows[-1:], seen.trail.slope)
    return replace(seen, hunt=hunt, trail=trail, holding=(None,) * len(seen.holding))


def _outcome(seen: State, comm: str, trigger: str, since_ns: int, back_bytes: int) -> Tell:
    took = human_ns(seen.now_ns - since_ns)
    assert seen.memory is not None
    sentence = (
        f"{human_bytes(max(0, back_bytes))} came back within {took} of ending {plain(comm)}; "
        f"{human_bytes(seen.memory.available_bytes)} are available"
    )
    return Tell("outcome", sentence, seen.level, comm=comm, trigger=trigger)


# A survey, and the fate of victims.


def _surveyed(state: State, event: Surveyed, rules: Rules) -> tuple[State, tuple[Request, ...]]:
    memory = state.memory
    if memory is None:
        return state, ()
    shmem = event.holdings.shmem_bytes if event.holdings else memory.shmem_bytes
    seen = replace(
        state,
        census=count(state.census, event.now_ns, event.rows, shmem),
        survey_ns=event.now_ns,
        survey_cost_ns=max(0, event.now_ns - event.began_ns),
        holdings=event.holdings or state.holdings,
    )
    spared = seen.hunt.spared if isinstance(seen.hunt, Choosing) else frozenset()
    verdict = judge(event.rows, seen.census, memory, rules, spared=spared, holdings=seen.holdings)
    seen = replace(seen, prospect=_prospect(event.now_ns, verdict))
    if isinstance(seen.hunt, Choosing):
        return _decide(seen, seen.hunt, event, verdict, rules)
    if seen.warning and seen.prospect is not None:
        warning = _warning(seen, seen.warning, seen.prospect)
        told = replace(seen.told, warned_ns=seen.now_ns)
        return replace(seen, warning="", told=told), (warning,)
    return seen, ()


def _prospect(now_ns: int, verdict: object) -> Prospect:
    if isinstance(verdict, Chosen):
        part = verdict.part
        return Prospect(
            now_ns,
            part.root.id,
            part.root.comm,
            len(part.members),
            part.frees_bytes,
            verdict.why,
        )
    return Prospect(now_ns, None, "", 0, 0, str(getattr(verdict, "why", "")))


def _decide(
    seen: State, hunt: Choosing, event: Surveyed, verdict: object, rules: Rules
) -> tuple[State, tuple[Request, ...]]:
    memory = seen.memory
    assert memory is not None
    if _shared_to_blame(seen) and not hunt.shared:
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
        patience_ns = min(rules.grace_ns, left_ns // 2) if left_ns is not None else rules.grace_ns
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
    told = Tell(
        "decision",
        f"{force.value} by trigger {hunt.trigger}: {verdict.why}",
        seen.level,
        hunt.stage,
        part.root.id,
        part.root.comm,
        left_ns,
        hunt.trigger,
    )
    end = End(victims, force, verdict.why, part.root.comm, part.frees_bytes, cgroup, hunt.trigger)
    return replace(seen, hunt=ending), (told, end)


def _nobody(seen: State, hunt: Choosing, verdict: object) -> tuple[State, tuple[Request, ...]]:
    assert seen.memory is not None
    requests: tuple[Request, ...] = ()
    told = seen.told
    if _due(told.nobody_ns, seen.now_ns, NOBODY_REPEAT_NS):
        what = "futile" if getattr(verdict, "futile", False) else "nobody"
        why = str(getattr(verdict, "why", ""))
        requests = (Tell(what, why, seen.level, hunt.stage, trigger=hunt.trigger),)
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


def _gone(state: State, event: Gone, rules: Rules) -> tuple[State, tuple[Request, ...]]:
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


def _refused(state: State, event: Refused) -> tuple[State, tuple[Request, ...]]:
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
    return replace(state, hunt=choosing), (told, Survey(shared=_shared_to_blame(state)))


def _missed(state: State, event: Missed) -> tuple[State, tuple[Request, ...]]:
    hunt = state.hunt
    if event.what == "survey":
        # The cost of a failed survey is not known: wait as long as after a good one.
        state = replace(state, survey_ns=event.now_ns, warning="")
        if isinstance(hunt, Choosing):
            state = replace(state, hunt=replace(hunt, asked=False))
    return state, ()


def _shared_to_blame(state: State) -> bool:
    """Tell whether tmpfs and shared memory grew enough to look for who holds them."""
    if state.memory is None:
        return False
    grown = shmem_growth_bytes(state.census)
    return grown >= GROWTH_MIN_SHARE * state.memory.total_bytes


def _due(last_ns: int | None, now_ns: int, every_ns: int) -> bool:
    return last_ns is None or now_ns - last_ns >= every_ns
