"""The process table: who holds how much, who they are, and who must not be touched.

Two stages, because a machine has thousands of processes and a decision needs a
few. Stage one reads one small file of each (statm, 5 µs). Stage two proves the
leading ones afresh, knows the others from before, and reads who the new ones
are. Rule: a process that vanishes between two reads is routine, never an error.
"""

from __future__ import annotations

import os

from forestall.core.events import CONFIRMED, Surveyed
from forestall.core.families import touchable
from forestall.core.model import Leaving, ProcessId, Row, Standing
from forestall.core.value import TYPE_CHECKING
from forestall.kernel import clock
from forestall.kernel.errors import KernelFormatError, ProcessGone
from forestall.kernel.identity import (
    STAT_BYTES,
    STATM_BYTES,
    Identifier,
    Known,
    ProcFolder,
)
from forestall.kernel.measure import Notes, Scale
from forestall.kernel.parse_process import parse_stat, parse_statm
from forestall.kernel.shared import SharedHolders, shared_holders

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from forestall.core.model import Holdings
    from forestall.core.standing import Matcher

LEADING = 48
"""Rows proved afresh in every survey: the victim is one of them."""
AFRESH = -1
"""The rank of those that must be proved, whatever they hold."""
LEADING_WARM = 512
"""In calm there is time to prove more."""
IDENTITIES_MAX = 1024
"""New processes identified in one survey, the largest first: 30 ms."""
ANCESTORS_MAX = 1024
JUMP_BYTES = 64 * 1024 * 1024
"""Who has grown or shrunk by so much since the last survey may be somebody else."""
LEAVING_NS = 10 * 1_000_000_000
"""Who has been leaving for longer while it holds its memory is stuck, and a row like others."""
LEAVING_MAX = 64
MARKS_MAX = 256
"""Standings given by people at run time; the oldest is forgotten first."""
OUR_NAME = "forestall"
"""Our helpers carry this as the beginning of their names."""

_NS_PER_SECOND = 1_000_000_000


def _go_on() -> None:
    """Where nobody needs the processor more."""


