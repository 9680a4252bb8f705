"""What control groups wait for: their stall, and what they read back.

Rule: a group's files are opened in calm, and only re-read later; one that goes
away, or that nobody lives in any more, is closed without a word.
"""

from __future__ import annotations

from forestall.core.model import GroupActivity
from forestall.core.units import MS
from forestall.core.value import TYPE_CHECKING
from forestall.kernel.clock import now_ns
from forestall.kernel.errors import KernelFormatError
from forestall.kernel.files import try_open
from forestall.kernel.parse import parse_pressure, parse_refaults

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from forestall.kernel.files import KernelFile, Pread

GROUPS_MAX = 64
"""Groups watched at once."""
STAT_BYTES = 8192
"""memory.stat has about 60 lines; to ask for its end would have it formatted again."""
LINES_BYTES = 256
STAT_NS = 5 * MS
"""Spent on memory.stat in one go: with many processors and groups the kernel adds up for long."""

_Files = tuple["KernelFile | None", "KernelFile | None"]


class GroupActivities:
    """The groups of the v2 hierarchy in which those live who are worth a row.

    Args:
        root: Where the v2 hierarchy is mounted; empty for none.
        pread: Replaced in tests that let the n-th read fail.
        now_ns: The clock.
    """

    def __init__(self, root: str, *, pread: Pread, now_ns: Callable[[], int] = now_ns) -> None:
        self._root = root
        self._pread = pread
        self._now_ns = now_ns
        self._files: dict[str, _Files] = {}
        self.errors = 0

    def learn(self, paths: Iterable[str]) -> None:
        """Watch these groups and no others. Only in calm.

        Args:
            paths: The most important first; what is more than GROUPS_MAX is left out.
        Cost: 40 µs for each that is new.
        """
        wanted = dict.fromkeys(path for path in paths if ".." not in path) if self._root else {}
        known, self._files = self._files, {}
        for path in tuple(wanted)[:GROUPS_MAX]:
            self._files[path] = known.pop(path) if path in known else self._open(path)
        for files in known.values():
            _close(files)

    def read(self, *, with_refaults: bool) -> tuple[GroupActivity, ...]:
        """Read how they stand.

        Args:
            with_refaults: Also read memory.stat, for which the kernel needs some memory itself;
                of as many as there is time for, the most important first.
        Cost: 5 µs a group, 35 µs with refaults (Python 3.11, Linux 6.18).
        """
        found = []
        until_ns = self._now_ns() + STAT_NS if with_refaults else 0
        for path, (stall, stat) in list(self._files.items()):
            try:
                pressure = parse_pressure(stall.head(LINES_BYTES)) if stall else None
                refaults = None
                if stat is not None and self._now_ns() < until_ns:
                    refaults = parse_refaults(stat.head(STAT_BYTES))
            except OSError:
                # ENODEV: removed. Its files stay open and say so.
                _close(self._files.pop(path))
                continue
            except KernelFormatError:
                self.errors += 1
                continue
            if pressure is not None or refaults is not None:
                some_us = pressure.some_us if pressure is not None else None
                found.append(GroupActivity(path, some_us, refaults))
        return tuple(found)

    def close(self) -> None:
        """Close every descriptor."""
        self.learn(())

    def _open(self, path: str) -> _Files:
        folder = f"{self._root}{path}"
        stall = try_open(f"{folder}/memory.pressure", pread=self._pread)
        return stall, try_open(f"{folder}/memory.stat", pread=self._pread)


def _close(files: _Files) -> None:
    for file in files:
        if file is not None:
            file.close()
