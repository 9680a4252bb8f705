"""After an end: what those who wait have lost to a disk is read back for them, in bulk.

A process takes its pages back one fault at a time, each a wait for the disk: a
service of 24 MiB took 13 s for it after the hog was gone, at 150 operations a
second. Told of a whole range at once, the kernel sorts and merges the reads.

Rule: only for those that are seen to wait, the smallest first; never into the
second half of what memory was free; over as soon as nobody waits. It is a hint
to the kernel and changes nothing but when pages come. A disk is not asked for all
at once: whoever waits for a page that nobody thought of stands behind all that was asked for.

Source: mm/madvise.c madvise_willneed.
"""

from __future__ import annotations

import errno
import os

from forestall.core.events import READ_BACK
from forestall.core.sentence import plain
from forestall.core.units import MS, SECOND, US, human_bytes, human_ns
from forestall.core.value import TYPE_CHECKING, value
from forestall.kernel import libc
from forestall.kernel.diskstats import device_of, in_flight
from forestall.kernel.errors import KernelError
from forestall.kernel.files import read_whole, try_open
from forestall.kernel.identity import STAT_BYTES, STATUS_BYTES, ProcFolder
from forestall.kernel.parse import parse_swaps
from forestall.kernel.parse_process import parse_stat, parse_swap
from forestall.kernel.sampler import Sampler
from forestall.relief.lanes import Helped, Lanes
from forestall.relief.ranges import DATA, devices_of, ranges_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from forestall.core.events import Sampled

LOOK_NS = 100 * MS
"""Between two looks at who waits."""
NAMES_MAX = 3
QUIET_LOOKS = 10
"""So many looks in a row without anybody waiting, and it is over."""
IO_SHARE = 0.2
"""Everybody waits for a disk so much of the time: who stands in its queue takes no new faults."""
DEADLINE_NS = 20 * SECOND
FAULTS_MIN = 3
"""Fewer major faults between two looks are the usual life of a machine."""
TIMES_MAX = 2
"""A process is helped so often: what it waits for after that is not what was pushed out."""
STEP_NS = 20 * MS
"""After this much asking it is time to look around again."""
AHEAD = 32
"""A disk has room while so many requests are under way more than there are processes that wait."""
LOOK_PART = 10
"""At most one part in so many of the time goes into looking: there may be thousands to look at."""
OPEN_MAX = 64
"""So many processes are helped at the same time."""
WAIT_MS = 5
_CANNOT = {errno.EPERM, errno.ENOSYS, errno.EINVAL}


@value
class Waiting:
    """A process that took major faults between two looks."""

    swap_bytes: int
    pid: int
    comm: str
    """Hostile text."""


