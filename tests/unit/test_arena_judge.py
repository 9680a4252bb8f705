"""The judge on made-up runs, of both kinds for every rule."""

from dataclasses import replace

import pytest

from arena.digest import Beats, Death, GuardCost, RoleCount, Run
from arena.judge import bystanders, judge
from arena.scenario import Actor, Scenario

ALIVE = RoleCount(started=1, live=1, killed=0, failed=0, finished=0)
KILLED = RoleCount(started=1, live=0, killed=1, failed=0, finished=0)
FINISHED = RoleCount(started=1, live=0, killed=0, failed=0, finished=1)
BROKEN = RoleCount(started=1, live=0, killed=0, failed=1, finished=0)
BEATS = Beats(base_p50=4.0, p50=5.0, p99=9.0, on_time_share=1.0, stall=20.0)

SERVICE = Actor(role="service", cast="service", script="beat")
BROWSER = Actor(role="browser", cast="browser", script="app")
CULPRIT = Actor(role="culprit", cast="batch", script="leak", when="trouble")
LEAK = Scenario(
    name="leak",
    title="a leak",
    landscape=(SERVICE, BROWSER),
    trouble=(CULPRIT,),
    must_die=("culprit",),
    max_deaths=1,
    limit_s=30,
)
BURST = replace(LEAK, name="burst", must_die=(), max_deaths=0, must_finish=("culprit",))
EDGE = replace(LEAK, name="edge", must_die=(), may_die=("culprit",), calm_by_s=18)


def death(role="culprit", by="guard", program="node", at_s=8.0, signal=15):
    return Death(role=role, program=program, signal=signal, by=by, at_s=at_s)


DEATHS = (death(),)


def run(roles=None, deaths=DEATHS, **more):
    words = {
        "complete": True,
        "gone_s": 8.1,
        "recovered_s": 8.1,
        "kernel_kills": 0,
        "trouble_length_s": 12.1,
        "beats": BEATS,
        "deaths": tuple(deaths),
        "roles": {"service": ALIVE, "browser": ALIVE, "culprit": KILLED} | (roles or {}),
    }
    return Run(**words | more)


def test_the_culprit_dead_by_the_guard_and_everybody_else_alive_is_a_pass():
    verdict = judge(LEAK, run(), hand="guard")

    assert verdict.result == "pass"
    assert verdict.reasons == ()


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (run({"culprit": ALIVE}, (), gone_s=None), "culprit lives after 12.1 s"),
        (run({"culprit": FINISHED}, ()), "culprit ended by itself"),
        (run(gone_s=31.0, recovered_s=31.0), "gone only after 31.0 s"),
        (
            run({"browser": KILLED}, (death("browser", at_s=7.0), death())),
            "browser died by the guard at 7.0 s",
        ),
        (run({"browser": KILLED}), "browser was killed (1 of 1)"),
        (run({"browser": BROKEN}), "browser broke down"),
        (run(deaths=(death(), death("", program="dbus-daemon"))), "dbus-daemon died by the guard"),
        (run(deaths=(death(), death("", by="kernel", program="x"))), "x died by the kernel"),
        (run(kernel_kills=1), "the kernel's OOM killer acted 1 times"),
        (run(kernel_kills=None), "the kernel's own kills are not known"),
        (run(recovered_s=None), "the service did not beat evenly again"),
        (run(recovered_s=11.5), "the service was late until 11.5 s"),
        (run(cost=GuardCost(restarted=True)), "the guard itself died or was restarted"),
    ],
)
def test_each_rule_alone_fails_a_run_and_says_why(seen, reason):
    verdict = judge(LEAK, seen)

    assert verdict.result == "fail"
    assert any(said.startswith(reason) for said in verdict.reasons), verdict.reasons


@pytest.mark.parametrize(
    ("thrash_s", "recovered_s", "result"),
    [
        (4.0, 13.9, "pass"),
        (4.0, 14.1, "fail"),
        (None, 11.0, "pass"),
        (None, 11.2, "fail"),
        (0.5, 11.0, "pass"),
        (4.0, None, "fail"),
    ],
)
def test_what_a_slow_disk_took_may_come_back_until_so_long_after_the_thrash_began(
    thrash_s, recovered_s, result
):
    case = replace(LEAK, thrash_recover_s=10)
    seen = run(thrash_s=thrash_s, recovered_s=recovered_s)

    assert judge(case, seen).result == result
    assert judge(LEAK, run(thrash_s=4.0, recovered_s=13.9)).result == "fail"


def test_a_death_by_the_kernel_is_not_the_guards_hand():
    seen = run(deaths=(death(by="kernel"),), kernel_kills=0)

    assert judge(LEAK, seen, hand="guard").reasons == ("culprit died by kernel, not by the guard",)


def test_two_deaths_where_one_may_die_fail_even_if_both_are_culprits():
    two = RoleCount(started=2, live=0, killed=2, failed=0, finished=0)

    verdict = judge(LEAK, run({"culprit": two}))

    assert verdict.reasons == ("2 processes died where 1 may (culprit 2)",)


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (Run(complete=False), "the guest did not report to the end"),
        (replace(run(), complete=False), "the guest did not report to the end"),
        (run(panic="Attempted to kill init!"), "the guest's kernel panicked"),
        (run(warnings=("the landscape did not settle",)), "the landscape did not settle"),
        (run(beats=Beats()), "the watched service never beat"),
        (
            run({"browser": RoleCount(started=0, live=0, killed=0, failed=0, finished=0)}),
            "browser was never started",
        ),
        (replace(run(), roles={}), "service was never started"),
    ],
)
def test_what_proves_nothing_is_lost_and_never_passed(seen, reason):
    verdict = judge(LEAK, seen)

    assert verdict.result == "lost"
    assert verdict.reasons[0].startswith(reason)


def test_a_kernel_that_found_nobody_left_to_kill_is_a_failure_of_the_guard():
    seen = Run(complete=False, panic="System is deadlocked on memory")

    assert judge(LEAK, seen).result == "fail"


def test_a_harmless_burst_passes_when_it_finishes_and_fails_when_it_is_killed():
    finished = run({"culprit": FINISHED}, (), gone_s=14.0, recovered_s=14.0)
    killed = run()

    assert judge(BURST, finished).result == "pass"
    assert judge(BURST, killed).result == "fail"
    assert "culprit did not finish its work" in judge(BURST, killed).reasons


def test_a_machine_on_the_edge_passes_alive_or_dead_but_not_late_to_the_end():
    alive = run({"culprit": ALIVE}, (), gone_s=None, recovered_s=4.0)
    late = replace(alive, recovered_s=None)
    slow = replace(alive, recovered_s=19.0)

    assert judge(EDGE, alive).result == "pass"
    assert judge(EDGE, run()).result == "pass"
    assert judge(EDGE, late).reasons == ("the service was late to the end",)
    assert judge(EDGE, slow).result == "fail"


def test_the_kernel_may_kill_inside_a_limited_group_only_where_the_scenario_says_so():
    inside = run(deaths=(death(by="memcg", signal=9),), kernel_kills=1)
    more = replace(inside, kernel_kills=2)
    limited = replace(LEAK, name="limited", memcg_kills=True)

    assert judge(limited, inside).result == "pass"
    assert judge(limited, more).result == "fail"
    assert judge(LEAK, inside).result == "fail"


def test_bystanders_are_named_once_each_whoever_tells():
    seen = run({"browser": KILLED}, (death("browser"), death("browser"), death("", program="cron")))

    assert list(bystanders(LEAK, seen)) == ["browser", "cron"]
