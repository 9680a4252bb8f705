"""The process table: who is seen, who is known, who must not be touched."""

import errno
import itertools

import pytest

from forestall.core.events import CONFIRMED
from forestall.core.model import Leaving, ProcessId, Role, Standing
from forestall.core.rules import Field, VictimRule
from forestall.core.standing import Matcher
from forestall.kernel import measure, processes
from forestall.kernel.errors import ProcessGone
from forestall.kernel.processes import ProcessTable, identify
from tests.fakes.proc import FakeProc

MIB_KIB = 1024
MIB = 1024 * 1024
OWN = 500
SECOND = 1_000_000_000
KILLED = 1 << 8
"""SIGKILL in the set of pending signals."""
EXITING = 0x400004

RULES = (
    VictimRule(Standing.AVOID, Field.NAME, "^db$", "databases"),
    VictimRule(Standing.NEVER, Field.CMDLINE, "precious", "precious ones"),
)


@pytest.fixture
def proc(tmp_path):
    proc = FakeProc(tmp_path)
    proc.process(1, comm="systemd", parent=0, anon_kib=2 * MIB_KIB, cgroup="/init.scope", start=1)
    proc.process(OWN, comm="forestall", anon_kib=4 * MIB_KIB, cgroup="/g.service", group=OWN)
    return proc


def table(proc, *, rules=(), **options):
    return ProcessTable(
        str(proc.root),
        matcher=Matcher(tuple(rules)),
        own_pid=OWN,
        page_bytes=proc.page_bytes,
        clk_tck=100,
        boot_ns=lambda: 60_000_000_000,
        **options,
    )


def clock():
    return itertools.count(1).__next__


def rows(surveyed):
    return {row.id.pid: row for row in surveyed.rows}


def look(proc, **options):
    return rows(table(proc).survey(clock(), **options))


def test_a_row_says_what_the_kernel_says(proc):
    proc.process(
        100,
        comm="hog",
        start=2000,
        parent=1,
        group=90,
        session=80,
        state="D",
        major_faults=33,
        uid=1001,
        anon_kib=64 * MIB_KIB,
        file_kib=8 * MIB_KIB,
        cgroup="/user.slice/a.scope",
        adj=200,
    )

    row = look(proc)[100]

    assert row.id == ProcessId(100, 2000)
    assert (row.parent_pid, row.group_id, row.session_id) == (1, 90, 80)
    assert (row.comm, row.state, row.uid, row.oom_score_adj) == ("hog", "D", 1001, 200)
    assert (row.anon_bytes, row.swap_bytes, row.major_faults) == (64 * MIB, 0, 33)
    assert (row.standing, row.rule, row.role) == (Standing.NORMAL, "", Role.NONE)
    assert (row.cgroup, row.age_ns) == ("/user.slice/a.scope", 40_000_000_000)


def test_the_clock_is_asked_before_and_after(proc):
    surveyed = table(proc).survey(clock())

    assert (surveyed.began_ns, surveyed.now_ns) == (1, 2)


def test_small_processes_are_left_out_unless_they_connect_others(proc):
    proc.process(100, anon_kib=100)
    proc.process(101, parent=100, anon_kib=8 * MIB_KIB)
    proc.process(102, parent=1, anon_kib=100)

    seen = look(proc)

    assert {100, 101} <= seen.keys()
    assert 102 not in seen
    assert seen[100].anon_bytes == 100 * 1024


def test_kernel_threads_and_zombies_are_no_candidates(proc):
    proc.kernel_thread(50)
    proc.process(51, state="Z")
    proc.process(52, anon_kib=8 * MIB_KIB)

    seen = look(proc)

    assert 52 in seen
    assert not {50, 51} & seen.keys()


def test_a_process_whose_first_thread_has_ended_is_seen_with_its_memory(proc):
    """It shows as a zombie without memory, and is neither."""
    proc.process(60, comm="headless", state="Z", threads=3)
    for tid, anon_kib, state in ((60, 0, "Z"), (61, 32 * MIB_KIB, "R"), (62, 32 * MIB_KIB, "R")):
        proc.process(900 + tid, state=state, anon_kib=anon_kib)
        folder = proc.proc / f"60/task/{tid}"
        folder.parent.mkdir(exist_ok=True)
        (proc.proc / str(900 + tid)).rename(folder)

    row = look(proc)[60]

    assert (row.anon_bytes, row.state) == (32 * MIB, "R")


