"""Staging: the same seed the same run, and nothing in a guest tells who is guilty."""

import re

import pytest

from arena.cast import CASTS, CHILDREN
from arena.errors import PlanError
from arena.guards import GUARDS
from arena.scenario import Actor, Scenario
from arena.scenarios import SCENARIOS, SMOKE, find
from arena.stage import stage
from arena.variants import VARIANTS

ALL = SCENARIOS | VARIANTS

TELLING = re.compile(
    r"hog|leak|culprit|victim|thrash|storm|bomb|evil|bad|stress|oom|forestall|arena", re.IGNORECASE
)


def actor_lines(plan):
    return [line.split("\t") for line in plan.splitlines() if line.startswith("actor\t")]


@pytest.mark.parametrize("case", ALL.values(), ids=ALL)
def test_a_seed_stages_the_same_run_for_every_guard(case):
    first = stage(case, GUARDS["none"], 7)
    again = stage(case, GUARDS["none"], 7)
    other = stage(case, GUARDS["earlyoom"], 7)

    assert first == again
    assert actor_lines(first.plan) == actor_lines(other.plan)


def test_another_seed_brings_other_names_and_sizes():
    plans = [stage(find("fast"), GUARDS["none"], seed) for seed in range(12)]

    assert len({plan.programs["culprit"] for plan in plans}) > 3
    assert len({plan.plan for plan in plans}) == 12


@pytest.mark.parametrize("case", ALL.values(), ids=ALL)
def test_nothing_that_a_guard_can_see_tells_the_guilty(case):
    for seed in range(20):
        for line in actor_lines(stage(case, GUARDS["forestall"], seed).plan):
            group, exe, arguments = line[6:9]

            assert not TELLING.search(group), group
            assert not TELLING.search(exe), exe
            assert not TELLING.search(arguments), arguments


def test_culprits_share_their_names_with_the_innocent():
    benign = {actor.cast for actor in SCENARIOS["busy"].trouble}
    guilty = {actor.cast for actor in SCENARIOS["fast"].trouble}

    assert benign == guilty


@pytest.mark.parametrize("case", ALL.values(), ids=ALL)
def test_every_plan_line_has_the_words_that_the_monitor_expects(case):
    words = {"set": 3, "map": 3, "group": 3, "actor": 10}

    for line in stage(case, GUARDS["nohang"], 3).plan.splitlines():
        kind, *rest = line.split("\t")

        assert len(rest) + 1 == words[kind], line


@pytest.mark.parametrize("case", ALL.values(), ids=ALL)
def test_every_program_an_actor_needs_is_linked(case):
    staged = stage(case, GUARDS["none"], 5)

    for line in actor_lines(staged.plan):
        exe, script = line[7], line[9]
        assert script == "-" or f"ln -f actor {exe}\n" in staged.script
        for child in re.findall(r"exe=(\S+)", script):
            assert f"ln -f actor {child}\n" in staged.script


def test_process_names_fit_the_kernels_fifteen_bytes():
    for program in (*CHILDREN, *(one for cast in CASTS.values() for one in cast)):
        assert len(program.name) <= 15, program


def test_every_scenario_has_a_watched_service_and_a_protected_sshd():
    for case in SCENARIOS.values():
        by_role = {actor.role: actor for actor in case.landscape}

        assert by_role["service"].script.startswith("beat")
        assert by_role["sshd"].oom_score_adj == -1000
        assert {"service", "sshd"} <= set(case.must_live)


def test_the_smoke_has_both_kinds():
    cases = [find(name) for name in SMOKE]

    assert any(case.benign for case in cases)
    assert any(case.must_die and case.swap for case in cases)
    assert any(case.must_die and not case.swap for case in cases)


def test_trouble_waits_for_all_who_hold_memory_before_it():
    assert "set\tsettlers\t5\n" in stage(find("fast"), GUARDS["none"], 1).plan
    assert "set\tsettlers\t11\n" in stage(find("tabs"), GUARDS["none"], 1).plan
    assert "set\tsettlers\t4\n" in stage(find("build"), GUARDS["none"], 1).plan


def test_only_the_measured_guard_runs():
    assert "systemd.mask=systemd-oomd.service" in (
        stage(find("fast"), GUARDS["earlyoom"], 1).hardware.kernel_words
    )
    assert "systemd-oomd" not in (
        stage(find("fast"), GUARDS["systemd-oomd"], 1).hardware.kernel_words
    )
    assert "systemctl start" not in (
        stage(find("fast"), GUARDS["none"], 1).script.replace("systemctl start user@1000", "")
    )


def test_scenarios_that_contradict_themselves_are_refused():
    actor = Actor(role="service", cast="service", script="beat")
    words = {"name": "x", "title": "x", "landscape": (actor,), "trouble": ()}

    with pytest.raises(PlanError, match="nobody plays 'ghost'"):
        Scenario(**words, must_die=("ghost",))
    with pytest.raises(PlanError, match="both must and may die"):
        Scenario(**words, must_die=("service",), may_die=("service",))
    with pytest.raises(PlanError, match="no scenario 'ghost'"):
        find("ghost")


def test_who_may_not_die_includes_everyone_whom_actors_start():
    assert {"tab", "browser"} <= set(find("tabs").must_live)
    assert {"tmux", "shell"} <= set(find("build").must_live)
