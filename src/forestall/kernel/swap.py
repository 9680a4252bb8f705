"""What free swap is worth. Rule: prices are pure functions; the reader only feeds them.

A free page on a disk is worth a page. A free page in zram is paid for with
RAM: swapping a page out gives one page and takes 1/ratio of one back. So on a
machine whose pages hardly compress, gigabytes of free zram are worth nothing.
"""

from __future__ import annotations

from forestall.core.value import TYPE_CHECKING, value
from forestall.kernel.errors import KernelFormatError
from forestall.kernel.files import KernelFile, try_open
from forestall.kernel.parse import ZramStat, parse_mm_stat, parse_swaps

if TYPE_CHECKING:
    from forestall.kernel.files import Pread
    from forestall.kernel.parse import SwapArea

ASSUMED_RATIO = 2.5
"""Of zram that holds nothing yet: lzo-rle and zstd reach 2 to 3.5 on desktop memory."""

SAMPLE_BYTES = 4 * 1024 * 1024
"""Below this a device's own overhead, not its content, makes the ratio."""

REREAD_NS = 10_000_000_000
"""How old the division among several areas may grow."""


@value
class PricedArea:
    """A swap area and, if it is zram, what its pages cost."""

    area: SwapArea
    zram: ZramStat | None = None


def ratio_of(stat: ZramStat) -> float:
    """How many bytes zram stores in one byte of RAM; the allocator's waste included."""
    if stat.orig_bytes < SAMPLE_BYTES or stat.held_bytes == 0:
        return ASSUMED_RATIO
    return stat.orig_bytes / stat.held_bytes


def worth_bytes(free_bytes: int, stat: ZramStat, total_bytes: int) -> int:
    """What free bytes of one zram device are worth in RAM.

    No more is counted than RAM, or the device's own limit, can still hold compressed.
    """
    ratio = ratio_of(stat)
    if ratio <= 1.0:
        return 0
    room_bytes = total_bytes - stat.held_bytes
    if stat.limit_bytes:
        room_bytes = min(room_bytes, stat.limit_bytes - stat.held_bytes)
    storable_bytes = min(free_bytes, max(0, int(room_bytes * ratio)))
    return int(storable_bytes * (1.0 - 1.0 / ratio))


def usable_bytes(areas: tuple[PricedArea, ...], free_bytes: int, total_bytes: int) -> int:
    """Price the free swap of all areas together.

    The areas were read a while ago, ``free_bytes`` is of now: the kernel fills the area
    of highest priority first, so a difference is taken from, or given to, that one first.
    """
    shift_bytes = free_bytes - sum(p.area.size_bytes - p.area.used_bytes for p in areas)
    usable = 0
    for priced in sorted(areas, key=_priority, reverse=True):
        area = priced.area
        free_now = min(area.size_bytes, max(0, area.size_bytes - area.used_bytes + shift_bytes))
        shift_bytes -= free_now - (area.size_bytes - area.used_bytes)
        if priced.zram is None:
            usable += free_now
        else:
            usable += worth_bytes(free_now, priced.zram, total_bytes)
    return min(usable, free_bytes)


def _priority(priced: PricedArea) -> int:
    return priced.area.priority


class SwapReader:
    """Knows the swap areas, and the zram devices among them.

    /proc/swaps stays open; it is read again when the size of swap changes,
    and every 10 s while zram is among the areas. A zram device is opened when it
    is first seen: at the start, or by an administrator's ``swapon`` later.
    """

    def __init__(self, root: str, *, pread: Pread) -> None:
        self._root = root
        self._pread = pread
        self._swaps = try_open(f"{root}/proc/swaps", pread=pread)
        self._devices: dict[str, KernelFile] = {}
        self._areas: tuple[PricedArea, ...] = ()
        self._swap_total_bytes = -1
        self._read_at_ns = 0
        self._has_zram = False
        self.errors = 0
        """Reads that failed; the price then is that of the last good one."""

    @property
    def areas(self) -> tuple[PricedArea, ...]:
        """The areas as last read."""
        return self._areas

    @property
    def zram_bytes(self) -> int:
        """RAM that zram swap devices hold, as last read."""
        return sum(priced.zram.held_bytes for priced in self._areas if priced.zram)

    def stale(self, now_ns: int, swap_total_bytes: int) -> bool:
        """Whether /proc/swaps should be read again."""
        if swap_total_bytes != self._swap_total_bytes:
            return True
        return self._has_zram and now_ns - self._read_at_ns >= REREAD_NS

    def refresh(self, now_ns: int, swap_total_bytes: int) -> None:
        """Read the areas again; on an error the old ones stay, and errors counts it."""
        self._swap_total_bytes = swap_total_bytes
        self._read_at_ns = now_ns
        try:
            areas = parse_swaps(self._swaps.read()) if self._swaps else ()
            self._areas = tuple(PricedArea(area, self._zram(area)) for area in areas)
        except (OSError, KernelFormatError):
            self.errors += 1
            # Try again with the next sample: swap priced as disk could be worth half of it.
            self._swap_total_bytes = -1
        self._has_zram = any(priced.zram for priced in self._areas)

    def refresh_prices(self) -> None:
        """Read mm_stat alone: what the compressed pages cost right now."""
        try:
            self._areas = tuple(
                PricedArea(priced.area, self._zram(priced.area)) for priced in self._areas
            )
        except (OSError, KernelFormatError):
            self.errors += 1

    def price(self, free_bytes: int, total_bytes: int) -> int:
        """What the free swap is worth."""
        if not self._has_zram:
            return free_bytes
        return usable_bytes(self._areas, free_bytes, total_bytes)

    def close(self) -> None:
        """Close every descriptor."""
        for file in (self._swaps, *self._devices.values()):
            if file:
                file.close()
        self._devices.clear()

    def _zram(self, area: SwapArea) -> ZramStat | None:
        name = area.zram
        if not name:
            return None
        file = self._devices.get(name)
        if file is None:
            file = KernelFile(f"{self._root}/sys/block/{name}/mm_stat", pread=self._pread)
            self._devices[name] = file
        return parse_mm_stat(file.read())