def test_who_has_a_sigkill_coming_leaves_and_is_no_candidate(proc):
    """Starved of the processor it still holds all its memory."""
    sizes = {"anon_kib": 64 * MIB_KIB, "swap_kib": MIB_KIB, "data_kib": 65 * MIB_KIB}
    proc.process(60, comm="goner", pending=KILLED, **sizes)
    proc.process(61, comm="asked", anon_kib=8 * MIB_KIB, pending=1 << 14)
    surveyed = table(proc).survey(clock(), swap_used=True)

    assert surveyed.leaving == (Leaving(ProcessId(60, 100), "goner", 65 * MIB),)
    assert 60 not in rows(surveyed)
    assert 61 in rows(surveyed), "a SIGTERM may be caught"


def test_who_is_known_and_has_its_memory_taken_down_leaves_until_it_is_a_zombie(proc):
    """Its memory is out of sight; the kernel gives it back page by page."""
    proc.process(60, comm="goner", anon_kib=64 * MIB_KIB)
    survey = table(proc).survey
    survey(clock())
    proc.process(60, comm="goner", state="R", flags=EXITING)
    seen = [survey(clock()).leaving for _ in range(2)]
    proc.process(60, comm="goner", state="Z", flags=EXITING)
    over = survey(clock()).leaving

    assert seen == [(Leaving(ProcessId(60, 100), "goner", 64 * MIB),)] * 2
    assert over == ()


def test_of_a_process_with_threads_the_last_one_takes_the_memory_down(proc):
    """The first is a zombie already, and none of the others shows memory any more."""
    proc.process(60, comm="goner", anon_kib=64 * MIB_KIB, threads=3)
    survey = table(proc).survey
    survey(clock())
    proc.process(60, comm="goner", state="Z", flags=EXITING, threads=2)
    proc.statm(60, anon_kib=0, folder="60/task/61")

    assert [one.id.pid for one in survey(clock()).leaving] == [60]


@pytest.mark.parametrize("state", ["R", "S"])
def test_nobody_leaves_for_having_no_memory_in_ram(proc, state):
    """All of it in swap, or just begun."""
    proc.process(60, anon_kib=64 * MIB_KIB)
    survey = table(proc).survey
    survey(clock())
    proc.process(60, state=state, anon_kib=0)

    assert survey(clock()).leaving == ()


def test_a_stranger_with_a_leavers_number_does_not_leave(proc):
    proc.process(60, comm="old", start=100, anon_kib=64 * MIB_KIB)
    survey = table(proc).survey
    survey(clock())
    proc.process(60, comm="new", start=900, flags=EXITING)

    assert survey(clock()).leaving == ()


def test_who_has_been_leaving_for_long_is_stuck_and_a_candidate_again(proc):
    """In a driver, or writing its core: it may hold its memory for ever."""
    proc.process(60, comm="stuck", anon_kib=64 * MIB_KIB, pending=KILLED)
    survey = table(proc).survey
    first = survey(lambda: SECOND)
    late = survey(lambda: SECOND + processes.LEAVING_NS - 1)
    later = survey(lambda: SECOND + processes.LEAVING_NS)

    assert 60 not in rows(first).keys() | rows(late).keys()
    assert later.leaving == ()
    assert 60 in rows(later)


def test_leavers_are_limited_to_the_largest(proc, monkeypatch):
    monkeypatch.setattr(processes, "LEAVING_MAX", 2)
    for pid in range(60, 65):
        proc.process(pid, anon_kib=pid * MIB_KIB, pending=KILLED)

    assert [one.id.pid for one in table(proc).survey(clock()).leaving] == [64, 63]


def test_a_headless_process_leaves_when_its_threads_do(proc):
    for pending, leaves in ((0, False), (KILLED, True)):
        proc.process(60, comm="headless", state="Z", flags=EXITING, threads=3)
        proc.process(961, state="R", anon_kib=32 * MIB_KIB, pending=pending)
        folder = proc.proc / "60/task/61"
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("stat", "statm"):
            (proc.proc / "961" / name).replace(folder / name)
        surveyed = table(proc).survey(clock())

        assert (60 in rows(surveyed)) is not leaves
        assert bool(surveyed.leaving) is leaves
        proc.remove(961)


