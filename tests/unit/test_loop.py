"""The shell: written down before it is done; no failure of its surroundings comes out of a turn."""

import pytest

from forestall.core import fallback
from forestall.core.events import CONFIRM, End, Gone, Missed, Sampled, Survey, Surveyed, Tell
from forestall.core.model import Force, Stage
from forestall.core.pace import held_up
from forestall.core.rules import DEFAULT_RULES, Limit, Trigger, available
from forestall.core.state import Calm, Choosing, Ending
from forestall.core.units import GIB, MIB, MINUTE, MS, SECOND
from forestall.core.value import replace
from forestall.guard.loop import BLIND_SAMPLES, REST_NS_MAX, Loop, Ports
from forestall.kernel.errors import KernelFormatError
from tests.fakes.builders import row, sampled, surveyed

RULES = replace(
    DEFAULT_RULES,
    triggers=(
        Trigger("short", Stage.TERMINATE, (available(Limit(0.05)),)),
        Trigger("out", Stage.KILL, (available(Limit(0.02)),)),
    ),
)
HOG, BYSTANDER = row(60, 9 * GIB, comm="hog"), row(62, 100 * MIB, comm="bystander")


class Bench:
    """A loop whose every port can be made to fail; keeps a diary of what happened in order."""

    def __init__(self, share=0.5, rules=RULES):
        self.share = share
        self.now_ns = 1000 * SECOND
        self.rows = (HOG, BYSTANDER)
        self.diary = []
        self.ended = []
        self.told = []
        self.fails = {}
        self.loop = Loop(
            rules,
            Ports(
                now_ns=lambda: self.now_ns,
                sample=self._sample,
                survey=self._survey,
                perform=self._perform,
                relieve=self._relieve,
                tell=self._tell,
                record=self._record,
                groups=self._groups,
            ),
        )
        self.stall_us = 0
        self.looked = 0
        self.objection = ""

    def _groups(self):
        self.looked += 1
        return ()

    def turn(self, after_ns=100 * MS):
        self.now_ns += after_ns
        self.loop.turn(self.now_ns)
        return self

    def _port(self, name):
        error = self.fails.get(name)
        if error is not None:
            raise error

    def _sample(self, now_ns, with_activity):
        self._port("sample")
        share = self.share.pop(0) if isinstance(self.share, list) else self.share
        if isinstance(share, Exception):
            raise share
        return sampled(now_ns, share, some_us=self.stall_us)

    def _survey(self, shared):
        self._port("survey")
        self.now_ns += 10 * MS
        return surveyed(self.now_ns, *self.rows)

    def _perform(self, request, now_ns):
        self.diary.append(("performed", request.victims, request.force))
        self._port("perform")
        if self.objection:
            return [Missed(now_ns, CONFIRM, self.objection)]
        self.ended.append(request)
        return []

    def _relieve(self, request):
        self._port("relieve")

    def _tell(self, tell, now_ns):
        self.told.append(tell)
        self._port("tell")

    def _record(self, state, event, requests, late_ns):
        self.diary.append((type(event).__name__, [type(r).__name__ for r in requests], late_ns))
        self._port("record")

    def kinds(self):
        return [tell.what for tell in self.told]


def test_a_decision_is_recorded_before_it_is_carried_out():
    bench = Bench().turn()
    bench.diary.clear()
    bench.share = 0.01
    bench.turn()
    names = [entry[0] for entry in bench.diary]
    decided = next(entry for entry in bench.diary if "End" in entry[1])

    assert bench.diary.index(decided) < names.index("performed")
    assert bench.ended[0].victims == (HOG.id,)


def test_an_end_that_was_held_back_is_not_told_as_done():
    """The journal said "SIGKILL by trigger ...", and then that nobody was ended."""
    bench = Bench().turn()
    bench.objection = "it holds 1.00 GiB now, less than when it was chosen"
    bench.share = [0.01, 0.01, 0.5]
    bench.turn()
    bench.objection = ""

    assert bench.ended == []
    assert [one for one in bench.diary if one[0] == "performed"]
    assert "decision" not in bench.kinds()
    assert bench.kinds().count("refused") == 1


def test_memory_is_looked_at_again_after_the_survey_and_before_anybody_is_touched():
    bench = Bench().turn()
    bench.share = [0.01, 0.5]
    bench.turn()

    assert bench.ended == []
    assert isinstance(bench.loop.state.hunt, Calm)


