"""herald's tables and small parts: the schema, settings of channels, listening, memory in use."""

import dataclasses

import pytest

from forestall.config.alerts import KINDS as CHANNEL_KINDS
from forestall.config.alerts import default_channels, read_channel
from forestall.config.errors import ConfigError
from forestall.config.read import load_text
from forestall.config.show import render
from forestall.control.errors import Unreachable
from forestall.control.schema import FIELDS, SCHEMA
from forestall.core.events import Tell
from forestall.core.model import Level, Memory, ProcessId
from forestall.core.state import Prospect, State
from forestall.guard.journal import KINDS
from forestall.guard.telling import describe
from forestall.herald import letter as letters
from forestall.herald.event import OWN_KINDS, Event, read_event
from forestall.herald.listen import Ear
from forestall.herald.runner import without_the_impossible
from forestall.kernel.largest import Largest, boot_id, largest

GIB = 1 << 30
MEMORY = Memory(8 * GIB, GIB, 2 * GIB, GIB, GIB)
PROSPECT = Prospect(1, ProcessId(7, 70), "hog\x1b", 1, 3 * GIB, "why")


def described(tell=None, state=None):
    tell = tell or Tell("ended", "sent TERM", Level.CRITICAL, victim=ProcessId(7, 70), comm="h\n")
    state = state or State(memory=MEMORY, prospect=PROSPECT)
    return describe(tell, state, run="r", wall_ns=5, moment_ns=4)


def test_the_guard_fills_in_every_field_that_is_its_own_and_no_other():
    by_guard = {row.name for row in FIELDS if row.by == "guard"}

    assert set(described()) | {"sequence"} == by_guard


def test_herald_holds_every_field_of_the_schema_and_no_other():
    assert {field.name for field in dataclasses.fields(Event)} == {row.name for row in FIELDS}


def test_what_the_guard_says_is_what_herald_reads():
    event = read_event(3, described())

    assert (event.schema, event.sequence, event.pid, event.start_ticks) == (SCHEMA, 3, 7, 70)
    assert (event.used_share, event.swap_used_share) == (0.875, 0.5)
    assert (event.likely_name, event.likely_frees_bytes) == ("hog\\x1b", 3 * GIB)
    assert event.name == "h\\n"


def test_what_the_guard_does_not_know_is_absent_and_not_zero():
    blind = described(Tell("blind", "memory cannot be read", Level.NORMAL), State())
    no_swap = described(state=State(memory=Memory(8 * GIB, GIB, 0, 0, 0)))

    assert "used_share" not in blind
    assert "likely_pid" not in blind
    assert (blind["pid"], no_swap["swap_used_share"]) == (None, None)
    assert read_event(1, blind).available_bytes is None


def test_every_kind_of_event_has_a_heading_or_its_name_and_an_urgency():
    for what in [*KINDS, *OWN_KINDS]:
        event = read_event(1, {"what": what, "sentence": "it"})

        assert letters.title(letters.write([event])).startswith("forestall: this machine: ")
        assert event.urgency in {0, 1, 2}


ALERTS = """
[alerts.log]
rotate = "1MiB"
[alerts.desktop]
enabled = false
[alerts.ops]
type = "slack"
secret = "ops"
least = "error"
events = ["ended"]
[alerts.mail]
type = "smtp"
host = "mail"
sender = "a@b"
to = ["c@d"]
user = "x"
secret = "/etc/forestall/mail"
[alerts.page]
type = "command"
command = ["/bin/page", "a b"]
"""


def test_channels_shown_read_back_as_the_same_channels():
    got = load_text(ALERTS)
    again = load_text(render(got, origins=False))

    assert again.channels == got.channels
    assert [channel.name for channel in got.channels] == [
        "log",
        "terminals",
        "ops",
        "mail",
        "page",
    ]
    assert got.channels[0].keys["least"] == "info"


@pytest.mark.parametrize(
    ("table", "key", "hint"),
    [
        ({"type": "slak"}, "type", "did you mean slack"),
        ({"type": "slack"}, "secret", "is missing"),
        ({"type": "slack", "secret": "https://hooks.slack.com/T/x"}, "secret", "stays in there"),
        ({"type": "slack", "secret": "../x"}, "secret", "credential"),
        ({"type": "slack", "secret": "x", "url": "y"}, "url", "is no key of a slack channel"),
        ({"type": "webhook"}, "secret", "or write url"),
        ({"type": "webhook", "url": "https://u:p@h/"}, "url", "no passwords here"),
        ({"type": "command", "command": "rm -rf /"}, "command", "write a list"),
        ({"type": "command", "command": ["rm"]}, "command", "absolute path"),
        ({"type": "log", "fold": "2h"}, "fold", "must lie between"),
        ({"type": "log", "events": []}, "events", "write a list"),
        ({"type": "smtp", "host": "h", "sender": "a\nb", "to": ["x"]}, "sender", "one line"),
        ({"type": "smtp", "host": "h", "sender": "a", "to": ["x"], "user": "u"}, "secret", "use"),
    ],
)
def test_wrong_channels_are_refused_with_a_hint(table, key, hint):
    channel, wrong = read_channel("it", table)

    assert channel is None
    assert hint in wrong[key]


