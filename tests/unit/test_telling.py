"""The live line: one line, whatever the terminal's width, and whatever the names."""

import fcntl
import os
import struct
import termios

import pytest

from forestall.core.events import Tell
from forestall.core.model import Level
from forestall.core.policy import step
from forestall.core.rules import DEFAULT_RULES
from forestall.core.state import begin
from forestall.core.units import GIB, SECOND
from forestall.guard.glance import USUAL_COLUMNS, columns
from forestall.guard.telling import in_dry_run, live_line
from tests.fakes.builders import row, sampled, surveyed


@pytest.fixture
def state():
    state, _ = step(begin(DEFAULT_RULES), sampled(9 * SECOND, 0.5), DEFAULT_RULES)
    hog = row(60, 6 * GIB, comm="hog\n\x1b[2J")
    return step(state, surveyed(9 * SECOND, hog), DEFAULT_RULES)[0]


def test_the_live_line_says_how_memory_stands_and_who_would_go(state):
    text = live_line(state, 200)

    assert text.startswith("normal: 50% of 16.0 GiB used, 8.00 GiB available; ")
    assert "next to go hog" in text
    assert "(60), 6.00 GiB, seen" in text
    assert text.isprintable()


@pytest.mark.parametrize("width", [1, 2, 20, 60, 80, 90, 300])
def test_the_live_line_never_reaches_the_last_column(state, width):
    """On 80 columns it once wrapped, and left half of itself behind each second."""
    text = live_line(state, width)

    assert len(text) < max(2, width)
    assert text.endswith("…") == (len(live_line(state, 1000)) >= width)


def test_the_width_is_the_terminals_and_usual_where_there_is_none():
    master, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 57, 0, 0))
    told = columns(terminal)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 0, 0, 0, 0))
    unsaid = columns(terminal)
    os.close(terminal)
    os.close(master)

    assert told == 57
    assert unsaid == columns(terminal) == USUAL_COLUMNS


def test_a_dry_run_does_not_speak_of_deeds_as_if_they_were_done():
    """An alert that says SIGKILL makes people look for who died."""
    decision = Tell("decision", "SIGKILL by trigger out: it grew", Level.CRITICAL)
    warning = Tell("warning", "memory runs low", Level.LOW)

    assert in_dry_run(decision).sentence == "dry run: SIGKILL by trigger out: it grew"
    assert in_dry_run(decision).level is Level.CRITICAL
    assert in_dry_run(warning) is warning
