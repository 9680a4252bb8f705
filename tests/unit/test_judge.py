"""Who should end, on values: the cases people complain about, at sizes no guest can have."""

import pytest

from forestall.core.census import Census, count
from forestall.core.judge import Chosen, Nobody, judge
from forestall.core.model import Role, Standing
from forestall.core.rules import DEFAULT_RULES
from forestall.core.units import GIB, MIB, MS, SECOND, TIB
from tests.fakes.builders import holdings, memory, row


def watch(surveys, *, every_ns=500 * MS):
    """Count a row of surveys; returns the last rows and the census."""
    census = Census()
    now_ns = 1000 * SECOND
    for rows in surveys:
        census = count(census, now_ns, rows, 0)
        now_ns += every_ns
    return surveys[-1], census


def growing(make, *, seconds, per_second, every_ns=500 * MS):
    """Surveys over a time in which something grows: ``make(grown_bytes)`` gives the rows."""
    steps = int(seconds * SECOND / every_ns) + 1
    return [make(int(per_second * n * every_ns / SECOND)) for n in range(steps)]


def verdict(surveys, mem, *, every_ns=500 * MS, **how):
    rows, census = watch(surveys, every_ns=every_ns)
    how.setdefault("spared", frozenset())
    return judge(rows, census, mem, DEFAULT_RULES, **how)


def ended(found):
    assert isinstance(found, Chosen), found
    return sorted(r.id.pid for r in found.part.members)


SESSION = (
    row(1, 8 * MIB, comm="systemd", standing=Standing.NEVER, rule="init"),
    row(900, 6 * MIB, comm="sshd", standing=Standing.AVOID, rule="avoid", role=Role.SESSION),
    row(901, 5 * MIB, comm="bash", parent=900, role=Role.SESSION),
    row(902, 7 * MIB, comm="tmux: server", role=Role.SESSION),
)


def test_a_growing_script_goes_and_the_stable_database_stays():
    """12 GiB against 3 GiB: size is not guilt."""

    def rows(grown):
        return (*SESSION, row(50, 12 * GIB, comm="dbserver"), row(60, 1 * GIB + grown))

    found = verdict(growing(rows, seconds=4, per_second=500 * MIB), memory(0.03))

    assert ended(found) == [60]
    assert "dbserver (50: 12.0 GiB, stable)" in found.why
    # What would have changed it.
    assert "without it dbserver (50) would go, because it holds most of the others" in found.why
    assert "a rule in [victims] would spare it" in found.why


