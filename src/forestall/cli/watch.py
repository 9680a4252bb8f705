"""``forestall watch``: memory pressure in the foreground, through the library."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from forestall.cli.console import out, safe
from forestall.library.handlers import (
    AlertOnCritical,
    CleanUp,
    Suggest,
    describe,
)
from forestall.monitor import PressureMonitor

if TYPE_CHECKING:
    from collections.abc import Callable

    from forestall.library.event import PressureEvent
    from forestall.library.workers import Handler

_STYLES = {"low": "cyan", "medium": "yellow", "critical": "bold red"}


@click.command()
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3600),
    default=5.0,
    show_default=True,
    metavar="S",
    help="Seconds between two looks in calm; it looks more often by itself when memory is short.",
)
@click.option(
    "--duration",
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    help="Stop after so many seconds; without it, Ctrl-C stops.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per event.")
@click.option(
    "--clean",
    is_flag=True,
    help="From the medium level on, free what is safe to free (page cache; swap above 50%).",
)
@click.option("--low", type=float, metavar="PERCENT", help="Memory used from which it is low.")
@click.option("--medium", type=float, metavar="PERCENT", help="From which it is medium.")
@click.option("--critical", type=float, metavar="PERCENT", help="From which it is critical.")
def command(
    interval: float,
    duration: float | None,
    as_json: bool,
    clean: bool,
    **levels: float | None,
) -> None:
    """Follow memory in the foreground: every change of level, who holds it, who could go.

    Ends nobody. Works without root and without the guard, and hears the guard where one runs.
    """
    thresholds = {name: percent for name, percent in levels.items() if percent is not None}
    try:
        monitor = PressureMonitor(
            thresholds=thresholds or None,
            interval=interval,
            handlers=_handlers(as_json=as_json, clean=clean),
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    show = _show_json if as_json else _show
    first = monitor.current()
    show(first)
    monitor.add_handler(_Following(first, show))
    try:
        monitor.run(duration)
    except KeyboardInterrupt:
        monitor.stop()
        raise


class _Following:
    """Shows what comes after a first event, but not that one again: its level is news to others."""

    def __init__(self, first: PressureEvent, show: Callable[[PressureEvent], None]) -> None:
        self._known = first.level
        self._show = show

    def __call__(self, event: PressureEvent) -> None:
        """Show an event unless it only repeats the first."""
        known, self._known = self._known, ""
        if event.reason != "level" or event.level != known:
            self._show(event)


def _handlers(*, as_json: bool, clean: bool) -> list[Handler]:
    say = _say_json if as_json else _say("")
    handlers: list[Handler] = []
    if not as_json:
        handlers += [AlertOnCritical(_say("bold red")), Suggest(say)]
    if clean:
        handlers.append(CleanUp(say))
    return handlers


def _show(event: PressureEvent) -> None:
    style = _STYLES.get(event.pressure_level, "")
    first, *rest = describe(event)
    console = out()
    console.print(safe(first), style=style)
    for line in rest:
        console.print(safe(line))


def _show_json(event: PressureEvent) -> None:
    click.echo(json.dumps(event.as_dict(), sort_keys=True))


def _say(style: str) -> Callable[[str], None]:
    def say(line: str) -> None:
        out().print(safe(line), style=style)

    return say


def _say_json(line: str) -> None:
    click.echo(json.dumps({"said": line}))