def test_a_process_that_has_taken_a_kernel_threads_number_is_seen(proc):
    proc.kernel_thread(50)
    survey = table(proc).survey
    survey(clock())
    proc.process(50, comm="hog", start=9000, anon_kib=8 * MIB_KIB)

    assert rows(survey(clock()))[50].comm == "hog"


def test_swap_counts_when_swap_is_in_use(proc):
    """Almost all of it is swapped out: RAM alone would not even show it."""
    proc.process(100, anon_kib=200, swap_kib=512 * MIB_KIB, data_kib=600 * MIB_KIB)

    assert 100 not in look(proc)
    assert look(proc, swap_used=True)[100].swap_bytes == 512 * MIB


def test_who_has_no_room_for_swap_is_not_asked(proc):
    """Private writable address space bounds what can be swapped: asking costs 10 µs each."""
    proc.process(100, anon_kib=8 * MIB_KIB, swap_kib=512 * MIB_KIB, data_kib=8 * MIB_KIB)

    assert look(proc, swap_used=True)[100].swap_bytes == 0


def test_never_init_the_guard_and_its_kin(proc):
    shell = {"parent": 1, "cgroup": "/s.scope"}
    proc.process(400, comm="bash", **shell)
    proc.process(OWN, comm="forestall", parent=400, group=OWN, anon_kib=4096, cgroup="/s.scope")
    proc.process(501, comm="worker", parent=OWN, anon_kib=8192)
    proc.process(
        502, comm="forestall-relie", parent=400, group=OWN, anon_kib=8192, cgroup="/s.scope"
    )
    proc.process(503, comm="hog", parent=400, group=OWN, anon_kib=8192, cgroup="/s.scope")
    proc.process(
        504, comm="forestall-fake", parent=400, group=504, anon_kib=8192, cgroup="/s.scope"
    )
    proc.process(505, comm="herald", parent=1, anon_kib=8192)
    guarded = table(proc)
    guarded.shield([505])

    seen = rows(guarded.survey(clock()))
    never = {pid: row.rule for pid, row in seen.items() if row.standing is Standing.NEVER}

    assert never == {
        1: "init",
        OWN: "the guard itself",
        400: "the guard's parent",
        501: "part of the guard",
        502: "part of the guard",
        505: "part of the guard",
    }
    assert {503, 504} <= seen.keys()


@pytest.mark.parametrize("adj", [-1000, -900])
def test_who_was_shielded_from_the_kernel_is_avoided_unless_a_rule_speaks(proc, adj):
    """A whole session can inherit -1000; it must not make everybody untouchable."""
    proc.process(100, adj=adj, anon_kib=8192)
    proc.process(101, comm="db", adj=adj, anon_kib=8192)
    proc.process(102, adj=-899, anon_kib=8192)

    seen = rows(table(proc, rules=RULES).survey(clock()))

    assert (seen[100].standing, seen[100].rule) == (Standing.AVOID, f"oom_score_adj {adj}")
    assert seen[101].rule == "databases"
    assert seen[102].standing is Standing.NORMAL


def test_the_command_line_is_read_in_calm_and_remembered(proc):
    """Reading it can wait for the process, which may itself wait for memory."""
    proc.process(100, cmdline="run precious", anon_kib=8192)
    survey = table(proc, rules=RULES).survey

    before = rows(survey(clock()))[100].standing
    calm = rows(survey(clock(), warm=True))[100].standing
    proc.write("proc/100/cmdline", b"something else\0")
    after = rows(survey(clock()))[100].standing

    assert (before, calm, after) == (Standing.NORMAL, Standing.NEVER, Standing.NEVER)


def test_a_recycled_pid_is_known_for_who_it_is(proc):
    proc.process(100, comm="db", start=100, anon_kib=8192)
    survey = table(proc, rules=RULES).survey
    survey(clock())
    proc.process(100, comm="hog", start=200, anon_kib=8192)

    row = rows(survey(clock()))[100]

    assert (row.comm, row.id.start_ticks, row.standing) == ("hog", 200, Standing.NORMAL)


