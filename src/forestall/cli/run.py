"""``forestall run``: read the settings, say what is in force, become the guard."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from forestall.cli.console import err, safe
from forestall.config.errors import ConfigError, Problem
from forestall.config.launch import PACKAGE, exec_guard, fit_to_user
from forestall.config.read import Settings, load
from forestall.config.table import BY_KEY
from forestall.config.trust import require_trusted_code
from forestall.core.model import Stage
from forestall.core.value import replace


@click.command()
@click.option("--dry-run", is_flag=True, help="Decide and record, but end nothing.")
@click.option("--interval", metavar="S", help='Longest sleep between samples: "0.5" or "500ms".')
@click.option(
    "--config",
    "files",
    multiple=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Read this file and no other; may be given again.",
)
@click.option("--socket", "socket_path", metavar="PATH", help="Listen here.")
@click.option(
    "--untrusted-code",
    is_flag=True,
    help="As root, run code or settings that others could have written (for development).",
)
def command(
    dry_run: bool,
    interval: str | None,
    files: tuple[Path, ...],
    socket_path: str | None,
    untrusted_code: bool,
) -> None:
    """Guard this machine in the foreground; Ctrl-C stops.

    Without root it guards your own processes only.
    """
    settings = load(files or None)
    if not untrusted_code:
        require_trusted_code(sys.executable, PACKAGE, settings.files)
    rules = settings.rules
    options = fit_to_user(settings.options, os.geteuid(), os.environ)
    if dry_run:
        options = replace(options, dry_run=True)
    if socket_path:
        options = replace(options, socket_path=str(Path(socket_path).absolute()))
    if interval is not None:
        rules = replace(rules, interval_ns=read_interval(interval))
    for line in (*opening_lines(settings), *without_root(os.geteuid(), sys.argv[0])):
        err().print(safe(line))
    exec_guard(rules, options, foreground=True)


def read_interval(text: str) -> int:
    """Read ``--interval``: a duration, or a bare number of seconds.

    Raises: ConfigError.
    """
    bare = text.replace(".", "", 1).isdigit()
    try:
        interval_ns: int = BY_KEY["timing.interval"].read(f"{text}s" if bare else text)
    except ValueError as error:
        raise ConfigError([Problem("--interval", "", str(error))]) from None
    return interval_ns


def opening_lines(settings: Settings) -> list[str]:
    """Say which settings are in force."""
    files = ", ".join(settings.files) or "none, everything has its default"
    names: dict[Stage, list[str]] = {stage: [] for stage in Stage}
    for trigger in settings.rules.triggers:
        names[trigger.stage].append(trigger.name)
    lines = [f"settings: {files}"]
    for stage, listed in names.items():
        if listed:
            lines.append(f"{stage.value}: {', '.join(listed)}")
    return lines


def without_root(uid: int, program: str) -> list[str]:
    """Say what an ordinary user's guard cannot do, and how the whole machine is guarded."""
    if uid == 0:
        return []
    return [
        f"without root only your own processes (uid {uid}) are guarded, and the guard itself is "
        "neither locked in memory nor protected; the whole machine: "
        f"sudo {program} install"
    ]
