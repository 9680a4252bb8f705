"""Other killers: what they would do, their settings as ours, and earlyoom set up as was meant."""

import json

import pytest
from click.testing import CliRunner

from forestall.admin import other_imports
from forestall.admin.commands import Done
from forestall.admin.earlyoom_install import STATE_FILE, UNIT, EarlyoomInstaller
from forestall.admin.earlyoom_options import (
    Wanted,
    assignments,
    environment_file,
    import_earlyoom,
    parse,
    unknown_to,
)
from forestall.admin.errors import AdminError
from forestall.admin.peers import PEERS, kernel_settings, look, peer_of, read_here
from forestall.cli.peers import _tell_steps, command
from forestall.config.conditions import render_condition
from forestall.config.read import load_text
from forestall.core.model import Stage
from forestall.core.rules import DEFAULT_TRIGGERS
from forestall.core.units import GIB
from tests.fakes.systemd import FakeSystemd

SEED = r"""# earlyoom settings
EARLYOOM_ARGS="--memory 10 --swap 5 --kill-process-group \
--prefer '(^|/)Web Content|chromium|firefox' --avoid '(^|/)init|systemd|kernel|ssh'"

EARLYOOM_ARGS="$EARLYOOM_ARGS --memory-report-interval 60"
"""
HELP_1_7 = """earlyoom v1.7
  -m PERCENT[,KILL_PERCENT] set available memory minimum
  -s PERCENT[,KILL_PERCENT] set free swap minimum
  -g                        kill all processes within a process group
  -r INTERVAL               memory report interval in seconds
  --prefer REGEX            prefer to kill processes matching REGEX
  --avoid REGEX             avoid killing processes matching REGEX
  -h, --help                this help text
"""


def triggers(got):
    return {
        trigger.name: (
            trigger.stage,
            [render_condition(condition) for condition in trigger.conditions],
        )
        for trigger in got.triggers
    }


def rules(got):
    return load_text(got.to_toml()).rules


# Importing.


def test_the_seeds_settings_of_earlyoom_are_read_as_they_were_meant():
    got = import_earlyoom(SEED, "seed")

    assert triggers(got) == {
        "exhausted": (Stage.KILL, ["available < 5%", "swap_free < 2.5%"]),
        "nearly-exhausted": (Stage.TERMINATE, ["available < 10%", "swap_free < 5%"]),
    }
    patterns = [rule.pattern for rule in rules(got).victim_rules]
    assert "(^|/)Web Content|chromium|firefox" in patterns
    assert "(^|/)init|systemd|kernel|ssh" in patterns
    assert [line.partition(":")[0] for line in got.lost] == ["-g", "-r 60"]
    said = "\n".join(got.notes)
    for mistaken in ("--memory", "--swap", "--kill-process-group", "--memory-report-interval"):
        assert f"no {mistaken}" in said
    assert "is not expanded" in said


@pytest.mark.parametrize(
    ("arguments", "soft", "hard"),
    [
        ("", ["available < 10%", "swap_free < 10%"], ["available < 5%", "swap_free < 5%"]),
        ("-m 4,1", ["available < 4%", "swap_free < 10%"], ["available < 1%", "swap_free < 5%"]),
        ("-m4 -s 100", ["available < 4%"], ["available < 2%"]),
        (
            "-M 524288,262144",
            ["available < 512MiB", "swap_free < 10%"],
            ["available < 256MiB", "swap_free < 5%"],
        ),
        (
            "-m 5 -M 1048576",
            ["available < min(5%, 1GiB)", "swap_free < 10%"],
            ["available < min(2.5%, 512MiB)", "swap_free < 5%"],
        ),
    ],
)
def test_limits_of_earlyoom_keep_their_meaning(arguments, soft, hard):
    got = triggers(import_earlyoom(f'EARLYOOM_ARGS="{arguments}"', "f"))

    assert got["nearly-exhausted"][1] == soft
    assert got["exhausted"][1] == hard


