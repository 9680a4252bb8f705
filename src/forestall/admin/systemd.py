"""systemctl, as install needs it; a fake takes its place in tests."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from forestall.admin.errors import AdminError

if TYPE_CHECKING:
    from collections.abc import Sequence

_TIMEOUT_S = 120


class Systemd(Protocol):
    """What install asks of the service manager."""

    def present(self) -> bool:
        """Whether systemd runs this machine."""

    def active(self, units: Sequence[str]) -> list[str]:
        """Return which of the units are active."""

    def enabled(self, units: Sequence[str]) -> list[str]:
        """Return which of the units start at boot."""

    def do(self, *words: str) -> None:
        """Run systemctl; raises AdminError with what it said."""


class Systemctl:
    """The real one."""

    def present(self) -> bool:
        """Whether systemd runs this machine, as sd_booted(3) finds out."""
        return Path("/run/systemd/system").is_dir()

    def active(self, units: Sequence[str]) -> list[str]:
        """Return which of the units are active."""
        # One line per unit, in their order; a unit that does not exist is inactive.
        states = _systemctl("is-active", *units)[1].split()
        good = {"active", "activating", "reloading"}
        return [unit for unit, state in zip(units, states, strict=False) if state in good]

    def enabled(self, units: Sequence[str]) -> list[str]:
        """Return which of the units start at boot."""
        # Unit, state, preset; a unit that does not exist has no line.
        told = _systemctl("list-unit-files", "--no-legend", "--full", *units)[1]
        rows = [line.split() for line in told.splitlines()]
        return [row[0] for row in rows if row[1:2] and row[1].startswith("enabled")]

    def do(self, *words: str) -> None:
        """Run systemctl.

        Raises: AdminError with what it said.
        """
        status, _told, complaint = _systemctl(*words)
        if status:
            raise AdminError(f"systemctl {' '.join(words)}: {complaint.strip() or status}")


def _systemctl(*words: str) -> tuple[int, str, str]:
    try:
        done = subprocess.run(
            ["systemctl", "--no-ask-password", *words],
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, "", str(error)
    return done.returncode, done.stdout, done.stderr
