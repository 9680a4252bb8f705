"""Suggestions: the top three, their real gain, the exact command, and what is protected."""

from forestall.core.census import Census, count
from forestall.core.model import Role, Standing
from forestall.core.units import GIB, MIB, SECOND
from forestall.inspect.suggest import advise, survey
from forestall.library.handlers import describe_advice
from tests.fakes.builders import row
from tests.fakes.proc import FakeProc

NOW = 1000 * SECOND


def pids(advice):
    return [one.pid for one in advice.suggestions]


def test_the_three_that_give_back_most_are_suggested():
    rows = [row(pid, pid * 100 * MIB) for pid in range(10, 20)]

    assert pids(advise(rows)) == [19, 18, 17]


def test_the_gain_is_what_its_end_frees_swap_included():
    one = advise([row(10, GIB, swap_bytes=2 * GIB)]).suggestions[0]

    assert one.gain_bytes == 3 * GIB
    assert "2.00 GiB of it in swap" in one.reason


def test_whom_the_guard_would_choose_comes_first():
    rows = [row(10, 4 * GIB), row(11, 1 * GIB)]
    advice = advise(rows, likely_pid=11)

    assert pids(advice) == [11, 10]
    assert "the guard would choose it" in advice.suggestions[0].reason


def test_who_grows_is_said():
    census = Census()
    for second in range(8):
        rows = [row(10, (second + 1) * 100 * MIB)]
        census = count(census, NOW + second * SECOND, tuple(rows), None, shared=False)
    one = advise(rows, census=census).suggestions[0]

    assert "grew by" in one.reason


def test_protected_processes_are_listed_with_the_rule_and_not_suggested():
    rows = [
        row(1, GIB, comm="systemd", standing=Standing.NEVER, rule="init"),
        row(10, 3 * GIB, comm="mysqld", standing=Standing.AVOID, rule="built-in avoid list"),
        row(11, 2 * GIB, comm="tmux", role=Role.SESSION),
        row(12, 1 * GIB, comm="bystander"),
    ]
    advice = advise(rows)

    assert pids(advice) == [12]
    assert [(kept.name, kept.rule) for kept in advice.protected] == [
        ("mysqld", "built-in avoid list"),
        ("tmux", "it holds a login session"),
        ("systemd", "init"),
    ]


def test_a_process_is_ended_by_number_and_a_service_by_systemctl():
    rows = [
        row(10, 3 * GIB, cgroup="/system.slice/build.service"),
        row(
            11, 2 * GIB, cgroup="/user.slice/user-1000.slice/user@1000.service/app.slice/x.service"
        ),
        row(12, 1 * GIB, cgroup="/user.slice/user-1000.slice/session-2.scope"),
    ]
    commands = [one.command for one in advise(rows).suggestions]

    assert commands == [
        "systemctl stop build.service",
        "systemctl --user stop x.service",
        "kill 12",
    ]


def test_the_command_of_a_hostile_unit_is_quoted():
    one = advise([row(10, GIB, cgroup="/system.slice/a;reboot.service")]).suggestions[0]

    assert one.command == "systemctl stop 'a;reboot.service'"


def test_names_are_made_harmless():
    lines = describe_advice(advise([row(10, GIB, comm="ev\x1b[31mil")]))

    assert "\x1b" not in "".join(lines)


def test_a_small_process_is_not_worth_a_word():
    advice = advise([row(10, MIB)])

    assert advice.suggestions == ()
    assert "no process is large enough" in describe_advice(advice)[0]


def test_a_survey_for_advice_reads_the_process_table(tmp_path):
    machine = FakeProc(tmp_path)
    machine.process(1, comm="init", parent=0)
    machine.process(10, comm="hog", anon_kib=1024 * 1024)
    found = survey(str(tmp_path))

    assert pids(advise(found.rows)) == [10]
