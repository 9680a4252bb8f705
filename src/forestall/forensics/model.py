"""What a log says about one out-of-memory decision.

One incident is one decision of one killer. Sizes are in kB as the kernel prints
them and named so; counts of pages say ``_pages``. ``None`` means that the log
does not say. Nothing here is estimated: what is derived (the page size, the
kind of a report cut short) carries how it was derived.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Invoker:
    """The task whose allocation failed; never called the culprit."""

    comm: str | None = None
    pid: int | None = None
    uid: int | None = None
    oom_score_adj: int | None = None
    oom_adj: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Victim:
    """A process that was ended, as far as the kill lines describe it."""

    pid: int | None = None
    comm: str | None = None
    uid: int | None = None
    total_vm_kb: int | None = None
    anon_rss_kb: int | None = None
    file_rss_kb: int | None = None
    shmem_rss_kb: int | None = None
    pgtables_kb: int | None = None
    oom_score_adj: int | None = None
    score: int | None = None
    badness: int | None = None
    rss_kb: int | None = None
    """Resident size where a userspace agent gives one number only."""

    @property
    def resident_kb(self) -> int | None:
        """Resident memory, where the log gives at least its anonymous part."""
        if self.anon_rss_kb is None:
            return self.rss_kb
        return self.anon_rss_kb + (self.file_rss_kb or 0) + (self.shmem_rss_kb or 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """The task that was scored, where another (its child or leader) was killed."""

    pid: int
    comm: str
    score: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A row of the task table; memory in pages, page tables in bytes where printed so."""

    pid: int
    uid: int | None = None
    tgid: int | None = None
    comm: str | None = None
    total_vm_pages: int | None = None
    rss_pages: int | None = None
    rss_anon_pages: int | None = None
    rss_file_pages: int | None = None
    rss_shmem_pages: int | None = None
    nr_ptes: int | None = None
    nr_pmds: int | None = None
    pgtables_bytes: int | None = None
    swapents_pages: int | None = None
    oom_adj: int | None = None
    oom_score_adj: int | None = None
    line: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    """One zone's free memory against its marks, and its free blocks by order."""

    node: int | None
    name: str
    free_kb: int | None = None
    min_kb: int | None = None
    low_kb: int | None = None
    high_kb: int | None = None
    managed_kb: int | None = None
    present_kb: int | None = None
    free_cma_kb: int | None = None
    blocks: tuple[tuple[int, int, str], ...] = ()
    """(block size in kB, free blocks, migrate types) in rising order."""
    line: int | None = None

    @property
    def title(self) -> str:
        """How the log calls it: ``Node 0 Normal``."""
        return self.name if self.node is None else f"Node {self.node} {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Slab:
    """A row of the unreclaimable slab table."""

    name: str
    used_kb: int
    total_kb: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A line of the log that a statement rests on."""

    line: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reaped:
    """What the kernel's reaper reported after taking a victim's memory away."""

    pid: int
    comm: str
    anon_rss_kb: int | None = None
    file_rss_kb: int | None = None
    shmem_rss_kb: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """One decision of one killer, with everything the log says about it."""

    kind: str
    kind_from: str
    """Which part of the log decided the kind."""
    agent: str | None = None
    invoker: Invoker | None = None
    gfp_mask: str | None = None
    gfp_flags: str | None = None
    order: int | None = None
    constraint: str | None = None
    nodemask: str | None = None
    cpuset: str | None = None
    mems_allowed: str | None = None
    oom_memcg: str | None = None
    task_memcg: str | None = None
    cgroup: str | None = None
    """What a userspace agent ended, where it names a control group."""
    unit: str | None = None
    oom_group: str | None = None
    victims: tuple[Victim, ...] = ()
    scored: Scored | None = None
    reason: str | None = None
    """Why a userspace agent acted, in its own words."""
    page_size_kb: int | None = None
    page_size_from: str | None = None
    ram_pages: int | None = None
    highmem_pages: int | None = None
    reserved_pages: int | None = None
    cma_pages: int | None = None
    total_ram_kb: int | None = None
    swap_total_kb: int | None = None
    swap_free_kb: int | None = None
    memcg_usage_kb: int | None = None
    memcg_limit_kb: int | None = None
    memcg_failcnt: int | None = None
    memsw_usage_kb: int | None = None
    memsw_limit_kb: int | None = None
    swap_usage_kb: int | None = None
    swap_limit_kb: int | None = None
    kmem_usage_kb: int | None = None
    kmem_limit_kb: int | None = None
    memcg_stat_kb: dict[str, int] = field(default_factory=dict)
    vm_pages: dict[str, int] = field(default_factory=dict)
    """The counters of the Mem-Info block, machine-wide, in pages."""
    zones: tuple[Zone, ...] = ()
    slabs: tuple[Slab, ...] = ()
    tasks: tuple[Task, ...] = ()
    task_columns: tuple[str, ...] = ()
    task_layout: str | None = None
    """``header`` where the columns were named, ``rows`` where they were told from the rows."""
    tasks_lost: int = 0
    trace: tuple[str, ...] = ()
    panic: str | None = None
    no_killable: bool = False
    reaped: tuple[Reaped, ...] = ()
    hidden_kills: int | None = None
    """Reports the kernel says it did not print just before this one."""
    kernel: str | None = None
    time: str | None = None
    uptime_s: float | None = None
    host: str | None = None
    source: str | None = None
    lines: tuple[tuple[int, int], ...] = ()
    first_line: int = 0
    complete: bool = False
    missing: tuple[str, ...] = ()
    marks: dict[str, Evidence] = field(default_factory=dict)
    repeats: int = 0
    """Further copies of the same report that were folded into this one."""
    also_by: str | None = None
    """Another killer that reported the same death."""
    counts: bool = True
    """False for a claim on a death that another incident already counts."""

    @property
    def victim(self) -> Victim | None:
        """The first victim, where there is one."""
        return self.victims[0] if self.victims else None

    def evidence(self, *names: str) -> tuple[Evidence, ...]:
        """Return the marked lines of these names, those that exist, in order."""
        return tuple(self.marks[name] for name in names if name in self.marks)
