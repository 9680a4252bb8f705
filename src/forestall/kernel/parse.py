"""Kernel text about the machine to values: pure functions from bytes, no files opened here.

Split from the readers so that every odd input ever seen can be a test case,
and so that a fuzzer needs neither root nor a mount. Any bytes either parse or
are refused with KernelFormatError. Text about one process is in ``parse_process``.
"""

from __future__ import annotations

from forestall.core.model import Activity, Holdings, Memory, Pressure
from forestall.core.value import TYPE_CHECKING, value
from forestall.kernel.errors import KernelFormatError

if TYPE_CHECKING:
    from typing import NoReturn

DIGITS_MAX = 20
"""Digits of 2**64; whatever is longer is no number of the kernel's."""

# Version 1 of cgroups writes "no limit" as the largest page count, in bytes.
UNLIMITED_BYTES = 1 << 62


@value
class SwapArea:
    """One line of /proc/swaps."""

    path: str
    kind: str
    """``partition`` or ``file``."""
    size_bytes: int
    used_bytes: int
    priority: int

    @property
    def zram(self) -> str:
        """Name of the zram device behind it; empty for disks and files."""
        name = self.path.rpartition("/")[2]
        return name if name.startswith("zram") and name[4:].isdigit() else ""


@value
class ZramStat:
    """What a zram device holds and what that costs, from /sys/block/zramN/mm_stat."""

    orig_bytes: int
    compressed_bytes: int
    held_bytes: int
    """RAM in use, with what its allocator wastes."""
    limit_bytes: int
    """mem_limit; zero is no limit."""


@value
class Arc:
    """The ZFS cache, which the kernel counts as used although it gives way."""

    size_bytes: int
    min_bytes: int


@value
class MemoryEvents:
    """memory.events of a cgroup: how often it met its limits."""

    low: int
    high: int
    max: int
    oom: int
    oom_kill: int


def parse_meminfo(raw: bytes) -> Memory:
    """Pick the fields the policy needs out of /proc/meminfo.

    Source: fs/proc/meminfo.c. Sizes are KiB although the file says "kB".
    Since Linux kernel commit 34e431b0ae39 ("/proc/meminfo: provide estimated
    available memory") (in v3.14) the kernel estimates MemAvailable; we need
    it and do not guess it.
    Raises: KernelFormatError, naming the field that is missing or no number.
    """
    text = b"\n" + raw
    total_bytes = kib_field("meminfo", text, b"MemTotal:")
    if total_bytes == 0:
        reject("meminfo", "MemTotal is zero", raw)
    available_bytes = kib_field("meminfo", text, b"MemAvailable:")
    swap_free_bytes = kib_field("meminfo", text, b"SwapFree:")
    return Memory(
        total_bytes=total_bytes,
        available_bytes=available_bytes,
        swap_total_bytes=kib_field("meminfo", text, b"SwapTotal:"),
        swap_free_bytes=swap_free_bytes,
        swap_usable_bytes=swap_free_bytes,
        shmem_bytes=try_kib_field("meminfo", text, b"Shmem:"),
    )


def parse_holdings(raw: bytes, *, zram_bytes: int = 0) -> Holdings:
    """Read from /proc/meminfo where memory is when processes do not explain it.

    Cached includes shmem, and swap cache is apart from both.
    Source: fs/proc/meminfo.c. Hugetlb counts huge pages of all sizes; where it is not
    printed, the pool of the default size is all that can be told.
    Raises: KernelFormatError.
    """
    text = b"\n" + raw
    shmem_bytes = kib_field("meminfo", text, b"Shmem:")
    cached_bytes = kib_field("meminfo", text, b"Cached:") + kib_field("meminfo", text, b"Buffers:")
    return Holdings(
        anon_bytes=kib_field("meminfo", text, b"AnonPages:"),
        file_bytes=max(0, cached_bytes - shmem_bytes),
        shmem_bytes=shmem_bytes,
        slab_unreclaimable_bytes=kib_field("meminfo", text, b"SUnreclaim:"),
        page_tables_bytes=kib_field("meminfo", text, b"PageTables:"),
        hugetlb_bytes=_hugetlb_bytes(text),
        unevictable_bytes=kib_field("meminfo", text, b"Unevictable:"),
        zram_bytes=zram_bytes,
    )


