"""The clocks. Rule: the only module that imports ``time``; everybody else is handed a callable."""

from __future__ import annotations

import time

now_ns = time.monotonic_ns
"""CLOCK_MONOTONIC: the time of every event; it stands still while suspended. The function
itself, not one around it: a tick asks four times."""


def boot_ns() -> int:
    """Return CLOCK_BOOTTIME, which process start times count in; it runs while suspended."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def wall_ns() -> int:
    """Return the time of day, for people and records; it jumps, so nothing is decided by it."""
    return time.time_ns()
