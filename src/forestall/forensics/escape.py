"""Hostile text made harmless for a terminal, a log or a page.

Process names and cgroup paths are chosen by whoever runs there. Control characters,
terminal escapes, the marks that turn text around, and blanks that are not the
blank are written as escapes; the rest of Unicode is kept.
"""

from __future__ import annotations


def visible(text: str) -> str:
    r"""Write what does not print as ``\x1b``, ``\u202e``; keep the rest."""
    return text if text.isprintable() else "".join(_one(char) for char in text)


def _one(char: str) -> str:
    if char.isprintable():
        return char
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
