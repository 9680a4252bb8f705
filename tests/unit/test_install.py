"""Installing below a folder, with a service manager that only writes down what it is told."""

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from forestall.admin.copies import packages
from forestall.admin.errors import AdminError
from forestall.admin.install import (
    HERALD_FILE,
    MANIFEST,
    SETTINGS_FILE,
    UNIT_FILE,
    Installer,
    Wish,
)
from forestall.admin.manifest import Manifest
from forestall.admin.secrets_unit import SECRETS_FILE
from forestall.admin.swap_grant import GRANT_FILE, missing_grant
from forestall.admin.unit_file import LAUNCHER, PREFIX
from forestall.cli.completion import SHELLS
from forestall.cli.documents import MAN_FOLDER, documents
from forestall.config.errors import ConfigError
from forestall.config.example import example_settings
from forestall.config.read import load_text
from forestall.core.rules import DEFAULT_RULES, Options


class FakeSystemd:
    def __init__(self, active=(), enabled=()):
        self.is_active = list(active)
        self.is_enabled = list(enabled)
        self.told = []

    def present(self):
        return True

    def active(self, units):
        return [unit for unit in units if unit in self.is_active]

    def enabled(self, units):
        return [unit for unit in units if unit in self.is_enabled]

    def do(self, *words):
        self.told.append(words)


class LocalInstaller(Installer):
    """Everything below a folder, but with the service manager of the machine."""

    def __init__(self, wish, systemd, say, **options):
        super().__init__(wish, systemd, say, **options)
        self._use_systemd = True


def everything(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())


def tiny():
    """Something to copy that is quick to copy: compiling the real thing takes two seconds."""
    return {"config": Path(__file__).parents[2] / "src/forestall/config"}


def installer(root, systemd=None, made=Installer, find=tiny, documents=None, **wishes):
    lines = []
    wish = Wish(root=root, **wishes)
    systemd = systemd or FakeSystemd()
    return made(wish, systemd, lines.append, find=find, documents=documents), lines


def at(root, path):
    return root / path.lstrip("/")


def test_what_install_writes_uninstall_takes_away(tmp_path):
    bystander = tmp_path / "usr/local/bin/bystander"
    bystander.parent.mkdir(parents=True)
    bystander.write_text("lives")
    one, _ = installer(tmp_path)

    one.install()
    written = everything(tmp_path)
    one.uninstall(purge=False)

    assert len(written) > 10
    assert everything(tmp_path) == ["usr/local/bin/bystander"]
    assert not at(tmp_path, "/etc/forestall").exists()


def test_manual_pages_and_completion_come_and_go_with_it_and_their_folders_too(tmp_path):
    bystander = at(tmp_path, "/usr/local/share/man/man1/bystander.1")
    bystander.parent.mkdir(parents=True)
    bystander.write_text("lives")
    one, lines = installer(tmp_path, documents=documents())

    one.install()
    installer(tmp_path, documents=documents())[0].install()  # an upgrade finds its own
    written = {f"/{path}" for path in everything(tmp_path)}
    one.uninstall(purge=False)

    assert set(documents()) <= written
    assert {f"{MAN_FOLDER}/forestall.1", *SHELLS.values()} <= set(documents())
    assert f"{len(documents())} manual pages and completions for shells" in lines
    assert everything(tmp_path) == ["usr/local/share/man/man1/bystander.1"]
    folders = sorted(
        str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_dir()
    )
    assert folders == [
        "usr",
        "usr/local",
        "usr/local/share",
        "usr/local/share/man",
        "usr/local/share/man/man1",
    ]


def test_a_manual_page_of_somebody_elses_is_not_overwritten(tmp_path):
    theirs = at(tmp_path, f"{MAN_FOLDER}/forestall.1")
    theirs.parent.mkdir(parents=True)
    theirs.write_text("mine")

    with pytest.raises(AdminError, match="not ours"):
        installer(tmp_path, documents=documents())[0].install()

    assert theirs.read_text() == "mine"


def test_a_manifest_from_before_folders_were_remembered_is_read():
    held = json.loads(Manifest("/x").to_json())
    del held["folders"]

    assert Manifest.from_json(json.dumps(held)) == Manifest("/x")


def test_the_copy_runs_on_its_own_and_nobody_else_may_write_it(tmp_path):
    one, _ = installer(tmp_path, find=packages)
    one.install()
    prefix = at(tmp_path, PREFIX)

    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            "-c",
            f"import sys; sys.path.insert(0, {str(prefix)!r});"
            "from forestall.cli.main import run; sys.exit(run(['--version']))",
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("forestall ")
    modes = {path.lstat().st_mode & 0o022 for path in prefix.rglob("*")}
    assert modes == {0}
    assert stat.S_IMODE(at(tmp_path, LAUNCHER).stat().st_mode) == 0o755


