"""Shared memory that no process's own counters show: memfds, and files on tmpfs.

Two kinds, and the difference decides whether a kill can help. What has no name
(a memfd, a file that was unlinked) goes with its last holder. What has a name
stays until somebody removes it, whoever is killed; then we can only say where
it is and who writes to it.

Rule: never touch a file on a file system that could block. A descriptor is
looked at by the text of its link and by its mount before it is asked for its
size; both come from the kernel alone. A mount of somebody's own making (FUSE in
a user namespace) can bear any name, but not our number of the mount.
"""

from __future__ import annotations

import os

from forestall.core.value import TYPE_CHECKING, value
from forestall.kernel.errors import KernelFormatError
from forestall.kernel.files import read_whole
from forestall.kernel.mounts import mounts_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

FDS_MAX = 10_000
"""Descriptors looked at in one search: 50 ms."""
LISTING_FDS = 4
"""What listing the descriptors of one process costs, in looks."""
NAMED_BYTES_MIN = 1024 * 1024
"""Named files below this are not worth a word."""
_BLOCK_BYTES = 512
_FDINFO_BYTES = 1024


@value
class Usage:
    """A tmpfs and what is in it."""

    path: str
    used_bytes: int
    size_bytes: int


@value
class Writer:
    """Who has a named file on tmpfs open for writing; the file stays when the process goes."""

    pid: int
    path: str
    """Hostile text."""
    size_bytes: int


@value
class Nameless:
    """A memfd or an unlinked file: it goes with the last of its holders."""

    size_bytes: int
    pids: tuple[int, ...]


@value
class SharedHolders:
    """Who holds shared memory by descriptors."""

    files: tuple[Nameless, ...]
    writers: tuple[Writer, ...]
    looked: int
    """Descriptors looked at, and what listing them cost in looks."""
    dropped: int
    """Processes left out because the search was full."""

    @property
    def pids(self) -> frozenset[int]:
        """Everybody who was found."""
        return frozenset(pid for file in self.files for pid in file.pids) | frozenset(
            writer.pid for writer in self.writers
        )

    def freed(self, parents: Mapping[int, int]) -> dict[int, int]:
        """Bytes that go when a process goes with its descendants, by pid.

        A file with several holders is credited to the one that all the others descend from,
        and to nobody if there is none: no single end would free it.
        """
        freed: dict[int, int] = {}
        for file in self.files:
            top = _top_of(file.pids, parents)
            if top is not None:
                freed[top] = freed.get(top, 0) + file.size_bytes
        return freed

    def writing(self) -> dict[int, int]:
        """Bytes of the named files that a process has open for writing, by pid."""
        writing: dict[int, int] = {}
        for writer in self.writers:
            writing[writer.pid] = writing.get(writer.pid, 0) + writer.size_bytes
        return writing


def tmpfs_usage(root: str = "/") -> tuple[Usage, ...]:
    """List the tmpfs mounts of our namespace and how full they are, fullest first.

    Raises: OSError without /proc/self/mountinfo.
    """
    base = root.rstrip("/")
    found: dict[str, Usage] = {}
    # Of mounts at one place only the last can be seen: asking for the others would count it twice.
    mounts = mounts_of(read_whole(f"{base}/proc/self/mountinfo"))
    for mount in {mount.path: mount for mount in mounts}.values():
        if mount.kind != "tmpfs" or mount.device in found:
            continue
        try:
            # It lies in memory, so asking cannot block.
            disk = os.statvfs(f"{base}{mount.path}")
        except OSError:
            continue
        used_bytes = (disk.f_blocks - disk.f_bfree) * disk.f_frsize
        found[mount.device] = Usage(mount.path, used_bytes, disk.f_blocks * disk.f_frsize)
    return tuple(sorted(found.values(), key=lambda usage: usage.used_bytes, reverse=True))


def shared_holders(root: str, pids: Iterable[int]) -> SharedHolders:
    """Find who holds shared memory by descriptors.

    Memory that is mapped and whose descriptor was closed is not found, and neither is
    System V shared memory, which stays anyway.

    Args:
        root: Where /proc is.
        pids: Whom to look at, the likeliest first, because the search has a limit.

    Cost: 3 µs a descriptor, 15 for each that holds shared memory (Python 3.11, Linux 6.18).
    """
    search = _Search(root.rstrip("/"))
    for pid in pids:
        search.look_at(pid)
    return SharedHolders(
        files=tuple(Nameless(size, tuple(held)) for size, held in search.holders.values()),
        writers=tuple(sorted(search.writers, key=_size, reverse=True)),
        looked=search.looked,
        dropped=search.dropped,
    )


