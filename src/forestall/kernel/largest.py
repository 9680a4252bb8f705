"""Who holds the most memory, roughly and cheaply; for alerts, not for decisions."""

from __future__ import annotations

import os

from forestall.core.value import value

PROCESSES_MAX = 32_768
_READ_BYTES = 4096


@value
class Largest:
    """A process and its resident memory."""

    pid: int
    comm: bytes
    resident_bytes: int


def largest(
    count: int, least_bytes: int, *, root: str = "/proc", page_bytes: int = 4096
) -> tuple[Largest, ...]:
    """Return the processes with the most resident memory, largest first.

    Args:
        least_bytes: Smaller ones are left out.

    Race: who ends meanwhile is left out; a number taken over by another process
    between the two reads shows the other's name.
    Cost: one small read per process; 3 ms for 300.
    """
    sizes = []
    try:
        names = os.listdir(root)
    except OSError:
        return ()
    for name in names[:PROCESSES_MAX]:
        if name.isdecimal():
            fields = _read(f"{root}/{name}/statm").split()
            if len(fields) > 1 and fields[1].isdigit():
                resident_bytes = int(fields[1]) * page_bytes
                if resident_bytes >= least_bytes:
                    sizes.append((resident_bytes, int(name)))
    sizes.sort(reverse=True)
    found = []
    for resident_bytes, pid in sizes[:count]:
        comm = _read(f"{root}/{pid}/comm").removesuffix(b"\n")
        if comm:
            found.append(Largest(pid, comm, resident_bytes))
    return tuple(found)


def marked(mark: bytes, *, root: str = "/proc") -> list[int]:
    """Return the processes whose environment holds exactly this ``NAME=value``."""
    try:
        names = os.listdir(root)
    except OSError:
        return []
    return [
        int(name)
        for name in names
        if name.isdecimal() and mark in _read(f"{root}/{name}/environ", 1 << 17).split(b"\0")
    ]


def total_bytes() -> int:
    """Return how much memory the machine has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def boot_id(*, root: str = "/proc") -> str:
    """Return what names this boot; empty when the kernel does not say."""
    return _read(f"{root}/sys/kernel/random/boot_id").decode("ascii", "replace").strip()


def _read(path: str, bytes_max: int = _READ_BYTES) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, bytes_max)
    except OSError:
        return b""
    finally:
        os.close(fd)
