"""What a shell offers for an argument: processes and units of this machine.

Rule: a shell waits for it while somebody types, so nothing here raises or asks the guard.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from click.shell_completion import CompletionItem

from forestall.admin.commands import run
from forestall.admin.units import templates
from forestall.core.sentence import plain
from forestall.kernel.inventory import name_of, pids

if TYPE_CHECKING:
    import click

OFFERED_MAX = 1000
"""Nobody reads more; with another digit it is another list."""
TIMEOUT_S = 2


def processes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the numbers of processes, with their names."""
    del ctx, param
    found = [pid for pid in pids() if str(pid).startswith(incomplete)]
    return [CompletionItem(str(pid), help=plain(name_of(pid))) for pid in found[:OFFERED_MAX]]


def units(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the services of this machine, and those the table has a template for."""
    del ctx, param
    words = ("list-unit-files", "--no-legend", "--no-pager", "--type=service", "--plain")
    told = run("systemctl", *words, timeout_s=TIMEOUT_S)
    here = [line.split()[0] for line in told.out.splitlines() if line.split()] if told.ok else []
    known = {pattern.replace("*", "") for pattern, _ in templates()}
    names = sorted(known.union(here))
    return [CompletionItem(name) for name in names if name.startswith(incomplete)][:OFFERED_MAX]
