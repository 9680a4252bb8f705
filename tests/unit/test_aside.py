"""A long survey leaves the processor to others, unless memory moves; a short one never does."""

import pytest

from forestall.core.pace import (
    ASIDE_AFTER_NS,
    ASIDE_NS,
    ASIDE_NS_MAX,
    FILL_BYTES_PER_S,
    Rest,
    leisure,
)
from forestall.core.policy import step
from forestall.core.rules import DEFAULT_RULES
from forestall.core.standing import Matcher
from forestall.core.state import Choosing, begin
from forestall.core.units import GIB, MIB, MS, SECOND
from forestall.core.value import replace
from forestall.guard.aside import Aside
from forestall.kernel.processes import ProcessTable
from tests.fakes.builders import row, sampled, surveyed
from tests.fakes.proc import FakeProc

AMPLE = Rest(10 * SECOND, 8 * GIB, 0, 0)


class Bench:
    """A clock, a machine whose memory can move, and what was slept."""

    def __init__(self, rest=AMPLE):
        self.now_ns = 0
        self.available_share = 0.9
        self.some_us = 0
        self.pauses = []
        self.aside = Aside(rest, now_ns=lambda: self.now_ns, sample=self.sample, pause=self.pause)

    def sample(self, now_ns, with_activity):
        assert not with_activity
        return sampled(now_ns, self.available_share, some_us=self.some_us)

    def pause(self, milliseconds):
        self.pauses.append(milliseconds)
        self.now_ns += milliseconds * MS

    def work(self, total_ns, step_ns=MS):
        """Work so long, as a survey does: a little, and a breath."""
        for _ in range(total_ns // step_ns):
            self.now_ns += step_ns
            self.aside()


def test_a_short_survey_does_not_pause():
    bench = Bench()
    bench.work(ASIDE_AFTER_NS - MS)

    assert bench.pauses == []
    assert bench.aside.paused_ns == 0


def test_a_long_one_pauses_again_and_again_and_says_for_how_long():
    bench = Bench()
    bench.work(5 * ASIDE_AFTER_NS)

    assert bench.pauses == [ASIDE_NS // MS] * 5
    assert bench.aside.paused_ns == 5 * ASIDE_NS


def test_it_hurries_when_memory_falls():
    bench = Bench()
    bench.available_share = 0.4
    bench.work(5 * ASIDE_AFTER_NS)

    assert len(bench.pauses) == 1


def test_it_hurries_when_somebody_waits_for_memory():
    bench = Bench()
    bench.some_us = 1
    bench.work(5 * ASIDE_AFTER_NS)

    assert len(bench.pauses) == 1


def test_it_gets_done_however_much_there_is():
    bench = Bench(replace(AMPLE, until_ns=ASIDE_NS_MAX))
    bench.work(20 * SECOND)

    assert ASIDE_NS_MAX * 0.5 < bench.aside.paused_ns <= ASIDE_NS_MAX + ASIDE_NS


def test_without_leisure_it_never_pauses():
    bench = Bench(None)
    bench.work(SECOND)

    assert bench.pauses == []


# When there is time for it.


def seen(share, **more):
    state, _requests = step(begin(DEFAULT_RULES), sampled(SECOND, share, **more), DEFAULT_RULES)
    return state


def test_there_is_time_while_half_of_the_room_outlasts_a_pause():
    """16 GiB/s for 12 ms are 197 MiB: half of the room must be more than that."""
    ample, near = seen(0.5), seen(0.031)

    assert leisure(ample) is not None
    assert leisure(near) is None
    assert leisure(near, FILL_BYTES_PER_S // 100) is not None


def test_nobody_stands_aside_in_a_hunt():
    hunted = replace(seen(0.5), hunt=Choosing("t", DEFAULT_RULES.triggers[0].stage, SECOND))

    assert leisure(hunted) is None


def test_what_must_hold_is_half_of_the_room():
    state = seen(0.5)
    rest = leisure(state)
    spent = state.memory.available_bytes - rest.available_bytes

    assert 3 * GIB < spent < 4 * GIB


def test_pauses_do_not_count_as_cost():
    """They would make surveys as rare as if they were dear."""
    state = seen(0.5)
    long = surveyed(2 * SECOND, row(100, GIB), cost_ns=100 * MS)
    state, _requests = step(state, replace(long, paused_ns=80 * MS), DEFAULT_RULES)

    assert state.survey_cost_ns == 20 * MS


# The survey itself.


@pytest.mark.parametrize("count", [1, 40])
def test_a_survey_breathes_and_finds_the_same(tmp_path, count):

    fake = FakeProc(tmp_path)
    for pid in range(1, count + 1):
        fake.process(pid, anon_kib=8192, exe="/usr/bin/p")
    breaths = []
    tables = [
        ProcessTable(
            str(tmp_path),
            matcher=Matcher(()),
            own_pid=1,
            page_bytes=fake.page_bytes,
            clk_tck=100,
            boot_ns=lambda: 10 * SECOND,
        )
        for _ in range(2)
    ]
    plain = tables[0].survey(lambda: 0)
    breathing = tables[1].survey(lambda: 0, breathe=lambda: breaths.append(1))
    for table in tables:
        table.close()

    assert breathing.rows == plain.rows
    assert len(breathing.rows) == count
    assert len(breaths) > count
    assert plain.rows[0].anon_bytes > MIB
