"""Any text is rules or our own error; what is rendered reads back."""

from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from forestall.config import forms
from forestall.config.conditions import parse_condition, render_condition
from forestall.config.errors import ConfigError
from forestall.config.read import load_text
from forestall.config.table import BY_KEY
from forestall.core.rules import Limit

SHARES = st.integers(0, 1000).map(lambda tenths: tenths / 1000)
SIZES = st.integers(0, 2**50)
WORDS = st.sampled_from(
    [
        "available",
        "swap_free",
        "stall_full[2s]",
        "<",
        ">",
        "5%",
        "min(",
        "1GiB",
        ")",
        ",",
        " ",
        "2s",
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(st.text(max_size=400))
def test_any_text_is_rules_or_our_own_error(text):
    with suppress(ConfigError):
        load_text(text)


@given(st.lists(WORDS, max_size=8).map("".join))
def test_any_words_are_a_condition_or_refused(text):
    with suppress(ValueError):
        condition = parse_condition(text)

        assert parse_condition(render_condition(condition)) == condition


@given(share=st.none() | SHARES, size=st.none() | SIZES, smaller=st.booleans())
def test_a_limit_reads_back_as_written(share, size, smaller):
    limit = Limit(share, size, smaller=smaller)
    again = forms.parse_limit(forms.limit_text(limit))

    assert again.of(2**40) == limit.of(2**40)


@given(st.integers(0, 10**12).map(lambda us: us * 1000))
def test_a_duration_reads_back_as_written(duration_ns):
    assert forms.parse_duration(forms.duration_text(duration_ns)) == duration_ns


@given(key=st.sampled_from(sorted(BY_KEY)), raw=VALUES)
def test_any_value_is_taken_or_refused_with_a_sentence(key, raw):
    with suppress(ValueError):
        BY_KEY[key].read(raw)


@given(st.text(max_size=100))
def test_any_pattern_text_survives_toml(text):
    import tomllib

    assert tomllib.loads(f"a = {forms.render_text(text)}")["a"] == text
