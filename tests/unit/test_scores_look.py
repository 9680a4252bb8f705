"""One look at a machine of files: order, marks, changes, next victims, and what is hidden."""

import pytest

from forestall.core.rules import DEFAULT_RULES
from forestall.inspect.badness import Scale
from forestall.inspect.groups import by_unit, tree
from forestall.inspect.looking import Looker, high_risk
from forestall.inspect.scores import Scores
from forestall.kernel.scores import Footing, ScoreTable, parse_footing, parse_uid
from tests.fakes.proc import GIB_KIB
from tests.fakes.scored import FakeScores

OWN = 9
DAY_NS = 86_400 * 10**9
"""Since the machine of files came up: nobody on it has just started."""


@pytest.fixture
def machine(tmp_path):
    fake = FakeScores(tmp_path)
    fake.scored(20, comm="database", anon_kib=6 * GIB_KIB, start=200)
    fake.scored(21, comm="editor", anon_kib=1 * GIB_KIB, parent=20, cgroup="/a/editor.service")
    fake.scored(22, comm="idle", anon_kib=512, parent=21, cgroup="/a/editor.service")
    fake.kernel_thread(2)
    fake.write("proc/2/oom_score", "0\n")
    return fake


@pytest.fixture
def looker(machine):
    found = Looker(str(machine.root), spare=frozenset({OWN}), page_bytes=4096)
    yield found
    found.close()


def look(looker, **options):
    return looker.look(**({"portraits_max": None} | options))


def test_the_largest_comes_first_and_kernel_threads_not_at_all(looker):
    scored = look(looker).scored

    assert [one.id.pid for one in scored] == [20, 21, 22, 1]
    assert scored[0].points == 375
    assert scored[-1].spared == "init is never taken"


def test_marks_are_set_on_the_unscaled_value(machine, looker):
    machine.scored(23, comm="big", anon_kib=9 * GIB_KIB)
    machine.scored(24, comm="huge", anon_kib=14 * GIB_KIB)

    marks = {one.id.pid: one.mark for one in look(looker).scored}

    assert marks[24] == "critical"
    assert marks[23] == "warning"
    assert {marks[20], marks[21], marks[22]} == {""}


def test_an_old_kernels_scores_are_understood_without_asking_its_version(tmp_path):
    fake = FakeScores(tmp_path, new_scale=False)
    fake.scored(20, anon_kib=8 * GIB_KIB)
    fake.scored(21, anon_kib=512)
    looker = Looker(str(tmp_path), page_bytes=4096)

    seen = look(looker)
    looker.close()

    assert seen.machine.scale is Scale.POINTS
    assert [(one.id.pid, one.points) for one in seen.scored][:2] == [(20, 500), (21, 0)]


def test_change_is_told_from_the_second_look_on(machine, looker):
    first = look(looker)
    machine.scored(21, comm="editor", anon_kib=2 * GIB_KIB, parent=20)
    second = look(looker)

    assert {one.change_points for one in first.scored} == {None}
    changes = {one.id.pid: one.change_points for one in second.scored}
    assert 61 <= changes[21] <= 64
    assert changes[20] == 0


def test_a_recycled_number_has_no_change(machine, looker):
    look(looker)
    machine.scored(21, comm="other", anon_kib=5 * GIB_KIB, start=9000)

    changes = {one.id.pid: one.change_points for one in look(looker).scored}

    assert changes[21] is None


def test_the_next_victim_is_found_below_the_rows_asked_for(machine, looker):
    # Both print the same score; only the exact sizes tell which is larger.
    machine.scored(30, comm="a", anon_kib=6 * GIB_KIB + 4)
    seen = look(looker, portraits_max=1)

    assert seen.kernel.pid == 30
    assert seen.kernel.exact


def test_of_equals_the_kernel_takes_the_youngest(machine, looker):
    machine.scored(10, comm="twin", anon_kib=6 * GIB_KIB, start=300)

    assert look(looker).kernel.pid == 10


def test_swap_and_page_tables_count(machine, looker):
    machine.scored(23, comm="swapped", anon_kib=GIB_KIB, swap_kib=6 * GIB_KIB, tables_kib=64)

    assert look(looker).kernel.pid == 23


def test_who_was_told_never_is_never_next_and_comes_last(machine, looker):
    machine.scored(23, comm="shielded", anon_kib=12 * GIB_KIB, adj=-1000)
    seen = look(looker)

    shielded = next(one for one in seen.scored if one.id.pid == 23)
    assert seen.kernel.pid == 20
    assert shielded.points is None
    assert "never considered" in shielded.spared


def test_a_machine_that_panics_takes_nobody(machine, looker):
    machine.write("proc/sys/vm/panic_on_oom", "1\n")

    assert look(looker).kernel.pid is None