def test_the_service_does_not_depend_on_where_it_was_installed_from(tmp_path):
    one, _ = installer(tmp_path)
    one.install()
    here = str(Path(__file__).parents[2])

    texts = [at(tmp_path, path).read_text() for path in (LAUNCHER, UNIT_FILE, SETTINGS_FILE)]
    assert not any(here in text for text in texts)


def test_a_second_install_upgrades_and_keeps_changed_settings(tmp_path):
    one, _ = installer(tmp_path)
    one.install()
    at(tmp_path, SETTINGS_FILE).write_text('[timing]\ngrace = "3s"\n')
    at(tmp_path, PREFIX).joinpath("stale.py").write_text("")

    installer(tmp_path)[0].install()

    assert at(tmp_path, SETTINGS_FILE).read_text() == '[timing]\ngrace = "3s"\n'
    assert not at(tmp_path, PREFIX).joinpath("stale.py").exists()


def test_changed_settings_and_records_stay_unless_purged(tmp_path):
    one, lines = installer(tmp_path)
    one.install()
    at(tmp_path, SETTINGS_FILE).write_text('[timing]\ngrace = "3s"\n')
    records = at(tmp_path, "/var/lib/forestall")
    records.mkdir(parents=True)
    (records / "episode-1.jsonl").write_text("x")

    one.uninstall(purge=False)

    assert everything(tmp_path) == [
        "etc/forestall/forestall.toml",
        "var/lib/forestall/episode-1.jsonl",
    ]
    assert any("was changed and stays" in line for line in lines)
    with pytest.raises(AdminError, match="no installation"):
        one.uninstall(purge=False)


def heralds_folders(root):
    """What systemd makes for herald's DynamicUser, with something in it."""
    for parent, name, kept in (("lib", "forestall-herald", "spool"), ("log", "forestall", "x.log")):
        folder = root / "var" / parent / "private" / name
        folder.mkdir(parents=True)
        (folder / kept).write_text("kept")
        (root / "var" / parent / name).symlink_to(f"private/{name}")


def test_purge_takes_heralds_spool_and_logs_too(tmp_path):
    one, _ = installer(tmp_path)
    one.install()
    heralds_folders(tmp_path)
    one.uninstall(purge=True)

    assert everything(tmp_path) == []
    assert not list(tmp_path.rglob("forestall*"))


def test_what_an_uninstall_has_left_can_be_purged_afterwards(tmp_path):
    one, lines = installer(tmp_path)
    one.install()
    at(tmp_path, SETTINGS_FILE).write_text("[timing]\n")
    heralds_folders(tmp_path)
    one.uninstall(purge=False)
    left = everything(tmp_path)
    one.uninstall(purge=True)

    assert sum("uninstall --purge removes it" in line for line in lines) == 3
    assert len(left) == 3
    assert everything(tmp_path) == []
    with pytest.raises(AdminError, match="no installation"):
        one.uninstall(purge=True)


def test_empty_folders_of_herald_go_with_their_links(tmp_path):
    one, _ = installer(tmp_path)
    one.install()
    heralds_folders(tmp_path)
    for kept in ("lib/private/forestall-herald/spool", "log/private/forestall/x.log"):
        (tmp_path / "var" / kept).unlink()
    one.uninstall(purge=False)

    assert not list(tmp_path.rglob("forestall*"))


def test_purge_takes_changed_settings_and_records_too(tmp_path):
    one, _ = installer(tmp_path)
    one.install()
    at(tmp_path, SETTINGS_FILE).write_text('[timing]\ngrace = "3s"\n')
    records = at(tmp_path, "/var/lib/forestall")
    records.mkdir(parents=True)
    (records / "episode-1.jsonl").write_text("x")

    one.uninstall(purge=True)

    assert everything(tmp_path) == []


@pytest.mark.parametrize("path", [LAUNCHER, UNIT_FILE])
def test_a_file_that_is_not_ours_is_not_overwritten(tmp_path, path):
    at(tmp_path, path).parent.mkdir(parents=True)
    at(tmp_path, path).write_text("mine")

    with pytest.raises(AdminError, match="not ours"):
        installer(tmp_path)[0].install()

    assert at(tmp_path, path).read_text() == "mine"


