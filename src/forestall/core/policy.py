"""When to act, on whom, and what comes next. Pure: no clock, no files, no log.

A sample updates what is known (trail, level, triggers); a survey updates who is
to blame; the hunt (``core.hunt``) takes it from there.

Rule 1: every change of state is in step(). Rule 2: time enters only with an
event. These two make production, dry run, replay and simulation one code.
"""

from __future__ import annotations

from forestall.core.census import count
from forestall.core.decide import decide, due, shared_to_blame
from forestall.core.events import (
    Declined,
    Gone,
    Missed,
    Refused,
    Relieve,
    Relieved,
    Reset,
    Sampled,
    Survey,
    Surveyed,
    Tell,
    Watched,
)
from forestall.core.foregone import conclude
from forestall.core.groups import look_inside, watched
from forestall.core.hunt import gone, missed, pursue, refused
from forestall.core.judge import Chosen, judge
from forestall.core.model import Force, Level, Memory, Stage
from forestall.core.pace import survey_due
from forestall.core.signals import (
    acting_ceiling_bytes,
    all_hold,
    amounts,
    ceiling_bytes,
    level_of,
    levels_bytes,
    still_ns,
)
from forestall.core.state import Calm, Ceilings, Choosing, Prospect, Settling, State, afresh
from forestall.core.trend import POINT_NS, extend, headroom_bytes, time_left_ns
from forestall.core.units import MS, SECOND, human_bytes, human_ns, human_share
from forestall.core.value import TYPE_CHECKING, build, replace

if TYPE_CHECKING:
    from forestall.core.events import Event, Request
    from forestall.core.judge import Verdict
    from forestall.core.rules import Rules, Trigger

KERNEL_SETTLE_NS = 500 * MS
"""How long a victim of the kernel's own killer may take; it came late and may come again."""
CRITICAL_REPEAT_NS = 1 * SECOND
RELIEVE_REPEAT_NS = 60 * SECOND
RECLAIM = "reclaim"
"""What relief does when a trigger does not say."""
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
            return gone(state, event, rules)
        case Refused():
            return refused(state, event)
        case Missed():
            return missed(state, event)
        case Watched():
            return watched(state, event, rules)
        case Reset():
            return afresh(state, rules), ()
        case Relieved(_, action, gained_bytes, sentence):
            told = sentence or f"{action} gave back {human_bytes(gained_bytes)}"
            return state, (Tell("relieved", told, state.level),)
        case Declined(_, action, why):
            return state, (Tell("declined", f"{action} was not done: {why}", state.level),)


def _sampled(state: State, event: Sampled, rules: Rules) -> tuple[State, tuple[Request, ...]]:
    now_ns, memory = event.now_ns, event.memory
    ceilings = _ceilings(state.ceilings, memory, rules)
    points = state.trail.points
    falling_ns = state.falling_ns
    if points and _falls_fast(points[-1].now_ns, points[-1].headroom_bytes, now_ns, memory):
        falling_ns = now_ns
    fields = (
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
        state.groups,
        state.within,
        state.dying,
        state.others,
        state.ends,
        state.conclusion,
    )
    seen = build(State, fields)
    requests: list[Request] = []
    if memory.available_bytes <= ceilings.levels_bytes or seen.level is not Level.NORMAL:
        seen = _level(seen, memory, rules, requests)
    if event.activity is not None and state.activity is not None:
        seen = _kernel_kills(state, seen, requests)
    if memory.available_bytes < ceilings.any_bytes:
        seen = _triggers(seen, memory, rules, requests)
    else:
        seen = _out_of_reach(seen, rules, requests)
    if isinstance(seen.hunt, Calm) and survey_due(seen, now_ns):
        # Asked for once; the answer, or its failure, comes before the next sample.
        requests.append(Survey(shared=shared_to_blame(seen)))
    return seen, tuple(requests)


def _falls_fast(then_ns: int, then_bytes: int, now_ns: int, memory: Memory) -> bool:
    lost_bytes = then_bytes - memory.available_bytes - memory.swap_usable_bytes
    # At least the distance of two points: the kernel counts in batches for each processor, and
    # over a tick of 10 ms their jitter alone would be a fast fall.
    span_ns = max(now_ns - then_ns, POINT_NS)
    return lost_bytes * SECOND > FALL_SHARE_PER_S * memory.total_bytes * span_ns


def _ceilings(ceilings: Ceilings | None, memory: Memory, rules: Rules) -> Ceilings:
    total, swap_total = memory.total_bytes, memory.swap_total_bytes
    if (
        ceilings is not None
        and ceilings.total_bytes == total
        and ceilings.swap_total_bytes == swap_total
    ):
        return ceilings
    return Ceilings(
        total,
        swap_total,
        ceiling_bytes(rules, memory),
        acting_ceiling_bytes(rules, memory),
        amounts(rules, memory),
        levels_bytes(rules, memory),
        still_ns(rules),
    )


