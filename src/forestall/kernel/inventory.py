"""Where memory can hide from the process list: slab caches, segments, huge pages, zram, files.

For people, not for the guard. Rule: what this kernel lacks, or keeps from us, is
None; what it has none of is empty. Parsers are pure; readers take a root.
"""

from __future__ import annotations

import os

from forestall.core.value import TYPE_CHECKING, value
from forestall.kernel.errors import KernelFormatError
from forestall.kernel.files import read_whole
from forestall.kernel.parse import parse_arcstats, parse_mm_stat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeVar

    from forestall.kernel.parse import Arc, ZramStat

    T = TypeVar("T")

FILES_MAX = 100_000
"""Files on tmpfs looked at in one search: half a second."""
LINES_MAX = 10_000
_BLOCK_BYTES = 512


@value
class SlabCache:
    """One line of /proc/slabinfo."""

    name: str
    size_bytes: int
    """What its slabs take, used or not."""
    used_objects: int
    objects: int


@value
class Segment:
    """A System V shared memory segment; it stays when its processes end."""

    id: int
    size_bytes: int
    resident_bytes: int | None
    swap_bytes: int | None
    creator_pid: int
    attached: int
    uid: int


@value
class HugePool:
    """Pages of one size set apart, used or not."""

    page_bytes: int
    pages: int
    free_pages: int
    reserved_pages: int


@value
class Zram:
    """A compressed device in memory."""

    name: str
    stat: ZramStat


@value
class File:
    """A file on a tmpfs."""

    path: str
    """Hostile text."""
    size_bytes: int


def parse_meminfo_table(raw: bytes) -> dict[str, int]:
    """Read every amount of /proc/meminfo, in bytes; counts without a unit are left out.

    Raises: KernelFormatError when nothing in it reads as an amount.
    """
    table = {}
    for line in raw.splitlines():
        name, _, rest = line.partition(b":")
        fields = rest.split()
        if len(fields) == 2 and fields[1] == b"kB" and fields[0].isdigit():
            table[name.decode("ascii", "replace")] = int(fields[0]) * 1024
    if "MemTotal" not in table:
        raise KernelFormatError("meminfo", "no MemTotal", raw)
    return table


def parse_slabinfo(raw: bytes, page_bytes: int) -> tuple[SlabCache, ...]:
    """Read /proc/slabinfo, largest first; a line that makes no sense is left out.

    Source: mm/slab_common.c cache_show (version 2.1): name, active objects, objects, object
    size, objects per slab, pages per slab : tunables … : slabdata active, slabs, shared.
    """
    caches = []
    for line in raw.splitlines()[:LINES_MAX]:
        head, _, tail = line.partition(b" : slabdata ")
        fields, data = head.split(b" : tunables")[0].split(), tail.split()
        if (
            len(fields) < 6
            or len(data) < 2
            or not all(f.isdigit() for f in (*fields[1:6], data[1]))
        ):
            continue
        used, objects, _size, _per_slab, pages = (int(field) for field in fields[1:6])
        name = fields[0].decode("utf-8", "surrogateescape")
        caches.append(SlabCache(name, int(data[1]) * pages * page_bytes, used, objects))
    return tuple(sorted(caches, key=_slab_size, reverse=True))


def parse_sysv(raw: bytes) -> tuple[Segment, ...]:
    """Read /proc/sysvipc/shm, largest first; the header says which column is which.

    Source: ipc/shm.c sysvipc_shm_proc_show; rss and swap came with Linux 2.6.35.
    """
    lines = raw.splitlines()[:LINES_MAX]
    if not lines:
        return ()
    names = lines[0].decode("ascii", "replace").split()
    segments = []
    for line in lines[1:]:
        row = dict(zip(names, line.split(), strict=False))
        try:
            segments.append(
                Segment(
                    id=int(row["shmid"]),
                    size_bytes=int(row["size"]),
                    resident_bytes=int(row["rss"]) if "rss" in row else None,
                    swap_bytes=int(row["swap"]) if "swap" in row else None,
                    creator_pid=int(row["cpid"]),
                    attached=int(row["nattch"]),
                    uid=int(row["uid"]),
                )
            )
        except (KeyError, ValueError):
            continue
    return tuple(sorted(segments, key=_segment_size, reverse=True))


def slab_caches(root: str = "/") -> tuple[SlabCache, ...] | None:
    """Read the slab caches; None without permission (root only) or without the file."""
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    return _read(f"{_base(root)}/proc/slabinfo", lambda raw: parse_slabinfo(raw, page_bytes))


