"""``forestall protect``: give and take back oom_score_adj, for the kernel's killer."""

from __future__ import annotations

import select
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from forestall.admin import follow_unit
from forestall.admin.audit import audit as find_faults
from forestall.admin.commands import run
from forestall.admin.protect import Protector, require_rights
from forestall.admin.subjects import Machine
from forestall.cli.changing import (
    as_json,
    confirm,
    dry_run,
    needs_rights,
    print_json,
    root_folder,
    say,
    yes,
)
from forestall.config.read import load
from forestall.kernel.files import read_whole
from forestall.kernel.parse import parse_meminfo

if TYPE_CHECKING:
    from collections.abc import Sequence

    from forestall.admin.ledger import Entry
    from forestall.admin.plan import Plan
    from forestall.admin.protect import Outcome

_only = click.option(
    "--only",
    multiple=True,
    metavar="SET",
    help="protect, expose, or the name of a set or a program; may be given again.",
)
_heirs = click.option(
    "--heirs",
    is_flag=True,
    help="Also treat what starts other people's programs, which inherit its value.",
)
_exact = click.option(
    "--exact", is_flag=True, help="Take numbers from -17 to 15 as written, not as old oom_adj."
)


@click.group()
def command() -> None:
    """Protect processes from the kernel's killer, and expose others to it.

    What belongs to whom is one table: the built-in sets, and oom_score_adj in the
    lists of [victims] in the settings.
    """


@command.command()
@_only
@_heirs
@_exact
@as_json
@root_folder
@needs_rights
def plan(only: tuple[str, ...], heirs: bool, exact: bool, as_json: bool, root: Path) -> None:
    """Show what apply would change, and who would inherit it."""
    made = _protector(root, exact=exact).plan(only=only, heirs=heirs)
    if as_json:
        print_json(made.to_plain())
    else:
        _print_plan(made)


@command.command()
@_only
@_heirs
@_exact
@click.option("--follow", is_flag=True, help="Also install the service that treats new processes.")
@yes
@dry_run
@as_json
@root_folder
@click.pass_context
@needs_rights
def apply(  # noqa: PLR0913, PLR0917 - one parameter an option
    ctx: click.Context,
    only: tuple[str, ...],
    heirs: bool,
    exact: bool,
    follow: bool,
    yes: bool,
    dry_run: bool,
    as_json: bool,
    root: Path,
) -> None:
    """Change what plan shows, and remember it for undo.

    Ends with 1 when the kernel refused something, with 4 without the right to do it.
    """
    protector = _protector(root, exact=exact)
    made = protector.plan(only=only, heirs=heirs or follow)
    if dry_run:
        print_json(made.to_plain()) if as_json else _print_plan(made)
        return
    lacks = require_rights()
    if follow:
        follow_unit.check(root)
    if not as_json:
        _print_plan(made)
        for lack in lacks:
            say(lack, "yellow")
    if made.changes:
        confirm(f"Change {len(made.changes)} processes?", yes=yes)
    outcomes = protector.apply(made.changes)
    if follow:
        follow_unit.install(root, run)
    _report(ctx, outcomes, as_json=as_json)


@command.command()
@yes
@dry_run
@as_json
@root_folder
@click.pass_context
@needs_rights
def undo(ctx: click.Context, yes: bool, dry_run: bool, as_json: bool, root: Path) -> None:
    """Give every process back exactly what it had, and remove the service."""
    if dry_run:
        _tell_remembered(_protector(root).remembered(), as_json=as_json)
        return
    require_rights()
    protector = _protector(root)
    if protector.count:
        confirm(f"Give {protector.count} processes back what they had?", yes=yes)
    if follow_unit.remove(root, run) and not as_json:
        say(f"{follow_unit.NAME} is removed")
    # The service may have added to the ledger until it stopped.
    _report(ctx, _protector(root).undo(), as_json=as_json)


@command.command()
@as_json
@root_folder
@click.pass_context
@needs_rights
def audit(ctx: click.Context, as_json: bool, root: Path) -> None:
    """Look for adjustments that do harm. Ends with 1 when there are some."""
    memory = parse_meminfo(read_whole(str(root / "proc/meminfo")))
    total_bytes = memory.total_bytes + memory.swap_total_bytes
    findings = find_faults(Machine(root).subjects(), total_bytes)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            say(f"{finding.kind}: {finding.what}", "yellow")
            say(f"  {finding.remedy}")
        if not findings:
            say("nothing looks wrong")
    ctx.exit(1 if findings else 0)


@command.command()
@click.option(
    "--interval",
    type=click.FloatRange(0.2, 3600),
    default=5.0,
    show_default=True,
    metavar="S",
    help="Between two looks, in seconds.",
)
@_exact
@root_folder
@needs_rights
def follow(interval: float, exact: bool, root: Path) -> None:
    """Treat new processes as they come, until stopped.

    What a process inherited from one of ours without a claim of its own is taken
    back. `protect apply --follow` installs this as a service.
    """
    for lack in require_rights():
        say(lack, "yellow")
    protector = _protector(root, exact=exact)
    nothing = select.poll()
    while True:
        for outcome in protector.tick():
            if not outcome.gone:
                say(outcome.describe())
        nothing.poll(interval * 1000)


def _protector(root: Path, *, exact: bool = False) -> Protector:
    return Protector(load(root=root).rules.victim_rules, root=root, exact=exact)


def _print_plan(plan: Plan) -> None:
    for change in plan.changes:
        say(change.describe())
        if change.explained:
            say(f"  {change.explained}", "yellow")
        if change.children:
            say(f"  new children inherit it; it has {', '.join(change.children)} now", "dim")
        elif change.new < 0:
            say("  new children inherit it; it has none now", "dim")
    for held in plan.held:
        say(f"{held.name} ({held.id.pid}): left alone, {held.why}", "yellow")
    say(
        f"{len(plan.changes)} to change, {len(plan.held)} left alone, "
        f"{plan.already} already as they should be"
    )


def _report(ctx: click.Context, outcomes: Sequence[Outcome], *, as_json: bool) -> None:
    failed = [outcome for outcome in outcomes if outcome.failed and not outcome.gone]
    if as_json:
        print_json([_plain(outcome) for outcome in outcomes])
    else:
        for outcome in outcomes:
            if not outcome.gone:
                say(outcome.describe(), "yellow" if outcome.failed else "")
        say(f"{sum(not o.failed for o in outcomes)} changed, {len(failed)} not")
    refused = any(outcome.failed.startswith("refused") for outcome in failed)
    ctx.exit(4 if refused and len(failed) == len(outcomes) else 1 if failed else 0)


def _tell_remembered(entries: Sequence[Entry], *, as_json: bool) -> None:
    if as_json:
        print_json([_plain(entry) for entry in entries])
        return
    for entry in entries:
        say(f"{entry.name} ({entry.id.pid}): {entry.new} -> {entry.old}, {entry.label}")
    say(f"{len(entries)} to give back, and what their children inherited")


def _plain(outcome: Outcome | Entry) -> dict[str, object]:
    plain = asdict(outcome)
    pid, start_ticks = plain.pop("id")
    return {"pid": pid, "start_ticks": start_ticks, **plain}
