"""Other programs, run with an argument list and a limit of patience; a fake takes their place."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from forestall.admin.errors import AdminError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TIMEOUT_S = 60
PACKAGES_TIMEOUT_S = 900
NOT_FOUND = 127


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What a program said."""

    status: int
    """Its exit status; 127 where there is no such program."""
    out: str = ""
    err: str = ""

    @property
    def ok(self) -> bool:
        """Whether it ended well."""
        return self.status == 0


class Run(Protocol):
    """Runs a program to its end."""

    def __call__(
        self,
        *words: str,
        timeout_s: float = TIMEOUT_S,
        environment: Mapping[str, str] | None = None,
    ) -> Done:
        """Run it; never raises for what the program does."""


def run(
    *words: str, timeout_s: float = TIMEOUT_S, environment: Mapping[str, str] | None = None
) -> Done:
    """Run a program without a shell, in the plain locale."""
    surroundings = {**os.environ, "LC_ALL": "C.UTF-8", "SYSTEMD_PAGER": "", **(environment or {})}
    try:
        done = subprocess.run(
            words,
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            env=surroundings,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError:
        return Done(status=NOT_FOUND, err=f"{words[0]} is not installed")
    except (OSError, subprocess.TimeoutExpired) as error:
        return Done(status=1, err=str(error))
    return Done(status=done.returncode, out=done.stdout, err=done.stderr)


def must(done: Done, words: Sequence[str]) -> str:
    """Return what a program printed.

    Raises: AdminError with its complaint when it failed.
    """
    if not done.ok:
        told = done.err.strip() or done.out.strip() or f"status {done.status}"
        raise AdminError(f"{' '.join(words)}: {told}")
    return done.out


def properties(run: Run, unit: str, *names: str) -> dict[str, str]:
    """Ask systemd for properties of a unit; empty without an answer."""
    done = run("systemctl", "show", "--no-pager", "-p", ",".join(names), "--", unit)
    lines = (line.partition("=") for line in done.out.splitlines()) if done.ok else ()
    return {name: held for name, sign, held in lines if sign}
