"""``forestall agent``: the guard's warnings as notes on the desktop of one's own session."""

from __future__ import annotations

import click

from forestall.cli.console import err
from forestall.cli.link import connect
from forestall.herald.agent import run


@click.command()
@click.option("--socket", metavar="PATH", help="Where the guard listens.")
@click.option("--bus", metavar="ADDRESS", default="SESSION", help="The session's bus.")
def command(socket: str | None, bus: str) -> None:
    """Show the guard's warnings on this desktop; Ctrl-C stops.

    Needs jeepney (pip install 'forestall[alerts]'). As a service of your session:
    systemctl --user enable --now forestall-agent
    """
    with connect(socket) as guard:
        path = guard.path
    run(path, bus, lambda sentence: err().print(f"forestall-agent: {sentence}"))
