"""The second seed's protection, row by row, and what it would have got wrong."""

import errno
import json
import os
import stat
from pathlib import Path

import click
import pytest

from forestall.admin.adjust import GONE, write_adjust
from forestall.admin.claims import understand
from forestall.admin.errors import AdminError, NotPermitted
from forestall.admin.ledger import STATE_FILE
from forestall.admin.protect import Protector, require_rights
from forestall.admin.subjects import Machine
from forestall.cli.protect import _report, command
from forestall.config.read import load
from forestall.core.model import ProcessId, Standing
from forestall.core.rules import DEFAULT_RULES
from forestall.core.standing import Facts, Matcher
from forestall.core.wards import WARDS, of_oom_adj
from tests.fakes.machine import FakeMachine

USERS = {0: "root", 33: "www-data", 101: "mysql", 102: "postgres", 103: "mongodb", 1000: "alex"}
SYSTEM = "/system.slice/"

# Program, what the seed wrote (oom_adj), what that means today, unit, user.
PROTECTED = [
    ("sshd", -17, -1000, "ssh.service", 0),
    ("mysqld", -10, -588, "mysql.service", 101),
    ("postgres", -10, -588, "postgresql@15-main.service", 102),
    ("mongod", -10, -588, "mongod.service", 103),
    ("nginx", -5, -294, "nginx.service", 33),
    ("apache2", -5, -294, "apache2.service", 33),
    ("httpd", -5, -294, "httpd.service", 33),
]
EXPOSED = [
    ("chrome", 10, 588),
    ("firefox", 10, 588),
    ("code", 5, 294),
    ("idea", 5, 294),
    ("pycharm", 5, 294),
]


@pytest.fixture
def box(tmp_path):
    machine = FakeMachine(tmp_path)
    machine.process(1, "systemd", parent=0)
    machine.process(900, "bystander", uid=1000, adj=7)
    return machine


def trusting(box):
    """Whoever runs the tests stands for root; the folders of a test lie in one that is shared."""
    machine = Machine(box.root, owners=frozenset({os.getuid()}))
    machine.runs_roots_program = lambda subject: _owned(subject.exe)
    return machine


def _owned(exe):
    found = Path(exe).stat()
    return found.st_uid == os.getuid() and not found.st_mode & 0o022


def protector(box, rules=None, **options):
    return Protector(
        load(root=box.root).rules.victim_rules if rules is None else rules,
        root=box.root,
        user_name=USERS.get,
        machine=trusting(box),
        **options,
    )


def cmdline_of(name):
    return f"/usr/sbin/{name} -D" if name == "sshd" else name


@pytest.mark.parametrize(("name", "old", "meant", "unit", "uid"), PROTECTED)
def test_every_protected_row_of_the_seed_by_its_unit(box, name, old, meant, unit, uid):
    box.process(50, name, uid=uid, cgroup=SYSTEM + unit, cmdline=cmdline_of(name))

    one = protector(box)
    one.apply(one.plan().changes)

    assert box.adj(50) == meant == of_oom_adj(old)
    assert box.adj(900) == 7
    one.undo()
    assert box.adj(50) == 0


@pytest.mark.parametrize(("name", "old", "meant", "unit", "uid"), PROTECTED)
def test_every_protected_row_without_units_by_program_and_user(box, name, old, meant, unit, uid):
    box.process(50, name, uid=uid, cmdline=cmdline_of(name))

    (change,) = protector(box).plan().changes

    assert (change.old, change.new) == (0, meant)


@pytest.mark.parametrize(("name", "old", "meant"), EXPOSED)
def test_every_exposed_row_of_the_seed(box, name, old, meant):
    box.process(50, name, uid=1000)

    one = protector(box)
    one.apply(one.plan().changes)

    assert box.adj(50) == meant == of_oom_adj(old)
    assert box.adj(900) == 7


def test_an_ide_that_is_called_java_is_known_by_its_command_line(box):
    box.process(50, "java", uid=1000, cmdline="/opt/idea/jbr/bin/java com.intellij.idea.Main")
    box.process(51, "java", uid=1000, cmdline="/usr/bin/java -jar server.jar")

    (change,) = protector(box).plan().changes

    assert (change.id.pid, change.new) == (50, 294)


@pytest.mark.parametrize(
    ("old", "new"), [(-17, -1000), (-16, -941), (-1, -58), (14, 823), (15, 1000)]
)
def test_the_old_scale_is_converted_as_the_kernel_does(old, new):
    assert of_oom_adj(old) == new


def test_the_running_kernel_converts_in_the_same_way():
    """Upwards only: lowering takes a right that tests need not have."""
    if not Path("/proc/self/oom_adj").exists():
        pytest.skip("this kernel has no oom_adj")
    child = os.fork()
    if child == 0:
        Path("/proc/self/oom_adj").write_text("10")
        os._exit(0 if int(Path("/proc/self/oom_score_adj").read_text()) == of_oom_adj(10) else 1)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0


