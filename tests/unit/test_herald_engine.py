"""herald without threads: folding, retries, the spool, silence, sudden stops. Time is a number."""

import os
import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forestall.core.units import MINUTE, SECOND
from forestall.herald import fold, letter, render
from forestall.herald.engine import SILENT_NS, Engine, Plan
from forestall.herald.event import from_json, read_event
from forestall.herald.outcome import AGE_NS_MAX, Later, Never, Sent, next_try_ns, retry_after_ns
from forestall.herald.spool import LETTERS_WAITING_MAX, MEMORY, Spool

WALL = 1_800_000_000 * SECOND
OPS = (Plan(name="ops"),)
HOSTILE = "<!channel> *b* @all \x1b[31m\r\nBcc: x"


class Desk:
    """An engine with its clocks; ``send`` is what the channels would do."""

    def __init__(self, path=MEMORY, plans=OPS, boot="b1", wall_ns=WALL):
        self.said = []
        self.spool = Spool(str(path), self.said.append)
        self.engine = Engine(self.spool, plans, host="box", boot=boot)
        self.now_ns = 1000 * SECOND
        self.wall_ns = wall_ns
        self.sequence = 0
        self.sent = []
        self.engine.begin(self.now_ns, self.wall_ns)

    def event(self, what="decision", run="r1", sequence=None, **fields):
        self.sequence = self.sequence + 1 if sequence is None else sequence
        raw = {"what": what, "run": run, "sentence": f"{what} {self.sequence}", **fields}
        raw["time_ns"] = self.wall_ns
        return self.engine.take(self.sequence, raw, self.now_ns, self.wall_ns)

    def after(self, duration_ns):
        self.now_ns += duration_ns
        self.wall_ns += duration_ns

    def send(self, outcome=None):
        """One round of sending; the outcome is the same for all."""
        parcels = self.engine.tick(self.now_ns, self.wall_ns)
        for parcel in parcels:
            got = outcome or Sent()
            if isinstance(got, Sent):
                self.sent.append(parcel)
            self.engine.settle(parcel, got, self.wall_ns)
        return [(parcel.channel, parcel.letter.count) for parcel in parcels]


