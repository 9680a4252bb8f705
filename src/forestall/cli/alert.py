"""``forestall alert``: send a message or a test on the channels of the settings."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from forestall.cli.console import out, safe, styled
from forestall.config.read import load
from forestall.herald.event import read_event
from forestall.herald.letter import write
from forestall.herald.outcome import Sent
from forestall.herald.send import send as deliver
from forestall.kernel.clock import wall_ns

if TYPE_CHECKING:
    from forestall.config.alerts import Channel
    from forestall.herald.letter import Letter

_FILES = click.option(
    "--config",
    "files",
    multiple=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Read this file and no other; may be given again.",
)


_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print what became of it as JSON.")


@click.group()
def command() -> None:
    """Send an alert on the channels of the settings, past the spool and at once."""


@command.command()
@click.argument("channel", required=False)
@_AS_JSON
@_FILES
@click.pass_context
def test(ctx: click.Context, channel: str | None, files: tuple[Path, ...], as_json: bool) -> None:
    """Send a test on every channel, or on one, and say what became of it.

    Ends with 1 when a channel did not take it. Run as root it reads the secrets
    in /etc/credstore itself; herald is given them by systemd.
    """
    sentence = "This is a test; nothing is wrong."
    ctx.exit(_send_all(_chosen(channel, files), _letter("test", sentence), as_json=as_json))


@command.command()
@click.argument("message", nargs=-1, required=True)
@click.option("--channel", metavar="NAME", help="Only on this channel.")
@_AS_JSON
@_FILES
@click.pass_context
def send(
    ctx: click.Context,
    message: tuple[str, ...],
    channel: str | None,
    files: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Send a message of your own on every channel, or on one.

    Ends with 1 when a channel did not take it.
    """
    letter = _letter("alert", " ".join(message))
    ctx.exit(_send_all(_chosen(channel, files), letter, as_json=as_json))


def _chosen(name: str | None, files: tuple[Path, ...]) -> list[Channel]:
    channels = load(files or None).channels
    if name is None:
        return list(channels)
    chosen = [channel for channel in channels if channel.name == name]
    if not chosen:
        names = ", ".join(channel.name for channel in channels) or "none"
        raise click.UsageError(f"There is no channel {name!r}; there are: {names}.")
    return chosen


def _letter(what: str, sentence: str) -> Letter:
    raw = {"what": what, "sentence": sentence, "time_ns": wall_ns(), "host": os.uname().nodename}
    return write([read_event(0, raw)])


def _send_all(channels: list[Channel], letter: Letter, *, as_json: bool) -> int:
    rows = []
    for channel in channels:
        outcome = deliver(channel, letter, environment=os.environ, wall_ns=wall_ns())
        row = {"channel": channel.name, "type": channel.kind, "sent": isinstance(outcome, Sent)}
        rows.append({**row, "why": "" if isinstance(outcome, Sent) else outcome.why})
        if not as_json:
            # At once: the next one may take its whole time limit.
            _show(rows[-1])
    if as_json:
        click.echo(json.dumps(rows))
    elif not rows:
        out().print("there is no channel in the settings")
    return 0 if all(row["sent"] for row in rows) else 1


def _show(row: dict[str, Any]) -> None:
    line = styled(f"{row['channel']} ({row['type']}): ", "bold")
    if row["sent"]:
        out().print(line + styled("sent", "green"))
    else:
        out().print(line + styled(f"not sent: {safe(row['why'])}", "red"))
