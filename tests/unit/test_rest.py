"""What a look may keep from the policy, and what it must never keep."""

import random

import pytest

from forestall.core.model import Level, Stage
from forestall.core.pace import nothing_new, pause_ns, rest, survey_due
from forestall.core.policy import step
from forestall.core.rules import (
    DEFAULT_RULES,
    Condition,
    Limit,
    Signal,
    Trigger,
    above,
    available,
    swap_free,
    time_left,
)
from forestall.core.signals import level_of, levels_bytes, still_ns
from forestall.core.state import Calm, begin
from forestall.core.units import GIB, MIB, MS, SECOND
from forestall.core.value import replace
from tests.fakes.builders import activity, memory, sampled, surveyed

START_NS = 1000 * SECOND
TOTAL = 16 * GIB
ONLY_AMOUNTS = replace(
    DEFAULT_RULES,
    triggers=(
        Trigger("out", Stage.KILL, (available(Limit(size_bytes=1 * GIB)),)),
        Trigger("low", Stage.WARN, (available(Limit(size_bytes=6 * GIB)),)),
    ),
)


def settled(share, rules=DEFAULT_RULES, *, seconds=12, **fields):
    """A state that has seen nothing move for longer than any window, and has surveyed."""
    state = begin(rules)
    for n in range(seconds * 10):
        now_ns = START_NS - (seconds * 10 - n) * 100 * MS
        state, _ = step(state, sampled(now_ns, share, **fields), rules)
        if n == 0:
            state, _ = step(state, surveyed(now_ns), rules)
    return state


def look(share, at_ns=START_NS, **fields):
    return sampled(at_ns, share, **fields)


def test_a_machine_that_does_not_move_is_left_alone_until_the_next_second():
    state = settled(0.5)
    calm = rest(state, DEFAULT_RULES)

    assert nothing_new(calm, look(0.5))
    assert calm.until_ns - state.now_ns == DEFAULT_RULES.interval_ns


def test_below_a_warnings_ceiling_the_policy_is_asked_before_any_window_could_run_dry():
    state = settled(0.2)
    watch = rest(state, DEFAULT_RULES)

    assert nothing_new(watch, look(0.2))
    assert watch.until_ns - state.now_ns == still_ns(DEFAULT_RULES) < SECOND // 2


def test_a_sixteenth_of_the_room_may_go_and_no_more():
    state = settled(0.3, ONLY_AMOUNTS)
    found = rest(state, ONLY_AMOUNTS)
    room = (0.3 * TOTAL - GIB) / TOTAL

    assert nothing_new(found, look(0.3 - room / 17))
    assert not nothing_new(found, look(0.3 - room / 15))


def test_a_hog_of_twelve_gib_per_second_does_not_cross_the_limit_between_two_looks():
    """The worst case: it began right after a look that was kept from the policy."""
    state = settled(0.3, ONLY_AMOUNTS)
    found = rest(state, ONLY_AMOUNTS)
    least = found.available_bytes - GIB

    assert pause_ns(state, ONLY_AMOUNTS) * 12 * GIB / SECOND < least


def test_swap_that_is_used_up_asks_as_memory_does():
    rules = replace(
        DEFAULT_RULES,
        triggers=(
            Trigger(
                "out",
                Stage.KILL,
                (available(Limit(size_bytes=8 * GIB)), swap_free(Limit(size_bytes=GIB))),
            ),
        ),
    )
    sizes = {"total": TOTAL, "swap": 8 * GIB, "swap_free": 4 * GIB}
    found = rest(settled(0.4, rules, **sizes), rules)
    sizes["swap_free"] -= GIB

    assert nothing_new(found, look(0.4, total=TOTAL, swap=8 * GIB, swap_free=4 * GIB))
    assert not nothing_new(found, look(0.4, **sizes))


def test_vmstat_is_never_kept_from_the_policy():
    assert not nothing_new(rest(settled(0.5), DEFAULT_RULES), look(0.5, activity=activity()))


