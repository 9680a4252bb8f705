"""Replay: the same requests from the same events, whatever happened to the guard meanwhile."""

import gzip
import json

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from forestall.cli import exits
from forestall.cli.replay import command
from forestall.core import events, fallback
from forestall.core.events import End, Gone
from forestall.core.model import Stage
from forestall.core.rules import DEFAULT_RULES, Limit, Trigger, available
from forestall.core.units import GIB, MIB, MS, SECOND
from forestall.core.value import fields_of, replace
from forestall.guard.loop import Loop, Ports
from forestall.recorder.ring import Ring
from forestall.replay import record as record_module
from forestall.replay.again import replay
from forestall.replay.errors import BadRecord
from forestall.replay.record import load
from tests.fakes.builders import row, sampled, surveyed

RULES = replace(DEFAULT_RULES, triggers=(Trigger("out", Stage.KILL, (available(Limit(0.02)),)),))
HOG, BYSTANDER = row(60, 9 * GIB, comm="hog\n\x1b[2J\udcff"), row(62, 100 * MIB)


class Guarded:
    """A loop with a ring behind it; its ports fail when they are told to."""

    def __init__(self, *, forgets=False):
        self.now_ns = 1000 * SECOND
        self.share = 0.5
        self.failing = 0
        self.forgets = forgets
        self.written = b""
        self.ring = Ring(RULES, bytes_max=4 * MIB, write=self._write)
        self.loop = Loop(
            RULES,
            Ports(
                now_ns=lambda: self.now_ns,
                sample=lambda now_ns, _activity: sampled(now_ns, self.share),
                survey=lambda _shared: surveyed(self.now_ns, HOG, BYSTANDER),
                perform=self._perform,
                relieve=lambda _request: None,
                tell=lambda _tell, _now: None,
                record=self._record,
            ),
        )

    def _write(self, _name, data, _last):
        self.written += data
        return True

    def _record(self, state, event, requests, late_ns):
        if self.forgets and any(isinstance(one, End) for one in requests) and self.failing:
            self.failing -= 1
            raise RuntimeError("the recorder failed")
        self.ring.append(state, event, requests, late_ns)

    def _perform(self, request, now_ns):
        if self.failing:
            self.failing -= 1
            raise RuntimeError("a mistake of our own")
        return [Gone(now_ns, victim) for victim in request.victims]

    def turns(self, share, count=3):
        self.share = share
        for _ in range(count):
            self.now_ns += 100 * MS
            self.loop.turn(self.now_ns)
        return self

    def save(self, folder, name="episode-1.jsonl"):
        self.ring.close_episode("one")
        while self.ring.pending:
            self.ring.pump()
        path = folder / name
        path.write_bytes(self.written)
        return path


def an_episode(folder):
    return Guarded().turns(0.5).turns(0.01).turns(0.6).save(folder)


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_record_gives_the_recorded_requests_byte_for_byte(tmp_path):
    record = load(an_episode(tmp_path))
    outcome = replay(record)

    assert outcome.difference is None
    assert outcome.events == len(record.lines) > 9
    assert outcome.ends == 1
    assert (record.version, record.cut, record.dropped) == (2, False, 0)


@pytest.mark.parametrize("forgets", [False, True], ids=["the effect fails", "the recorder fails"])
def test_an_internal_error_in_an_episode_does_not_keep_the_rest_from_replaying(forgets, tmp_path):
    guarded = Guarded(forgets=forgets).turns(0.5)
    guarded.failing = 1
    record = load(guarded.turns(0.01, 40).turns(0.6).save(tmp_path))
    outcome = replay(record)
    reset = next(line for line in record.lines if type(line.event).__name__ == "Reset")
    ends_after = [line for line in record.lines if line.number > reset.number and line.requests]

    assert guarded.loop.errors == 1
    assert reset.state is not None
    assert outcome.difference is None
    assert outcome.resets == 1
    assert any(one["_"] == "End" for line in ends_after for one in line.requests)


@pytest.mark.parametrize("errors", [3, 4, 5])
def test_after_three_errors_the_minimal_policy_is_replayed(errors, tmp_path):
    guarded = Guarded().turns(0.5)
    guarded.failing = errors
    record = load(guarded.turns(0.01, 90).save(tmp_path))
    outcome = replay(record)

    assert guarded.loop._step is fallback.step
    assert outcome.resets == errors
    assert outcome.difference is None
    assert any("minimal policy" in json.dumps(line.requests) for line in record.lines)


