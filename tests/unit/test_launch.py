"""The hand-over to the second stage, and who may be trusted with root."""

import marshal
import os
import subprocess
import sys
from pathlib import Path

import pytest

from forestall.config import launch, trust
from forestall.config.errors import TrustError
from forestall.config.read import load_text
from forestall.core.codec import decode
from forestall.core.rules import DEFAULT_RULES, Options

US = frozenset({os.geteuid(), 0})
SRC = Path(__file__).parents[2] / "src"

FAKE_GUARD = """
import marshal, os, sys
rules, options, foreground = marshal.loads(os.fdopen(int(sys.argv[1]), "rb").read())
print(os.getpid(), len(rules["triggers"]), options["nice"], foreground, sys.flags.isolated,
      sys.flags.no_site, "tomllib" in sys.modules)
"""


def test_what_is_handed_over_comes_back_as_it_was():
    settings = load_text('[victims]\nnever = ["^a$"]\n[timing]\ngrace = "3s"\n')

    plain = marshal.loads(launch.hand_over(settings.rules, settings.options, foreground=True))

    assert decode(plain[0]) == settings.rules
    assert decode(plain[1]) == settings.options
    assert plain[2] is True


def test_the_guard_gets_its_rules_and_keeps_the_pid(tmp_path):
    (tmp_path / "guard").mkdir()
    (tmp_path / "guard/start.py").write_text(FAKE_GUARD)
    code = f"""
import sys
sys.path.insert(0, {str(SRC)!r})
from forestall.config.launch import exec_guard
from forestall.core.rules import DEFAULT_RULES, Options
exec_guard(DEFAULT_RULES, Options(), foreground=False, package={str(tmp_path)!r})
"""
    stage = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", code], stdout=subprocess.PIPE, text=True
    )
    told, _ = stage.communicate(timeout=20)

    expected = f"{stage.pid} {len(DEFAULT_RULES.triggers)} -20 False 1 1 False"
    assert told.split() == expected.split()


def test_the_service_prints_every_problem_for_the_journal(tmp_path):
    """The stage reads the machine's own settings, so the test gives it a copy with its own root."""
    code = f"""
import sys
sys.path.insert(0, {str(SRC)!r})
from forestall.config import read, stage
load = read.load
read.load = lambda: load([{str(tmp_path / "a.toml")!r}])
stage.main()
"""
    (tmp_path / "a.toml").write_text("[timing]\ngrace = 5\ninterval = 6\n")
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code],
        check=False,
        capture_output=True,
        text=True,
        timeout=20,
    )

    assert done.returncode == 3
    keys = sorted(line.split(": ")[1] for line in done.stderr.splitlines())
    assert keys == ["timing.grace", "timing.interval"]


def test_somebody_without_root_guards_their_own_processes_in_their_own_folders(tmp_path):
    environment = {"XDG_RUNTIME_DIR": str(tmp_path), "HOME": "/home/ada"}
    fitted = launch.fit_to_user(Options(), 1000, environment)

    assert fitted.only_uid == 1000
    assert fitted.socket_path == f"{tmp_path}/forestall/control.sock"
    assert fitted.record_dir == "/home/ada/.local/state/forestall"
    assert launch.fit_to_user(Options(), 0, {}) == Options()


def test_without_a_run_time_folder_the_socket_is_at_home():
    """After su, or in cron: /run/user/UID was never made, and only root could make it."""

    def nowhere(_path):
        return False

    home, state = {"HOME": "/home/ada"}, {"XDG_STATE_HOME": "/s", "HOME": "/home/ada"}

    assert launch.user_socket(7, home, is_folder=nowhere) == (
        "/home/ada/.local/state/forestall/control.sock"
    )
    assert launch.user_socket(7, state, is_folder=nowhere) == "/s/forestall/control.sock"
    assert launch.user_socket(7, home, is_folder=lambda path: path == "/run/user/7") == (
        "/run/user/7/forestall/control.sock"
    )


def test_what_somebody_set_is_kept_without_root():
    options = Options(only_uid=7, socket_path="/x/y.sock", record_dir="/z")

    assert launch.fit_to_user(options, 1000, {}) == options


def test_a_tree_of_ours_is_trusted(tmp_path):
    (tmp_path / "a").mkdir(mode=0o755)
    (tmp_path / "a/b.py").write_text("")

    trust.check_tree(tmp_path / "a", owners=US)


def test_what_others_can_write_is_not_trusted(tmp_path):
    (tmp_path / "a").mkdir(mode=0o755)
    file = tmp_path / "a/b.py"
    file.write_text("")
    file.chmod(0o666)

    with pytest.raises(TrustError, match="can be written by others") as caught:
        trust.check_tree(tmp_path / "a", owners=US)

    assert [problem.file for problem in caught.value.problems] == [str(file)]


def test_of_a_bad_folder_only_itself_is_named(tmp_path):
    """A clone in somebody's home has one owner, not a thousand problems."""
    for name in ("good/a.py", "bad/deep/b.py", "bad/c.py"):
        (tmp_path / name).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    for name in ("bad", "bad/deep", "bad/c.py"):
        (tmp_path / name).chmod(0o777)

    with pytest.raises(TrustError) as caught:
        trust.check_tree(tmp_path, owners=US)

    assert [problem.file for problem in caught.value.problems] == [str(tmp_path / "bad")]


def test_a_folder_above_that_others_can_write_spoils_the_tree(tmp_path):
    above = tmp_path / "above"
    (above / "a").mkdir(parents=True)
    above.chmod(0o777)

    with pytest.raises(TrustError, match="above: can be written"):
        trust.check_tree(above / "a", owners=US)

    above.chmod(0o1777)
    trust.check_tree(above / "a", owners=US)


def test_what_belongs_to_somebody_else_is_not_trusted(tmp_path):
    with pytest.raises(TrustError, match="forestall install"):
        trust.check_tree(tmp_path, owners=frozenset({54321}))


def test_only_root_needs_trusted_code(tmp_path):
    hostile = tmp_path / "forestall.toml"
    hostile.write_text("")
    hostile.chmod(0o666)

    trust.require_trusted_code(
        sys.executable, str(tmp_path), [str(hostile)], effective_uid=lambda: 1000
    )
    with pytest.raises(TrustError):
        trust.require_trusted_code(
            sys.executable, str(tmp_path), [str(hostile)], effective_uid=lambda: 0
        )


def test_settings_that_others_can_write_are_not_handed_to_roots_guard(tmp_path):
    file = tmp_path / "forestall.toml"
    file.write_text("")
    file.chmod(0o666)

    with pytest.raises(TrustError):
        trust.require_trusted_settings([str(file)], effective_uid=lambda: 0)
    trust.require_trusted_settings([str(file)], effective_uid=lambda: 1000)
