"""Round trips: whatever the policy passes comes back from plain data, and from JSON and marshal."""

import json
import marshal
from contextlib import suppress
from enum import Enum

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forestall.core import events, model, rules
from forestall.core.census import Census, Track
from forestall.core.codec import decode, encode
from forestall.core.errors import CodecError
from forestall.core.model import Activity, Holdings, Memory, Pressure, ProcessId, Row
from forestall.core.rules import DEFAULT_RULES, Options
from forestall.core.state import Choosing, Ending, Settling, State, begin
from forestall.core.value import fields_of

SIZES = st.integers(0, 2**63)
TEXTS = st.text(max_size=20) | st.binary(max_size=15).map(
    lambda raw: raw.decode("utf-8", "surrogateescape")
)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
IDS = st.builds(ProcessId, st.integers(0, 2**22), SIZES)
MEMORY = st.builds(Memory, *[SIZES] * 5, st.none() | SIZES)
ACTIVITY = st.builds(Activity, st.none() | SIZES, SIZES, SIZES, *[st.none() | SIZES] * 2, SIZES)
ROWS = st.builds(
    Row,
    IDS,
    *[st.integers(0, 2**22)] * 3,
    TEXTS,
    st.sampled_from("RSDZTI"),
    st.integers(0, 2**32),
    st.integers(-1000, 1000),
    *[SIZES] * 5,
    st.sampled_from(list(model.Standing)),
    TEXTS,
    st.sampled_from(list(model.Role)),
    TEXTS,
    SIZES,
)
EVENTS = st.one_of(
    st.builds(
        events.Sampled,
        SIZES,
        MEMORY,
        st.none() | st.builds(Pressure, SIZES, SIZES),
        st.none() | st.builds(Activity, *[SIZES] * 7),
    ),
    st.builds(events.Missed, SIZES, TEXTS, TEXTS),
    st.builds(
        events.Surveyed,
        SIZES,
        SIZES,
        st.lists(ROWS, max_size=1).map(tuple),
        st.none() | st.builds(Holdings, *[SIZES] * 8),
    ),
    st.builds(events.Gone, SIZES, IDS),
    st.builds(events.Refused, SIZES, IDS, TEXTS),
    st.builds(events.Reset, SIZES, TEXTS, st.booleans()),
)
TRACKS = st.builds(Track, FLOATS, FLOATS, FLOATS, SIZES, SIZES, FLOATS)
HUNTS = st.one_of(
    st.builds(
        Choosing,
        TEXTS,
        st.sampled_from(list(model.Stage)),
        SIZES,
        st.booleans(),
        st.booleans(),
        st.frozensets(IDS, max_size=3),
    ),
    st.builds(
        Ending,
        st.lists(IDS, max_size=3).map(tuple),
        st.frozensets(IDS, max_size=3),
        st.sampled_from(list(model.Force)),
        *[TEXTS] * 3,
        *[SIZES] * 4,
    ),
    st.builds(Settling, TEXTS, TEXTS, *[SIZES] * 4),
)
STATES = st.builds(
    State,
    hunt=HUNTS,
    now_ns=SIZES,
    memory=st.none() | MEMORY,
    census=st.builds(Census, SIZES, st.dictionaries(IDS, TRACKS, max_size=1)),
)


def same(one, other):
    """Equal, and of the same classes all the way down."""
    assert type(one) is type(other)
    if hasattr(one, "_fields"):
        for name in fields_of(type(one)):
            same(getattr(one, name), getattr(other, name))
    elif isinstance(one, tuple):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            same(left, right)
    assert one == other


@settings(max_examples=25, deadline=None)
@given(thing=EVENTS | STATES)
def test_what_is_encoded_decodes_to_the_same(thing):
    plain = encode(thing)

    same(decode(plain), thing)
    same(decode(json.loads(json.dumps(plain))), thing)
    same(decode(marshal.loads(marshal.dumps(plain))), thing)
    assert encode(decode(plain)) == plain


@pytest.mark.parametrize("thing", [DEFAULT_RULES, Options(), begin(DEFAULT_RULES)])
def test_rules_options_and_the_first_state_make_the_round_trip(thing):
    same(decode(json.loads(json.dumps(encode(thing)))), thing)


@pytest.mark.parametrize(
    "enum",
    [
        member
        for module in (model, rules, events)
        for member in vars(module).values()
        if isinstance(member, type) and issubclass(member, Enum) and member is not Enum
    ],
)
def test_every_member_of_every_enum_makes_the_round_trip(enum):
    for member in enum:
        assert decode(encode(member)) is member


def test_the_order_of_a_set_does_not_show():
    """Replay compares byte for byte, and sets of the same things may differ in order."""
    ids = [ProcessId(n, 1) for n in range(50)]

    assert encode(frozenset(ids)) == encode(frozenset(reversed(ids)))


@pytest.mark.parametrize("thing", [object(), {1, 2}, b"raw", 1j, pytest])
def test_what_is_no_value_is_refused(thing):
    with pytest.raises(CodecError):
        encode(thing)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["_", "of", "is", "pid", "start_ticks"]) | TEXTS, inner, max_size=3
        )
        | st.fixed_dictionaries(
            {"_": st.sampled_from(["dict", "set", "Stage", "ProcessId", "Rules", "Enum"])},
            optional={"of": inner, "is": inner, "pid": inner, "start_ticks": inner},
        )
    ),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(plain=PLAIN)
def test_any_plain_data_decodes_or_is_refused(plain):
    with suppress(CodecError):
        decode(plain)
