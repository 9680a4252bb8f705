"""The root of the command line: lazy, suggesting, and one exit code per kind of trouble."""

import select
import subprocess
import sys
import threading

import click
import pytest

from forestall.cli import exits, main
from forestall.cli.run import other_killers, read_interval, refuse_second, without_root
from forestall.cli.table import all_rows
from forestall.config.errors import ConfigError, Problem
from forestall.config.lint import Process
from forestall.control.errors import Refused, Unreachable
from forestall.control.server import Server
from forestall.core.units import MS, SECOND


def test_help_lists_the_commands_without_importing_them():
    code = (
        "import sys; from forestall.cli.main import run; run(['--help']);"
        "print(*sorted(m for m in sys.modules if m.startswith('forestall.cli.')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=20
    )
    *shown, modules = done.stdout.splitlines()

    assert any(line.split()[:1] == ["run"] for line in shown)
    assert modules.split() == ["forestall.cli.exits", "forestall.cli.main", "forestall.cli.table"]


def test_a_typo_is_answered_with_what_was_meant(capsys):
    assert main.run(["relaod"]) == exits.USAGE.code
    assert "Did you mean reload?" in capsys.readouterr().err


def test_the_version_is_told(capsys):
    assert main.run(["--version"]) == exits.FINE.code
    assert capsys.readouterr().out.startswith("forestall ")


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (ConfigError([Problem("a.toml", "x.y", "is odd", "do so")]), 3, "a.toml: x.y: is odd"),
        (Unreachable("nobody is there"), 5, "systemctl status forestall"),
        (Refused("org.varlink.service.PermissionDenied"), 1, "PermissionDenied"),
        (RuntimeError("a\x1b[31m"), 70, "RuntimeError: a?[31m"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_every_kind_of_trouble_has_its_exit_code(monkeypatch, capsys, error, code, says):
    @click.command()
    def failing():
        raise error

    monkeypatch.setitem(main.command.commands, "failing", failing)
    monkeypatch.setattr(main.command, "get_command", lambda ctx, name: failing)

    assert main.run(["failing"]) == code
    assert says in capsys.readouterr().err


def test_a_command_without_a_guard_says_so(capsys, tmp_path):
    assert main.run(["reload", "--socket", str(tmp_path / "none")]) == exits.UNREACHABLE.code
    assert "no guard answers at" in capsys.readouterr().err


def test_bad_settings_stop_a_reload_before_anything_is_sent(capsys, tmp_path):
    file = tmp_path / "a.toml"
    file.write_text("[timing]\ngrace = 5\nintervall = 1\n")

    assert main.run(["reload", "--config", str(file)]) == exits.SETTINGS.code
    assert "2 problems in the settings" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "interval_ns"), [("2", 2 * SECOND), ("0.5", 500 * MS)])
def test_an_interval_is_seconds_unless_it_says_otherwise(text, interval_ns):
    assert read_interval(text) == interval_ns
    assert read_interval("250ms") == 250 * MS


@pytest.mark.parametrize("text", ["0", "x", "-1", "1 week", ""])
def test_an_interval_that_makes_no_sense_is_refused(text):
    with pytest.raises(ConfigError):
        read_interval(text)


@pytest.mark.parametrize("row", all_rows(), ids=lambda row: row.name)
def test_every_command_loads_and_has_help(row, capsys):
    assert main.run([row.name, "--help"]) == exits.FINE.code
    assert "Usage: forestall" in capsys.readouterr().out


def test_an_ordinary_user_is_told_what_is_missing_and_how_to_have_it():
    (said,) = without_root(1001, ".venv/bin/forestall")

    assert "only your own processes (uid 1001)" in said
    assert "sudo .venv/bin/forestall install" in said
    assert without_root(0, "forestall") == []


@pytest.fixture
def other_guard(tmp_path):
    """A guard that answers, and where."""
    path = str(tmp_path / "other.sock")
    server = Server(
        path, {"GetStatus": lambda _parameters, _peer: {"status": {"guard": {"pid": 7}}}}
    )
    server.open()
    done = threading.Event()

    def serve():
        now_ns = 0
        while not done.is_set():
            now_ns += SECOND
            poll = select.poll()
            for fd, mask in server.fds(now_ns):
                poll.register(fd, mask)
            for fd, mask in poll.poll(20):
                server.ready(fd, mask, now_ns)
            server.pump(now_ns)

    thread = threading.Thread(target=serve)
    thread.start()
    yield path
    done.set()
    thread.join()
    server.close()


def test_a_second_guard_is_refused_and_the_first_is_named(other_guard, tmp_path):
    """Two guards that see the same shortage end two victims."""
    with pytest.raises(click.ClickException, match="process 7 guards here already") as caught:
        refuse_second([str(tmp_path / "nobody.sock"), other_guard])

    assert other_guard in caught.value.message
    refuse_second([str(tmp_path / "nobody.sock")])


def test_the_killers_of_others_are_named_at_the_start():
    here = [
        Process(pid=5, name="earlyoom", uid=0),
        Process(pid=6, name="bash", uid=0),
        Process(pid=7, name="systemd-oomd", uid=998),
    ]
    said = other_killers(here)

    assert [line.partition(" ")[0] for line in said] == ["earlyoom", "systemd-oomd"]
    assert "process 5" in said[0]
