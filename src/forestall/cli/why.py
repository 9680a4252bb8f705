"""``forestall why``: the last kill, or the kill of one thing, in plain words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from forestall.cli import exits
from forestall.cli.console import out, safe
from forestall.cli.oom_log import counter, document
from forestall.cli.oom_sources import any_source, file_source
from forestall.forensics import Incident, parse
from forestall.forensics.ask import about, survived
from forestall.forensics.escape import visible
from forestall.forensics.merge import fold_copies, on_one_line
from forestall.forensics.story import headline, tell
from forestall.forensics.vmstat import reconcile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from rich.console import Console

_TIMELINE = 6


def no_records() -> Iterable[Incident]:
    """Stand in for the guard's own records where there are none."""
    return ()


guard_records: Callable[[], Iterable[Incident]] = no_records
"""Reads what the guard itself did, as incidents, for the same timeline."""


@click.command()
@click.argument("asked", required=False, metavar="[NAME|PID|UNIT]")
@click.option("--last", is_flag=True, help="The last incident, whatever it was; the default.")
@click.option(
    "--file",
    "files",
    multiple=True,
    type=click.Path(path_type=Path, allow_dash=True, exists=True),
    help="Read this log instead of the journal; may be given more than once.",
)
@click.option("--since", metavar="TIME", help="How far back to read the journal.")
@click.option("--json", "as_json", is_flag=True, help="Print the story as JSON.")
@click.pass_context
def command(
    ctx: click.Context,
    asked: str | None,
    last: bool,
    files: tuple[Path, ...],
    since: str | None,
    as_json: bool,
) -> None:
    """Explain the last kill, or the kill of a process, a pid or a unit.

    Says what happened, who asked for memory, who died and why it and not
    another, the likeliest cause and what to do. Ends with 1 when the log has
    no such kill.
    """
    if asked is not None and last:
        raise click.UsageError("Give a name, or --last, not both.")
    sources = [file_source(path) for path in files] or [any_source(since)]
    read = fold_copies(i for source in sources for i in parse(source.portions, source.name))
    incidents = on_one_line(read, () if files else tuple(guard_records()))
    matching = about(incidents, asked)
    if not matching:
        click.echo(_nothing(incidents, asked), err=True)
        ctx.exit(exits.PROBLEM.code)
    chosen = matching[-1]
    counted = None if files else reconcile(counter(), incidents).sentence
    if as_json:
        click.echo(json.dumps(_document(chosen, incidents, counted), indent=1))
        return
    _print(out(), chosen, incidents, counted)
    if len(matching) > 1:
        out().print(f"{len(matching) - 1} more like it before; forestall oom-log lists them.")


def _print(
    console: Console, chosen: Incident, incidents: Sequence[Incident], counted: str | None
) -> None:
    console.print(headline(chosen), style="bold")
    for paragraph in tell(chosen, incidents):
        console.print(f"\n{paragraph.heading}", style="bold")
        for line in paragraph.lines:
            console.print(f"  {line}")
    at = incidents.index(chosen)
    around = incidents[max(0, at - _TIMELINE) : at + _TIMELINE]
    if len(around) > 1:
        console.print("\nAround it", style="bold")
        for incident in around:
            mark = ">" if incident is chosen else " "
            console.print(f"  {mark} {headline(incident)}")
    if counted is not None:
        console.print(f"\n{counted}")


def _document(
    chosen: Incident, incidents: Sequence[Incident], counted: str | None
) -> dict[str, object]:
    story = [
        {"heading": part.heading, "lines": list(part.lines)} for part in tell(chosen, incidents)
    ]
    told: dict[str, object] = {"headline": headline(chosen), "story": story}
    told["incident"] = document(incidents)[incidents.index(chosen)]
    if counted is not None:
        told["counter"] = counted
    return told


def _nothing(incidents: Sequence[Incident], asked: str | None) -> str:
    if asked is None:
        return "No out-of-memory kill in what can be read here."
    there = survived(incidents, asked)
    if there is not None:
        return (
            f"{safe(asked)} was not killed for memory in what can be read here. It was running,"
            f" and was passed over, at: {visible(headline(there))}"
        )
    return f"No out-of-memory kill of {safe(asked)} in what can be read here."