def test_every_option_of_earlyoom_is_carried_or_named():
    words = (
        "-n -N /bin/after -P /bin/before -g -r 0 -p -d --syslog --sort-by-rss --kernel-oom "
        "--ignore-root-user --dryrun --ignore '^keep$' --prefer [[:alpha:]] --avoid ( --odd"
    )

    got = import_earlyoom(f'EARLYOOM_ARGS="{words}"', "f")

    named = " ".join([*got.lost, *got.notes])
    for word in ("-n", "/bin/after", "/bin/before", "-g", "-r 0", "-p", "-d", "--syslog"):
        assert word in named
    for word in ("--sort-by-rss", "--kernel-oom", "[[:alpha:]]", "--avoid '('", "--odd"):
        assert word in named
    made = load_text(got.to_toml())
    assert made.options.dry_run
    never = [
        (r.field.value, r.pattern) for r in made.rules.victim_rules if r.standing.value == "never"
    ]
    assert never == [("uid", "0"), ("name", "^keep$")]


def test_bundled_flags_and_equal_signs_are_options_too():
    options, notes = parse(["-gn", "-m5", "--prefer=x y"])

    assert [(option.flag, option.value) for option in options] == [
        ("-g", None),
        ("-n", None),
        ("-m", "5"),
        ("--prefer", "x y"),
    ]
    assert notes == []


def test_an_environment_file_is_read_as_systemd_does():
    words, notes = assignments("# EARLYOOM_ARGS=-m 1\nEARLYOOM_ARGS='-m 2'\nEARLYOOM_ARGS=-m 3\n")

    assert words == ["-m", "3"]
    assert "2 times" in notes[0]


NOHANG = """## a comment
    Key: indented lines are comments
soft_threshold_min_mem = 5 %
soft_threshold_min_swap = 300 M
hard_threshold_min_mem = 2 %
hard_threshold_min_swap = 4 %
psi_checking_enabled = True
psi_metrics = some_avg60
psi_excess_duration = 30
soft_threshold_max_psi = 40
hard_threshold_max_psi = 90
max_soft_exit_time = 10
fill_rate_mem = 6000
something_new = 1
@BADNESS_ADJ_RE_NAME   200  ///  ^(Web Content)$
@BADNESS_ADJ_RE_REALPATH -200  ///  ^/usr/lib/gdm3/
@BADNESS_ADJ_RE_CWD -5 /// /home
@SOFT_ACTION_RE_NAME ^foo$ /// kill -USR1 $PID
"""


def test_nohangs_settings_as_ours():
    got = other_imports.import_nohang(NOHANG, "f")

    assert triggers(got) == {
        "exhausted": (Stage.KILL, ["available < 2%", "swap_free < 4%"]),
        "nearly-exhausted": (Stage.TERMINATE, ["available < 5%", "swap_free < 300MiB"]),
        "nohang-stall-soft": (Stage.TERMINATE, ["available < 5%", "stall_some[30s] > 40%"]),
        "nohang-stall-hard": (Stage.KILL, ["available < 2%", "stall_some[30s] > 90%"]),
    }
    assert rules(got).grace_ns == 10_000_000_000
    assert got.lists["avoid_more"] == ['{ exe = "^/usr/lib/gdm3/" }']
    lost = "\n".join(got.lost)
    for name in ("fill_rate_mem", "something_new", "RE_CWD", "SOFT_ACTION"):
        assert name in lost


def test_systemd_oomds_settings_as_ours():
    text = (
        "[OOM]\n#SwapUsedLimit=90%\nSwapUsedLimit=80%\n"
        "DefaultMemoryPressureDurationSec=20s\nNew=1\n"
    )

    got = other_imports.import_systemd_oomd(text, "f", {"db.service": "omit"})

    assert triggers(got) == {
        "oomd-swap": (Stage.KILL, ["available < 20%", "swap_free < 20%"]),
        "oomd-pressure": (Stage.KILL, ["stall_full[10s] > 60%"]),
    }
    assert got.triggers[1].hold_ns == 20_000_000_000
    assert got.lists == {"never_more": ['{ unit = "^db\\\\.service$" }']}
    assert any(line.startswith("New=1") for line in got.lost)
    rules(got)


