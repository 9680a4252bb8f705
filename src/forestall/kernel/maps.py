"""/proc/PID/maps to values: what memory a process has mapped. Pure."""

from __future__ import annotations

from forestall.core.value import TYPE_CHECKING, value

if TYPE_CHECKING:
    from collections.abc import Iterator

_KERNELS_OWN = (b"[vvar", b"[vdso", b"[vsyscall")


@value
class Mapping:
    """One range of a process's memory."""

    start: int
    size_bytes: int
    permissions: str
    """As the kernel prints them: "r-xp", "rw-s"."""
    device: tuple[int, int]
    """Major and minor number of the file system; (0, 0) for anonymous memory."""
    inode: int
    """0 for anonymous memory."""


def mappings_of(raw: bytes) -> Iterator[Mapping]:
    """Read the lines of /proc/PID/maps; a line that makes no sense is left out.

    Names are not kept, for they are hostile: a user's own mount may bear any. What the kernel
    lends to everybody (vdso) is left out too.
    Source: fs/proc/task_mmu.c show_map_vma.
    """
    for line in raw.splitlines():
        fields = line.split(None, 5)
        if len(fields) < 5 or (len(fields) > 5 and fields[5].startswith(_KERNELS_OWN)):
            continue
        try:
            start, end = (int(number, 16) for number in fields[0].split(b"-"))
            major, minor = (int(number, 16) for number in fields[3].split(b":"))
            inode = int(fields[4])
        except ValueError:
            continue
        if end > start:
            permissions = fields[1].decode("latin-1")
            yield Mapping(start, end - start, permissions, (major, minor), inode)
