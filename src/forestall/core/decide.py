"""A verdict acted on: whom the hunt ends, whom it waits for instead, and what is said. Pure.

Rule: the End is asked for first and told of after; and nobody is chosen while
the memory of somebody who goes already may be enough.
"""

from __future__ import annotations

from forestall.core.census import shmem_growth_bytes
from forestall.core.events import End, Survey, Tell
from forestall.core.judge import GROWTH_MIN_SHARE, MIN_FREES_BYTES, Chosen
from forestall.core.managers import system_unit, unit_to_tell
from forestall.core.model import Force, Stage
from forestall.core.others import wait_for_others
from forestall.core.repeats import advice, note_end, repeat_clause
from forestall.core.state import Ending, Settling, without
from forestall.core.trend import headroom_bytes, surge_left_ns, time_left_ns
from forestall.core.units import MS, SECOND
from forestall.core.value import TYPE_CHECKING, replace

if TYPE_CHECKING:
    from forestall.core.events import Request, Surveyed
    from forestall.core.families import Part
    from forestall.core.judge import Nobody, Verdict
    from forestall.core.model import Memory, ProcessId
    from forestall.core.rules import Rules
    from forestall.core.state import Choosing, State

DOOM_NS = 500 * MS
"""With less time left than this nobody is asked politely."""
HOPELESS_NS = 2 * SECOND
"""How long to leave things alone when nobody is suitable."""
NOBODY_REPEAT_NS = 30 * SECOND
ASKED_NS = 60 * SECOND
"""Who was asked to end within this, and did not, is not asked a second time."""


def decide(
    seen: State, hunt: Choosing, event: Surveyed, verdict: Verdict, rules: Rules
) -> tuple[State, tuple[Request, ...]]:
    """Act on a verdict, or ask for what it still lacks."""
    before = _before(seen, hunt, event)
    if before is not None:
        return replace(seen, hunt=before, dying=without(seen.dying, before.left)), ()
    waiting = wait_for_others(seen, hunt, event, rules)
    if waiting is not None:
        return waiting
    if shared_to_blame(seen) and not event.shared and not hunt.shared:
        # Processes do not explain the growth: find who holds shared memory before judging.
        return replace(seen, hunt=replace(hunt, shared=True)), (Survey(shared=True),)
    if not isinstance(verdict, Chosen):
        return _nobody(seen, hunt, verdict)
    unit = unit_to_tell(verdict.part, event.rows)
    return end(seen, hunt, event.now_ns, verdict, unit, rules)


def end(  # noqa: PLR0913 - what a survey says, without the survey
    seen: State,
    hunt: Choosing,
    now_ns: int,
    verdict: Chosen,
    unit: str,
    rules: Rules,
    *,
    least_bytes: int = 0,
) -> tuple[State, tuple[Request, ...]]:
    """End what was chosen, and say why.

    Args:
        unit: Whose manager is to be told that it ends; empty for none.
        least_bytes: See ``End``.
    """
    assert seen.memory is not None
    part = verdict.part
    left_ns = time_left_ns(seen.trail, seen.now_ns, seen.memory)
    ending = _ending(seen, hunt, now_ns, part, left_ns, rules)
    seen, ended = note_end(seen, part, now_ns)
    again = repeat_clause(ended)
    why = f"{verdict.why}; {again}" if again else verdict.why
    told = Tell(
        "decision",
        f"{ending.force.value} by trigger {hunt.trigger}: {why}",
        seen.level,
        hunt.stage,
        part.root.id,
        part.root.comm,
        left_ns,
        hunt.trigger,
        system_unit(part.root.cgroup),
    )
    ordered = End(
        ending.victims,
        ending.force,
        why,
        ending.comm,
        ending.expected_bytes,
        ending.cgroup,
        hunt.trigger,
        unit,
        least_bytes,
    )
    # The end first: telling allocates in the kernel, and near the limit an allocation waits
    # (0.8 s measured in a fork storm). It is on record already.
    requests: tuple[Request, ...] = (ordered, told)
    if again:
        looping = f"{again}: {advice(ended)}"
        requests += (replace(told, what="restart-loop", sentence=looping),)
    dying = without(seen.dying, ending.left)
    return replace(seen, hunt=ending, dying=dying, conclusion=None), requests


def _ending(
    seen: State, hunt: Choosing, now_ns: int, part: Part, left_ns: int | None, rules: Rules
) -> Ending:
    memory = seen.memory
    assert memory is not None
    doomed = left_ns is not None and left_ns < DOOM_NS
    victims = tuple(row.id for row in part.members)
    firm = hunt.stage is Stage.KILL or doomed or _asked(seen, victims, now_ns)
    patience_ns = rules.kill_patience_ns if firm else _grace_ns(seen, memory, left_ns, rules)
    return Ending(
        victims,
        frozenset(victims),
        Force.KILL if firm else Force.TERM,
        hunt.trigger,
        part.root.comm,
        part.cgroup if rules.unit_kill else "",
        now_ns,
        now_ns + patience_ns,
        part.frees_bytes,
        headroom_bytes(memory),
        hunt.spared,
    )


def _asked(seen: State, victims: tuple[ProcessId, ...], now_ns: int) -> bool:
    # Its time to end by itself is over, whatever memory did meanwhile: nobody is asked twice.
    return any(
        ending.force is Force.TERM
        and ending.left.issuperset(victims)
        and now_ns - ending.since_ns < ASKED_NS
        for ending in seen.dying
    )


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
        share_bytes = ending.expected_bytes * len(here) // max(1, len(ending.victims))
        if filler or held_bytes >= max(MIN_FREES_BYTES, share_bytes // 8):
            assert seen.memory is not None
            return replace(
                ending,
                trigger=hunt.trigger,
                expected_bytes=held_bytes,
                before_bytes=headroom_bytes(seen.memory),
                spared=ending.spared | hunt.spared,
            )
    return None


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


def shared_to_blame(state: State) -> bool:
    """Tell whether tmpfs and shared memory grew enough to look for who holds them."""
    if state.memory is None:
        return False
    grown = shmem_growth_bytes(state.census)
    return grown >= GROWTH_MIN_SHARE * state.memory.total_bytes


def due(last_ns: int | None, now_ns: int, every_ns: int) -> bool:
    """Tell whether something may be told again."""
    return last_ns is None or now_ns - last_ns >= every_ns
