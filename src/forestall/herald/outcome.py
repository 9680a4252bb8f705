"""What became of a letter, and when to try again. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from forestall.core.units import MINUTE, SECOND

FIRST_RETRY_NS = 2 * SECOND
RETRY_NS_MAX = 15 * MINUTE
RETRY_AFTER_NS_MAX = 60 * MINUTE
AGE_NS_MAX = 24 * 60 * MINUTE
"""A letter that could not be sent for so long is given up, and counted."""
WHY_CHARACTERS_MAX = 300


@dataclass(frozen=True, slots=True)
class Sent:
    """The other side has taken it."""


@dataclass(frozen=True, slots=True)
class Later:
    """Not now; another try may succeed."""

    why: str
    after_ns: int | None = None
    """How long the other side asked us to wait, if it did."""


@dataclass(frozen=True, slots=True)
class Never:
    """Refused for good: another try would be refused as well."""

    why: str


Outcome: TypeAlias = Sent | Later | Never


def next_try_ns(tries: int, outcome: Later, now_ns: int, made_ns: int) -> int | None:
    """Return when to try again; None to give up.

    Args:
        tries: How often it was tried, this time included.
        made_ns: When the letter was written.
    """
    if now_ns - made_ns >= AGE_NS_MAX:
        return None
    # Doubling, and never sooner than we were asked to.
    wait_ns = min(FIRST_RETRY_NS << min(max(tries - 1, 0), 20), RETRY_NS_MAX)
    if outcome.after_ns is not None:
        wait_ns = max(wait_ns, min(max(outcome.after_ns, 0), RETRY_AFTER_NS_MAX))
    return now_ns + wait_ns


def retry_after_ns(header: str | None) -> int | None:
    """Read a Retry-After header in seconds; a date or nonsense is None."""
    text = (header or "").strip()
    if not text.isascii() or not text.replace(".", "", 1).isdigit() or len(text) > 12:
        return None
    return int(float(text) * SECOND)
