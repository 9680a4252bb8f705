"""Stage one of a survey: how much every process holds, by one small read of each.

Rule: the loop in ``measure`` runs once per process of the machine, so it keeps
nothing for the many that are small, and calls nothing it can do without.
"""

from __future__ import annotations

import os

from forestall.core.value import TYPE_CHECKING
from forestall.kernel.errors import KernelFormatError, ProcessGone
from forestall.kernel.identity import STAT_BYTES, STATM_BYTES, thread_with_memory
from forestall.kernel.parse_process import PF_EXITING, parse_stat, parse_statm

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from forestall.core.model import ProcessId
    from forestall.kernel.identity import Identifier, ProcFolder

    Measure: TypeAlias = tuple[int, int, int, int]
    """Footprint in pages, pid, anonymous pages in RAM, swap in bytes."""

FLOOR_BYTES = 1024 * 1024
"""Whoever holds less frees nothing worth a decision; it rises when there are many."""
ROWS_MAX = 4096
SWAP_READS_MAX = 512
"""Processes asked for their swap in one survey: 5 ms."""
BREATH = 16
"""Processes weighed between two moments at which others may have the processor."""
ZOMBIES_MAX = 256
"""Zombies looked at for live threads."""


class Notes:
    """What one survey came upon beside the measures: what could not be read, and who leaves."""

    __slots__ = ("dropped", "failure", "hidden", "leaving", "unread")

    def __init__(self) -> None:
        self.dropped = 0
        self.failure: Exception | None = None
        self.hidden = False
        self.unread: set[int] = set()
        """Processes that are still there, only could not be read."""
        self.leaving: list[ProcessId] = []
        """Processes whose memory the kernel is taking down at this moment."""

    def take(self, error: Exception, pid: int) -> None:
        """Take note of an error; that somebody has left in between is no news."""
        if isinstance(error, FileNotFoundError | ProcessLookupError | ProcessGone):
            return
        if isinstance(error, PermissionError):
            self.hidden = True
            return
        self.dropped += 1
        self.failure = error
        self.unread.add(pid)


class Scale:
    """Weighs the processes.

    Cost: 6 µs a process, 10 more for each that may be in swap (Python 3.11, Linux 6.18).
    """

    def __init__(self, folder: ProcFolder, identifier: Identifier, page_bytes: int) -> None:
        self._folder = folder
        self._identifier = identifier
        self._page_bytes = page_bytes
        self._kernel_threads: frozenset[str] = frozenset()

    def measure(
        self, notes: Notes, *, swap_used: bool, breathe: Callable[[], None]
    ) -> list[Measure]:
        """List the processes above the floor, largest first.

        Raises: OSError when /proc cannot be listed.
        """
        # Bound to locals: this loop runs once per process of the machine.
        folder_fd, open_file, read_file = (
            self._folder.fd,
            self._folder.open_file,
            self._folder.read_file,
        )
        close, read_only = os.close, os.O_RDONLY
        floor = FLOOR_BYTES // self._page_bytes
        largest = _Largest(ROWS_MAX, floor)
        swappable = _Largest(SWAP_READS_MAX, floor)
        empty: list[str] = []
        names = self._folder.names()
        if "1" not in names:
            notes.hidden = True
        for number, name in enumerate(names):
            if not name.isdigit():
                continue
            if not number % BREATH:
                breathe()
            try:
                fd = open_file(name + "/statm", read_only, dir_fd=folder_fd)
                try:
                    raw = read_file(fd, STATM_BYTES)
                finally:
                    close(fd)
                _, resident, file, _, _, data, _ = raw.split()
                anon = int(resident) - int(file)
                if swap_used and int(data) - anon >= swappable.floor:
                    swappable.add((int(data) - anon, int(name), anon, 0))
                if anon >= largest.floor:
                    largest.add((anon, int(name), anon, 0))
                elif anon >= floor:
                    largest.dropped += 1
                elif resident == b"0":
                    empty.append(name)
            except (OSError, ValueError) as error:
                notes.take(error, int(name))
        self._sort_out(empty, largest, notes)
        self._add_swap(largest, swappable.take(), notes)
        measured = largest.take()
        notes.dropped += largest.dropped
        return measured

    def _sort_out(self, empty: list[str], largest: _Largest, notes: Notes) -> None:
        """Tell apart who has no memory: kernel threads, zombies, who leaves, and the headless.

        When the first thread of a process ends before the others, /proc shows a zombie
        without memory, and the memory is found with the other threads only.
        """
        kernel_threads = {name for name in empty if name in self._kernel_threads}
        looks = ZOMBIES_MAX
        for name in empty:
            if name in kernel_threads:
                continue
            try:
                stat = parse_stat(self._folder.slurp(f"{name}/stat", STAT_BYTES))
                if stat.kernel_thread:
                    kernel_threads.add(name)
                elif stat.threads > 1 and looks > 0:
                    looks -= 1
                    anon = self._headless_pages(int(name))
                    if anon >= largest.floor:
                        largest.add((anon, int(name), anon, 0))
                    elif not anon and stat.flags & PF_EXITING:
                        notes.leaving.append(stat.id)
                elif stat.leaving:
                    notes.leaving.append(stat.id)
            except (OSError, KernelFormatError, ProcessGone) as error:
                notes.take(error, int(name))
        self._kernel_threads = frozenset(kernel_threads)

    def _headless_pages(self, pid: int) -> int:
        tid = thread_with_memory(self._folder, pid)
        if tid is None:
            return 0
        return parse_statm(self._folder.slurp(f"{pid}/task/{tid}/statm", STATM_BYTES)).anon_pages

    def _add_swap(self, largest: _Largest, swappable: list[Measure], notes: Notes) -> None:
        """Ask those who could have much in swap how much they have.

        statm tells the size of the private writable address space, and no more than
        that can be anonymous. What of it is not in RAM is in swap or was never touched.
        """
        if not swappable:
            return
        swapped: dict[int, int] = {}
        for _, pid, anon, _ in swappable:
            try:
                swap_bytes = self._identifier.swap_bytes(pid)
            except (OSError, KernelFormatError, ProcessGone) as error:
                notes.take(error, pid)
                continue
            if swap_bytes:
                swapped[pid] = swap_bytes
                if anon < largest.floor <= anon + swap_bytes // self._page_bytes:
                    largest.add((anon, pid, anon, 0))
        largest.rank_again(
            lambda item: (
                item[2] + swapped.get(item[1], 0) // self._page_bytes,
                item[1],
                item[2],
                swapped.get(item[1], 0),
            )
        )


class _Largest:
    """The largest so many of a stream, without holding all of it."""

    __slots__ = ("_items", "_limit", "dropped", "floor")

    def __init__(self, limit: int, floor: int) -> None:
        self._items: list[Measure] = []
        self._limit = limit
        self.floor = floor
        self.dropped = 0

    def add(self, item: Measure) -> None:
        """Take an item whose first number is at least the floor."""
        self._items.append(item)
        if len(self._items) >= 2 * self._limit:
            self._trim()

    def rank_again(self, key: Callable[[Measure], Measure]) -> None:
        """Replace every item by another."""
        self._items = [key(item) for item in self._items]

    def take(self) -> list[Measure]:
        """Return the largest, largest first."""
        self._trim()
        return self._items

    def _trim(self) -> None:
        self._items.sort(reverse=True)
        surplus = len(self._items) - self._limit
        if surplus > 0:
            self.dropped += surplus
            del self._items[self._limit :]
            self.floor = self._items[-1][0]
