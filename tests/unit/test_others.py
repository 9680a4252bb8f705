"""Somebody else's victims: waited for when that ends the shortage, once, and never blindly."""

import pytest

from forestall.core.codec import decode, encode
from forestall.core.events import End, Gone, Survey, Tell
from forestall.core.model import Stage
from forestall.core.others import REST_LEAST_NS, REST_TIMES, WAIT_NS
from forestall.core.policy import step
from forestall.core.rules import DEFAULT_RULES, Limit, Trigger, available
from forestall.core.state import Calm, Ending, Settling, begin
from forestall.core.units import GIB, MIB, MS, SECOND
from forestall.core.value import replace
from tests.fakes.builders import activity, leaving, row, sampled, surveyed

RULES = replace(DEFAULT_RULES, triggers=(Trigger("out", Stage.KILL, (available(Limit(0.04)),)),))
SHORT, AMPLE = 0.03, 0.5
HOG = row(60, 9 * GIB, comm="hog")
OTHER = row(61, 2 * GIB, comm="other")
BYSTANDER = row(62, 100 * MIB, comm="bystander")
GOING = leaving(70, 3 * GIB, comm="goner")


class Play:
    """Plays events to the policy and remembers what it asked for."""

    def __init__(self, now_ns=1000 * SECOND):
        self.state = begin(RULES)
        self.now_ns = now_ns
        self.asked = []

    def feed(self, event):
        self.state, requests = step(self.state, event, RULES)
        self.asked = list(requests)
        return self

    def sample(self, share, after_ns=100 * MS):
        self.now_ns += after_ns
        return self.feed(sampled(self.now_ns, share))

    def survey(self, *rows, leaving=()):
        return self.feed(surveyed(self.now_ns, *rows, leaving=leaving))

    def short(self, *gone, share=SHORT):
        """Run short with these about to leave, and look."""
        self.sample(AMPLE).survey(HOG, OTHER, BYSTANDER)
        return self.sample(share).survey(HOG, OTHER, BYSTANDER, leaving=gone)

    def found(self, kind):
        return [request for request in self.asked if isinstance(request, kind)]

    def ends(self):
        return self.found(End)

    def told(self, what):
        return [one for one in self.asked if isinstance(one, Tell) and one.what == what]


def test_the_memory_of_somebody_elses_victim_is_waited_for():
    play = Play().short(GOING)
    (told,) = play.told("other-kill")

    assert play.ends() == []
    assert isinstance(play.state.hunt, Settling)
    assert (told.victim, told.comm, told.trigger) == (GOING.id, "goner", "out")
    assert told.sentence == (
        "goner (70) was ended by somebody else or leaves by itself; waiting for 3.00 GiB to come "
        "back before anybody is chosen"
    )


def test_when_its_memory_is_back_nobody_ends():
    play = Play().short(GOING).sample(0.2, 300 * MS)
    (outcome,) = play.told("outcome")

    assert play.ends() == []
    assert isinstance(play.state.hunt, Calm)
    assert outcome.sentence.startswith("2.72 GiB came back within 300 ms of the end of goner")


def test_the_wait_is_bounded():
    """It hangs in a driver, say: somebody must go."""
    play = Play().short(GOING)
    early = play.sample(SHORT, WAIT_NS - 100 * MS).asked
    play.sample(SHORT, 200 * MS)
    surveys = play.found(Survey)
    play.survey(HOG, OTHER, BYSTANDER, leaving=(GOING,))
    (end,) = play.ends()

    assert early == []
    assert len(surveys) == 1
    assert end.victims == (HOG.id,)
    assert BYSTANDER.id not in end.victims


def test_no_second_wait_follows_one_that_did_not_help():
    """A storm of processes that come and go must not hold our hand."""
    play = Play().short(GOING).sample(SHORT, WAIT_NS + MS)
    play.survey(HOG, OTHER, leaving=(leaving(71, 5 * GIB),))

    assert play.ends()


@pytest.mark.parametrize(("later_ns", "waits"), [(-MS, False), (MS, True)])
def test_a_short_wait_that_did_not_help_costs_a_short_rest(later_ns, waits):
    """What was left ran out after 20 ms: the next death may be the one that helps."""
    play = Play().short(GOING).sample(0.001, 20 * MS)
    play.survey(HOG, OTHER, leaving=(GOING,))
    play.feed(Gone(play.now_ns, HOG.id)).sample(AMPLE, REST_LEAST_NS - 100 * MS)
    play.sample(SHORT, 100 * MS + later_ns).survey(OTHER, leaving=(leaving(71, 3 * GIB),))

    assert isinstance(play.state.hunt, Settling) is waits


