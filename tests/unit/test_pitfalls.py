"""What brought other guards down and belongs to no single module here."""

import itertools
import re
from pathlib import Path

import pytest

from forestall.core.events import End, Tell
from forestall.core.model import Stage, Standing
from forestall.core.policy import step
from forestall.core.rules import DEFAULT_RULES, Limit, Trigger, available, swap_free
from forestall.core.standing import Matcher
from forestall.core.state import Settling, begin
from forestall.core.units import GIB, MIB, MS, SECOND
from forestall.core.value import replace
from forestall.kernel.processes import ProcessTable
from tests.fakes.builders import row, sampled, surveyed
from tests.fakes.proc import FakeProc

SRC = Path(__file__).parents[2] / "src" / "forestall"
OWN = 500
RULES = replace(
    DEFAULT_RULES,
    triggers=(
        Trigger("out", Stage.KILL, (available(Limit(0.02, 256 * MIB)), swap_free(Limit(0.1, GIB)))),
    ),
)


def table(proc, **options):
    return ProcessTable(
        str(proc.root),
        matcher=Matcher(DEFAULT_RULES.victim_rules),
        own_pid=OWN,
        page_bytes=proc.page_bytes,
        clk_tck=100,
        boot_ns=lambda: 60 * SECOND,
        **options,
    )


@pytest.fixture
def proc(tmp_path):
    proc = FakeProc(tmp_path)
    proc.process(1, comm="systemd", parent=0, anon_kib=2048, cgroup="/init.scope", start=1)
    proc.process(OWN, comm="forestall", anon_kib=4096, cgroup="/g.service", group=OWN)
    return proc


def clock():
    return itertools.count(1).__next__


def survey(proc, **options):
    return table(proc, **options).survey(clock())


def play(*events, rules=RULES):
    """Feed events; return the state and all requests."""
    state, asked = begin(rules), []
    for event in events:
        state, requests = step(state, event, rules)
        asked += requests
    return state, asked


def ends(asked):
    return [request for request in asked if isinstance(request, End)]


def told(asked):
    return [request.what for request in asked if isinstance(request, Tell)]


def test_in_a_pid_namespace_number_two_is_a_process_like_any_other(proc):
    """On a host it is kthreadd; in a container it is whoever came second."""
    proc.process(2, comm="hog", anon_kib=64 * 1024)
    seen = {row.id.pid: row for row in survey(proc).rows}

    assert seen[2].comm == "hog"
    assert seen[2].standing is Standing.NORMAL


