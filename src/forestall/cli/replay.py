"""``forestall replay``: a recorded episode through the policy again."""

from __future__ import annotations

import json
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from forestall import __version__
from forestall.cli import exits
from forestall.cli.console import out, safe, styled
from forestall.replay.again import replay
from forestall.replay.record import load

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.text import Text

    from forestall.replay.again import Outcome
    from forestall.replay.record import Record


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print what came of it as JSON.")
@click.pass_context
def command(ctx: click.Context, file: Path, as_json: bool) -> None:
    """Step through a recorded episode again: does every decision come out the same?

    FILE is an episode-*.jsonl of the guard's, plain or gzipped. They are kept in
    /var/lib/forestall, those of a guard without root in ~/.local/state/forestall.
    Nobody is touched. Ends with 1 when a decision differs, or FILE is no record.
    """
    record = load(file)
    outcome = replay(record)
    if as_json:
        click.echo(json.dumps(plain(record, outcome), indent=2))
    else:
        for line in sentences(record, outcome):
            out().print(line)
    ctx.exit(exits.PROBLEM.code if outcome.difference else exits.FINE.code)


def plain(record: Record, outcome: Outcome) -> dict[str, Any]:
    """Return what came of it as JSON has it."""
    difference = outcome.difference
    return {
        "same": difference is None,
        "events": outcome.events,
        "requests": outcome.requests,
        "ends": outcome.ends,
        "resets": outcome.resets,
        "cut": record.cut,
        "dropped": record.dropped,
        "format": record.version,
        "recorded_by": record.program or None,
        "difference": None
        if difference is None
        else {
            "line": difference.line,
            "event": difference.event,
            "monotonic_ns": difference.now_ns,
            "recorded": difference.recorded,
            "again": difference.again,
        },
    }


def sentences(record: Record, outcome: Outcome) -> Iterator[Text | str]:
    """Say for people what came of it."""
    by = f"by forestall {safe(record.program)}" if record.program else "by an older forestall"
    yield f"{len(record.lines)} events, recorded {by} (format {record.version})"
    if record.dropped:
        yield f"{record.dropped} entries had no room in the recorder before or during it"
    if record.cut:
        yield styled("the record was cut short; what is whole was replayed", "yellow")
    if outcome.resets:
        yield f"{outcome.resets} internal error(s) of the guard: its policy started afresh there"
    difference = outcome.difference
    if difference is None:
        yield (
            f"{outcome.requests} requests, {outcome.ends} of them to end somebody: "
            "all the same, byte for byte"
        )
        return
    at_s = difference.now_ns / 1e9
    yield styled(
        f"line {difference.line}: {difference.event} at {at_s:.3f} s is answered differently",
        "bold red",
    )
    recorded, again = _differing(difference.recorded, difference.again)
    yield f"  recorded:  {_request(recorded)}"
    yield f"  now:       {_request(again)}"
    if record.program != __version__:
        yield f"  this is forestall {__version__}, and the policy may have changed since"


def _differing(recorded: Any, again: Any) -> tuple[Any, Any]:  # noqa: ANN401 - plain data
    # Of two answers, the first requests that are not the same; what a longer one has more.
    if not isinstance(recorded, list) or not isinstance(again, list):
        return recorded, again
    pairs = zip_longest(recorded, again, fillvalue="nothing")
    return next((pair for pair in pairs if pair[0] != pair[1]), (recorded, again))


def _request(request: Any) -> str:  # noqa: ANN401 - plain data of a record
    if not isinstance(request, dict):
        return safe(request)
    name = request.get("_")
    if name == "Tell":
        return safe(f"{request.get('what')}: {request.get('sentence')}")
    if name == "End":
        pids = [one.get("pid") for one in request.get("victims") or () if isinstance(one, dict)]
        force = request.get("force")
        kind = force.get("is") if isinstance(force, dict) else force
        return safe(f"{kind} to {pids} ({request.get('comm')}): {request.get('why')}")
    return safe(json.dumps(request))
