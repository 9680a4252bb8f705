"""One report while its lines come in, and what it becomes.

The builder keeps the first value of everything: later lines belong to later
reports more often than they correct earlier ones.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

from forestall.forensics.kind import Signs, kind_of
from forestall.forensics.lines import Line
from forestall.forensics.model import (
    Evidence,
    Incident,
    Invoker,
    Reaped,
    Scored,
    Task,
    Victim,
)
from forestall.forensics.shapes import Chosen, Cpu, Head, Killed, OomKill
from forestall.forensics.state import State
from forestall.forensics.table import Table

MAX_VICTIMS = 4096
MAX_TRACE = 128
MAX_SPANS = 512
_MARK_CHARS = 400

_X86 = re.compile(
    r"\bx86_64\b|\bamd64\b|\bi[3-6]86\b|\bRIP: 00[0-9a-f]{2}:|\bEIP: |\bRSP: 00|\bORIG_RAX"
    r"|asm_exc_page_fault|entry_SYSCALL_64|do_syscall_64|\bR1[0-5]: [0-9a-f]{16}"
)
"""Marks of x86, whose pages are always 4 KiB."""


@dataclass(slots=True)
class Report:
    """A report being read."""

    first: int
    phase: int = 0
    ignored: bool = False
    """A memory dump of another kind (a failed allocation, SysRq-m): never an incident."""
    head: Head | None = None
    comm: str | None = None
    cpu: Cpu | None = None
    cpuset: tuple[str, str, str] | None = None
    oom_kill: OomKill | None = None
    chosen: Chosen | None = None
    killed: list[Killed] = field(default_factory=list)
    reason: str | None = None
    state: State = field(default_factory=State)
    table: Table = field(default_factory=Table)
    trace: list[str] = field(default_factory=list)
    limit_of: tuple[str, str] | None = None
    oom_group: str | None = None
    sysrq: bool = False
    no_killable: bool = False
    went_on: bool = False
    """Another report followed: the machine did not stop."""
    panic: str | None = None
    reaped: list[Reaped] = field(default_factory=list)
    hidden_kills: int | None = None
    x86: bool = False
    caller: str | None = None
    host: str | None = None
    time: str | None = None
    uptime_s: float | None = None
    last: int = 0
    spans: list[list[int]] = field(default_factory=list)
    marks: dict[str, Evidence] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        """Whether the decision is known: a kill, or that there was nothing to kill."""
        return bool(self.killed) or self.no_killable or self.panic is not None

    @property
    def real(self) -> bool:
        """Whether there is enough to call it a report of its own."""
        if self.ignored:
            return self.done
        decided = self.done or self.oom_kill is not None or self.chosen is not None
        return self.head is not None or decided or self.table.seen

    def take(self, line: Line, mark: str | None = None) -> None:
        """Note that a line belongs to this report."""
        if self.spans and self.spans[-1][1] >= line.first - 1:
            self.spans[-1][1] = max(self.spans[-1][1], line.last)
        elif len(self.spans) < MAX_SPANS:
            self.spans.append([line.first, line.last])
        self.last = max(self.last, line.last)
        prefix = line.prefix
        self.time = self.time or prefix.time
        self.host = self.host or prefix.host
        if self.uptime_s is None:
            self.uptime_s = prefix.uptime_s
        if self.caller is None and prefix.caller is not None and prefix.caller[0] == "T":
            self.caller = prefix.caller
        if mark is not None and mark not in self.marks:
            self.marks[mark] = Evidence(line=line.first, text=line.text.strip()[:_MARK_CHARS])
        if not self.x86 and _X86.search(line.text):
            self.x86 = True

    def incident(self, source: str | None) -> Incident:
        """Give what was read as a value."""
        tasks, columns, layout = self.table.tasks(
            old_adj=self.head is not None and self.head.oom_adj is not None
        )
        victims = self._victims(tasks)
        page_kb, page_from = self._page_size(victims, tasks)
        numbers = self.state.numbers
        ram = numbers.get("ram_pages")
        kind, kind_from = kind_of(self._signs())
        missing = self._missing()
        named: dict[str, Any] = {**self._places(), **numbers}
        return Incident(
            kind=kind,
            kind_from=kind_from,
            invoker=self._invoker(),
            gfp_mask=self.head.gfp_mask if self.head else None,
            gfp_flags=self.head.gfp_flags if self.head else None,
            order=self.head.order if self.head else None,
            oom_group=self.oom_group,
            victims=victims,
            scored=self._scored(),
            page_size_kb=page_kb,
            page_size_from=page_from,
            total_ram_kb=ram * page_kb if ram is not None and page_kb is not None else None,
            **named,
            memcg_stat_kb=self.state.memcg_stat_kb,
            vm_pages=self.state.vm_pages,
            zones=tuple(self.state.zones.values()),
            slabs=tuple(self.state.slabs),
            tasks=tasks,
            task_columns=columns,
            task_layout=layout,
            tasks_lost=self.table.lost,
            trace=tuple(self.trace),
            panic=self.panic,
            no_killable=self.no_killable,
            reaped=tuple(self.reaped),
            hidden_kills=self.hidden_kills,
            kernel=self.cpu.release if self.cpu else None,
            time=self.time,
            uptime_s=self.uptime_s,
            host=self.host,
            source=source,
            lines=tuple((first, last) for first, last in self.spans),
            first_line=self.first,
            complete=not set(missing) - {"task table"},
            missing=missing,
            marks=self.marks,
        )

    def _signs(self) -> Signs:
        line = self.oom_kill
        return Signs(
            order=self.head.order if self.head else None,
            gfp_mask=self.head.gfp_mask if self.head else None,
            gfp_flags=self.head.gfp_flags if self.head else None,
            has_head=self.head is not None,
            comm=self.comm,
            constraint=line.constraint if line else None,
            global_oom=line.global_oom if line else False,
            memcg_path=(line.oom_memcg if line else None) or (self.limit_of or ("", None))[1],
            reason=self.reason,
            killed=bool(self.killed or self.chosen),
            trace=tuple(self.trace),
            has_memory=self.state.has_memory,
            has_memcg=self.state.has_memcg,
            has_table=self.table.seen,
            sysrq=self.sysrq,
            no_killable=self.no_killable,
            went_on=self.went_on,
            panic=self.panic,
            oom_group=self.oom_group,
        )

    def _invoker(self) -> Invoker | None:
        if self.head is None:
            return None
        return Invoker(
            comm=self.comm,
            pid=self.cpu.pid if self.cpu else None,
            uid=self.cpu.uid if self.cpu else None,
            oom_score_adj=self.head.oom_score_adj,
            oom_adj=self.head.oom_adj,
        )

    def _places(self) -> dict[str, str | None]:
        line = self.oom_kill or OomKill()
        limit_of = self.limit_of or (None, None)
        cpuset = self.cpuset or (None, None, None)
        return {
            "constraint": line.constraint,
            "nodemask": line.nodemask or (self.head.nodemask if self.head else None),
            "cpuset": line.cpuset or cpuset[1],
            "mems_allowed": line.mems_allowed or cpuset[2],
            "oom_memcg": line.oom_memcg or limit_of[1],
            "task_memcg": line.task_memcg or limit_of[0],
        }

    def _scored(self) -> Scored | None:
        if self.chosen is None or not self.killed or self.killed[0].pid == self.chosen.pid:
            return None
        return Scored(pid=self.chosen.pid, comm=self.chosen.comm, score=self.chosen.score)

    def _victims(self, tasks: tuple[Task, ...]) -> tuple[Victim, ...]:
        line = self.oom_kill
        score = self.chosen.score if self.chosen else None
        victims = []
        for position, killed in enumerate(self.killed):
            fields = dict(killed.fields)
            if line is not None and line.pid == killed.pid and line.uid is not None:
                fields.setdefault("uid", line.uid)
            victims.append(
                Victim(
                    pid=killed.pid,
                    comm=self._name(killed, tasks),
                    score=score if position == 0 else None,
                    **fields,
                )
            )
        if victims:
            return tuple(victims)
        if line is not None and line.pid is not None:
            return (Victim(pid=line.pid, comm=line.task, uid=line.uid, score=score),)
        if self.chosen is not None:
            return (Victim(pid=self.chosen.pid, comm=self.chosen.comm, score=score),)
        return ()

    def _name(self, killed: Killed, tasks: tuple[Task, ...]) -> str | None:
        """Choose among names that differ only in blanks, which a broken line may add."""
        if killed.comm is None:
            named = self.oom_kill is not None and self.oom_kill.pid == killed.pid
            return self.oom_kill.task if self.oom_kill is not None and named else None
        said = [killed.comm]
        if self.oom_kill is not None and self.oom_kill.pid == killed.pid:
            said.append(self.oom_kill.task or "")
        if self.chosen is not None and self.chosen.pid == killed.pid:
            said.append(self.chosen.comm)
        said += [task.comm or "" for task in tasks if task.pid == killed.pid]
        bare = killed.comm.replace(" ", "")
        same = [name for name in said if name.replace(" ", "") == bare]
        return max(same, key=lambda name: (same.count(name), -len(name)))

    def _page_size(
        self, victims: tuple[Victim, ...], tasks: tuple[Task, ...]
    ) -> tuple[int | None, str | None]:
        if self.state.block_kb is not None and _is_page(self.state.block_kb):
            return self.state.block_kb, "free list"
        by_pid = {task.pid: task for task in tasks}
        for victim in victims:
            task = by_pid.get(victim.pid or 0)
            if task and task.total_vm_pages and victim.total_vm_kb:
                size, rest = divmod(victim.total_vm_kb, task.total_vm_pages)
                if rest == 0 and _is_page(size):
                    return size, "kill line against the table"
        if self.x86:
            return 4, "processor"
        # Sizes are whole pages and no Linux has smaller pages than 4 KiB, so a
        # size that only 4 divides leaves no other choice. Larger pages prove nothing.
        sizes = [
            size
            for v in victims
            for size in (v.total_vm_kb, v.anon_rss_kb, v.file_rss_kb, v.shmem_rss_kb)
            if size
        ]
        if sizes and math.gcd(*sizes) == 4:
            return 4, "sizes that only 4 kB pages give"
        return None, None

    def _missing(self) -> tuple[str, ...]:
        missing = []
        if self.head is None:
            missing.append("first line")
        elif self.cpu is None:
            missing.append("invoker's pid")
        if "ram_pages" not in self.state.numbers and not self.state.has_memcg:
            missing.append("memory totals")
        if not self.table.rows:
            missing.append("task table")
        if not self.done:
            missing.append("kill line")
        return tuple(missing)


def _is_page(size_kb: int) -> bool:
    return size_kb in {4, 8, 16, 32, 64, 256}