def parse_pressure(raw: bytes) -> Pressure | None:
    """Read the two totals of /proc/pressure/memory or a cgroup's memory.pressure.

    Returns: None for an empty file, which some kernels serve with PSI switched off.
    Source: Documentation/accounting/psi.rst. The averages lag by 2 s and are not read.
    Cost: 1 µs beside 1.5 µs for the read; no call that could be spared.
    Raises: KernelFormatError.
    """
    some, _, rest = raw.partition(b"\nfull ")
    some_digits = some.rpartition(b" total=")[2]
    full_digits = rest.rpartition(b" total=")[2]
    # Without its line feed the last number could have lost digits.
    if full_digits[-1:] == b"\n" and raw[:5] == b"some " and len(full_digits) <= DIGITS_MAX:
        full_digits = full_digits[:-1]
        if some_digits.isdigit() and full_digits.isdigit() and len(some_digits) <= DIGITS_MAX:
            return Pressure(int(some_digits), int(full_digits))
    if raw.strip():
        reject("pressure", "not a line of some and a line of full, with totals", raw)
    return None


def parse_refaults(raw: bytes) -> int | None:
    """Count the pages that a control group has read back, by its memory.stat; None if not told.

    Source: mm/memcontrol.c memory_stat_format, mm/workingset.c workingset_refault. Since Linux
    5.9 anonymous pages and those of files apart, before those of files alone.
    """
    text = b"\n" + raw
    file_refaults = _file_refaults(text, "memory.stat")
    anon_refaults = _try_counter(text, b"workingset_refault_anon", "memory.stat")
    return None if file_refaults is None else file_refaults + (anon_refaults or 0)


def parse_vmstat(raw: bytes) -> Activity:
    """Pick the counters the policy needs out of /proc/vmstat.

    Source: mm/vmstat.c. Since Linux kernel commit 170b04b7ae49 ("mm/workingset:
    prepare the workingset detection infrastructure for anon LRU") (in v5.9)
    refaults are counted apart for anonymous and file pages; before, only file
    pages were watched. oom_kill since commit 8e675f7af507 ("mm/oom_kill: count
    global and memory cgroup oom kills") (in v4.13).
    Raises: KernelFormatError.
    """
    text = b"\n" + raw
    return Activity(
        oom_kill=_try_counter(text, b"oom_kill"),
        swap_in_pages=_counter(text, b"pswpin"),
        swap_out_pages=_counter(text, b"pswpout"),
        refault_anon_pages=_try_counter(text, b"workingset_refault_anon"),
        refault_file_pages=_file_refaults(text, "vmstat"),
        major_faults=_counter(text, b"pgmajfault"),
        scan_direct_pages=_try_counter(text, b"pgscan_direct"),
    )


def parse_swaps(raw: bytes) -> tuple[SwapArea, ...]:
    """Read /proc/swaps; blanks in paths come as octal escapes and stay so.

    Source: mm/swapfile.c swap_show. Sizes are KiB.
    Raises: KernelFormatError.
    """
    areas = []
    for line in raw.splitlines()[1:]:
        fields = line.split()
        # A path that is gone has a blank of its own: "/swapfile (deleted)" is escaped too, but
        # counting from the end costs nothing and survives a kernel that forgets to.
        if len(fields) < 5:
            reject("swaps", "too few columns", line)
        kind, size, used, priority = fields[-4:]
        areas.append(
            SwapArea(
                path=b" ".join(fields[:-4]).decode("utf-8", "surrogateescape"),
                kind=kind.decode("utf-8", "surrogateescape"),
                size_bytes=number("swaps", "size", size) * 1024,
                used_bytes=number("swaps", "used", used) * 1024,
                priority=signed("swaps", "priority", priority),
            )
        )
    return tuple(areas)


def parse_mm_stat(raw: bytes) -> ZramStat:
    """Read /sys/block/zramN/mm_stat.

    Source: Documentation/admin-guide/blockdev/zram.rst; more columns came with time.
    Raises: KernelFormatError.
    """
    fields = raw.split()
    if len(fields) < 4:
        reject("mm_stat", "too few columns", raw)
    orig, compressed, held, limit = (number("mm_stat", "column", f) for f in fields[:4])
    return ZramStat(orig, compressed, held, limit)


def parse_arcstats(raw: bytes) -> Arc:
    """Read the size of the ZFS cache and how small it may get, from arcstats.

    Source: OpenZFS module/os/linux/spl/spl-kstat.c: two lines of heading, then name, type, data.
    Raises: KernelFormatError.
    """
    text = b"\n" + raw
    return Arc(_kstat(text, b"size"), _kstat(text, b"c_min"))


