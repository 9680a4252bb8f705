"""The word left with a unit's manager: when, where, how often, and taken back when nobody went."""

import errno
import os
import signal
import subprocess

import pytest

from forestall.core.events import End
from forestall.core.model import Force, ProcessId
from forestall.core.units import MS, SECOND
from forestall.effects.end import EndProcess
from forestall.effects.unit_mark import OCCASIONS, PROCESSES, mark
from forestall.kernel.processes import identify

UNIT = "/system.slice/web.service"


class Attributes:
    """Extended attributes of one folder."""

    def __init__(self, **before):
        self.held = {f"user.{name}": raw for name, raw in before.items()}
        self.order = []

    def get(self, _path, name):
        if name not in self.held:
            raise OSError(errno.ENODATA, "none")
        return self.held[name]

    def put(self, _path, name, raw):
        self.order.append(name)
        self.held[name] = raw


@pytest.fixture
def pair():
    """A victim and a bystander."""
    both = [subprocess.Popen(["sleep", "60"]) for _ in range(2)]
    yield both
    for child in both:
        child.kill()
        child.wait()


def ender(marks, **options):
    def leave(path, count, _now_ns):
        marks.append((path, count))
        return options.get("left")

    given = {name: value for name, value in options.items() if name != "left"}
    given.setdefault("dry_run", False)
    given.setdefault("cgroup_root", "/cg")
    never = given.pop("never", frozenset())
    return EndProcess(identify, never=never, leave_mark=leave, **given)


def request(*victims, force=Force.KILL, unit=UNIT, cgroup=""):
    return End(victims, force, "test", "sleep", 0, cgroup, "", unit)


def test_the_counters_rise_and_the_one_that_is_watched_rises_last():
    seen = Attributes(oomd_ooms=b"2", oomd_kill=b"7")
    mark("/cg/u", 3, 0, get=seen.get, put=seen.put)

    assert seen.held == {OCCASIONS: b"3", PROCESSES: b"10"}
    assert seen.order == [PROCESSES, OCCASIONS]


@pytest.mark.parametrize("raw", [b"", b"-1", b"1e3", b"\xff", b"9" * 30, b" 4", None])
def test_what_the_owner_of_a_cgroup_wrote_there_is_no_number_of_ours(raw):
    seen = Attributes() if raw is None else Attributes(oomd_ooms=raw)
    mark("/cg/u", 1, 0, get=seen.get, put=seen.put)

    assert seen.held[OCCASIONS] == b"1"


def test_a_new_cgroup_of_the_same_unit_begins_above_what_its_manager_remembers():
    """systemd 252 does not forget the number when the service is started again."""
    first, second = Attributes(), Attributes()
    mark("/cg/u", 1, 5_000 * SECOND, get=first.get, put=first.put)
    mark("/cg/u", 1, 5_000 * SECOND + 200 * MS, get=second.get, put=second.put)

    assert int(second.held[OCCASIONS]) > int(first.held[OCCASIONS])
    assert second.held[PROCESSES] == b"1"


def test_a_mark_can_be_taken_back():
    seen = Attributes(oomd_ooms=b"2", oomd_kill=b"7")
    take_back = mark("/cg/u", 3, 0, get=seen.get, put=seen.put)
    take_back()

    assert seen.held == {OCCASIONS: b"2", PROCESSES: b"7"}


def test_where_no_mark_can_be_left_it_is_a_value():
    assert mark("/proc/self/no-such-unit", 1, 0) is None


def test_a_real_file_system_keeps_them(tmp_path):
    try:
        os.setxattr(tmp_path, OCCASIONS, b"4")
    except OSError as error:
        pytest.skip(f"no user attributes here: {error}")
    mark(str(tmp_path), 2, 0)

    assert os.getxattr(tmp_path, OCCASIONS) == b"5"
    assert os.getxattr(tmp_path, PROCESSES) == b"2"


@pytest.mark.parametrize("force", list(Force))
def test_the_unit_is_marked_before_the_signal(force, pair):
    victim, bystander = pair
    marks = []

    def send(pidfd, number):
        marks.append(number)
        signal.pidfd_send_signal(pidfd, number)

    end = ender(marks, send=send)
    end.perform(request(identify(victim.pid), force=force), 1)
    end.forget()

    assert marks[0] == ("/cg" + UNIT, 1)
    assert marks[1] in {signal.SIGTERM, signal.SIGKILL}
    assert victim.wait(10) < 0
    assert bystander.poll() is None
    assert end.unmarked == 1, "the fake could not leave it"


@pytest.mark.parametrize("how", ["dry", "other", "never", "climbs", "no unit", "no cgroups"])
def test_no_word_is_left_where_nobody_of_it_goes(how, pair):
    victim = identify(pair[0].pid)
    marks = []
    end = ender(
        marks,
        dry_run=how == "dry",
        never=frozenset({victim.pid}) if how == "never" else frozenset(),
        cgroup_root="" if how == "no cgroups" else "/cg",
    )
    asked = ProcessId(victim.pid, 1) if how == "other" else victim
    unit = {"climbs": "/../cg" + UNIT, "no unit": ""}.get(how, UNIT)
    end.perform(request(asked, unit=unit), 1)
    end.forget()

    assert marks == []
    assert pair[1].poll() is None


def test_a_refusal_takes_the_word_back(pair):
    taken = []

    def refuse(_pidfd, _number):
        raise OSError(errno.EPERM, "no")

    end = ender([], left=lambda: taken.append("back"), send=refuse)
    (news,) = end.perform(request(identify(pair[0].pid)), 1)
    end.forget()

    assert "not permitted" in news.why
    assert taken == ["back"]
    assert pair[0].poll() is None
    assert pair[1].poll() is None


def test_who_went_before_the_signal_leaves_the_word_standing(pair):
    """By cgroup.kill, which was quicker than the signals."""
    victim = identify(pair[0].pid)

    def late(_pidfd, _number):
        raise ProcessLookupError(errno.ESRCH, "gone")

    attributes = Attributes()
    end = EndProcess(
        identify,
        never=frozenset(),
        dry_run=False,
        cgroup_root="/cg",
        send=late,
        leave_mark=lambda *what: mark(*what, get=attributes.get, put=attributes.put),
    )
    end.perform(request(victim), 1)

    assert attributes.held[OCCASIONS] == b"1"
    assert pair[1].poll() is None