def test_a_folder_that_is_not_ours_is_not_replaced(tmp_path):
    at(tmp_path, PREFIX).mkdir(parents=True)
    (at(tmp_path, PREFIX) / "mine").write_text("mine")

    with pytest.raises(AdminError, match="not an installation"):
        installer(tmp_path)[0].install()

    assert (at(tmp_path, PREFIX) / "mine").exists()


def test_wrong_settings_stop_the_install_before_anything_is_written(tmp_path):
    at(tmp_path, SETTINGS_FILE).parent.mkdir(parents=True)
    at(tmp_path, SETTINGS_FILE).write_text("[timing]\ngrace = 5\n")

    with pytest.raises(ConfigError):
        installer(tmp_path)[0].install()

    assert everything(tmp_path) == ["etc/forestall/forestall.toml"]


def test_an_active_killer_stops_the_install_before_anything_is_written(tmp_path):
    systemd = FakeSystemd(active=["earlyoom.service"])
    one, _ = installer(tmp_path, systemd, LocalInstaller)

    with pytest.raises(AdminError, match="earlyoom is active"):
        one.install()

    assert everything(tmp_path) == []
    assert systemd.told == []


def test_beside_leaves_the_other_killer_alone(tmp_path):
    systemd = FakeSystemd(active=["earlyoom.service"], enabled=["earlyoom.service"])
    one, _ = installer(tmp_path, systemd, LocalInstaller, beside=True)

    one.install()

    assert systemd.told == [
        ("daemon-reload",),
        ("enable", "forestall.service"),
        ("restart", "forestall.service"),
        ("enable", "forestall-herald.service"),
        ("restart", "forestall-herald.service"),
    ]


def test_replace_disables_the_other_killer_and_uninstall_brings_it_back(tmp_path):
    systemd = FakeSystemd(active=["earlyoom.service"], enabled=["earlyoom.service"])
    one, _ = installer(tmp_path, systemd, LocalInstaller, replace=True)
    one.install()
    installed = systemd.told.copy()
    systemd.told.clear()
    systemd.is_active = systemd.is_enabled = []
    # An upgrade must not forget what the first installation replaced.
    installer(tmp_path, systemd, LocalInstaller)[0].install()
    systemd.told.clear()

    one.uninstall(purge=False)

    assert installed[0] == ("disable", "--now", "earlyoom.service")
    assert systemd.told == [
        ("disable", "--now", "forestall.service"),
        ("disable", "--now", "forestall-herald.service"),
        ("daemon-reload",),
        ("enable", "earlyoom.service"),
        ("start", "earlyoom.service"),
    ]
    assert everything(tmp_path) == []


def test_no_start_starts_nothing(tmp_path):
    systemd = FakeSystemd()
    one, _ = installer(tmp_path, systemd, LocalInstaller, start=False)

    one.install()

    assert systemd.told == [("daemon-reload",)]


@pytest.mark.parametrize("prefix", ["/", "/usr", "here", ""])
def test_a_prefix_that_would_be_swept_away_with_others_is_refused(tmp_path, prefix):
    with pytest.raises(AdminError, match="folder of its own"):
        installer(tmp_path, prefix=prefix)[0].install()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"prefix": "/x"}'])
def test_a_damaged_manifest_is_said_to_be_one(tmp_path, text):
    one, _ = installer(tmp_path)
    one.install()
    (at(tmp_path, PREFIX) / MANIFEST).write_text(text)

    with pytest.raises(AdminError, match="damaged"):
        one.uninstall(purge=False)


def test_the_manifest_knows_every_file_outside_the_prefix(tmp_path):
    one, _ = installer(tmp_path)
    one.install()

    held = json.loads((at(tmp_path, PREFIX) / MANIFEST).read_text())
    outside = {f"/{path}" for path in everything(tmp_path) if not f"/{path}".startswith(PREFIX)}
    assert set(held["files"]) == outside


def test_nothing_compiled_is_copied():
    found = packages()

    assert {"forestall", "click", "rich"} <= set(found)
    assert not any(path.rglob("*.so") and list(path.rglob("*.so")) for path in found.values())


def test_something_needed_that_is_missing_is_named():
    with pytest.raises(AdminError, match="no_such_module is not installed"):
        packages(["no_such_module"])


def test_the_example_changes_nothing_and_uncommented_it_is_the_defaults():
    example = example_settings()
    uncommented = "\n".join(
        line.removeprefix("# ")
        for line in example.split("\n\n", 1)[1].splitlines()
        if not line.startswith(("# only_uid", "# Wh"))
    )

    for text in (example, uncommented):
        settings = load_text(text)
        assert settings.rules == DEFAULT_RULES
        assert settings.options == Options()


RECYCLES = "[triggers.swap-above-half]\nenabled = true\n"


