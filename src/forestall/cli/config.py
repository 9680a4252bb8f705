"""``forestall config``: check the settings, or show what is in force."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from forestall.cli.console import out, safe, styled
from forestall.config.lint import Finding, lint
from forestall.config.read import load
from forestall.config.show import defaults, render
from forestall.config.suggest import did_you_mean
from forestall.guard.journal import KINDS
from forestall.herald.event import OWN_KINDS
from forestall.inspect.surroundings import read_surroundings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from forestall.config.alerts import Channel

_FILES = click.option(
    "--config",
    "files",
    multiple=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Read this file and no other; may be given again.",
)


@click.group()
def command() -> None:
    """Check the settings, or show what is in force."""


@command.command()
@_FILES
@click.pass_context
def check(ctx: click.Context, files: tuple[Path, ...]) -> None:
    """Report every mistake in the settings, and what looks like one here.

    Ends with 3 when the settings are wrong, with 1 when something looks odd.
    """
    settings = load(files or None)
    read = ", ".join(settings.files) or "no settings files; everything has its default"
    findings = [*lint(settings, read_surroundings()), *unknown_kinds(settings.channels)]
    console = out()
    console.print(styled(read, "dim"))
    for finding in findings:
        print_finding(finding)
    count = len(findings)
    what = "nothing looks odd" if not count else f"{count} thing{'s' * (count > 1)} to look at"
    console.print(f"settings are valid; {what}")
    ctx.exit(1 if findings else 0)


@command.command()
@_FILES
@click.option("--defaults", "only_defaults", is_flag=True, help="Show what is built in.")
@click.option("--plain", is_flag=True, help="Leave out where each value came from.")
def show(files: tuple[Path, ...], only_defaults: bool, plain: bool) -> None:
    """Print all settings in force as TOML, each with where it came from."""
    settings = defaults() if only_defaults else load(files or None)
    click.echo(render(settings, origins=not plain), nl=False)


def unknown_kinds(channels: Iterable[Channel]) -> Iterator[Finding]:
    """Find kinds of events that channels wait for and nobody tells."""
    known = {*KINDS, *OWN_KINDS}
    for channel in channels:
        for kind in sorted(set(channel.keys["events"]) - known):
            yield Finding(
                f"alerts.{channel.name}.events",
                f"{safe(kind)!r} is no kind of event{did_you_mean(kind, known)}",
                "docs/events.md has them all; this one never comes",
            )


def print_finding(finding: Finding) -> None:
    """Print what looks odd, and what to do about it."""
    console = out()
    key = f"{finding.key}: " if finding.key else ""
    console.print(styled(f"{key}{finding.what}", "yellow"))
    console.print(f"  {safe(finding.remedy)}")
