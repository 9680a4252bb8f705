"""``forestall peers``: other killers, their settings as ours, and how to live with them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from forestall.admin.commands import run
from forestall.admin.earlyoom_install import EarlyoomInstaller
from forestall.admin.earlyoom_options import Wanted
from forestall.admin.files import write_whole
from forestall.admin.peers import PEERS, kernel_settings, look, peer_of, read_file, read_here
from forestall.admin.rights import require_root
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
from forestall.config.read import DROP_IN_DIR, load, load_text
from forestall.kernel.files import read_whole
from forestall.kernel.parse import parse_meminfo

if TYPE_CHECKING:
    from forestall.admin.imports import Imported
    from forestall.admin.peers import KernelSetting, Seen

_USUAL = Wanted()
_PEER = click.argument("name", type=click.Choice([peer.name for peer in PEERS]))


@click.group(invoke_without_command=True)
@as_json
@root_folder
@click.pass_context
@needs_rights
def command(ctx: click.Context, as_json: bool, root: Path) -> None:
    """Show other killers: here or not, what each would do, where they would fight.

    Ends with 1 when one that ends processes is active beside forestall's settings.
    """
    if ctx.invoked_subcommand is not None:
        return
    total_bytes = parse_meminfo(read_whole(str(root / "proc/meminfo"))).total_bytes
    seen = look(run, root, load(root=root).rules.triggers, total_bytes)
    kernel = kernel_settings(root)
    if as_json:
        print_json(
            {"peers": [asdict(one) for one in seen], "kernel": [asdict(one) for one in kernel]}
        )
    else:
        for one in seen:
            _print_peer(one)
        for row in kernel:
            _print_kernel(row)
    fights = any(one.active and one.fights for one in seen) or any(row.fights for row in kernel)
    ctx.exit(1 if fights else 0)


@command.command("import")
@_PEER
@click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--write", is_flag=True, help="Put it under /etc/forestall/forestall.toml.d.")
@as_json
@root_folder
@click.pass_context
@needs_rights
def import_(
    ctx: click.Context, name: str, file: Path | None, write: bool, as_json: bool, root: Path
) -> None:
    """Print a peer's settings as ours, a line for each thing that has no place here.

    Without FILE the settings it has on this machine are read. Ends with 1 when
    nothing of it could be carried over; then nothing is written either.
    """
    peer = peer_of(name)
    got = read_file(peer, file) if file else read_here(peer, run, root)
    text = got.to_toml()
    load_text(text, source=got.source)
    path = root / DROP_IN_DIR / f"50-from-{name}.toml"
    empty = not (got.triggers or got.lists or got.plain)
    if write and not empty:
        require_root(f"writing {path}")
        write_whole(path, text)
        load(root=root)
    if as_json:
        print_json(
            {
                "peer": name,
                "source": got.source,
                "settings": text,
                "lost": got.lost,
                "notes": got.notes,
                "written": str(path) if write and not empty else None,
            },
            as_is=frozenset({"settings"}),
        )
    elif write and not empty:
        _tell_written(got, path)
    else:
        click.echo(text, nl=False)
    ctx.exit(1 if empty else 0)


def _tell_written(got: Imported, path: Path) -> None:
    for line in (*got.notes, *(f"not carried over: {what}" for what in got.lost)):
        say(line, "yellow")
    say(f"{path} is written; forestall reload puts it in force")


@command.command()
@click.argument("name", type=click.Choice(["earlyoom"]))
@click.option(
    "--memory",
    default=_USUAL.memory_percent,
    show_default=True,
    type=click.IntRange(1, 99),
    metavar="PERCENT",
    help="Act below this much available memory.",
)
@click.option(
    "--swap",
    default=_USUAL.swap_percent,
    show_default=True,
    type=click.IntRange(1, 100),
    metavar="PERCENT",
    help="And below this much free swap; 100 does not ask about swap.",
)
@click.option("--group/--no-group", default=True, help="End the whole process group.")
@click.option(
    "--report",
    default=_USUAL.report_s,
    show_default=True,
    type=click.IntRange(0),
    metavar="S",
    help="Between two lines in its log, in seconds; 0 for none.",
)
@click.option(
    "--prefer", default=_USUAL.prefer, show_default=True, metavar="REGEX", help="End these first."
)
@click.option(
    "--avoid", default=_USUAL.avoid, show_default=True, metavar="REGEX", help="Spare these."
)
@click.option("--beside", is_flag=True, help="Install although another killer is active.")
@click.option("--replace", is_flag=True, help="Turn other killers off; remove turns them on.")
@yes
@dry_run
@as_json
@root_folder
@needs_rights
def install(  # noqa: PLR0913 - one parameter an option
    name: str,
    *,
    memory: int,
    swap: int,
    group: bool,
    report: int,
    prefer: str,
    avoid: str,
    beside: bool,
    replace: bool,
    yes: bool,
    dry_run: bool,
    as_json: bool,
    root: Path,
) -> None:
    """Install earlyoom by the distribution's packages, with options that it has."""
    wanted = Wanted(
        memory_percent=memory,
        swap_percent=swap,
        group=group,
        report_s=report,
        prefer=prefer,
        avoid=avoid,
    )
    installer = EarlyoomInstaller(run, root, wanted=wanted, beside=beside, replace=replace)
    if not dry_run:
        require_root(f"setting up {name}")
    steps = [step.text for step in installer.plan()]
    _tell_steps(steps, dry_run=dry_run, as_json=as_json)
    if dry_run:
        return
    confirm(f"Do this to set up {name}?", yes=yes)
    status = installer.install(_quiet if as_json else _tell_done)
    if as_json:
        print_json({"steps": steps, "done": True, "status": status}, as_is=frozenset({"status"}))
        return
    for line in status.splitlines():
        say(line)


@command.command()
@click.argument("name", type=click.Choice(["earlyoom"]))
@yes
@dry_run
@as_json
@root_folder
@needs_rights
def remove(name: str, yes: bool, dry_run: bool, as_json: bool, root: Path) -> None:
    """Take away what install set up, and bring back what was there."""
    installer = EarlyoomInstaller(run, root)
    if dry_run:
        steps = [step.text for step in installer.plan_removal()]
        _tell_steps(steps, dry_run=True, as_json=as_json)
        return
    require_root(f"removing {name}")
    confirm(f"Remove {name} and bring back what was there before?", yes=yes)
    steps = [step.text for step in installer.plan_removal()]
    installer.remove(_quiet if as_json else _tell_done)
    if as_json:
        print_json({"steps": steps, "done": True})


def _tell_steps(steps: list[str], *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        # What was done is told when it is done: a script reads one document.
        if dry_run:
            print_json({"steps": steps, "done": False})
        return
    for text in steps:
        say(f"would {text}" if dry_run else text, "dim")


def _tell_done(line: str) -> None:
    say(f"done: {line}")


def _quiet(_line: str) -> None:
    pass


def _print_peer(seen: Seen) -> None:
    if not seen.here:
        say(f"{seen.name}: not here", "dim")
        return
    state = "active" if seen.active else "here, not active"
    enabled = "starts at boot" if seen.enabled else "does not start at boot"
    say(f"{seen.name}: {state}, {enabled}", "bold yellow" if seen.active else "bold")
    for line in seen.does:
        say(f"  {line}")
    for line in seen.fights:
        say(f"  {'fights' if seen.active else 'would fight'}: {line}", "yellow")


def _print_kernel(row: KernelSetting) -> None:
    say(f"{row.path} = {row.value if row.value is not None else 'not there'}: {row.does}", "dim")
    if row.fights:
        say(f"  fights: {row.fights}", "yellow")
