"""Who makes the others wait: read of control groups, followed, judged by, told of."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forestall.core.census import Census, count
from forestall.core.codec import decode, encode
from forestall.core.events import Surveyed
from forestall.core.judge import judge
from forestall.core.model import GroupActivity, Stage, Standing
from forestall.core.policy import step
from forestall.core.refaults import (
    READER_PAGES_PER_S,
    STALE_NS,
    follow,
    reader_of,
    rising,
)
from forestall.core.rules import DEFAULT_RULES
from forestall.core.state import Calm, Choosing, begin
from forestall.core.units import MIB, SECOND
from forestall.core.value import replace
from forestall.guard.desk import status_of
from forestall.guard.survey import readers_of, survey
from forestall.kernel.errors import KernelFormatError
from forestall.kernel.group_activity import GROUPS_MAX, STAT_NS, GroupActivities
from forestall.kernel.parse import parse_refaults
from tests.fakes.builders import memory, row, sampled

JOB = "/system.slice/job.service"
WEB = "/user.slice/user-1000.slice/user@1000.service/app.slice/app-web.scope"
SESSION = "/user.slice/user-1000.slice/session-3.scope"
STAT = b"anon 1\nfile 2\nworkingset_refault_anon 30\nworkingset_refault_file 400\npgscan 9\n"
PRESSURE = """\
some avg10=0.00 avg60=0.00 avg300=0.00 total=70
full avg10=0.00 avg60=0.00 avg300=0.00 total=7
"""


def rates(seconds=10, **pages_per_s):
    """Follow units whose refaults rise as fast as that, looked at once a second."""
    known = {}
    for second in range(seconds + 1):
        activities = tuple(
            GroupActivity(path, second * 10_000, int(second * pages))
            for path, pages in pages_per_s.items()
        )
        known = follow(known, activities, (100 + second) * SECOND)
    return known, (100 + seconds) * SECOND


# Read.


class Folder:
    """A v2 hierarchy of two units."""

    def __init__(self, root):
        self.root = root
        for path in (JOB, WEB):
            (root / path[1:]).mkdir(parents=True)
            self.write(path)

    def write(self, path, stat=STAT, pressure=PRESSURE):
        (self.root / path[1:] / "memory.stat").write_bytes(stat)
        (self.root / path[1:] / "memory.pressure").write_text(pressure)


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


@pytest.fixture
def activities(folder):
    found = GroupActivities(str(folder.root), pread=os.pread)
    yield found
    found.close()


def test_a_group_says_what_it_waited_for_and_what_it_read_back(activities):
    activities.learn([JOB])

    assert activities.read(with_refaults=True) == (GroupActivity(JOB, 70, 430),)
    assert activities.read(with_refaults=False) == (GroupActivity(JOB, 70, None),)


def test_a_group_nobody_lives_in_any_more_is_closed(activities):
    before = len(list(Path("/proc/self/fd").iterdir()))
    activities.learn([JOB, WEB])
    activities.learn([WEB])

    assert [one.path for one in activities.read(with_refaults=True)] == [WEB]
    assert len(list(Path("/proc/self/fd").iterdir())) - before == 2


def test_a_group_that_is_removed_is_dropped_without_a_word(folder):
    gone = []

    def pread(fd, size, offset):
        if gone and "job" in str(Path(f"/proc/self/fd/{fd}").readlink()):
            raise OSError(19, "ENODEV")
        return os.pread(fd, size, offset)

    activities = GroupActivities(str(folder.root), pread=pread)
    activities.learn([JOB, WEB])
    gone.append(JOB)
    found = activities.read(with_refaults=True)
    activities.close()

    assert [one.path for one in found] == [WEB]
    assert activities.errors == 0


def test_what_cannot_be_read_is_counted_and_the_next_is_read(folder, activities):
    folder.write(JOB, pressure="some nonsense\n")
    activities.learn([JOB, WEB])

    assert [one.path for one in activities.read(with_refaults=True)] == [WEB]
    assert activities.errors == 1


def test_without_pressure_or_without_a_hierarchy_there_is_less_to_say(folder, activities):
    (folder.root / JOB[1:] / "memory.pressure").unlink()
    activities.learn([JOB, "/system.slice/unknown.service", "/../etc"])
    nothing = GroupActivities("", pread=os.pread)
    nothing.learn([JOB])

    assert activities.read(with_refaults=True) == (GroupActivity(JOB, None, 430),)
    assert nothing.read(with_refaults=True) == ()


def test_no_more_groups_are_watched_than_there_is_room_for(folder, activities):
    paths = [f"/system.slice/{n}.service" for n in range(GROUPS_MAX + 5)]
    for path in paths:
        (folder.root / path[1:]).mkdir(parents=True)
        folder.write(path)
    activities.learn(paths)

    assert [one.path for one in activities.read(with_refaults=False)] == paths[:GROUPS_MAX]


def test_where_the_kernel_adds_up_for_long_only_the_first_are_asked(folder):
    """With hundreds of processors a read of memory.stat takes milliseconds."""
    moments = iter(range(0, 10 * STAT_NS, STAT_NS // 2))
    activities = GroupActivities(str(folder.root), pread=os.pread, now_ns=lambda: next(moments))
    activities.learn([JOB, WEB])
    activities.learn([WEB, JOB])  # the more important one has grown
    found = activities.read(with_refaults=True)
    activities.close()

    assert found == (GroupActivity(WEB, 70, 430), GroupActivity(JOB, 70, None))


@pytest.mark.parametrize(
    ("raw", "pages"),
    [
        (STAT, 430),
        (b"workingset_refault_file 5\n", 5),
        (b"workingset_refault 6\n", 6),  # before Linux 5.9
        (b"anon 1\n", None),
        (b"", None),
    ],
)
def test_refaults_of_all_kernels(raw, pages):
    assert parse_refaults(raw) == pages


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(raw):
    try:
        pages = parse_refaults(STAT + raw)
    except KernelFormatError:
        return
    assert pages is None or pages >= 0


# Followed.


def test_a_steady_pace_is_found():
    known, now_ns = rates(**{JOB: 500})

    assert rising(known[JOB].refault_pages, now_ns) == pytest.approx(500, rel=0.01)
    assert rising(known[JOB].stall_some_us, now_ns) == pytest.approx(10_000, rel=0.01)


def test_what_was_read_long_ago_or_once_is_not_known():
    known, now_ns = rates(**{JOB: 500})
    once = follow({}, (GroupActivity(JOB, 1, 1),), now_ns)

    assert rising(known[JOB].refault_pages, now_ns + STALE_NS + 1) is None
    assert rising(once[JOB].refault_pages, now_ns) is None
    assert rising(None, now_ns) is None


def test_what_was_not_read_this_time_stands():
    known, now_ns = rates(**{JOB: 500})
    later = follow(known, (GroupActivity(JOB, 110_000, None),), now_ns + SECOND)

    assert later[JOB].refault_pages == known[JOB].refault_pages
    assert later[JOB].stall_some_us.total == 110_000


def test_a_unit_that_has_gone_is_forgotten_and_a_counter_that_fell_is_no_pace():
    known, now_ns = rates(**{JOB: 500, WEB: 1})
    later = follow(known, (GroupActivity(JOB, 0, 0),), now_ns + SECOND)

    assert set(later) == {JOB}
    assert 0 < later[JOB].refault_pages.per_s < 500


@pytest.mark.parametrize(
    ("job", "web", "named"),
    [
        (2000, 100, JOB),
        (100, 2000, WEB),
        (1000, 900, None),  # everybody suffers, nobody stands out
        (READER_PAGES_PER_S * 0.9, 0, None),  # makes nobody wait
    ],
)
def test_who_reads_back_most_of_all_makes_the_others_wait(job, web, named):
    found = reader_of(*rates(**{JOB: job, WEB: web}))

    assert (found.path if found else None) == named


# Judged by.


def chosen(*, cgroup=JOB, job_faults=0, **of_job):
    """A job that reads files by calls, beside a larger browser that takes faults; nobody grew."""
    census = Census()
    for second in range(20):
        rows = (
            row(50, 300 * MIB, comm="browser", cgroup=WEB, major_faults=second * 20),
            row(
                70,
                30 * MIB,
                comm="reader",
                cgroup=cgroup,
                major_faults=second * job_faults,
                **of_job,
            ),
            row(71, 6 * MIB, comm="helper", cgroup=cgroup),
        )
        groups = (GroupActivity(JOB, 0, second * 5000), GroupActivity(WEB, 0, second * 20))
        census = count(census, (100 + second) * SECOND, rows, 0, groups=groups)
    return judge(rows, census, memory(0.02), DEFAULT_RULES, spared=frozenset())


def test_who_keeps_the_disk_busy_goes_and_not_the_largest_that_waits():
    """A file read by calls takes no major faults: the browser was the largest that did."""
    found = chosen()

    assert [one.id.pid for one in found.part.members] == [70]
    assert "reader (70) is of job.service, which reads back 19.5 MiB a second, 100%" in found.why
    assert "without it browser (50) would go" in found.why


def test_a_session_is_no_unit_to_blame():
    found = chosen(cgroup=SESSION)

    assert [one.id.pid for one in found.part.members] == [50]
    assert "holds the most that may go" in found.why


def test_whom_a_rule_spares_is_spared_as_reader_too():
    found = chosen(standing=Standing.AVOID, rule="mine")

    assert [one.id.pid for one in found.part.members] != [70]


def test_in_a_unit_those_first_whose_own_faults_say_so():
    """The helper takes the faults: the larger one beside it only lies there."""
    census = Census()
    for second in range(20):
        rows = (
            row(70, 90 * MIB, comm="idle", cgroup=JOB),
            row(71, 60 * MIB, comm="busy", cgroup=JOB, major_faults=second * 50),
            row(50, 300 * MIB, comm="browser", cgroup=WEB, major_faults=second * 20),
        )
        groups = (GroupActivity(JOB, 0, second * 5000), GroupActivity(WEB, 0, second * 20))
        census = count(census, (100 + second) * SECOND, rows, 0, groups=groups)
    found = judge(rows, census, memory(0.02), DEFAULT_RULES, spared=frozenset())

    assert [one.id.pid for one in found.part.members] == [71]


def test_who_grew_goes_whoever_reads():
    census = Census()
    for second in range(20):
        rows = (
            row(50, (300 + 20 * second) * MIB, comm="leak", cgroup=WEB),
            row(70, 30 * MIB, comm="reader", cgroup=JOB),
        )
        groups = (GroupActivity(JOB, 0, second * 5000),)
        census = count(census, (100 + second) * SECOND, rows, 0, groups=groups)
    found = judge(rows, census, memory(0.02), DEFAULT_RULES, spared=frozenset())

    assert [one.id.pid for one in found.part.members] == [50]


# Told of.


def told(seconds=5):
    """A machine on which one unit waits for a fifth of the time."""
    state = begin(DEFAULT_RULES)
    for second in range(seconds):
        now_ns = (100 + second) * SECOND
        state, _ = step(state, sampled(now_ns, 0.5), DEFAULT_RULES)
        groups = (
            GroupActivity(JOB, second * 200_000, second * 1000),
            GroupActivity(WEB, second * 1_000, second),
        )
        event = Surveyed(now_ns, now_ns, (row(70, 30 * MIB, cgroup=JOB),), groups=groups)
        state, _ = step(state, event, DEFAULT_RULES)
    return state, now_ns


def test_status_names_who_waits_and_what_it_reads_back():
    state, now_ns = told()

    assert status_of(state, DEFAULT_RULES, now_ns)["waiting"] == [
        {"path": JOB, "stall_some_share": 0.2, "refault_bytes_per_s": 4_096_000}
    ]


def test_a_state_that_knows_it_is_recorded_whole():
    state, _ = told()

    assert decode(encode(state)) == state


# By the guard.


class Table:
    """A process table of values."""

    def __init__(self, *rows):
        self.rows = rows

    def survey(self, clock, **_how):
        return Surveyed(clock(), clock(), self.rows)


class Memory:
    """Samples of a machine that has plenty."""

    def sample(self, now_ns, _with_activity=False):
        return sampled(now_ns, 0.5)

    def holdings(self):
        return None


def surveyed_in(folder, hunt):
    rows = (row(70, 3 * MIB, cgroup=f"{JOB}/inner"), row(71, MIB, cgroup=SESSION), row(72, MIB))
    readers = readers_of(Memory(), str(folder.root))
    state, _ = step(begin(DEFAULT_RULES), sampled(SECOND, 0.5), DEFAULT_RULES)
    readers.activities.learn([JOB])
    state = replace(state, hunt=hunt)
    found = survey(state, Table(*rows), readers, shared=False, fill_per_s=1)
    readers.groups.close()
    readers.activities.close()
    return found.groups


def test_the_guard_reads_it_for_the_units_of_those_it_sees(folder):
    assert surveyed_in(folder, Calm()) == (GroupActivity(JOB, 70, 430),)


def test_while_somebody_is_chosen_nothing_is_read_that_needs_memory(folder):
    hunt = Choosing("thrash", Stage.KILL, SECOND)

    assert surveyed_in(folder, hunt) == (GroupActivity(JOB, 70, None),)
