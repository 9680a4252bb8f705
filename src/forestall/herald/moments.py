"""Times of day as people and programs read them."""

from __future__ import annotations

from datetime import UTC, datetime

from forestall.core.units import SECOND


def moment(wall_ns: int) -> datetime:
    """Return a time of day with its zone."""
    return datetime.fromtimestamp(min(max(wall_ns, 0), 2**62) // SECOND, UTC)


def utc(wall_ns: int) -> str:
    """Write a time of day: 2026-01-31T12:00:00Z."""
    return f"{moment(wall_ns):%Y-%m-%dT%H:%M:%SZ}"
