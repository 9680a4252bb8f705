"""The ring: bounded, silent while something is decided, and true to replay."""

import json

import pytest

from forestall import __version__
from forestall.core.codec import decode, encode
from forestall.core.events import Gone, Sampled
from forestall.core.model import Stage
from forestall.core.policy import step
from forestall.core.rules import DEFAULT_RULES, Limit, Trigger, available
from forestall.core.state import Calm, begin
from forestall.core.units import GIB, MIB, MS, SECOND
from forestall.core.value import replace
from forestall.recorder.ring import BEFORE_ENTRIES, FORMAT_VERSION, PIECE_BYTES, Ring
from tests.fakes.builders import row, sampled, surveyed

RULES = replace(DEFAULT_RULES, triggers=(Trigger("out", Stage.KILL, (available(Limit(0.02)),)),))
HOG, BYSTANDER = row(60, 9 * GIB, comm="hog\n\x1b[2J\udcff"), row(62, 100 * MIB)


class Tape:
    """Plays the policy into a ring; what the ring writes lands here."""

    def __init__(self, bytes_max=2 * MIB, rules=RULES):
        self.files = {}
        self.done = []
        self.willing = True
        self.calls = 0
        self.ring = Ring(rules, bytes_max=bytes_max, write=self._write)
        self.rules = rules
        self.state = begin(rules)
        self.now_ns = 1000 * SECOND

    def _write(self, name, data, last):
        self.calls += 1
        if not self.willing:
            return False
        assert len(data) <= PIECE_BYTES
        self.files[name] = self.files.get(name, b"") + data
        if last:
            self.done.append(name)
        return True

    def feed(self, event):
        before = self.state
        self.state, requests = step(before, event, self.rules)
        self.ring.append(before, event, requests, 3)
        return self

    def sample(self, share, count=1):
        for _ in range(count):
            self.now_ns += 100 * MS
            self.feed(sampled(self.now_ns, share))
        return self

    def survey(self):
        return self.feed(surveyed(self.now_ns, HOG, BYSTANDER))

    def episode(self):
        self.sample(0.5, 3).survey().sample(0.01).survey().feed(Gone(self.now_ns, HOG.id))
        return self.sample(0.6, 5)

    def drain(self):
        for _ in range(10_000):
            if not self.ring.pending:
                return self
            self.ring.pump()
        raise AssertionError("never done")

    def lines(self, name):
        return [json.loads(line) for line in self.files[name].decode("ascii").splitlines()]


def replayed(lines):
    """Step through a record from the state in its head; yields recorded and new requests."""
    head, *entries = lines
    state, rules = decode(head["state"]), decode(head["rules"])
    for entry in entries:
        state, requests = step(state, decode(entry["event"]), rules)
        yield entry["requests"], encode(requests)


def test_calm_is_thinned_to_what_is_kept_before_an_episode():
    tape = Tape().sample(0.5, BEFORE_ENTRIES * 3)

    assert len(tape.ring._entries) == BEFORE_ENTRIES
    assert not tape.ring.in_episode
    assert tape.ring.dropped == 0


def test_an_episode_begins_with_the_calm_before_it_and_holds_every_event():
    tape = Tape().sample(0.5, 200).episode()
    tape.ring.close_episode("one")
    tape.drain()
    head, *entries = tape.lines("one")
    names = [entry["event"]["_"] for entry in entries]

    assert head["version"] == FORMAT_VERSION
    assert head["forestall"] == __version__
    assert names.count("Gone") == 1
    assert names.count("Surveyed") == 2
    assert len(entries) >= BEFORE_ENTRIES
    assert all(entry["late_ns"] == 3 for entry in entries)
    assert tape.done == ["one"]
    assert tape.ring.written == 1


def test_a_record_replays_byte_for_byte_from_its_head():
    tape = Tape().sample(0.5, 200).episode()
    tape.ring.close_episode("one")
    tape.drain()
    pairs = list(replayed(tape.lines("one")))

    assert len(pairs) > BEFORE_ENTRIES
    assert all(was == now for was, now in pairs)
    assert any(request["_"] == "End" for was, _ in pairs for request in was)


