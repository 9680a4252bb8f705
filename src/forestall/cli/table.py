"""The commands, once: the help is read off this table, and a module is imported when called.

A row whose module is not part of this installation is not shown.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Row(NamedTuple):
    """One command."""

    name: str
    module: str
    """Below ``forestall.cli``; holds a click command object named ``command``."""
    help: str


SECTIONS: tuple[tuple[str, tuple[Row, ...]], ...] = (
    (
        "The guard",
        (
            Row("run", "run", "Guard this machine in the foreground."),
            Row("status", "status", "How memory stands, and what the guard would do."),
            Row("reload", "reload", "Put changed settings in force."),
            Row("config", "config", "Check the settings, or show what is in force."),
        ),
    ),
    (
        "Who would go",
        (
            Row("scores", "scores", "Processes by the kernel's score, and who would go next."),
            Row("top", "top", "The same live, with actions through the guard."),
            Row("explain", "explain", "Why a process stands where it stands."),
            Row("memory", "memory", "Where memory is when processes do not explain it."),
            Row("watch", "watch", "Follow memory: its level, who holds it, who could go."),
        ),
    ),
    (
        "What happened",
        (
            Row("why", "why", "Explain the last kills, the kernel's and ours."),
            Row("replay", "replay", "Step through a recorded episode again."),
            Row("oom-log", "oom_log", "Read OOM reports out of logs."),
        ),
    ),
    (
        "What to do about it",
        (
            Row("protect", "protect", "Protect processes from the kernel's killer."),
            Row("unit", "unit", "Write memory limits and protection for a systemd unit."),
            Row("clean", "clean", "Free what is safe to free."),
            Row("alert", "alert", "Send a test, or a message of your own, where alerts go."),
            Row("alerts", "alerts", "Which alerts were sent, which wait, which failed, and why."),
            Row("agent", "agent", "Show the guard's warnings on this desktop."),
        ),
    ),
    (
        "This machine",
        (
            Row("doctor", "doctor", "What this machine means for the guard, with remedies."),
            Row("setup", "setup", "Set everything up, step by step."),
            Row("peers", "peers", "Other killers: their settings, and how to live with them."),
            Row("install", "install", "Install the guard as a service."),
            Row("uninstall", "uninstall", "Remove everything that install wrote."),
            Row("completion", "completion", "Print what makes your shell complete all this."),
        ),
    ),
)
HIDDEN = (Row("docs", "docs", "Write the documentation that is generated from tables."),)

_HERE = Path(__file__).parent


def present(rows: tuple[Row, ...]) -> list[Row]:
    """Keep the rows whose module is installed."""
    return [row for row in rows if (_HERE / f"{row.module}.py").is_file()]


def all_rows() -> list[Row]:
    """Return every command of this installation, hidden ones last."""
    shown = [row for _title, rows in SECTIONS for row in present(rows)]
    return shown + present(HIDDEN)
