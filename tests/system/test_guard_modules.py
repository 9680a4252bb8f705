"""The guard's process holds only what it needs: its modules are listed, its memory is weighed.

It is started through both stages: a first one that reads settings and hands the rules over in
a memfd, and a second that has imported none of that. Dry run throughout.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from forestall.config.launch import PACKAGE

ROLL_CALL = Path(__file__).with_name("guard_roll_call.py")
READY_S = 20
DIRTY_KIB_MAX = 8 * 1024
"""The bench holds the guard to 7 MiB on the distribution's interpreter; others weigh more."""

FORBIDDEN = {
    *("argparse", "asyncio", "concurrent", "configparser", "csv", "dataclasses", "datetime"),
    *("decimal", "difflib", "dis", "email", "fnmatch", "getopt", "gettext", "http", "importlib"),
    *("inspect", "ipaddress", "linecache", "locale", "logging", "multiprocessing", "optparse"),
    *("pathlib", "pickle", "platform", "pprint", "queue", "random", "sched", "shlex", "shutil"),
    *("site", "sqlite3", "ssl", "statistics", "string", "subprocess", "tempfile", "textwrap"),
    *("threading", "tokenize", "tomllib", "traceback", "typing", "unittest", "urllib", "uuid"),
    *("weakref", "xml", "zipfile"),
    *("apprise", "click", "jeepney", "jinja2", "msgspec", "pydantic", "psutil", "rich", "textual"),
}
"""Top-level names; what weighs, what threads, what belongs to people and to the first stage."""
FORBIDDEN_OF_OURS = (
    *("cli", "config", "tui", "herald", "inspect", "admin", "forensics", "replay", "report"),
    *("monitor", "fields"),
)
OURS = {"control", "core", "effects", "guard", "kernel", "recorder", "relief"}

FIRST_STAGE = """
import sys
_, package, roll_call, roll, *rest = sys.argv
sys.path.insert(0, package)
from forestall.cli.main import main
from forestall.config import launch
usual = launch.arguments
def to_roll_call(fd, *, package):
    *flags, start, number = usual(fd, package=package)
    return [*flags, roll_call, start, number, roll]
launch.arguments = to_roll_call
sys.argv = ["forestall", "run", "--dry-run", "--untrusted-code", *rest]
main()
"""


@contextmanager
def running(folder):
    """Start ``forestall run``; yields the process once the guard says it is ready."""
    settings = folder / "settings.toml"
    settings.write_text(f'[guard]\nrecord_dir = "{folder}/record"\nrelief = false\n')
    with (
        tempfile.TemporaryDirectory() as short,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear,
    ):
        ear.bind(f"{short}/notify")
        ear.settimeout(READY_S)
        process = subprocess.Popen(
            [
                *(sys.executable, "-c", FIRST_STAGE, str(Path(PACKAGE).parent), str(ROLL_CALL)),
                *(str(folder / "roll"), "--config", str(settings)),
                *("--socket", f"{short}/control.sock"),
            ],
            env={**os.environ, "NOTIFY_SOCKET": f"{short}/notify"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            assert b"READY=1" in ear.recv(4096)
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(READY_S)


@pytest.fixture(scope="module")
def guard(tmp_path_factory):
    """Return (modules at the end, private dirty KiB, command line) of a guard that has run."""
    folder = tmp_path_factory.mktemp("guard")
    with running(folder) as process:
        rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        command = Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")
    dirty = [int(line.split()[1]) for line in rollup.splitlines() if "Private_Dirty" in line]
    return set((folder / "roll").read_text().split()), dirty[0], command


def test_the_second_stage_has_no_site_and_no_environment(guard):
    _modules, _dirty, command = guard

    assert command[1:4] == [b"-I", b"-S", b"-E"]


def test_the_guard_holds_none_of_the_heavy_modules(guard):
    modules, _dirty, _command = guard

    assert modules & {"forestall.guard.daemon", "forestall.core.policy"}
    assert not {name.partition(".")[0] for name in modules} & FORBIDDEN


def test_the_guard_holds_no_room_of_the_first_stage(guard):
    modules, _dirty, _command = guard
    rooms = {name.split(".")[1] for name in modules if name.startswith("forestall.")}

    assert rooms <= OURS
    assert not rooms & set(FORBIDDEN_OF_OURS)


def test_the_guards_private_memory_stays_small(guard):
    _modules, dirty, _command = guard

    assert 0 < dirty <= DIRTY_KIB_MAX


def test_the_first_hostile_name_loads_nothing():
    """Python loads a codec where it is first used; to load one while memory is short may fail."""
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); from forestall.core.sentence import plain\n"
        "before = set(sys.modules); plain('\\x1b[31m\\udcff\\n'); print(set(sys.modules) - before)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-E", "-c", program, str(Path(PACKAGE).parent)],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.strip() == "set()"