def test_crossing_a_ceiling_asks_however_little_it_takes():
    watching, acting = (
        getattr(settled(0.5).ceilings, name) / TOTAL for name in ("any_bytes", "acting_bytes")
    )
    for ceiling in (watching, acting):
        found = rest(settled(ceiling + 0.0001), DEFAULT_RULES)

        assert not nothing_new(found, look(ceiling - 0.0001))


def test_where_a_stall_could_end_somebody_the_first_microsecond_of_it_asks():
    found = rest(settled(0.07, some_us=5), DEFAULT_RULES)

    assert nothing_new(found, look(0.07, some_us=5))
    assert not nothing_new(found, look(0.07, some_us=6))


def test_nothing_is_kept_while_a_stall_is_remembered():
    state = settled(0.07)
    state, _ = step(state, look(0.07, some_us=10), DEFAULT_RULES)

    assert rest(state, DEFAULT_RULES) is None


def test_pressure_that_cannot_be_read_any_more_asks():
    found = rest(settled(0.07, some_us=5), DEFAULT_RULES)

    assert not nothing_new(found, look(0.07)._replace(pressure=None))


def test_without_psi_amounts_alone_count():
    state = begin(DEFAULT_RULES)
    for n in range(130):
        blind = look(0.07, START_NS + n * 100 * MS)._replace(pressure=None)
        state, _ = step(state, blind, DEFAULT_RULES)
        if n == 0:
            state, _ = step(state, surveyed(START_NS), DEFAULT_RULES)

    assert nothing_new(rest(state, DEFAULT_RULES), blind)


def test_nothing_is_kept_while_headroom_falls_or_somebody_is_being_chosen():
    falling, _ = step(settled(0.5), look(0.4), DEFAULT_RULES)
    choosing, _ = step(settled(0.3, ONLY_AMOUNTS), look(0.01), ONLY_AMOUNTS)

    assert rest(falling, DEFAULT_RULES) is None
    assert not isinstance(choosing.hunt, Calm)
    assert rest(choosing, ONLY_AMOUNTS) is None


def test_nothing_is_kept_before_anything_is_known_or_below_the_limit():
    below = settled(0.3, ONLY_AMOUNTS)._replace(memory=memory(0.05))

    assert rest(begin(DEFAULT_RULES), DEFAULT_RULES) is None
    assert rest(below, ONLY_AMOUNTS) is None


@pytest.mark.parametrize(
    "condition",
    [
        above(Signal.REFAULTS, 8.0 * MIB, 2 * SECOND),
        above(Signal.STALL_IO, 0.2, 2 * SECOND),
        above(Signal.STALL_SOME, 0.0, 2 * SECOND)._replace(below=True),
        time_left(10 * SECOND),
        Condition(Signal.SWAP_FREE, below=False, amount=Limit(size_bytes=GIB)),
    ],
)
def test_a_trigger_that_holds_without_a_stall_is_asked_at_every_look(condition):
    rules = replace(
        DEFAULT_RULES,
        triggers=(Trigger("own", Stage.KILL, (available(Limit(0.9)), condition)),),
    )
    state = settled(0.5, rules, swap=8 * GIB, swap_free=0)

    assert still_ns(rules) == 0
    assert isinstance(state.hunt, Calm)
    assert rest(state, rules) is None


def test_short_windows_are_kept_filled():
    quick = Trigger("own", Stage.KILL, (above(Signal.STALL_SOME, 0.5, 200 * MS),))
    mild = quick._replace(stage=Stage.WARN)

    assert 0 < still_ns(replace(DEFAULT_RULES, triggers=(quick,))) < 100 * MS
    assert still_ns(replace(DEFAULT_RULES, triggers=(mild,))) > 100 * MS


def test_a_trigger_that_holds_already_is_told_everything():
    """It has held for a while, though nothing moves now: its time must not run late."""
    slow = Trigger(
        "slow",
        Stage.KILL,
        (available(Limit(0.9)), above(Signal.STALL_SOME, 0.1, 2 * SECOND)),
        hold_ns=60 * SECOND,
    )
    rules = replace(DEFAULT_RULES, triggers=(slow,))
    state = settled(0.5, rules)

    assert rest(state, rules) is not None
    assert rest(state._replace(holding=(START_NS,)), rules) is None