def test_the_first_event_goes_out_at_once_and_a_storm_becomes_one_summary():
    desk = Desk()
    first = [desk.event(), desk.send()][1]
    for _ in range(50):
        desk.after(SECOND // 10)
        desk.event()
    during = desk.send()
    desk.after(fold.WINDOW_NS)

    assert first == [("ops", 1)]
    assert during == []
    assert desk.send() == [("ops", 50)]
    assert letter.title(desk.sent[-1].letter) == "forestall: box: 50 events in 4.9 s"


def test_a_summary_of_long_sentences_has_room_for_the_newest_and_for_the_facts():
    events = [
        read_event(n, {"what": "ended", "sentence": f"{n} " + "x" * 990, "used_share": 0.97})
        for n in range(1, 10)
    ]
    shown = render.slack(letter.write(events))["blocks"][0]["text"]["text"]

    assert "\n9 xxx" in shown
    assert "memory 97% used" in shown
    assert "and 1 more" in shown


def test_a_more_urgent_event_breaks_through_a_window_once():
    desk = Desk()
    for what in ("relieved", "declined", "warning", "warning", "decision", "ended"):
        desk.event(what)

    assert [desk.send() for _ in range(4)] == [[("ops", 1)], [("ops", 2)], [("ops", 2)], []]


def test_an_hour_of_critical_is_told_ever_more_seldom():
    desk = Desk()
    letters = 0
    for _ in range(3600):
        desk.event("critical", level="critical")
        letters += len(desk.send())
        desk.after(SECOND)

    assert letters <= 12
    assert desk.spool.tally("ops").balanced


def test_a_log_is_not_folded_and_a_channel_gets_only_what_it_wants():
    plans = (Plan(name="log", window_ns=0), Plan(name="kills", kinds=frozenset({"ended"})))
    desk = Desk(plans=plans)
    for what in ("warning", "ended", "outcome"):
        desk.event(what)
    rounds = [desk.send() for _ in range(3)]

    assert rounds[0] == [("log", 1), ("kills", 1)]
    assert rounds[1:] == [[("log", 1)], [("log", 1)]]


def test_retry_after_is_honoured_and_failures_wait_ever_longer():
    desk = Desk()
    desk.event()
    desk.send(Later("HTTP 429", 120 * SECOND))
    waits = []
    for _ in range(4):
        wait_ns = next(iter(desk.spool.next_by_channel().values())) - desk.wall_ns
        waits.append(wait_ns // SECOND)
        desk.after(wait_ns - 1)
        assert desk.send() == [], "not a moment sooner"

        desk.after(1)
        desk.send(Later("no network"))
    assert waits == [120, 4, 8, 16]
    assert desk.spool.newest("waiting", 1)[0].why == "no network"


def test_a_letter_that_is_refused_or_too_old_fails_and_is_counted():
    desk = Desk()
    desk.event()
    desk.send(Never("HTTP 400"))
    desk.after(fold.WINDOW_NS + SECOND)
    desk.event()
    desk.send(Later("no network"))
    desk.after(AGE_NS_MAX)
    desk.send(Later("still no network"))
    tally = desk.spool.tally("ops")

    assert (tally.failed, tally.sent, tally.waiting) == (2, 0, 0)
    assert [row.why for row in desk.spool.newest("failed", 9)] == ["still no network", "HTTP 400"]


def test_a_channel_without_network_for_a_week_keeps_a_bounded_number_and_counts_the_rest():
    desk = Desk()
    for _ in range(LETTERS_WAITING_MAX + 30):
        desk.event()
        desk.send(Later("no network", 60 * MINUTE))
        desk.after(2 * fold.WINDOW_NS)
    tally = desk.spool.tally("ops")

    assert (tally.waiting, tally.failed) == (LETTERS_WAITING_MAX, 30)
    assert tally.balanced


def test_a_clock_that_was_set_back_holds_no_letter_for_ever():
    desk = Desk()
    desk.event()
    desk.send(Later("no network"))
    desk.wall_ns -= 400 * 24 * 60 * MINUTE

    assert desk.send() == [("ops", 1)]


def test_events_come_once_and_gaps_are_counted_and_told():
    desk = Desk()
    desk.event(sequence=1)
    assert desk.event(sequence=1) is None

    desk.event(sequence=5)
    desk.event(sequence=2, run="r2")
    assert desk.spool.count("lost") == 4
    assert desk.spool.count("received") == 3
    assert desk.engine.last == ("r2", 2)


def test_after_a_power_cut_the_last_sign_of_life_and_what_waited_are_sent(tmp_path):
    before = Desk(tmp_path / "spool")
    before.event("decision")
    before.send()
    before.event("ended", sentence="sent KILL to 7 (hog)")
    before.spool.close()  # No farewell: the power is gone.
    after = Desk(tmp_path / "spool", boot="b2", wall_ns=WALL + 90 * SECOND)
    rounds = [after.send() for _ in range(3)]
    told = [parcel.letter.last.sentence for parcel in after.sent]

    assert rounds == [[("ops", 1)], [("ops", 1)], []]
    assert told[0] == "sent KILL to 7 (hog)"
    assert told[1].startswith("the machine went down at 2027-01-15T08:00:00Z or soon after")
    assert told[1].endswith("the last event before: sent KILL to 7 (hog)")


def test_an_orderly_restart_and_the_first_start_tell_nothing(tmp_path):
    first = Desk(tmp_path / "spool")
    first.engine.stop(first.wall_ns)
    first.spool.close()
    second = Desk(tmp_path / "spool", boot="b2")

    assert second.send() == []
    assert second.event(sequence=1) is not None


def test_herald_alone_dying_is_told_apart_from_the_machine(tmp_path):
    Desk(tmp_path / "spool").spool.close()
    after = Desk(tmp_path / "spool", boot="b1")
    after.send()

    assert after.sent[0].letter.last.sentence.startswith("herald stopped at")


def test_a_silent_guard_is_told_once_and_its_return_too():
    desk = Desk()
    desk.event("start")
    for _ in range(40):
        desk.engine.missed(desk.now_ns)
        desk.send()
        desk.after(SECOND)
    desk.after(2 * fold.WINDOW_NS)
    desk.send()
    desk.engine.reached(desk.now_ns, desk.wall_ns)
    desk.send()
    told = [parcel.letter.last.sentence for parcel in desk.sent if parcel.letter.urgency]

    assert told == [
        f"the guard has not answered for {SILENT_NS / SECOND:.1f} s: nobody watches memory",
        "the guard answers again, after 1.7 min".replace("1.7 min", "2 min"),
    ]


def test_a_guard_that_said_farewell_is_not_missed():
    desk = Desk(plans=(Plan(name="ops", least=1),))
    desk.event("stop")
    desk.engine.missed(desk.now_ns)
    desk.after(10 * SILENT_NS)

    assert desk.send() == []


def test_a_broken_disk_costs_no_letter_and_memory_moves_back(tmp_path):
    path = tmp_path / "spool"
    desk = Desk(path)
    desk.event()
    desk.send(Later("no network"))
    desk.spool._base.close()  # Every use fails from now on, as on a disk that is gone.
    desk.event("stuck")
    was_on_disk = desk.spool.on_disk
    in_memory = desk.send()
    desk.event("stuck")
    desk.after(10 * MINUTE)
    rounds = [desk.send() for _ in range(4)]
    tally = desk.spool.tally("ops")

    assert not was_on_disk
    assert in_memory == [("ops", 1)]
    assert desk.spool.on_disk
    assert sum(count for one in rounds for _name, count in one) == 2
    assert tally == type(tally)(wanted=3, sent=3, failed=0, waiting=0, held=0)
    assert "letters are in memory only" in desk.said[0]
    assert desk.said[1] == "the spool is on disk again"


def test_a_herald_that_ends_brings_to_the_disk_what_was_in_memory(tmp_path):
    desk = Desk(tmp_path / "spool")
    desk.spool._base.close()  # As on a disk that is gone; it is back when herald ends.
    desk.event()
    desk.send(Later("no network"))
    desk.event()
    in_memory = not desk.spool.on_disk
    desk.engine.stop(desk.wall_ns)
    left = desk.engine.leave()
    desk.spool.close()
    again = Desk(tmp_path / "spool", wall_ns=desk.wall_ns + MINUTE)
    rounds = [again.send(), again.send()]

    assert in_memory
    assert left == 0
    assert sum(count for one in rounds for _name, count in one) == 2
    assert again.spool.tally("ops").balanced


def test_a_herald_that_ends_while_the_disk_is_still_gone_counts_what_it_loses():
    desk = Desk(MEMORY)
    desk.event()
    desk.send(Sent())
    desk.event()
    desk.event()
    desk.engine.stop(desk.wall_ns)

    assert desk.engine.leave() == 2


def test_a_spool_that_is_rubbish_or_in_no_folder_is_survived(tmp_path):
    (tmp_path / "rubbish").write_bytes(os.urandom(9000))
    for path in (tmp_path / "rubbish", tmp_path / "none" / "spool"):
        desk = Desk(path)
        desk.event()

        assert desk.send() == [("ops", 1)]


def test_a_full_disk_costs_no_letter(tmp_path):
    desk = Desk(tmp_path / "spool")
    desk.spool._base.execute("PRAGMA max_page_count = 12")
    for _ in range(60):
        desk.event("stuck", sentence="x" * 900)
        desk.after(SECOND)
    desk.after(fold.WINDOW_NS)
    total = 0
    for _ in range(400):
        total += sum(count for _name, count in desk.send())
        desk.after(MINUTE)

    assert any("full" in one for one in desk.said)
    assert total == 60
    assert desk.spool.tally("ops").balanced


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.sampled_from(["decision", "warning", "critical", "level", "relieved"]),
            st.integers(min_value=1, max_value=200),
            st.sampled_from([Sent(), Later("x"), Later("y", 50 * SECOND), Never("z")]),
            st.just("restart"),
        ),
        max_size=60,
    )
)
def test_whatever_happens_every_event_is_sent_failed_waiting_or_held(script):
    plans = (Plan(name="ops"), Plan(name="log", window_ns=0), Plan(name="bad", least=2))
    desk = Desk(plans=plans)
    for step in script:
        if step == "restart":
            desk.engine = Engine(desk.spool, plans, host="box", boot="b1")
            desk.engine.begin(desk.now_ns, desk.wall_ns)
        elif isinstance(step, str):
            desk.event(step)
        elif isinstance(step, int):
            desk.after(step * SECOND)
        else:
            desk.send(step)

    assert all(desk.spool.tally(name).balanced for name in desk.spool.channels())


