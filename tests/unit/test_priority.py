"""The guard goes before everybody while there is no time to lose, and else with the others."""

import os

import pytest

from forestall.core.events import End
from forestall.core.pace import KEPT_NS, STARVED_NS, kept_waiting, urgent
from forestall.core.policy import step
from forestall.core.rules import DEFAULT_RULES
from forestall.core.state import Calm, Choosing, Ending, begin
from forestall.core.units import GIB, MS, SECOND
from forestall.effects.protect import raise_priority
from forestall.guard.priority import WITH_THE_OTHERS, Priority
from tests.fakes.builders import row, sampled, surveyed
from tests.system.test_relief import Bench as ReliefBench
from tests.unit.test_loop import Bench as LoopBench
from tests.unit.test_protect import ROOT, in_child

HOG, BYSTANDER = row(60, 9 * GIB, comm="hog"), row(62, GIB, comm="bystander")


def seen(*shares, every_ns=100 * MS):
    """A state that saw these shares of 16 GiB be available, one after the other."""
    state = begin(DEFAULT_RULES)
    for turn, share in enumerate(shares):
        event = sampled(1000 * SECOND + turn * every_ns, share)
        state, _ = step(state, event, DEFAULT_RULES)
    return state


def falling_to(share, step_share=0.004):
    """Memory that falls by so much of 16 GiB every 100 ms."""
    return seen(*[share + step_share * left for left in range(20, -1, -1)])


def test_it_goes_with_the_others_while_memory_is_ample():
    assert not urgent(seen(0.9, 0.9, 0.9), STARVED_NS - 1)
    assert not urgent(begin(DEFAULT_RULES), STARVED_NS - 1)


def test_it_hurries_when_what_is_left_lasts_for_a_moment_at_this_pace():
    """What is left of 172 MB lasts for 0.26 s, and it was 40 ms late."""
    fast, slow = falling_to(0.04), falling_to(0.04, step_share=0.0004)
    assert isinstance(fast.hunt, Calm)
    assert isinstance(slow.hunt, Calm)

    assert urgent(fast, 40 * MS)
    assert not urgent(slow, 40 * MS)


def test_who_gets_the_processor_when_it_asks_need_not_hurry():
    """On an idle machine as much as for a guard that is slow itself."""
    state = falling_to(0.0305)
    assert urgent(state, KEPT_NS)

    assert not urgent(state, KEPT_NS - 1)


def test_the_longer_it_was_kept_waiting_the_sooner_it_hurries():
    state = falling_to(0.04)

    assert not urgent(state, KEPT_NS)
    assert urgent(state, STARVED_NS - 1)


def test_parked_at_the_limit_it_does_not_hurry():
    """Nothing falls: it would keep a processor from everybody for as long as that lasts."""
    state = seen(*[0.0305] * 40)
    assert isinstance(state.hunt, Calm)

    assert not urgent(state, STARVED_NS - 1)


def test_who_is_starved_hurries_whatever_is_left():
    assert urgent(seen(0.9, 0.9), STARVED_NS)
    assert not urgent(seen(0.9, 0.9), STARVED_NS - 1)


def test_it_hurries_while_it_chooses_and_not_while_it_waits_for_a_death():
    rules = DEFAULT_RULES
    state, _ = step(begin(rules), sampled(1000 * SECOND, 0.01), rules)
    assert isinstance(state.hunt, Choosing)
    assert urgent(state, KEPT_NS)
    assert not urgent(state, KEPT_NS - 1)

    now_ns = 1000 * SECOND + 20 * MS
    state, requests = step(state, surveyed(now_ns, HOG, BYSTANDER), rules)
    assert isinstance(state.hunt, Ending)
    assert [one.victims for one in requests if isinstance(one, End)] == [(HOG.id,)]
    assert not urgent(state, KEPT_NS)
    assert urgent(state, STARVED_NS)


def test_waiting_is_remembered_at_its_worst_and_fades():
    kept_ns = kept_waiting(0, 80 * MS)
    assert kept_ns == 80 * MS
    assert kept_waiting(kept_ns, 90 * MS) == 90 * MS

    for _ in range(4):
        kept_ns = kept_waiting(kept_ns, 0)
    assert 40 * MS < kept_ns < 50 * MS