def test_a_later_death_is_waited_for_again():
    play = Play().short(GOING).sample(SHORT, WAIT_NS + MS)
    play.survey(HOG, OTHER, leaving=(GOING,))
    play.feed(Gone(play.now_ns, HOG.id)).sample(AMPLE, REST_TIMES * WAIT_NS)
    play.sample(SHORT, SECOND).survey(OTHER, leaving=(leaving(71, 3 * GIB),))

    assert isinstance(play.state.hunt, Settling)
    assert play.told("other-kill")


def test_the_same_death_is_waited_for_once_even_when_memory_was_back_meanwhile():
    """It hangs with its memory, and something else has come back."""
    play = Play().short(GOING).sample(AMPLE, 300 * MS)
    play.sample(SHORT, SECOND).survey(HOG, OTHER, leaving=(GOING,))

    assert isinstance(play.state.hunt, Ending)


def test_small_ones_that_come_and_go_are_no_reason_to_wait():
    """1 % of memory is missing, and 1 % leaves: less than what processes come and go by."""
    storm = tuple(leaving(100 + n, 10 * MIB) for n in range(16))
    play = Play().short(*storm)

    assert [end.victims for end in play.ends()] == [(HOG.id,)]


def test_a_family_that_leaves_counts_as_one():
    """Systemd-oomd ends a group: no member is enough, all of them are."""
    family = tuple(leaving(100 + n, 100 * MIB, comm="worker") for n in range(8))
    play = Play().short(*family)
    (told,) = play.told("other-kill")

    assert play.ends() == []
    assert "worker (100) and 7 more were ended by somebody else or leave by themselves" in (
        told.sentence
    )


@pytest.mark.parametrize(("frees_mib", "waits"), [(300, False), (340, True)])
def test_what_leaves_must_end_the_shortage(frees_mib, waits):
    """2 % of 16 GiB is missing: 328 MiB."""
    play = Play().short(leaving(70, frees_mib * MIB), share=0.02)

    assert isinstance(play.state.hunt, Settling) is waits


def test_whoever_takes_half_of_what_is_left_meanwhile_is_not_waited_out():
    play = Play().short(GOING, share=0.03)
    still = play.sample(0.016, 50 * MS).asked
    play.sample(0.014, 10 * MS)

    assert still == []
    assert len(play.found(Survey)) == 1


def test_our_own_victims_memory_is_waited_for_though_what_is_left_shrinks():
    play = Play().short()
    play.feed(Gone(play.now_ns, HOG.id)).sample(0.01, 100 * MS)

    assert isinstance(play.state.hunt, Settling)
    assert play.found(Survey) == []


def test_our_own_victim_on_its_way_out_is_waited_for_without_a_word():
    """Memory was back by half, the hunt over; then short again while the first still dies."""
    play = Play().short()
    (end,) = play.ends()
    play.sample(0.4)
    over = play.state.hunt
    play.sample(SHORT, SECOND).survey(OTHER, leaving=(leaving(60, 5 * GIB, comm="hog"),))

    assert end.victims == (HOG.id,)
    assert isinstance(over, Calm)
    assert isinstance(play.state.hunt, Ending)
    assert play.state.hunt.left == {HOG.id}
    assert play.asked == []


def test_who_would_not_go_for_us_is_not_waited_for_again():
    play = Play().short()
    stuck = leaving(60, 9 * GIB, comm="hog")
    play.sample(SHORT, RULES.kill_patience_ns + SECOND).survey(OTHER, BYSTANDER, leaving=(stuck,))

    assert [end.victims for end in play.ends()] == [(OTHER.id,)]


def test_a_kill_by_the_kernel_that_did_not_help_is_not_waited_for_a_second_time():
    """Its victim may still be leaving when the wait for the kernel's kill is over."""
    play = Play()
    play.feed(sampled(play.now_ns, AMPLE, activity=activity())).survey(HOG, OTHER, BYSTANDER)
    play.now_ns += SECOND
    play.feed(sampled(play.now_ns, SHORT, activity=activity(oom_kill=1)))
    waits = play.state.hunt
    play.sample(SHORT, SECOND).survey(HOG, OTHER, BYSTANDER, leaving=(GOING,))

    assert isinstance(waits, Settling)
    assert [end.victims for end in play.ends()] == [(HOG.id,)]


def test_waits_survive_the_record():
    play = Play().short(GOING).sample(SHORT, WAIT_NS + MS)

    assert play.state.others.awaited == {GOING.id}
    assert play.state.others.rest_until_ns == play.now_ns + REST_TIMES * (WAIT_NS + MS)
    assert decode(encode(play.state)) == play.state
