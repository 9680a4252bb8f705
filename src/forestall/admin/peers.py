"""Other killers on this machine: which are here, what they would do, where they would fight.

Rule: looking changes nothing; what a peer would do is read off its settings by
the same code that imports them.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from forestall.admin import other_imports
from forestall.admin.commands import properties
from forestall.admin.earlyoom_options import import_earlyoom
from forestall.admin.errors import AdminError
from forestall.admin.files import read_text
from forestall.config.conditions import render_condition
from forestall.core.model import Stage
from forestall.core.rules import Signal
from forestall.core.units import human_bytes
from forestall.inspect.killers import KILLERS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from forestall.admin.commands import Run
    from forestall.admin.imports import Imported
    from forestall.core.rules import Trigger

GUARD_UNIT = "forestall.service"
SETTINGS_BYTES_MAX = 1024 * 1024
_UNITS = {killer.name: killer.units for killer in KILLERS}
_AMOUNTS = {Signal.AVAILABLE, Signal.SWAP_FREE}
_ENDS = {Stage.TERMINATE: "SIGTERM", Stage.KILL: "SIGKILL", Stage.WARN: "warns"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One program that ends others, or warns, when memory runs out."""

    name: str
    units: tuple[str, ...]
    settings: tuple[str, ...]
    """Where its settings may be, the first that is there counts."""
    victim: str
    """Whom it ends."""
    read: Callable[[str, str], Imported]


