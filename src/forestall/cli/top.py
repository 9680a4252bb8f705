"""``forestall top``: the live screen."""

from __future__ import annotations

import os
import sys

import click

from forestall.cli import exits
from forestall.cli.link import connect
from forestall.cli.scenes import GUARD_TIMEOUT_S, guard_pid, guard_status, rules_here
from forestall.inspect.scores import Scores
from forestall.kernel.errors import KernelError

MISSING = (
    "forestall: the live screen needs textual, which is not installed here.\n"
    "Install it with: pip install 'forestall[tui]'\n"
    "Without it there is: forestall scores --watch"
)


@click.command()
@click.option(
    "--interval",
    type=click.FloatRange(0.2, 3600),
    default=2.0,
    show_default=True,
    metavar="S",
    help="Between two looks, in seconds.",
)
@click.option("--socket", metavar="PATH", help="Where the guard listens.")
@click.pass_context
def command(ctx: click.Context, interval: float, socket: str | None) -> None:
    """Show scores, memory and both next victims live; ? lists the keys.

    Everything that changes something is asked about first and goes through the
    guard; without one, or without the right to, it only shows.
    """
    try:
        # Heavy, and an optional extra: imported by nobody but this command.
        from forestall.tui.app import Top  # noqa: PLC0415
        from forestall.tui.source import Machine  # noqa: PLC0415
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "textual":
            raise
        click.echo(MISSING, err=True)
        ctx.exit(exits.KERNEL.code)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("top needs a terminal; in a script use: forestall scores --json")
    rules, note = rules_here()
    if note:
        click.echo(f"forestall: {note}", err=True)
    try:
        scores = Scores(rules, guard_pid=guard_pid(guard_status(socket)), rank=True)
    except (OSError, KernelError) as error:
        click.echo(f"forestall: the processes cannot be read here: {error}", err=True)
        ctx.exit(exits.KERNEL.code)
    source = Machine(scores, lambda: connect(socket, timeout_s=GUARD_TIMEOUT_S), uid=os.geteuid())
    Top(source, interval_s=interval).run()
    scores.close()
