"""One guest from power-on to power-off.

QEMU with two virtual CPUs, the root image as a snapshot, the job as a second
disk, swap as a third, a tiny file system as a fourth; a serial console, and
three virtio ports through which the guest hands out its events, its files and
a status. What was written to a port is on the host at once: a guest that locks
up later loses nothing that it said before.

Rule: this module knows nothing of scenarios or guards.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import tarfile
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from arena.errors import ResultError
from arena.host import Noise, NoiseMeter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from arena.image import Guest

OUT_PORT = "/dev/vport0p1"
FILES_PORT = "/dev/vport0p2"
STATUS_PORT = "/dev/vport0p3"
POLL_S = 0.05
PROBE_S = 15
PRIORITY = -5
"""Three times an ordinary process's share of a busy CPU; more would starve the host."""

OUT_BYTES_MAX = 64 << 20
FILES_BYTES_MAX = 64 << 20
_PANIC = re.compile(r"Kernel panic - not syncing: (.*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """How fast a disk of some class may be: what QEMU's throttle is set to."""

    operations_per_s: int
    bytes_per_s: int


DISKS = {
    "ssd": Disk(operations_per_s=8000, bytes_per_s=150 << 20),
    "emmc": Disk(operations_per_s=1500, bytes_per_s=40 << 20),
    "hdd": Disk(operations_per_s=150, bytes_per_s=24 << 20),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The hardware of one run."""

    memory_mib: int = 1024
    cpus: int = 2
    swap_mib: int = 0
    """Size of the third disk; whether the guest swaps to it is the job's business."""

    target: str = "job.target"
    kernel_words: str = ""
    measured: bool = False
    """Times matter: the guest goes before others on the host's CPUs, where that is allowed."""

    keeps: bool = False
    """What is written to the root disk stays; a measured run always begins with a clean one."""

    timeout_s: float = 120
    """Wall time after which the guest counts as lost and is switched off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a guest left behind."""

    powered_off: bool
    """False: it had to be switched off, or QEMU failed."""

    out: bytes
    status: str
    console: str
    noise: Noise
    files: Path
    """A tar, or an empty file; it lies in the run's folder."""

    @property
    def panic(self) -> str | None:
        """The kernel's last words, if it died of a panic."""
        found = _PANIC.search(self.console)
        return found.group(1).strip() if found else None


def _command(guest: Guest, machine: Machine, work: Path, qmp: Path, accelerator: str) -> list[str]:
    words = (
        "console=ttyS0 quiet loglevel=4 psi=1 panic=-1 mitigations=off "
        f"systemd.unit={machine.target} systemd.show_status=0 {machine.kernel_words}"
    )
    command = ["qemu-system-x86_64", "-M", "pc", "-cpu", "max", "-accel", accelerator]
    command += ["-m", str(machine.memory_mib), "-smp", str(machine.cpus)]
    command += ["-display", "none", "-nodefaults", "-no-reboot"]
    command += ["-serial", f"file:{work / 'console'}", "-qmp", f"unix:{qmp},server,nowait"]
    command += ["-kernel", str(guest.kernel), "-initrd", str(guest.initramfs), "-append", words]
    for name, path, more in (
        ("root", guest.root_image, "cache=unsafe" if machine.keeps else "snapshot=on"),
        ("job", work / "job.tar", "readonly=on"),
        ("swap", work / "swap.img", "cache=unsafe"),
        ("share", work / "share.img", "cache=unsafe"),
    ):
        command += ["-drive", f"id={name},file={path},format=raw,if=virtio,{more}"]
    command += ["-device", "virtio-serial"]
    for number, name in enumerate(("out", "files.tar", "status"), start=1):
        command += ["-chardev", f"file,id=port{number},path={work / name}"]
        command += ["-device", f"virtserialport,chardev=port{number},nr={number}"]
    return command


def _make_disks(machine: Machine, work: Path) -> None:
    with (work / "swap.img").open("wb") as file:
        file.truncate(max(machine.swap_mib, 1) << 20)
    with (work / "share.img").open("wb") as file:
        file.truncate(8 << 20)
    subprocess.run(
        ["mkfs.ext4", "-q", "-F", "-E", "root_owner=1000:1000", str(work / "share.img")],
        check=True,
        capture_output=True,
    )
    for name in ("out", "files.tar", "status", "console"):
        (work / name).write_bytes(b"")


class Tail:
    """Reads what was appended to a file since the last look, bounded."""

    __slots__ = ("_limit", "_offset", "_path")

    def __init__(self, path: Path, limit: int = OUT_BYTES_MAX) -> None:
        self._path = path
        self._offset = 0
        self._limit = limit

    def read(self) -> bytes:
        """Return the new bytes, which may be none."""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read(self._limit - self._offset)
        self._offset += len(data)
        return data


def run(
    guest: Guest,
    machine: Machine,
    work: Path,
    *,
    on_output: Callable[[bytes, Callable[[Mapping[str, Disk]], None]], None] = lambda *_: None,
    accelerator: str | None = None,
    lock: int | None = None,
) -> Outcome:
    """Boot, wait for the guest to switch itself off, and collect what it said.

    Args:
        guest: a built guest.
        machine: its hardware and time limit.
        work: a folder that holds ``job.tar``; everything else is put there too.
        on_output: given each new piece of the out port, and a function that
            throttles disks by name, e.g. ``{"swap": DISKS["hdd"]}``.
        accelerator: QEMU's word for it; found out if not given.
        lock: a descriptor that QEMU inherits: a guest that outlives us still counts as running.
    """
    _make_disks(machine, work)
    accelerator = accelerator or choose_accelerator(guest)
    # A Unix socket's path may not exceed 107 bytes: never below a cache folder.
    with tempfile.TemporaryDirectory(prefix="qmp-") as folder:
        qmp = Path(folder) / "s"
        meter = NoiseMeter()
        with (work / "qemu.log").open("wb") as log:
            process = subprocess.Popen(
                _command(guest, machine, work, qmp, accelerator),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=() if lock is None else (lock,),
            )
            if machine.measured:
                _prefer(process.pid)
            try:
                powered_off = _follow(process, machine, work, on_output, qmp)
            finally:
                process.kill()
                process.wait()
        noise = meter.read()
    (work / "swap.img").unlink()
    (work / "share.img").unlink()
    with (work / "out").open("rb") as file:
        out = file.read(OUT_BYTES_MAX)
    return Outcome(
        powered_off=powered_off and process.returncode == 0,
        out=out,
        status=(work / "status").read_text(errors="replace").strip(),
        console=(work / "console").read_text(errors="replace")
        + (work / "qemu.log").read_text(errors="replace"),
        noise=noise,
        files=work / "files.tar",
    )


def _prefer(pid: int) -> None:
    """Give the guest a larger share of the host's CPUs.

    Two knobs, because with the scheduler's autogroups a nice value counts only
    inside the process's own session.
    """
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, PRIORITY)
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(f"{PRIORITY}\n")


def _follow(
    process: subprocess.Popen[bytes],
    machine: Machine,
    work: Path,
    on_output: Callable[[bytes, Callable[[Mapping[str, Disk]], None]], None],
    qmp: Path,
) -> bool:
    """Hand output over until the guest is off; False when time ran out first."""
    tail = Tail(work / "out")
    end = time.monotonic() + machine.timeout_s
    while True:
        off = process.poll() is not None
        data = tail.read()
        if data:
            on_output(data, lambda disks: throttle(qmp, disks))
        if off:
            return True
        if time.monotonic() > end or (work / "files.tar").stat().st_size > FILES_BYTES_MAX:
            return False
        time.sleep(POLL_S)


def throttle(qmp: Path, disks: Mapping[str, Disk]) -> None:
    """Set the speed of disks of a running guest.

    Raises:
        OSError: QEMU did not take it; a run with disks of the wrong speed is worth nothing.
    """
    orders: list[dict[str, object]] = [{"execute": "qmp_capabilities"}]
    for name, disk in disks.items():
        limits = {"bps": disk.bytes_per_s, "iops": disk.operations_per_s}
        rest = {"bps_rd": 0, "bps_wr": 0, "iops_rd": 0, "iops_wr": 0}
        orders.append(
            {"execute": "block_set_io_throttle", "arguments": {"device": name, **limits, **rest}}
        )
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(os.fspath(qmp))
        with connection.makefile("rw") as channel:
            channel.readline()  # QEMU's greeting
            for order in orders:
                channel.write(json.dumps(order) + "\n")
                channel.flush()
                _await_reply(channel)


def _await_reply(channel: Iterable[str]) -> None:
    for line in channel:
        reply = json.loads(line)
        if "error" in reply:
            raise OSError(f"QEMU refused an order: {reply['error']}")
        if "return" in reply:
            return
    raise OSError("QEMU closed its control socket")


def choose_accelerator(guest: Guest, environ: Mapping[str, str] = os.environ) -> str:
    """Say whether this host can run the guest's kernel under KVM, by trying once.

    A /dev/kvm that opens proves nothing: nested hosts exist under which a stock
    kernel never prints a line. The answer is kept beside the guest for this
    boot of the host. ``FORESTALL_ARENA_ACCEL=tcg`` or ``kvm`` overrides.
    """
    tcg = "tcg,thread=multi"
    named = environ.get("FORESTALL_ARENA_ACCEL")
    if named:
        return tcg if named == "tcg" else named
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return tcg
    kept = guest.folder / "accelerator"
    key = Path("/proc/sys/kernel/random/boot_id").read_text().strip() + " " + guest.release
    if kept.exists():
        known, _, answer = kept.read_text().partition("\n")
        if known == key:
            return answer.strip()
    answer = "kvm" if _kvm_boots(guest) else tcg
    kept.write_text(f"{key}\n{answer}\n")
    return answer


def unpack(archive: Path, target: Path) -> list[str]:
    """Unpack what a guest handed out, refusing names that lead elsewhere; list the files.

    A tar cut short by the guest's end gives the files that are whole. Only plain files are
    taken, by hand: the standard library's filters came with Python 3.11.4.

    Raises: ResultError when a name leads out of the folder.
    """
    names: list[str] = []
    root = target.resolve()
    try:
        with tarfile.open(archive, ignore_zeros=False) as tar:
            for entry in tar:
                where = (root / entry.name).resolve()
                if not where.is_relative_to(root):
                    raise ResultError(f"the guest hands out {entry.name!r}, which leads elsewhere")
                content = tar.extractfile(entry) if entry.isfile() else None
                if content is None:
                    continue
                data = content.read()
                where.parent.mkdir(parents=True, exist_ok=True)
                where.write_bytes(data)
                names.append(entry.name)
    except (tarfile.ReadError, EOFError):
        pass  # the guest died while it wrote; what came before is good
    return names


def _kvm_boots(guest: Guest) -> bool:
    command = ["qemu-system-x86_64", "-M", "pc", "-cpu", "max", "-accel", "kvm", "-m", "256"]
    command += ["-display", "none", "-nodefaults", "-no-reboot", "-kernel", str(guest.kernel)]
    command += ["-initrd", str(guest.initramfs)]
    command += ["-append", "quiet panic=-1 arena.probe "]
    try:
        done = subprocess.run(command, capture_output=True, timeout=PROBE_S, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0
