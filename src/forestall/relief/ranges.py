"""What of a process is worth reading back from a disk, as ranges of its memory. Pure."""

from __future__ import annotations

from forestall.core.units import KIB, MIB
from forestall.core.value import TYPE_CHECKING, value
from forestall.kernel.maps import mappings_of
from forestall.kernel.mounts import mounts_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from forestall.kernel.maps import Mapping

PIECE_BYTES = 128 * KIB
"""Asked for in one call. Of a larger range of a file the kernel reads no more than the readahead of
the disk, which is this where nobody set it (mm/readahead.c force_page_cache_ra); and what is in
swap may take a request for every page."""
THIN = 16
"""Where little of a range is in swap, a piece is up to so many times as large."""
TEXT_BYTES_MAX = 8 * MIB
"""Of one mapped file: programs and libraries come back with what was swapped out."""
DATA_BYTES_MAX = 64 * MIB
"""Of one mapped file of data. Of a larger one some part is wanted, and nobody knows which."""
_LOCAL = ("btrfs", "zfs", "bcachefs")
"""On disks of this machine, though their device numbers do not say so. Whatever else has none
(NFS, FUSE, 9p) could hold relief up for as long as its server or its author likes."""
_KERNELS_TMPFS = (0, 1)
"""Where memfds and shared anonymous memory are: the kernel's own mount, its first (mm/shmem.c)."""


PROGRAM, SWAPPED, DATA = range(3)
"""In which order: nothing runs without its program, and whether data is wanted nobody knows."""


@value
class Devices:
    """Numbers of file systems, as (major, minor)."""

    local: frozenset[tuple[int, int]]
    """Without a disk's number, and on disks of this machine all the same."""
    tmpfs: frozenset[tuple[int, int]]


def devices_of(mountinfo: bytes) -> Devices:
    """Find them in the text of /proc/self/mountinfo."""
    local, tmpfs = set(), {_KERNELS_TMPFS}
    for mount in mounts_of(mountinfo):
        major, _, minor = mount.device.partition(":")
        if mount.kind in _LOCAL:
            local.add((int(major), int(minor)))
        elif mount.kind == "tmpfs":
            tmpfs.add((int(major), int(minor)))
    return Devices(frozenset(local), frozenset(tmpfs))


@value
class Range:
    """Some memory of a process that is worth reading back, to be asked for in pieces."""

    rank: int
    """PROGRAM, SWAPPED or DATA."""
    start: int
    size_bytes: int
    piece_bytes: int
    device: tuple[int, int] | None
    """The disk it is on; None for what is in swap."""


def ranges_of(
    maps: bytes, devices: Devices, *, swap_bytes: int, data_bytes_max: int
) -> tuple[Range, ...]:
    """List a process's programs, what of it may be in swap, and the files of data it maps.

    Args:
        maps: The text of its /proc/PID/maps.
        swap_bytes: How much of it is in swap; 0 leaves out what could be.
        data_bytes_max: The files of data as far as there is room for them.
    """
    worth = tuple(_worth(maps, devices))
    in_memory = tuple(one for one in worth if not _is_file(one, devices))
    size_bytes = sum(one.size_bytes for one in in_memory)
    piece_bytes = PIECE_BYTES * max(1, min(THIN, size_bytes // max(1, swap_bytes)))
    found = []
    for one in worth:
        if not _is_file(one, devices):
            if swap_bytes:
                found.append(Range(SWAPPED, one.start, one.size_bytes, piece_bytes, None))
        elif _is_program(one) and one.size_bytes <= TEXT_BYTES_MAX:
            found.append(_of_file(PROGRAM, one))
        elif one.size_bytes <= min(data_bytes_max, DATA_BYTES_MAX):
            data_bytes_max -= one.size_bytes
            found.append(_of_file(DATA, one))
    return tuple(found)


def _of_file(rank: int, one: Mapping) -> Range:
    return Range(rank, one.start, one.size_bytes, PIECE_BYTES, one.device)


def _is_file(one: Mapping, devices: Devices) -> bool:
    return one.inode != 0 and one.device not in devices.tmpfs


def _is_program(one: Mapping) -> bool:
    """Whether it is the text or the constants of a program or a library."""
    return one.permissions[1:2] == "-" and one.permissions[3:4] == "p"


def _worth(maps: bytes, devices: Devices) -> Iterator[Mapping]:
    """Yield what may be read at all: nobody's guard pages, and no file that could block."""
    for one in mappings_of(maps):
        readable = one.permissions.startswith("r")
        disk = one.device[0] != 0 or one.device in devices.local
        if readable and (disk or not _is_file(one, devices)):
            yield one