def test_a_record_that_lost_its_beginning_replays_all_the_same():
    tape = Tape(bytes_max=20_000).episode().sample(0.5, 5).episode()
    tape.sample(0.01).survey()
    tape.ring.close_episode("cut")
    tape.drain()
    lines = tape.lines("cut")

    assert lines[0]["dropped"] > 0
    assert lines[0]["state"]["now_ns"] > 0
    assert all(was == now for was, now in replayed(lines))


def test_an_endless_episode_stays_within_its_bytes_and_counts_what_it_drops():
    tape = Tape(bytes_max=50_000).sample(0.5, 2).survey()
    for _ in range(100):
        tape.sample(0.01, 5)
        if tape.now_ns % 2:
            tape.survey()

    assert tape.ring._bytes <= 50_000
    assert tape.ring.dropped > 0
    assert tape.ring.in_episode


def test_one_entry_larger_than_the_ring_is_kept():
    """A survey of thousands must not empty the ring for good."""
    tape = Tape(bytes_max=100).sample(0.5)

    assert len(tape.ring._entries) == 1


def test_nothing_is_encoded_or_written_while_something_is_decided():
    tape = Tape().episode()
    for _ in range(50):
        tape.ring.pump()

    assert tape.calls == 0
    assert not tape.ring.pending


def test_outside_an_episode_there_is_nothing_to_close():
    tape = Tape().sample(0.5, 5)
    tape.ring.close_episode("none")
    tape.ring.pump()

    assert tape.files == {}
    assert len(tape.ring._entries) == 5


def test_what_could_not_be_handed_over_is_offered_again_and_nothing_is_lost():
    eager, shy = Tape().sample(0.5, 200).episode(), Tape().sample(0.5, 200).episode()
    for tape in (eager, shy):
        tape.ring.close_episode("one")
    eager.drain()
    for n in range(10_000):
        shy.willing = n % 3 == 0
        shy.ring.pump()

    assert shy.files == eager.files
    assert shy.done == ["one"]


def test_an_episode_while_the_last_is_still_being_written_is_lost_and_counted():
    tape = Tape().episode()
    tape.willing = False
    tape.ring.close_episode("one")
    tape.ring.pump()
    tape.episode()
    count = len(tape.ring._entries)
    tape.ring.close_episode("two")
    tape.willing = True
    tape.drain()

    assert tape.done == ["one"]
    assert tape.ring.dropped == count


def test_a_record_ends_where_other_rules_begin():
    """Read under rules that came later, it would not replay."""
    tape = Tape().episode()
    later = replace(RULES, triggers=(), grace_ns=1)
    tape.ring.adopt(later, "before")
    tape.drain()

    assert decode(tape.lines("before")[0]["rules"]) == RULES
    assert all(was == now for was, now in replayed(tape.lines("before")))
    assert len(tape.ring._entries) == 0
    assert isinstance(tape.state.hunt, Calm)


def test_calm_under_old_rules_does_not_open_a_record_under_new_ones():
    tape = Tape(rules=replace(RULES, triggers=())).sample(0.01, 5)
    tape.ring.adopt(RULES, "none")
    tape.rules, tape.state = RULES, begin(RULES)
    tape.episode().ring.close_episode("after")
    tape.drain()

    assert tape.done == ["after"]
    assert all(was == now for was, now in replayed(tape.lines("after")))


@pytest.mark.parametrize("name", ["\udcff", "\n", "\x1b]0;x\x07", "é", '"}'])
def test_hostile_names_survive_the_record(name):
    tape = Tape().sample(0.5, 3)
    tape.feed(surveyed(tape.now_ns, row(60, GIB, comm=name), BYSTANDER))
    tape.sample(0.01).feed(surveyed(tape.now_ns, row(60, GIB, comm=name), BYSTANDER))
    tape.ring.close_episode("odd")
    tape.drain()
    entries = tape.lines("odd")[1:]
    seen = [decode(e["event"]) for e in entries if e["event"]["_"] == "Surveyed"]

    assert [survey.rows[0].comm for survey in seen] == [name] * 2
    assert all(was == now for was, now in replayed(tape.lines("odd")))
    assert any(isinstance(decode(e["event"]), Sampled) for e in entries)
