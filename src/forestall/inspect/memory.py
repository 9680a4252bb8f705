"""Where the memory is, above all when processes do not explain it.

Every byte of RAM is put in one place; what is left over is called unaccounted,
and never hidden by making another place larger. Rule: an amount the kernel does
not give is None and takes no part in the sum.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from forestall.core.sentence import plain
from forestall.kernel import inventory
from forestall.kernel.errors import KernelError
from forestall.kernel.shared import shared_holders, tmpfs_usage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from forestall.kernel.shared import Nameless

FILES_SHOWN = 5
CACHES_SHOWN = 8
SEGMENTS_SHOWN = 8
HOLDERS_SHOWN = 8
HOLDERS_BYTES_MIN = 1 << 20


@dataclass(frozen=True, slots=True)
class Place:
    """One place memory can be in; no byte is in two."""

    name: str
    title: str
    size_bytes: int | None
    freed_by: str
    """What gives it back."""


@dataclass(frozen=True, slots=True)
class Tmpfs:
    """A tmpfs and its largest files."""

    path: str
    used_bytes: int
    size_bytes: int
    files: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Memfd:
    """Shared memory without a name, and who holds it."""

    size_bytes: int
    holders: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Whereabouts:
    """The whole answer."""

    total_bytes: int
    available_bytes: int | None
    places: tuple[Place, ...]
    tmpfs: tuple[Tmpfs, ...]
    memfds: tuple[Memfd, ...]
    segments: tuple[Mapping[str, Any], ...] | None
    slab_caches: tuple[Mapping[str, Any], ...] | None
    huge_pools: tuple[Mapping[str, Any], ...]
    zram: tuple[Mapping[str, Any], ...]
    zfs: Mapping[str, Any] | None
    incomplete: tuple[str, ...]
    """What could not be seen, and why."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        return asdict(self)

    def place(self, name: str) -> Place:
        """Return one place by its name."""
        return next(place for place in self.places if place.name == name)


def read_whereabouts(root: str = "/", *, files: int = FILES_SHOWN) -> Whereabouts:
    """Look everywhere once.

    Raises: OSError or KernelFormatError without a readable /proc/meminfo.
    """
    table = inventory.meminfo(root)
    zram = inventory.zram_devices(root)
    arc = inventory.zfs_cache(root)
    incomplete: list[str] = []
    slabs = inventory.slab_caches(root)
    if slabs is None:
        incomplete.append("slab caches: only root may read /proc/slabinfo")
    zram_bytes = sum(device.stat.held_bytes for device in zram)
    return Whereabouts(
        total_bytes=table["MemTotal"],
        available_bytes=table.get("MemAvailable"),
        places=places(table, zram_bytes=zram_bytes, arc_bytes=arc.size_bytes if arc else None),
        tmpfs=_tmpfs(root, files, incomplete),
        memfds=_memfds(root, incomplete),
        segments=_dicts(inventory.segments(root), SEGMENTS_SHOWN),
        slab_caches=_dicts(slabs, CACHES_SHOWN),
        huge_pools=_dicts(inventory.huge_pools(root), SEGMENTS_SHOWN) or (),
        zram=tuple(
            {
                "name": device.name,
                "stored_bytes": device.stat.orig_bytes,
                "held_bytes": device.stat.held_bytes,
                "limit_bytes": device.stat.limit_bytes or None,
            }
            for device in zram
        ),
        zfs={"size_bytes": arc.size_bytes, "min_bytes": arc.min_bytes} if arc else None,
        incomplete=tuple(incomplete),
    )


