"""Hostile names at every exit: no markup, no mention, no header, no escape, in whatever form.

The servers of tests/system show the same on the wire; here every renderer meets every name.
"""

import json
import re
from email import message_from_bytes, policy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forestall.herald import render
from forestall.herald.event import clean, read_event
from forestall.herald.letter import write

WALL = 1_800_000_000 * 10**9
NAMES = (
    "<!channel>",
    "<script>",
    "<b>&amp;</b>",
    "@everyone",
    "[x](http://e)",
    "![](//e.co)",
    "*b*_i_`c`~s~",
    "\x1b[31m\x1b]0;t\x07",
    "a\r\nBcc: x@y",
    "a\nforestall: ok",
    "\u202egnp.exe",
    "\u200f\u2066\ufeff",
    "\0",
    "\x9b31m",
    "\udcff\udc9b",
    "\ud800",
    "-rf",
    "$(reboot)",
    "'; DROP TABLE",
    "{{7*7}}",
    "%n%s",
    "",
)


def letter_of(name, count=1):
    raw = {
        "what": "ended",
        "run": name,
        "sentence": f"sent KILL to 7 ({name}), not {name}",
        "level": name,
        "trigger": name,
        "time_ns": WALL,
        "host": name,
        "name": name,
        "pid": 7,
        "used_share": 0.97,
        "likely_name": name,
        "likely_pid": 8,
        "top": [{"pid": 9, "name": name, "share": 0.4}],
    }
    return write([read_event(number + 1, {**raw, "what": name}) for number in range(count)])


def texts(thing):
    """Every text in plain data, keys included."""
    if isinstance(thing, str):
        yield thing
    elif isinstance(thing, dict):
        for key, held in thing.items():
            yield key
            yield from texts(held)
    elif isinstance(thing, list | tuple):
        for one in thing:
            yield from texts(one)


def everything(letter):
    """What leaves by each channel, as plain data."""
    mail = render.mail(letter, sender="a@b", to=["c@d"], wall_ns=WALL)
    return {
        "slack": render.slack(letter),
        "discord": render.discord(letter),
        "teams": render.teams(letter),
        "ntfy": render.ntfy(letter, "topic"),
        "webhook": render.webhook(letter),
        "mail": [*mail.items(), *(part.get_content() for part in mail.iter_parts())],
        "note": render.note(letter),
        "log": render.log_line(letter),
        "terminal": render.terminal(letter).replace("\r\n", "\n"),
        "command": render.environment(letter),
    }


@pytest.mark.parametrize("count", [1, 12])
@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_what_leaves_is_printable_text_that_any_encoding_takes(name, count):
    for channel, made in everything(letter_of(name, count)).items():
        for text in texts(made):
            # Our own: lines, and the invisible space that breaks mentions and links.
            shown = text.replace("\n", "").replace("\u200b", "")

            assert shown.isprintable() or not shown, (channel, text)
            text.encode("utf-8")


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_nothing_is_markup_where_there_is_markup(name):
    letter = letter_of(name)
    slack, discord = render.slack(letter), render.discord(letter)
    mail = render.mail(letter, sender="a@b", to=["c@d"], wall_ns=WALL)
    html = next(
        part.get_content() for part in mail.iter_parts() if "html" in part.get_content_type()
    )
    note = "".join(render.note(letter))

    assert {block["text"]["type"] for block in slack["blocks"]} == {"plain_text"}
    assert not re.search(r"<|@(?!\u200b)|\]\(|://", slack["text"])
    assert not re.search(r"(?<!\\)[*_`~<@\[]", discord["content"])
    assert discord["allowed_mentions"] == {"parse": []}
    assert set(re.findall(r"<[^>]*>", html)) <= {
        *("<html>", "<body>", "<h3>", "</h3>", "<p>", "</p>"),
        *("<small>", "</small>", "</body>", "</html>"),
    }
    assert not set("<>&") & set(note)


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_mail_on_the_wire_has_our_headers_and_no_others(name):
    mail = render.mail(letter_of(name), sender="a@b", to=["c@d"], wall_ns=WALL)
    got = message_from_bytes(mail.as_bytes(policy=policy.SMTP), policy=policy.default)

    assert sorted(got.keys()) == sorted(mail.keys())
    assert set(got.keys()) == {
        *("From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "X-Priority"),
        *("MIME-Version", "Content-Type"),
    }


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_line_of_the_log_stays_one_line(name):
    assert "\n" not in render.log_line(letter_of(name, 12))
    assert len(render.terminal(letter_of(name)).split("\r\n")) <= render.TERMINAL_LINES_MAX + 3


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=())))
def test_any_text_whatever_becomes_printable_and_stays_what_it_became(raw):
    once = clean(raw)

    assert once.isprintable()
    assert clean(once) == once
    assert json.loads(json.dumps(once)) == once
