"""Compile what runs inside the guest: one static actor, one static monitor.

Rule: compiled again when a source changed, found by digest and not by time.
"""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

from arena.errors import BuildError

SOURCES = Path(__file__).parent / "guest" / "src"
PROGRAMS = {
    "actor": ("actor.c", "memory.c", "apps.c", "trees.c", "hogs.c"),
    "monitor": (
        *("monitor.c", "report.c", "files.c", "roles.c", "deaths.c", "plan.c", "samples.c"),
    ),
}
FLAGS = ("-O2", "-Wall", "-Wextra", "-Werror", "-static", "-pthread")


def ensure(cache: Path, sources: Path = SOURCES) -> dict[str, Path]:
    """Return the compiled programs by name.

    Raises:
        BuildError: the compiler refused.
    """
    digest = hashlib.sha256(" ".join(FLAGS).encode())
    for path in sorted(sources.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    folder = cache / "programs" / digest.hexdigest()[:16]
    made = {name: folder / name for name in PROGRAMS}
    folder.mkdir(parents=True, exist_ok=True)
    for name, target in made.items():
        if target.exists():
            continue
        part = target.with_suffix(".part")
        inputs = [str(sources / source) for source in PROGRAMS[name]]
        done = subprocess.run(
            ["gcc", *FLAGS, "-o", str(part), *inputs], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise BuildError(f"gcc could not compile {name}:\n{done.stderr[-1500:]}")
        part.rename(target)
    return made
