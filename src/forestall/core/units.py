"""Units: the factors, and numbers as people read them.

One unit per dimension inside the program: bytes, nanoseconds, shares.
"""

from __future__ import annotations

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB
PAGE_BYTES = 4096
"""Only scales what people are shown and what ``refaults`` is compared with."""

US = 1_000
MS = 1_000_000
SECOND = 1_000_000_000
MINUTE = 60 * SECOND


def human_bytes(size_bytes: float) -> str:
    """Write a size with three significant digits: ``1.53 GiB``, ``512 MiB``, ``0 B``."""
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(size) < 1000 or unit == "TiB":
            break
        size /= 1024
    if unit == "B" or abs(size) >= 100:
        return f"{size:.0f} {unit}"
    return f"{size:.1f} {unit}" if abs(size) >= 10 else f"{size:.2f} {unit}"


def human_ns(duration_ns: float) -> str:
    """Write a duration as people say it: ``850 ms``, ``4.2 s``, ``12 min``, ``3.1 h``."""
    if duration_ns < SECOND:
        return f"{duration_ns / MS:.0f} ms"
    seconds = duration_ns / SECOND
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def human_share(share: float) -> str:
    """Write a share as a percentage: ``4.0%``, ``85%``."""
    return f"{share * 100:.1f}%" if share < 0.1 else f"{share * 100:.0f}%"
