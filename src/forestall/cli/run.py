"""``forestall run``: read the settings, say what is in force, become the guard."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from forestall.cli.console import err, safe
from forestall.config.errors import ConfigError, Problem
from forestall.config.launch import PACKAGE, exec_guard, fit_to_user
from forestall.config.read import Settings, load
from forestall.config.table import BY_KEY
from forestall.config.trust import require_trusted_code
from forestall.control.client import Client
from forestall.control.errors import ControlError, Unreachable
from forestall.core.model import Stage
from forestall.core.rules import Options
from forestall.core.value import replace
from forestall.inspect.killers import running
from forestall.inspect.surroundings import for_each_process

if TYPE_CHECKING:
    from collections.abc import Iterable

    from forestall.config.lint import Process

ANSWER_S = 1.0
"""So long for another guard to answer before it counts as none."""


@click.command()
@click.option("--dry-run", is_flag=True, help="Decide and record, but end and free nothing.")
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
@click.option("--beside", is_flag=True, help="Run although another guard of forestall's runs.")
def command(
    dry_run: bool,
    interval: str | None,
    files: tuple[Path, ...],
    socket_path: str | None,
    untrusted_code: bool,
    beside: bool,
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
    if not (options.dry_run or beside):
        refuse_second(dict.fromkeys((Options().socket_path, options.socket_path)))
    for line in (
        *opening_lines(settings),
        *without_root(os.geteuid(), sys.argv[0]),
        *other_killers(for_each_process()),
    ):
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


def refuse_second(paths: Iterable[str]) -> None:
    """Refuse to be the second guard: both would act on the same moment, on two victims.

    Raises: click.ClickException, naming the first.
    """
    for path in paths:
        try:
            with Client(path, timeout_s=ANSWER_S) as guard:
                facts = guard.call("GetStatus").get("status", {}).get("guard", {})
        except ControlError as error:
            if isinstance(error, Unreachable):
                continue
            facts = {}
        whom = f"process {facts['pid']}" if facts.get("pid") else "a guard"
        raise click.ClickException(
            f"{whom} guards here already and answers at {path}, and a second guard would end a "
            "second victim; stop it first (Ctrl-C there, or systemctl stop forestall), watch it "
            "with forestall status, or say --dry-run or --beside"
        )


def other_killers(processes: Iterable[Process]) -> list[str]:
    """Name the killers of others that run here."""
    return [
        f"{killer.name} runs too (process {process.pid}): two killers fight over one machine, "
        "and both act on the same moment; forestall peers says what to do"
        for killer, process in running(processes)
    ]
