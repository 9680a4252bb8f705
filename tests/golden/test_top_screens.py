"""The live screen at 80 by 24, driven by keys, against screens a person has read.

FORESTALL_REWRITE=1 writes them anew; read the difference before it is committed.
"""

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("textual")

from forestall.control.errors import Refused, Unreachable
from forestall.core.rules import DEFAULT_RULES
from forestall.inspect.scores import Scores
from forestall.tui.app import KEYS, SAID_LOOKS, Top
from forestall.tui.source import Machine
from tests.fakes.proc import GIB_KIB
from tests.fakes.scored import FakeScores

SCREENS = Path(__file__).parent / "top"
SECOND = 1_000_000_000
LOOKS = {"r", "t", "u", "d", "y", "enter", "down"}
"""Keys after which something is read in another thread."""


class Guard:
    """A guard that says yes, and remembers what it was asked."""

    def __init__(self, **facts):
        self.facts = {"only_uid": None} | facts
        self.asked = []
        self.refuse = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def call(self, method, **parameters):
        if method == "GetStatus":
            choice = {"pid": 20, "start_ticks": 200, "name": "database", "processes": 1}
            return {"status": {"next_to_go": choice | {"why": "told"}, "guard": self.facts}}
        self.asked.append((method, parameters))
        if self.refuse:
            raise Refused(self.refuse)
        return {
            "SetAdj": {"before": 0},
            "SetStanding": {"before": None},
            "End": {"outcome": "asked to end"},
        }[method]


class Still(Machine):
    """A machine whose clock goes ten seconds a look."""

    looks = 0

    def look(self, *, everybody):
        moment = super().look(everybody=everybody)
        self.looks += 1
        scene = replace(moment.scene, now_ns=self.looks * 10 * SECOND)
        stall = None if self.looks == 1 else 0.25
        return replace(moment, scene=scene, stall_share=stall)


@pytest.fixture
def machine(tmp_path):
    fake = FakeScores(tmp_path, swap_kib=4 * GIB_KIB)
    fake.scored(20, comm="database", anon_kib=9 * GIB_KIB, start=200, cgroup="/s/db.service")
    fake.scored(21, comm="editor", anon_kib=1 * GIB_KIB, parent=30, cgroup="/a/editor.service")
    fake.scored(
        22,
        comm="language-server",
        anon_kib=2 * GIB_KIB,
        swap_kib=GIB_KIB,
        parent=21,
        cgroup="/a/editor.service",
    )
    fake.scored(23, comm="shielded", anon_kib=GIB_KIB, adj=-1000)
    fake.scored(30, comm="bash", anon_kib=2048)
    fake.scored(31, comm=b"\x1b[31m[b]\xff", anon_kib=4096, parent=30)
    fake.meminfo(available=3 * GIB_KIB, swap_total=4 * GIB_KIB, swap_free=3 * GIB_KIB)
    return fake


def no_guard():
    raise Unreachable("no guard answers")


def driven(machine, keys=(), *, guard=None, uid=0, size=(80, 24), between=None):
    """Run the screen through some keys; return what it shows at the end."""

    async def run():
        scores = Scores(DEFAULT_RULES, root=str(machine.root), spare=frozenset(), rank=True)
        connect = (lambda: guard) if guard is not None else no_guard
        app = Top(Still(scores, connect, uid=uid), interval_s=None)
        async with app.run_test(size=size) as pilot:
            await settle(app, pilot)
            for key in keys:
                if callable(key):
                    key()
                    await app.action_look()
                    continue
                await pilot.press(key)
                if key in LOOKS:
                    await settle(app, pilot)
            await settle(app, pilot)
            strips = app.screen._compositor.render_strips()
            shown = "\n".join("".join(part.text for part in strip).rstrip() for strip in strips)
        scores.close()
        return shown

    return asyncio.run(run())


async def settle(app, pilot):
    for _ in range(2):
        await app.workers.wait_for_complete()
        await pilot.pause()
        async with app._reading:
            pass


def check(name, shown):
    path = SCREENS / f"{name}.txt"
    if os.environ.get("FORESTALL_REWRITE"):
        path.write_text(shown + "\n")

    assert shown + "\n" == path.read_text()


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("first", ()),
        ("second-look", ("r",)),
        ("tree", ("t",)),
        ("units", ("u",)),
        ("by-name", ("s", "s", "s", "s", "s")),
        ("filtered", ("slash", *"ed", "enter")),
        ("no-detail", ("d",)),
        ("moved", ("down", "down")),
        ("help", ("question_mark",)),
        ("question", ("e",)),
        ("number", ("a",)),
        ("protected", ("down", "p", "y")),
    ],
)
def test_screens_are_as_they_were_read(machine, name, keys):
    check(name, driven(machine, keys, guard=Guard()))


def test_a_wide_screen_has_room_for_units(machine):
    shown = driven(machine, guard=Guard(), size=(120, 30))

    assert "editor.service" in shown


def test_without_a_guard_it_is_read_only_and_says_so(machine):
    shown = driven(machine, ("e",))

    assert "Read-only: no guard runs" in shown
    assert "(its rules)" in shown


def test_a_message_makes_room_for_the_keys_after_a_while(machine):
    soon = driven(machine, ("e", *"r" * SAID_LOOKS))
    later = driven(machine, ("e", *"r" * (SAID_LOOKS + 1)))

    assert "Read-only" in soon.splitlines()[-1]
    assert later.splitlines()[-1] == KEYS


