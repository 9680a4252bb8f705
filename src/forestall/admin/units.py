"""Protection and limits of a unit, as a drop-in file: checked, written whole, and taken back.

Rule: the file is tried in a folder of its own before it is put in place, and
what systemd did not take over is removed again.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from forestall.admin import directives
from forestall.admin.claims import understand
from forestall.admin.commands import NOT_FOUND, must, properties
from forestall.admin.directives import BY_NAME, FILE_NAME, INFINITY, SECTIONS
from forestall.admin.errors import AdminError
from forestall.admin.files import read_text, write_whole
from forestall.core.wards import ADJUST_LEAST, WARDS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from forestall.admin.commands import Run
    from forestall.admin.directives import Directive
    from forestall.core.wards import Ward

_ASKED = (
    *("LoadState", "ActiveState", "SubState", "Id", "FragmentPath", "Type", "MainPID"),
    *("ControlGroup", "ExecStart", *BY_NAME),
)
SIZE_SLACK = 4096
"""The kernel keeps limits in whole pages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """One setting: what is written, what holds now, and what it takes."""

    name: str
    wanted: str
    now: str | None
    """What holds for the processes that run; None where nothing tells."""
    in_force: bool
    then: str = ""
    """What it takes to come into force."""


@dataclass(slots=True, kw_only=True)
class UnitChange:
    """A drop-in that could be written: it can say what it is before it is made."""

    unit: str
    path: Path
    settings: dict[str, str]
    """What the file will say, all of it."""
    notes: list[str] = field(default_factory=list)

    def text(self) -> str:
        """Return the file."""
        return directives.render(self.settings, _kind(self.unit))


