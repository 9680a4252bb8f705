"""Typos: what somebody probably meant."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_NAME_CHARACTERS_MAX = 100


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean …?``, or the list of what there is, when nothing is near."""
    names = sorted(known)
    near = nearest(name, names)
    return f"; did you mean {near}?" if near else "; there are " + ", ".join(names)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the nearest known name, or nothing."""
    near = difflib.get_close_matches(name[:_NAME_CHARACTERS_MAX].lower(), list(known), 1, 0.6)
    return near[0] if near else ""
