"""``forestall unit``: protection and limits of a systemd unit, as a drop-in file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from forestall.admin.commands import run
from forestall.admin.directives import BY_NAME, DIRECTIVES
from forestall.admin.rights import require_root
from forestall.admin.units import Units, templates
from forestall.cli import choices
from forestall.cli.changing import (
    as_json,
    dry_run,
    needs_rights,
    print_json,
    root_folder,
    say,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from forestall.admin.units import Effect, UnitChange


def _directives(command: Callable[..., None]) -> Callable[..., None]:
    """Add an option for each row of the table."""
    for row in reversed(DIRECTIVES):
        option = click.option(row.option, row.name, metavar=row.metavar, help=row.help)
        command = option(command)
    return command


def _show_templates(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted:
        for unit, settings in templates():
            say(f"{unit}: " + ", ".join(f"{name}={held}" for name, held in settings.items()))
        ctx.exit()


@click.command()
@click.argument("name", shell_complete=choices.units)
@_directives
@click.option("--template", is_flag=True, help="Take what the table has for such a unit.")
@click.option(
    "--templates",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_templates,
    help="List the templates.",
)
@click.option("--undo", is_flag=True, help="Remove what this command wrote.")
@click.option(
    "--exact", is_flag=True, help="Take numbers from -17 to 15 as written, not as old oom_adj."
)
@dry_run
@as_json
@root_folder
@needs_rights
def command(  # noqa: PLR0913 - one parameter an option
    name: str,
    *,
    template: bool,
    undo: bool,
    exact: bool,
    dry_run: bool,
    as_json: bool,
    root: Path,
    **given: Any,  # noqa: ANN401 - one for each row of the table
) -> None:
    """Write memory limits and protection for the unit NAME.

    The file is tried by systemd-analyze before it is put in place. What is
    printed tells what holds now, and what only after a restart.
    """
    units = Units(run, root)
    if undo and dry_run:
        path = units.ours(name)
        print_json({"would_remove": str(path)}) if as_json else say(f"{path} would be removed")
        return
    if undo:
        require_root(f"removing what was written for {name}")
        path = units.undo(name)
        print_json({"removed": str(path)}) if as_json else say(
            f"{path} is removed; what runs keeps its values until it is restarted"
        )
        return
    wanted = {key: held for key in BY_NAME if (held := given[key]) is not None}
    change = units.plan(name, wanted, template=template, exact=exact)
    if dry_run:
        _print(change, None, as_json=as_json)
        return
    require_root(f"writing {change.path}")
    _print(change, units.apply(change), as_json=as_json)


def _print(change: UnitChange, effects: list[Effect] | None, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "unit": change.unit,
                "path": str(change.path),
                "settings": change.settings,
                "notes": change.notes,
                "written": effects is not None,
                "effects": [asdict(effect) for effect in effects or ()],
            }
        )
        return
    say(f"{change.path}" + ("" if effects is not None else " would be"))
    for line in change.text().splitlines():
        say(f"  {line}", "dim")
    for note in change.notes:
        say(note, "yellow")
    for effect in effects or ():
        if effect.in_force:
            say(f"{effect.name}: {effect.wanted} holds now")
        else:
            now = "" if effect.now is None else f" is {effect.now} now;"
            say(f"{effect.name}:{now} {effect.wanted} {effect.then}")
