"""How long the guard may sleep, and how often it may look at processes.

The sleep is the time in which the fastest imaginable hog could use up what is
left above the point of action: 16 GiB/s, measured for huge pages on one core at
12, or less where the machine was found to be slower (``kernel.fill``). Floors
keep a machine parked at its limit from burning a core; they give way as soon as
headroom is seen to fall. Surveys are paced by their own measured cost, so that a
machine with ten thousand processes spends no more on them than a small one, and
by what there is to find out: while nothing is used up, nobody is to blame for it.

Between two sleeps memory is looked at; the policy is asked only where the look
shows something new (``rest``). A look costs half of what asking costs.
"""

from __future__ import annotations

from bisect import bisect_left

from forestall.core.groups import WATCH_NEAR_NS, is_near
from forestall.core.model import Force, Stage
from forestall.core.state import Calm, Choosing, Ending
from forestall.core.trend import falling_per_s, headroom_bytes, stall_share
from forestall.core.units import GIB, MS, SECOND
from forestall.core.value import TYPE_CHECKING, value

if TYPE_CHECKING:
    from forestall.core.events import Sampled
    from forestall.core.model import Memory
    from forestall.core.rules import Rules
    from forestall.core.state import Ceilings, State
    from forestall.core.trend import Trail

FILL_BYTES_PER_S = 16 * GIB
"""Faster no machine is taken to be, and this fast one that could not be measured."""
FALLING_NS = 2 * SECOND
"""A fall is remembered this long."""
FLOOR_FALLING_NS = 1 * MS
FLOOR_NEAR_NS = 30 * MS
FLOOR_FAR_NS = 100 * MS
DECIDING_NS = 5 * MS
WAITING_NS = 20 * MS
"""After SIGKILL there is nothing to do but wait: the pidfd wakes us, and every tick takes a
processor from those who wait for this death."""
STALL_NS = 25 * MS
"""Sampling for triggers with windows: forty times a second is finer than any of them."""
NEAR_SHARE = 0.05
STILL_PART = 16
"""A sixteenth of the room may go before the policy is asked. The sleep was reckoned with all of
it, so this stretches 16 GiB/s to 15; the fastest hog that was measured makes 12."""

ASIDE_AFTER_NS = 4 * MS
"""A survey that has kept the processor so long stands aside, if there is time for that."""
ASIDE_NS = 12 * MS
ASIDE_NS_MAX = 2 * SECOND
"""In one survey; whoever weighs ten thousand processes on a slow machine gets done with it."""

KEPT_NS = 10 * MS
"""Kept waiting less than this for a processor, the guard has no reason to go before everybody."""
KEPT_TIMES = 8
"""It does when the room lasts no longer than so many times what it was last kept waiting, at the
pace of the last half second."""
STARVED_NS = 50 * MS
"""Kept waiting so long it goes before everybody, whatever room is left."""
KEPT_PART = 8
"""An eighth of what is remembered of the waiting is forgotten with each wake-up."""

ACTIVITY_CALM_NS = 1 * SECOND
ACTIVITY_WATCH_NS = 100 * MS

# Shares of one core that surveys may cost, and the least time between two of them.
SURVEY_CALM = (0.0001, 60 * SECOND)
SURVEY_STILL = (0.0002, 10 * SECOND)
"""Near a ceiling, with nothing used up since the last one: all on watch may cost 0.15 %."""
SURVEY_WATCH = (0.001, 2 * SECOND)
SURVEY_NEAR = (0.0015, 1 * SECOND)
SURVEY_FALLING = (0.05, 100 * MS)
SURVEY_STALLED = (0.1, 1 * SECOND)
"""While somebody waits for memory each survey takes longer than the one before, most of it in
waiting: what it finds now saves the one that would be needed at the worst moment."""
STALLED_NS = 1 * SECOND
STALLED_SHARE = 0.1
FALLING_LEFT_S = 10
"""Surveys hurry when the room lasts no longer than this at the pace of the last two seconds:
time for a hundred of them, or four on a machine with ten thousand processes. A build that takes
200 MiB at once while 20 GiB are left is nobody's hurry; it made surveys cost 0.5 % of a core."""
USED_UP_SHARE = 0.005
"""So much of memory gone since the last survey is worth another: 80 MiB on a 16 GiB machine."""


@value
class Rest:
    """What may be seen without asking the policy: it would do nothing and learn next to nothing."""

    until_ns: int
    available_bytes: int
    """Less than this asks."""
    swap_bytes: int
    """Less usable free swap than this asks."""
    some_us: int | None
    """Any other sum of stalls asks: somebody waits for memory."""