def parse_memory_events(raw: bytes) -> MemoryEvents:
    """Read memory.events of a cgroup.

    Raises: KernelFormatError.
    """
    counts = parse_flat("memory.events", raw)
    try:
        return MemoryEvents(
            low=counts["low"],
            high=counts["high"],
            max=counts["max"],
            oom=counts["oom"],
            oom_kill=counts["oom_kill"],
        )
    except KeyError as missing:
        raise KernelFormatError("memory.events", f"no {missing.args[0]}", raw) from None


def parse_flat(file: str, raw: bytes) -> dict[str, int]:
    """Read a file of "key number" lines: memory.stat, memory.events, cgroup.events.

    Raises: KernelFormatError.
    """
    table = {}
    for line in raw.splitlines():
        key, _, digits = line.partition(b" ")
        table[key.decode("utf-8", "surrogateescape")] = number(file, "value", digits)
    return table


def parse_limit(file: str, raw: bytes) -> int | None:
    """Read a cgroup's limit or usage in bytes; None is no limit.

    Raises: KernelFormatError.
    """
    text = raw.strip()
    if text == b"max":
        return None
    limit_bytes = number(file, "limit", text)
    return None if limit_bytes >= UNLIMITED_BYTES else limit_bytes


def number(file: str, what: str, digits: bytes) -> int:
    """Read a whole number without sign; blanks around it do not matter."""
    text = digits.strip()
    if not text.isdigit() or len(text) > DIGITS_MAX:
        reject(file, f"{what} is no number", digits)
    return int(text)


def signed(file: str, what: str, digits: bytes) -> int:
    """Read a whole number that may be negative."""
    text = digits.strip()
    return -number(file, what, text[1:]) if text[:1] == b"-" else number(file, what, text)


def kib_field(file: str, text: bytes, name: bytes) -> int:
    """Find a "Name:  123 kB" line in text that begins with a line feed; returns bytes."""
    size_bytes = try_kib_field(file, text, name)
    if size_bytes is None:
        reject(file, f"no {name.decode()[:-1]}", text[1:])
    return size_bytes


def try_kib_field(file: str, text: bytes, name: bytes) -> int | None:
    """Find a "Name:  123 kB" line; None where the kernel does not print it."""
    # The leading newline keeps "Cached" from matching inside "SwapCached".
    start = text.find(b"\n" + name)
    if start < 0:
        return None
    start += len(name) + 1
    end = text.find(b"\n", start)
    # Text cut short could have lost digits: without its unit and line feed it is no number.
    if end < 0 or text[end - 3 : end] != b" kB":
        reject(file, f"{name.decode()[:-1]} is cut short", text[start - len(name) :])
    return number(file, name.decode()[:-1], text[start : end - 3]) * 1024


def _hugetlb_bytes(text: bytes) -> int:
    hugetlb_bytes = try_kib_field("meminfo", text, b"Hugetlb:")
    if hugetlb_bytes is not None:
        return hugetlb_bytes
    page_bytes = try_kib_field("meminfo", text, b"Hugepagesize:")
    start = text.find(b"\nHugePages_Total:")
    if page_bytes is None or start < 0:
        # A kernel without huge pages prints neither, and then has none.
        return 0
    pages = text[start + 17 : text.find(b"\n", start + 17)]
    return page_bytes * number("meminfo", "HugePages_Total", pages)


def _counter(text: bytes, name: bytes) -> int:
    count = _try_counter(text, name)
    if count is None:
        reject("vmstat", f"no {name.decode()}", text[1:])
    return count


def _try_counter(text: bytes, name: bytes, file: str = "vmstat") -> int | None:
    start = text.find(b"\n" + name + b" ")
    if start < 0:
        return None
    start += len(name) + 2
    end = text.find(b"\n", start)
    if end < 0:
        reject(file, f"{name.decode()} is cut short", text[start:])
    return number(file, name.decode(), text[start:end])


def _file_refaults(text: bytes, file: str) -> int | None:
    found = _try_counter(text, b"workingset_refault_file", file)
    return _try_counter(text, b"workingset_refault", file) if found is None else found


def _kstat(text: bytes, name: bytes) -> int:
    start = text.find(b"\n" + name + b" ")
    end = text.find(b"\n", start + 1)
    fields = text[start:end].split()
    if start < 0 or end < 0 or len(fields) != 3:
        reject("arcstats", f"no {name.decode()}", text[start + 1 :])
    return number("arcstats", name.decode(), fields[2])


def reject(file: str, what: str, raw: bytes) -> NoReturn:
    """Refuse kernel text."""
    raise KernelFormatError(file, what, raw)