def test_minus_17_is_recognised_and_explained():
    meant, why = understand(-17)

    assert meant == -1000
    assert "old oom_adj" in why
    assert "1.7 %" in why
    assert understand(-17, exact=True) == (-17, "")
    assert understand(-500) == (-500, "")
    assert understand(0) == (0, "")


def test_anybody_may_call_himself_sshd_and_gets_nothing(box):
    liar = "/user.slice/user-1000.slice/user@1000.service/app.slice/ssh.service"
    box.process(50, "sshd", uid=1000, cgroup=liar, cmdline="/usr/sbin/sshd -D")
    box.process(51, "postgres", uid=102, exe=box.program("python3", "usr/bin"))
    box.process(52, "nginx", uid=33, exe=box.program("nginx", "home/alex", mode=0o777))
    box.process(53, "mysqld", uid=101, cgroup=SYSTEM + "backup.service")

    plan = protector(box).plan()

    assert plan.changes == ()
    why = {held.id.pid: held.why for held in plan.held}
    assert "not as root" in why[50]
    assert "another name" in why[51]
    assert "not root's alone" in why[52]
    assert "backup.service" in why[53]


def test_the_ssh_listener_is_immune_and_never_its_shells(box):
    listener = "sshd: /usr/sbin/sshd -D [listener] 0 of 10-100 startups"
    box.process(50, "sshd", cgroup=SYSTEM + "ssh.service", cmdline=listener)
    box.process(51, "sshd", parent=50, cgroup=SYSTEM + "ssh.service", cmdline="sshd: alex [priv]")
    scope = "/user.slice/user-1000.slice/session-3.scope"
    # The listener it came from has been restarted: its parent is init now.
    box.process(52, "sshd", parent=1, cgroup=scope, cmdline="sshd: alex@pts/0")
    box.process(53, "bash", parent=52, uid=1000, cgroup=scope)

    changes = protector(box).plan().changes

    assert [(change.id.pid, change.new) for change in changes] == [(50, -1000)]


def test_one_table_feeds_the_guards_classes_too():
    matcher = Matcher(DEFAULT_RULES.victim_rules)

    def standing(name):
        return matcher.standing(Facts(name))[0]

    for ward in WARDS:
        for name in ward.names:
            plain = name.replace("*", "resolved")
            assert standing(plain) is ward.standing, name
    assert standing("bystander") is Standing.NORMAL
    assert standing("systemd-resolved") is Standing.AVOID
    assert standing("mysqld_exporter") is Standing.NORMAL


@pytest.mark.parametrize("ward", WARDS, ids=lambda ward: ward.label)
def test_the_table_is_documented_as_it_is(ward):
    adjust = "" if ward.adjust is None else ward.adjust
    row = f"| {ward.label} | {', '.join(ward.names)} | {ward.standing.value} | {adjust} |"

    assert row in (Path(__file__).parents[2] / "docs/protection.md").read_text().splitlines()


def test_names_in_the_table_mean_nothing_to_a_regular_expression():
    plain = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_- *")

    assert all(set(name) <= plain for ward in WARDS for name in ward.names)


def test_settings_take_out_of_the_table_and_add_to_it(box):
    box.settings(
        '[victims]\nnormal = ["^nginx$"]\n'
        'avoid_more = [{ unit = "^payments[.]service$", oom_score_adj = -17 }]\n'
    )
    box.process(50, "nginx", cgroup=SYSTEM + "nginx.service")
    box.process(51, "java", uid=120, cgroup=SYSTEM + "payments.service")
    user_made = "/user.slice/user-1000.slice/user@1000.service/app.slice/payments.service"
    box.process(52, "java", uid=1000, cgroup=user_made)

    plan = protector(box).plan(heirs=True)

    assert [(change.id.pid, change.new) for change in plan.changes] == [(51, -1000)]
    assert "old oom_adj" in plan.changes[0].explained
    assert [held.id.pid for held in plan.held] == [52]


def test_a_protection_never_weakens_and_an_exposure_never_shelters(box):
    box.process(50, "postgres", adj=-900, uid=102, cgroup=SYSTEM + "postgresql@15-main.service")
    box.process(51, "chrome", adj=700, uid=1000)

    plan = protector(box).plan()

    assert plan.changes == ()
    assert plan.already == 2


def test_what_starts_other_peoples_programs_waits_for_follow(box):
    scope = "/user.slice/user-1000.slice/session-2.scope"
    box.process(50, "sway", uid=1000, cgroup=scope)
    box.process(51, "foot", parent=50, uid=1000, cgroup=scope)

    careful, bold = protector(box).plan(), protector(box).plan(heirs=True)

    assert [held.name for held in careful.held] == ["sway"]
    assert "inherit" in careful.held[0].why
    assert bold.changes[0].children == ("foot",)


