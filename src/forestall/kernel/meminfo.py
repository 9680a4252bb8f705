"""/proc/meminfo, read many times a second. Rule: speed here, meaning in ``parse``.

The kernel pads every line to the same width, so a field stays where it was
until a number outgrows its column. The layout is learned once; each read then
proves it by the names and units around every number, and learns anew when
they have moved (a column outgrown, a new kernel after kexec).
"""

from __future__ import annotations

import struct

from forestall.core.model import Memory
from forestall.core.value import TYPE_CHECKING, build
from forestall.kernel.parse import parse_meminfo

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from forestall.kernel.files import KernelFile

    Floor: TypeAlias = tuple[slice, bytes, bytes]

HEAD_BYTES = 1024
"""Reaches past Shmem on every kernel; the copy costs nothing, the formatting is the price."""

AVAILABLE = b"\nMemAvailable:"
SWAP_FREE = b"\nSwapFree:"
_FIELDS = (b"MemTotal:", AVAILABLE, b"\nSwapTotal:", SWAP_FREE, b"\nShmem:")
_UNIT = b" kB"
_FRAME = tuple(part for name in _FIELDS for part in (name, _UNIT))


class Meminfo:
    """Reads memory and swap of the machine.

    Cost: 8.6 µs a read, of which the kernel takes 7.3; on cold caches 55 µs and 41 (Python
    3.11, Linux 6.18). There every line that runs counts, and every call.
    """

    def __init__(self, file: KernelFile) -> None:
        self._file = file
        self._frame: Callable[[bytes], tuple[bytes, ...]] | None = None
        """Cuts out the names and units around the numbers; None while the layout is unknown."""
        self._numbers: Callable[[bytes], tuple[bytes, ...]] = _nothing
        self._places: dict[bytes, slice] = {}
        """Where a line stands, from its name to its last digit."""
        self.relearned = 0
        """How often the layout had moved; for status and tests."""

    def read(self) -> Memory:
        """Return memory as the kernel counts it; swap is not yet priced.

        Raises: OSError; KernelFormatError.
        """
        file = self._file
        raw = file.pread(file.fd, HEAD_BYTES, 0)
        frame = self._frame
        if frame is not None:
            try:
                if frame(raw) == _FRAME:
                    total, available, swap_total, swap_free, shmem = map(int, self._numbers(raw))
                    if total > 0 <= available and swap_total >= 0 <= swap_free and shmem >= 0:
                        ram = total * 1024, available * 1024
                        swap_free *= 1024
                        swap = swap_total * 1024, swap_free, swap_free
                        return build(Memory, (*ram, *swap, shmem * 1024))
            except (struct.error, ValueError):
                # Shorter than it was, or no number: the slow way finds out and says so.
                pass
        return self._read_slowly()

    def floor(self, name: bytes, least_bytes: int) -> Floor | None:
        """Prepare ``stays_above``: say how a line reads that is at this floor.

        Returns: None where the layout is not known.
        """
        place = self._places.get(name)
        if place is None or self._frame is None:
            return None
        width = place.stop - place.start - len(name)
        least_kib = max(0, -(-least_bytes // 1024))
        low = name + b"%*d" % (width, least_kib)
        return place, low, name + b"9" * width

    def stays_above(self, floors: tuple[Floor, ...]) -> bool:
        """Read, and tell without a number parsed that every line is at its floor or above.

        Numbers stand right-aligned in columns of a fixed width, so they sort as text; and
        whatever sorts between two texts with the same beginning has that beginning, so
        a line that moved is noticed.
        Raises: OSError.
        """
        file = self._file
        raw = file.pread(file.fd, HEAD_BYTES, 0)
        for place, low, high in floors:  # noqa: SIM110 - see ``signals.all_hold``
            if not low <= raw[place] <= high:
                return False
        return True

    def _read_slowly(self) -> Memory:
        raw = self._file.read()
        memory = parse_meminfo(raw)
        self._learn(raw[:HEAD_BYTES])
        self.relearned += 1
        return memory

    def _learn(self, raw: bytes) -> None:
        """Turn the text into two structs: names and units, and the numbers between them.

        Names and units are compared on every read, so a number cannot slide out of its place.
        """
        self._frame = None
        frame = numbers = "="
        at = 0
        for name in _FIELDS:
            start = raw.find(name, at)
            end = raw.find(_UNIT, start)
            if start < 0 or end < 0:
                # Absent, in another order, or beyond the head: always read the slow way.
                return
            digits = end - start - len(name)
            frame += f"{start - at}x{len(name)}s{digits}x{len(_UNIT)}s"
            numbers += f"{start - at + len(name)}x{digits}s{len(_UNIT)}x"
            at = end + len(_UNIT)
            self._places[name] = slice(start, end)
        self._numbers = struct.Struct(numbers).unpack_from
        self._frame = struct.Struct(frame).unpack_from


def _nothing(_raw: bytes) -> tuple[bytes, ...]:
    return ()