def segments(root: str = "/") -> tuple[Segment, ...] | None:
    """Read the System V segments of our namespace; None on a kernel without them."""
    return _read(f"{_base(root)}/proc/sysvipc/shm", parse_sysv)


def huge_pools(root: str = "/") -> tuple[HugePool, ...]:
    """Read the pools of huge pages that hold any."""
    folder = f"{_base(root)}/sys/kernel/mm/hugepages"
    pools = []
    for name in _names(folder):
        digits = name.removeprefix("hugepages-").removesuffix("kB")
        counts = [
            _read(f"{folder}/{name}/{file}", int)
            for file in ("nr_hugepages", "free_hugepages", "resv_hugepages")
        ]
        if digits.isdigit() and counts[0]:
            pages, free, reserved = (count or 0 for count in counts)
            pools.append(HugePool(int(digits) * 1024, pages, free, reserved))
    return tuple(pools)


def zram_devices(root: str = "/") -> tuple[Zram, ...]:
    """Read the zram devices that hold anything, as swap or as disks."""
    folder = f"{_base(root)}/sys/block"
    devices = []
    for name in _names(folder):
        if name.startswith("zram"):
            stat = _read(f"{folder}/{name}/mm_stat", parse_mm_stat)
            if stat is not None and stat.held_bytes:
                devices.append(Zram(name, stat))
    return tuple(devices)


def zfs_cache(root: str = "/") -> Arc | None:
    """Read the ZFS cache; None without ZFS."""
    return _read(f"{_base(root)}/proc/spl/kstat/zfs/arcstats", parse_arcstats)


def meminfo(root: str = "/") -> dict[str, int]:
    """Read every amount of /proc/meminfo.

    Raises: OSError; KernelFormatError.
    """
    return parse_meminfo_table(read_whole(f"{_base(root)}/proc/meminfo"))


def pids(root: str = "/") -> list[int]:
    """List the processes, lowest number first."""
    return sorted(int(name) for name in _names(f"{_base(root)}/proc") if name.isdigit())


def hides_descriptors(root: str = "/") -> bool:
    """Tell whether the descriptors of pid 1 are kept from us, as from anybody but root."""
    try:
        os.listdir(f"{_base(root)}/proc/1/fd")
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def name_of(pid: int, root: str = "/") -> str:
    """Read the name of a process; empty when it is gone."""
    found = _read(f"{_base(root)}/proc/{pid}/comm", bytes.strip)
    return (found or b"").decode("utf-8", "surrogateescape")


def largest_files(
    folder: str, *, count: int, files_max: int = FILES_MAX
) -> tuple[tuple[File, ...], bool]:
    """Find the largest files below a tmpfs mount, without leaving it.

    Returns: The files, largest first; and whether the search came to its limit.
    """
    found: list[File] = []
    try:
        device = os.stat(folder).st_dev
    except OSError:
        return (), False
    for looked, (path, size_bytes) in enumerate(_walk(folder, device)):
        if looked >= files_max:
            return _largest(found, count), True
        found.append(File(path, size_bytes))
        if len(found) > 4 * count + 64:
            found = list(_largest(found, count))
    return _largest(found, count), False


def _walk(folder: str, device: int) -> Iterator[tuple[str, int]]:
    waiting = [folder]
    while waiting:
        try:
            entries = list(os.scandir(waiting.pop()))
        except OSError:
            continue  # removed meanwhile, or not ours to see
        for entry in entries:
            try:
                # It lies on our tmpfs, or is a mount point whose own number says otherwise.
                found = entry.stat(follow_symlinks=False)
                if found.st_dev != device:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    yield entry.path, found.st_blocks * _BLOCK_BYTES
            except OSError:
                continue


def _largest(files: list[File], count: int) -> tuple[File, ...]:
    files.sort(key=_file_size, reverse=True)
    return tuple(file for file in files[:count] if file.size_bytes)


def _read(path: str, parse: Callable[[bytes], T]) -> T | None:
    try:
        return parse(read_whole(path))
    except (OSError, KernelFormatError, ValueError):
        return None


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _base(root: str) -> str:
    return root.rstrip("/")


def _slab_size(cache: SlabCache) -> int:
    return cache.size_bytes


def _segment_size(segment: Segment) -> int:
    return segment.size_bytes


def _file_size(file: File) -> tuple[int, str]:
    return file.size_bytes, file.path
