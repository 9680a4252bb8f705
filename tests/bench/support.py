"""What the benches share: the table, the guard and its peers as children, medians.

Peers are never allowed to end anybody. earlyoom runs dry; where its own scan is timed, its
kill() does nothing besides, and it runs as nobody. nohang has no dry run: its thresholds are
set where no state of memory can reach them, every name is to be avoided, and where its
functions are timed, its kill() does nothing either. All are stopped by their own pid.
"""

import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from forestall.config.launch import PACKAGE, arguments, hand_over
from forestall.core.rules import Options

HERE = Path(__file__).parent
SOURCE = str(Path(PACKAGE).parent)
NOBODY = 65534
READY_S = 20
NEVER = "never shown"


def bare_python():
    """Return the interpreter an installed guard would run on: the distribution's, if recent."""
    found = shutil.which("python3", path="/usr/bin:/bin")
    if found is not None:
        asked = [found, "-I", "-S", "-E", "-c", "import sys; print(sys.version_info >= (3, 11))"]
        if subprocess.run(asked, capture_output=True, text=True, check=False).stdout == "True\n":
            return found
    return sys.executable


@dataclass(frozen=True)
class Figure:
    """One line of the table; None is "not measured here", and ``note`` says why."""

    bar: str
    ours: str
    earlyoom: str = ""
    nohang: str = ""
    ratio: str = ""
    limit: str = ""
    met: bool | None = None


@dataclass
class Board:
    """Collects the figures of a run, and what was left out."""

    figures: list = field(default_factory=list)
    notes: list = field(default_factory=list)

    def show(self, bar, ours, **columns):
        self.figures.append(Figure(bar, ours, **columns))

    def note(self, text):
        if text not in self.notes:
            self.notes.append(text)

    def lines(self):
        heads = ("bar", "ours", "earlyoom", "nohang", "ratio", "limit", "met?")
        rows = [heads]
        for f in self.figures:
            met = {True: "yes", False: "NO", None: ""}[f.met]
            rows.append((f.bar, f.ours, f.earlyoom, f.nohang, f.ratio, f.limit, met))
        widths = [max(len(row[i]) for row in rows) for i in range(len(heads))]
        lines = [
            "| " + " | ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)) + " |"
            for r in rows
        ]
        lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
        return lines + [f"- {note}" for note in self.notes]


def kib(number):
    return f"{number:,} KiB"


def times(number):
    return f"{number:.2f}x"


# Building and running.


def built(tmp_path, name, *flags):
    """Compile one of the small C programs of this folder; skips where there is no compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (cc)")
    target = tmp_path / name
    command = [compiler, "-O2", *flags, "-o", str(target), str(HERE / f"{name}.c"), "-ldl"]
    subprocess.run(command, check=True)
    return str(target)


@contextmanager
def open_folder():
    """Make a folder that other users reach, for what runs as them; pytest's own are closed."""
    with tempfile.TemporaryDirectory(prefix="forestall-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def peer(name, *folders):
    """Find a peer, or None."""
    return shutil.which(name, path=os.pathsep.join((*folders, "/usr/bin", "/usr/sbin")))


def drive(what, number, folder, *, python=None):
    """Run one part of the guard by itself; returns its answers."""
    command = [python or bare_python(), "-I", "-S", "-E", str(HERE / "driver.py"), SOURCE]
    done = subprocess.run(
        [*command, what, str(number), str(folder)], capture_output=True, text=True, check=True
    )
    answers = (line.split() for line in done.stdout.splitlines())
    return {name: int(value) for name, value in answers}


@contextmanager
def guard(rules, folder, **options):
    """Run the real guard as a child until the block ends; yields its process.

    Readiness comes over NOTIFY_SOCKET, as systemd would hear it.
    """
    folder = Path(folder)
    packed = Options(
        **{
            "dry_run": True,
            "socket_path": str(folder / "control.sock"),
            "record_dir": str(folder / "record"),
            "log_style": "plain",
            **options,
        }
    )
    with (
        tempfile.TemporaryDirectory() as short,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear,
    ):
        ear.bind(f"{short}/notify")
        ear.settimeout(READY_S)
        fd = os.memfd_create("rules", 0)
        os.write(fd, hand_over(rules, packed, foreground=False))
        os.lseek(fd, 0, os.SEEK_SET)
        with (folder / "log").open("wb") as log:
            child = subprocess.Popen(
                [bare_python(), *arguments(fd, package=PACKAGE)],
                pass_fds=(fd,),
                env={**os.environ, "NOTIFY_SOCKET": f"{short}/notify"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        os.close(fd)
        try:
            assert b"READY=1" in ear.recv(4096)
            yield child
        finally:
            stop(child)


@contextmanager
def child(command, told=None, **options):
    """Run a child until the block ends; first wait for a line that says it is ready."""
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options
    )
    try:
        while told is not None:
            line = process.stdout.readline()
            assert line, f"{command[0]} ended before it was ready"
            if told in line:
                break
        yield process
    finally:
        process.stdin.close()
        stop(process)
        process.stdout.close()


def stop(process):
    """End a child of ours by its pid."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def earlyoom(path, *, below_kib=1):
    """Run earlyoom, dry, with everybody to be avoided."""
    command = [path, "--dryrun", "--avoid", ".*", "-r", "3600", "-M", f"{below_kib},{below_kib}"]
    return child([*command, "-s", "100,100"], b"mem avail")


def nohang(path, folder):
    """Run nohang, with thresholds out of reach and everybody to be avoided."""
    return child([path, "--monitor", "-c", str(nohang_settings(folder))], b"Monitoring has started")


def nohang_settings(folder):
    """Write settings with which nohang can end nobody."""
    shipped = Path("/etc/nohang/nohang.conf")
    if not shipped.exists():
        pytest.skip("no /etc/nohang/nohang.conf")
    lines = [
        f"{line.partition('=')[0]}= 0 %"
        if line.startswith(("soft_threshold_min", "hard_threshold_min"))
        else line
        for line in shipped.read_text().splitlines()
    ]
    path = Path(folder) / "nohang.conf"
    path.write_text("\n".join([*lines, "@BADNESS_ADJ_RE_NAME -3000 /// ."]) + "\n")
    return path


# Reading what a process costs.


def memory_of(pid):
    """Return RSS, PSS and private dirty memory in KiB."""
    found = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, rest = line.partition(":")
        found[name] = int(rest.split()[0])
    return found["Rss"], found["Pss"], found["Private_Dirty"]


def anonymous_kib(pid):
    """Return anonymous memory, shared with a fork or not: what "private dirty" is without one."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1])
    raise AssertionError(pid)


def cpu_ns(pid):
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])


def runs_of(pid):
    """How often a process was put on a processor: its wake-ups."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[2])


def children_of(pid):
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def available_bytes():
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no MemAvailable")


def wait_for_end(process, seconds):
    """Wait so long for a process that is expected to live; fails when it ends."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return
    raise AssertionError(f"{process.args[0]} ended")


def median(numbers):
    return statistics.median(numbers)
