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
    MANIFEST,
    SETTINGS_FILE,
    UNIT_FILE,
    Installer,
    Manifest,
    Wish,
)
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