def test_scores_that_are_all_zero_change_nothing(proc):
    """Some containers show oom_score 0 for everybody, and an old score is a lie anyway."""
    proc.process(60, comm="hog", anon_kib=9 * GIB // 1024, start=6000)
    proc.process(61, comm="other", anon_kib=2 * GIB // 1024, start=6100)
    for pid in (60, 61):
        proc.write(f"proc/{pid}/oom_score", "0\n")
    seen = survey(proc)
    state, _ = play(sampled(1000 * SECOND, 0.5))
    state, _ = step(state, replace(seen, now_ns=1000 * SECOND, began_ns=1000 * SECOND), RULES)
    state, _ = step(state, sampled(1001 * SECOND, 0.01), RULES)
    state, asked = step(state, replace(seen, now_ns=1001 * SECOND, began_ns=1001 * SECOND), RULES)

    assert [one.victims[0].pid for one in ends(asked)] == [60]


def test_no_module_reads_a_score_to_decide_or_an_environment_to_find_a_desktop():
    """A score is skewed by its adjustment; an environment is written by whoever owns it."""
    readers = {
        str(module.relative_to(SRC))
        for module in SRC.rglob("*.py")
        if re.search(r'[/"]oom_score"|\}/oom_score\b(?!_)|/environ\b', module.read_text())
    }

    assert not {name for name in readers if name.startswith(("core", "guard", "effects", "herald"))}


def test_a_table_that_changes_under_the_survey_costs_only_who_has_left(proc):
    """Processes come and go with every file that is read; the hog is seen all the same."""
    proc.process(60, comm="hog", anon_kib=64 * 1024)
    for pid in range(100, 160):
        proc.process(pid, anon_kib=8 * 1024)
    leaving, coming = iter(range(100, 160)), iter(range(200, 260))
    real = table(proc)._folder.open_file

    def churning(name, *args, **kwargs):
        for pid, act in ((next(leaving, 0), proc.remove), (next(coming, 0), proc.process)):
            if pid:
                act(pid)
        return real(name, *args, **kwargs)

    seen = survey(proc, open_file=churning)
    pids = {row.id.pid for row in seen.rows}

    assert 60 in pids
    assert pids <= {1, OWN, 60, *range(100, 160), *range(200, 260)}


def test_everybody_protected_the_largest_stuck_and_our_own_group_the_best_choice():
    """No crash, nobody ended who must not be, and it is said."""
    stuck = row(60, 9 * GIB, comm="stuck", state="D", standing=Standing.NEVER, rule="never")
    ours = [
        row(pid, 3 * GIB, comm="forestall", standing=Standing.NEVER, rule="part of the guard")
        for pid in (OWN, OWN + 1)
    ]
    kin = replace(row(502, GIB, group_id=OWN), standing=Standing.NEVER, rule="the guard's parent")
    rows = (stuck, *ours, kin, row(1, 9 * MIB, standing=Standing.NEVER, rule="init"))
    state, asked = play(
        sampled(1000 * SECOND, 0.5),
        surveyed(1000 * SECOND, *rows),
        sampled(1001 * SECOND, 0.01),
        surveyed(1001 * SECOND, *rows),
    )

    assert ends(asked) == []
    assert told(asked).count("nobody") == 1
    assert isinstance(state.hunt, Settling)


def test_memory_and_swap_may_come_and_go_while_we_run():
    """Limits follow the totals: a balloon, a hot-plugged DIMM, swapoff in the middle of a day."""
    state, hunts = begin(RULES), []
    for event in (
        sampled(1000 * SECOND, 0.5, total=4 * GIB, swap=4 * GIB),
        sampled(1001 * SECOND, 0.015, total=4 * GIB, swap=4 * GIB),
        sampled(1002 * SECOND, 0.015, total=4 * GIB),
        sampled(1003 * SECOND, 0.015, total=64 * GIB),
    ):
        state, _ = step(state, event, RULES)
        hunts.append(type(state.hunt).__name__)

    # Swap helped until it was taken away; 1.5 % of 64 GiB is more than 256 MiB.
    assert hunts == ["Calm", "Calm", "Choosing", "Calm"]


def test_a_session_that_inherited_immunity_is_judged_by_what_it_did():
    """OOMScoreAdjust=-1000 of an sshd reached everything started through it (an old trap)."""
    rows = [
        row(60 + n, size, comm=name, oom_score_adj=-1000, standing=Standing.AVOID, rule="adj")
        for n, (name, size) in enumerate([("bash", MIB), ("hog", 200 * MIB), ("vim", 50 * MIB)])
    ]
    hog = replace(rows[1], anon_bytes=12 * GIB)
    events = [sampled(1000 * SECOND, 0.8), surveyed(1000 * SECOND, *rows)]
    for n in range(1, 6):
        grown = replace(hog, anon_bytes=n * 2 * GIB)
        now_ns = 1000 * SECOND + n * 400 * MS
        share = 0.8 - n * 2 / 16
        events += [sampled(now_ns, share), surveyed(now_ns, rows[0], grown, rows[2])]
    events += [sampled(1003 * SECOND, 0.01), surveyed(1003 * SECOND, rows[0], hog, rows[2])]
    _, asked = play(*events)

    assert [one.victims[0].pid for one in ends(asked)] == [hog.id.pid]