def pause_ns(state: State, rules: Rules, fill_per_s: int = FILL_BYTES_PER_S) -> int:
    """Return how long to wait for the next sample, between 1 ms and the interval.

    Args:
        fill_per_s: Bytes that this machine can use up in a second at most.
    """
    match state.hunt:
        case Calm():
            pass
        case Choosing():
            return FLOOR_FALLING_NS
        case Ending(force=Force.TERM):
            return DECIDING_NS
        case _:
            return WAITING_NS
    memory = state.memory
    ceilings = state.ceilings
    if memory is None or ceilings is None:
        return rules.interval_ns
    room_bytes = _room_bytes(memory, ceilings)
    wait_ns = max(0, room_bytes) * SECOND // fill_per_s
    longest_ns = rules.interval_ns
    if wait_ns >= longest_ns and memory.available_bytes >= ceilings.acting_bytes:
        return longest_ns
    if memory.available_bytes < ceilings.acting_bytes:
        # Triggers that look at stalls may hold: their windows are seconds long.
        longest_ns = min(longest_ns, STALL_NS)
    if rules.kill_within_cgroup and state.groups and is_near(state):
        longest_ns = min(longest_ns, WATCH_NEAR_NS)
    if falling(state):
        floor_ns = FLOOR_FALLING_NS
    elif room_bytes < NEAR_SHARE * memory.total_bytes:
        floor_ns = FLOOR_NEAR_NS
    else:
        floor_ns = FLOOR_FAR_NS
    return max(min(wait_ns, longest_ns), min(floor_ns, longest_ns))


def _room_bytes(memory: Memory, ceilings: Ceilings) -> int:
    """Return what may still be used up before some trigger ends somebody for amounts alone."""
    room_bytes = memory.total_bytes
    for available_bytes, swap_bytes in ceilings.amounts:
        # Both must be short, so the longer way counts.
        left_bytes = memory.available_bytes - available_bytes
        if memory.swap_total_bytes:
            left_bytes = max(left_bytes, memory.swap_usable_bytes - swap_bytes)
        room_bytes = min(room_bytes, left_bytes)
    return room_bytes


def falling(state: State) -> bool:
    """Tell whether headroom was seen to fall fast within the last moments."""
    return state.falling_ns > 0 and state.now_ns - state.falling_ns < FALLING_NS


def wants_activity(state: State, now_ns: int) -> bool:
    """Tell whether the next sample should read vmstat, which costs more than all else."""
    flows = state.trail.flows
    since_ns = now_ns - flows[-1].now_ns if flows else ACTIVITY_CALM_NS
    if since_ns >= ACTIVITY_CALM_NS:
        return True
    if since_ns < ACTIVITY_WATCH_NS:
        return False
    memory = state.memory
    ceilings = state.ceilings
    return not isinstance(state.hunt, Calm) or (
        memory is not None
        and ceilings is not None
        and memory.available_bytes < max(ceilings.any_bytes, ceilings.acting_bytes)
        # Without a stall no trigger that reads vmstat can hold, unless it asks for no stall.
        and not (ceilings.still_ns and _stall_free(state.trail))
    )


def rest(state: State, rules: Rules) -> Rest | None:
    """Say what need not be told to the policy after this state; None: tell it everything.

    Only in calm, with headroom that does not fall. Then the policy's answer to an unchanged
    memory depends on time alone, and what time alone brings can wait for ``until_ns``:
    warnings, surveys, a level told again. Whoever may end somebody cannot wait and does not:

    - triggers for amounts alone are further away than the room, of which a sixteenth may go;
    - triggers that look further need a stall (``still_ns`` is 0 where one does not), and any
      stall asks. They also need available memory below ``acting_bytes``: to cross it asks,
      and below it nothing is kept while a stall is remembered;
    - one that holds already is told everything.

    Windows stay filled: ``still_ns`` is shorter than half of the shortest.
    """
    memory, ceilings, trail = state.memory, state.ceilings, state.trail
    if memory is None or ceilings is None or not trail.points or falling(state):
        return None
    if not isinstance(state.hunt, Calm) or state.warning:
        return None
    if rules.kill_within_cgroup and is_near(state):
        return None
    room_bytes = _room_bytes(memory, ceilings)
    if room_bytes <= 0:
        return None
    available_bytes, swap_bytes = memory.available_bytes, memory.swap_usable_bytes
    least_bytes = available_bytes - room_bytes // STILL_PART
    swap_least_bytes = swap_bytes - room_bytes // STILL_PART
    kept_ns = rules.interval_ns
    if available_bytes >= ceilings.any_bytes:
        least_bytes = max(least_bytes, ceilings.any_bytes)
    else:
        kept_ns = min(kept_ns, ceilings.still_ns)
        if available_bytes >= ceilings.acting_bytes:
            least_bytes = max(least_bytes, ceilings.acting_bytes)
        elif not _stall_free(trail) or _acting_holds(state, rules):
            return None
    if kept_ns <= 0:
        return None
    some_us = trail.points[-1].some_us
    return Rest(state.now_ns + kept_ns, least_bytes, swap_least_bytes, some_us)


