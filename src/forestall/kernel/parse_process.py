"""Kernel text about one process to values: pure, and every byte of it may be hostile.

A process chooses its own name: fifteen bytes of anything but NUL, with
parentheses, line feeds, and no regard for UTF-8. Names are decoded with
surrogateescape, so that they can be compared and written back; whoever shows
them escapes them.
"""

from __future__ import annotations

from forestall.core.model import ProcessId
from forestall.core.value import value
from forestall.kernel.parse import number, reject, signed, try_kib_field

PF_KTHREAD = 0x00200000
"""include/linux/sched.h; a kernel thread has no memory of its own and no end."""
PF_EXITING = 0x00000004
"""include/linux/sched.h; set before a thread lets go of its memory (kernel/exit.c do_exit)."""
SIGKILL_BIT = 1 << 8
"""SIGKILL in a set of signals, which counts from bit 0 for signal 1."""


@value
class Stat:
    """What /proc/PID/stat says of a process."""

    id: ProcessId
    comm: str
    state: str
    parent_pid: int
    group_id: int
    session_id: int
    flags: int
    major_faults: int
    threads: int
    pending: int = 0
    """Signals this thread has not taken yet, one bit each; 0 where the line ends before."""

    @property
    def leaving(self) -> bool:
        """Whether this thread is about to let go of its memory, or is doing so.

        Whatever signal is fatal, the kernel hands every thread a SIGKILL of its own
        (kernel/signal.c complete_signal), so that one bit tells; a thread that has taken it
        carries PF_EXITING before its memory is gone from sight. A zombie has nothing left.
        Race: the first thread of a process also looks so for a moment when another calls exec.
        """
        if self.state in "ZX":
            return False
        return bool(self.flags & PF_EXITING or self.pending & SIGKILL_BIT)

    @property
    def kernel_thread(self) -> bool:
        """Whether it is the kernel's own."""
        return bool(self.flags & PF_KTHREAD)


@value
class Statm:
    """What /proc/PID/statm says of a process, in pages."""

    size_pages: int
    resident_pages: int
    shared_pages: int
    """Resident file pages and shmem."""
    data_pages: int
    """Private writable address space: no more than this can be anonymous, in RAM and swap."""

    @property
    def anon_pages(self) -> int:
        """Private anonymous pages in RAM."""
        # The counters are summed one after the other, so the difference can dip below zero.
        return max(0, self.resident_pages - self.shared_pages)


@value
class Status:
    """What /proc/PID/status says of a process."""

    uid: int
    """The real one: kill(2) asks for it."""
    threads: int
    swap_bytes: int | None
    """None for kernel threads and zombies, which have no memory."""
    shmem_bytes: int | None
    effective_capabilities: int


def parse_stat(raw: bytes) -> Stat:
    """Read /proc/PID/stat.

    The second field is the command in parentheses, and a process may call
    itself "a) Z 1 (" to fool us. Fields are therefore counted from the *last*
    parenthesis; what follows it is the kernel's.
    Source: fs/proc/array.c do_task_stat.
    Raises: KernelFormatError on text cut short.
    """
    head, _, _ = raw.partition(b" (")
    close = raw.rfind(b")")
    tail = raw[close + 1 :].split()
    # Field 24 (rss) follows: its presence proves that field 22 was not cut in half.
    if len(tail) < 22 or len(tail[0]) != 1 or close < len(head) + 2:
        reject("stat", "too few fields", raw)
    state = tail[0].decode("latin-1")
    if not state.isalpha():
        reject("stat", "state is no letter", raw)
    return Stat(
        id=ProcessId(number("stat", "pid", head), number("stat", "starttime", tail[19])),
        comm=raw[len(head) + 2 : close].decode("utf-8", "surrogateescape"),
        state=state,
        parent_pid=number("stat", "ppid", tail[1]),
        group_id=signed("stat", "pgrp", tail[2]),
        session_id=signed("stat", "session", tail[3]),
        flags=number("stat", "flags", tail[6]),
        major_faults=number("stat", "majflt", tail[9]),
        threads=number("stat", "num_threads", tail[17]),
        # Field 31; obsolete for the signals of a process, and exact for those of a thread.
        pending=number("stat", "signal", tail[28]) if len(tail) > 29 else 0,
    )


