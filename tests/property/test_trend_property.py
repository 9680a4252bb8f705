"""Rates, forecasts and the pace point the right way, whatever the numbers."""

from itertools import pairwise

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from forestall.core.events import Sampled
from forestall.core.model import Activity, Memory, Pressure, Stage
from forestall.core.pace import pause_ns, survey_due, wants_activity
from forestall.core.policy import step
from forestall.core.rules import DEFAULT_RULES, Signal, Trigger, above
from forestall.core.state import begin
from forestall.core.trend import (
    MARKS_MAX,
    POINT_NS,
    POINTS_MAX,
    TRAIL_NS,
    Trail,
    extend,
    falling_per_s,
    headroom_bytes,
    readback_share,
    refaults_per_s,
    remainder_share,
    stall_share,
    time_left_ns,
)
from forestall.core.units import GIB, MIB, MS, SECOND
from forestall.core.value import replace
from tests.fakes.builders import activity, memory, sampled

QUICK = settings(max_examples=60, deadline=None)
START_NS = 1000 * SECOND
WINDOWS = st.sampled_from([SECOND // 2, SECOND, 2 * SECOND, 5 * SECOND, TRAIL_NS])


def trail_of(stalls, *, step_ns=POINT_NS, shares=None):
    trail, total = Trail(), 5_000_000
    for n, stall_us in enumerate(stalls):
        total += stall_us
        share = shares[n] if shares else 0.5
        trail = extend(trail, sampled(START_NS + n * step_ns, share, some_us=total, full_us=total))
    return trail, START_NS + (len(stalls) - 1) * step_ns


@QUICK
@given(
    stalls=st.lists(st.integers(0, 100_000), min_size=2, max_size=150),
    more=st.integers(0, 100_000),
    at=st.integers(0, 149),
    window=WINDOWS,
)
def test_more_stall_never_lowers_the_share(stalls, more, at, window):
    worse = list(stalls)
    worse[1 + at % (len(stalls) - 1)] += more
    low, now_ns = trail_of(stalls)
    high, _ = trail_of(worse)
    before = stall_share(low, now_ns, window, full=True)
    after = stall_share(high, now_ns, window, full=True)

    assert (before is None) == (after is None)
    assert before is None or 0.0 <= before <= after <= 1.0


@QUICK
@given(stalls=st.lists(st.integers(0, 10**7), max_size=150), window=WINDOWS)
def test_a_share_is_a_share_or_unknown(stalls, window):
    trail, now_ns = trail_of(stalls)
    found = stall_share(trail, now_ns, window, full=False)

    assert found is None or 0.0 <= found <= 1.0


@QUICK
@given(steady=st.integers(0, 100_000), window=WINDOWS)
def test_a_steady_stall_reads_as_itself(steady, window):
    trail, now_ns = trail_of([steady] * 120)

    assert abs(stall_share(trail, now_ns, window, full=True) - steady / 100_000) < 1e-9


def test_what_lies_before_the_window_does_not_count():
    trail, now_ns = trail_of([100_000] * 50 + [0] * 21)

    assert stall_share(trail, now_ns, 2 * SECOND, full=True) == 0.0
    assert stall_share(trail, now_ns, 4 * SECOND, full=True) > 0.0


def test_half_a_window_is_enough_and_less_is_unknown():
    trail, now_ns = trail_of([0] * 11)

    assert stall_share(trail, now_ns, 2 * SECOND, full=True) == 0.0
    assert stall_share(trail, now_ns, 2 * SECOND + 2 * MS, full=True) is None
    assert stall_share(Trail(), now_ns, SECOND, full=True) is None


@QUICK
@given(gap=st.integers(1, 28), window=WINDOWS)
def test_a_pressure_that_could_not_be_read_is_never_a_stall(gap, window):
    """One failed read must not look like a stall as long as the uptime."""
    trail = Trail()
    for n in range(30):
        pressure = None if n == gap else Pressure(10**12, 10**12)
        trail = extend(trail, Sampled(START_NS + n * POINT_NS, memory(0.5), pressure))
        found = stall_share(trail, START_NS + n * POINT_NS, window, full=True)

        assert found in {None, 0.0}


@QUICK
@given(
    gaps=st.lists(st.integers(1, 4), min_size=4, max_size=12),
    stalls=st.lists(st.integers(0, 100_000), min_size=1, max_size=12),
)
def test_points_far_apart_in_a_quiet_time_make_a_stall_no_larger(gaps, stalls):
    """While nothing moves the policy is asked seldom; the stall that follows weighs the same."""
    sparse = dense = Trail()
    now_ns, asked_ns = START_NS, {START_NS}
    for gap in gaps:
        now_ns += gap * POINT_NS
        asked_ns.add(now_ns)
    quiet_ns, total_us = now_ns, 0
    for at_ns in range(START_NS, quiet_ns + (len(stalls) + 1) * POINT_NS, POINT_NS):
        if at_ns > quiet_ns:
            total_us += stalls[(at_ns - quiet_ns) // POINT_NS - 1]
        event = Sampled(at_ns, memory(0.5), Pressure(total_us, total_us))
        dense = extend(dense, event)
        if at_ns in asked_ns or at_ns > quiet_ns:
            sparse = extend(sparse, event)
        exact, found = (stall_share(t, at_ns, SECOND, full=False) for t in (dense, sparse))

        assert found is None or exact is None or abs(found - exact) < 1e-9 + 0.1 * exact


def test_without_pressure_a_stall_is_unknown_and_not_zero():
    trail = Trail()
    for n in range(50):
        trail = extend(trail, Sampled(START_NS + n * POINT_NS, memory(0.5)))

    assert stall_share(trail, START_NS + 49 * POINT_NS, SECOND, full=True) is None


@QUICK
@given(spans=st.lists(st.integers(1, 3 * SECOND), min_size=1, max_size=400))
def test_the_trail_is_short_and_in_order_and_covers_its_time(spans):
    trail, now_ns = Trail(), START_NS
    for span_ns in spans:
        now_ns += span_ns
        trail = extend(trail, sampled(now_ns, 0.5, activity=activity()))
    times = [point.now_ns for point in trail.points]

    assert len(trail.points) <= POINTS_MAX
    assert len(trail.flows) <= POINTS_MAX
    assert len(trail.marks) <= MARKS_MAX
    assert all(later - earlier >= POINT_NS for earlier, later in pairwise(times))
    assert now_ns - times[-1] < POINT_NS
    if now_ns - START_NS > 2 * TRAIL_NS:
        assert now_ns - times[0] >= TRAIL_NS or len(times) >= POINTS_MAX - 1


def test_samples_closer_than_a_point_share_the_trail():
    """1 ms ticks must not flood it; the same object comes back, so a state shares it."""
    trail = extend(Trail(), sampled(START_NS, 0.5))

    assert extend(trail, sampled(START_NS + POINT_NS - 1, 0.1)) is trail
    assert len(extend(trail, sampled(START_NS + POINT_NS, 0.1)).points) == 2


@QUICK
@given(
    per_point=st.integers(1, 100),
    points=st.integers(27, 120),
)
def test_a_steady_fall_is_forecast_exactly(per_point, points):
    trail = Trail()
    total = 64 * GIB
    for n in range(points):
        left = total - n * per_point * MIB
        trail = extend(trail, Sampled(START_NS + n * POINT_NS, Memory(total, left, 0, 0, 0), None))
    now_ns = START_NS + (points - 1) * POINT_NS
    left_ns = time_left_ns(trail, now_ns, Memory(total, left, 0, 0, 0))
    expected_ns = left * POINT_NS / (per_point * MIB)

    assert abs(left_ns - expected_ns) <= expected_ns * 1e-6 + 1


@QUICK
@given(shares=st.lists(st.floats(0.01, 0.99), min_size=30, max_size=60), less=st.floats(0.0, 1.0))
def test_less_memory_now_never_leaves_more_time(shares, less):
    trail, now_ns = trail_of([0] * len(shares), shares=shares)
    now = memory(shares[-1])
    lower = memory(shares[-1] * less)
    before, after = time_left_ns(trail, now_ns, now), time_left_ns(trail, now_ns, lower)

    assert before is None or (after is not None and after <= before)


def test_one_jump_is_no_forecast():
    """The slower of two paces counts: half a second's jump is spread over two."""
    trail, now_ns = trail_of([0] * 100, shares=[0.5] * 97 + [0.4] * 3)

    left_ns = time_left_ns(trail, now_ns, memory(0.4))

    assert left_ns is None or left_ns > 5 * SECOND


@QUICK
@given(share=st.floats(0.01, 0.99))
def test_rising_or_resting_memory_has_no_end(share):
    trail, now_ns = trail_of([0] * 60, shares=[share] * 60)

    assert time_left_ns(trail, now_ns, memory(share)) is None
    assert falling_per_s(trail, now_ns, headroom_bytes(memory(share)) + MIB, SECOND) == 0.0


def flows(count, **per_second):
    trail = Trail()
    for n in range(count):
        counters = {name: n * rate // 10 for name, rate in per_second.items()}
        trail = extend(trail, sampled(START_NS + n * POINT_NS, 0.5, activity=activity(**counters)))
    return trail, START_NS + (count - 1) * POINT_NS


@QUICK
@given(swap_in=st.integers(0, 10**5), swap_out=st.integers(0, 10**5), refault=st.integers(0, 10**5))
def test_readback_is_a_share_and_grows_with_what_comes_back(swap_in, swap_out, refault):
    out_only, now_ns = flows(40, swap_out=swap_out)
    trail, _ = flows(40, swap_in=swap_in, swap_out=swap_out, refault_file=refault)
    found = readback_share(trail, now_ns, 2 * SECOND)

    assert readback_share(out_only, now_ns, 2 * SECOND) == 0.0
    assert 0.0 <= found <= 1.0
    assert found > 0.0 or swap_in + refault < 10


def test_refaults_are_bytes_per_second():
    trail, now_ns = flows(40, refault_file=1000)

    assert refaults_per_s(trail, now_ns, 2 * SECOND, 4096) == 1000 * 4096
    assert refaults_per_s(Trail(), now_ns, 2 * SECOND, 4096) is None
    assert readback_share(Trail(), now_ns, 2 * SECOND) is None


def test_an_old_kernel_without_anon_refaults_counts_swap_ins_for_them():
    trail = Trail()
    for n in range(40):
        counters = Activity(0, n * 100, 0, None, n * 10, 0, None)
        trail = extend(trail, Sampled(START_NS + n * POINT_NS, memory(0.5), None, counters))

    assert refaults_per_s(trail, START_NS + 39 * POINT_NS, SECOND, 1) == 1100


@QUICK
@given(gone=st.floats(0.01, 0.9), left=st.floats(0.0, 0.09), seconds=st.integers(2, 59))
def test_the_remainder_is_what_is_left_of_what_went_within_a_minute(gone, left, seconds):
    trail = Trail()
    for n in range(seconds + 1):
        trail = extend(trail, sampled(START_NS + n * SECOND, left + gone * (1 - n / seconds)))
    found = remainder_share(trail, START_NS + seconds * SECOND, memory(left))

    assert abs(found - left / gone) < 1e-6


def test_what_went_long_ago_does_not_count_and_nothing_lost_has_no_remainder():
    trail = extend(Trail(), sampled(START_NS, 0.9))
    for n in range(1, 70):
        trail = extend(trail, sampled(START_NS + n * SECOND, 0.2))
    now_ns = START_NS + 69 * SECOND

    assert remainder_share(trail, now_ns, memory(0.2)) is None
    assert remainder_share(trail, now_ns, memory(0.1)) == 1.0
    assert remainder_share(Trail(), now_ns, memory(0.1)) is None


# The pace.


def settled(share, total=16 * GIB, swap=0):
    state, _ = step(
        begin(DEFAULT_RULES), sampled(START_NS, share, total=total, swap=swap), DEFAULT_RULES
    )
    return state


SIZES_OF_MACHINES = st.sampled_from([512 * MIB, 4 * GIB, 16 * GIB, 256 * GIB, 2048 * GIB])


@QUICK
@given(less=st.floats(0.0, 1.0), more=st.floats(0.0, 1.0), total=SIZES_OF_MACHINES)
def test_less_memory_never_means_a_longer_sleep(less, more, total):
    less, more = sorted((less, more))
    assume(settled(more, total).hunt == settled(less, total).hunt)

    assert pause_ns(settled(less, total), DEFAULT_RULES) <= pause_ns(
        settled(more, total), DEFAULT_RULES
    )


@QUICK
@given(share=st.floats(0.0, 1.0), total=SIZES_OF_MACHINES, swap=st.sampled_from([0, 8 * GIB]))
def test_the_sleep_has_a_floor_and_a_ceiling(share, total, swap):
    state = settled(share, total, swap)

    assert MS <= pause_ns(state, DEFAULT_RULES) <= DEFAULT_RULES.interval_ns
    assert pause_ns(begin(DEFAULT_RULES), DEFAULT_RULES) == DEFAULT_RULES.interval_ns


def test_vmstat_is_read_at_once_then_once_a_second_in_calm_and_oftener_on_watch():
    calm, _ = step(begin(DEFAULT_RULES), sampled(START_NS, 0.5, activity=activity()), DEFAULT_RULES)
    watch, still = (looked_at_twice(some_us) for some_us in (1, 0))

    assert wants_activity(begin(DEFAULT_RULES), START_NS)
    assert not wants_activity(calm, START_NS + SECOND - 1)
    assert wants_activity(calm, START_NS + SECOND)
    assert not wants_activity(watch, START_NS + 100 * MS - 1)
    assert wants_activity(watch, START_NS + 100 * MS)
    assert not wants_activity(still, START_NS + SECOND - 1), "nobody waits for memory"
    assert wants_activity(still, START_NS + SECOND)


def looked_at_twice(some_us):
    """On watch; ``some_us`` lost between a look and the next, which reads vmstat."""
    state = begin(DEFAULT_RULES)
    for event in (
        sampled(START_NS - 100 * MS, 0.05, swap=16 * GIB),
        sampled(START_NS, 0.05, some_us=some_us, activity=activity(), swap=16 * GIB),
    ):
        state, _ = step(state, event, DEFAULT_RULES)
    return state


def test_vmstat_is_read_often_where_a_trigger_looks_at_it_without_a_stall():
    churn = Trigger("churn", Stage.KILL, (above(Signal.REFAULTS, 8.0 * MIB, 2 * SECOND),))
    rules = replace(DEFAULT_RULES, triggers=(churn,))
    state, _ = step(begin(rules), sampled(START_NS, 0.5, activity=activity()), rules)

    assert wants_activity(state, START_NS + 100 * MS)


@QUICK
@given(cost_ns=st.integers(0, 10 * SECOND), share=st.floats(0.05, 1.0))
def test_surveys_in_calm_cost_no_more_than_their_share(cost_ns, share):
    state = settled(share, swap=64 * GIB)
    state = state._replace(survey_ns=START_NS, survey_cost_ns=cost_ns)
    waited_ns = next(
        span for span in (2**n * MS for n in range(60)) if survey_due(state, START_NS + span)
    )

    assert cost_ns <= 0.003 * waited_ns
    assert waited_ns >= SECOND


@QUICK
@given(above=st.floats(0.0001, 0.006))
def test_a_machine_at_rest_near_its_limit_is_looked_at_a_hundred_times_a_second_at_most(above):
    """What fits into the next ten milliseconds only: a core must not burn for it."""
    first = settled(0.5)
    share = max(size for size, _ in first.ceilings.amounts) / (16 * GIB) + above
    state = settled(share)
    for n in range(1, 60):
        state, _ = step(state, sampled(START_NS + n * 100 * MS, share), DEFAULT_RULES)
    assume(type(state.hunt) is type(first.hunt))

    assert pause_ns(state, DEFAULT_RULES) >= 10 * MS