def test_whoever_is_asked_less_often_acts_as_soon():
    """Two guards see the same: one tells its policy all of it, the other what is new.

    Rates are read off other points, so a trigger that looks at them may come a look of 25 ms
    later, or sooner; one for amounts never.
    """
    late = asked = looks = acted = 0
    for seed in range(12):
        shares, stalls = journey(random.Random(seed))
        told, told_by, all_looks = first_action(shares, stalls, keep=False)
        seldom, by, some_looks = first_action(shares, stalls, keep=True)

        assert (told is None) == (seldom is None)
        asked, looks = asked + some_looks, looks + all_looks
        if told is not None:
            acted += 1
            late += seldom > told
            assert seldom <= told + (0 if told_by == by == "nearly-exhausted" else 1), seed

    assert acted > 4
    assert late <= 1
    assert asked < 0.8 * looks


def first_action(shares, stalls, *, keep):
    """When somebody is first to be ended: the look's number, the trigger, how often was asked."""
    state, found, asked = begin(DEFAULT_RULES), None, 0
    for n, (share, some_us) in enumerate(zip(shares, stalls, strict=True)):
        seen = look(share, START_NS + n * 25 * MS, some_us=some_us, full_us=some_us // 2)
        if found is None or seen.now_ns >= found.until_ns or not nothing_new(found, seen):
            state, _ = step(state, seen, DEFAULT_RULES)
            asked += 1
            if keep:
                found = rest(state, DEFAULT_RULES)
        if not isinstance(state.hunt, Calm):
            return n, state.hunt.trigger, asked
    return None, "", asked


def journey(dice):
    """Shares of available memory and sums of stalls, looked at every 25 ms: calm, fall, stall."""
    share, some_us = dice.uniform(0.04, 0.5), 0
    shares, stalls = [], []
    for _ in range(dice.randint(3, 8)):
        pace = dice.choice([0.0, 0.0, 0.00002, 0.0005, 0.005])
        stalled_us = dice.choice([0, 0, 0, 200, 9_000, 20_000])
        for _ in range(dice.randint(10, 300)):
            share = max(0.0, share - pace)
            some_us += stalled_us
            shares.append(share)
            stalls.append(some_us)
    return shares, stalls


def test_levels_are_those_of_the_exact_comparison():
    """Calm looks at one number only; it must lie above all that enters a level."""
    for total in (512 * MIB, 16 * GIB, 2048 * GIB):
        bound = levels_bytes(DEFAULT_RULES, memory(0.5, total=total))
        for n in range(500):
            seen = memory(n / 500, total=total)
            level = level_of(seen, Level.NORMAL, DEFAULT_RULES)

            assert level is Level.NORMAL or seen.available_bytes < bound


def test_a_machine_at_rest_on_watch_is_surveyed_seldom_and_a_leak_often():
    state = settled(0.2)
    due_ns = {}
    for name, lost in (("still", 0.0), ("leak", 0.006)):
        leaked, _ = step(state, look(0.2 - lost), DEFAULT_RULES)
        leaked = leaked._replace(survey_ns=START_NS, survey_cost_ns=4 * MS, falling_ns=0)
        if lost:
            leaked = leaked._replace(survey_ns=START_NS - SECOND)
        due_ns[name] = next(
            span
            for span in range(0, 60 * SECOND, 100 * MS)
            if survey_due(leaked, leaked.survey_ns + span)
        )

    assert due_ns["still"] >= 10 * SECOND
    assert due_ns["leak"] <= 3 * SECOND


def test_surveys_hurry_when_the_room_is_soon_used_up_and_not_for_every_fall():
    rules = ONLY_AMOUNTS
    due = {}
    for name, pace in (("build", 0.01), ("hog", 0.12)):
        state = settled(0.5, rules)
        for n in range(1, 11):
            state, _ = step(state, look(0.5 - pace * n / 10, START_NS + n * 100 * MS), rules)
        state = state._replace(survey_ns=state.now_ns, survey_cost_ns=4 * MS)
        due[name] = survey_due(state, state.now_ns + 100 * MS)

    assert due == {"build": False, "hog": True}
