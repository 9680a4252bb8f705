"""``forestall alerts``: what herald has sent, what waits, what failed, and why."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.text import Text

from forestall.cli.console import out, safe, styled
from forestall.core.units import human_ns
from forestall.herald.engine import ALIVE_NS
from forestall.herald.errors import HeraldError
from forestall.herald.letter import title
from forestall.herald.moments import utc
from forestall.herald.runner import spool_path
from forestall.herald.spool import FAILED, SENT, WAITING, Spool
from forestall.kernel.clock import wall_ns

if TYPE_CHECKING:
    from forestall.herald.spool import Row

STALE_NS = 3 * ALIVE_NS
"""herald writes a sign of life every minute."""
_STYLES = {SENT: "green", WAITING: "yellow", FAILED: "red"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@click.option(
    "--limit",
    type=click.IntRange(1, 500),
    default=10,
    show_default=True,
    help="Letters shown of each state.",
)
@click.option("--spool", metavar="FILE", help="Where herald keeps its letters.")
@click.pass_context
def command(ctx: click.Context, as_json: bool, limit: int, spool: str | None) -> None:
    """Show which alerts were sent, which wait, which failed, and why.

    Ends with 1 when something waits or has failed. The spool is root's to read.
    """
    path = spool or spool_path(os.environ)
    if _is_missing(path):
        raise HeraldError(
            f"there is no spool at {path}: herald has not run here; "
            "try: systemctl enable --now forestall-herald"
        )
    try:
        seen = _look(path, limit)
    except (sqlite3.Error, ValueError) as error:
        hint = "" if os.geteuid() == 0 else "; try sudo"
        raise HeraldError(f"herald's spool {path} cannot be read: {error}{hint}") from None
    if as_json:
        click.echo(json.dumps(seen, indent=2))
    else:
        _show(seen)
    ctx.exit(1 if any(one["waiting"] or one["failed"] for one in seen["channels"]) else 0)


def _is_missing(path: str) -> bool:
    try:
        Path(path).stat()
    except FileNotFoundError:
        return True
    except OSError:
        return False  # Perhaps only hidden from us; opening it will tell.
    return False


def _look(path: str, limit: int) -> dict[str, Any]:
    spool = Spool(path, lambda _sentence: None, read_only=True)
    try:
        return {
            "channels": [_channel(spool, name) for name in spool.channels()],
            "received": spool.count("received"),
            "lost": spool.count("lost"),
            "written_ns": int(spool.fact("alive") or 0),
            "letters": [
                _letter(row)
                for state in (WAITING, FAILED, SENT)
                for row in spool.newest(state, limit)
            ],
        }
    finally:
        spool.close()


def _channel(spool: Spool, name: str) -> dict[str, Any]:
    tally = spool.tally(name)
    return {
        "name": name,
        "wanted": tally.wanted,
        "sent": tally.sent,
        "waiting": tally.waiting,
        "held": tally.held,
        "failed": tally.failed,
    }


def _letter(row: Row) -> dict[str, Any]:
    return {
        "channel": row.channel,
        "state": row.state,
        "made": utc(row.made_ns),
        "title": title(row.letter),
        "events": row.count,
        "tries": row.tries,
        "next_ns": row.next_ns,
        "why": row.why,
    }


def _show(seen: dict[str, Any]) -> None:
    console = out()
    age_ns = wall_ns() - seen["written_ns"]
    if seen["channels"] and age_ns > STALE_NS:
        console.print(
            styled(
                f"herald wrote this {human_ns(age_ns)} ago: it does not run, or its disk takes "
                "nothing (journalctl -u forestall-herald)",
                "yellow",
            )
        )
    console.print(f"{seen['received']} events received, {seen['lost']} lost on the way")
    for one in seen["channels"]:
        counts = ", ".join(f"{one[name]} {name}" for name in (SENT, WAITING, "held", FAILED))
        console.print(styled(f"{one['name']:<12} ", "bold") + Text(f"of {one['wanted']}: {counts}"))
    for one in seen["letters"]:
        line = Text(f"{one['made']} ") + styled(f"{one['state']:<8}", _STYLES[one["state"]])
        line.append(f"{safe(one['channel']):<12} {safe(one['title'])}")
        if one["why"]:
            line.append(f"; {safe(one['why'])}", style="dim")
        if one["state"] == WAITING:
            left_ns = max(0, one["next_ns"] - wall_ns())
            line.append(f"; tried {one['tries']} times, again in {human_ns(left_ns)}", style="dim")
        console.print(line)
    if not seen["channels"]:
        console.print("nothing was to be sent yet")