def test_nobody_is_ended_on_what_was_seen_before_a_look_that_failed():
    bench = Bench().turn()
    bench.share = [0.01, OSError(5, "EIO"), 0.01, 0.01]
    bench.turn()
    after_failure = list(bench.ended)
    waiting = bench.loop.state.hunt
    bench.turn()

    assert after_failure == []
    assert isinstance(waiting, Choosing)
    assert [end.victims for end in bench.ended] == [(HOG.id,)]


@pytest.mark.parametrize("error", [OSError(5, "EIO"), KernelFormatError("meminfo", "absent")])
def test_a_failed_sample_is_missed_and_not_a_stumble(error):
    bench = Bench()
    bench.fails["sample"] = error
    bench.turn()

    assert bench.loop.missed == 1
    assert bench.loop.errors == 0
    assert [entry[0] for entry in bench.diary] == [Missed.__name__]


def test_blindness_is_told_once_after_five_samples_and_again_after_sight():
    bench = Bench()
    bench.fails["sample"] = OSError(5, "EIO")
    for _ in range(BLIND_SAMPLES - 1):
        bench.turn()
    early = bench.kinds().count("blind")
    for _ in range(10):
        bench.turn()
    once = bench.kinds().count("blind")
    bench.fails.clear()
    bench.turn()
    bench.fails["sample"] = OSError(5, "EIO")
    for _ in range(BLIND_SAMPLES):
        bench.turn()

    assert (early, once, bench.kinds().count("blind")) == (0, 1, 2)


def test_a_survey_that_fails_is_tried_again_on_the_next_turn():
    bench = Bench().turn()
    bench.share = 0.01
    bench.fails["survey"] = OSError(24, "EMFILE")
    bench.turn()
    untouched = list(bench.ended)
    bench.fails.clear()
    bench.turn()

    assert untouched == []
    assert [end.force for end in bench.ended] == [Force.KILL]


@pytest.mark.parametrize("port", ["sample", "survey", "perform", "record"])
def test_our_own_mistake_is_told_and_the_policy_starts_afresh(port):
    bench = Bench().turn()
    bench.share = 0.01
    bench.fails[port] = ValueError("ours")
    bench.turn()

    assert bench.loop.errors == 1
    assert "error" in bench.kinds()
    assert isinstance(bench.loop.state.hunt, Calm)


def test_a_telling_that_fails_does_not_come_out_of_a_turn_either():
    bench = Bench()
    bench.fails["tell"] = BrokenPipeError(32, "EPIPE")
    bench.fails["record"] = ValueError("ours")
    bench.turn()

    assert bench.loop.errors == 1
    assert bench.loop.untold == 2, "neither told nor recorded"


def test_what_was_not_recorded_is_not_done():
    bench = Bench().turn()
    bench.share = 0.01
    bench.fails["record"] = MemoryError()
    bench.turn()

    assert bench.ended == []


def test_the_third_stumble_within_a_minute_asks_for_a_fresh_process():
    bench = Bench()
    bench.fails["record"] = ValueError("ours")
    bench.turn().turn()

    with pytest.raises(SystemExit) as stop:
        bench.turn()
    assert stop.value.code == 70


