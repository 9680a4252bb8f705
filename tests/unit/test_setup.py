"""The seeds' menus: every entry as flags, and nothing asked where nobody can answer."""

from dataclasses import replace

import pytest
from click.testing import CliRunner

from forestall.admin import follow_unit
from forestall.admin.commands import Done
from forestall.admin.earlyoom_install import EarlyoomInstaller
from forestall.admin.errors import AdminError
from forestall.admin.protect import Protector
from forestall.admin.setup import EARLYOOM, NONE, Choices, Setup
from forestall.cli import exits
from forestall.cli.setup import command
from forestall.config.read import load
from tests.fakes.machine import FakeMachine
from tests.fakes.systemd import FakeSystemd

QUIET = Choices(guard=NONE, take_over=False, protect=False, expose=False, follow=False, units=False)


class Box:
    """A machine with systemd, and a guard whose installation is only noted."""

    def __init__(self, root):
        self.root = root
        self.machine = FakeMachine(root)
        self.system = FakeSystemd(root)
        self.system.programs["earlyoom"] = lambda *_: Done(
            status=0, out="  -m X\n  -s X\n  -g\n  -r X\n  --prefer X\n  --avoid X\n  -h\n"
        )
        self.installed = []
        self.said = []
        self.machine.process(1, "systemd", parent=0)
        self.machine.process(50, "nginx", cgroup="/system.slice/nginx.service")
        self.machine.process(51, "chrome", uid=1000)
        self.machine.process(900, "bystander", uid=1000, adj=7)
        self.system.unit("nginx.service")
        self.system.unit("bystander.service")

    def run(self, *words, **options):
        if words[:2] == ("systemctl", "list-units"):
            units = sorted(unit for unit in self.system.units if unit.startswith("nginx"))
            return Done(status=0, out="".join(f"{unit} loaded active running\n" for unit in units))
        return self.system(*words, **options)

    def setup(self, *, systemd=True):
        return Setup(
            self.run,
            self.root,
            protector=lambda: Protector(load(root=self.root).rules.victim_rules, root=self.root),
            install_guard=lambda: lambda: self.installed.append("guard"),
            earlyoom=lambda: EarlyoomInstaller(
                self.run, self.root, replace=True, which=lambda name: name
            ),
            install_follow=lambda: follow_unit.install(
                self.root, self.run, launcher=lambda: "/bin/forestall"
            ),
            systemd=systemd,
            say=self.said.append,
        )

    def do(self, choices, **options):
        plan = self.setup(**options).plan(choices)
        for step in plan.steps:
            step.perform()
        return plan


@pytest.fixture
def box(tmp_path):
    return Box(tmp_path)


def at(box, path):
    return box.root / path


def earlyoom_runs(box, line):
    box.system.unit("earlyoom.service")
    at(box, "etc/default").mkdir(parents=True)
    at(box, "etc/default/earlyoom").write_text(line)


def with_(**changes):
    return replace(QUIET, **changes)


def test_first_menu_1_earlyoom(box):
    box.do(with_(guard=EARLYOOM))

    assert "-m 10 -s 5" in at(box, "etc/default/earlyoom").read_text()
    assert "earlyoom.service" in box.system.enabled
    assert box.installed == []


def test_first_menu_2_the_guard(box):
    box.do(with_(guard="forestall"))

    assert box.installed == ["guard"]
    assert not at(box, "etc/default/earlyoom").exists()


def test_first_menu_3_all_leaves_one_and_takes_over_from_the_other(box):
    earlyoom_runs(box, "EARLYOOM_ARGS=\"-m 7 --avoid '^keep$' -n\"\n")

    plan = box.do(with_(guard="forestall", take_over=True))

    taken = load(root=box.root).rules
    assert any(rule.pattern == "^keep$" for rule in taken.victim_rules)
    assert box.installed == ["guard"]
    assert any("-n" in note for note in plan.notes)
    assert "earlyoom.service is turned off, until forestall is uninstalled" in plan.notes


