"""What of a process is worth reading back from a disk, as pieces of its memory. Pure."""

from __future__ import annotations

from forestall.core.units import KIB, MIB
from forestall.core.value import TYPE_CHECKING, value
from forestall.kernel.maps import mappings_of
from forestall.kernel.mounts import mounts_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from forestall.kernel.maps import Mapping

PIECE_BYTES = 2 * MIB
"""Asked for in one call, of what may be in swap."""
FILE_PIECE_BYTES = 128 * KIB
"""The same for files: of a larger range the kernel reads no more than the readahead of the disk,
which is this where nobody set it. Source: mm/readahead.c force_page_cache_ra."""
PIECES_MAX = 16_384
"""Of one process."""
TEXT_BYTES_MAX = 8 * MIB
"""Of one mapped file: programs and libraries come back with what was swapped out."""
DATA_BYTES_MAX = 64 * MIB
"""Of one mapped file of data. Of a larger one some part is wanted, and nobody knows which."""
_LOCAL = ("btrfs", "zfs", "bcachefs")
"""On disks of this machine, though their device numbers do not say so. Whatever else has none
(NFS, FUSE, 9p) could hold relief up for as long as its server or its author likes."""
_KERNELS_TMPFS = (0, 1)
"""Where memfds and shared anonymous memory are: the kernel's own mount, its first (mm/shmem.c)."""


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


def pieces(maps: bytes, devices: Devices, *, swap_bytes: int) -> list[tuple[int, int]]:
    """List (address, size) of a process's programs, and of what may be in swap of it.

    Args:
        maps: The text of its /proc/PID/maps.
        swap_bytes: How much of it is in swap; without any only its programs are listed.
    """
    found = []
    for one in _worth(maps, devices):
        if _is_file(one, devices):
            if _is_program(one) and one.size_bytes <= TEXT_BYTES_MAX:
                found += _cut(one, FILE_PIECE_BYTES)
        elif swap_bytes:
            # What fits into one piece need not be cut, however large the range it lies in.
            found += _cut(one, PIECE_BYTES if swap_bytes > PIECE_BYTES else one.size_bytes)
    return found[:PIECES_MAX]


def data_pieces(maps: bytes, devices: Devices, *, room_bytes: int) -> list[tuple[int, int]]:
    """List (address, size) of the files of data that a process maps, as far as there is room."""
    found = []
    for one in _worth(maps, devices):
        if not _is_file(one, devices) or (_is_program(one) and one.size_bytes <= TEXT_BYTES_MAX):
            continue
        if one.size_bytes <= min(room_bytes, DATA_BYTES_MAX):
            room_bytes -= one.size_bytes
            found += _cut(one, FILE_PIECE_BYTES)
    return found[:PIECES_MAX]


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


def _cut(one: Mapping, piece_bytes: int) -> list[tuple[int, int]]:
    most_bytes = min(one.size_bytes, PIECES_MAX * piece_bytes)
    return [
        (one.start + at, min(piece_bytes, one.size_bytes - at))
        for at in range(0, most_bytes, piece_bytes)
    ]