OOMD = """// desktop
{"rulesets": [
  {"name": "overview", "detectors": [["x", {"name": "dump_cgroup_overview"}]],
   "actions": [{"name": "continue"}]},
  {"name": "Swap is low", "detectors":
     [["free swap", {"name": "swap_free", "args": {"threshold_pct": "10"}}]],
   "actions": [{"name": "kill_by_swap_usage"}]},
  {"name": "pressure", "detectors": [["p", {"name": "pressure_above",
     "args": {"cgroup": "user.slice", "resource": "memory", "threshold": "60", "duration": "30"}},
     {"name": "memory_reclaim", "args": {}}]],
   "actions": [{"name": "kill_by_memory_size_or_growth"}]}
]}
"""


def test_oomds_rulesets_as_ours():
    got = other_imports.import_oomd(OOMD, "f")

    assert triggers(got) == {
        "oomd-swap-is-low": (Stage.KILL, ["available < 10%", "swap_free < 10%"]),
        "oomd-pressure": (Stage.KILL, ["stall_full[10s] > 60%"]),
    }
    lost = "\n".join(got.lost)
    for name in ("overview", "user.slice", "memory_reclaim"):
        assert name in lost
    rules(got)


def test_swap_alone_never_ends_anybody_on_a_machine_without_swap():
    """Here no swap counts as none left; such a trigger would hold for ever."""
    for trigger in other_imports.import_oomd(OOMD, "f").triggers:
        text = [render_condition(condition) for condition in trigger.conditions]

        assert not all(one.startswith("swap_free") for one in text)


@pytest.mark.parametrize(
    "text", ["", "{", "\x00", "=", "@", 'EARLYOOM_ARGS="-m \'x"', '{"rulesets": [1]}']
)
def test_what_makes_no_sense_is_named_and_breaks_nothing(text):
    for peer in PEERS:
        load_text(peer.read(text, "f\n[guard]").to_toml())


def test_a_source_with_a_line_feed_stays_a_comment():
    got = import_earlyoom("EARLYOOM_ARGS=--x\x1b[31m", "a\nb")

    assert got.to_toml().startswith("# From earlyoom: a?b\n")
    assert "\x1b" not in got.to_toml()


def test_what_cannot_be_read_at_all_is_no_success_and_writes_nothing(tmp_path):
    wrong = tmp_path / "oomd.json"
    wrong.write_text("root:x:0:0")
    root = tmp_path / "root"
    words = ["import", "oomd", str(wrong), "--root", str(root), "--write", "--json"]
    told = CliRunner().invoke(command, words)

    assert told.exit_code == 1
    assert json.loads(told.output)["lost"] == [
        "the file cannot be read: Expecting value: line 1 column 1 (char 0)"
    ]
    assert not root.exists()


def test_steps_are_one_document_for_scripts_and_lines_for_people(box, capsys):
    one = installer(box)
    one.install(lambda _: None)
    steps = [step.text for step in one.plan_removal()]

    _tell_steps(steps, dry_run=True, as_json=True)
    assert json.loads(capsys.readouterr().out) == {"steps": steps, "done": False}
    _tell_steps(steps, dry_run=False, as_json=True)
    assert capsys.readouterr().out == ""  # told when it is done
    _tell_steps(steps, dry_run=True, as_json=False)
    assert capsys.readouterr().out.splitlines() == [f"would {step}" for step in steps]


def test_a_machine_without_proc_is_said_and_is_no_mistake_of_ours(tmp_path):
    told = CliRunner().invoke(command, ["--root", str(tmp_path)])

    assert told.exit_code == 1
    assert "proc/meminfo: No such file or directory" in told.output


# Looking.


