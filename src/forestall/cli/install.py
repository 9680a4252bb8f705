"""``forestall install``: make the guard a service of this machine."""

from __future__ import annotations

from pathlib import Path

import click

from forestall.admin.install import Installer, Wish
from forestall.admin.systemd import Systemctl
from forestall.admin.unit_file import PREFIX
from forestall.cli.changing import needs_rights
from forestall.cli.console import out, safe
from forestall.cli.documents import documents


@click.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--prefix", default=PREFIX, show_default=True, help="Where the copy is put.")
@click.option(
    "--root",
    default="/",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write everything below this folder, and start nothing (for images and tests).",
)
@click.option("--no-start", is_flag=True, help="Write everything, but enable and start nothing.")
@click.option("--beside", is_flag=True, help="Install although another killer is active.")
@click.option("--replace", is_flag=True, help="Disable other killers; uninstall brings them back.")
@needs_rights
def command(
    yes: bool, prefix: str, root: Path, no_start: bool, beside: bool, replace: bool
) -> None:
    """Install the guard as a service.

    Puts a copy that belongs to root under the prefix, the command into
    /usr/local/bin, manual pages and completion for bash, zsh and fish beside it,
    settings under /etc/forestall, and a unit that is enabled and started.
    Uninstall takes all of it away.
    """
    wish = Wish(root=root, prefix=prefix, start=not no_start, beside=beside, replace=replace)
    installer = Installer(
        wish, Systemctl(), say=lambda line: out().print(safe(line)), documents=documents()
    )
    installer.check()
    if not yes:
        click.confirm(f"Install forestall under {prefix} and start it as a service?", abort=True)
    installer.install()