class Units:
    """Reads and changes units.

    Args:
        run: Runs systemctl and systemd-analyze.
        root: Where files are written, and the kernel's are read.
    """

    def __init__(self, run: Run, root: Path = Path("/")) -> None:
        self._run = run
        self._root = root

    def plan(
        self,
        name: str,
        wanted: Mapping[str, str],
        *,
        template: bool = False,
        exact: bool = False,
    ) -> UnitChange:
        """Check a wish and say what would be written.

        Args:
            wanted: Values by systemd's names.
            template: Also what the table has for this unit.
            exact: Take numbers from -17 to 15 as written.

        Raises: AdminError with what is wrong.
        """
        unit, state = self._find(name)
        change = UnitChange(unit=unit, path=self._path(unit), settings=self._ours(unit))
        if template:
            change.settings |= _template(unit, state)
        for key, raw in wanted.items():
            change.settings[key] = self._checked(BY_NAME[key], unit, raw, change.notes, exact=exact)
        if not change.settings:
            raise AdminError("nothing to set; see forestall unit --help")
        self._check_empty_shell(unit, state)
        if "pg_ctlcluster" in state.get("ExecStart", "") and "OOMScoreAdjust" in wanted:
            change.notes.append(
                "pg_ctlcluster sets the server to -900 itself, whatever is said here"
            )
        self._check_together(change)
        return change

    def apply(self, change: UnitChange) -> list[Effect]:
        """Write the file and have systemd read it.

        Raises: AdminError when systemd does not take it over; then the file is as before.
        """
        _, state = self._find(change.unit)
        self._verify(change, state.get("FragmentPath", ""))
        before = read_text(change.path)
        write_whole(change.path, change.text())
        try:
            self._reload()
            self._check_taken(change)
        except AdminError:
            self._put_back(change.path, before)
            raise
        return self.effects(change)

    def effects(self, change: UnitChange) -> list[Effect]:
        """Say what holds now and what after a restart."""
        state = properties(self._run, change.unit, *_ASKED)
        runs = state.get("ActiveState") in {"active", "activating", "reloading"}
        effects = []
        for name, wanted in change.settings.items():
            now = self._live(BY_NAME[name], state) if runs else None
            in_force = now is not None and _same(name, wanted, now)
            then = "" if in_force else _then(change.unit, runs=runs)
            effects.append(Effect(name=name, wanted=wanted, now=now, in_force=in_force, then=then))
        return effects

    def undo(self, name: str) -> Path:
        """Remove our file; returns where it was.

        Raises: AdminError when there is none, or it was changed by hand.
        """
        path = self.ours(name)
        self._put_back(path, None)
        return path

    def ours(self, name: str) -> Path:
        """Find our file; it may lie under a name that the unit had before.

        Raises: AdminError when there is none, or it was changed by hand.
        """
        unit = self._full_name(name)
        paths = [self._path(unit)]
        known = properties(self._run, unit, "Id").get("Id", "") if "@." not in unit else ""
        paths += [self._path(known)] if known else []
        path = next((path for path in paths if path.exists()), None)
        if path is None:
            raise AdminError(f"{paths[0]} is not there: nothing of ours to undo")
        if directives.parse(read_text(path) or "") is None:
            raise AdminError(f"{path} was changed by hand; remove it yourself")
        return path

    # Finding and checking.

    def _full_name(self, name: str) -> str:
        known = name.rpartition(".")[2] in SECTIONS
        full = name if known else f"{name}.service"
        odd = full.startswith("-") and full != "-.slice"
        if odd or "/" in full or not full.isascii() or not full.isprintable() or " " in full:
            raise AdminError(f"{name!r} is no name of a unit")
        return full

    def _find(self, name: str) -> tuple[str, dict[str, str]]:
        unit = self._full_name(name)
        if "@." in unit:
            words = ("systemctl", "cat", "--", unit)
            if not self._run(*words).ok:
                raise AdminError(f"there is no template {unit} here")
            return unit, {}
        state = properties(self._run, unit, *_ASKED)
        load = state.get("LoadState")
        if load is None:
            raise AdminError("systemd does not answer here: systemctl show failed")
        if load == "not-found":
            raise AdminError(f"there is no unit {unit} here; systemctl list-units shows them")
        if load != "loaded":
            raise AdminError(f"{unit} is {load}: what is set on it would not count")
        # A drop-in belongs to the unit itself, not to another name of it.
        return state.get("Id") or unit, state

    def _checked(
        self, directive: Directive, unit: str, raw: str, notes: list[str], *, exact: bool
    ) -> str:
        if _kind(unit) not in directive.kinds:
            raise AdminError(f"{directive.name}: a {_kind(unit)} has no such setting")
        version = self._version()
        if version is not None and version < directive.since:
            raise AdminError(
                f"{directive.name}: systemd has it since {directive.since}; this is {version}, "
                "which would ignore it"
            )
        if directive.needs_oomd:
            self._check_oomd(directive, notes)
        try:
            held = directive.read(raw)
        except ValueError as error:
            raise AdminError(f"{directive.option} {raw}: {error}") from None
        if directive.name != "OOMScoreAdjust":
            return held
        number, explained = understand(int(held), exact=exact)
        notes += [explained] if explained else []
        self._check_adjust(unit, number, notes)
        return str(number)

    def _check_adjust(self, unit: str, number: int, notes: list[str]) -> None:
        ward = ward_of_unit(unit)
        if number < 0 and ward is not None and ward.adjust == ADJUST_LEAST:
            raise AdminError(
                f"{unit}: sshd gives every session the value it was started with, so all shells "
                "would have it; it makes itself immune, and protect sets the listener alone"
            )
        if number == ADJUST_LEAST:
            notes.append("at -1000 everything it starts is immune too, unless it resets that")

    def _check_oomd(self, directive: Directive, notes: list[str]) -> None:
        state = properties(self._run, "systemd-oomd.service", "LoadState", "ActiveState")
        if state.get("LoadState") != "loaded":
            raise AdminError(f"{directive.name}: systemd-oomd is not here, nobody would look at it")
        if not (self._root / "sys/fs/cgroup/cgroup.controllers").exists():
            raise AdminError(f"{directive.name}: counts on cgroup v2 only, and this is not")
        if state.get("ActiveState") != "active":
            notes.append(f"{directive.name}: systemd-oomd does not run at present")

    def _check_empty_shell(self, unit: str, state: Mapping[str, str]) -> None:
        """Refuse units that only pull in others, such as Debian's postgresql.service."""
        if state.get("Type") != "oneshot" or state.get("MainPID", "0") != "0":
            return
        stem = unit.removesuffix(".service")
        words = ("list-units", "--plain", "--no-legend", "--", f"{stem}@*.service")
        lines = self._run("systemctl", *words).out.split("\n")
        found = [line.split()[0] for line in lines if line.strip()]
        if found:
            raise AdminError(
                f"{unit} runs nothing itself; name {', '.join(found)}, or {stem}@.service for all"
            )

    def _check_together(self, change: UnitChange) -> None:
        order = []
        for name, directive in BY_NAME.items():
            held = change.settings.get(name)
            if directive.cgroup_file and held and (size := directives.size_bytes(held)):
                order.append((name, size))
        for (low_name, low), (high_name, high) in pairwise(order):
            if low > high:
                change.notes.append(f"{low_name} lies above {high_name}: it never counts")
        if "MemoryMax" in change.settings and change.settings.get("OOMPolicy") == "continue":
            change.notes.append("at MemoryMax the kernel ends one process of it; the rest goes on")

    # Writing.

    def _verify(self, change: UnitChange, fragment: str) -> None:
        """Let systemd read the file where it does no harm.

        systemd-analyze exits with 0 for what it ignores, so its words count.
        """
        with tempfile.TemporaryDirectory(prefix="forestall-unit-") as folder:
            trial = Path(folder) / f"{change.unit}.d" / FILE_NAME
            write_whole(trial, change.text())
            done = self._run(
                *("systemd-analyze", "verify", "--man=no", fragment or change.unit),
                environment={"SYSTEMD_UNIT_PATH": f"{folder}:"},
            )
        if done.status == NOT_FOUND:
            change.notes.append("systemd-analyze is not installed; the file was not verified")
            return
        bad = [line for line in done.err.splitlines() if FILE_NAME in line or folder in line]
        if bad:
            raise AdminError("systemd would not take it: " + "; ".join(bad).replace(folder, ""))

    def _check_taken(self, change: UnitChange) -> None:
        if "@." in change.unit:
            return
        state = properties(self._run, change.unit, *change.settings)
        for name, wanted in change.settings.items():
            if name in state and not _same(name, wanted, state[name]):
                raise AdminError(
                    f"{name}={wanted} is written, but systemd has {state[name]}: another drop-in "
                    f"counts more; systemctl cat {change.unit} shows it"
                )

    def _reload(self) -> None:
        must(self._run("systemctl", "daemon-reload"), ("systemctl", "daemon-reload"))

    def _put_back(self, path: Path, text: str | None) -> None:
        if text is not None:
            write_whole(path, text)
        else:
            path.unlink(missing_ok=True)
            try:
                path.parent.rmdir()
            except OSError:
                pass  # There are drop-ins of others.
        self._reload()

    def _path(self, unit: str) -> Path:
        return self._root / "etc/systemd/system" / f"{unit}.d" / FILE_NAME

    def _ours(self, unit: str) -> dict[str, str]:
        text = read_text(self._path(unit))
        if text is None:
            return {}
        settings = directives.parse(text)
        if settings is None:
            raise AdminError(f"{self._path(unit)} was changed by hand; move it away first")
        return settings

    # Reading what holds.

    def _live(self, directive: Directive, state: Mapping[str, str]) -> str | None:
        if directive.name == "OOMScoreAdjust":
            return self._read(f"proc/{self._main_pid(state)}/oom_score_adj")
        if directive.cgroup_file:
            held = self._read(
                f"sys/fs/cgroup{state.get('ControlGroup', '')}/{directive.cgroup_file}"
            )
            return INFINITY if held == "max" else held
        if directive.name == "OOMPolicy" and state.get("OOMPolicy") == "kill":
            group = self._read(f"sys/fs/cgroup{state.get('ControlGroup', '')}/memory.oom.group")
            return "kill" if group == "1" else None
        return state.get(directive.name)

    def _main_pid(self, state: Mapping[str, str]) -> str:
        pid = state.get("MainPID", "0")
        if pid != "0":
            return pid
        procs = self._read(f"sys/fs/cgroup{state.get('ControlGroup', '')}/cgroup.procs") or ""
        return procs.split()[0] if procs else "0"

    def _read(self, path: str) -> str | None:
        try:
            text = read_text(self._root / path)
        except OSError:
            return None
        return None if text is None else text.strip()

    def _version(self) -> int | None:
        words = self._run("systemctl", "--version").out.split()
        return int(words[1]) if len(words) > 1 and words[1].isdigit() else None