def parse_statm(raw: bytes) -> Statm:
    """Read /proc/PID/statm.

    Source: fs/proc/array.c proc_pid_statm; seven fields, two of them always zero.
    Raises: KernelFormatError.
    """
    fields = raw.split()
    if len(fields) != 7:
        reject("statm", "not seven fields", raw)
    size, resident, shared, _text, _lib, data, _dirty = (
        number("statm", "field", field) for field in fields
    )
    return Statm(size, resident, shared, data)


def parse_status(raw: bytes) -> Status:
    """Read /proc/PID/status; the name in it is escaped by the kernel, so lines are lines.

    Source: fs/proc/array.c proc_pid_status.
    Raises: KernelFormatError.
    """
    text = b"\n" + raw
    uids = _line(text, b"Uid:").split()
    if len(uids) != 4:
        reject("status", "not four uids", raw)
    capabilities = _line(text, b"CapEff:").strip()
    try:
        effective = int(capabilities, 16)
    except ValueError:
        reject("status", "CapEff is no number", capabilities)
    return Status(
        uid=number("status", "Uid", uids[0]),
        threads=number("status", "Threads", _line(text, b"Threads:")),
        swap_bytes=try_kib_field("status", text, b"VmSwap:"),
        shmem_bytes=try_kib_field("status", text, b"RssShmem:"),
        effective_capabilities=effective,
    )


def parse_swap(raw: bytes) -> int:
    """Read VmSwap alone out of /proc/PID/status, in bytes; processes without memory have none.

    Raises: KernelFormatError.
    """
    return try_kib_field("status", b"\n" + raw, b"VmSwap:") or 0


def parse_oom_score(raw: bytes) -> int:
    """Read /proc/PID/oom_score: 0 to 2000 since v5.9, already with the adjustment.

    Raises: KernelFormatError.
    """
    return number("oom_score", "score", raw)


def parse_oom_score_adj(raw: bytes) -> int:
    """Read /proc/PID/oom_score_adj.

    Raises: KernelFormatError outside -1000 to 1000.
    """
    adj = signed("oom_score_adj", "value", raw)
    if not -1000 <= adj <= 1000:
        reject("oom_score_adj", "out of range", raw)
    return adj


def parse_cgroup(raw: bytes) -> str:
    """Read which cgroup a process is in, from /proc/PID/cgroup.

    The v2 path, unless that is the root while an older hierarchy says more: on hybrid hosts
    the v1 memory path, or else systemd's. Empty when the process is in none.
    Source: cgroups(7). Paths may contain colons and, after a removal, end in " (deleted)".
    Raises: KernelFormatError.
    """
    unified = memory = named = ""
    for line in raw.splitlines():
        hierarchy, _, rest = line.partition(b":")
        controllers, colon, path = rest.partition(b":")
        if not hierarchy.isdigit() or not colon or path[:1] != b"/":
            reject("cgroup", "not id:controllers:path", line)
        text = path.decode("utf-8", "surrogateescape").removesuffix(" (deleted)")
        if hierarchy == b"0" and not controllers:
            unified = text
        elif b"memory" in controllers.split(b","):
            memory = text
        elif controllers == b"name=systemd":
            named = text
    for path_text in (unified, memory, named):
        if len(path_text) > 1:
            return path_text
    return unified or memory or named


def parse_cmdline(raw: bytes) -> str:
    """Join the arguments of /proc/PID/cmdline with blanks; a kernel thread has none."""
    text = raw.rstrip(b"\0").replace(b"\0", b" ")
    return text.decode("utf-8", "surrogateescape")


def _line(text: bytes, name: bytes) -> bytes:
    start = text.find(b"\n" + name)
    end = text.find(b"\n", start + 1)
    if start < 0 or end < 0:
        reject("status", f"no {name.decode()[:-1]}", text[1:])
    return text[start + len(name) + 1 : end]