class _Search:
    """One search: what was found so far, and how much may still be looked at."""

    def __init__(self, base: str) -> None:
        self._base = base
        self._tmpfs = _tmpfs_mounts(base)
        self._anonymous = _anonymous_device()
        self.holders: dict[tuple[int, int], tuple[int, list[int]]] = {}
        """Bytes and holders of each nameless file, by device and inode."""
        self.writers: list[Writer] = []
        self.looked = 0
        self.dropped = 0

    def look_at(self, pid: int) -> None:
        """Look at every descriptor of a process, while the budget lasts."""
        if self.looked >= FDS_MAX:
            self.dropped += 1
            return
        try:
            names = os.listdir(f"{self._base}/proc/{pid}/fd")
        except OSError:
            # Gone, or not ours to see.
            return
        seen: set[tuple[int, int]] = set()
        # Whoever holds a million descriptors is looked at as far as the budget reaches.
        names = names[: max(0, FDS_MAX - self.looked - LISTING_FDS)]
        for name in names:
            try:
                self._look_into(pid, name, seen)
            except (OSError, KernelFormatError):
                continue
        self.looked += len(names) + LISTING_FDS

    def _look_into(self, pid: int, name: str, seen: set[tuple[int, int]]) -> None:
        link = f"{self._base}/proc/{pid}/fd/{name}"
        target = os.readlink(link)
        if not target.startswith("/"):
            return
        if not (target.startswith("/memfd:") or self._below_tmpfs(target)):
            return
        found = os.stat(link)
        # By device: mount numbers differ between mount namespaces, and a sandboxed guard
        # has one of its own.
        if found.st_dev != self._anonymous and found.st_dev not in self._tmpfs:
            return
        key = (found.st_dev, found.st_ino)
        size_bytes = found.st_blocks * _BLOCK_BYTES
        if key in seen or size_bytes == 0:
            return
        seen.add(key)
        if found.st_nlink == 0 or found.st_dev == self._anonymous:
            _, pids = self.holders.setdefault(key, (size_bytes, []))
            pids.append(pid)
        elif size_bytes >= NAMED_BYTES_MIN and self._writes(pid, name):
            self.writers.append(Writer(pid, target, size_bytes))

    def _writes(self, pid: int, name: str) -> bool:
        flags = _fdinfo_flags(f"{self._base}/proc/{pid}/fdinfo/{name}")
        return flags & os.O_ACCMODE != os.O_RDONLY

    def _below_tmpfs(self, target: str) -> bool:
        return any(target.startswith(path) for path in self._tmpfs.values())


def _top_of(pids: tuple[int, ...], parents: Mapping[int, int]) -> int | None:
    """Return the one of them that is above all the others; None if there is none."""
    members = set(pids)
    tops = [pid for pid in pids if not _has_above(pid, members, parents)]
    return tops[0] if len(tops) == 1 else None


def _has_above(pid: int, members: set[int], parents: Mapping[int, int]) -> bool:
    # The chain may be broken or, after a reuse of numbers, a ring.
    walked = {pid}
    current = parents.get(pid, 0)
    while current and current not in walked:
        if current in members:
            return True
        walked.add(current)
        current = parents.get(current, 0)
    return False


def _tmpfs_mounts(base: str) -> dict[int, str]:
    """Devices and paths of the tmpfs mounts of our namespace."""
    try:
        raw = read_whole(f"{base}/proc/self/mountinfo")
    except (OSError, KernelFormatError):
        return {}
    return {
        _device(mount.device): mount.path.rstrip("/") + "/"
        for mount in mounts_of(raw)
        if mount.kind == "tmpfs"
    }


def _device(text: str) -> int:
    major, _, minor = text.partition(":")
    return os.makedev(int(major), int(minor)) if major.isdigit() and minor.isdigit() else -1


def _anonymous_device() -> int:
    """Device of the kernel's own mount that memfds live on; minus one if it cannot be told."""
    try:
        fd = os.memfd_create("forestall", os.MFD_CLOEXEC)
    except OSError:
        return -1
    try:
        return os.fstat(fd).st_dev
    finally:
        os.close(fd)


def _fdinfo_flags(path: str) -> int:
    """Read how a descriptor was opened.

    Source: fs/proc/fd.c seq_show: flags in octal.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        raw = os.read(fd, _FDINFO_BYTES)
    finally:
        os.close(fd)
    words = raw.split()
    try:
        return int(words[words.index(b"flags:") + 1], 8)
    except (ValueError, IndexError):
        raise KernelFormatError("fdinfo", "no flags", raw) from None


def _size(writer: Writer) -> int:
    return writer.size_bytes