def test_an_ordinary_user_only_reads(machine):
    guard = Guard()
    shown = driven(machine, ("e", "f"), guard=guard, uid=1000)

    assert "Read-only: only root" in shown
    assert guard.asked == []


def test_the_owner_of_a_users_guard_may_act(machine):
    guard = Guard(only_uid=1000)
    driven(machine, ("e", "y"), guard=guard, uid=1000)

    assert guard.asked == [("End", {"pid": 20, "start_ticks": 200})]


@pytest.mark.parametrize("no", ["n", "escape", "enter", "q"])
def test_anything_but_yes_is_no(machine, no):
    guard = Guard()
    driven(machine, ("e", no), guard=guard)

    assert guard.asked == []


def test_ending_names_the_process_and_cannot_be_undone(machine):
    guard = Guard()
    shown = driven(machine, ("down", "e", "y", "z"), guard=guard)

    assert guard.asked == [("End", {"pid": 22, "start_ticks": 100})]
    assert "There is nothing to undo." in shown


def test_what_came_of_an_end_is_told_and_whoever_is_gone_leaves_the_details(machine):
    def goes():
        machine.remove(31)

    keys = ("slash", *"31m", "enter", "e", "y", goes)
    shown = driven(machine, keys, guard=Guard())

    assert "\\x1b[31m[b]\\xff (31): asked to end." in shown
    assert "No such process any more." in shown


def test_an_adjustment_is_written_and_undone(machine):
    guard = Guard()
    keys = ("a", "backspace", *"-5", "enter", "y", "z", "y", "z")
    shown = driven(machine, keys, guard=guard)

    same = {"pid": 20, "start_ticks": 200}
    assert guard.asked == [("SetAdj", same | {"adj": -5}), ("SetAdj", same | {"adj": 0})]
    assert "There is nothing to undo." in shown


def test_a_number_that_was_typed_is_no_filter(machine):
    shown = driven(machine, ("a", "backspace", *"21", "enter", "n"), guard=Guard())

    assert "filter" not in shown.splitlines()[-1]
    assert "database" in shown


def test_an_ordinary_user_is_told_that_raising_is_for_good(machine):
    guard = Guard(only_uid=1000)
    shown = driven(machine, ("a", "backspace", *"21", "enter"), guard=guard, uid=1000)

    assert "Only root can lower it again." in shown


def test_an_undo_that_is_refused_does_not_bar_the_way_to_the_others(machine):
    guard = Guard()

    def refuse():
        guard.refuse = "org.forestall.Guard.NotAllowed"

    def permit():
        guard.refuse = None

    keys = ("p", "y", "a", "backspace", *"21", "enter", "y", refuse, "z", "y", permit, "z", "y")
    driven(machine, keys, guard=guard)

    assert [(method, list(parameters.values())[2]) for method, parameters in guard.asked] == [
        ("SetStanding", "never"),
        ("SetAdj", 21),
        ("SetAdj", 0),
        ("SetStanding", None),
    ]


def test_protection_and_preference_are_undone_one_after_the_other(machine):
    guard = Guard()
    driven(machine, ("p", "y", "f", "y", "z", "y", "z", "y"), guard=guard)

    assert [parameters["standing"] for _, parameters in guard.asked] == [
        "never",
        "prefer",
        None,
        None,
    ]


def test_what_is_no_adjustment_is_not_asked_for(machine):
    guard = Guard()
    shown = driven(machine, ("a", *"9999", "enter"), guard=guard)

    assert "A number from -1000 to 1000." in shown
    assert guard.asked == []


def test_a_refusal_is_told_and_nothing_is_there_to_undo(machine):
    guard = Guard()
    guard.refuse = "org.forestall.Guard.NoSuchProcess"
    shown = driven(machine, ("p", "y"), guard=guard)

    assert "The guard did not: that process is gone." in shown


def test_the_question_is_about_the_one_it_names_even_when_the_table_moves(machine):
    """A bystander takes the row while somebody reads the question."""
    guard = Guard()

    def bystander_grows():
        machine.scored(77, comm="bystander", anon_kib=12 * GIB_KIB)

    driven(machine, ("e", bystander_grows, "y"), guard=guard)

    assert guard.asked == [("End", {"pid": 20, "start_ticks": 200})]


def test_the_cursor_stays_with_its_process(machine):
    def grow():
        machine.scored(77, comm="newcomer", anon_kib=12 * GIB_KIB)

    guard = Guard()
    driven(machine, (grow, "e", "y"), guard=guard)

    assert guard.asked == [("End", {"pid": 20, "start_ticks": 200})]


def test_a_unit_is_no_process_to_act_on(machine):
    guard = Guard()
    shown = driven(machine, ("u", "e"), guard=guard)

    assert "Choose a process" in shown
    assert guard.asked == []


def test_hostile_names_do_not_reach_the_terminal(machine):
    shown = driven(machine, (), guard=Guard())

    assert "\x1b" not in shown
    assert "\\x1b[31m[b]" in shown


def test_a_machine_that_cannot_be_read_says_so_and_goes_on(machine):
    def break_meminfo():
        machine.write("proc/meminfo", "nonsense\n")

    shown = driven(machine, (break_meminfo,), guard=Guard())

    assert "The processes cannot be read" in shown
    assert "database" in shown
