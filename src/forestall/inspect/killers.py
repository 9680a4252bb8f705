"""Other programs that end processes when memory runs out; two of them fight over one machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from forestall.config.lint import Process


@dataclass(frozen=True, slots=True)
class Killer:
    """One such program."""

    name: str
    units: tuple[str, ...]
    comms: tuple[str, ...]
    """Its process names, as the kernel cuts them; a script's is its own name in cmdline."""


KILLERS = (
    Killer("earlyoom", ("earlyoom.service",), ("earlyoom",)),
    Killer("nohang", ("nohang.service", "nohang-desktop.service"), ("nohang",)),
    Killer(
        "systemd-oomd",
        ("systemd-oomd.service", "systemd-oomd.socket"),
        ("systemd-oomd",),
    ),
    Killer("oomd", ("oomd.service", "fb-oomd.service"), ("oomd",)),
    Killer("bustd", ("bustd.service",), ("bustd",)),
    Killer("thrash-protect", ("thrash-protect.service",), ("thrash-protect",)),
)
UNITS = tuple(unit for killer in KILLERS for unit in killer.units)


def running(processes: Iterable[Process]) -> list[tuple[Killer, Process]]:
    """Find killers among processes; by name, which anybody may take: only good for advice."""
    found = []
    for process in processes:
        for killer in KILLERS:
            if process.name in killer.comms:
                found.append((killer, process))
    return found


def killer_of(unit: str) -> str:
    """Name the program behind a unit."""
    return next((killer.name for killer in KILLERS if unit in killer.units), unit)
