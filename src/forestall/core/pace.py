"""How long the guard may sleep, and how often it may look at processes.

The sleep is the time in which the fastest imaginable hog could use up what is
left above the point of action: 16 GiB/s, measured for huge pages on one core at
12. Floors keep a machine parked at its limit from burning a core; they give way
as soon as headroom is seen to fall. Surveys are paced by their own measured
cost, so that a machine with ten thousand processes spends no more on them than
a small one.
"""

from __future__ import annotations

from forestall.core.groups import WATCH_NEAR_NS, is_near
from forestall.core.model import Force
from forestall.core.state import Calm, Choosing, Ending
from forestall.core.units import GIB, MS, SECOND
from forestall.core.value import TYPE_CHECKING

if TYPE_CHECKING:
    from forestall.core.model import Memory
    from forestall.core.rules import Rules
    from forestall.core.state import Ceilings, State

FILL_BYTES_PER_S = 16 * GIB
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

ACTIVITY_CALM_NS = 1 * SECOND
ACTIVITY_WATCH_NS = 100 * MS

# Shares of one core that surveys may cost, and the least time between two of them.
SURVEY_CALM = (0.0001, 60 * SECOND)
SURVEY_WATCH = (0.001, 2 * SECOND)
SURVEY_NEAR = (0.0015, 1 * SECOND)
SURVEY_FALLING = (0.05, 100 * MS)


def pause_ns(state: State, rules: Rules) -> int:
    """Return how long to wait for the next sample, between 1 ms and the interval."""
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
    wait_ns = max(0, room_bytes) * SECOND // FILL_BYTES_PER_S
    longest_ns = rules.interval_ns
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
    if not flows:
        return True
    memory = state.memory
    ceilings = state.ceilings
    watch = not isinstance(state.hunt, Calm) or (
        memory is not None
        and ceilings is not None
        and memory.available_bytes < max(ceilings.any_bytes, ceilings.acting_bytes)
    )
    return now_ns - flows[-1].now_ns >= (ACTIVITY_WATCH_NS if watch else ACTIVITY_CALM_NS)


def survey_due(state: State, now_ns: int) -> bool:
    """Tell whether it is time to look at processes, so that blame is known when it is needed."""
    memory = state.memory
    ceilings = state.ceilings
    if memory is None or ceilings is None:
        return False
    since_ns = now_ns - state.survey_ns
    if state.survey_ns and since_ns < SURVEY_FALLING[1]:
        return False
    if falling(state):
        share, least_ns = SURVEY_FALLING
    elif memory.available_bytes < ceilings.any_bytes:
        share, least_ns = SURVEY_NEAR
    elif memory.available_bytes < memory.total_bytes // 2:
        share, least_ns = SURVEY_WATCH
    else:
        share, least_ns = SURVEY_CALM
    return not state.survey_ns or since_ns >= max(least_ns, int(state.survey_cost_ns / share))
