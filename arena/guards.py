"""The guards that fight in the arena, each as its package installs it.

Rule: default settings only. A guard that needs tuning to win has not won.
"""

from __future__ import annotations

from dataclasses import dataclass

FORESTALL_INSTALL = (
    "PYTHONPATH=/var/lib/job/src/src:/var/lib/job/src/site PYTHONDONTWRITEBYTECODE=1 "
    "python3 -m forestall.cli.main install --yes"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """A memory guard and how to have it in a guest."""

    name: str
    unit: str = ""
    """The systemd unit to start, and to read the journal of."""

    slice: str = "system.slice"
    """Where that unit lives among the control groups."""

    beside: tuple[str, ...] = ()
    """Other units that its package starts."""

    programs: tuple[str, ...] = ()
    """Names its processes go by: whose signals count as the guard's hand."""

    install: str = ""
    """A command that puts it into an image, once, with the project's source at hand."""

    records: str = ""
    """Where it keeps records worth taking out, as a shell pattern."""

    wait_s: float = 1.5
    """How long it needs from its start to its first look, under software emulation."""

    package: str = ""
    """The Debian package, for its version."""

    @property
    def units(self) -> tuple[str, ...]:
        """All its units, the guard itself first; none when there is no guard."""
        return (self.unit, *self.beside) if self.unit else ()

    @property
    def group(self) -> str:
        """Its control group, below the root; empty when there is no guard."""
        return f"{self.slice}/{self.unit}" if self.unit else ""


GUARDS = {
    guard.name: guard
    for guard in (
        Guard(name="none", wait_s=0.5),
        Guard(name="earlyoom", unit="earlyoom.service", programs=("earlyoom",), package="earlyoom"),
        Guard(
            # nohang-desktop is what the Debian package enables.
            name="nohang",
            unit="nohang-desktop.service",
            slice="hostcritical.slice",
            programs=("nohang",),
            wait_s=6,
            package="nohang",
        ),
        Guard(
            name="systemd-oomd",
            unit="systemd-oomd.service",
            programs=("systemd-oomd",),
            package="systemd-oomd",
        ),
        Guard(name="oomd", unit="oomd.service", programs=("oomd",), package="oomd"),
        Guard(
            name="forestall",
            unit="forestall.service",
            beside=("forestall-herald.service",),
            programs=("forestall",),
            install=FORESTALL_INSTALL,
            records="/var/lib/forestall/*.jsonl",
            wait_s=3,
        ),
    )
}
PEERS = ("none", "earlyoom", "nohang", "systemd-oomd", "oomd")
