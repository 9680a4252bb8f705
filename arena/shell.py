"""``python -m arena shell``: one command in a fresh guest, for whoever tests with it.

Rule: no landscape, no measuring; a clean Debian with systemd, the command's
output and its exit status.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from arena import host, image, job, machine
from arena.errors import ArenaError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LOST_STATUS = 125
"""Our exit status when the guest, not the command, failed."""

_MAIN = f"""\
ln -s /var/lib/job/src /run/src; ln -s /var/lib/job/put /run/put; mkdir -p put
[ -n "$(cat swap 2>/dev/null)" ] && mkswap -q /dev/vdc && swapon /dev/vdc
export PYTHONPATH=/run/src/src:/run/src/{job.SITE} PYTHONDONTWRITEBYTECODE=1 HOME=/root TERM=dumb
cd /run/put
# The job's protection from the OOM killer must not be inherited by what is tested.
sh -c 'echo 0 > /proc/self/oom_score_adj; exec sh /var/lib/job/command' \\
	> {machine.OUT_PORT} 2>&1 < /dev/null
echo $? > {machine.STATUS_PORT}
[ -s /var/lib/job/get ] && tar -cf {machine.FILES_PORT} -C / $(cat /var/lib/job/get)
sync
echo o > /proc/sysrq-trigger
sleep 60
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A command and the guest to run it in."""

    command: str
    suite: str = "bookworm"
    put: tuple[Path, ...] = ()
    get: tuple[str, ...] = ()
    source: bool = False
    extra_packages: tuple[str, ...] = ()
    multi_user: bool = False
    memory_mib: int = 1024
    cpus: int = 2
    swap_mib: int = 0
    timeout_s: float = 180
    kernel_words: str = ""


def files_of(request: Request) -> Mapping[str, bytes | str | Path]:
    """List what travels into the guest."""
    files: dict[str, bytes | str | Path] = {
        "main.sh": _MAIN,
        "command": request.command + "\n",
        "swap": str(request.swap_mib or ""),
        "get": " ".join(path.lstrip("/") for path in request.get),
    }
    files |= job.put_files(request.put)
    if request.source:
        files |= job.source_files()
    return files


def run(request: Request, *, write: Callable[[bytes], object] | None = None) -> int:
    """Run the command, passing its output on as it comes; return its exit status.

    Files asked for by ``get`` are unpacked below the current folder.
    """
    write = write or sys.stdout.buffer.write
    host.require(host.RUN_TOOLS)
    guest = image.ensure(
        request.suite,
        cache=host.cache_folder(),
        extra_packages=request.extra_packages,
        say=lambda line: print(line, file=sys.stderr),
    )
    hardware = machine.Machine(
        memory_mib=request.memory_mib,
        cpus=request.cpus,
        swap_mib=request.swap_mib,
        target="multi-user.target systemd.wants=job.service"
        if request.multi_user
        else "job.target",
        kernel_words=request.kernel_words,
        timeout_s=request.timeout_s,
    )
    with tempfile.TemporaryDirectory(prefix="arena-") as folder:
        work = Path(folder)
        job.write_job(work / "job.tar", files_of(request))
        with host.guest_lock(host.lock_path()) as lock:
            outcome = machine.run(
                guest, hardware, work, on_output=lambda data, _: _pass(data, write), lock=lock
            )
        if request.get and outcome.files.stat().st_size:
            machine.unpack(outcome.files, Path.cwd())
    print(f"[guest ran {outcome.noise.wall_s} s]", file=sys.stderr)
    if not outcome.status.isdigit():
        words = outcome.console.splitlines()[-40:]
        raise ArenaError("the guest was lost; its console ended so:\n" + "\n".join(words))
    return int(outcome.status)


def _pass(data: bytes, write: Callable[[bytes], object]) -> None:
    write(data)
    sys.stdout.flush()