@pytest.fixture
def box(tmp_path):
    system = FakeSystemd(tmp_path)
    system.unit("bystander.service")
    file = tmp_path / "etc/default/earlyoom"
    file.parent.mkdir(parents=True)
    file.write_text('EARLYOOM_ARGS="-r 3600"\n')
    system.programs["earlyoom"] = lambda *words: Done(
        status=13 if "--memory" in words else 0, out=HELP_1_7
    )
    return system


def seen(box):
    found = look(box, box.root, DEFAULT_TRIGGERS, 8 * GIB, which=lambda _: None)
    return {one.name: one for one in found}


def test_what_is_here_what_it_does_and_where_it_fights(box):
    box.unit("earlyoom.service")
    box.enabled.add("earlyoom.service")

    found = seen(box)

    assert set(found) == {"earlyoom", "nohang", "systemd-oomd", "oomd", "low-memory-monitor"}
    assert found["earlyoom"].active == ("earlyoom.service",)
    assert found["earlyoom"].enabled == ("earlyoom.service",)
    assert "SIGTERM to the process with the highest oom_score" in found["earlyoom"].does[1]
    assert "acts first: at 819 MiB" in found["earlyoom"].fights[0]
    assert not found["nohang"].here


def test_a_peer_that_acts_later_ends_a_second_victim(box):
    box.unit("earlyoom.service")
    (box.root / "etc/default/earlyoom").write_text('EARLYOOM_ARGS="-m 1"\n')

    assert "second victim" in seen(box)["earlyoom"].fights[0]


def test_the_kernels_own_settings_are_judged(tmp_path):
    path = tmp_path / "proc/sys/vm/panic_on_oom"
    path.parent.mkdir(parents=True)
    path.write_text("1\n")

    rows = {row.path: row for row in kernel_settings(tmp_path)}

    assert "stops" in rows["/proc/sys/vm/panic_on_oom"].fights
    assert rows["/sys/kernel/mm/lru_gen/min_ttl_ms"].value is None
    assert rows["/sys/kernel/mm/lru_gen/min_ttl_ms"].fights == ""


def test_settings_here_include_what_is_dropped_in(box):
    for name, text in (
        ("oomd.conf", "[OOM]\n"),
        ("oomd.conf.d/10-x.conf", "[OOM]\nSwapUsedLimit=70%\n"),
    ):
        path = box.root / "etc/systemd" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    got = read_here(peer_of("systemd-oomd"), box, box.root)

    assert triggers(got)["oomd-swap"][1] == ["available < 30%", "swap_free < 30%"]


# earlyoom, installed.


def installer(box, *, here=True, **options):
    found = {"earlyoom"} if here else set()

    def which(name):
        return name if name in found | {"apt-get"} else None

    box.programs["apt-get"] = lambda *words: found.add("earlyoom") or Done(status=0)
    return EarlyoomInstaller(box, box.root, which=which, **options)


def settings(box):
    return (box.root / "etc/default/earlyoom").read_text()


def test_the_seeds_installer_with_options_that_exist(box):
    box.unit("earlyoom.service")
    said = []

    status = installer(box).install(said.append)

    lines = [line for line in settings(box).splitlines() if not line.startswith("#")]
    assert lines == [
        "EARLYOOM_ARGS=\"-m 10 -s 5 -g -r 60 --prefer '(^|/)(Web Content|chromium|firefox)$' "
        "--avoid '(^|/)(init|systemd|sshd)$'\""
    ]
    assert assignments(settings(box))[0] == Wanted().words()
    assert "earlyoom.service" in box.enabled
    assert ("systemctl", "restart", "earlyoom.service") in box.told
    assert "active" in status


def test_the_package_comes_from_the_distribution(box):
    installer(box, here=False).install(lambda _: None)

    programs = [words[:2] for words in box.told if words[0] == "apt-get"]
    assert programs == [("apt-get", "update"), ("apt-get", "install")]


def test_without_a_package_manager_that_is_said(box):
    one = EarlyoomInstaller(box, box.root, which=lambda _: None)

    with pytest.raises(AdminError, match="apt-get, dnf"):
        one.plan()