def test_only_takes_a_half_a_set_or_a_program(box):
    box.process(50, "nginx", cgroup=SYSTEM + "nginx.service")
    box.process(51, "chrome", uid=1000)
    box.process(52, "code", uid=1000)
    one = protector(box)

    def names(*only):
        return {change.name for change in one.plan(only=only).changes}

    assert names("protect") == {"nginx"}
    assert names("expose") == {"chrome", "code"}
    assert names("browsers") == {"chrome"}
    assert names("code", "nginx") == {"code", "nginx"}


def test_undo_restores_exactly_what_was_there_and_nothing_else(box):
    box.process(50, "chrome", uid=1000, adj=300)
    box.process(51, "code", uid=1000, adj=0)
    box.process(52, "firefox", uid=1000, adj=100)
    one = protector(box)
    one.apply(one.plan().changes)
    box.set_adj(51, 999)
    box.end(52)
    box.process(52, "recycled", uid=1000, adj=588, start=77777)

    outcomes = {outcome.id.pid: outcome for outcome in protector(box).undo()}

    assert box.adj(50) == 300
    assert (box.adj(51), outcomes[51].failed) == (999, "somebody has set it to 999 since")
    assert (box.adj(52), outcomes[52].gone) == (588, True)
    assert box.adj(900) == 7
    assert not (box.root / STATE_FILE).exists()


def test_what_was_done_is_told_a_line_each_and_as_json(box, capsys):
    box.process(50, "nginx", cgroup=SYSTEM + "nginx.service")
    box.process(51, "postgres", cgroup=SYSTEM + "postgresql.service")
    ours = protector(box)
    outcomes = ours.apply(ours.plan().changes)

    assert {one.describe() for one in outcomes} == {
        "nginx (50): 0 -> -294, web servers",
        "postgres (51): 0 -> -588, databases",
    }
    with click.Context(command) as context, pytest.raises(click.exceptions.Exit) as done:
        _report(context, outcomes, as_json=True)
    assert done.value.exit_code == 0
    told = {one["pid"]: one for one in json.loads(capsys.readouterr().out)}
    assert (told[50]["old"], told[50]["new"], told[50]["failed"]) == (0, -294, "")


def test_a_second_apply_keeps_what_was_there_at_first(box):
    box.process(50, "chrome", uid=1000, adj=300)
    one = protector(box)
    one.apply(one.plan().changes)
    box.set_adj(50, 400)

    two = protector(box)
    two.apply(two.plan().changes)
    two.undo()

    assert box.adj(50) == 300


def test_the_ledger_is_written_first_and_for_root_alone(box):
    box.process(50, "chrome", uid=1000)
    seen = []

    def write(root, process, new, *, expect=None):
        seen.append(json.loads((box.root / STATE_FILE).read_text())["entries"][0]["old"])
        return write_adjust(root, process, new, expect=expect)

    one = protector(box, write=write)
    one.apply(one.plan().changes)

    assert seen == [0]
    assert stat.S_IMODE((box.root / STATE_FILE).stat().st_mode) == 0o600


def test_entries_of_another_boot_are_void(box):
    box.process(50, "chrome", uid=1000)
    one = protector(box)
    one.apply(one.plan().changes)
    (box.root / "proc/sys/kernel/random/boot_id").write_text("second-boot\n")

    assert protector(box).undo() == []
    assert box.adj(50) == 588


def test_a_damaged_ledger_is_said_and_never_written_over(box):
    box.process(50, "chrome", uid=1000)
    path = box.root / STATE_FILE
    path.parent.mkdir(parents=True)
    path.write_text('{"boot_id": "first-boot", "entries": [{"id": [1')
    one = protector(box)
    plan = one.plan()

    counting, applying = (lambda: one.count), (lambda: one.apply(plan.changes))
    for attempt in (counting, applying, counting, one.undo, one.tick):
        with pytest.raises(AdminError, match="damaged"):
            attempt()
    assert box.adj(50) == 0
    assert path.read_text().endswith("[1")


def test_what_was_refused_is_not_remembered_as_changed(box):
    box.process(50, "chrome", uid=1000)
    one = protector(box, write=lambda *_, **__: "refused: no right")

    (outcome,) = one.apply(one.plan().changes)

    assert outcome.failed == "refused: no right"
    assert box.adj(50) == 0
    assert not (box.root / STATE_FILE).exists()