class ProcessTable:
    """Surveys the processes of this machine, or of one user.

    Cost: 6 µs a process and 0.6 ms for the leading ones (Python 3.11, Linux 6.18).

    Args:
        root: Where /proc is.
        matcher: The victim rules.
        own_pid: The guard; it and its kin are marked as never to be touched.
        page_bytes: Size of a page, from sysconf.
        clk_tck: Clock ticks in a second, likewise.
        only_uid: Leave out what belongs to others.
        boot_ns: Clock of process start times.
        open_file: ``os.open``, or a test's that fails.
        read_file: ``os.read``, likewise.

    Raises: OSError without /proc.
    """

    def __init__(  # noqa: PLR0913 - seams are parameters
        self,
        root: str = "/",
        *,
        matcher: Matcher,
        own_pid: int,
        page_bytes: int,
        clk_tck: int,
        only_uid: int | None = None,
        boot_ns: Callable[[], int] = clock.boot_ns,
        open_file: Callable[..., int] = os.open,
        read_file: Callable[[int, int], bytes] = os.read,
    ) -> None:
        self._root = root
        self._folder = ProcFolder(root, open_file=open_file, read_file=read_file)
        self._identifier = Identifier(self._folder, matcher)
        self._scale = Scale(self._folder, self._identifier, page_bytes)
        self._own_pid = own_pid
        self._page_bytes = page_bytes
        self._clk_tck = clk_tck
        self._only_uid = only_uid
        self._boot_ns = boot_ns
        self._known: dict[int, Known] = {}
        self._above: frozenset[int] = frozenset()
        self._helpers: frozenset[int] = frozenset()
        self._surveys = 0
        self._identities = 0
        self._notes = Notes()
        self._leaving: dict[ProcessId, Leaving] = {}
        self.marks: dict[ProcessId, tuple[Standing, str]] = {}
        """What people said of single processes; it goes before all rules."""

    def mark(self, process: ProcessId, standing: Standing | None, why: str) -> Standing | None:
        """Give a process a standing until it ends, or take it back; returns the mark before."""
        before = self.marks.pop(process, None)
        if standing is not None:
            self.marks[process] = standing, why
            if len(self.marks) > MARKS_MAX:
                del self.marks[next(iter(self.marks))]
        return None if before is None else before[0]

    def shield(self, pids: Iterable[int]) -> None:
        """Name processes that belong to the guard: relief, herald."""
        self._helpers = frozenset(pids)

    def survey(
        self,
        now_ns: Callable[[], int],
        *,
        swap_used: bool = False,
        warm: bool = False,
        shared: bool = False,
        holdings: Holdings | None = None,
        breathe: Callable[[], None] = _go_on,
    ) -> Surveyed:
        """Read the process table.

        Args:
            now_ns: The clock; asked before and after.
            swap_used: Some swap is in use, so ask who is in it.
            warm: It is calm: also read what would be too dear or too risky later.
            shared: Also find who holds shared memory by descriptors; dearer still.
            holdings: Passed on in the answer.
            breathe: Called every few processes; it may take its time.

        Raises: OSError when /proc cannot be listed, or no process could be read.
        """
        began_ns = now_ns()
        self._surveys += 1
        self._identities = 0
        self._notes = notes = Notes()
        measured = self._scale.measure(notes, swap_used=swap_used, breathe=breathe)
        for rank, (_, pid, anon_pages, swap_bytes) in enumerate(measured):
            breathe()
            self._meet(pid, rank, anon_pages, swap_bytes, warm=warm)
        self._keep_unread(notes)
        holders = self._meet_holders(warm=warm) if shared else None
        self._meet_ancestors(warm=warm)
        present = {pid: known for pid, known in self._known.items() if known.seen == self._surveys}
        if not present and notes.failure is not None:
            raise OSError(f"no process could be read: {notes.failure}") from notes.failure
        # Whoever was not met this time is small or gone; a number is not worth keeping a face for.
        self._leaving = self._leavers(present, began_ns)
        self._known = present
        if warm:
            self._identifier.forget_cgroups()
        rows = self._rows(present, holders)
        hidden = notes.hidden or self._only_uid is not None
        leaving = tuple(self._leaving.values())
        return Surveyed(now_ns(), began_ns, rows, holdings, notes.dropped, hidden, shared, leaving)

    def may_go(self, pid: int) -> bool:
        """Tell whether nothing protects a process; for who is in a unit and in no survey.

        Who cannot be read, or only in part, is unknown, and who is unknown may not go.
        Cost: 30 µs.
        """
        try:
            known = self._identifier.identify(pid, warm=False)
        except ProcessGone:
            return True
        except (OSError, KernelFormatError):
            return False
        if known is None or not known.complete:
            return False
        judged = self._judged(known, self._known.get(self._own_pid))
        return touchable(self._row(known, judged, (0, 0), self._boot_ns()))

    def confirm(self, processes: Sequence[ProcessId]) -> int:
        """Add up what the first CONFIRMED of these hold now, in bytes; nothing, if any is marked.

        Who has gone, leaves, or runs another program than a survey met counts for nothing. A
        mark may have been made since that survey, so whoever has one is looked at in full.
        Cost: three reads each of the first, where a survey takes one from each there is.
        """
        if not self.marks.keys().isdisjoint(processes):
            return 0
        return sum(self._confirmed_bytes(process) for process in processes[:CONFIRMED])

    def _confirmed_bytes(self, process: ProcessId) -> int:
        pid = process.pid
        known = self._known.get(pid)
        if known is None or known.id != process:
            return 0
        try:
            stat = self._identifier.stat(pid)
            if stat.id != process or stat.comm != known.comm or stat.leaving or stat.state in "XZ":
                return 0
            statm = parse_statm(self._folder.slurp(f"{pid}/statm", STATM_BYTES))
            swap_bytes = self._identifier.swap_bytes(pid)
        except (OSError, KernelFormatError, ProcessGone):
            return 0
        return statm.anon_pages * self._page_bytes + swap_bytes

    def close(self) -> None:
        """Close the descriptor of /proc."""
        self._folder.close()

    # Stage two: who they are.

    def _meet(
        self, pid: int, rank: int, anon_pages: int, swap_bytes: int, *, warm: bool
    ) -> Known | None:
        """Know a process, afresh if it leads or has changed much."""
        known = self._known.get(pid)
        try:
            if known is None:
                if self._identities >= IDENTITIES_MAX and not warm:
                    self._notes.dropped += 1
                    return None
                self._identities += 1
                known = self._identifier.identify(pid, warm=warm)
            elif (
                rank < (LEADING_WARM if warm else LEADING)
                or abs(anon_pages - known.anon_pages) * self._page_bytes >= JUMP_BYTES
            ):
                known = self._identifier.renew(known, warm=warm)
        except (OSError, KernelFormatError, ProcessGone) as error:
            self._notes.take(error, pid)
            return None
        if known is None or known.state in "XZ":
            return None
        known.anon_pages = anon_pages
        known.swap_bytes = swap_bytes
        known.seen = self._surveys
        self._known[pid] = known
        return known

    def _keep_unread(self, notes: Notes) -> None:
        """Keep those as they were that are there and could not be read this once.

        The largest must not drop out because one read failed: the next in line would end for
        it. Who it is is proved again before a signal is sent. When more failed than were read,
        nothing is kept, for then what was is all there would be.
        """
        read = sum(known.seen == self._surveys for known in self._known.values())
        if len(notes.unread) > read:
            return
        for pid in notes.unread:
            known = self._known.get(pid)
            if known is not None and known.seen == self._surveys - 1:
                known.seen = self._surveys

    def _meet_ancestors(self, *, warm: bool) -> None:
        """Meet the guard itself, and the parents that connect those already met.

        Race: a parent may have died and its number been given away since the child was read.
        A parent that is gone or younger than its child gives that away; the child is then
        read again.
        """
        own = self._met(self._own_pid) or self._meet_small(self._own_pid, warm=warm)
        queue = [known for known in self._known.values() if known.seen == self._surveys]
        budget = ANCESTORS_MAX
        while queue and budget > 0:
            child = queue.pop()
            parent_pid = child.parent_pid
            if parent_pid <= 0:
                continue
            parent = self._met(parent_pid)
            if parent is None:
                budget -= 1
                parent = self._meet_small(parent_pid, warm=warm)
                queue += [parent] if parent else []
            if parent is None or parent.id.start_ticks > child.id.start_ticks:
                budget -= 1
                again = self._meet(
                    child.id.pid, AFRESH, child.anon_pages, child.swap_bytes, warm=warm
                )
                queue += [again] if again and again.parent_pid != parent_pid else []
        self._above = self._line_above(own)

    def _meet_holders(self, *, warm: bool) -> SharedHolders:
        """Find who holds shared memory, and meet them however small they are themselves.

        Whoever copies a file to /dev/shm holds next to nothing of its own.
        """
        large = [pid for pid, known in self._known.items() if known.seen == self._surveys]
        small = {int(name) for name in self._folder.names() if name.isdigit()}.difference(large)
        # The youngest first: what fills memory is seldom what came up with the machine.
        holders = shared_holders(self._root, (*large, *sorted(small, reverse=True)))
        self._notes.dropped += holders.dropped
        for pid in holders.pids:
            if self._met(pid) is None:
                self._meet_small(pid, warm=warm)
        return holders

    def _met(self, pid: int) -> Known | None:
        known = self._known.get(pid)
        return known if known is not None and known.seen == self._surveys else None

    def _meet_small(self, pid: int, *, warm: bool) -> Known | None:
        """Meet a process that is here for what it is, not for its size."""
        try:
            statm = parse_statm(self._folder.slurp(f"{pid}/statm", STATM_BYTES))
        except (OSError, KernelFormatError, ProcessGone) as error:
            self._notes.take(error, pid)
            return None
        return self._meet(pid, AFRESH, statm.anon_pages, 0, warm=warm)

    def _line_above(self, own: Known | None) -> frozenset[int]:
        """Walk from the guard up to init; where the line cannot be seen, the old one holds."""
        line: set[int] = set()
        current = own
        while current is not None and current.parent_pid > 0 and current.parent_pid not in line:
            line.add(current.parent_pid)
            current = self._known.get(current.parent_pid)
        whole = current is not None and current.parent_pid == 0
        return frozenset(line) if whole else self._above | line

    # Who leaves.

    def _leavers(self, present: dict[int, Known], began_ns: int) -> dict[ProcessId, Leaving]:
        """Find those that end already, the largest first, with what they held when last measured.

        Either they have a SIGKILL and not got round to dying, or their memory is out of sight
        and being taken down: 0.1 s for a GiB, more when the processor is short.
        """
        found = []
        for known in present.values():
            if not known.leaving:
                known.leaving_ns = 0
                continue
            known.leaving_ns = known.leaving_ns or began_ns
            if began_ns - known.leaving_ns < LEAVING_NS:
                found.append(self._as_leaving(known))
        for process in self._notes.leaving:
            known_before = self._known.get(process.pid)
            if known_before is not None and known_before.id == process:
                found.append(self._as_leaving(known_before))
            elif process in self._leaving:
                found.append(self._leaving[process])
        found.sort(key=lambda one: one.frees_bytes, reverse=True)
        return {one.id: one for one in found[:LEAVING_MAX]}

    def _as_leaving(self, known: Known) -> Leaving:
        held_bytes = known.anon_pages * self._page_bytes + known.swap_bytes
        return Leaving(known.id, known.comm, held_bytes)

    # The answer.

    def _rows(self, present: dict[int, Known], holders: SharedHolders | None) -> tuple[Row, ...]:
        own = present.get(self._own_pid)
        freed: dict[int, int] = {}
        writing: dict[int, int] = {}
        if holders is not None:
            freed = holders.freed({pid: known.parent_pid for pid, known in present.items()})
            writing = holders.writing()
        boot_ns = self._boot_ns()
        leaving = {process.pid for process in self._leaving}
        return tuple(
            self._row(
                known,
                self._judged(known, own),
                (freed.get(pid, 0), writing.get(pid, 0)),
                boot_ns,
            )
            for pid, known in present.items()
            if (self._only_uid is None or known.uid == self._only_uid) and pid not in leaving
        )

    def _row(
        self,
        known: Known,
        judged: tuple[Standing, str],
        shared_bytes: tuple[int, int],
        boot_ns: int,
    ) -> Row:
        began_ns = known.id.start_ticks * _NS_PER_SECOND // self._clk_tck
        return Row(
            known.id,
            known.parent_pid,
            known.group_id,
            known.session_id,
            known.comm,
            known.state,
            known.uid,
            known.adj,
            known.anon_pages * self._page_bytes,
            known.swap_bytes,
            *shared_bytes,
            known.major_faults,
            judged[0],
            judged[1],
            known.role,
            known.cgroup,
            max(0, boot_ns - began_ns),
        )

    def _judged(self, known: Known, own: Known | None) -> tuple[Standing, str]:
        pid = known.id.pid
        if pid == 1:
            return Standing.NEVER, "init"
        if pid == self._own_pid:
            return Standing.NEVER, "the guard itself"
        if pid in self._above:
            return Standing.NEVER, "the guard's parent"
        if pid in self._helpers or known.parent_pid == self._own_pid:
            return Standing.NEVER, "part of the guard"
        # Started beside us under our name, in our unit and process group: a helper. The group
        # and the name keep out what else was started from the same shell.
        if (
            own is not None
            and known.parent_pid == own.parent_pid
            and known.group_id == own.group_id
            and known.cgroup == own.cgroup
            and known.comm.startswith(OUR_NAME)
        ):
            return Standing.NEVER, "part of the guard"
        return self.marks.get(known.id) or known.judgement()


def identify(pid: int, root: str = "/") -> ProcessId:
    """Read who has a PID now; for the moment before a signal is sent.

    Raises: ProcessGone; OSError; KernelFormatError.
    """
    path = f"{root.rstrip('/')}/proc/{pid}/stat"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            raw = os.read(fd, STAT_BYTES)
        finally:
            os.close(fd)
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessGone(pid) from None
    return parse_stat(raw).id