def settings(root, text):
    path = at(root, SETTINGS_FILE)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_service_may_switch_swap_only_while_the_settings_ask_for_it(tmp_path):
    settings(tmp_path, RECYCLES)
    one, lines = installer(tmp_path)
    one.install()
    granted = at(tmp_path, GRANT_FILE).read_text()
    settings(tmp_path, "")
    again, said_again = installer(tmp_path)
    again.install()

    assert "CapabilityBoundingSet=CAP_SYS_ADMIN CAP_SYS_CHROOT\n" in granted
    assert "SystemCallFilter=@swap setns\n" in granted
    assert "ProtectSystem" not in granted
    assert any("swap-above-half" in line and "CAP_SYS_ADMIN" in line for line in lines)
    assert not at(tmp_path, GRANT_FILE).exists()
    assert f"{GRANT_FILE} is removed" in said_again


def test_without_such_a_trigger_the_service_gets_nothing_more(tmp_path):
    settings(tmp_path, "[triggers.cache-at-medium]\nenabled = true\n")
    one, lines = installer(tmp_path)
    one.install()

    assert not at(tmp_path, GRANT_FILE).exists()
    assert "CAP_SYS_ADMIN" not in at(tmp_path, UNIT_FILE).read_text()
    assert not any("CAP_SYS_ADMIN" in line for line in lines)


def test_uninstall_takes_the_grant_away_and_leaves_what_others_put_beside_it(tmp_path):
    settings(tmp_path, RECYCLES)
    one, _ = installer(tmp_path)
    one.install()
    mine = at(tmp_path, GRANT_FILE).with_name("mine.conf")
    mine.write_text("[Service]\n")
    one.uninstall(purge=True)

    assert not at(tmp_path, GRANT_FILE).exists()
    assert mine.read_text() == "[Service]\n"


SLACK = (
    '[alerts.ops]\ntype = "slack"\nsecret = "ops"\n[alerts.x]\ntype = "slack"\nsecret = "gone"\n'
)


def secret(root, name):
    path = at(root, f"/etc/credstore/forestall.{name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("https://example.org/hook\n")


def with_version(root, version):
    lines = []
    one = Installer(
        Wish(root=root), FakeSystemd(), lines.append, find=tiny, version=lambda: version
    )
    return one, lines


def test_an_old_systemd_is_told_of_each_secret_that_is_there_and_of_no_other(tmp_path):
    """One that is missing would keep the service from starting."""
    settings(tmp_path, SLACK)
    secret(tmp_path, "ops")
    one, lines = with_version(tmp_path, 252)
    one.install()
    named = at(tmp_path, SECRETS_FILE).read_text().splitlines()
    settings(tmp_path, "")
    again, _ = with_version(tmp_path, 252)
    again.install()

    assert [line for line in named if line.startswith("Load")] == [
        "LoadCredential=forestall.ops:/etc/credstore/forestall.ops"
    ]
    assert any("alerts.x is missing" in line and "forestall.gone" in line for line in lines)
    assert not any("alerts.ops is missing" in line for line in lines)
    assert "https://" not in "\n".join([*named, *lines])
    assert not at(tmp_path, SECRETS_FILE).exists()


@pytest.mark.parametrize("version", [254, 257, None])
def test_a_newer_systemd_finds_secrets_by_itself(tmp_path, version):
    settings(tmp_path, SLACK)
    secret(tmp_path, "ops")
    one, _ = with_version(tmp_path, version)
    one.install()

    assert not at(tmp_path, SECRETS_FILE).exists()


def test_a_reload_says_when_the_service_lacks_what_its_settings_ask_for(tmp_path):
    asks = load_text(RECYCLES).rules
    nowhere = missing_grant(asks, tmp_path)
    one, _ = installer(tmp_path)
    one.install()
    lacking, content = missing_grant(asks, tmp_path), missing_grant(DEFAULT_RULES, tmp_path)
    settings(tmp_path, RECYCLES)
    again, _ = installer(tmp_path)
    again.install()

    assert nowhere == ""
    assert "swap-above-half: the service may not switch swap" in lacking
    assert content == ""
    assert missing_grant(asks, tmp_path) == ""


@pytest.mark.parametrize(("version", "imports"), [(252, False), (254, True), (None, True)])
def test_a_unit_has_no_word_that_its_systemd_does_not_know(tmp_path, version, imports):
    """systemd 252 warned of ImportCredential at every start."""
    one, _ = with_version(tmp_path, version)
    one.install()
    text = at(tmp_path, HERALD_FILE).read_text()

    assert ("\nImportCredential=" in text) is imports
    assert "DynamicUser=yes" in text