def test_the_sentence_names_the_next_by_growth_when_others_grew_too():
    def rows(grown):
        return (
            *SESSION,
            row(50, 12 * GIB, comm="dbserver"),
            row(60, 1 * GIB + grown),
            row(61, 1 * GIB + grown // 10, comm="other"),
        )

    found = verdict(growing(rows, seconds=4, per_second=500 * MIB), memory(0.03))

    assert ended(found) == [60]
    assert "without it other (61) would go, because it grew most of the others" in found.why


def test_eight_workers_of_one_build_go_together_and_the_shell_stays():
    def rows(grown):
        make = row(100, 3 * MIB, comm="make", parent=901)
        workers = [
            row(110 + n, 100 * MIB + grown // 8, comm="cc1plus", parent=100, age_s=9)
            for n in range(8)
        ]
        return (*SESSION, make, *workers, row(50, 6 * GIB, comm="dbserver"))

    found = verdict(growing(rows, seconds=5, per_second=800 * MIB), memory(0.03))

    assert ended(found) == [100, *range(110, 118)]


def test_forty_children_of_one_storm_go_with_their_maker():
    def rows(grown):
        count_now = 1 + grown
        kids = [row(200 + n, 20 * MIB, comm="job", parent=199, age_s=3) for n in range(count_now)]
        return (*SESSION, row(199, MIB, comm="job", parent=901), *kids, row(50, 500 * MIB))

    found = verdict(growing(rows, seconds=4, per_second=10), memory(0.03, total=1 * GIB))

    assert ended(found) == [199, *range(200, 241)]


def test_orphans_of_a_storm_whose_maker_has_left_go_together():
    def rows(grown):
        kids = [row(200 + n, 20 * MIB, comm="job", parent=1, age_s=3) for n in range(1 + grown)]
        return (*SESSION, *kids, row(50, 500 * MIB, comm="browser"))

    found = verdict(growing(rows, seconds=4, per_second=10), memory(0.03, total=1 * GIB))

    assert ended(found) == list(range(200, 241))


def test_one_leaking_tab_goes_and_the_browser_stays():
    """earlyoom#344: many small children at adj 300 die before the leaker."""

    def rows(grown):
        main = row(300, 400 * MIB, comm="browser", parent=901)
        tabs = [
            row(301 + n, 90 * MIB, comm="tab", parent=300, oom_score_adj=300) for n in range(20)
        ]
        leaker = row(330, 200 * MIB + grown, comm="tab", parent=300, oom_score_adj=300)
        return (*SESSION, main, *tabs, leaker)

    found = verdict(growing(rows, seconds=5, per_second=300 * MIB), memory(0.03, total=8 * GIB))

    assert ended(found) == [330]


def test_a_small_daemon_at_adj_999_is_not_taken_for_the_hog():
    """earlyoom#230."""

    def rows(grown):
        return (
            *SESSION,
            row(40, 30 * MIB, oom_score_adj=999, comm="audio"),
            row(41, 300 * MIB + grown),
        )

    found = verdict(growing(rows, seconds=3, per_second=100 * MIB), memory(0.03, total=1 * GIB))

    assert ended(found) == [41]


def test_a_jvm_that_grew_to_its_limit_and_stopped_is_not_to_blame():
    def rows(grown):
        jvm = min(10 * GIB, 2 * GIB + grown * 20)
        return (*SESSION, row(70, jvm, comm="java"), row(71, 200 * MIB + grown, comm="report"))

    surveys = growing(rows, seconds=120, per_second=20 * MIB, every_ns=SECOND)
    found = verdict(surveys, memory(0.03), every_ns=SECOND)

    assert ended(found) == [71]


def test_a_backup_that_reads_files_has_nothing_to_give():
    """Its memory is page cache; the one that grows goes."""

    def rows(grown):
        return (*SESSION, row(80, 12 * MIB, comm="backup"), row(81, 100 * MIB + grown))

    found = verdict(growing(rows, seconds=4, per_second=200 * MIB), memory(0.03))

    assert ended(found) == [81]


def test_a_virtual_machine_with_all_its_memory_touched_stays():
    def rows(grown):
        vm = row(90, 64 * GIB, comm="qemu-system-x86")
        return (*SESSION, vm, row(91, 500 * MIB + grown, comm="convert"))

    found = verdict(growing(rows, seconds=6, per_second=400 * MIB), memory(0.02, total=80 * GIB))

    assert ended(found) == [91]


def test_a_leak_slower_than_a_filling_database_cache_still_goes_first():
    """The database is on the avoid list; blame alone would take it."""

    def rows(grown):
        db = row(
            50,
            5 * GIB + 2 * grown,
            comm="postgres",
            standing=Standing.AVOID,
            rule="built-in avoid list",
        )
        return (*SESSION, db, row(51, 900 * MIB + grown, comm="script"))

    found = verdict(growing(rows, seconds=8, per_second=50 * MIB), memory(0.03, total=8 * GIB))

    assert ended(found) == [51]


def test_a_hog_with_inherited_immunity_goes_when_the_growth_is_its_own():
    """Inherited from a service, oom_score_adj -1000 lets the kernel panic first (systemd#41372)."""

    def rows(grown):
        hog = row(
            60,
            100 * MIB + grown,
            standing=Standing.AVOID,
            rule="oom_score_adj -1000",
            oom_score_adj=-1000,
        )
        return (*SESSION, hog, row(61, 150 * MIB, comm="browser"), row(62, 60 * MIB))

    found = verdict(growing(rows, seconds=4, per_second=150 * MIB), memory(0.03, total=1 * GIB))

    assert ended(found) == [60]


def test_bystanders_are_spared_when_the_one_who_grows_is_protected_by_a_rule():
    def rows(grown):
        pet = row(60, 100 * MIB + grown, standing=Standing.NEVER, rule="my rule", comm="pet")
        return (*SESSION, pet, row(61, 150 * MIB))

    found = verdict(growing(rows, seconds=4, per_second=150 * MIB), memory(0.03, total=1 * GIB))

    assert isinstance(found, Nobody)
    assert found.futile
    assert "pet (60) grows, and a rule protects it (my rule)" in found.why


def test_memory_in_tmpfs_spares_everybody_and_says_where_it_is():
    def rows(_grown):
        return (*SESSION, row(61, 150 * MIB), row(62, 60 * MIB))

    found = verdict(
        growing(rows, seconds=4, per_second=1),
        memory(0.03, total=1 * GIB),
        holdings=holdings(anon=200 * MIB, shmem=700 * MIB),
    )

    assert isinstance(found, Nobody)
    assert "700 MiB are in tmpfs" in found.why


def test_memory_in_kernel_slab_spares_everybody_and_says_so():
    def rows(_grown):
        return (*SESSION, row(61, 150 * MIB), row(62, 60 * MIB))

    found = verdict(
        growing(rows, seconds=4, per_second=1),
        memory(0.02, total=1 * GIB),
        holdings=holdings(anon=200 * MIB, slab=650 * MIB),
    )

    assert isinstance(found, Nobody)
    assert "kernel slab" in found.why


def test_the_holder_of_a_growing_memfd_goes():
    def rows(grown):
        return (*SESSION, row(60, 5 * MIB, shared_bytes=grown), row(61, 300 * MIB))

    found = verdict(
        growing(rows, seconds=4, per_second=150 * MIB),
        memory(0.03, total=1 * GIB),
        holdings=holdings(anon=350 * MIB, shmem=600 * MIB),
    )

    assert ended(found) == [60]


def test_the_writer_that_fills_a_tmpfs_is_stopped():
    """Its end frees little, but it stops the loss; the file is named for a person to remove."""

    def rows(grown):
        return (*SESSION, row(60, MIB, writing_bytes=grown), row(61, 300 * MIB))

    found = verdict(
        growing(rows, seconds=4, per_second=150 * MIB),
        memory(0.03, total=1 * GIB),
        holdings=holdings(anon=350 * MIB, shmem=600 * MIB),
    )

    assert ended(found) == [60]


def test_of_many_that_grew_one_of_them_goes_and_no_bystander():
    """A browser that held still was ended for six workers, each with a sixth of the growth."""

    def rows(grown):
        workers = (row(60 + n, 500 * MIB + grown - n * MIB, comm=f"w{n}") for n in range(8))
        return (*SESSION, row(50, 4 * GIB, comm="browser"), *workers)

    found = verdict(growing(rows, seconds=4, per_second=100 * MIB), memory(0.03))

    assert ended(found) == [60]
    assert "grew by" in found.why
    assert "browser (50: 4.00 GiB, stable)" in found.why


def test_a_browser_that_has_just_come_up_and_holds_still_is_no_culprit_for_those_who_grow():
    """It had a fifth of what the last twenty minutes had brought, all of it seconds before."""
    census = Census()
    now_ns = 1000 * SECOND
    for n in range(13):
        workers = (
            row(60 + k, (n - 8) * (90 - 4 * k) * MIB, comm=f"w{k}", age_s=0)
            for k in range(6)
            if n > 8
        )
        rows = (*SESSION, row(50, 600 * MIB, comm="browser", age_s=n // 2), *workers)
        census = count(census, now_ns, rows, 0)
        now_ns += 500 * MS
    found = judge(rows, census, memory(0.03, total=4 * GIB), DEFAULT_RULES, spared=frozenset())

    assert ended(found) == [60]


def test_who_crept_up_with_most_of_it_still_goes_while_many_breathe():
    """A leak of hours, on a machine where thirty others take a little just now."""
    census = Census()
    now_ns = 1000 * SECOND
    for n in range(120):
        small = (row(100 + k, (10 + (n > 110) * (n - 110)) * MIB, comm=f"s{k}") for k in range(30))
        rows = (*SESSION, row(50, 4 * GIB, comm="browser"), row(60, GIB + n * 40 * MIB), *small)
        census = count(census, now_ns, rows, 0)
        now_ns += 10 * SECOND
    found = judge(rows, census, memory(0.03), DEFAULT_RULES, spared=frozenset())

    assert ended(found) == [60]


def test_of_fifty_large_ones_one_that_grew_goes_however_small_its_share():
    def rows(grown):
        workers = (row(100 + n, 200 * MIB + grown + n * MIB, comm=f"w{n}") for n in range(50))
        return (*SESSION, row(50, 4 * GIB, comm="database"), *workers)

    (pid,) = ended(verdict(growing(rows, seconds=4, per_second=10 * MIB), memory(0.03)))

    assert 100 <= pid < 150


def test_where_a_hundred_small_ones_grew_the_largest_goes_once_and_for_all():
    def rows(grown):
        small = (row(100 + n, 10 * MIB + grown, comm=f"s{n}") for n in range(200))
        return (*SESSION, row(50, 4 * GIB, comm="browser"), *small)

    found = verdict(growing(rows, seconds=4, per_second=4 * MIB), memory(0.03))

    assert ended(found) == [50]


def test_nobody_goes_for_a_tmpfs_whose_writer_is_gone():
    """Ended in vain a browser that had come up a minute before, on a machine without swap."""
    census = Census()
    now_ns = 1000 * SECOND
    for n in range(9):
        rows = (*SESSION, row(50, 2 * GIB + n * 100 * MIB, comm="browser", age_s=60))
        census = count(census, now_ns, rows, (2 + n) * GIB // 2)
        now_ns += 500 * MS
    where = holdings(anon=6 * GIB, shmem=5 * GIB)
    found = judge(rows, census, memory(0.025), DEFAULT_RULES, spared=frozenset(), holdings=where)
    slack = holdings(anon=6 * GIB, shmem=GIB // 2)
    helps = judge(rows, census, memory(0.025), DEFAULT_RULES, spared=frozenset(), holdings=slack)

    assert isinstance(found, Nobody)
    assert found.futile
    assert "tmpfs" in found.why
    assert isinstance(helps, Chosen), "what lies elsewhere would not be enough"


def test_a_parked_machine_gives_up_the_largest_that_may_go():
    """Nobody grew: a PREFER that frees enough goes before a larger NORMAL."""
    rows = (
        *SESSION,
        row(60, 3 * GIB, comm="tab", standing=Standing.PREFER, rule="prefer"),
        row(61, 9 * GIB, comm="dbserver"),
    )

    found = verdict([rows] * 8, memory(0.03), every_ns=10 * SECOND)

    assert ended(found) == [60]


def test_nobody_at_all_is_a_verdict_and_not_a_crash():
    found = verdict([SESSION[:1]] * 3, memory(0.01))

    assert isinstance(found, Nobody)
    assert "1 are protected" in found.why


def test_a_spared_process_is_not_chosen_again():
    rows = (*SESSION, row(60, 3 * GIB), row(61, 2 * GIB))

    found = verdict([rows] * 4, memory(0.01), spared=frozenset({rows[4].id}))

    assert ended(found) == [61]


@pytest.mark.parametrize("total", [512 * MIB, 16 * GIB, 2 * TIB])
def test_size_of_the_machine_does_not_change_who_is_to_blame(total):
    def rows(grown):
        return (*SESSION, row(50, total * 0.6), row(60, total * 0.05 + grown))

    found = verdict(growing(rows, seconds=5, per_second=total * 0.05), memory(0.02, total=total))

    assert ended(found) == [60]


def test_a_hundred_thousand_processes_are_judged():
    rows = tuple(row(1000 + n, 5 * MIB) for n in range(5000))
    grown = (*rows[:-1], row(5999, 3 * GIB))

    found = verdict([rows, rows, grown], memory(0.02, total=64 * GIB))

    assert ended(found) == [5999]


def test_the_deepest_family_that_answers_is_chosen_not_its_grandparents():
    """A runner starts a script, it starts workers: workers and script go, the runner stays."""

    def rows(grown):
        runner = row(400, 600 * MIB, comm="runner", parent=1)
        script = row(401, 10 * MIB, comm="script", parent=400)
        workers = [row(410 + n, 50 * MIB + grown // 4, comm="w", parent=401) for n in range(4)]
        return (*SESSION, runner, script, *workers)

    found = verdict(growing(rows, seconds=5, per_second=400 * MIB), memory(0.03, total=4 * GIB))

    assert ended(found) == [401, 410, 411, 412, 413]


def test_an_unclimbable_parent_leaves_its_children_a_family_of_their_own():
    """Workers started side by side from a login shell are judged as one; the shell is not."""

    def rows(grown):
        workers = [row(410 + n, 50 * MIB + grown // 4, comm="w", parent=901) for n in range(4)]
        return (*SESSION, *workers, row(50, GIB, comm="dbserver"))

    found = verdict(growing(rows, seconds=5, per_second=400 * MIB), memory(0.03, total=4 * GIB))

    assert ended(found) == [410, 411, 412, 413]


def test_the_verdict_does_not_depend_on_the_order_of_the_survey():
    def rows(grown):
        return (*SESSION, row(60, GIB + grown), row(61, GIB + grown), row(62, 2 * GIB))

    surveys = growing(rows, seconds=4, per_second=100 * MIB)
    forward = verdict(surveys, memory(0.02))
    backward = verdict([tuple(reversed(s)) for s in surveys], memory(0.02))

    assert ended(forward) == ended(backward)
