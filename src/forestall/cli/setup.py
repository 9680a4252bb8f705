"""``forestall setup``: everything, step by step; or by flags, without a terminal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from forestall.admin import follow_unit
from forestall.admin.commands import run
from forestall.admin.earlyoom_install import EarlyoomInstaller
from forestall.admin.install import Installer, Wish
from forestall.admin.protect import Protector
from forestall.admin.rights import require_root
from forestall.admin.setup import FORESTALL, GUARDS, Choices, Setup
from forestall.admin.systemd import Systemctl
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
from forestall.cli.documents import documents
from forestall.config.read import load

if TYPE_CHECKING:
    from collections.abc import Callable

    from forestall.admin.setup import SetupPlan

_QUESTIONS = (
    ("take_over", "Take over the settings of a killer that is replaced?"),
    ("protect", "Protect ssh, databases, web servers and sessions from the kernel's killer?"),
    ("expose", "Have browsers and development tools ended first?"),
    ("follow", "Treat new processes too, by a small service?"),
    ("units", "Write the same for known services, so that it holds after a restart?"),
)


@click.command()
@click.option("--guard", type=click.Choice(GUARDS), help="Which killer is left active.")
@click.option("--take-over/--no-take-over", default=None, help="Import the other's settings.")
@click.option("--protect/--no-protect", default=None, help="Protect what matters.")
@click.option("--expose/--no-expose", default=None, help="Have the others ended first.")
@click.option("--follow/--no-follow", default=None, help="Treat new processes too.")
@click.option("--units/--no-units", default=None, help="Write drop-ins for known services.")
@yes
@dry_run
@as_json
@root_folder
@needs_rights
def command(
    *, guard: str | None, yes: bool, dry_run: bool, as_json: bool, root: Path, **flags: bool | None
) -> None:
    """Set up a guard, protection and units, asking what was not said.

    --yes takes the recommended answer for all that was not said.
    """
    asks = not yes and not as_json and sys.stdin.isatty()
    if not (yes or dry_run or asks):
        raise click.UsageError("There is no terminal to ask on; --yes takes what is recommended.")
    if not dry_run:
        require_root("setting this machine up")
    choices = _choices(guard, flags, asks=asks)
    plan = _setup(root, quiet=as_json, dry_run=dry_run).plan(choices)
    if not as_json:
        _print_plan(plan)
    if not dry_run:
        confirm(f"Do these {len(plan.steps)} things?", yes=yes)
        for step in plan.steps:
            step.perform()
            if not as_json:
                say(f"done: {step.text}", "green")
    if as_json:
        print_json(
            {"steps": [step.text for step in plan.steps], "notes": plan.notes, "done": not dry_run}
        )


def _choices(guard: str | None, flags: dict[str, bool | None], *, asks: bool) -> Choices:
    if guard is None:
        guard = FORESTALL
        if asks:
            guard = click.prompt(
                "Which guard should be active", type=click.Choice(GUARDS), default=guard
            )
    said = {name: held for name, held in flags.items() if held is not None}
    for name, question in _QUESTIONS:
        relevant = guard == FORESTALL or name not in {"take_over", "follow"}
        if asks and relevant and name not in said:
            said[name] = click.confirm(question, default=True)
    return Choices(guard=guard, **said)


def _setup(root: Path, *, quiet: bool, dry_run: bool) -> Setup:
    tell: Callable[[str], None] = (lambda _line: None) if quiet else say

    def install_guard() -> Callable[[], None]:
        wish = Wish(root=root, replace=True)
        installer = Installer(wish, Systemctl(), say=tell, documents=documents())
        installer.check(only_looking=dry_run)
        return installer.install

    return Setup(
        run,
        root,
        protector=lambda: Protector(load(root=root).rules.victim_rules, root=root),
        install_guard=install_guard,
        earlyoom=lambda: EarlyoomInstaller(run, root, replace=True),
        install_follow=lambda: follow_unit.install(root, run),
        systemd=root == Path("/") and Systemctl().present(),
        say=tell,
    )


def _print_plan(plan: SetupPlan) -> None:
    for step in plan.steps:
        say(f"- {step.text}")
    for note in plan.notes:
        say(f"  {note}", "yellow")
