"""A copy of the installed program and of the pure Python it needs, fit to belong to root."""

from __future__ import annotations

import compileall
import importlib.metadata
import importlib.util
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from forestall.admin.errors import AdminError

if TYPE_CHECKING:
    from collections.abc import Iterable

NEEDED = ("click", "rich")
"""Without these there is no command line; the guard itself needs neither."""
_COMPILED = (".so", ".pyd")
_LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc", "*.pyi")


def packages(needed: Iterable[str] = NEEDED) -> dict[str, Path]:
    """Find what to copy: our package, what it needs, and what those need, by import name.

    Optional parts that are not installed, or that hold compiled code, are left
    out: a copy has to work with the interpreter of the system.
    Raises: AdminError when something needed is missing or compiled.
    """
    found = {"forestall": Path(__file__).resolve().parents[1]}
    must = set(needed)
    for name in sorted(must | _wanted_imports()):
        path = _locate(name)
        if path is None or _is_compiled(path):
            if name in must:
                what = "is not installed" if path is None else "is compiled"
                raise AdminError(f"{name} {what} beside {found['forestall']}; it is needed")
            continue
        found[name] = path
    return found


def copy_packages(found: dict[str, Path], target: Path) -> None:
    """Copy packages and single modules into a folder that does not exist yet.

    Modes and owners are those of whoever copies: nothing is taken over.
    Raises: OSError; AdminError when the compiler refuses our own code.
    """
    target.mkdir(mode=0o755)
    for path in found.values():
        if path.is_dir():
            shutil.copytree(
                path, target / path.name, ignore=_LEFT_OUT, copy_function=shutil.copyfile
            )
        else:
            shutil.copyfile(path, target / path.name)
    for name in ("forestall", *NEEDED):
        if (target / name).is_dir():
            compileall.compile_dir(target / name, quiet=2, force=True)
    _set_modes(target)


def _set_modes(target: Path) -> None:
    for folder, _folders, files in os.walk(target):
        Path(folder).chmod(0o755)
        for file in files:
            (Path(folder) / file).chmod(0o644)


def _wanted_imports() -> set[str]:
    """Name the modules of everything installed that we depend on, near or far."""
    by_distribution: dict[str, list[str]] = {}
    for module, owners in importlib.metadata.packages_distributions().items():
        for owner in owners:
            by_distribution.setdefault(_normal(owner), []).append(module)
    wanted: set[str] = set()
    seen: set[str] = set()
    waiting = ["forestall"]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if name != "forestall":
            wanted.update(by_distribution.get(name, ()))
        waiting += _requirements(name, extras=name == "forestall")
    return wanted


def _requirements(name: str, *, extras: bool) -> list[str]:
    try:
        lines = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    names = []
    for line in lines:
        requirement, _, marker = line.partition(";")
        if "extra" in marker and (not extras or "dev" in marker):
            continue
        head = requirement.strip()
        for stop in " <>=!~[(":
            head = head.partition(stop)[0]
        names.append(_normal(head))
    return names


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def _locate(name: str) -> Path | None:
    if not name.isidentifier():
        return None
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    return Path(spec.origin)


def _is_compiled(path: Path) -> bool:
    if path.is_file():
        return path.suffix in _COMPILED
    return any(file.suffix in _COMPILED for file in path.rglob("*"))