def test_oom_kill_allocating_task_makes_it_an_estimate(machine, looker):
    machine.write("proc/sys/vm/oom_kill_allocating_task", "1\n")
    victim = look(looker).kernel

    assert not victim.exact
    assert "whoever asks" in victim.why


def test_who_vanishes_between_two_reads_is_left_out(machine):
    table = ScoreTable(str(machine.root))
    weighed = table.weigh()
    machine.remove(20)
    looker = Looker(str(machine.root), page_bytes=4096, table=table)

    seen = look(looker)
    looker.close()

    assert 20 in {weight.pid for weight in weighed.weights}
    assert 20 not in {one.id.pid for one in seen.scored}
    assert seen.kernel.pid == 21


def test_hidden_processes_are_said_to_be_hidden_and_the_victim_is_an_estimate(machine):
    machine.hide(20)
    table = ScoreTable(str(machine.root), open_file=machine.open_file)
    looker = Looker(str(machine.root), page_bytes=4096, table=table)

    seen = look(looker)
    looker.close()

    assert seen.hidden
    assert seen.kernel.pid == 21
    assert not seen.kernel.exact
    assert "that can be seen" in seen.kernel.why


def test_without_init_in_sight_others_are_hidden_too(machine, looker):
    machine.remove(1)

    assert look(looker).hidden


def test_in_a_container_the_victim_is_an_estimate(machine, looker):
    machine.namespace(4026532001)
    seen = look(looker)

    assert seen.sees_all is False
    assert not seen.kernel.exact


def test_high_risk_is_above_100_as_in_the_seeds_call(machine, looker):
    machine.scored(23, comm="middling", anon_kib=2 * GIB_KIB)
    seen = look(looker)

    assert [one.id.pid for one in high_risk(seen)] == [20, 23]
    assert [one.id.pid for one in high_risk(seen, above=50)] == [20, 23, 21]


def test_broken_files_are_counted_and_end_nothing(machine, looker):
    machine.write("proc/22/oom_score", "nonsense")
    seen = look(looker)

    assert seen.dropped == 1
    assert [one.id.pid for one in seen.scored] == [20, 21, 1]


def test_all_at_once_says_the_same_as_the_leaders_one_by_one(machine, looker):
    machine.scored(23, comm="hidden", anon_kib=GIB_KIB)
    machine.write("proc/21/cgroup", "no cgroup\n")
    everybody = look(looker)
    leaders = look(looker, portraits_max=100)

    assert [one._replace(change_points=None) for one in everybody.scored] == [
        one._replace(change_points=None) for one in leaders.scored
    ]
    assert everybody.kernel == leaders.kernel
    assert everybody.processes == leaders.processes == 5


@pytest.mark.parametrize("broken", ["stat", "oom_score", "status", "oom_score_adj", "cgroup"])
def test_all_at_once_survives_any_file_that_is_broken(machine, looker, broken):
    machine.write(f"proc/21/{broken}", "?")
    seen = look(looker)

    kept = [one.id.pid for one in seen.scored]
    assert {20, 22} <= set(kept)
    assert seen.dropped == (21 not in kept)


def test_memory_is_read_in_the_kernels_order_and_in_any_other():
    usual = (
        b"Name:\tp\nUid:\t7\t8\t8\t8\nVmHWM:\t 9 kB\nVmRSS:\t 8 kB\nRssAnon:\t 5 kB\n"
        b"RssFile:\t 2 kB\nRssShmem:\t 1 kB\nVmData:\t 6 kB\nVmStk:\t 7 kB\nVmExe:\t 1 kB\n"
        b"VmLib:\t 1 kB\nVmPTE:\t 4 kB\nVmPMD:\t 9 kB\nVmSwap:\t 3 kB\nHugetlbPages:\t 0 kB\n"
    )
    lines = usual.splitlines(keepends=True)
    expected = Footing(8192, 5120, 2048, 1024, 3072, 4096)

    assert parse_footing(usual) == expected
    assert parse_footing(b"".join(lines[::-1])) == expected
    assert parse_footing(b"".join(lines[:5])) == Footing(8192, 5120, None, None, None, None)
    assert parse_footing(b"Name:\tkthread\n") is None
    assert parse_uid(usual) == 7


def test_pss_is_read_where_permitted_and_unknown_elsewhere(machine, looker):
    machine.write("proc/20/smaps_rollup", "00-ff ---p 00000000 00:00 0 [rollup]\nPss:    123 kB\n")
    seen = look(looker, pss=True)

    assert {one.id.pid: one.pss_bytes for one in seen.scored} == {
        20: 123 * 1024,
        21: None,
        22: None,
        1: None,
    }


def test_ancestry_names_the_line_above(looker):
    assert looker.ancestry(22) == [(21, "editor"), (20, "database"), (1, "init")]