def test_all_problems_of_all_channels_come_at_once():
    with pytest.raises(ConfigError) as caught:
        load_text('[alerts]\nx = 1\n[alerts.a]\ntype = "no"\n[alerts.b]\ntype = "ntfy"\nq = 1\n')

    keys = [problem.key for problem in caught.value.problems]
    assert keys == ["alerts.x", "alerts.a.type", "alerts.b.q", "alerts.b.topic"]


def test_a_mail_address_may_not_bring_a_header():
    wrong = read_channel("it", {"type": "sendmail", "to": ["a@b\nBcc: c"]})[1]

    assert "one line" in wrong["to"]


def test_the_built_in_desktop_channel_is_left_out_without_its_library():
    names = [one.name for one in without_the_impossible(default_channels(), lambda _name: None)]
    asked = read_channel("desktop", {"least": "error"})[0]

    assert names == ["log", "terminals"]
    assert without_the_impossible((asked,), lambda _name: None) == (asked,)
    assert "desktop" in {kind.name for kind in CHANNEL_KINDS}


class Source:
    """A guard that numbers events, drops some, and hangs up; a list of streams in turn."""

    def __init__(self, *streams):
        self.streams = list(streams)
        self.asked = []
        self.heard = []
        self.reached = []
        self.pauses = []

    def stream(self, since):
        self.asked.append(since)
        for one in self.streams.pop(0):
            if isinstance(one, Exception):
                raise one
            yield one, {"what": "x"}

    def follow(self):
        ear = Ear(
            self.stream,
            heard=lambda sequence, _raw: self.heard.append(sequence),
            reached=self.reached.append,
            pause=self.pause,
        )
        ear.follow()
        return ear

    def pause(self, seconds):
        self.pauses.append(seconds)
        return not self.streams


def test_a_gap_is_asked_for_again_and_what_is_gone_is_passed_on():
    source = Source([1, 2, 5, 9, 10, Unreachable("hung up")], [3, 4, 5, 6], [9])
    ear = source.follow()

    assert source.asked == [0, 2, 5]
    assert source.heard == [1, 2, 3, 4, 5, 9, 10]
    assert ear.gaps == 2


def test_what_the_guard_has_forgotten_may_still_be_on_its_way():
    """Of a storm the guard keeps the newest, and the socket holds older ones behind the gap."""
    source = Source([1, 500, 501, 502, 900, Unreachable("hung up")], [740, 741])
    source.follow()

    assert source.heard == [1, 500, 501, 502, 900]


def test_gaps_are_not_asked_for_again_and_again_when_they_were_forgotten():
    gaps = list(range(1, 90, 2))
    source = Source([*gaps, Unreachable("hung up")], *[[1000]] * 3)
    ear = source.follow()

    assert source.heard == gaps
    assert ear.gaps == len(gaps) - 1
    assert len(source.asked) == 1 + 3


def test_a_guard_that_had_nothing_to_say_is_asked_for_what_it_dropped_last():
    source = Source([1, 2], [], [3, Unreachable("hung up")], [1])
    source.follow()

    assert source.asked == [0, 2, 2, 0]
    assert source.heard == [1, 2, 3, 1]
    assert False not in source.reached[:-3]
    assert source.pauses[:3] == [0.0, 0.5, 0.5]


def test_a_guard_that_dies_while_a_gap_is_asked_for_costs_nothing_more():
    source = Source([1, 4, Unreachable("hung up")], [2, Unreachable("gone")])
    source.follow()

    assert source.heard == [1, 2, 4]


def test_a_guard_that_does_not_answer_is_asked_ever_more_seldom():
    nobody = [Unreachable("no guard")]
    source = Source(*[nobody] * 8, [1, Unreachable("hung up")], nobody)
    source.follow()

    assert source.pauses == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0, 0.5, 1.0]
    assert source.reached == [False] * 8 + [True, False, False]


def test_the_largest_processes_are_found_in_order_and_who_is_gone_is_left_out(tmp_path):
    for pid, pages, comm in (
        (1, 10, "init"),
        (20, 900, "hog\x1b"),
        (30, 500, None),
        (40, 700, "b"),
    ):
        folder = tmp_path / str(pid)
        folder.mkdir()
        (folder / "statm").write_text(f"9999 {pages} 3 1 0 5 0\n")
        if comm:
            (folder / "comm").write_text(comm + "\n")
    (tmp_path / "50").mkdir()
    (tmp_path / "meminfo").write_text("")
    found = largest(5, 100 * 4096, root=str(tmp_path))

    assert found == (Largest(20, b"hog\x1b", 900 * 4096), Largest(40, b"b", 700 * 4096))
    assert largest(5, 0, root=str(tmp_path / "none")) == ()
    assert boot_id(root=str(tmp_path)) == ""
