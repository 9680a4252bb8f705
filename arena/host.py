"""What the arena needs from the machine it runs on.

Rule: everything the arena reads from the host's environment is read here, so
that the other modules depend on parameters only.
"""

from __future__ import annotations

import fcntl
import os
import resource
import shutil
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from arena.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

RUN_TOOLS: Mapping[str, str] = {
    "qemu-system-x86_64": "qemu-system-x86",
    "mkfs.ext4": "e2fsprogs",
    "gcc": "gcc libc6-dev",
}
"""Command to Debian package: what running a guest takes."""

BUILD_TOOLS: Mapping[str, str] = {
    "mmdebstrap": "mmdebstrap",
    "modprobe": "kmod",
    "cpio": "cpio",
}
"""What building a guest takes on top of that."""

DEFAULT_LOCK = "/tmp/forestall-arena.lock"  # noqa: S108 - shared by all users of the machine on purpose

Environment = os._Environ[str] | dict[str, str]  # noqa: SLF001 - the type of os.environ


def cache_folder(environ: Environment = os.environ) -> Path:
    """Where guests, compiled programs and raw results live."""
    named = environ.get("FORESTALL_ARENA_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "forestall-arena"


def lock_path(environ: Environment = os.environ) -> Path:
    """The file whose lock means: a guest is running on this machine."""
    return Path(environ.get("FORESTALL_ARENA_LOCK") or DEFAULT_LOCK)


def missing_packages(
    tools: Mapping[str, str], which: Callable[[str], str | None] = shutil.which
) -> list[str]:
    """Name the Debian packages whose commands are not on the PATH."""
    return sorted({package for command, package in tools.items() if which(command) is None})


def require(
    tools: Mapping[str, str],
    *,
    root: bool = False,
    which: Callable[[str], str | None] = shutil.which,
) -> None:
    """Refuse to start without the tools, naming the command that installs them.

    Raises:
        HostError: with every missing package at once.
    """
    missing = missing_packages(tools, which)
    if missing:
        raise HostError(
            "the arena needs these packages: " + " ".join(missing) + "\n"
            "On Debian and Ubuntu: sudo apt-get install --no-install-recommends "
            + " ".join(missing)
        )
    if root and os.geteuid() != 0:
        raise HostError("building a guest needs root (it makes device nodes and owners): use sudo")


@contextmanager
def guest_lock(
    path: Path, say: Callable[[str], None] = lambda line: print(line, file=sys.stderr)
) -> Iterator[int]:
    """Hold the machine-wide right to run one guest; wait for it if need be.

    Two guests on one small machine measure each other, so only one may run.
    The yielded descriptor is the lock: who inherits it holds it too, and the
    kernel drops it when the last holder dies, however it dies.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another guest to end ({path})")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder alone while files in it are made or replaced."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _busy_seconds() -> float:
    # user nice system idle iowait irq softirq steal
    ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def _children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """How busy the host was with things that are not the guest."""

    wall_s: float
    guest_cpu_s: float
    other_cores: float
    """Cores used by others on average; above 0.3 a run's milliseconds mean little."""


class NoiseMeter:
    """Measures a guest's surroundings from its making to :meth:`read`."""

    __slots__ = ("_busy", "_children", "_started")

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._busy = _busy_seconds()
        self._children = _children_seconds()

    def read(self) -> Noise:
        """Say what happened since; call it after the guest's process was reaped."""
        wall = time.monotonic() - self._started
        guest = _children_seconds() - self._children
        other = max(0.0, _busy_seconds() - self._busy - guest)
        return Noise(
            wall_s=round(wall, 1),
            guest_cpu_s=round(guest, 1),
            other_cores=round(other / max(wall, 0.001), 2),
        )