def ward_of_unit(unit: str) -> Ward | None:
    """Find the ward that a unit belongs to."""
    for ward in WARDS:
        if any(fnmatchcase(unit, pattern) for pattern in ward.units):
            return ward
    return None


def templates() -> list[tuple[str, dict[str, str]]]:
    """List what --template gives, by unit."""
    return [
        (pattern, _of_ward(ward))
        for ward in WARDS
        for pattern in ward.units
        if ward.adjust not in {None, ADJUST_LEAST} and not ward.starts_others
    ]


def _template(unit: str, state: Mapping[str, str]) -> dict[str, str]:
    ward = ward_of_unit(unit)
    if ward is None or ward.adjust in {None, ADJUST_LEAST} or ward.starts_others:
        known = ", ".join(pattern for pattern, _ in templates())
        raise AdminError(f"there is no template for {unit}; there are: {known}")
    settings = _of_ward(ward)
    held = state.get("OOMScoreAdjust", "0")
    if int(held) < int(settings["OOMScoreAdjust"]):
        del settings["OOMScoreAdjust"]  # Its package protects it better already.
    return settings


def _of_ward(ward: Ward) -> dict[str, str]:
    return {"OOMScoreAdjust": str(ward.adjust), "OOMPolicy": "continue"}


def _kind(unit: str) -> str:
    return unit.rpartition(".")[2]


def _then(unit: str, *, runs: bool) -> str:
    if "@." in unit:
        return "from the next start of each instance"
    return f"from the next start: systemctl restart {unit}" if runs else "from its next start"


def _same(name: str, wanted: str, held: str) -> bool:
    """Compare a value as written with one as shown: systemd and the kernel show bytes."""
    if wanted == held or wanted.endswith("%"):
        return True
    if not BY_NAME[name].cgroup_file:
        return False
    if wanted == INFINITY:
        return held == str(2**64 - 1)  # as systemd before 231 shows it
    size = directives.size_bytes(wanted)
    return size is not None and held.isdigit() and abs(size - int(held)) <= SIZE_SLACK
