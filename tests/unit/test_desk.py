"""What the control socket answers: who may do what, and that a bad request changes nothing."""

import json
import os

import pytest

from forestall.control.connection import Peer
from forestall.control.errors import Refused as Denied
from forestall.core.codec import encode
from forestall.core.errors import RuleError
from forestall.core.events import Gone, Refused, Surveyed
from forestall.core.model import Force, ProcessId, Standing
from forestall.core.rules import DEFAULT_RULES, Field, VictimRule
from forestall.core.standing import Matcher
from forestall.core.units import GIB, SECOND
from forestall.core.value import replace
from forestall.effects.adjust import Denied as NotAdjusted
from forestall.guard.desk import Desk
from forestall.guard.loop import Loop, Ports
from forestall.kernel.errors import ProcessGone
from tests.fakes.builders import row, sampled, surveyed

OWN = os.getpid()
US = os.getuid()
STRANGER = 54321


class Bench:
    def __init__(self, answer=()):
        self.rows = (row(60, 9 * GIB, comm="hog\x1b[2J"),)
        self.loop = Loop(
            DEFAULT_RULES,
            Ports(
                now_ns=lambda: 5 * SECOND,
                sample=lambda now_ns, _activity: sampled(now_ns, 0.5),
                survey=lambda _shared: surveyed(5 * SECOND, *self.rows),
                perform=lambda _request, _now: [],
                relieve=lambda _request: None,
                tell=lambda _tell, _now: None,
                record=lambda *_entry: None,
            ),
        )
        self.adopted = []
        self.performed = []
        self.identity = ProcessId(OWN, 77)
        desk = Desk(
            self.loop,
            now_ns=lambda: 6 * SECOND,
            facts=lambda: {"pid": OWN},
            reloaded=self._adopt,
            perform=lambda request, _now: self.performed.append(request) or list(answer),
            identify=self._identify,
            adjust=lambda *_request: NotAdjusted("not asked for here"),
            mark=lambda *_request: None,
        )
        self.handlers = desk.handlers()

    def _adopt(self, rules):
        Matcher(rules.victim_rules)
        self.adopted.append(rules)
        self.loop.adopt(rules)

    def _identify(self, pid):
        if self.identity is None:
            raise ProcessGone(pid)
        return self.identity

    def call(self, method, uid=0, **parameters):
        return self.handlers[method](parameters, Peer(1, uid, uid))

    def refused(self, method, uid=0, **parameters):
        with pytest.raises(Denied) as refusal:
            self.call(method, uid, **parameters)
        return refusal.value.name.rpartition(".")[2]


def test_status_is_for_everyone_and_is_plain_json():
    bench = Bench()
    bench.loop.turn(5 * SECOND)
    status = bench.call("GetStatus", uid=STRANGER)["status"]
    text = json.dumps(status, allow_nan=False)

    assert status["level"] == "normal"
    assert status["hunt"] == "calm"
    assert status["memory"]["available_bytes"] == 8 * GIB
    assert [one["name"] for one in status["triggers"]] == [t.name for t in DEFAULT_RULES.triggers]
    assert status["next_to_go"]["pid"] == 60
    assert status["next_to_go"]["age_ns"] == SECOND
    assert "\x1b" not in status["next_to_go"]["name"]
    assert "cmdline" not in text


def test_status_before_the_first_sample_says_less_and_does_not_fail():
    status = Bench().call("GetStatus")["status"]

    assert "memory" not in status
    assert status["next_to_go"] is None
    assert all(c["now"] is None for t in status["triggers"] for c in t["conditions"])


def test_the_owner_may_end_his_process_and_root_anybodys():
    for uid in {US, 0}:
        bench = Bench()

        assert bench.call("End", uid, pid=OWN, start_ticks=77) == {"outcome": "asked to end"}
        assert bench.performed[0].victims == (ProcessId(OWN, 77),)
        assert bench.performed[0].force is Force.TERM
        assert f"uid {uid}" in bench.performed[0].why


def test_a_stranger_may_not():
    bench = Bench()

    assert bench.refused("End", STRANGER, pid=OWN, start_ticks=77) == "PermissionDenied"
    assert bench.performed == []


