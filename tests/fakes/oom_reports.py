"""Kernel OOM reports made to order: every layout, constraint, page size and kill line.

Written from the formats of the kernel's own print functions, not from anybody's log. A
report is made of a family (which release printed it), a scope, and processes; it knows
what a reader must find in it.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Family:
    """What one range of releases prints."""

    release: str
    head: str
    cpu: str
    columns: tuple[str, ...]
    kill: str
    title: bool = False
    oom_kill: bool = False
    flags: bool = True
    uid_printed: bool = True


_COMMON = ("uid", "tgid", "total_vm", "rss")
FAMILIES: dict[str, Family] = {
    family.release: family
    for family in (
        Family(
            release="2.6.32-754.el6.x86_64",
            head="{comm} invoked oom-killer: gfp_mask={gfp}, order={order}, oom_adj=0, "
            "oom_score_adj={adj}",
            cpu="Pid: {pid}, comm: {comm} Not tainted {release} #1",
            columns=(*_COMMON, "cpu", "oom_adj", "oom_score_adj"),
            kill="el6",
            flags=False,
        ),
        Family(
            release="3.10.0-1160.el7.x86_64",
            head="{comm} invoked oom-killer: gfp_mask={gfp}, order={order}, oom_score_adj={adj}",
            cpu="CPU: 1 PID: {pid} Comm: {comm} Not tainted {release} #1",
            columns=(*_COMMON, "nr_ptes", "swapents", "oom_score_adj"),
            kill="two-lines",
            flags=False,
            uid_printed=False,
        ),
        Family(
            release="3.10.0-1160.late.el7.x86_64",
            head="{comm} invoked oom-killer: gfp_mask={gfp}, order={order}, oom_score_adj={adj}",
            cpu="CPU: 1 PID: {pid} Comm: {comm} Kdump: loaded Not tainted {release} #1",
            columns=(*_COMMON, "nr_ptes", "swapents", "oom_score_adj"),
            kill="el7-late",
            flags=False,
        ),
        Family(
            release="4.8.0-generic",
            head="{comm} invoked oom-killer: gfp_mask={gfp}({flags}), order={order}, "
            "oom_score_adj={adj}",
            cpu="CPU: 1 PID: {pid} Comm: {comm} Tainted: G           O    {release} #2",
            columns=(*_COMMON, "nr_ptes", "nr_pmds", "swapents", "oom_score_adj"),
            kill="two-lines-shmem",
            uid_printed=False,
        ),
        Family(
            release="4.18.0-generic",
            head="{comm} invoked oom-killer: gfp_mask={gfp}({flags}), nodemask={nodemask}, "
            "order={order}, oom_score_adj={adj}",
            cpu="CPU: 1 PID: {pid} Comm: {comm} Not tainted {release} #19",
            columns=(*_COMMON, "pgtables_bytes", "swapents", "oom_score_adj"),
            kill="two-lines-shmem",
            title=True,
            uid_printed=False,
        ),
        Family(
            release="5.2.0",
            head="{comm} invoked oom-killer: gfp_mask={gfp}({flags}), order={order}, "
            "oom_score_adj={adj}",
            cpu="CPU: 1 PID: {pid} Comm: {comm} Not tainted {release} #54",
            columns=(*_COMMON, "pgtables_bytes", "swapents", "oom_score_adj"),
            kill="one-line",
            title=True,
            oom_kill=True,
        ),
        Family(
            release="6.1.0-18-amd64",
            head="{comm} invoked oom-killer: gfp_mask={gfp}({flags}), order={order}, "
            "oom_score_adj={adj}",
            cpu="CPU: 1 PID: {pid} Comm: {comm} Not tainted {release} #1 Debian 6.1.76-1",
            columns=(*_COMMON, "pgtables_bytes", "swapents", "oom_score_adj"),
            kill="full",
            title=True,
            oom_kill=True,
        ),
        Family(
            release="6.12.0-talos",
            head="{comm} invoked oom-killer: gfp_mask={gfp}({flags}), order={order}, "
            "oom_score_adj={adj}",
            cpu="CPU: 1 UID: 1000 PID: {pid} Comm: {comm} Not tainted {release} #1 PREEMPT(full)",
            columns=(
                *_COMMON,
                "rss_anon",
                "rss_file",
                "rss_shmem",
                "pgtables_bytes",
                "swapents",
                "oom_score_adj",
            ),
            kill="full",
            title=True,
            oom_kill=True,
        ),
    )
}
SCOPES = ("global", "memcg", "cpuset", "mempolicy")
_CONSTRAINTS = {
    "global": "CONSTRAINT_NONE",
    "memcg": "CONSTRAINT_MEMCG",
    "cpuset": "CONSTRAINT_CPUSET",
    "mempolicy": "CONSTRAINT_MEMORY_POLICY",
}


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process of the made machine; sizes in pages."""

    pid: int
    comm: str
    uid: int = 1000
    total_vm: int = 40_000
    anon: int = 9_001
    file: int = 301
    shmem: int = 0
    swap: int = 0
    adj: int = 0

    def cells(self, columns: tuple[str, ...], page_kb: int) -> str:
        """Print the row's numbers."""
        pgtables = 4096 * (12 + self.total_vm // 512 % 90)
        values = {
            "uid": self.uid,
            "tgid": self.pid,
            "total_vm": self.total_vm,
            "rss": self.anon + self.file + self.shmem,
            "rss_anon": self.anon,
            "rss_file": self.file,
            "rss_shmem": self.shmem,
            "cpu": 3,
            "oom_adj": -17 if self.adj == -1000 else 0,
            "nr_ptes": pgtables // 4096,
            "nr_pmds": 4,
            "pgtables_bytes": pgtables * page_kb // 4,
            "swapents": self.swap,
            "oom_score_adj": self.adj,
        }
        return " ".join(f"{values[name]:>8}" for name in columns)


DEFAULT = (
    Process(pid=1, comm="systemd", uid=0, total_vm=5_000, anon=700),
    Process(pid=612, comm="sshd", uid=0, total_vm=3_283, anon=203, adj=-1000),
    Process(pid=1776, comm="tmux: server", total_vm=2_500, anon=311),
    Process(pid=4242, comm="leaker", total_vm=300_003, anon=250_007, file=13, swap=5_001),
)


@dataclass(frozen=True, kw_only=True)
class Made:
    """A made report."""

    family: Family
    scope: str = "global"
    page_kb: int = 4
    invoker: Process = DEFAULT[2]
    victim: Process = DEFAULT[3]
    processes: tuple[Process, ...] = DEFAULT
    order: int = 0
    header: bool = True
    ram_pages: int = 524_158
    zones: tuple[str, ...] = field(default=())

    @property
    def oom_memcg(self) -> str:
        """The group at its limit."""
        return "/kubepods/burstable/pod7,odd"

    def lines(self) -> list[str]:
        """Print the report as the kernel's messages, without any prefix."""
        return [*self.top(), *self.memory(), *self.table(), *self.kill()]

    def top(self) -> list[str]:
        """The head, the processor's line and the trace."""
        family, who = self.family, self.invoker
        head = family.head.format(
            comm=who.comm,
            gfp="0x6200ca" if self.scope != "memcg" else "0xcc0",
            flags="GFP_HIGHUSER_MOVABLE" if self.scope != "memcg" else "GFP_KERNEL",
            nodemask="(null)",
            order=self.order,
            adj=who.adj,
        )
        lines = [head]
        if not family.oom_kill:
            lines.append(f"{who.comm} cpuset=/ mems_allowed=0-1")
        if self.order > 0:
            lines.append("COMPACTION is disabled!!!")
        lines.append(family.cpu.format(pid=who.pid, comm=who.comm, release=family.release))
        calls = ["dump_stack+0x63/0x88", "dump_header+0x67/0x27a", "oom_kill_process+0x210/0x410"]
        calls.append("out_of_memory+0x10a/0x2c0")
        calls.append(
            "mem_cgroup_out_of_memory+0x46/0x80"
            if self.scope == "memcg"
            else "__alloc_pages_nodemask+0xe0e/0xec0"
        )
        return [*lines, "Hardware name: Made To Order", "Call Trace:", *(f" {c}" for c in calls)]

    def memory(self) -> list[str]:
        """The memory state."""
        if self.scope == "memcg":
            lines = ["memory: usage 524288kB, limit 524288kB, failcnt 158965"]
            lines.append("swap: usage 64kB, limit 9007199254740988kB, failcnt 0")
            if not self.family.oom_kill:
                path = self.oom_memcg
                lines.insert(0, f"Task in {path}/box killed as a result of limit of {path}")
            stats = f"Memory cgroup stats for {self.oom_memcg}:"
            if self.family.release >= "5.4":
                return [*lines, stats, "anon 524288000", "file 8192", "shmem 0", "file_dirty 0"]
            return [*lines, f"{stats} cache:80KB rss:516948KB shmem:0KB dirty:0KB writeback:0KB"]
        page = self.page_kb
        blocks = " ".join(f"1*{page << order}kB (UM)" for order in range(11))
        return [
            "Mem-Info:",
            "active_anon:260302 inactive_anon:3716 isolated_anon:0",
            " active_file:434 inactive_file:583 isolated_file:0",
            " unevictable:0 dirty:85 writeback:108 unstable:0",
            " slab_reclaimable:8616 slab_unreclaimable:28454",
            " mapped:2428 shmem:4221 pagetables:5031 bounce:0",
            " free:25443 free_pcp:646 free_cma:0",
            f"Node 0 Normal free:{page * 700}kB min:{page * 800}kB low:{page * 900}kB"
            f" high:{page * 990}kB active_anon:{page * 9}kB present:{page * self.ram_pages}kB"
            f" managed:{page * self.ram_pages}kB free_cma:0kB",
            "lowmem_reserve[]: 0 0 0 0",
            f"Node 0 Normal: {blocks} = {page * 2047}kB",
            "5941 total pagecache pages",
            "0 pages in swap cache",
            "Swap cache stats: add 0, delete 0, find 0/0",
            "Free swap  = 128kB",
            "Total swap = 2097148kB",
            f"{self.ram_pages} pages RAM",
            "0 pages HighMem/MovableOnly",
            "14958 pages reserved",
        ]

    def table(self) -> list[str]:
        """The task table."""
        columns = self.family.columns
        pid = "[  pid  ]" if self.family.title else "[ pid ]"
        lines = ["Tasks state (memory values in pages):"] if self.family.title else []
        if not self.header:
            lines = []
        else:
            lines.append(f"{pid} {' '.join(f'{name:>8}' for name in columns)} name")
        width = 7 if self.family.title else 5
        return lines + [
            f"[{process.pid:>{width}}] {process.cells(columns, self.page_kb)} {process.comm}"
            for process in self.processes
        ]

    def kill(self) -> list[str]:
        """The lines that name the victim."""
        victim, kb = self.victim, self.page_kb
        lines = [self.oom_kill_line()] if self.family.oom_kill else []
        reason = "Memory cgroup out of memory" if self.scope == "memcg" else "Out of memory"
        name = f"Killed process {victim.pid} ({victim.comm})"
        sizes = f"total-vm:{victim.total_vm * kb}kB, anon-rss:{victim.anon * kb}kB"
        sizes += f", file-rss:{victim.file * kb}kB"
        shmem = f", shmem-rss:{victim.shmem * kb}kB"
        scored = f"{reason}: Kill process {victim.pid} ({victim.comm}) score 919 or sacrifice child"
        pgtables = 4096 * (12 + victim.total_vm // 512 % 90) // 1024 * kb // 4
        shapes = {
            "el6": [
                scored,
                f"Killed process {victim.pid}, UID {victim.uid}, ({victim.comm}) {sizes}",
            ],
            "two-lines": [scored, f"{name} {sizes}"],
            "el7-late": [scored, f"{name}, UID {victim.uid}, {sizes}{shmem}"],
            "two-lines-shmem": [scored, f"{name} {sizes}{shmem}"],
            "one-line": [f"{reason}: {name} {sizes}{shmem}"],
            "full": [
                f"{reason}: {name} {sizes}{shmem}, UID:{victim.uid} pgtables:{pgtables}kB"
                f" oom_score_adj:{victim.adj}"
            ],
        }
        return lines + shapes[self.family.kill]

    def oom_kill_line(self) -> str:
        """The line that machines are meant to read."""
        victim = self.victim
        scope = f"oom_memcg={self.oom_memcg}" if self.scope == "memcg" else "global_oom"
        return (
            f"oom-kill:constraint={_CONSTRAINTS[self.scope]},nodemask=(null),cpuset=/,"
            f"mems_allowed=0-1,{scope},task_memcg={self.oom_memcg}/box,"
            f"task={victim.comm},pid={victim.pid},uid={victim.uid}"
        )


def log(lines: list[str], prefix: str = "") -> bytes:
    """Make a log of messages, each behind a prefix."""
    return ("\n".join(prefix + line for line in lines) + "\n").encode()