def _level(seen: State, memory: Memory, rules: Rules, requests: list[Request]) -> State:
    level = level_of(memory, seen.level, rules)
    told = seen.told
    again = level is Level.CRITICAL and due(told.critical_ns, seen.now_ns, CRITICAL_REPEAT_NS)
    if level is seen.level and not again:
        return seen
    sentence = (
        f"memory is {level.value}: {human_share(memory.used_share)} used, "
        f"{human_bytes(memory.available_bytes)} available"
    )
    what = "level" if level is not seen.level else "critical"
    requests.append(Tell(what, sentence, level))
    return replace(seen, level=level, told=replace(told, critical_ns=seen.now_ns))


def _kernel_kills(state: State, seen: State, requests: list[Request]) -> State:
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
            seen.now_ns + KERNEL_SETTLE_NS,
            0,
            headroom_bytes(seen.memory),
            spared,
            foreign=True,
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
    # The hunt first: what it asks for must not wait for a warning's words, or its survey.
    seen = pursue(seen, acting, rules, requests)
    return _mild_stages(seen, fired, rules, requests)


def _out_of_reach(seen: State, rules: Rules, requests: list[Request]) -> State:
    if seen.holding.count(None) != len(seen.holding):
        seen = replace(seen, holding=(None,) * len(rules.triggers))
    if isinstance(seen.hunt, Calm):
        return seen
    return pursue(seen, None, rules, requests)


def _mild_stages(seen: State, fired: list[Trigger], rules: Rules, requests: list[Request]) -> State:
    relieve = due(seen.told.relieve_ns, seen.now_ns, RELIEVE_REPEAT_NS)
    for trigger in fired:
        if trigger.stage is Stage.WARN and due(
            seen.told.warned_ns, seen.now_ns, rules.warn_repeat_ns
        ):
            seen = _warn(seen, trigger.name, requests)
        elif trigger.stage is Stage.RELIEVE and relieve:
            # All that hold at this moment, so that one does not keep another from its turn.
            requests.append(Relieve(trigger.action or RECLAIM, f"trigger {trigger.name}"))
            seen = replace(seen, told=replace(seen.told, relieve_ns=seen.now_ns))
    return seen


def _warn(seen: State, trigger: str, requests: list[Request]) -> State:
    prospect = seen.prospect
    if prospect is None or seen.now_ns - prospect.now_ns > SECOND:
        # Who it would be is not known well enough: look first, warn with the answer. A hunt
        # looks by itself, and a second survey would only delay it.
        if not isinstance(seen.hunt, Calm):
            return seen
        if not seen.warning:
            requests.append(Survey(shared=shared_to_blame(seen)))
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


def _surveyed(state: State, event: Surveyed, rules: Rules) -> tuple[State, tuple[Request, ...]]:
    memory = state.memory
    if memory is None:
        return state, ()
    shmem = event.holdings.shmem_bytes if event.holdings else memory.shmem_bytes
    seen = replace(
        state,
        census=count(
            *(state.census, event.now_ns, event.rows, shmem),
            shared=event.shared,
            groups=event.groups,
        ),
        survey_ns=event.now_ns,
        survey_cost_ns=max(0, event.now_ns - event.began_ns - event.paused_ns),
        holdings=event.holdings or state.holdings,
    )
    spared = seen.hunt.spared if isinstance(seen.hunt, Choosing) else frozenset()
    # Who has been killed already cannot be ended any more than that.
    killed = (ending.left for ending in seen.dying if ending.force is Force.KILL)
    spared = spared.union(*killed)
    verdict = judge(event.rows, seen.census, memory, rules, spared=spared, holdings=seen.holdings)
    seen = replace(
        seen,
        prospect=_prospect(event.now_ns, verdict, calm=_ample(seen)),
        conclusion=conclude(seen, event, verdict),
    )
    if isinstance(seen.hunt, Choosing):
        return decide(seen, seen.hunt, event, verdict, rules)
    seen, inside = look_inside(seen, event, rules)
    if seen.warning and seen.prospect is not None:
        warning = _warning(seen, seen.warning, seen.prospect)
        told = replace(seen.told, warned_ns=seen.now_ns)
        return replace(seen, warning="", told=told), (*inside, warning)
    return seen, inside


def _ample(seen: State) -> bool:
    return (
        seen.memory is not None
        and seen.ceilings is not None
        and seen.memory.available_bytes >= seen.ceilings.any_bytes
    )


def _prospect(now_ns: int, verdict: Verdict, *, calm: bool) -> Prospect:
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
    # On an idle machine nobody is large enough to matter: no cause for alarm.
    why = "nobody is large enough to matter, and nobody needs to go" if calm else verdict.why
    return Prospect(now_ns, None, "", 0, 0, why)