def leisure(state: State, fill_per_s: int = FILL_BYTES_PER_S) -> Rest | None:
    """Say what must hold while a survey stands aside for others; None: there is no time for that.

    Half of the room may go before it hurries, and no machine uses that up between two looks.
    """
    memory, ceilings, points = state.memory, state.ceilings, state.trail.points
    if memory is None or ceilings is None or not points or held_up(state):
        return None
    spare_bytes = _room_bytes(memory, ceilings) // 2
    if not isinstance(state.hunt, Calm) or spare_bytes * SECOND < ASIDE_NS * fill_per_s:
        return None
    return Rest(
        state.now_ns + ASIDE_NS_MAX,
        memory.available_bytes - spare_bytes,
        memory.swap_usable_bytes - spare_bytes,
        points[-1].some_us,
    )


def urgent(state: State, kept_ns: int) -> bool:
    """Tell whether the guard should go before everybody else on the processors.

    Not always: to the scheduler one task of nice -20 weighs as much as 86 of nice 0, so that it
    clears a whole processor for a guard that is busy for a twentieth of the time. In a guest of
    two processors a service stood still for 90 ms beside a busy guard, and for 0.9 s in a thrash.

    Args:
        kept_ns: How late the last wake-ups were, see ``kept_waiting``.

    Source: kernel/sched/core.c, sched_prio_to_weight; kernel/sched/fair.c, load balance.
    """
    if kept_ns < KEPT_NS or kept_ns >= STARVED_NS:
        return kept_ns >= STARVED_NS
    memory, ceilings = state.memory, state.ceilings
    if not isinstance(state.hunt, Calm) or memory is None or ceilings is None:
        return isinstance(state.hunt, Choosing)
    pace = falling_per_s(state.trail, state.now_ns, headroom_bytes(memory), SECOND // 2)
    return pace * KEPT_TIMES * kept_ns > max(0, _room_bytes(memory, ceilings)) * SECOND


def kept_waiting(kept_ns: int, late_ns: int) -> int:
    """Remember how late wake-ups were: the worst, fading with each one."""
    return max(late_ns, kept_ns - kept_ns // KEPT_PART)


def nothing_new(rest: Rest, event: Sampled) -> bool:
    """Tell whether a look may be kept from the policy; its time is for the caller to watch."""
    memory = event.memory
    if (
        memory.available_bytes < rest.available_bytes
        or memory.swap_usable_bytes < rest.swap_bytes
        or event.activity is not None
    ):
        return False
    pressure = event.pressure
    return (pressure.some_us if pressure is not None else None) == rest.some_us


def _stall_free(trail: Trail) -> bool:
    """Whether no task waited for memory for as long as anything is remembered."""
    points = trail.points
    return bool(points) and points[0].some_us == points[-1].some_us


def _acting_holds(state: State, rules: Rules) -> bool:
    if state.holding.count(None) == len(state.holding):
        return False
    return any(
        since is not None and trigger.stage.rank >= Stage.TERMINATE.rank
        for trigger, since in zip(rules.triggers, state.holding, strict=True)
    )


def survey_due(state: State, now_ns: int) -> bool:
    """Tell whether it is time to look at processes, so that blame is known when it is needed."""
    since_ns = now_ns - state.survey_ns
    if state.survey_ns and since_ns < SURVEY_FALLING[1]:
        return False
    memory = state.memory
    ceilings = state.ceilings
    if memory is None or ceilings is None:
        return False
    if falling(state) and _short_of_time(state, memory, ceilings):
        share, least_ns = SURVEY_FALLING
    elif falling(state) and held_up(state):
        share, least_ns = SURVEY_STALLED
    elif memory.available_bytes < ceilings.any_bytes:
        share, least_ns = SURVEY_NEAR if _used_up(state, memory) else SURVEY_STILL
    elif memory.available_bytes < memory.total_bytes // 2 and _used_up(state, memory):
        share, least_ns = SURVEY_WATCH
    else:
        share, least_ns = SURVEY_CALM
    return not state.survey_ns or since_ns >= max(least_ns, int(state.survey_cost_ns / share))


def _short_of_time(state: State, memory: Memory, ceilings: Ceilings) -> bool:
    headroom = headroom_bytes(memory)
    pace = falling_per_s(state.trail, state.now_ns, headroom, FALLING_NS)
    return pace * FALLING_LEFT_S > _room_bytes(memory, ceilings)


def held_up(state: State) -> bool:
    """Tell whether memory is short and waited for: then a read that needs any of it waits as well.

    What no decision needs is left for later: a look at control groups held a guard up for
    1.7 s in the middle of a thrash.
    """
    memory, ceilings = state.memory, state.ceilings
    if memory is None or ceilings is None or memory.available_bytes >= ceilings.acting_bytes:
        return False
    stall = stall_share(state.trail, state.now_ns, STALLED_NS, full=False)
    return stall is not None and stall >= STALLED_SHARE


def _used_up(state: State, memory: Memory) -> bool:
    """Whether enough has gone since the last survey that somebody is to blame for it."""
    marks = state.trail.marks
    if not marks:
        return False
    # What is not remembered as far back as the survey is compared with the oldest that is.
    index = bisect_left(marks, (state.survey_ns,))
    then_bytes = marks[min(index, len(marks) - 1)][1]
    return then_bytes - headroom_bytes(memory) > USED_UP_SHARE * memory.total_bytes
