"""Choices that looking again could not change: taken at once, and only then."""

import pytest

from forestall.core.events import CONFIRM, CONFIRMED, End, Missed, Survey, Tell
from forestall.core.foregone import AGE_NS
from forestall.core.model import Force, ProcessId
from forestall.core.policy import step
from forestall.core.rules import DEFAULT_RULES, Limit, Stage, Trigger, available
from forestall.core.state import Calm, Choosing, Ending, begin
from forestall.core.units import GIB, MIB, MS, SECOND
from forestall.core.value import replace
from forestall.guard.confirm import objection
from tests.fakes.builders import leaving, row, sampled, surveyed

NOW = 1000 * SECOND
TOTAL = 16 * GIB
HELD = 9 * GIB
LEFT = 0.9 - HELD / TOTAL
"""What was left at the last survey; the trigger lies just below."""
SHORT = LEFT - 0.006
RULES = replace(
    DEFAULT_RULES,
    triggers=(Trigger("out", Stage.KILL, (available(Limit(LEFT - 0.005)),)),),
)
BYSTANDER = row(900, 2 * GIB, comm="bystander")
SHARED = {"parent": 50, "group_id": 50}


def hogs(number, held):
    """A hog of so many processes, with a parent of their own."""
    if number == 1:
        return (row(60, held, comm="hog"),)
    parent = row(50, 2 * MIB, comm="hog")
    return (parent, *(row(60 + i, held // number, comm="hog", **SHARED) for i in range(number)))


class Play:
    """A hog that grows to 9 GiB, surveyed three times; what is left is then for the test."""

    def __init__(self, *, number=1, leaving_now=(), dear=True, rival=None, every_ns=SECOND):
        self.state = begin(RULES)
        self.now_ns = NOW
        for held in (GIB, 5 * GIB, HELD):
            self.sample(0.9 - held / TOTAL, every_ns)
            rows = (*hogs(number, held), BYSTANDER if rival is None else rival(held))
            gone = leaving_now if held == HELD else ()
            cost_ns = 200 * MS if dear else 1 * MS
            self.feed(surveyed(self.now_ns, *rows, cost_ns=cost_ns, leaving=gone))
        assert isinstance(self.state.hunt, Calm)

    def feed(self, event):
        self.state, requests = step(self.state, event, RULES)
        self.asked = list(requests)
        return self

    def sample(self, share, after_ns=100 * MS, **fields):
        self.now_ns += after_ns
        return self.feed(sampled(self.now_ns, share, **fields))

    def find(self, kind):
        return [request for request in self.asked if isinstance(request, kind)]


def test_a_clear_case_is_ended_without_looking_again_where_looking_is_dear():
    play = Play().sample(SHORT)
    (end,) = play.find(End)

    assert not play.find(Survey)
    assert end.victims == (ProcessId(60, 6000),)
    assert end.force is Force.KILL
    assert end.least_bytes == int(0.9 * HELD)
    assert "as seen 100 ms before, for looking again could not change it" in end.why
    assert isinstance(play.state.hunt, Ending)
    assert BYSTANDER.id not in end.victims


def test_where_looking_is_cheap_it_is_looked_at():
    play = Play(dear=False).sample(SHORT)

    assert play.find(Survey)
    assert not play.find(End)


def test_while_somebody_waits_for_memory_looking_is_dear():
    play = Play(dear=False)
    play.sample(LEFT, 300 * MS, some_us=0).sample(SHORT, 300 * MS, some_us=150_000)

    assert play.find(End)


def test_what_is_old_is_looked_at_again():
    play = Play().sample(LEFT, AGE_NS).sample(SHORT)

    assert play.find(Survey)
    assert not play.find(End)


def test_so_much_went_since_that_another_may_have_taken_it():
    play = Play(every_ns=5 * SECOND).sample(LEFT - 0.15)

    assert play.find(Survey)
    assert not play.find(End)


def test_a_rival_who_grew_as_much_makes_it_no_clear_case():
    play = Play(rival=lambda held: row(61, held - 1, comm="rival")).sample(SHORT)

    assert play.find(Survey)
    assert not play.find(End)


def test_while_somebody_leaves_the_memory_to_come_is_looked_for():
    play = Play(leaving_now=(leaving(70, GIB),)).sample(SHORT)

    assert play.find(Survey)
    assert not play.find(End)


def test_of_a_family_its_head_and_the_largest_come_first_for_they_are_asked_again():
    play = Play(number=CONFIRMED + 12).sample(SHORT)
    (end,) = play.find(End)
    each = HELD // (CONFIRMED + 12)

    assert len(end.victims) == CONFIRMED + 12 + 1
    assert end.victims[0] == ProcessId(50, 5000)
    assert end.least_bytes == int(0.9 * (2 * MIB + (CONFIRMED - 1) * each))
    assert BYSTANDER.id not in end.victims


def test_whoever_let_go_of_memory_is_not_ended_and_everybody_is_looked_at():
    play = Play().sample(SHORT)
    play.feed(Missed(play.now_ns, CONFIRM, "it holds 1.00 GiB now, less than when it was chosen"))
    (told,) = play.find(Tell)

    assert play.find(Survey)
    assert not play.find(End)
    assert isinstance(play.state.hunt, Choosing)
    assert not play.state.hunt.spared
    assert told.sentence.startswith("hog was not ended: it holds 1.00 GiB now")


def test_a_conclusion_is_drawn_once():
    play = Play().sample(SHORT)
    play.feed(Missed(play.now_ns, CONFIRM, "why"))

    assert play.state.conclusion is None


@pytest.mark.parametrize(
    ("least", "held", "objects"), [(0, 0, False), (10, 10, False), (10, 9, True)]
)
def test_the_guard_holds_an_end_back_only_for_who_let_go(least, held, objects):
    victims = tuple(ProcessId(60 + i, 6000) for i in range(CONFIRMED + 1))
    asked = []
    request = End(victims, Force.KILL, "why", "hog", 20, least_bytes=least)
    found = objection(request, NOW, lambda those: asked.extend(those) or held)

    assert asked == (list(victims) if least else [])
    assert (found is not None) is objects
    if found is not None:
        assert (found.what, found.now_ns) == (CONFIRM, NOW)
