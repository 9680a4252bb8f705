"""Times as logs print them, turned into moments where that is possible.

Logs leave out the year, the zone, or write months in the reader's language. What
cannot be read stays unknown.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_ISO = re.compile(r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d))?)?")
_NAMED = re.compile(r"([A-Za-z]{3})[a-z]*\.?\s+(\d{1,2})\s+(?:\d{4}\s+)?(\d\d):(\d\d):(\d\d)")
_YEAR = re.compile(r"\b(20\d\d|19\d\d)\b")
_AGO = re.compile(r"-?\s*(\d{1,6})\s*(s|sec|second|m|min|minute|h|hour|d|day|w|week)s?(?:\s+ago)?")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_CLOCK = re.compile(r"(\d\d):(\d\d):(\d\d)")


def moment(text: str, now: datetime) -> datetime | None:
    """Read a log's time as local time; ``now`` gives the year where the log does not."""
    iso = _ISO.search(text)
    if iso is not None:
        return _made(*(int(part or 0) for part in iso.groups()))
    named = _NAMED.search(text)
    if named is None or named[1].lower() not in _MONTHS:
        return None
    month = _MONTHS.index(named[1].lower()) + 1
    year = _YEAR.search(text)
    rest = (month, *(int(part) for part in named.groups()[1:]))
    if year is not None:
        return _made(int(year[1]), *rest)
    this_year = _made(now.year, *rest)
    if this_year is not None and this_year > now + timedelta(days=1):
        return _made(now.year - 1, *rest)
    return this_year


def since(text: str, now: datetime) -> datetime | None:
    """Read what a person means by "since"; None if it cannot be read."""
    wanted = text.strip().lower()
    if wanted in {"today", "yesterday"}:
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        return midnight - timedelta(days=wanted == "yesterday")
    ago = _AGO.fullmatch(wanted)
    if ago is not None:
        return now - timedelta(seconds=int(ago[1]) * _UNITS[ago[2][0]])
    return moment(text, now)


def second_of_hour(text: str) -> int | None:
    """Give minute and second of a time as one number; zones differ in hours."""
    clock = _CLOCK.search(text)
    return int(clock[2]) * 60 + int(clock[3]) if clock else None


def _made(*parts: int) -> datetime | None:
    try:
        return datetime(*parts)  # type: ignore[arg-type]  # noqa: DTZ001 - logs have no zone
    except (ValueError, TypeError, OverflowError):
        return None