@pytest.mark.parametrize("start", [76, 78, 0, -1])
def test_a_recycled_number_is_left_alone(start):
    bench = Bench()

    assert bench.refused("End", 0, pid=OWN, start_ticks=start) == "NoSuchProcess"
    assert bench.performed == []


def test_a_stranger_learns_nothing_more_from_a_wrong_start():
    """Else start times, which seed some programs' random numbers, could be guessed at."""
    bench = Bench()

    assert bench.refused("End", STRANGER, pid=OWN, start_ticks=1) == "NoSuchProcess"


def test_who_is_gone_is_no_such_process():
    bench = Bench()
    bench.identity = None

    assert bench.refused("End", 0, pid=OWN, start_ticks=77) == "NoSuchProcess"
    assert bench.refused("End", 0, pid=2**22 - 1, start_ticks=77) == "NoSuchProcess"
    assert bench.performed == []


@pytest.mark.parametrize("pid", [None, 0, 1, -1, "7", 7.0, True, [7], 2**200])
def test_what_is_no_pid_is_refused_and_init_too(pid):
    bench = Bench()

    assert bench.refused("End", 0, pid=pid, start_ticks=77) in {
        "InvalidParameter",
        "NoSuchProcess",
    }
    assert bench.performed == []


@pytest.mark.parametrize("start", [None, "77", 77.0, True])
def test_an_end_without_a_start_time_is_refused(start):
    """A bare number may be somebody else by now."""
    bench = Bench()

    assert bench.refused("End", 0, pid=OWN, start_ticks=start) == "InvalidParameter"


def test_what_came_of_it_is_told():
    victim = ProcessId(OWN, 77)
    gone = Bench([Gone(1, victim)])
    refused = Bench([Refused(1, victim, "it is the guard")])

    assert gone.call("End", 0, pid=OWN, start_ticks=77) == {"outcome": "gone"}
    assert refused.call("End", 0, pid=OWN, start_ticks=77) == {
        "outcome": "refused: it is the guard"
    }


def test_new_rules_come_into_force():
    bench = Bench()
    rules = replace(DEFAULT_RULES, triggers=DEFAULT_RULES.triggers[:2])

    assert bench.call("Reload", rules=encode(rules)) == {"triggers": 2}
    assert bench.adopted == [rules]
    assert bench.loop.rules == rules


def deep(levels):
    nested = []
    for _ in range(levels):
        nested = [nested]
    return nested


BAD_RULES = {
    "nothing": None,
    "text": "rules",
    "a value, but not rules": encode(ProcessId(1, 2)),
    "an unknown class": {"_": "System", "x": 1},
    "a field too few": {"_": "Rules"},
    "a dict without pairs": {"_": "dict"},
    "a dict of odd pairs": {"_": "dict", "of": [[1]]},
    "a set of dicts": {"_": "set", "of": [{"_": "dict", "of": []}]},
    "an enum without a name": {"_": "Stage", "is": []},
    "a class that is no text": {"_": ["Rules"]},
    "too deep": deep(5000),
    "triggers that are none": encode(DEFAULT_RULES) | {"triggers": 5},
    "a time that is a text": encode(DEFAULT_RULES) | {"kill_patience_ns": "5 s"},
    "a pattern that is none": encode(
        replace(DEFAULT_RULES, victim_rules=(VictimRule(Standing.NEVER, Field.NAME, "(", "mine"),))
    ),
}


@pytest.mark.parametrize("bad", BAD_RULES.values(), ids=BAD_RULES)
def test_bad_rules_change_nothing_and_stop_nothing(bad):
    bench = Bench()
    bench.loop.turn(5 * SECOND)
    before = bench.loop.state

    assert bench.refused("Reload", rules=bad) == "RulesRefused"
    assert bench.adopted == []
    assert bench.loop.rules is DEFAULT_RULES
    assert bench.loop.state is before


def test_the_fakes_refuse_a_bad_pattern_as_the_process_table_does():
    with pytest.raises(RuleError):
        Matcher((VictimRule(Standing.NEVER, Field.NAME, "(", "mine"),))


def test_the_survey_of_the_bench_is_a_real_one():
    assert isinstance(surveyed(1), Surveyed)
