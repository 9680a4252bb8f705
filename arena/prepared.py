"""Root images with a guard installed, made once for each state of its source.

To install forestall takes a guest half a minute under software emulation, and
would take it again in every run. So a guest of its own installs it, on a copy
of the root image that keeps what is written, and runs boot that copy as a
snapshot: the service starts from a cold disk, as after a boot.

Rule: what the image holds is told by its name; a changed source is another image.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from arena import job, machine
from arena.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from arena.guards import Guard
    from arena.image import Guest

IMAGES_KEPT = 3
PAGES = "src/docs"
TIMEOUT_S = 180
INSTALLED = "installed"
"""What the guest says when all went well."""

_SCRIPT = f"""\
( {{install}} ) && systemctl stop {{units}} && rm -rf /var/lib/forestall && \\
    echo {INSTALLED} > {machine.STATUS_PORT}
cd / && rm -rf /var/lib/job
sync
echo u > /proc/sysrq-trigger
sleep 1
echo o > /proc/sysrq-trigger
sleep 60
"""


def digest_of(files: Mapping[str, bytes | str | Path], command: str) -> str:
    """Name the state of a source tree, by the names and contents of its files."""
    found = hashlib.sha256(command.encode())
    for name, content in sorted(files.items()):
        if not isinstance(content, Path):
            continue
        for path in _plain_files(content):
            found.update(f"\0{name}\0{path.relative_to(content)}\0".encode())
            found.update(path.read_bytes())
    return found.hexdigest()[:12]


def _plain_files(content: Path) -> Iterable[Path]:
    if content.is_file():
        return (content,)
    # Bytecode comes and goes with whoever imports the tree.
    return sorted(p for p in content.rglob("*") if p.is_file() and p.suffix != ".pyc")


def ensure(
    guest: Guest,
    guard: Guard,
    *,
    lock: int,
    say: Callable[[str], None] = lambda _line: None,
    run: Callable[..., machine.Outcome] = machine.run,
) -> Guest:
    """Return the guest with the guard installed, making its image if there is none.

    Args:
        guest: a built guest.
        guard: one with an ``install`` command.
        lock: the held right to run a guest.
        say: told about the slow step.
        run: boots a guest; replaced in tests.

    Cost: 35 s under software emulation, once for each state of the source.

    Raises:
        BuildError: the guard could not be installed; with the end of the guest's console.
    """
    # Without the pages: the arena writes some of them after every run.
    files = {name: path for name, path in job.source_files().items() if name != PAGES}
    name = f"{guard.name}-{digest_of(files, guard.install)}.ext4"
    ready = replace(guest, image=name)
    if ready.root_image.exists():
        return ready
    say(f"installing {guard.name} in {guest.name}")
    _forget_old(guest.folder, guard.name)
    fresh = replace(guest, image=name + ".new")
    # Holes stay holes: 1.6 GiB, of which a third is in use.
    subprocess.run(
        ["cp", "--sparse=always", os.fspath(guest.root_image), os.fspath(fresh.root_image)],
        check=True,
    )
    script = _SCRIPT.format(install=guard.install, units=" ".join(guard.units))
    with tempfile.TemporaryDirectory(prefix="arena-") as folder:
        work = Path(folder)
        job.write_job(work / "job.tar", {"main.sh": script, **files})
        hardware = machine.Machine(keeps=True, timeout_s=TIMEOUT_S)
        outcome = run(fresh, hardware, work, lock=lock)
    if not outcome.powered_off or outcome.status != INSTALLED:
        fresh.root_image.unlink()
        last = "\n".join(outcome.console.splitlines()[-20:])
        raise BuildError(f"{guard.name} could not be installed in {guest.name}:\n{last}")
    fresh.root_image.rename(ready.root_image)
    return ready


def _forget_old(folder: Path, guard: str) -> None:
    images = sorted(folder.glob(f"{guard}-*.ext4"), key=lambda path: path.stat().st_mtime)
    for path in images[: -IMAGES_KEPT + 1]:
        path.unlink()