def test_a_late_turn_makes_it_hurry_and_some_punctual_ones_let_it_rest():
    bench = LoopBench(share=0.9).turn()
    assert not bench.loop.urgent()

    bench.now_ns += SECOND
    bench.loop.turn(bench.now_ns - 60 * MS)
    assert bench.loop.urgent()

    bench.turn().turn()
    assert not bench.loop.urgent()


def test_a_look_that_comes_too_late_is_a_turn():
    """Between two turns nobody settles the priority."""
    bench = LoopBench(share=0.06)
    bench.loop._ports.unmoved = lambda _rest: True
    for _ in range(8):
        bench.turn(SECOND)
    bench.loop.pause_ns()
    now_ns = bench.now_ns + MS
    assert bench.loop.still(now_ns, 0)

    assert bench.loop.still(now_ns, STARVED_NS - 1)
    assert not bench.loop.still(now_ns, STARVED_NS)


class Scheduler:
    """Grants a nice value or refuses, as setpriority does."""

    def __init__(self, least=-20):
        self.least = least
        self.now = 0
        self.asked = []

    def __call__(self, nice):
        self.asked.append(nice)
        if nice < min(self.now, self.least):
            return "not permitted"
        self.now = nice
        return None


def test_it_starts_with_the_others_and_changes_only_when_something_changes():
    scheduler = Scheduler()
    priority = Priority(-20, set_nice=scheduler)
    assert priority.find() is None
    assert scheduler.now == WITH_THE_OTHERS
    scheduler.asked.clear()

    for wanted in (False, True, True, False, False):
        priority.settle(urgent=wanted)

    assert scheduler.asked == [-20, WITH_THE_OTHERS]


def test_what_is_not_granted_is_said_and_never_asked_for_again():
    scheduler = Scheduler(least=0)
    scheduler.now = -20  # given by a service manager
    priority = Priority(-20, set_nice=scheduler)

    assert priority.find() == "not permitted"
    scheduler.asked.clear()
    priority.settle(urgent=True)
    assert scheduler.asked == []


@pytest.mark.parametrize("nice", [0, 5, 19])
def test_who_wants_no_priority_keeps_what_was_set(nice):
    scheduler = Scheduler()
    priority = Priority(nice, set_nice=scheduler)
    assert priority.find() is None
    priority.settle(urgent=True)
    priority.settle(urgent=False)

    assert scheduler.now == nice
    assert set(scheduler.asked) == {nice}


@ROOT
def test_the_kernel_lets_it_go_to_and_fro():
    def there_and_back():
        priority = Priority(-20, set_nice=raise_priority)
        refusal = priority.find()
        rested = os.getpriority(os.PRIO_PROCESS, 0)
        priority.settle(urgent=True)
        hurried = os.getpriority(os.PRIO_PROCESS, 0)
        priority.settle(urgent=False)
        return refusal, rested, hurried, os.getpriority(os.PRIO_PROCESS, 0)

    assert in_child(there_and_back) == "(None, 0, -20, 0)"


def test_relief_goes_before_everybody_while_it_helps_and_not_a_moment_longer(tmp_path):
    """A victim is helped because it is starved of a processor; relief must not be as well."""
    diary = []
    bench = ReliefBench(tmp_path, lambda _fd: diary.append("help") or 0)
    bench.relief._hurry = lambda *, urgent: diary.append(urgent)
    fd, writer = os.pipe()
    bench.ask(({"op": "reap", "killed_ns": 0}, fd))
    os.close(fd)
    os.close(writer)

    assert diary == [True, "help", False]


def test_relief_goes_with_the_others_again_when_helping_fails(tmp_path):
    def refuse(_fd):
        raise OSError(1, "no")

    diary = []
    bench = ReliefBench(tmp_path, refuse)
    bench.relief._hurry = lambda *, urgent: diary.append(urgent)
    fd, writer = os.pipe()
    (answer,) = bench.ask(({"op": "reap", "killed_ns": 0}, fd))
    os.close(fd)
    os.close(writer)

    assert answer["op"] == "failed"
    assert diary == [True, False]
