"""What is wrong with the adjustments on a machine, each with a machine on which nothing is."""

import json

import pytest
from click.testing import CliRunner

from forestall.admin.audit import audit, badness
from forestall.admin.protect import Protector
from forestall.admin.subjects import Machine
from forestall.cli.protect import command
from forestall.core.rules import DEFAULT_RULES
from forestall.core.units import GIB, MIB
from tests.fakes.machine import FakeMachine

TOTAL = 8 * GIB
SERVICE = "/system.slice/"
SESSION = "/user.slice/user-1000.slice/user@1000.service/app.slice/"


@pytest.fixture
def box(tmp_path):
    machine = FakeMachine(tmp_path)
    machine.process(1, "systemd", parent=0)
    machine.process(900, "bystander", uid=1000, held_mib=20)
    return machine


def kinds(box):
    return [finding.kind for finding in audit(Machine(box.root).subjects(), TOTAL)]


def found(box, kind):
    findings = audit(Machine(box.root).subjects(), TOTAL)
    return [finding for finding in findings if finding.kind == kind]


def test_an_ordinary_machine_has_nothing_wrong(box):
    box.process(50, "sshd", adj=-1000, cgroup=SERVICE + "ssh.service")
    box.process(51, "postgres", adj=-588, cgroup=SERVICE + "postgresql.service", held_mib=100)
    box.process(52, "firefox", adj=588, uid=1000, held_mib=900)

    assert kinds(box) == []


def test_everything_at_minus_1000_ends_in_a_panic(box):
    box.process(50, "supervisor", adj=-1000)
    box.process(900, "bystander", adj=-1000, uid=1000)

    (finding,) = found(box, "immune")

    assert "panics" in finding.what
    assert set(finding.pids) == {50, 900}


def test_somebody_unusual_at_minus_1000_is_named(box):
    box.process(50, "worker", adj=-1000, held_mib=10)

    (finding,) = found(box, "immune")

    assert "worker (50)" in finding.what
    assert finding.pids == (50,)


def test_a_udevd_that_leaks_at_minus_1000_is_found(box):
    """systemd#41372: it took the machine down."""
    box.process(50, "systemd-udevd", adj=-1000, held_mib=3000)

    assert [finding.pids for finding in found(box, "leaker")] == [(50,)]
    assert "immune" in kinds(box)


def test_values_meant_for_a_service_and_inherited_by_a_session_are_found(box):
    box.process(50, "agent", adj=-900, cgroup=SERVICE + "agent.service")
    box.process(51, "bash", parent=50, adj=-900, uid=1000, cgroup=SESSION + "a.scope")
    box.process(60, "systemd", adj=200, uid=1000, cgroup=SESSION + "app.service")
    box.process(61, "editor", parent=60, adj=200, uid=1000, cgroup=SESSION + "editor.scope")

    assert {finding.pids for finding in found(box, "inherited")} == {(51,), (61,)}


def test_a_services_own_helpers_share_its_fate(box):
    box.process(50, "agent", adj=-900, cgroup=SERVICE + "agent.service")
    box.process(51, "helper", parent=50, adj=-900, cgroup=SERVICE + "agent.service")

    assert found(box, "inherited") == []


def test_the_neighbour_that_would_die_for_a_protected_unit_is_named(box):
    box.process(50, "java", adj=-400, cgroup=SERVICE + "big.service", held_mib=3000)
    box.process(51, "small", uid=1000, held_mib=200)

    (finding,) = found(box, "neighbour")

    assert "small (51)" in finding.what
    assert "big.service" in finding.what


def test_plus_200_that_makes_the_small_die_for_the_large_is_found(box):
    """systemd#38492: user services die before the culprit."""
    box.process(50, "gnome-thing", adj=200, uid=1000, held_mib=60)
    box.process(51, "leak", uid=1000, held_mib=1500)

    (finding,) = found(box, "neighbour")

    assert finding.pids == (50, 51)


def test_a_leftover_of_the_old_scale_is_found(box):
    box.process(50, "sshd", adj=-17)

    (finding,) = found(box, "old-scale")

    assert "-1000" in finding.remedy


def test_badness_is_the_kernels_sum(box):
    box.process(50, "a", adj=100, held_mib=10)
    box.process(51, "b", adj=-1000, held_mib=10)
    subjects = {subject.id.pid: subject for subject in Machine(box.root).subjects()}

    assert badness(subjects[50], TOTAL) == 10 * MIB + 100 * (TOTAL // 1000)
    assert badness(subjects[51], TOTAL) is None
    assert badness(subjects[1], TOTAL) is None


# The command.


def run(box, *words):
    return CliRunner().invoke(command, [*words, "--root", str(box.root)])


def test_audit_ends_with_1_when_something_is_wrong(box):
    assert run(box, "audit").exit_code == 0
    box.process(50, "sshd", adj=-17)

    told = run(box, "audit", "--json")

    assert told.exit_code == 1
    assert [row["kind"] for row in json.loads(told.output)] == ["old-scale"]


def test_plan_changes_nothing_and_says_who_would_inherit(box):
    box.process(50, "nginx", cgroup=SERVICE + "nginx.service")
    box.process(51, "cgi", parent=50, cgroup=SERVICE + "nginx.service")

    told = run(box, "plan")

    assert "nginx (50): 0 -> -294, web servers" in told.output
    assert "new children inherit it; it has cgi now" in told.output
    assert box.adj(50) == 0
    plain = json.loads(run(box, "plan", "--json").output)
    assert plain["changes"][0]["children"] == ["cgi"]


def test_a_dry_apply_needs_no_right_and_changes_nothing(box):
    box.process(50, "chrome", uid=1000)

    told = run(box, "apply", "--dry-run")

    assert (told.exit_code, box.adj(50)) == (0, 0)


def test_an_undo_is_told_before_it_is_done_and_takes_no_right(box):
    box.process(50, "nginx", cgroup="/system.slice/nginx.service")
    ours = Protector(DEFAULT_RULES.victim_rules, root=box.root)
    ours.apply(ours.plan().changes)

    told = run(box, "undo", "--dry-run")
    as_json = json.loads(run(box, "undo", "--dry-run", "--json").output)

    assert told.exit_code == 0
    assert "nginx (50): -294 -> 0, web servers\n1 to give back" in told.output
    assert [(one["pid"], one["old"], one["new"]) for one in as_json] == [(50, 0, -294)]
    assert box.adj(50) == -294


def test_hostile_names_stay_harmless(box):
    box.process(50, "evil\x1b[31m", adj=-17)

    assert "\x1b" not in run(box, "audit").output