def test_children_that_inherited_are_given_back_too(box):
    box.process(50, "nginx", cgroup=SYSTEM + "nginx.service")
    one = protector(box)
    one.apply(one.plan().changes)
    box.process(60, "nginx", parent=50, adj=-294, cgroup=SYSTEM + "nginx.service")
    box.process(61, "php", parent=60, adj=-294, cgroup=SYSTEM + "nginx.service")
    box.process(62, "own", parent=50, adj=-100, cgroup=SYSTEM + "nginx.service")

    protector(box).undo()

    assert [box.adj(pid) for pid in (50, 60, 61, 62, 900)] == [0, 0, 0, -100, 7]


# Follow.


def test_follow_treats_new_processes_and_leaves_the_others(box):
    one = protector(box)
    one.tick()
    box.process(50, "chrome", uid=1000)

    outcomes = one.tick()

    assert [outcome.id.pid for outcome in outcomes] == [50]
    assert (box.adj(50), box.adj(900)) == (588, 7)
    assert one.tick() == []


def test_immunity_is_not_inherited_in_silence(box):
    scope = "/user.slice/user-1000.slice/session-2.scope"
    box.process(50, "sway", uid=1000, cgroup=scope)
    one = protector(box)
    one.tick()
    box.process(51, "foot", parent=50, adj=-294, uid=1000, cgroup=scope)
    box.process(52, "leaker", parent=51, adj=-294, uid=1000, cgroup=scope)

    outcomes = one.tick()

    assert [box.adj(pid) for pid in (50, 51, 52)] == [-294, 0, 0]
    assert all("inherited from sway" in outcome.label for outcome in outcomes)


def test_who_was_seen_before_it_became_itself_is_looked_at_again(box):
    box.process(50, "nginx", cgroup=SYSTEM + "nginx.service")
    one = protector(box)
    one.tick()
    box.process(51, "nginx", parent=50, adj=-294, cgroup=SYSTEM + "nginx.service")
    one.tick()
    box.process(51, "script", parent=50, adj=-294, cgroup=SYSTEM + "nginx.service")

    one.tick()

    assert box.adj(51) == 0
    assert box.adj(50) == -294


def test_what_follow_did_undo_takes_back(box):
    one = protector(box)
    one.tick()
    box.process(50, "nginx", cgroup=SYSTEM + "nginx.service")
    one.tick()
    box.process(51, "nginx", parent=50, adj=-294, cgroup=SYSTEM + "nginx.service")
    one.tick()

    protector(box).undo()

    assert (box.adj(50), box.adj(51)) == (0, 0)


# Writing.


def test_a_recycled_number_is_not_written_to(box):
    box.process(50, "bystander2", start=5)

    assert write_adjust(str(box.root), ProcessId(50, 4), 500) == GONE
    assert box.adj(50) == 0


def test_a_refusal_of_the_kernel_names_the_right_that_is_missing(box):
    process = box.process(50, "nginx")

    def refuse(_fd, _raw):
        raise PermissionError(errno.EACCES, "no")

    assert "CAP_SYS_RESOURCE" in write_adjust(str(box.root), process, -500, write=refuse)


def test_the_real_kernel_refuses_to_lower_and_it_is_not_hidden(tmp_path):
    """A buffered file would have said nothing."""
    child = os.fork()
    if child == 0:
        # Raise, then drop what would allow going back: a user namespace has no right outside.
        Path("/proc/self/oom_score_adj").write_text("500")
        if os.getuid() == 0:
            os.setresuid(65534, 65534, 65534)
        mine = Machine().stat(os.getpid())
        os._exit(0 if mine and "refused" in write_adjust("/", mine.id, -100) else 1)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0


def test_a_value_that_the_kernel_did_not_take_is_said(box):
    process = box.process(50, "nginx")

    assert write_adjust(
        str(box.root), process, -500, write=lambda fd, raw: os.write(fd, b"3\n")
    ) == ("the kernel has 3 instead")


def test_without_root_the_missing_right_is_named(box):
    with pytest.raises(NotPermitted, match="root"):
        require_rights(box.root, effective_uid=lambda: 1000)


def test_without_the_capability_it_is_said_before_anything_is_refused(box):
    status = box.root / "proc/self/status"
    status.parent.mkdir()
    status.write_text("Name:\tx\nUid:\t0\t0\t0\t0\nThreads:\t1\nCapEff:\t00000000feffffff\n")

    assert "CAP_SYS_RESOURCE" in require_rights(box.root, effective_uid=lambda: 0)[0]


def test_the_program_must_be_the_one_that_runs_and_roots_alone(box):
    machine = Machine(box.root, owners=frozenset({os.getuid()}))
    program = box.program("nginx")
    box.process(50, "nginx", exe=program)
    subject = machine.subject(50)
    program.rename(program.with_name("old"))
    box.program("nginx")

    (box.root / "proc/50/exe").unlink()
    (box.root / "proc/50/exe").symlink_to(program.with_name("old"))

    assert not machine.runs_roots_program(subject)