PEERS = (
    Peer(
        name="earlyoom",
        units=_UNITS["earlyoom"],
        settings=("etc/default/earlyoom", "etc/sysconfig/earlyoom"),
        victim="the process with the highest oom_score",
        read=import_earlyoom,
    ),
    Peer(
        name="nohang",
        units=_UNITS["nohang"],
        settings=(
            *("etc/nohang/nohang-desktop.conf", "etc/nohang/nohang.conf"),
            "usr/share/nohang/nohang.conf",
        ),
        victim="the process with the highest oom_score, corrected by rules",
        read=other_imports.import_nohang,
    ),
    Peer(
        name="systemd-oomd",
        units=_UNITS["systemd-oomd"],
        settings=("etc/systemd/oomd.conf", "usr/lib/systemd/oomd.conf"),
        victim="a whole cgroup, often an application or a session",
        read=other_imports.import_systemd_oomd,
    ),
    Peer(
        name="oomd",
        units=_UNITS["oomd"],
        settings=("etc/oomd/oomd.json", "etc/oomd.json"),
        victim="a whole cgroup",
        read=other_imports.import_oomd,
    ),
    Peer(
        name="low-memory-monitor",
        units=("low-memory-monitor.service",),
        settings=("etc/low-memory-monitor.conf",),
        victim="nobody, unless it triggers the kernel's killer",
        read=other_imports.import_low_memory_monitor,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One peer as it is on this machine."""

    name: str
    here: bool
    active: tuple[str, ...]
    enabled: tuple[str, ...]
    settings: str
    """The file its settings were read from; empty where there is none."""
    does: tuple[str, ...]
    fights: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelSetting:
    """One of the kernel's own settings that decide who dies."""

    path: str
    value: str | None
    does: str
    fights: str = ""


def peer_of(name: str) -> Peer:
    """Find a peer by its name.

    Raises: AdminError naming those there are.
    """
    for peer in PEERS:
        if peer.name == name:
            return peer
    raise AdminError(f"{name} is not known here; there are {', '.join(p.name for p in PEERS)}")


def look(
    run: Run,
    root: Path,
    ours: Sequence[Trigger],
    total_bytes: int,
    *,
    which: Callable[[str], str | None] = shutil.which,
) -> list[Seen]:
    """Look at every peer.

    Args:
        ours: Our triggers in force.
        total_bytes: Memory of the machine, which percentages are of.
        which: Finds a program; for machines that systemd does not run.
    """
    return [
        _look_at(peer, run, root, ours, total_bytes, program=which(peer.name)) for peer in PEERS
    ]


def active_units(run: Run) -> list[str]:
    """Name the units of peers that run."""
    return [unit for peer in PEERS for unit in _state_of(run, peer)[1]]


def settings_of(peer: Peer, root: Path) -> tuple[str, str] | None:
    """Read the settings of a peer: the file's name, and its text with what is dropped in.

    Raises: OSError.
    """
    for name in peer.settings:
        text = read_text(root / name)
        if text is not None:
            folders = [root / f"{name}.d", root / f"usr/lib/{name.removeprefix('etc/')}.d"]
            more = sorted((p for f in folders for p in f.glob("*.conf")), key=lambda p: p.name)
            parts = [text, *(read_text(path) or "" for path in more)]
            return f"/{name}", "\n".join(parts)[:SETTINGS_BYTES_MAX]
    return None


def read_file(peer: Peer, path: Path) -> Imported:
    """Import a settings file that somebody names.

    Raises: AdminError when it cannot be read.
    """
    try:
        text = read_text(path)
    except OSError as error:
        raise AdminError(f"{path}: {error.strerror}") from None
    if text is None:
        raise AdminError(f"{path}: there is no such file")
    return peer.read(text[:SETTINGS_BYTES_MAX], str(path))


def read_here(peer: Peer, run: Run, root: Path) -> Imported:
    """Import the settings that a peer has on this machine.

    Raises: AdminError where there are none.
    """
    found = settings_of(peer, root)
    if found is None:
        raise AdminError(f"{peer.name} has no settings here; name a file")
    source, text = found
    if peer.name == "systemd-oomd":
        return other_imports.import_systemd_oomd(text, source, _preferences(run))
    return peer.read(text, source)


def kernel_settings(root: Path) -> list[KernelSetting]:
    """Read the kernel's own settings, and say what each would do."""
    rows = []
    for path, does, harmless, fights in _KERNEL:
        text = read_text(root / path)
        held = None if text is None else text.strip()
        clash = fights if held is not None and held not in harmless else ""
        rows.append(KernelSetting(path=f"/{path}", value=held, does=does, fights=clash))
    return rows


_KERNEL = (
    (
        "proc/sys/vm/panic_on_oom",
        "out of memory: 0 ends a process, 1 and 2 stop the machine",
        {"0"},
        "the machine stops before anybody can end anything",
    ),
    (
        "proc/sys/vm/oom_kill_allocating_task",
        "0 ends the largest, 1 whoever happened to ask",
        {"0"},
        "oom_score_adj then counts for nothing",
    ),
    (
        "proc/sys/vm/overcommit_memory",
        "0 guesses, 1 always grants, 2 refuses beyond a limit",
        {"0", "1"},
        "programs fail to allocate before the guard sees a shortage",
    ),
    (
        "sys/kernel/mm/lru_gen/min_ttl_ms",
        "how long recently used pages are kept; beyond that the kernel ends somebody",
        {"0"},
        "the kernel ends its own choice as soon as the machine thrashes",
    ),
)


def _look_at(
    peer: Peer,
    run: Run,
    root: Path,
    ours: Sequence[Trigger],
    total_bytes: int,
    *,
    program: str | None,
) -> Seen:
    installed, active, enabled = _state_of(run, peer)
    installed = installed or program is not None
    found = settings_of(peer, root)
    theirs: list[Trigger] = []
    if installed and found is not None:
        theirs = peer.read(found[1], found[0]).triggers
    return Seen(
        name=peer.name,
        here=installed,
        active=tuple(active),
        enabled=tuple(enabled),
        settings=found[0] if found else "",
        does=tuple(_say(trigger, peer) for trigger in theirs),
        fights=tuple(_fights(peer, theirs, ours, total_bytes)) if installed else (),
    )


def _state_of(run: Run, peer: Peer) -> tuple[bool, list[str], list[str]]:
    active, enabled, installed = [], [], False
    for unit in peer.units:
        state = properties(run, unit, "LoadState", "ActiveState", "UnitFileState")
        installed = installed or state.get("LoadState") in {"loaded", "masked"}
        if state.get("ActiveState") in {"active", "activating", "reloading"}:
            active.append(unit)
        if state.get("UnitFileState") in {"enabled", "enabled-runtime"}:
            enabled.append(unit)
    return installed, active, enabled


def _say(trigger: Trigger, peer: Peer) -> str:
    when = " and ".join(render_condition(condition) for condition in trigger.conditions)
    hold = f" for {trigger.hold_ns // 1_000_000_000} s" if trigger.hold_ns else ""
    whom = "" if trigger.stage is Stage.WARN else f" to {peer.victim}"
    return f"{_ENDS.get(trigger.stage, trigger.stage.value)}{whom} when {when}{hold}"


def _fights(
    peer: Peer, theirs: Sequence[Trigger], ours: Sequence[Trigger], total_bytes: int
) -> list[str]:
    """Say whether they act before us, and on whom."""
    their, our = _first(theirs, total_bytes), _first(ours, total_bytes)
    if not any(_ends(trigger) for trigger in theirs) or our is None:
        return []
    if their is None:
        return [f"it acts by other signs than ours: both may end somebody ({peer.victim})"]
    if their > our:
        return [
            f"it acts first: at {human_bytes(their)} available, forestall at {human_bytes(our)}; "
            f"it would end {peer.victim}, and forestall never chooses"
        ]
    return [
        f"it acts at {human_bytes(their)} available, forestall at {human_bytes(our)}: "
        "a second victim while the memory of the first comes back"
    ]


def _first(triggers: Sequence[Trigger], total_bytes: int) -> int | None:
    """Return the largest amount of available memory at which somebody is ended for that alone."""
    amounts = [
        condition.amount.of(total_bytes)
        for trigger in triggers
        if _ends(trigger) and all(one.signal in _AMOUNTS for one in trigger.conditions)
        for condition in trigger.conditions
        if condition.signal is Signal.AVAILABLE and condition.amount is not None
    ]
    return max(amounts, default=None)


def _ends(trigger: Trigger) -> bool:
    return trigger.stage in {Stage.TERMINATE, Stage.KILL}


def _preferences(run: Run) -> dict[str, str]:
    done = run("systemctl", "show", "--no-pager", "-p", "Id,ManagedOOMPreference", "--", "*")
    found: dict[str, str] = {}
    for block in done.out.split("\n\n"):
        state = dict(line.partition("=")[::2] for line in block.splitlines())
        if state.get("ManagedOOMPreference") in {"avoid", "omit"}:
            found[state.get("Id", "")] = state["ManagedOOMPreference"]
    return found
