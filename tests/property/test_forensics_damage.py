"""Whatever happens to a log on its way, reading it raises nothing and invents nothing."""

from __future__ import annotations

import json
import random
import textwrap

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forestall.forensics import Incident, parse
from forestall.forensics.jsonable import to_json
from forestall.forensics.rules import findings
from forestall.forensics.story import headline, tell
from tests.fakes.oom_logs import NAMES, read_log
from tests.fakes.oom_reports import FAMILIES, SCOPES, Made, log

_PREFIXES = (
    b"[ 1234.567890] ",
    b"Nov 22 17:00:00 host kernel: ",
    b"2024-05-05T12:34:56,789012+00:00 ",
    b"> ",
    b"kern: warning: [2025-05-18T15:40:20.653515542Z]: ",
    b"4,123,4567890,-;",
    b"[Di Aug 12 03:54:03 2025] ",
    b"kernel: ",
)
_FOREIGN = (
    b"[  100.000000] usb 1-1: new high-speed USB device",
    b"Nov 22 17:00:00 host systemd[1]: Started Foo.",
    b"Nov 22 17:00:00 host foo[12]: Killed process 1 (init) total-vm:1kB, anon-rss:1kB",
    b"[  100.000000] CPU: 7 PID: 77 Comm: stranger Not tainted 6.1.0 #1",
)
_MADE = [
    log(Made(family=family, scope=scope).lines(), prefix)
    for family in FAMILIES.values()
    for scope in (SCOPES if family.oom_kill else SCOPES[:2])
    for prefix in ("", "[  100.000001] ")
]
_LOGS = [*_MADE, *(read_log(name) for name in NAMES)]
_ANY = st.integers(0, len(_LOGS) - 1)
_SEED = st.integers(0, 1 << 30)
_WRAPPED = {"05", "23", "27", "35", "43", "45"}
_quick = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def use(incidents: list[Incident]) -> None:
    """Do with incidents all that the command line does."""
    for incident in incidents:
        json.dumps(to_json(incident))
        headline(incident)
        for part in tell(incident, incidents):
            assert all(line.isprintable() for line in part.lines)
        findings(incident, incidents)


def victims(incidents: list[Incident]) -> list[tuple]:
    return [
        (v.pid, v.comm, v.uid, v.total_vm_kb, v.anon_rss_kb, v.oom_score_adj)
        for incident in incidents
        for v in incident.victims
    ]


@_quick
@given(number=_ANY, share=st.floats(0.0, 1.0))
def test_a_cut_log_gives_what_is_left_and_nothing_else(number, share):
    data = _LOGS[number]
    at = int(len(data) * share)
    whole = {v[0]: v for v in victims(parse([data]))}

    left = parse([data[:at]])
    use(left)
    use(parse([data[at:]]))

    for victim in victims(left):
        full = whole[victim[0]]
        assert all(a is None or a == b for a, b in zip(victim, full, strict=True))


@pytest.mark.parametrize("name", [name for name in NAMES if len(read_log(name)) < 1300])
def test_every_prefix_of_a_short_log_is_read(name):
    data = read_log(name)
    whole = {v[0]: v for v in victims(parse([data]))}

    for at in range(len(data)):
        for victim in victims(parse([data[:at]])):
            full = whole[victim[0]]

            assert all(a is None or a == b for a, b in zip(victim, full, strict=True))


@_quick
@given(
    number=_ANY,
    columns=st.sampled_from([72, 80, 100]),
    at_blanks=st.booleans(),
)
def test_a_wrapped_log_has_the_same_victims(number, columns, at_blanks):
    data = _LOGS[number]
    wanted = parse([data])
    text = data.decode("utf-8", "backslashreplace").split("\n")
    if at_blanks:
        lines = [
            piece
            for line in text
            for piece in textwrap.wrap(
                line, columns, break_long_words=False, break_on_hyphens=False
            )
            or [""]
        ]
    else:
        lines = [line[i : i + columns] for line in text for i in range(0, len(line) or 1, columns)]

    found = parse(["\n".join(lines).encode()])

    use(found)
    if at_blanks:
        assert [v[:2] for v in victims(found)] == [v[:2] for v in victims(wanted)]
    else:
        # A terminal's edge may fall on a blank inside a name: then nobody can tell.
        assert [v[0] for v in victims(found)] == [v[0] for v in victims(wanted)]


@pytest.mark.parametrize("turn", [0, 3])
@pytest.mark.parametrize("number", range(len(_LOGS)))
def test_another_prefix_changes_nothing(turn, number):
    data, prefix = _LOGS[number], _PREFIXES[(number + turn) % len(_PREFIXES)]
    lines = [prefix + line if line.strip() else line for line in data.split(b"\n")]
    wanted = parse([data])

    found = parse([b"\n".join(lines)])

    assert victims(found) == victims(wanted)
    assert [i.kind for i in found] == [i.kind for i in wanted]


@_quick
@given(number=_ANY, seed=_SEED)
def test_foreign_lines_between_change_nothing(number, seed):
    chance = random.Random(seed)
    # In a wrapped log a line may only be put before one that begins with a prefix.
    if number >= len(_MADE) and NAMES[number - len(_MADE)][:2] in _WRAPPED:
        return
    lines = _LOGS[number].split(b"\n")
    spots = [chance.randrange(len(lines)) for _ in range(12)]
    mixed = list(lines)
    for spot in sorted(spots, reverse=True):
        if lines[spot][:1] not in (b" ", b"\t", b""):
            mixed.insert(spot, chance.choice(_FOREIGN))
    wanted = parse([_LOGS[number]])

    found = parse([b"\n".join(mixed)])

    use(found)
    assert victims(found) == victims(wanted)


@_quick
@given(one=_ANY, other=_ANY, seed=_SEED)
def test_two_logs_in_one_raise_nothing(one, other, seed):
    chance = random.Random(seed)
    left, right = _LOGS[one].split(b"\n")[:120], _LOGS[other].split(b"\n")[:120]
    mixed = []
    while left or right:
        take = left if left and (not right or chance.random() < 0.5) else right
        mixed.append(take.pop(0))

    use(parse([b"\n".join(mixed)]))


@_quick
@given(number=_ANY, seed=_SEED)
def test_portions_do_not_matter(number, seed):
    data, chance = _LOGS[number], random.Random(seed)
    portions = []
    at = 0
    while at < len(data):
        size = chance.randrange(1, 4000)
        portions.append(data[at : at + size])
        at += size

    assert parse(portions) == parse([data])


@_quick
@given(
    number=_ANY,
    spots=st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=8)), max_size=20),
)
def test_any_bytes_written_over_a_log_raise_nothing(number, spots):
    hurt = bytearray(_LOGS[number])
    for share, junk in spots:
        at = int(share * len(hurt))
        hurt[at : at + len(junk)] = junk

    use(parse([bytes(hurt)]))


@_quick
@given(st.binary(max_size=2000))
def test_any_bytes_at_all_raise_nothing(data):
    use(parse([data]))