class ReadBack:
    """One errand of this kind, done in small steps.

    Args:
        root: Where /proc is.
        now_ns: The clock.
        advise: ``libc.process_will_need``, or a test's.
        open_pidfd: ``os.pidfd_open``, likewise.
        own_pids: Never looked at: the guard and relief hold their memory locked.

    Raises: OSError; KernelError when memory cannot be read.
    """

    def __init__(
        self,
        root: str = "",
        *,
        now_ns: Callable[[], int],
        advise: Callable[[int, int, int], int] = libc.process_will_need,
        open_pidfd: Callable[[int], int] = os.pidfd_open,
        own_pids: frozenset[int] = frozenset(),
    ) -> None:
        self._root = root
        self._now_ns = now_ns
        self._advise = advise
        self._open_pidfd = open_pidfd
        self._own_pids = own_pids
        self._devices = devices_of(read_whole(f"{root}/proc/self/mountinfo"))
        self._sampler = Sampler(root or "/")
        self._folder = ProcFolder(root)
        self._disks = try_open(f"{root}/proc/diskstats")
        self._swap_disk = self._find_swap_disk()
        self._began_ns = now_ns()
        first = self._sampler.sample(self._began_ns, with_activity=True)
        self._floor_bytes = first.memory.available_bytes // 2
        self._room_bytes = first.memory.available_bytes - self._floor_bytes
        """For mapped files: what they take counts as available still."""
        self._before = first
        self._known = self._fault_counts()
        self._look_ns = self._began_ns + LOOK_NS
        """When to look again."""
        self._times: dict[int, int] = {}
        self._names: list[str] = []
        self._lanes = Lanes()
        self._helped: dict[int, Helped] = {}
        self._queue: list[Waiting] = []
        self._waiters = 0
        """How many were seen to wait at the last look."""
        self._disk_stats = b""
        self._held = False
        """Every disk for which something is left has enough to do."""
        self._quiet = 0
        self._asked_bytes = 0
        self._why = ""
        self._works = False

    @property
    def pause_ms(self) -> int:
        """How long the next step can wait."""
        if self._busy():
            return WAIT_MS if self._held else 0
        return max(0, self._look_ns - self._now_ns()) // MS

    def step(self) -> bool:
        """Do a little; False when it is over.

        Cost: ten times a second a read of vmstat, and of every process's stat while somebody
        waits.
        Raises: OSError; KernelError.
        """
        now_ns = self._now_ns()
        if now_ns - self._began_ns > DEADLINE_NS:
            return False
        if now_ns >= self._look_ns:
            if not self._look(now_ns):
                return False
            took_ns = self._now_ns() - now_ns
            self._look_ns = now_ns + max(LOOK_NS, LOOK_PART * took_ns)
        self._ask_some(now_ns + STEP_NS)
        return self._why == "" and self._quiet < QUIET_LOOKS

    def _look(self, now_ns: int) -> bool:
        """See who waits; False when memory runs short again."""
        seen = self._sampler.sample(now_ns, with_activity=True)
        spare_bytes = seen.memory.available_bytes - self._floor_bytes
        if spare_bytes < 0:
            return False
        before, self._before = self._before, seen
        if faults_between(before, seen) >= FAULTS_MIN:
            self._queue = self._waiting(spare_bytes)
        waits = self._busy() or io_share(before, seen) >= IO_SHARE
        self._quiet = 0 if waits else self._quiet + 1
        return True

    def close(self) -> None:
        """Close every descriptor."""
        self._sampler.close()
        self._folder.close()
        if self._disks is not None:
            self._disks.close()
        self._lanes.clear()

    def outcome(self) -> dict[str, Any] | None:
        """Say what was done, for the guard; None when nobody waited."""
        if self._why:
            return {"op": "declined", "action": READ_BACK, "why": self._why}
        if not self._times:
            return None
        return {
            "op": "relieved",
            "action": READ_BACK,
            "gained_bytes": self._asked_bytes,
            "sentence": f"up to {human_bytes(self._asked_bytes)} were read back for "
            f"{self._whom()}, who waited for a disk, within "
            f"{human_ns(self._now_ns() - self._began_ns)}",
        }

    def _whom(self) -> str:
        names = ", ".join(plain(name) for name in self._names[:NAMES_MAX])
        more = len(self._names) - NAMES_MAX
        return f"{names} and {more} more" if more > 0 else names

    def _busy(self) -> bool:
        return bool(self._lanes or self._queue)

    def _waiting(self, room_bytes: int) -> list[Waiting]:
        """List who has waited since the last look, or was in the queue; the smallest comes last."""
        before, self._known = self._known, self._fault_counts()
        found = {one.pid: one for one in self._queue if one.pid in self._known}
        self._waiters = 0
        for pid, (faults, comm) in self._known.items():
            if pid not in before or faults == before[pid][0]:
                continue
            self._waiters += 1
            helped = pid in self._helped and self._helped[pid].ranges > 0
            if helped or pid in found or self._times.get(pid, 0) >= TIMES_MAX:
                continue
            try:
                swap_bytes = parse_swap(self._folder.slurp(f"{pid}/status", STATUS_BYTES))
            except (OSError, KernelError):
                continue
            if swap_bytes <= room_bytes:
                found[pid] = Waiting(swap_bytes, pid, comm)
        return sorted(found.values(), key=lambda one: (one.swap_bytes, one.pid), reverse=True)

    def _fault_counts(self) -> dict[int, tuple[int, str]]:
        found = {}
        for name in self._folder.names():
            if not name.isdigit() or int(name) in self._own_pids:
                continue
            try:
                stat = parse_stat(self._folder.slurp(f"{name}/stat", STAT_BYTES))
            except (OSError, KernelError):
                continue  # it has gone
            if not stat.kernel_thread:
                found[stat.id.pid] = stat.major_faults, stat.comm
        return found

    def _ask_some(self, until_ns: int) -> None:
        self._held = False
        while self._busy() and not self._held and (now_ns := self._now_ns()) < until_ns:
            turned = bool(self._queue) and self._may_turn()
            if turned:
                self._turn_to(self._queue.pop(), now_ns)
            if self._disks is not None:
                self._disk_stats = self._disks.read()
            answers = self._lanes.ask(now_ns, self._has_room, self._advise)
            self._held = not answers and not turned
            self._works = self._works or 0 in answers
            cannot = next((error for error in answers if error in _CANNOT), 0)
            if cannot and not self._works:
                self._why = f"the kernel does not read back for us ({os.strerror(cannot)})"
                self._lanes.clear()
                self._queue = []

    def _may_turn(self) -> bool:
        self._helped = {pid: one for pid, one in self._helped.items() if one.ranges}
        return len(self._helped) < OPEN_MAX

    def _has_room(self, device: tuple[int, int] | None) -> bool:
        return in_flight(self._disk_stats, device or self._swap_disk) < self._waiters + AHEAD

    def _find_swap_disk(self) -> tuple[int, int] | None:
        """Find the disk with most of what is in swap; None for a swap file: nobody says whose."""
        if self._disks is None:
            return None
        try:
            areas = parse_swaps(read_whole(f"{self._root}/proc/swaps"))
        except (OSError, KernelError):
            return None  # a kernel without swap
        most = max(areas, key=lambda area: area.used_bytes, default=None)
        return device_of(self._disks.read(), most.path.removeprefix("/dev/")) if most else None

    def _turn_to(self, one: Waiting, now_ns: int) -> None:
        try:
            pidfd = self._open_pidfd(one.pid)
        except OSError:
            return
        helped = Helped(pidfd, one.swap_bytes)
        try:
            raw = read_whole(f"{self._root}/proc/{one.pid}/maps")
        except (OSError, KernelError):
            helped.close()
            return
        if one.pid not in self._times:
            self._names.append(one.comm)
        self._times[one.pid] = self._times.get(one.pid, 0) + 1
        ranges = ranges_of(
            raw, self._devices, swap_bytes=one.swap_bytes, data_bytes_max=self._room_bytes
        )
        data_bytes = sum(each.size_bytes for each in ranges if each.rank == DATA)
        self._room_bytes -= data_bytes
        self._asked_bytes += one.swap_bytes + data_bytes
        self._helped[one.pid] = helped
        self._lanes.add(ranges, helped, now_ns)


def faults_between(before: Sampled, now: Sampled) -> int:
    """Count major faults; 0 where the kernel does not say."""
    if before.activity is None or now.activity is None:
        return 0
    return now.activity.major_faults - before.activity.major_faults


def io_share(before: Sampled, now: Sampled) -> float:
    """Share of the time in which every task waited for a disk; 0 where the kernel does not say."""
    first = before.activity.io_full_us if before.activity else None
    last = now.activity.io_full_us if now.activity else None
    if first is None or last is None:
        return 0.0
    return (last - first) * US / max(1, now.now_ns - before.now_ns)