def test_defaults_of_another_killer_are_not_worth_taking_over(box):
    earlyoom_runs(box, 'EARLYOOM_ARGS="-r 3600"\n')

    plan = box.do(with_(guard="forestall", take_over=True))

    assert not at(box, "etc/forestall").exists()
    assert "earlyoom has its defaults: forestall keeps its own" in plan.notes


def test_first_menu_4_and_second_menu_5_do_nothing(box):
    assert box.do(QUIET).steps == []


def test_second_menu_1_protect(box):
    box.do(with_(protect=True))

    assert [box.machine.adj(pid) for pid in (50, 51, 900)] == [-294, 0, 7]


def test_second_menu_2_expose(box):
    box.do(with_(expose=True))

    assert [box.machine.adj(pid) for pid in (50, 51, 900)] == [0, 588, 7]


def test_second_menu_3_units(box):
    box.do(with_(units=True))

    written = [path for path in at(box, "etc").rglob("*") if path.is_file()]
    assert written == [at(box, "etc/systemd/system/nginx.service.d/50-forestall.conf")]
    assert "OOMScoreAdjust=-294\nOOMPolicy=continue" in written[0].read_text()


def test_second_menu_4_all_with_the_service_that_follows(box):
    box.do(Choices())

    assert [box.machine.adj(pid) for pid in (50, 51, 900)] == [-294, 588, 7]
    assert "ExecStart=/bin/forestall protect follow" in at(box, follow_unit.UNIT_PATH).read_text()
    assert follow_unit.NAME in box.system.enabled


def test_a_plan_changes_nothing(box):
    before = sorted(box.root.rglob("*"))

    plan = box.setup().plan(Choices())

    assert len(plan.steps) == 4
    assert sorted(box.root.rglob("*")) == before
    assert box.machine.adj(50) == 0


def test_without_systemd_what_can_be_done_is_done_and_the_rest_is_said(box):
    plan = box.do(Choices(guard=NONE), systemd=False)

    assert box.machine.adj(51) == 588
    assert any("systemd does not run here" in note for note in plan.notes)
    assert any("not followed" in note for note in plan.notes)


def test_the_command_asks_nothing_where_nobody_can_answer(tmp_path):
    FakeMachine(tmp_path)

    refused = CliRunner().invoke(command, ["--root", str(tmp_path)])
    shown = CliRunner().invoke(command, ["--root", str(tmp_path), "--dry-run", "--guard", "none"])

    assert refused.exit_code == exits.USAGE.code
    assert "--yes" in refused.output
    assert shown.exit_code == 0
    assert "0 processes to change now" in shown.output


def test_a_choice_that_is_none_says_which_there_are(tmp_path):
    FakeMachine(tmp_path)
    wrong = CliRunner().invoke(command, ["--root", str(tmp_path), "--dry-run", "--guard", "6"])

    assert wrong.exit_code == exits.USAGE.code
    assert all(name in wrong.output for name in ("forestall", "earlyoom", "none"))


# The service that follows.


def test_the_service_is_ours_to_take_away_and_nothing_else_is(box):
    path = at(box, follow_unit.UNIT_PATH)
    path.parent.mkdir(parents=True)
    path.write_text("[Unit]\nDescription=theirs\n")

    with pytest.raises(AdminError, match="not ours"):
        follow_unit.install(box.root, box.run, launcher=lambda: "/bin/forestall")
    assert not follow_unit.remove(box.root, box.run)
    path.unlink()
    follow_unit.install(box.root, box.run, launcher=lambda: "/bin/forestall")
    assert follow_unit.remove(box.root, box.run)

    assert not path.exists()
    assert follow_unit.NAME not in box.system.enabled


def test_without_an_installed_command_there_is_no_service(box):
    with pytest.raises(AdminError, match="forestall install"):
        follow_unit.check(box.root, launcher=lambda: None)