@given(st.dictionaries(st.text(max_size=8), st.one_of(st.none(), st.integers(), st.text())))
def test_any_event_is_read_and_reads_back_as_itself(raw):
    event = read_event(3, {**raw, "what": HOSTILE, "top": [raw, None, 3]})

    assert from_json(event.to_json()) == event
    assert event.what.isprintable()


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("30", 30 * SECOND),
        ("1.5", SECOND * 3 // 2),
        ("-1", None),
        ("", None),
        (None, None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
        ("9" * 40, None),
    ],
)
def test_retry_after_is_read_or_ignored(header, expected):
    assert retry_after_ns(header) == expected


def test_a_retry_is_never_sooner_than_asked_nor_later_than_an_hour():
    assert next_try_ns(1, Later("", 10**18), 0, 0) == 60 * MINUTE
    assert next_try_ns(30, Later(""), 0, 0) == 15 * MINUTE
    assert next_try_ns(1, Later("", -5), 0, 0) == 2 * SECOND


def test_a_spool_can_be_read_while_it_is_written(tmp_path):
    desk = Desk(tmp_path / "spool")
    desk.event()
    with sqlite3.connect(f"file:{tmp_path / 'spool'}?mode=ro", uri=True) as reader:
        found = reader.execute("SELECT count(*) FROM letters").fetchone()
    reader.close()

    assert found == (1,)
