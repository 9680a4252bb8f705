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
        return self._which("is-active", units, {"active", "activating", "reloading"})

    def enabled(self, units: Sequence[str]) -> list[str]:
        """Return which of the units start at boot."""
        return self._which("is-enabled", units, {"enabled", "enabled-runtime"})

    def do(self, *words: str) -> None:
        """Run systemctl.

        Raises: AdminError with what it said.
        """
        status, _told, complaint = _systemctl(*words)
        if status:
            raise AdminError(f"systemctl {' '.join(words)}: {complaint.strip() or status}")

    def _which(self, verb: str, units: Sequence[str], good: set[str]) -> list[str]:
        # One unit a call: is-enabled prints no line for a unit that does not exist.
        return [unit for unit in units if _systemctl(verb, unit)[1].strip() in good]


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
