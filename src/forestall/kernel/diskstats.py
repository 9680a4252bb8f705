"""/proc/diskstats to a number: how far the busiest disk is behind. Pure."""

from __future__ import annotations

_IN_FLIGHT = 11
"""The twelfth word: requests under way. Source: Documentation/admin-guide/iostats.rst, field 9."""


def most_in_flight(raw: bytes) -> int:
    """Return the most requests that are under way on any one disk; a senseless line has none."""
    most = 0
    for line in raw.splitlines():
        fields = line.split()
        if len(fields) > _IN_FLIGHT and fields[_IN_FLIGHT].isdigit():
            most = max(most, int(fields[_IN_FLIGHT]))
    return most
