"""What status shows: everything the guard said, unknown for what it did not, nothing hostile."""

import inspect
import io
import json
import re
import threading

import pytest
from rich.console import Console

from forestall.cli import main
from forestall.cli.status import fitted, render
from forestall.control.server import Server
from forestall.core.rules import Signal

STATUS = {
    "level": "medium",
    "hunt": "calm",
    "memory": {
        "total_bytes": 8 << 30,
        "available_bytes": 1 << 30,
        "used_share": 0.875,
        "swap_total_bytes": 4 << 30,
        "swap_free_bytes": 2 << 30,
        "swap_usable_bytes": 1 << 30,
    },
    "next_to_go": {
        "pid": 42,
        "start_ticks": 7,
        "name": "hog",
        "processes": 3,
        "frees_bytes": 5 << 30,
        "why": "it grew",
        "age_ns": 2_000_000_000,
    },
    "triggers": [
        {
            "name": "exhausted",
            "stage": "kill",
            "holds": True,
            "conditions": [
                {
                    "signal": "available",
                    "below": True,
                    "limit": 2 << 30,
                    "now": 1 << 30,
                    "window_ns": 0,
                },
                {
                    "signal": "stall_full",
                    "below": False,
                    "limit": 0.25,
                    "now": None,
                    "window_ns": 2_000_000_000,
                },
            ],
        }
    ],
    "guard": {
        "pid": 9,
        "dry_run": True,
        "only_uid": None,
        "samples": 5,
        "late_ns_max": 3_000_000,
        "lacks": ["no pressure trigger"],
    },
}


def test_who_comes_back_again_and_again_is_shown_with_what_would_help():
    loop = {
        "name": "pg\x1b[2J.service",
        "times": 3,
        "span_ns": 240_000_000_000,
        "age_ns": 2_000_000_000,
        "advice": "give it a MemoryMax=",
    }
    text = render(STATUS | {"restart_loops": [loop]}).plain
    unknown = render(STATUS | {"restart_loops": [{}]}).plain

    assert "comes back pg\\x1b[2J.service was ended 3 times in 4 min, last 2.0 s ago" in text
    assert "give it a MemoryMax=" in text
    assert "comes back" not in render(STATUS).plain
    assert "comes back unknown was ended unknown times" in unknown


def test_everything_the_guard_said_is_shown():
    shown = str(render(STATUS))

    for piece in (
        "medium",
        "88% used of 8.00 GiB, 1.00 GiB available",
        "2.00 GiB free of 4.00 GiB, worth 1.00 GiB",
        "hog (42) and 2 more, frees 5.00 GiB, seen 2.0 s ago",
        "available 1.00 GiB (< 2.00 GiB)",
        "stall_full[2.0s] unknown (> 25%)",
        "dry run",
        "no pressure trigger",
    ):
        assert piece in shown


@pytest.mark.parametrize(
    "status", [{}, {"memory": {}}, {"memory": {"total_bytes": 1}}, {"next_to_go": {"pid": None}}]
)
def test_what_the_guard_did_not_say_is_unknown_and_not_zero(status):
    shown = str(render(status))

    assert "unknown" in shown
    assert "0 B" not in shown


def test_a_hostile_name_cannot_reach_the_terminal():
    status = {**STATUS, "next_to_go": {**STATUS["next_to_go"], "name": "\x1b[2J[red]\n"}}

    shown = str(render(status))

    assert "\x1b" not in shown
    assert "\\x1b[2J[red]\\x0a" in shown


@pytest.mark.parametrize("width", [40, 80, 300])
def test_what_is_watched_fits_the_terminal_and_loses_nothing(width):
    console = Console(width=width, file=io.StringIO())
    status = STATUS | {"next_to_go": STATUS["next_to_go"] | {"why": "it grew " * 20}}
    text = fitted(status, console)
    lines = text.plain.splitlines()

    assert max(map(len, lines)) <= width
    assert " ".join(text.plain.split()) == " ".join(render(status).plain.split())


@pytest.fixture
def guard(tmp_path):
    """A guard that always says the same, turned by a thread."""
    import select

    path = str(tmp_path / "control.sock")
    said = dict(STATUS)
    server = Server(path, {"GetStatus": lambda parameters, peer: {"status": said}})
    server.open()
    done = threading.Event()

    def turn():
        while not done.is_set():
            poll = select.poll()
            for fd, mask in server.fds(0):
                poll.register(fd, mask)
            for fd, mask in poll.poll(10):
                server.ready(fd, mask, 0)

    thread = threading.Thread(target=turn)
    thread.start()
    yield path, said
    done.set()
    thread.join()
    server.close()


def test_status_as_json_is_what_the_guard_said(guard, capsys):
    path, said = guard

    assert main.run(["status", "--json", "--socket", path]) == 0
    assert json.loads(capsys.readouterr().out) == said


def test_a_critical_level_is_an_exit_code(guard, capsys):
    path, said = guard
    said["level"] = "critical"

    assert main.run(["status", "--socket", path]) == 1
    assert "critical" in capsys.readouterr().out


def test_groups_past_half_of_their_own_limit_are_shown_the_fullest_first():
    def group(path, room_mib, left_ns=None):
        limit = 200 << 20
        return {
            "path": path,
            "limit_bytes": limit,
            "room_bytes": room_mib << 20,
            "left_ns": left_ns,
        }

    groups = [group("/a/roomy", 150), group("/b/half", 90), group("/c/\x1b[31mfull", 5, 3 * 10**9)]
    text = render(STATUS | {"groups": groups}).plain
    lines = [line for line in text.splitlines() if line.startswith("group")]

    assert len(lines) == 2
    assert "5.00 MiB left of its own 200 MiB, about 3.0 s at this pace" in lines[0]
    assert "/b/half" in lines[1]
    assert "\x1b" not in text


def test_units_that_wait_for_memory_are_shown_with_what_they_read_back():
    waiting = [
        {"path": "/a/web\x1b[31m", "stall_some_share": 0.2, "refault_bytes_per_s": 3 << 20},
        {"path": "/b", "stall_some_share": 0.03, "refault_bytes_per_s": None},
        {},
    ]
    text = render(STATUS | {"waiting": waiting}).plain
    lines = [line for line in text.splitlines() if line.startswith("waits")]

    assert lines[0].endswith(": for memory 20% of the time, reads back 3.00 MiB a second")
    assert lines[1] == "waits      /b: for memory 3.0% of the time"
    assert lines[2].startswith("waits      unknown")
    assert "\x1b" not in text


@pytest.mark.parametrize("signal", list(Signal), ids=lambda signal: signal.value)
def test_every_signal_is_shown_in_its_own_unit(signal):
    """stall_io was once shown as 0 B/s."""
    unit = re.search(r"\[(.+)\]", form_of(signal)).group(1)
    condition = {"signal": signal.value, "below": True, "limit": 0.25, "now": 0.5, "window_ns": 0}
    trigger = {"name": "t", "stage": "kill", "holds": False, "conditions": [condition]}
    text = render(STATUS | {"triggers": [trigger]}).plain

    shown = {"share": "50% (< 25%)", "bytes": "0 B (< 0 B)", "bytes/s": "B/s (<", "ns": "s (<"}
    assert shown[unit] in text


def form_of(signal):
    """The unit of a signal, out of the docstring below its name."""
    source = inspect.getsource(Signal)
    return source.partition(f'"{signal.value}"')[2].partition('"""')[2].partition('"""')[0]
