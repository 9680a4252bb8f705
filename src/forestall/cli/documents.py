"""What install puts beside the command: manual pages, and what makes shells complete it."""

from __future__ import annotations

from forestall.cli.completion import SHELLS, completion_script
from forestall.cli.manual import man_pages

MAN_FOLDER = "/usr/local/share/man/man1"


def documents() -> dict[str, str]:
    """Return every file by its place; all of them are text, and for everybody to read."""
    files = {f"{MAN_FOLDER}/{name}": text for name, text in man_pages().items()}
    return files | {path: completion_script(shell) for shell, path in SHELLS.items()}
