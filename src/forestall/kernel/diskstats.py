"""/proc/diskstats to a number: how far a disk is behind. Pure."""

from __future__ import annotations

import os

from forestall.core.value import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_IN_FLIGHT = 11
"""The twelfth word: requests under way. Source: Documentation/admin-guide/iostats.rst, field 9."""


def in_flight(raw: bytes, device: tuple[int, int] | None) -> int:
    """Return how many requests are under way on a disk.

    Args:
        raw: The text; a senseless line has none.
        device: Major and minor number of the disk, or of a part of it, which has no queue of its
            own: then the whole disk counts. Of the busiest when it is not known or not listed.
    """
    disks = list(_disks(raw))
    name = next((name for numbers, name, _ in disks if numbers == device), None)
    return max((count for _, disk, count in disks if name is None or _bears(disk, name)), default=0)


def device_of(raw: bytes, name: str) -> tuple[int, int] | None:
    """Find the numbers of a disk by its name ("sda2"); None when it is not listed."""
    wanted = os.fsencode(name)
    return next((numbers for numbers, disk, _ in _disks(raw) if disk == wanted), None)


def _disks(raw: bytes) -> Iterator[tuple[tuple[int, int], bytes, int]]:
    for line in raw.splitlines():
        fields = line.split()
        if len(fields) > _IN_FLIGHT and all(fields[n].isdigit() for n in (0, 1, _IN_FLIGHT)):
            yield (int(fields[0]), int(fields[1])), fields[2], int(fields[_IN_FLIGHT])


def _bears(disk: bytes, name: bytes) -> bool:
    """Whether it is this disk or a part of it: sda2 is of sda, nvme0n1p2 of nvme0n1."""
    part = name[len(disk) :] if name.startswith(disk) else b"?"
    if disk[-1:].isdigit() and part:
        return part[:1] == b"p" and part[1:].isdigit()
    return not part or part.isdigit()
