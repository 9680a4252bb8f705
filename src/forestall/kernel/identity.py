"""Who a process is: read when it is first seen, remembered by PID, proved by its start time.

Rule: nothing here may wait for the process. Its command line lies in its own
memory, behind a lock it may hold while it faults; so that is read in calm only.
"""

from __future__ import annotations

import os

from forestall.core.model import ProcessId, Role, Standing
from forestall.core.rules import Field
from forestall.core.standing import Facts, role_of
from forestall.core.value import TYPE_CHECKING
from forestall.kernel.errors import ProcessGone
from forestall.kernel.parse_process import (
    Stat,
    parse_cgroup,
    parse_cmdline,
    parse_oom_score_adj,
    parse_stat,
    parse_status,
    parse_swap,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from forestall.core.standing import Matcher

STATM_BYTES = 128
STAT_BYTES = 1024
STATUS_BYTES = 8192
CGROUP_BYTES = 16384
CMDLINE_BYTES = 4096
ADJ_BYTES = 16

SHIELDED_ADJ = -900
"""Whoever set this, or lower, wanted the process to outlive the others."""


class ProcFolder:
    """/proc by descriptor: paths below it are short, and no name is resolved from the root.

    Args:
        root: Where /proc is.
        open_file: ``os.open``, or a test's that fails.
        read_file: ``os.read``, likewise.
    """

    def __init__(
        self,
        root: str,
        *,
        open_file: Callable[..., int] = os.open,
        read_file: Callable[[int, int], bytes] = os.read,
    ) -> None:
        self.fd = os.open(f"{root.rstrip('/')}/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.open_file = open_file
        self.read_file = read_file

    def slurp(self, name: str, size_bytes: int) -> bytes:
        """Read a small file with one call; the kernel gives files of /proc/PID whole.

        Raises: ProcessGone; OSError for anything else.
        """
        try:
            fd = self.open_file(name, os.O_RDONLY, dir_fd=self.fd)
            try:
                return self.read_file(fd, size_bytes)
            finally:
                os.close(fd)
        except (FileNotFoundError, ProcessLookupError):
            raise ProcessGone(_pid_in(name)) from None

    def names(self) -> list[str]:
        """List what is in /proc: processes by number, and everything else."""
        return os.listdir(self.fd)

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.fd)


class Known:
    """What is remembered of a process between surveys."""

    __slots__ = (
        "adj",
        "anon_pages",
        "cgroup",
        "comm",
        "complete",
        "group_id",
        "id",
        "leaving",
        "leaving_ns",
        "major_faults",
        "parent_pid",
        "role",
        "rule",
        "seen",
        "session_id",
        "standing",
        "state",
        "swap_bytes",
        "uid",
    )

    def __init__(self, stat: Stat) -> None:
        self.id: ProcessId = stat.id
        self.comm = stat.comm
        self.uid = -1
        self.cgroup = ""
        self.adj = 0
        self.standing = Standing.NORMAL
        self.rule = ""
        self.role = Role.NONE
        self.complete = True
        """False when a rule wanted the command line and it was not the time to read it."""
        self.anon_pages = 0
        self.swap_bytes = 0
        self.seen = 0
        self.leaving_ns = 0
        """When it was first seen to leave; 0 while it stays."""
        self.take(stat)

    def take(self, stat: Stat) -> None:
        """Take over what changes during a life."""
        self.state = stat.state
        self.parent_pid = stat.parent_pid
        self.group_id = stat.group_id
        self.session_id = stat.session_id
        self.major_faults = stat.major_faults
        self.leaving = stat.leaving

    def judgement(self) -> tuple[Standing, str]:
        """Standing by rule, or else by what the administrator told the kernel."""
        if not self.rule and self.adj <= SHIELDED_ADJ:
            return Standing.AVOID, f"oom_score_adj {self.adj}"
        return self.standing, self.rule


class Identifier:
    """Reads who processes are."""

    def __init__(self, folder: ProcFolder, matcher: Matcher) -> None:
        self._folder = folder
        self._matcher = matcher
        self._needs_exe = Field.EXE in matcher.needs
        self._needs_cmdline = Field.CMDLINE in matcher.needs
        self._cgroups: dict[str, str] = {}

    def stat(self, pid: int) -> Stat:
        """Read /proc/PID/stat afresh.

        Raises: ProcessGone; OSError; KernelFormatError.
        """
        return parse_stat(self._folder.slurp(f"{pid}/stat", STAT_BYTES))

    def swap_bytes(self, pid: int) -> int:
        """Read how much of a process is in swap.

        Raises: ProcessGone; OSError; KernelFormatError.
        """
        return parse_swap(self._folder.slurp(f"{pid}/status", STATUS_BYTES))

    def identify(self, pid: int, *, warm: bool) -> Known | None:
        """Read everything about a process; None for a kernel thread.

        Cost: 30 µs; 8 more for each of exe and command line, read only if a rule asks.
        Raises: ProcessGone; OSError; KernelFormatError.
        """
        stat = self.stat(pid)
        if stat.kernel_thread:
            return None
        known = Known(stat)
        if stat.state == "Z":
            self._take_threads(known)
        known.uid = parse_status(self._folder.slurp(f"{pid}/status", STATUS_BYTES)).uid
        cgroup = parse_cgroup(self._folder.slurp(f"{pid}/cgroup", CGROUP_BYTES))
        # Hundreds share a cgroup: one string for all of them.
        known.cgroup = self._cgroups.setdefault(cgroup, cgroup)
        known.adj = self._adj(pid)
        self._judge(known, warm=warm)
        return known

    def renew(self, known: Known, *, warm: bool) -> Known | None:
        """Prove that a process is still who we think, and refresh what changes.

        An exec keeps PID and start time and changes everything else; its name tells.
        Raises: ProcessGone; OSError; KernelFormatError.
        """
        pid = known.id.pid
        stat = self.stat(pid)
        if stat.id != known.id or stat.comm != known.comm or (warm and not known.complete):
            return self.identify(pid, warm=warm)
        state = known.state
        known.take(stat)
        if stat.state == "Z":
            known.state = state
            self._take_threads(known)
        known.adj = self._adj(pid)
        return known

    def forget_cgroups(self) -> None:
        """Let go of the names of cgroups; they come and go by the thousand in a month."""
        self._cgroups.clear()

    def _adj(self, pid: int) -> int:
        return parse_oom_score_adj(self._folder.slurp(f"{pid}/oom_score_adj", ADJ_BYTES))

    def _judge(self, known: Known, *, warm: bool) -> None:
        pid = known.id.pid
        facts = Facts(
            name=known.comm,
            uid=known.uid,
            cgroup=known.cgroup,
            exe=self._exe(pid) if self._needs_exe else None,
            cmdline=self._cmdline(pid) if self._needs_cmdline and warm else None,
            pid=pid,
            session_id=known.session_id,
        )
        known.complete = warm or not self._needs_cmdline
        known.standing, known.rule = self._matcher.standing(facts)
        known.role = role_of(facts)

    def _exe(self, pid: int) -> str | None:
        # The link is read without touching the process's memory. Not ours to read: unknown.
        try:
            return os.readlink(f"{pid}/exe", dir_fd=self._folder.fd).removesuffix(" (deleted)")
        except OSError:
            return None

    def _cmdline(self, pid: int) -> str | None:
        try:
            return parse_cmdline(self._folder.slurp(f"{pid}/cmdline", CMDLINE_BYTES))
        except (OSError, ProcessGone):
            return None

    def _take_threads(self, known: Known) -> None:
        """Take over how the rest is doing when the first thread has ended before the others.

        Such a process shows as a zombie, and yet it lives and holds its memory.
        """
        pid = known.id.pid
        try:
            tid = thread_with_memory(self._folder, pid)
            if tid is None:
                known.state = "Z"
                return
            thread = parse_stat(self._folder.slurp(f"{pid}/task/{tid}/stat", STAT_BYTES))
        except ProcessGone:
            return  # that thread went meanwhile; the others may live
        known.state, known.leaving = thread.state, thread.leaving


def thread_with_memory(folder: ProcFolder, pid: int) -> str | None:
    """Find a live thread of a process whose first thread has ended; None if all have.

    Raises: ProcessGone; OSError.
    """
    try:
        fd = folder.open_file(f"{pid}/task", os.O_RDONLY | os.O_DIRECTORY, dir_fd=folder.fd)
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessGone(pid) from None
    try:
        tids = os.listdir(fd)
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessGone(pid) from None
    finally:
        os.close(fd)
    # Any live thread shares the memory; the last ones are the likeliest to live.
    for tid in reversed(tids[-8:]):
        if not folder.slurp(f"{pid}/task/{tid}/statm", STATM_BYTES).startswith(b"0 "):
            return tid
    return None


def _pid_in(name: str) -> int:
    digits = name.partition("/")[0]
    return int(digits) if digits.isdigit() else 0
