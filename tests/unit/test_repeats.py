"""Whoever comes back into the same shortage: counted, said, and not confused with its sisters."""

import json

import pytest

from forestall.core.codec import decode, encode
from forestall.core.events import End, Gone, Tell
from forestall.core.model import Stage
from forestall.core.policy import step
from forestall.core.repeats import ENDS_MAX, WINDOW_NS, loops
from forestall.core.rules import DEFAULT_RULES, Limit, Trigger, available
from forestall.core.state import Calm, begin
from forestall.core.units import GIB, MIB, MINUTE, MS, SECOND
from forestall.core.value import replace
from forestall.guard.desk import status_of
from tests.fakes.builders import row, sampled, surveyed

RULES = replace(DEFAULT_RULES, triggers=(Trigger("out", Stage.KILL, (available(Limit(0.04)),)),))
SERVICE = "/system.slice/postgres.service"
BYSTANDER = row(62, 100 * MIB, comm="bystander")


class Play:
    """Has one after the other grow, end, and come back."""

    def __init__(self):
        self.state = begin(RULES)
        self.now_ns = 1000 * SECOND
        self.feed(sampled(self.now_ns, 0.5))

    def feed(self, event):
        self.state, self.asked = step(self.state, event, RULES)

    def end(self, *rows, after_ns=MINUTE):
        """Run short with these grown large; returns the end and what was told with it."""
        self.now_ns += after_ns
        self.feed(sampled(self.now_ns, 0.01))
        self.feed(surveyed(self.now_ns, *rows, BYSTANDER))
        (end,) = [request for request in self.asked if isinstance(request, End)]
        told = {one.what: one for one in self.asked if isinstance(one, Tell)}
        for victim in end.victims:
            self.feed(Gone(self.now_ns + 100 * MS, victim))
        self.now_ns += SECOND
        self.feed(sampled(self.now_ns, 0.5))
        assert isinstance(self.state.hunt, Calm)
        assert BYSTANDER.id not in end.victims
        return end, told


def service(pid, *, age_s, **fields):
    return row(pid, 9 * GIB, comm="postgres", cgroup=SERVICE, age_s=age_s, **fields)


def test_a_service_that_restarts_into_the_same_shortage_is_noticed_and_said():
    play = Play()
    first, quiet = play.end(service(60, age_s=3600))
    _, again = play.end(service(70, age_s=50))
    end, third = play.end(service(80, age_s=50))

    assert "restart-loop" not in quiet
    assert "ended for" not in first.why
    assert again["decision"].sentence.endswith(
        "; postgres.service was ended for the 2nd time in 61.0 s"
    )
    assert third["restart-loop"].sentence == (
        "postgres.service was ended for the 3rd time in 2 min: it comes back into the same "
        "shortage: give it a longer RestartSec=, a MemoryMax= of its own, or mend what makes it "
        "grow"
    )
    assert end.why.endswith("postgres.service was ended for the 3rd time in 2 min")
    assert third["restart-loop"].victim == end.victims[0]


def test_sisters_that_were_there_all_along_have_not_come_back():
    """Two workers of one service, ended one after the other."""
    play = Play()
    play.end(service(60, age_s=3600))
    _, told = play.end(service(61, age_s=3700), after_ns=2 * SECOND)

    assert "restart-loop" not in told


def test_a_sisters_end_between_does_not_hide_a_return():
    play = Play()
    play.end(service(60, age_s=3600))
    play.end(service(61, age_s=3700), after_ns=2 * SECOND)
    _, told = play.end(service(70, age_s=12), after_ns=10 * SECOND)

    assert "2nd time" in told["restart-loop"].sentence


def test_who_comes_back_much_later_begins_anew():
    play = Play()
    play.end(service(60, age_s=3600))
    _, told = play.end(service(70, age_s=60), after_ns=WINDOW_NS)

    assert "restart-loop" not in told
    assert loops(play.state, play.now_ns) == ()


def test_without_a_unit_name_owner_and_parent_tell():
    """A loop in a shell."""
    play = Play()
    play.end(row(60, 9 * GIB, comm="train", parent=50))
    _, same = play.end(row(70, 9 * GIB, comm="train", parent=50, age_s=30))
    _, other_owner = play.end(row(80, 9 * GIB, comm="train", parent=50, age_s=30, uid=1001))
    _, other_parent = play.end(row(90, 9 * GIB, comm="train", parent=51, age_s=30))

    assert same["restart-loop"].sentence.startswith("train was ended for the 2nd time in 61.0 s: ")
    assert "systemd-run" in same["restart-loop"].sentence
    assert "restart-loop" not in other_owner
    assert "restart-loop" not in other_parent


@pytest.mark.parametrize(
    ("first", "second", "known"),
    [
        ("/kubepods/pod7/cri-containerd-aa.scope", "/kubepods/pod7/cri-containerd-bb.scope", True),
        ("/kubepods/pod7/cri-containerd-aa.scope", "/kubepods/pod8/cri-containerd-bb.scope", False),
        (SERVICE + "/worker", SERVICE + "/leader", True),
    ],
)
def test_a_scope_is_new_for_every_run_and_its_place_is_not(first, second, known):
    play = Play()
    play.end(row(60, 9 * GIB, comm="java", cgroup=first, parent=900))
    _, told = play.end(row(70, 9 * GIB, comm="java", cgroup=second, parent=901, age_s=30))

    assert ("restart-loop" in told) is known


def test_what_is_remembered_is_bounded_and_survives_the_record():
    play = Play()
    for n in range(ENDS_MAX + 5):
        play.end(row(100 + n, 9 * GIB, comm=f"hog{n}"), after_ns=20 * SECOND)

    assert len(play.state.ends) == ENDS_MAX
    assert play.state.ends[-1].name == f"hog{ENDS_MAX + 4}"
    assert decode(encode(play.state)) == play.state


def test_status_tells_of_it_while_it_matters():
    play = Play()
    play.end(service(60, age_s=3600))
    before = status_of(play.state, RULES, play.now_ns)
    play.end(row(61, 9 * GIB, comm="once\x1b[2J"))
    play.end(service(70, age_s=50))
    (loop,) = status_of(play.state, RULES, play.now_ns)["restart_loops"]
    later = status_of(play.state, RULES, play.now_ns + WINDOW_NS)

    assert before["restart_loops"] == later["restart_loops"] == []
    assert (loop["name"], loop["times"], loop["age_ns"]) == ("postgres.service", 2, SECOND)
    assert loop["span_ns"] == 2 * MINUTE + 2 * SECOND
    json.dumps(loop)


def test_a_dry_run_does_not_take_the_same_process_for_one_that_came_back():
    """It ends nobody, and meets the same one in the next shortage."""
    play = Play()
    hog = service(60, age_s=3600)
    play.end(hog)
    _, told = play.end(replace(hog, age_ns=hog.age_ns + 62 * SECOND))

    assert "restart-loop" not in told