def test_three_stumbles_in_three_minutes_are_survived():
    bench = Bench()
    bench.fails["record"] = ValueError("ours")
    for _ in range(6):
        bench.turn(MINUTE // 2)

    assert bench.loop.errors == 6


def test_the_guard_does_not_leave_a_machine_that_is_short_and_the_minimal_policy_acts():
    """A policy that fails at every survey: the largest goes by the other one."""
    bench = Bench().turn()
    bench.share = 0.03
    bench.fails["survey"] = ValueError("ours")
    for _ in range(3):
        bench.turn()
    bench.fails.clear()
    bench.turn()

    assert bench.loop.errors == 3
    assert [end.victims for end in bench.ended] == [(HOG.id,)]
    assert bench.ended[0].why.startswith("the minimal policy")


def test_a_policy_that_does_not_come_to_rest_is_stopped():
    bench = Bench()
    endless = (Survey(),)
    bench.loop._step = lambda state, _event, _rules: (state, endless)
    bench.turn()

    assert bench.loop.errors == 1
    assert "does not come to rest" in bench.told[0].sentence


def test_lateness_is_measured_and_recorded():
    bench = Bench()
    bench.now_ns += 70 * MS
    bench.loop.turn(bench.now_ns - 70 * MS)

    assert bench.loop.late_ns_max == 70 * MS
    assert bench.diary[0][2] == 70 * MS


def test_new_rules_keep_what_was_seen_and_drop_what_was_half_decided():
    bench = Bench().turn()
    bench.share = 0.04
    bench.turn()
    hunt = bench.loop.state.hunt
    bench.loop.adopt(replace(RULES, triggers=RULES.triggers[1:]))
    bench.turn()

    assert isinstance(hunt, Ending)
    assert isinstance(bench.loop.state.hunt, Calm)
    assert len(bench.loop.state.trail.points) > 1
    assert bench.loop.errors == 0


def test_rules_can_be_tried_before_they_are_in_force():
    bench = Bench().turn()
    before = bench.loop.state

    assert bench.loop.trial(DEFAULT_RULES) is None
    assert "TypeError" in bench.loop.trial(replace(RULES, triggers=5))
    assert bench.loop.trial(replace(RULES, grace_ns="5 s", kill_patience_ns=None)) is not None
    assert bench.loop.state is before


def play(*events):
    """Feed the minimal policy; returns its state and all that it asked for."""
    from forestall.core.state import begin

    state, asked = begin(RULES), []
    for event in events:
        state, requests = fallback.step(state, event, RULES)
        asked.extend(requests)
    return state, asked


def test_the_minimal_policy_kills_the_largest_that_is_not_protected():
    from forestall.core.model import Standing

    shielded = row(50, 12 * GIB, standing=Standing.NEVER)
    avoided = row(51, 11 * GIB, standing=Standing.AVOID)
    zombie = row(52, 10 * GIB, state="Z")
    _, asked = play(sampled(1, 0.03), surveyed(2, BYSTANDER, HOG, shielded, avoided, zombie))
    (end,) = [r for r in asked if isinstance(r, End)]

    assert end.victims == (HOG.id,)
    assert end.force is Force.KILL
    assert [r.what for r in asked if isinstance(r, Tell)] == ["decision"]


def test_the_minimal_policy_rests_while_memory_is_ample():
    state, asked = play(sampled(1, 0.05), sampled(2, 0.5), Gone(3, HOG.id), Missed(4, "sample", ""))

    assert asked == []
    assert isinstance(state.hunt, Calm)


def test_the_minimal_policy_spares_when_memory_comes_back_during_its_survey():
    _, asked = play(sampled(1, 0.03), sampled(2, 0.5), surveyed(3, HOG, BYSTANDER))

    assert asked == [Survey()]


def test_the_minimal_policy_waits_three_seconds_and_then_takes_another():
    """Whoever is still there has refused or is stuck; asking again would help nobody."""
    rows = (HOG, BYSTANDER)
    _, asked = play(
        sampled(1 * SECOND, 0.03),
        surveyed(1 * SECOND, *rows),
        sampled(3 * SECOND, 0.03),
        surveyed(3 * SECOND, *rows),
        sampled(4 * SECOND, 0.03),
        surveyed(4 * SECOND, *rows),
    )

    assert [r.victims for r in asked if isinstance(r, End)] == [(HOG.id,), (BYSTANDER.id,)]


def test_the_minimal_policy_starts_over_when_it_has_tried_everybody():
    _, asked = play(
        *(
            event
            for n in range(3)
            for event in (sampled(n * 4 * SECOND + 1, 0.03), surveyed(n * 4 * SECOND + 1, HOG))
        )
    )

    assert [r.victims for r in asked if isinstance(r, End)] == [(HOG.id,)] * 2


def test_the_minimal_policy_asks_once_and_again_after_a_failure():
    _, asked = play(
        sampled(1, 0.03), sampled(2, 0.03), Missed(3, "survey", "EIO"), sampled(4, 0.03)
    )

    assert asked == [Survey(), Survey()]


def test_short_means_twice_the_limit_so_that_nobody_leaves_too_early():
    state, _ = play(sampled(1, 0.07))
    ample, _ = play(sampled(1, 0.09))
    unseen, _ = play()

    assert fallback.is_short(state)
    assert not fallback.is_short(ample)
    assert not fallback.is_short(unseen)


def test_events_are_values_the_bench_understands():
    """The fakes speak the real events: a bench that drifted would prove nothing."""
    assert isinstance(sampled(1, 0.5), Sampled)
    assert isinstance(surveyed(1), Surveyed)


TURNS = 100


def at_the_brink(tick_ns=0):
    """Let memory fall to just above the first limit, each reading of it taking a while."""
    bench = Bench([0.5 - 0.4499 * n / (TURNS - 1) for n in range(TURNS)])
    plain = bench._sample

    def slow(now_ns, with_activity):
        bench.now_ns += bench.tick_ns
        return plain(now_ns, with_activity)

    bench.tick_ns = tick_ns
    bench.loop._ports.sample = slow
    for _ in range(TURNS):
        bench.turn(after_ns=2 * MS)
    bench.share = 0.0501
    return bench


@pytest.mark.parametrize(
    ("tick_ns", "pause_ns"),
    [(50_000, 1 * MS), (1 * MS, 6 * MS), (60 * MS, REST_NS_MAX)],
)
def test_a_guard_whose_ticks_are_dear_takes_a_seventh_of_a_processor(tick_ns, pause_ns):
    """On real hardware ticks of a millisecond stay; on a slow machine bystanders come first."""
    assert at_the_brink(tick_ns).loop.pause_ns() == pause_ns


def test_one_dear_tick_is_no_reason_to_look_away():
    """A tick that was preempted for 40 ms while memory falls is followed by one as soon as ever."""
    bench = at_the_brink()
    bench.tick_ns = 40 * MS
    bench.turn(after_ns=2 * MS)

    assert bench.loop.pause_ns() == 1 * MS


def test_a_survey_is_no_measure_of_a_tick():
    bench = at_the_brink()
    surveys = bench.loop.surveys
    for _ in range(3):
        bench.turn(after_ns=150 * MS)

    assert bench.loop.surveys > surveys
    assert bench.loop.pause_ns() == 1 * MS


def test_a_look_that_shows_nothing_new_is_neither_told_nor_recorded():
    bench = Bench(share=0.06).turn()
    for _ in range(3):
        bench.loop.pause_ns()
        bench.turn()
    told = len(bench.diary)
    bench.loop.pause_ns()
    bench.turn(after_ns=10 * MS)
    kept = len(bench.diary)
    bench.loop.rouse()
    bench.turn(after_ns=10 * MS)

    assert kept == told, "nothing had moved"
    assert len(bench.diary) == told + 1, "the kernel woke us: the policy is asked"
    assert bench.loop.samples == 6


def test_a_look_that_shows_a_shortage_is_seen_through_at_once():
    bench = Bench(share=0.06).turn()
    bench.loop.pause_ns()
    bench.share = 0.01
    bench.turn(after_ns=10 * MS)

    assert bench.ended[0].victims == (HOG.id,)


def test_new_rules_and_news_are_asked_about_whatever_memory_does():
    for change in (
        lambda loop: loop.adopt(RULES),
        lambda loop: loop.feed(Gone(1000 * SECOND, HOG.id)),
    ):
        bench = Bench(share=0.06).turn()
        bench.loop.pause_ns()
        change(bench.loop)
        told = len(bench.diary)
        bench.turn(after_ns=10 * MS)

        assert len(bench.diary) > told


def test_a_look_that_fails_is_told():
    bench = Bench(share=0.06).turn()
    bench.loop.pause_ns()
    bench.fails["sample"] = OSError(5, "EIO")
    bench.turn(after_ns=10 * MS)

    assert bench.diary[-1][0] == "Missed"


@pytest.mark.parametrize(("stall_us", "looks"), [(0, True), (5_000, True), (50_000, False)])
def test_control_groups_are_left_alone_while_everybody_waits_for_memory(stall_us, looks):
    """Reading memory.stat needs memory: in a thrash it held the guard up for 1.7 s."""
    bench = Bench(share=0.03)
    for _ in range(15):
        bench.stall_us += stall_us
        bench.turn()
    looked = bench.looked
    for _ in range(30):
        bench.stall_us += stall_us
        bench.turn()

    assert (bench.looked > looked) is looks
    assert held_up(bench.loop.state) is not looks
