"""``forestall reload``: compile the settings again and hand the rules to the guard."""

from __future__ import annotations

from pathlib import Path

import click

from forestall.admin.swap_grant import missing_grant
from forestall.cli.console import out, styled
from forestall.cli.link import connect
from forestall.config.read import load
from forestall.config.trust import require_trusted_settings
from forestall.core.codec import encode


@click.command()
@click.option(
    "--config",
    "files",
    multiple=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Read this file and no other; may be given again.",
)
@click.option("--socket", metavar="PATH", help="Where the guard listens.")
def command(files: tuple[Path, ...], socket: str | None) -> None:
    """Put changed settings in force; bad settings change nothing.

    What is under [guard] takes effect at the next start only.
    """
    settings = load(files or None)
    require_trusted_settings(settings.files)
    with connect(socket) as guard:
        answer = guard.call("Reload", rules=encode(settings.rules))
    out().print(f"reloaded: {answer.get('triggers')} triggers are in force")
    hint = missing_grant(settings.rules)
    if hint:
        out().print(styled(hint, "yellow"))
