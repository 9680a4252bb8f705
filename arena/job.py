"""What travels into a guest: a tar of files, with ``main.sh`` to be run.

Rule: a job is complete in itself; the guest fetches nothing.
"""

from __future__ import annotations

import importlib.util
import io
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

from arena.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PROJECT = Path(__file__).parent.parent
SOURCE_PARTS = ("src", "pyproject.toml", "README.md", "LICENSE", "deploy", "docs")
DEPENDENCIES = ("click", "rich", "markdown_it", "mdurl", "pygments")
"""Pure Python, so the host's copies run in any guest."""

SITE = "site"
"""Folder of the dependencies beside ``src`` in the source tree."""

_PADDING = 1 << 20  # a disk must not end where the tar does: readers read blocks


def source_files(project: Path = PROJECT) -> dict[str, Path]:
    """Map names in the guest to the project's source and its dependencies.

    Raises:
        HostError: a dependency is not installed beside the running Python.
    """
    files: dict[str, Path] = {}
    for part in SOURCE_PARTS:
        if (project / part).exists():
            files[f"src/{part}"] = project / part
    for name in DEPENDENCIES:
        found = importlib.util.find_spec(name)
        if found is None or not found.submodule_search_locations:
            raise HostError(f"the package {name} is not installed here; run make setup first")
        files[f"src/{SITE}/{name}"] = Path(next(iter(found.submodule_search_locations)))
    return files


def put_files(paths: Iterable[Path]) -> dict[str, Path]:
    """Map names in the guest to files that a person wants there (under ``put/``)."""
    files: dict[str, Path] = {}
    for path in paths:
        if not path.exists():
            raise HostError(f"no such file: {path}")
        files[f"put/{path.resolve().name}"] = path
    return files


def write_job(target: Path, files: Mapping[str, bytes | str | Path]) -> None:
    """Write a job as a raw tar, padded to be read as a disk.

    Args:
        target: the file that becomes the guest's second disk.
        files: name in the job to contents, or to a file or folder to copy.
    """
    with tarfile.open(target, "w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in files.items():
            if isinstance(content, Path):
                tar.add(content, name, filter=_as_root)
                continue
            data = content.encode() if isinstance(content, str) else content
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            entry.mode = 0o755
            tar.addfile(entry, io.BytesIO(data))
    with target.open("ab") as file:
        file.write(b"\0" * _PADDING)


def _as_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    # The guest's user 1000 is not whoever owns these files here.
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    return entry
