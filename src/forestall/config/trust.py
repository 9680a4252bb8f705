"""Whether code and settings can be trusted by root: owned by root, and writable by nobody else.

Every folder above counts too: who may rename a folder may replace what is in it.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from forestall.config.errors import Problem, TrustError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

PROBLEMS_MAX = 10
_HINT = "forestall install makes a copy that belongs to root; run without root is fine"


def check(paths: Iterable[Path], *, owners: frozenset[int] = frozenset({0})) -> None:
    """Check trees, files and all folders above them.

    Args:
        owners: Who may own them; tests add themselves.

    Race: what is trusted can only be changed by those who are trusted, so the
    answer stays true after the look.
    Raises: TrustError naming what others could write, the first ten of it.
    """
    problems = []
    for path in paths:
        for problem in find_problems(path, owners=owners):
            if problem in problems:
                continue
            problems.append(problem)
            if len(problems) >= PROBLEMS_MAX:
                raise TrustError(problems)
    if problems:
        raise TrustError(problems)


def check_tree(path: Path, *, owners: frozenset[int] = frozenset({0})) -> None:
    """Check one tree, as ``check``.

    Raises: TrustError.
    """
    check([path], owners=owners)


def find_problems(path: Path, *, owners: frozenset[int]) -> Iterator[Problem]:
    """Yield what is wrong with a tree and the folders above it; of a bad folder only itself."""
    real = Path(os.path.realpath(path))
    for above in (*reversed(real.parents), real):
        problems = list(_judge(above, owners, above=above != real))
        if problems:
            yield from problems
            return
    for folder, folders, files in os.walk(real) if real.is_dir() else ():
        for name in files:
            yield from _judge(Path(folder) / name, owners, above=False)
        for name in list(folders):
            problems = list(_judge(Path(folder) / name, owners, above=False))
            if problems:
                yield from problems
                folders.remove(name)


def running_code(executable: str, package: str) -> list[Path]:
    """Name what a run executes: our package, the interpreter, its standard library."""
    return [Path(package), Path(os.path.realpath(executable)), Path(os.__file__)]


def _judge(path: Path, owners: frozenset[int], *, above: bool) -> Iterator[Problem]:
    try:
        status = path.lstat()
    except OSError as error:
        yield Problem(str(path), "", f"cannot be looked at: {error.strerror}")
        return
    if status.st_uid not in owners:
        yield Problem(str(path), "", f"belongs to uid {status.st_uid}, not to root", _HINT)
    elif not stat.S_ISLNK(status.st_mode) and _writable(status, owners, above=above):
        yield Problem(str(path), "", "can be written by others than root", "chmod go-w")


def _writable(status: os.stat_result, owners: frozenset[int], *, above: bool) -> bool:
    mode = status.st_mode
    if above and mode & stat.S_ISVTX:
        return False  # In a sticky folder such as /tmp nobody can replace what is root's.
    # An ACL that grants writing shows in the group bits, because they become its mask.
    by_group = bool(mode & stat.S_IWGRP) and status.st_gid not in owners
    return by_group or bool(mode & stat.S_IWOTH)


def require_trusted_code(
    executable: str,
    package: str,
    settings: Iterable[str],
    *,
    effective_uid: Callable[[], int] = os.geteuid,
) -> None:
    """Refuse to go on as root with code or settings that others can write.

    Raises: TrustError.
    """
    if effective_uid() == 0:
        check([*running_code(executable, package), *(Path(file) for file in settings)])


def require_trusted_settings(
    settings: Iterable[str], *, effective_uid: Callable[[], int] = os.geteuid
) -> None:
    """Refuse to hand root's guard settings that others can write.

    Raises: TrustError.
    """
    if effective_uid() == 0:
        check(Path(file) for file in settings)
