"""Values that pass between the kernel readers, the policy and the effects.

One unit per dimension, named last: memory in ``_bytes``, time in ``_ns`` of
CLOCK_MONOTONIC, PSI stalls in ``_us`` as the kernel counts them, shares in
``_share`` from 0.0 to 1.0. ``None`` means the kernel did not say; zero means
zero. Measured values are never adjusted: what is derived has its own name.
"""

from __future__ import annotations

from enum import Enum

from forestall.core.value import value


@value
class ProcessId:
    """A process, named so that a recycled PID cannot be mistaken for it."""

    pid: int
    start_ticks: int
    """Field 22 of /proc/PID/stat, in clock ticks since boot."""


@value
class Memory:
    """Memory of the machine, or of the container that confines us, at one moment."""

    total_bytes: int
    available_bytes: int
    """What can be handed out without swapping; the ZFS cache above its minimum counts."""
    swap_total_bytes: int
    swap_free_bytes: int
    """Free swap as the kernel counts it: pages, whatever they will cost in zram."""
    swap_usable_bytes: int
    """What the free swap is really worth: zram priced at what its pages cost in RAM."""
    shmem_bytes: int | None = None
    """tmpfs, memfd and shared anonymous memory; no process's end need free it."""

    @property
    def available_share(self) -> float:
        """Share of memory that can be handed out without swapping."""
        return self.available_bytes / self.total_bytes

    @property
    def used_share(self) -> float:
        """Share of memory in use, as the seeds count it: 1 - available / total."""
        return 1.0 - self.available_bytes / self.total_bytes

    @property
    def swap_used_bytes(self) -> int:
        """Swap in use."""
        return self.swap_total_bytes - self.swap_free_bytes


@value
class Pressure:
    """Time lost to memory since boot (PSI ``total``); two readings make a rate."""

    some_us: int
    full_us: int


@value
class Activity:
    """Counters of /proc/vmstat since boot; dear to read, so read seldom in calm."""

    oom_kill: int | None
    swap_in_pages: int
    swap_out_pages: int
    refault_anon_pages: int | None
    refault_file_pages: int | None
    major_faults: int
    scan_direct_pages: int | None
    io_full_us: int | None = None
    """Time in which every task waited for a disk (PSI io full); None without PSI."""


@value
class Holdings:
    """Where memory is when processes do not explain it, from /proc/meminfo."""

    anon_bytes: int
    file_bytes: int
    """Page cache without shmem."""
    shmem_bytes: int
    slab_unreclaimable_bytes: int
    page_tables_bytes: int
    hugetlb_bytes: int
    unevictable_bytes: int
    zram_bytes: int = 0
    """RAM that zram devices hold for the pages swapped into them."""


@value
class Group:
    """A control group with a limit of its own, as it stands."""

    path: str
    """In the v2 hierarchy."""
    limit_bytes: int
    """The smaller of memory.max and memory.high."""
    usage_bytes: int
    reclaimable_bytes: int
    """Of it, what gives way before anybody is ended; 0 where usage is far from the limit."""
    swap_room_bytes: int | None
    """What its own swap limit still lets it push out; None without such a limit."""
    soft: bool
    """The limit is memory.high: beyond it the kernel holds the group back and ends nobody."""
    oom_kills: int | None
    """Processes that the kernel has ended in it or below it, since it was made."""
    stall_full_us: int | None
    """Time in which all its tasks waited for memory; None without PSI."""


@value
class GroupActivity:
    """What a control group has waited for and read back, counted since it was made."""

    path: str
    """In the v2 hierarchy."""
    stall_some_us: int | None
    """Time in which some task of it waited for memory; None without PSI."""
    refault_pages: int | None
    """Pages that came back soon after they had been taken away, anonymous and of files; None where
    they were not read."""


class Standing(Enum):
    """How far a rule, or its nature, protects a process; the order decides before amounts."""

    NEVER = "never"
    AVOID = "avoid"
    NORMAL = "normal"
    PREFER = "prefer"


class Role(Enum):
    """What a process holds together; ending one would take a whole session with it."""

    NONE = ""
    SESSION = "session"
    """Login shells, terminal multiplexers, sshd, compositors, user managers: never climbed to."""


@value
class Row:
    """What the ranking may know of one process.

    Built by the hundred while memory is short, hence a tuple.
    """

    id: ProcessId
    parent_pid: int
    group_id: int
    """Process group."""
    session_id: int
    comm: str
    state: str
    """One letter of /proc/PID/stat: R S D Z T I."""
    uid: int
    oom_score_adj: int
    anon_bytes: int
    """Private anonymous memory in RAM."""
    swap_bytes: int
    shared_bytes: int
    """Shared anonymous memory that goes when this process goes: memfd, unlinked tmpfs files."""
    writing_bytes: int
    """Named tmpfs files it has open for writing: ending it stops their growth, frees nothing."""
    major_faults: int
    """Page faults that waited for a disk, since the process began."""
    standing: Standing
    rule: str
    """Which rule gave the standing; empty where none did."""
    role: Role
    cgroup: str
    """Path in the v2 hierarchy, or in the v1 memory hierarchy; empty if unknown."""
    age_ns: int
    """How long it had lived when the survey saw it."""

    @property
    def footprint_bytes(self) -> int:
        """What ending this process frees."""
        return self.anon_bytes + self.swap_bytes + self.shared_bytes

    @property
    def held_bytes(self) -> int:
        """What it is answerable for: its footprint, and the tmpfs files it is filling."""
        return self.anon_bytes + self.swap_bytes + self.shared_bytes + self.writing_bytes


@value
class Leaving:
    """A process that has been ended, or ends by itself, and still holds memory."""

    id: ProcessId
    comm: str
    frees_bytes: int
    """Its footprint when it was last measured: what is on its way back."""


class Force(Enum):
    """How firmly to end a process."""

    TERM = "SIGTERM"
    KILL = "SIGKILL"


class Level(Enum):
    """How full memory is; the seeds' four names, mildest first."""

    rank: int
    """Order of severity, 0 to 3."""

    NORMAL = "normal"
    LOW = "low"
    MEDIUM = "medium"
    CRITICAL = "critical"


class Stage(Enum):
    """What a trigger asks for, mildest first."""

    rank: int
    """Order of severity, 0 to 3."""

    WARN = "warn"
    RELIEVE = "relieve"
    TERMINATE = "terminate"
    KILL = "kill"


# Plain attributes: levels are compared in every tick, and a look-up by member costs 0.3 µs.
for _rank, _level in enumerate(Level):
    _level.rank = _rank
for _rank, _stage in enumerate(Stage):
    _stage.rank = _rank