def test_an_answer_that_differs_is_found_and_shown(tmp_path):
    path = an_episode(tmp_path)
    lines = lines_of(path)
    number = next(
        n for n, line in enumerate(lines) if any(r["_"] == "End" for r in line.get("requests", ()))
    )
    lines[number]["requests"][0]["victims"][0]["pid"] = 62
    shown = CliRunner().invoke(command, [str(write(path, lines))])
    told = json.loads(CliRunner().invoke(command, ["--json", str(path)]).output)

    assert shown.exit_code == exits.PROBLEM.code
    assert f"line {number + 1}: Surveyed at" in shown.output
    assert "recorded:  KILL to [62]" in shown.output
    assert "now:       KILL to [60]" in shown.output
    assert "\x1b" not in shown.output
    assert (told["same"], told["difference"]["line"]) == (False, number + 1)


def test_a_record_under_other_rules_differs(tmp_path):
    """The rules are in the record: a replay does not ask what is set today."""
    path = an_episode(tmp_path)
    lines = lines_of(path)
    lines[0]["rules"]["triggers"] = []
    outcome = replay(load(write(path, lines)))

    assert outcome.difference is not None
    assert outcome.ends == 0


def test_a_policy_that_fails_on_a_record_is_a_difference(tmp_path):
    path = an_episode(tmp_path)
    lines = lines_of(path)
    number = next(n for n, line in enumerate(lines) if "memory" in line.get("event", ()))
    lines[number]["event"]["memory"]["available_bytes"] = "much"
    outcome = replay(load(write(path, lines)))

    assert outcome.difference.line == number + 1
    assert outcome.difference.again.startswith("TypeError")


def test_the_command_says_that_all_is_the_same(tmp_path):
    shown = CliRunner().invoke(command, [str(an_episode(tmp_path))])

    assert shown.exit_code == exits.FINE.code
    assert "1 of them to end somebody: all the same, byte for byte" in shown.output


@pytest.mark.parametrize("packed", [False, True])
def test_a_record_that_was_cut_short_replays_up_to_its_last_whole_line(packed, tmp_path):
    path = an_episode(tmp_path)
    whole = path.read_bytes()
    if packed:
        whole = gzip.compress(whole)
    path.write_bytes(whole[: len(whole) * 3 // 4])
    record = load(path)
    shown = CliRunner().invoke(command, [str(path)])

    assert record.cut
    assert 0 < len(record.lines) < 15
    assert replay(record).difference is None
    assert "cut short" in shown.output


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: lines[0].update(version=99), "format 99, and this forestall reads 1 to 2"),
        (lambda lines: lines[0].update(version=None), "format None"),
        (lambda lines: lines[0].pop("record"), "no record of forestall's"),
        (lambda lines: lines[0]["state"].update(novelty=1), "line 1: state: State"),
        (lambda lines: lines[0].update(rules={"_": "Calm"}), "line 1: rules is a Calm"),
        (lambda lines: lines[3].pop("late_ns"), "line 4: an event without"),
        (lambda lines: lines[3]["event"].update(_="Calm"), "line 4: event: Calm"),
        (lambda lines: lines[3].update(event={"_": "Calm"}), "line 4: event is a Calm"),
        (lambda lines: lines.insert(2, [1]), "line 3: not a JSON object"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(change, said, tmp_path):
    path = an_episode(tmp_path)
    lines = lines_of(path)
    change(lines)

    with pytest.raises(BadRecord, match=said) as caught:
        load(write(path, lines))
    assert str(path) in str(caught.value)


def test_a_record_of_the_first_format_is_still_read(tmp_path):
    """Before it was remembered who is still dying."""
    path = an_episode(tmp_path)
    lines = lines_of(path)
    lines[0]["version"] = 1
    del lines[0]["state"]["dying"], lines[0]["forestall"]
    record = load(write(path, lines))

    assert (record.version, record.program) == (1, "")
    assert replay(record).difference is None


def test_every_event_of_the_policy_can_be_read_out_of_a_record():
    """What has a time is an event; requests have none, for time enters with events only."""
    kinds = {
        kind
        for kind in vars(events).values()
        if isinstance(kind, type)
        and kind.__module__ == events.__name__
        and "now_ns" in fields_of(kind)
    }

    assert set(record_module.EVENTS) == kinds


def test_a_file_too_large_to_be_a_record_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(record_module, "RECORD_BYTES_MAX", 1000)
    path = an_episode(tmp_path)
    packed = tmp_path / "packed"
    packed.write_bytes(gzip.compress(path.read_bytes()))

    for file in (path, packed):
        with pytest.raises(BadRecord, match="larger than any record"):
            load(file)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return an_episode(tmp_path_factory.mktemp("raw")).read_bytes()


@given(st.data())
def test_any_damage_gives_a_record_or_is_refused(tmp_path_factory, raw, data):
    at = data.draw(st.integers(0, len(raw)))
    path = tmp_path_factory.mktemp("damaged") / "episode.jsonl"
    path.write_bytes(raw[:at] + data.draw(st.binary(max_size=8)) + raw[at + 3 :])

    try:
        record = load(path)
    except BadRecord:
        return
    replay(record)
