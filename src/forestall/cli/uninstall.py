"""``forestall uninstall``: take the service away without a trace."""

from __future__ import annotations

from pathlib import Path

import click

from forestall.admin.install import Installer, Wish
from forestall.admin.systemd import Systemctl
from forestall.admin.unit_file import PREFIX
from forestall.cli.changing import needs_rights
from forestall.cli.console import out, safe


@click.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--purge", is_flag=True, help="Also remove changed settings and kept records.")
@click.option("--prefix", default=PREFIX, show_default=True, help="Where the copy was put.")
@click.option(
    "--root",
    default="/",
    type=click.Path(file_okay=False, path_type=Path),
    help="What was given to install.",
)
@needs_rights
def command(yes: bool, purge: bool, prefix: str, root: Path) -> None:
    """Remove everything that install wrote, and bring back what it replaced."""
    if not yes:
        what = ", your settings and all records" if purge else ""
        click.confirm(f"Stop the guard and remove it{what}?", abort=True)
    wish = Wish(root=root, prefix=prefix)
    installer = Installer(wish, Systemctl(), say=lambda line: out().print(safe(line)))
    installer.uninstall(purge=purge)