def test_a_tree_keeps_the_line_above_each_chosen_one(looker):
    scored = look(looker).scored
    idle = [one for one in scored if one.id.pid == 22]

    branches = tree(scored, idle)

    assert [(branch.scored.id.pid, branch.depth) for branch in branches] == [
        (1, 0),
        (20, 1),
        (21, 2),
        (22, 3),
    ]


def test_a_circle_of_recycled_numbers_ends(machine, looker):
    machine.scored(20, comm="a", anon_kib=GIB_KIB, parent=21)
    machine.scored(21, comm="b", anon_kib=GIB_KIB, parent=20)
    scored = look(looker).scored

    assert len(tree(scored, scored)) <= len(scored)


def test_units_sum_up_their_processes(looker):
    units = {one.unit: one for one in by_unit(look(looker).scored)}

    editor = units["editor.service"]
    assert editor.processes == 2
    assert editor.anon_bytes == (GIB_KIB + 512) * 1024
    assert editor.leader.id.pid == 21
    assert editor.complete


@pytest.fixture
def scores(machine):
    found = Scores(
        DEFAULT_RULES, root=str(machine.root), spare=frozenset({OWN}), boot=lambda: DAY_NS
    )
    yield found
    found.close()


def test_without_a_guard_its_rules_are_asked_here(scores):
    scene = scores.look(portraits_max=None)

    assert scene.guard.pid == 20
    assert not scene.guard.told
    assert scene.difference == "Both would take the same."


def test_the_running_guards_word_counts_and_the_difference_has_its_reason(machine, scores):
    machine.scored(30, comm="postgres", anon_kib=9 * GIB_KIB)
    said = {"next_to_go": {"pid": 20, "start_ticks": 200, "name": "database", "why": "told"}}
    scene = scores.look(portraits_max=None, status=said)

    assert scene.guard.told
    assert (scene.look.kernel.pid, scene.guard.pid) == (30, 20)
    assert "postgres is avoid (built-in avoid list)" in scene.difference


def test_an_adjustment_that_misleads_the_kernel_is_named(machine, scores):
    machine.scored(30, comm="tab", anon_kib=GIB_KIB, adj=600)
    scene = scores.look(portraits_max=None)

    assert (scene.look.kernel.pid, scene.guard.pid) == (30, 20)
    assert "oom_score_adj +600 makes tab look 9.60 GiB larger" in scene.difference


def test_a_guard_that_has_not_looked_names_nobody(scores):
    scene = scores.look(portraits_max=None, status={"next_to_go": None})

    assert scene.guard.pid is None
    assert "has not looked" in scene.guard.why


@pytest.mark.parametrize(
    ("available", "mark"), [(8, ""), (3.3, ""), (3, "caution"), (1.5, "danger")]
)
def test_the_system_line_warns_above_80_and_90_percent(machine, scores, available, mark):
    machine.meminfo(available=int(available * GIB_KIB))

    assert scores.look(portraits_max=None).mark == mark


def test_a_container_is_noted(machine, scores):
    machine.namespace(4026532001)

    assert any("container" in note for note in scores.look(portraits_max=1).notes)


def test_a_victim_the_guard_named_long_ago_is_said_to_be_gone(scores):
    said = {"next_to_go": {"pid": 99, "start_ticks": 1, "name": "hog", "why": "told"}}
    scene = scores.look(portraits_max=None, status=said)

    assert scene.guard.pid is None
    assert "hog (99), whom it named last, is gone" in scene.difference


def test_what_people_told_the_guard_counts_here_too(machine, scores):
    marks = [{"pid": 20, "start_ticks": 200, "standing": "never", "why": "asked for by uid 0"}]
    status = {"next_to_go": None, "guard": {"marks": [*marks, {"pid": "x"}, "nonsense"]}}
    scores.look(portraits_max=None, status=status)
    row = scores.ranking.row_of(20)

    assert (row.standing.value, row.rule) == ("never", "asked for by uid 0")
    assert scores.ranking.choose().pid == 21


def test_a_guard_of_one_user_is_compared_within_its_own_processes(machine, scores):
    machine.scored(20, comm="database", anon_kib=6 * GIB_KIB, start=200, uid=0)
    status = {"next_to_go": None, "guard": {"only_uid": 1000}}
    scene = scores.look(portraits_max=None, status=status)

    assert scores.ranking.row_of(20) is None
    assert scores.ranking.choose().pid == 21
    said = {"next_to_go": {"pid": 21, "start_ticks": 100, "name": "editor", "why": "told"}}
    scene = scores.look(portraits_max=None, status=status | said)
    assert scene.difference == (
        "They differ: this guard looks after uid 1000 alone, and database is another's."
    )
