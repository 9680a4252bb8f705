"""Hostile text made harmless for a terminal, a log or a page.

Process names and cgroup paths are chosen by whoever runs there. Control
characters, terminal escapes, and the marks that turn text around are written
as escapes; the rest of Unicode is kept.
"""

from __future__ import annotations

import unicodedata

_HARMFUL = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def visible(text: str) -> str:
    r"""Write control and formatting characters as ``\x1b``, ``\u202e``; keep the rest."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_one(char) for char in text)


def _one(char: str) -> str:
    if unicodedata.category(char) not in _HARMFUL:
        return char
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
