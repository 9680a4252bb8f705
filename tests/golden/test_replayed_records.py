"""Records of real guests, through today's policy: the recorded requests, byte for byte.

``tests/golden/replay/*.jsonl.gz`` were written by the guard in the arena's guests. A change of
the policy that is meant to answer them differently is written down by UPDATE_GOLDEN=1, which
keeps the events and puts today's requests beside them; a person reads what changed
(``forestall replay`` on the file as it was).
"""

import gzip
import json
import os
from pathlib import Path

import pytest

from forestall import __version__
from forestall.core import policy
from forestall.core.codec import decode, encode
from forestall.core.errors import CodecError
from forestall.core.rules import DEFAULT_RULES
from forestall.core.state import Calm, begin
from forestall.recorder.ring import FORMAT_VERSION
from forestall.replay.again import replay
from forestall.replay.errors import BadRecord
from forestall.replay.record import load

FOLDER = Path(__file__).with_name("replay")
RECORDS = sorted(FOLDER.glob("*.jsonl.gz"))
BYTES_MAX = 60 * 1024


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.name.partition(".")[0])
def test_a_real_record_gives_the_recorded_requests_byte_for_byte(path):
    if os.environ.get("UPDATE_GOLDEN"):
        rewrite(path)
    record = load(path)
    outcome = replay(record)

    assert outcome.difference is None
    assert not record.cut
    assert outcome.events == len(record.lines)


def test_the_records_hold_what_a_replay_is_for():
    """Ends, a hunt from calm to calm, and files small enough to keep."""
    outcomes = [replay(load(path)) for path in RECORDS]

    assert sum(outcome.ends for outcome in outcomes) >= max(1, len(RECORDS) - 1)
    assert all(path.stat().st_size <= BYTES_MAX for path in RECORDS)


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.name.partition(".")[0])
def test_from_any_later_event_the_replay_goes_on_the_same(path):
    """A state written down in the middle, as in the ring, is all that the rest needs."""
    record = load(path)
    states = [record.state]
    for line in record.lines:
        states.append(policy.step(states[-1], line.event, record.rules)[0])
    hunts = {type(state.hunt) for state in states}
    middle = len(record.lines) // 2
    again, asked = policy.step(states[middle], record.lines[middle].event, record.rules)

    assert hunts > {Calm}
    assert again == states[middle + 1]
    assert encode(asked) == record.lines[middle].requests


def rewrite(path):
    """Put today's requests beside the recorded events.

    A state or rules that today's policy cannot take up (they had other fields then) give way to
    a fresh state under the built-in rules: the events of a real machine are what is kept.
    """
    head, *entries = map(json.loads, gzip.decompress(path.read_bytes()).splitlines())
    try:
        rules, state = decode(head["rules"]), decode(head["state"])
    except CodecError:
        rules, state = DEFAULT_RULES, begin(DEFAULT_RULES)
        head |= {"version": FORMAT_VERSION, "forestall": __version__}
        head |= {"rules": encode(rules), "state": encode(state)}
    written = [head]
    for entry in entries:
        state, asked = policy.step(state, decode(entry["event"]), rules)
        written.append(entry | {"requests": encode(asked)})
    lines = (json.dumps(line, separators=(",", ":")) + "\n" for line in written)
    path.write_bytes(gzip.compress("".join(lines).encode("ascii"), 9, mtime=0))


def test_a_record_of_a_policy_with_another_memory_is_rewritten_from_a_fresh_state(tmp_path):
    path = tmp_path / RECORDS[0].name
    head, *lines = gzip.decompress(RECORDS[0].read_bytes()).splitlines()
    old = json.loads(head)
    old["state"]["forgotten_field"] = 1
    path.write_bytes(gzip.compress(b"\n".join([json.dumps(old).encode(), *lines]) + b"\n"))
    with pytest.raises(BadRecord, match="forgotten_field"):
        load(path)
    rewrite(path)

    assert replay(load(path)).difference is None
    assert replay(load(path)).events == len(lines)