def places(
    table: Mapping[str, int], *, zram_bytes: int = 0, arc_bytes: int | None = None
) -> tuple[Place, ...]:
    """Put every byte of RAM in one place.

    Source: fs/proc/meminfo.c: Cached holds shmem and not the swap cache; with stacks in
    vmalloc space VmallocUsed holds KernelStack as well; Percpu stands beside it. The ZFS
    cache is mostly outside of slab, so what it holds is taken from the remainder.
    """
    get = table.get
    shmem = get("Shmem", 0)
    stacks = get("KernelStack", 0)
    vmalloc = get("VmallocUsed")
    rest = {
        "anonymous": (get("AnonPages"), "processes (anonymous)", "ending processes"),
        "file": (
            max(0, get("Cached", 0) - shmem) + get("Buffers", 0),
            "page cache",
            "the kernel, when it is needed",
        ),
        "swap_cache": (get("SwapCached"), "swap cache", "the kernel, when it is needed"),
        "shmem": (get("Shmem"), "tmpfs and shared memory", "removing files; ipcrm; see below"),
        "slab_reclaimable": (
            get("SReclaimable"),
            "slab, reclaimable",
            "the kernel, when it is needed",
        ),
        "slab_unreclaimable": (
            get("SUnreclaim"),
            "slab, unreclaimable",
            "whoever uses the kernel objects (slabtop -s c)",
        ),
        "page_tables": (
            _sum(get("PageTables"), get("SecPageTables")),
            "page tables",
            "ending processes that map much",
        ),
        "kernel_stacks": (get("KernelStack"), "kernel stacks", "fewer threads"),
        "vmalloc": (
            None if vmalloc is None else max(0, vmalloc - stacks),
            "kernel vmalloc",
            "unloading modules",
        ),
        "percpu": (get("Percpu"), "per-CPU", "fewer cgroups and mounts"),
        "hugetlb": (get("Hugetlb"), "huge pages set apart", "sysctl vm.nr_hugepages"),
        "zram": (zram_bytes, "zram", "emptying it: forestall clean swap"),
        "zswap": (get("Zswap"), "zswap", "the kernel, by writing it to the disk"),
    }
    found = [Place(name, title, size, by) for name, (size, title, by) in rest.items()]
    known = sum(place.size_bytes or 0 for place in found) + get("MemFree", 0)
    left = max(0, table["MemTotal"] - known)
    if arc_bytes is not None:
        arc = min(arc_bytes, left)
        found.append(Place("zfs", "ZFS cache", arc, "the kernel, down to zfs_arc_min"))
        left -= arc
    found.append(Place("unaccounted", "unaccounted", left, "drivers: GPU, network, balloon"))
    found.sort(key=lambda place: place.size_bytes or 0, reverse=True)
    return (*found, Place("free", "free", get("MemFree"), "it is free"))


def _tmpfs(root: str, files: int, incomplete: list[str]) -> tuple[Tmpfs, ...]:
    try:
        mounts = tmpfs_usage(root)
    except (OSError, KernelError) as error:
        incomplete.append(f"tmpfs: {error}")
        return ()
    base = root.rstrip("/")
    found = []
    for mount in mounts:
        if not mount.used_bytes:
            continue
        largest, cut = inventory.largest_files(f"{base}{mount.path}", count=files)
        if cut:
            incomplete.append(f"{plain(mount.path)}: too many files to look at them all")
        names = tuple((plain(file.path.removeprefix(base)), file.size_bytes) for file in largest)
        found.append(Tmpfs(plain(mount.path), mount.used_bytes, mount.size_bytes, names))
    return tuple(found)


def _memfds(root: str, incomplete: list[str]) -> tuple[Memfd, ...]:
    pids = inventory.pids(root)
    holders = shared_holders(root, reversed(pids))
    if holders.dropped:
        incomplete.append(f"shared memory: {holders.dropped} processes were not looked at")
    if inventory.hides_descriptors(root):
        incomplete.append("shared memory: other users' descriptors cannot be seen without root")
    large = [file for file in holders.files if file.size_bytes >= HOLDERS_BYTES_MIN]
    large.sort(key=_nameless_size, reverse=True)
    return tuple(
        Memfd(
            file.size_bytes,
            tuple((pid, plain(inventory.name_of(pid, root))) for pid in file.pids[:HOLDERS_SHOWN]),
        )
        for file in large[:HOLDERS_SHOWN]
    )


def _dicts(rows: tuple[Any, ...] | None, limit: int) -> tuple[Mapping[str, Any], ...] | None:
    return None if rows is None else tuple(row._asdict() for row in rows[:limit])


def _sum(*sizes: int | None) -> int | None:
    known = [size for size in sizes if size is not None]
    return sum(known) if known else None


def _nameless_size(file: Nameless) -> int:
    return file.size_bytes
