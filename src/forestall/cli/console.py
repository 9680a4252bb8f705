"""Where the command line speaks: consoles, and names made harmless before they reach one."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

SHOWN_CHARACTERS_MAX = 300


def out() -> Console:
    """Return the console for answers; markup is never read out of text."""
    return Console(highlight=False, markup=False, emoji=False, soft_wrap=True)


def err() -> Console:
    """Return the console for complaints."""
    return Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)


def safe(text: object) -> str:
    """Make foreign text harmless on a terminal: what does not print is shown as an escape."""
    shown = "".join(_visible(char) for char in str(text)[:SHOWN_CHARACTERS_MAX])
    return shown + ("…" if len(str(text)) > SHOWN_CHARACTERS_MAX else "")


def styled(text: object, style: str) -> Text:
    """Return harmless text in a style."""
    return Text(safe(text), style=style)


def _visible(char: str) -> str:
    if char.isprintable():
        return char
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