def test_an_exec_changes_the_name_and_so_the_rule(proc):
    """PID and start time stay; the shell that was spared is now the hog."""
    proc.process(100, comm="db", start=100, anon_kib=8192)
    survey = table(proc, rules=RULES).survey
    survey(clock())
    proc.process(100, comm="hog", start=100, anon_kib=8192)

    assert rows(survey(clock()))[100].standing is Standing.NORMAL


def test_of_many_the_leading_ones_are_proved_afresh(proc, monkeypatch):
    monkeypatch.setattr(processes, "LEADING", 1)
    proc.process(100, comm="big", major_faults=1, anon_kib=100 * MIB_KIB)
    proc.process(101, comm="less", major_faults=1, anon_kib=50 * MIB_KIB)
    survey = table(proc).survey
    survey(clock())
    proc.process(100, comm="big", major_faults=9, anon_kib=100 * MIB_KIB)
    proc.process(101, comm="less", major_faults=9, anon_kib=50 * MIB_KIB)

    seen = rows(survey(clock()))

    assert (seen[100].major_faults, seen[101].major_faults) == (9, 1)


def test_who_jumps_in_size_is_proved_afresh_too(proc, monkeypatch):
    monkeypatch.setattr(processes, "LEADING", 0)
    proc.process(100, comm="shell", start=100, anon_kib=2 * MIB_KIB)
    survey = table(proc).survey
    survey(clock())
    proc.process(100, comm="hog", start=200, anon_kib=90 * MIB_KIB)

    assert rows(survey(clock()))[100].comm == "hog"


def test_a_parent_younger_than_its_child_is_not_its_parent(proc, monkeypatch):
    """The parent died, its number was given away, and the child was not read since."""
    monkeypatch.setattr(processes, "LEADING", 0)
    proc.process(100, comm="father", start=100, anon_kib=8192)
    proc.process(101, comm="child", start=200, parent=100, anon_kib=8192)
    survey = table(proc).survey
    survey(clock())
    proc.remove(100)
    proc.process(101, comm="child", start=200, parent=1, anon_kib=8192)
    survey(clock())
    proc.process(100, comm="stranger", start=300, anon_kib=90 * MIB_KIB)

    assert rows(survey(clock()))[101].parent_pid == 1


def test_rows_are_limited_and_the_rest_is_counted(proc, monkeypatch):
    monkeypatch.setattr(measure, "ROWS_MAX", 10)
    for pid in range(1000, 1030):
        proc.process(pid, anon_kib=pid * 10)

    surveyed = table(proc).survey(clock())
    kept = {pid for pid in rows(surveyed) if pid >= 1000}

    assert kept == set(range(1020, 1030))
    assert surveyed.dropped == 20 + 2  # init and the guard come back as ancestors


def test_new_faces_are_limited_and_the_rest_is_counted(proc, monkeypatch):
    """A storm of new processes must not make the survey outlast the memory."""
    monkeypatch.setattr(processes, "IDENTITIES_MAX", 5)
    for pid in range(1000, 1010):
        proc.process(pid, anon_kib=pid * 10)
    survey = table(proc).survey

    first = survey(clock())
    second = survey(clock())

    assert first.dropped > 0
    assert len(second.rows) > len(first.rows)


def test_others_are_left_out_without_root(proc):
    proc.process(100, uid=1000, anon_kib=8192)
    proc.process(101, uid=0, anon_kib=8192)

    surveyed = table(proc, only_uid=1000).survey(clock())

    assert 100 in rows(surveyed)
    assert 101 not in rows(surveyed)
    assert surveyed.hidden


def test_a_hidden_proc_is_noticed(proc):
    shown = table(proc).survey(clock())
    proc.remove(1)

    assert not shown.hidden
    assert table(proc).survey(clock()).hidden


def test_text_that_makes_no_sense_costs_its_process_only(proc):
    proc.process(100, anon_kib=8192)
    proc.process(101, anon_kib=8192)
    proc.write("proc/100/stat", b"100 (x")
    proc.process(102, anon_kib=8192)
    proc.write("proc/102/statm", b"nonsense")

    surveyed = table(proc).survey(clock())

    assert 101 in rows(surveyed)
    assert not {100, 102} & rows(surveyed).keys()
    assert surveyed.dropped == 2


def test_when_nothing_can_be_read_it_is_an_error_and_not_an_empty_machine(proc):
    def out_of_descriptors(*_args, **_kwargs):
        raise OSError(errno.EMFILE, "too many open files")

    with pytest.raises(OSError, match="no process"):
        table(proc, open_file=out_of_descriptors).survey(clock())