def test_a_plan_changes_nothing(box):
    before = settings(box)

    steps = [step.text for step in installer(box, here=False).plan()]

    assert "apt-get install -y --no-install-recommends earlyoom" in steps
    assert settings(box) == before
    assert not (box.root / STATE_FILE).exists()
    assert not any(words[0] == "apt-get" for words in box.told)


def test_options_are_checked_against_the_installed_version(box):
    box.programs["earlyoom"] = lambda *words: Done(status=0, out=HELP_1_7.replace("--avoid", "--x"))

    with pytest.raises(AdminError, match="--avoid"):
        installer(box).plan()
    assert unknown_to(HELP_1_7, ["--memory", "10"]) == ["--memory"]
    assert unknown_to(HELP_1_7, ["--ignore", "x"]) == ["--ignore"]
    assert unknown_to(HELP_1_7, Wanted().words()) == []


def test_what_earlyoom_itself_refuses_is_not_written(box):
    box.programs["earlyoom"] = lambda *words: (
        Done(status=0, out=HELP_1_7) if words == ("--help",) else Done(status=13, err="fatal: -m\n")
    )
    before = settings(box)

    with pytest.raises(AdminError, match="fatal: -m"):
        installer(box).plan()
    assert settings(box) == before


@pytest.mark.parametrize("rival", ["nohang.service", "systemd-oomd.service", "forestall.service"])
def test_two_killers_are_never_left_active_unasked(box, rival):
    box.unit(rival)
    box.enabled.add(rival)

    with pytest.raises(AdminError, match=rival):
        installer(box).plan()
    installer(box, replace=True).install(lambda _: None)
    assert rival not in box.enabled
    assert box.units[rival]["ActiveState"] == "inactive"
    assert box.units["bystander.service"]["ActiveState"] == "active"

    installer(box).remove(lambda _: None)
    assert rival in box.enabled
    assert "earlyoom.service" not in box.enabled


def test_beside_leaves_the_other_running(box):
    box.unit("forestall.service")

    installer(box, beside=True).install(lambda _: None)

    assert box.units["forestall.service"]["ActiveState"] == "active"


def test_remove_brings_back_what_was_here(box):
    before = settings(box)
    installer(box).install(lambda _: None)
    installer(box, wanted=Wanted(memory_percent=20)).install(lambda _: None)
    kept = json.loads((box.root / STATE_FILE).read_text())

    installer(box).remove(lambda _: None)

    assert settings(box) == before == kept["text"]
    assert not (box.root / STATE_FILE).exists()
    with pytest.raises(AdminError, match="not set up by forestall"):
        installer(box).remove(lambda _: None)


@pytest.mark.parametrize(
    ("active", "enabled", "then"),
    [
        (False, True, [("stop", UNIT)]),
        (False, False, [("stop", UNIT), ("disable", UNIT)]),
        (True, True, [("restart", UNIT)]),
        (True, False, [("disable", UNIT), ("restart", UNIT)]),
    ],
)
def test_remove_leaves_it_active_and_enabled_as_it_was(box, active, enabled, then):
    one = installer(box)
    one.install(lambda _: None)
    kept = json.loads((box.root / STATE_FILE).read_text())
    assert kept["package"] is False
    (box.root / STATE_FILE).write_text(json.dumps(kept | {"active": active, "enabled": enabled}))
    box.told.clear()

    one.remove(lambda _: None)

    told = [words[1:] for words in box.told if words[0] == "systemctl" and words[1] != "show"]
    assert told == then


def test_a_removal_is_told_before_it_is_done(box):
    one = installer(box)
    one.install(lambda _: None)
    before = settings(box)
    planned = [step.text for step in one.plan_removal()]
    said = []

    assert settings(box) == before
    assert (box.root / STATE_FILE).exists()
    one.remove(said.append)
    assert said == planned


def test_words_that_cannot_be_quoted_are_refused():
    with pytest.raises(ValueError, match="quotes"):
        environment_file(["--prefer", "it's"])
