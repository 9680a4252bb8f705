"""The container that confines us, if one does. Rule: a limit on our own unit is not the guard's.

Seen from inside a container, the root of the cgroup mount is the container's
cgroup. The true root of a host has no memory.max, and in v1 an unlimited one.
So a finite limit at the root of the mount is the limit of all we can see; a
limit further down is that of somebody's unit, perhaps our own; a program that
wants to live within its own asks for ``own_confinements``.
"""

from __future__ import annotations

import os

from forestall.core.model import Memory
from forestall.core.value import TYPE_CHECKING
from forestall.kernel.errors import KernelFormatError
from forestall.kernel.files import KernelFile, read_whole, try_open
from forestall.kernel.parse import number, parse_limit
from forestall.kernel.parse_process import parse_cgroup

if TYPE_CHECKING:
    from forestall.kernel.files import Pread


DEPTH_MAX = 32
"""Cgroups above our own that are looked at."""


class _Names:
    """What the two versions of cgroups call the same things."""

    __slots__ = (
        "folder",
        "limit",
        "reclaimable",
        "shmem",
        "swap_limit",
        "swap_usage",
        "usage",
        "version",
    )

    def __init__(self, folder: str, names: tuple[str, str, str, str], *, version: int) -> None:
        self.folder = folder
        self.version = version
        self.limit, self.usage, self.swap_limit, self.swap_usage = names
        self.reclaimable: tuple[bytes, ...] = ()
        self.shmem = b""

    def below(self, path: str) -> _Names:
        """Return the same names in a folder further down."""
        limits = (self.limit, self.usage, self.swap_limit, self.swap_usage)
        names = _Names(f"{self.folder}/{path}", limits, version=self.version)
        names.reclaimable = self.reclaimable
        names.shmem = self.shmem
        return names


_V2 = _Names(
    "sys/fs/cgroup",
    ("memory.max", "memory.current", "memory.swap.max", "memory.swap.current"),
    version=2,
)
_V2.reclaimable = (b"inactive_file", b"slab_reclaimable")
_V2.shmem = b"shmem"

_V1 = _Names(
    "sys/fs/cgroup/memory",
    (
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "memory.memsw.limit_in_bytes",
        "memory.memsw.usage_in_bytes",
    ),
    version=1,
)
_V1.reclaimable = (b"total_inactive_file",)
_V1.shmem = b"total_shmem"


class Confinement:
    """Memory of the container we run in.

    Raises: OSError when a file beside the limit cannot be opened.
    """

    def __init__(self, root: str, names: _Names, *, pread: Pread) -> None:
        folder = f"{root}/{names.folder}"
        self.folder = folder
        self.version = names.version
        self._names = names
        self._limit = KernelFile(f"{folder}/{names.limit}", pread=pread)
        self._usage = KernelFile(f"{folder}/{names.usage}", pread=pread)
        self._stat = KernelFile(f"{folder}/memory.stat", pread=pread)
        # Absent without swap accounting.
        self._swap_limit = try_open(f"{folder}/{names.swap_limit}", pread=pread)
        self._swap_usage = try_open(f"{folder}/{names.swap_usage}", pread=pread)

    def narrow(self, machine: Memory) -> Memory:
        """Return memory as it is for us: never more than the machine has.

        Raises: OSError; KernelFormatError.
        """
        limit_bytes = self._read_limit(self._limit)
        if limit_bytes is None or limit_bytes >= machine.total_bytes or limit_bytes == 0:
            return machine
        usage_bytes = self._read_limit(self._usage) or 0
        stat = b"\n" + self._stat.read()
        # A kernel that does not account for slab has none to give back.
        reclaimable = sum(_count(stat, name) or 0 for name in self._names.reclaimable)
        available = limit_bytes - usage_bytes + min(reclaimable, usage_bytes)
        swap_total, swap_free = self._swap(machine, limit_bytes, usage_bytes)
        return Memory(
            total_bytes=limit_bytes,
            available_bytes=max(0, min(available, limit_bytes, machine.available_bytes)),
            swap_total_bytes=swap_total,
            swap_free_bytes=swap_free,
            swap_usable_bytes=min(swap_free, machine.swap_usable_bytes),
            shmem_bytes=_count(stat, self._names.shmem),
        )

    def close(self) -> None:
        """Close every descriptor."""
        for file in (self._limit, self._usage, self._stat, self._swap_limit, self._swap_usage):
            if file:
                file.close()

    def _swap(self, machine: Memory, limit_bytes: int, usage_bytes: int) -> tuple[int, int]:
        total, free = machine.swap_total_bytes, machine.swap_free_bytes
        if self._swap_limit is None or self._swap_usage is None:
            return total, free
        swap_limit = self._read_limit(self._swap_limit)
        if swap_limit is None:
            return total, free
        swap_usage = self._read_limit(self._swap_usage) or 0
        if self.version == 1:
            # memsw counts memory and swap together.
            swap_limit = max(0, swap_limit - limit_bytes)
            swap_usage = max(0, swap_usage - usage_bytes)
        total = min(total, swap_limit)
        return total, min(free, max(0, total - swap_usage))

    def _read_limit(self, file: KernelFile) -> int | None:
        return parse_limit(file.path, file.read())


def find_confinement(root: str, *, pread: Pread) -> Confinement | None:
    """Find the container's limit; None on a host.

    A v2 limit of "max" is kept in view: ``docker update`` can lower it while we run. The
    v1 root of a host reads as unlimited, so there the limit decides at the start.
    """
    for names in (_V2, _V1):
        limit = try_open(f"{root}/{names.folder}/{names.limit}", pread=pread)
        if limit is None:
            continue
        try:
            finite = parse_limit(limit.path, limit.read()) is not None
            if finite or names is _V2:
                return Confinement(root, names, pread=pread)
        except (OSError, KernelFormatError):
            continue
        finally:
            limit.close()
    return None


def own_confinements(root: str, *, pread: Pread = os.pread) -> tuple[Confinement, ...]:
    """Find the limits of the cgroup we are in and of those above it, innermost first.

    The root of the mount is not among them: ``find_confinement`` looks there.
    Returns: Empty where our place in the tree cannot be seen.
    """
    try:
        path = parse_cgroup(read_whole(f"{root}/proc/self/cgroup"))
    except (OSError, KernelFormatError):
        return ()
    parts = [part for part in path.split("/") if part]
    if ".." in parts:
        # We are outside of our own cgroup namespace: what is above cannot be named.
        return ()
    found = []
    for depth in range(len(parts), max(0, len(parts) - DEPTH_MAX), -1):
        for names in (_V2, _V1):
            inner = names.below("/".join(parts[:depth]))
            if not os.path.exists(f"{root}/{inner.folder}/{inner.limit}"):
                continue
            try:
                found.append(Confinement(root, inner, pread=pread))
            except OSError:
                continue
    return tuple(found)


def _count(stat: bytes, name: bytes) -> int | None:
    start = stat.find(b"\n" + name + b" ")
    if start < 0:
        return None
    end = stat.find(b"\n", start + 1)
    if end < 0:
        raise KernelFormatError("memory.stat", f"{name.decode()} is cut short", stat[start:])
    return number("memory.stat", name.decode(), stat[start + len(name) + 2 : end])