def test_identify_tells_who_has_a_number_now(proc):
    proc.process(100, start=4711)

    assert identify(100, str(proc.root)) == ProcessId(100, 4711)
    with pytest.raises(ProcessGone):
        identify(101, str(proc.root))


@pytest.mark.parametrize(
    ("who", "goes"),
    [
        ({"comm": "worker"}, True),
        ({"comm": "db"}, False),
        ({"comm": "sshd"}, False),
        ({"comm": "worker", "adj": -950}, False),
        ({"comm": "forestall-x", "parent": OWN}, False),
        ({"comm": "kworker", "flags": 0x208040}, False),
    ],
    ids=["nobody special", "a rule", "a session", "the kernel was told", "ours", "the kernel's"],
)
def test_of_a_unit_goes_only_who_nothing_protects(proc, who, goes):
    """Whoever is too small for a survey is judged all the same before a unit ends as one."""
    proc.process(700, anon_kib=500, **who)
    seen = table(proc, rules=RULES[:1])
    seen.survey(clock())

    assert seen.may_go(700) is goes
    assert 700 not in seen._known


def test_of_a_unit_who_is_unknown_may_not_go(proc):
    """A rule asks for the command line, and now is not the time to read it."""
    proc.process(700, anon_kib=500)
    proc.process(701, anon_kib=500)
    proc.write("proc/701/stat", "garbled")

    assert not table(proc, rules=RULES).may_go(700)
    assert not table(proc).may_go(701)
    assert table(proc).may_go(702), "nobody is there"


def test_of_a_unit_a_mark_protects_too(proc):
    proc.process(700, anon_kib=500, start=77)
    seen = table(proc)
    seen.mark(ProcessId(700, 77), Standing.NEVER, "a person said so")

    assert not seen.may_go(700)


# Those a survey met, asked again one by one.


def test_what_the_met_still_hold_is_added_up_with_their_swap(proc):
    proc.process(100, comm="hog", start=2000, anon_kib=64 * MIB_KIB)
    proc.process(101, comm="hog", start=2001, anon_kib=32 * MIB_KIB)
    known = table(proc)
    known.survey(clock())
    proc.process(100, comm="hog", start=2000, anon_kib=16 * MIB_KIB, swap_kib=40 * MIB_KIB)

    held = known.confirm((ProcessId(100, 2000), ProcessId(101, 2001)))

    assert held == (16 + 40 + 32) * MIB


@pytest.mark.parametrize(
    "change",
    [
        {"start": 2600},
        {"comm": "sshd"},
        {"state": "Z"},
        {"flags": EXITING},
    ],
)
def test_who_is_not_the_same_any_more_counts_for_nothing(proc, change):
    proc.process(100, comm="hog", start=2000, anon_kib=64 * MIB_KIB)
    proc.process(101, comm="bystander", start=2001, anon_kib=1 * MIB_KIB)
    known = table(proc)
    known.survey(clock())
    proc.process(100, **({"comm": "hog", "start": 2000, "anon_kib": 64 * MIB_KIB} | change))

    assert known.confirm((ProcessId(100, 2000), ProcessId(101, 2001))) == MIB


def test_of_many_the_first_are_read_and_a_mark_on_any_stops_it(proc):
    victims = tuple(ProcessId(100 + n, 2000) for n in range(CONFIRMED + 2))
    for victim in victims:
        proc.process(victim.pid, comm="hog", start=2000, anon_kib=4 * MIB_KIB)
    known = table(proc)
    known.survey(clock())
    before = known.confirm(victims)
    known.mark(victims[-1], Standing.NEVER, "a person said so")

    assert before == CONFIRMED * 4 * MIB
    assert known.confirm(victims) == 0


def test_who_is_gone_or_was_never_met_counts_for_nothing(proc):
    for pid in (100, 101):
        proc.process(pid, comm="hog", start=2000, anon_kib=64 * MIB_KIB)
    known = table(proc)
    known.survey(clock())
    proc.remove(100)
    proc.process(102, comm="new", start=2000, anon_kib=64 * MIB_KIB)

    assert known.confirm([ProcessId(pid, 2000) for pid in (100, 101, 102)]) == 64 * MIB
