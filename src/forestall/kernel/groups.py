"""Control groups with a limit of their own, and how close each is to it.

A service, a container or a pod may run out of memory while the machine has
plenty: the kernel then ends something inside it. Rule: a group is opened in
calm, and only re-read later; one that goes away is dropped without a word.
"""

from __future__ import annotations

from forestall.core.model import Group
from forestall.core.value import TYPE_CHECKING
from forestall.kernel.errors import KernelFormatError
from forestall.kernel.files import KernelFile, try_open
from forestall.kernel.parse import parse_flat, parse_limit, parse_memory_events, parse_pressure

if TYPE_CHECKING:
    from collections.abc import Iterable

    from forestall.kernel.files import Pread

GROUPS_MAX = 64
"""Groups watched at once; the cost of a reading is 30 µs for each that is near its limit."""
LOOKS_MAX = 32
"""Groups looked at for a limit in one go."""
DEPTH_MAX = 16
LOOK_AGAIN_NS = 60_000_000_000
"""A limit may be set at any time (``docker update``, ``systemctl set-property``)."""
UNLIMITED_MAX = 4096
NEAR_SHARE = 0.75
"""Below this much of the limit in use, what could be reclaimed need not be counted."""

STAT_BYTES = 8192
"""memory.stat has about 60 lines; to ask for its end would have it formatted again."""
LINES_BYTES = 256


class _Watched:
    """The open files of one group."""

    __slots__ = ("current", "events", "files", "high", "max", "path", "pressure", "stat", "swap")

    def __init__(self, folder: str, path: str, *, pread: Pread) -> None:
        self.path = path
        self.max = KernelFile(f"{folder}/memory.max", pread=pread)
        self.files = [self.max]
        self.current = self._open(f"{folder}/memory.current", pread)
        self.high = self._open(f"{folder}/memory.high", pread)
        self.stat = self._open(f"{folder}/memory.stat", pread)
        self.events = self._open(f"{folder}/memory.events", pread)
        # Absent without swap accounting, and without PSI.
        self.pressure = self._open(f"{folder}/memory.pressure", pread)
        swap = (f"{folder}/memory.swap.max", f"{folder}/memory.swap.current")
        self.swap = tuple(self._open(file, pread) for file in swap)

    def close(self) -> None:
        for file in self.files:
            file.close()

    def _open(self, path: str, pread: Pread) -> KernelFile | None:
        file = try_open(path, pread=pread)
        if file is not None:
            self.files.append(file)
        return file


class Groups:
    """The limited groups of this machine's v2 hierarchy.

    Version 1 is not read: what it calls a limit counts page cache that gives way.

    Args:
        root: Where the v2 hierarchy is mounted; empty for none.
        pread: Replaced in tests that let the n-th read fail.
    """

    def __init__(self, root: str, *, pread: Pread) -> None:
        self._root = root
        self._pread = pread
        self._watched: dict[str, _Watched] = {}
        self._unlimited: dict[str, int] = {}
        self.errors = 0
        self.dropped = 0
        """Limited groups that were one too many."""

    def __len__(self) -> int:
        """How many are watched."""
        return len(self._watched)

    def learn(self, paths: Iterable[str], now_ns: int) -> None:
        """Look which of these groups, or of those above them, have a limit. Only in calm.

        Cost: 10 µs a group that was not looked at within a minute, at most LOOKS_MAX of them.
        """
        looks = LOOKS_MAX
        for path in {above for leaf in paths for above in _line(leaf)}:
            if path in self._watched or now_ns < self._unlimited.get(path, 0):
                continue
            looks -= 1
            if looks < 0:
                return
            if not self._look(path):
                if len(self._unlimited) >= UNLIMITED_MAX:
                    self._unlimited.clear()
                self._unlimited[path] = now_ns + LOOK_AGAIN_NS

    def read(self) -> tuple[Group, ...]:
        """Read how the limited groups stand, in the order in which they were found.

        Cost: 12 µs a group, 30 µs near its limit (Python 3.11, Linux 6.18).
        """
        found = []
        for path, watched in list(self._watched.items()):
            try:
                group = _read(watched)
            except OSError:
                # ENODEV: removed. Its files stay open and say so.
                watched.close()
                del self._watched[path]
                continue
            except KernelFormatError:
                self.errors += 1
                continue
            if group is not None:
                found.append(group)
        return tuple(found)

    def close(self) -> None:
        """Close every descriptor."""
        for watched in self._watched.values():
            watched.close()
        self._watched.clear()

    def _look(self, path: str) -> bool:
        if not self._root or ".." in path:
            return False
        folder = f"{self._root}{path}"
        for name in ("memory.max", "memory.high"):
            file = try_open(f"{folder}/{name}", pread=self._pread)
            if file is None:
                continue
            try:
                limited = _limit(file) is not None
            except (OSError, KernelFormatError):
                limited = False
            finally:
                file.close()
            if limited:
                return self._watch(folder, path)
        return False

    def _watch(self, folder: str, path: str) -> bool:
        if len(self._watched) >= GROUPS_MAX:
            self.dropped += 1
            return False
        try:
            self._watched[path] = _Watched(folder, path, pread=self._pread)
        except OSError:
            return False
        return True


def _line(path: str) -> Iterable[str]:
    # The group and those above it; the root has no limit, or it is the container's we are in.
    for _ in range(DEPTH_MAX):
        if len(path) <= 1:
            return
        yield path
        path = path.rpartition("/")[0]


def _read(watched: _Watched) -> Group | None:
    hard = _limit(watched.max)
    high = _limit(watched.high)
    limits = [limit for limit in (hard, high) if limit is not None]
    usage = _limit(watched.current)
    if not limits or usage is None:
        return None
    limit = min(limits)
    reclaimable = 0
    if watched.stat is not None and usage > NEAR_SHARE * limit:
        stat = parse_flat("memory.stat", watched.stat.head(STAT_BYTES))
        # What the kernel takes back before it ends anybody for this limit.
        reclaimable = stat.get("inactive_file", 0) + stat.get("active_file", 0)
        reclaimable += stat.get("slab_reclaimable", 0)
    events = parse_memory_events(watched.events.head(LINES_BYTES)) if watched.events else None
    pressure = parse_pressure(watched.pressure.head(LINES_BYTES)) if watched.pressure else None
    return Group(
        watched.path,
        limit,
        usage,
        min(reclaimable, usage),
        _swap_room(watched),
        hard is None or limit < hard,
        events.oom_kill if events else None,
        pressure.full_us if pressure else None,
    )


def _swap_room(watched: _Watched) -> int | None:
    limit, usage = (_limit(file) for file in watched.swap)
    return None if limit is None else max(0, limit - (usage or 0))


def _limit(file: KernelFile | None) -> int | None:
    return None if file is None else parse_limit(file.path, file.head(LINES_BYTES))
