"""Whole lines in, incidents out: the state machine that tells reports apart.

A report runs through phases (head, trace, memory state, table, ``oom-kill:``, kill)
and never goes back: a line of an earlier phase begins the next report. Other
processors' lines are told by their caller id where there is one, by shape elsewhere.

Limits: open reports, lines they may span, rows, victims. What ages out is given as
incomplete, never dropped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace

from forestall.forensics import shapes
from forestall.forensics.agents import AgentReader
from forestall.forensics.lines import Line
from forestall.forensics.model import Evidence, Incident, Reaped, Victim
from forestall.forensics.report import MAX_TRACE, MAX_VICTIMS, Report
from forestall.forensics.state import read_state

MAX_OPEN = 8
MAX_QUIET_LINES = 4000
"""A report that got no line of its own for so long is given as it is."""
LINGER_LINES = 60
"""How long a decided report waits for its group's further kills and the reaper."""

HEAD, CPU, STATE, TABLE, OOM_KILL, KILL = range(1, 7)

_CALL = re.compile(r"^\s*(?:\[<[\da-f]+>\]\s*)?(\??)\s*\(?([A-Za-z_][\w.$]*)(?:\+0x[\da-f]+/0x[\da-f]+|\s\(\S+:\d+)")
_ARM_CALL = re.compile(r"^\s*(?:\[<[\da-f]+>\]\s*)?\(?([A-Za-z_][\w.$]*)\)? from [\[(A-Za-z_]")
_OTHER_DUMP = re.compile(
    r"page allocation (?:failure|stalls)|: allocation failure|SysRq\s?: Show Memory|sysrq: Show Memory"
    r"|warn_alloc|cma: .*alloc failed"
)
_PANIC = re.compile(r"Kernel panic - not syncing: (.*)$")
_PANIC_OOM = re.compile(r"[Oo]ut of memory|deadlocked on memory|panic_on_oom")
_SYSRQ = re.compile(r"[sS]ys[rR]q\s?:.*\b[mM]anual OOM|[sS]ysrq: Manual OOM|SysRq : Manual OOM")
_OOM_FUNCTIONS = frozenset({"oom_kill_process", "__oom_kill_process", "out_of_memory", "dump_header"})


class Assembler:
    """Takes whole lines in order, gives incidents as they are decided."""

    def __init__(self, source: str | None = None) -> None:
        self._source = source
        self._open: list[Report] = []
        self._agents = AgentReader()
        self._hidden: int | None = None
        self._sysrq_line: int | None = None
        self._recent: list[tuple[int, int]] = []
        """(line, pid) of the last kills, against lines pasted twice."""

    @property
    def idle(self) -> bool:
        """Whether no line can matter unless it begins something new."""
        return not self._open

    def feed(self, line: Line) -> Iterator[Incident]:
        """Take one whole line."""
        if line.prefix.from_user:
            yield from self._agent(line)
            yield from self._expire(line.first)
            return
        texts = tuple(line.readings()) if len(line.pieces) > 1 else (line.text,)
        for needle, handle in self._handlers():
            if any(needle in text for text in texts):
                handled = handle(line)
                if handled is not None:
                    yield from handled
                    return
        if not self._body(line):
            yield from self._agent(line)
        yield from self._expire(line.first)

    def flush(self) -> Iterator[Incident]:
        """Give everything that is still open."""
        for report in self._open:
            yield from self._close(report)
        self._open.clear()

    def _handlers(self) -> tuple[tuple[str, Callable[[Line], list[Incident] | None]], ...]:
        return (
            ("invoked oom-killer", self._head),
            ("oom-kill:constraint=", self._oom_kill),
            ("illed process ", self._killed),
            ("ill process ", self._chosen),
            ("memory.oom.group", self._group),
            ("oom_reaper: ", self._reaped),
            ("no killable processes", self._no_killable),
            ("Kernel panic", self._panic),
            ("suppressed", self._suppressed),
            ("OOM", self._sysrq),
        )

    # -- beginnings and ends -------------------------------------------------------------------

    def _head(self, line: Line) -> list[Incident] | None:
        head = shapes.read_head(line)
        if head is None:
            return None
        given: list[Incident] = []
        for report in [r for r in self._open if self._same_stream(r, line) or r.done]:
            report.went_on = True
            given += self._take_out(report)
        report = self._begin(line)
        report.head, report.comm, report.phase = head, head.comm, HEAD
        report.take(line, "head")
        report.hidden_kills, self._hidden = self._hidden, None
        if self._sysrq_line is not None and line.first - self._sysrq_line < LINGER_LINES:
            report.sysrq = True
        self._sysrq_line = None
        return given

    def _begin(self, line: Line) -> Report:
        report = Report(first=line.first)
        self._open.append(report)
        return report

    def _current(self, line: Line, phase: int) -> Report | None:
        for report in reversed(self._open):
            if self._same_stream(report, line) and report.phase <= phase:
                return report
        return None

    def _same_stream(self, report: Report, line: Line) -> bool:
        prefix = line.prefix
        if report.host and prefix.host and report.host != prefix.host:
            return False
        caller = prefix.caller
        return caller is None or report.caller is None or caller == report.caller

    def _headless(self, line: Line, *, phase: int) -> Report:
        report = self._begin(line)
        report.phase = phase
        if self._sysrq_line is not None and line.first - self._sysrq_line < LINGER_LINES:
            report.sysrq = True
        return report

    def _take_out(self, report: Report) -> list[Incident]:
        self._open.remove(report)
        return list(self._close(report))

    def _close(self, report: Report) -> Iterator[Incident]:
        if report.real:
            yield report.incident(self._source)

    def _expire(self, line: int) -> list[Incident]:
        if not self._open:
            return []
        given: list[Incident] = []
        for report in list(self._open):
            limit = LINGER_LINES if report.done else MAX_QUIET_LINES
            if line - report.last > limit:
                given += self._take_out(report)
        while len(self._open) > MAX_OPEN:
            given += self._take_out(self._open[0])
        return given

    # -- the lines that decide -----------------------------------------------------------------

    def _oom_kill(self, line: Line) -> list[Incident] | None:
        found = shapes.read_oom_kill(line)
        if found is None:
            return None
        given: list[Incident] = []
        report = self._current(line, TABLE)
        if report is None or report.ignored:
            given = [i for r in self._stale(line) for i in self._take_out(r)]
            report = self._headless(line, phase=OOM_KILL)
        report.oom_kill, report.phase = found, OOM_KILL
        report.take(line, "oom_kill")
        return given + self._expire(line.first)

    def _stale(self, line: Line) -> list[Report]:
        return [r for r in self._open if self._same_stream(r, line) and r.phase >= OOM_KILL]

    def _chosen(self, line: Line) -> list[Incident] | None:
        shared = shapes.read_sharing(line.text)
        if shared is not None:
            report = self._current(line, KILL)
            if report is not None:
                report.take(line)
            return []
        chosen = shapes.read_chosen(line)
        if chosen is None:
            return None
        report = self._current(line, OOM_KILL)
        given: list[Incident] = []
        if report is None or report.chosen is not None:
            given = [i for r in self._stale(line) for i in self._take_out(r)]
            report = self._headless(line, phase=OOM_KILL)
        report.chosen, report.phase = chosen, OOM_KILL
        report.reason = report.reason or chosen.reason
        report.take(line, "chosen")
        return given + self._expire(line.first)

    def _killed(self, line: Line) -> list[Incident] | None:
        killed = shapes.read_killed(line)
        if killed is None:
            return None
        group = self._in_group(line)
        if group is not None:
            self._add_to_group(group, killed, line)
            return []
        if self._pasted_twice(line, killed.pid):
            return []
        report = self._current(line, OOM_KILL)
        given: list[Incident] = []
        if report is None or self._another(report, killed):
            given = [i for r in self._stale(line) for i in self._take_out(r)]
            report = self._headless(line, phase=KILL)
        report.killed.append(killed)
        report.reason = report.reason or killed.reason
        report.phase = KILL
        report.take(line, "killed")
        self._recent = [*self._recent[-63:], (line.first, killed.pid)]
        return given + self._expire(line.first)

    def _another(self, report: Report, killed: shapes.Killed) -> bool:
        # The oom-kill line names the victim. Another pid means that lines were lost between,
        # unless a "Kill process" line stands between: then a child was taken.
        named = report.oom_kill.pid if report.oom_kill else None
        return named is not None and named != killed.pid and report.chosen is None

    def _in_group(self, line: Line) -> Report | None:
        for report in reversed(self._open):
            if report.oom_group is not None and self._same_stream(report, line):
                return report
        return None

    def _add_to_group(self, report: Report, killed: shapes.Killed, line: Line) -> None:
        report.take(line, "killed")
        if len(report.killed) < MAX_VICTIMS and all(k.pid != killed.pid for k in report.killed):
            report.killed.append(killed)

    def _pasted_twice(self, line: Line, pid: int) -> bool:
        return any(pid == other and line.first - at < LINGER_LINES for at, other in self._recent)

    def _group(self, line: Line) -> list[Incident] | None:
        path = shapes.read_group(line.text)
        if path is None:
            return None
        report = self._current(line, KILL) or self._headless(line, phase=KILL)
        report.oom_group = path
        report.take(line, "group")
        return []

    def _reaped(self, line: Line) -> list[Incident] | None:
        found = shapes.read_reaped(line.text)
        if found is None:
            return None
        for report in reversed(self._open):
            if report.done or report.chosen is not None:
                report.take(line, "reaped")
                if len(report.reaped) < MAX_VICTIMS:
                    report.reaped.append(Reaped(pid=found[0], comm=found[1], **found[2]))
                break
        return self._expire(line.first)

    def _no_killable(self, line: Line) -> list[Incident] | None:
        panic = _PANIC.search(line.text)
        report = self._current(line, KILL)
        given: list[Incident] = []
        if report is None or report.ignored or report.killed or report.no_killable:
            given = [i for r in self._stale(line) for i in self._take_out(r)]
            report = self._headless(line, phase=KILL)
        report.no_killable = True
        report.phase = KILL
        report.panic = report.panic or (panic[1] if panic else None)
        report.take(line, "no_killable")
        return given

    def _panic(self, line: Line) -> list[Incident] | None:
        found = _PANIC.search(line.text)
        if found is None or not _PANIC_OOM.search(found[1]) or "[ end Kernel" in line.text:
            return None if found is None else []
        report = self._current(line, KILL)
        if report is None or report.ignored or report.killed or report.panic is not None:
            report = self._headless(line, phase=KILL)
        report.panic, report.phase = found[1].strip(), KILL
        report.take(line, "panic")
        return []

    def _suppressed(self, line: Line) -> list[Incident] | None:
        found = shapes.read_suppressed(line.text)
        if found is None or found[0] not in _OOM_FUNCTIONS:
            return None
        self._hidden = (self._hidden or 0) + found[1]
        return []

    def _sysrq(self, line: Line) -> list[Incident] | None:
        if _SYSRQ.search(line.text) is None:
            return None
        self._sysrq_line = line.first
        return []

    # -- the body of a report ------------------------------------------------------------------

    def _body(self, line: Line) -> bool:
        """Take a line of trace, state or table; say whether it was one."""
        text = line.text
        if _OTHER_DUMP.search(text) and not text.lstrip().startswith("warn_alloc"):
            self._ignore_dump(line)
            return True
        report = self._open[-1] if self._open else None
        if report is not None and self._continued_oom_kill(line):
            return True
        if self._cpu_or_trace(line):
            return True
        return self._state(line) or self._table(line)

    def _ignore_dump(self, line: Line) -> None:
        for report in self._open:
            if report.ignored:
                report.last = line.last
                return
        report = self._begin(line)
        report.ignored, report.phase = True, HEAD
        report.take(line)

    def _continued_oom_kill(self, line: Line) -> bool:
        if not line.text.startswith(","):
            return False
        report = self._current(line, OOM_KILL)
        if report is None or report.oom_kill is None or report.oom_kill.pid is not None:
            return False
        rest = shapes.read_oom_kill(line)
        if rest is None or rest.pid is None:
            return False
        before = report.oom_kill
        before.task, before.pid, before.uid = rest.task, rest.pid, rest.uid
        before.task_memcg = before.task_memcg or rest.task_memcg
        before.oom_memcg = before.oom_memcg or rest.oom_memcg
        report.take(line, "oom_kill")
        return True

    def _cpu_or_trace(self, line: Line) -> bool:
        report = self._current(line, CPU)
        if report is None or report.ignored:
            return False
        text = line.text
        if " mems_allowed=" in text:
            return self._cpuset(report, line)
        if "omm" in text:
            cpu = shapes.read_cpu(line, report.comm)
            if cpu is not None:
                return self._cpu(report, cpu, line)
        call = _CALL.match(text)
        if call is not None:
            if not call[1] and len(report.trace) < MAX_TRACE:
                report.trace.append(call[2])
            report.take(line)
            return True
        arm = _ARM_CALL.match(text)
        if arm is not None:
            if len(report.trace) < MAX_TRACE:
                report.trace.append(arm[1])
            report.take(line)
            return True
        if "moom_callback" in text:
            report.sysrq = True
        if re.match(r"\s*(?:Call Trace|Hardware name|Workqueue|Tainted:|</?TASK>|[RE][A-Z0-9]{2}: |Code: )", text):
            report.take(line)
            return True
        return False

    def _cpuset(self, report: Report, line: Line) -> bool:
        found = shapes.read_cpuset(line)
        if found is None:
            return False
        if report.cpuset is None and (report.comm is None or found[0] == report.comm):
            report.cpuset = found
            report.take(line, "cpuset")
        return True

    def _cpu(self, report: Report, cpu: shapes.Cpu, line: Line) -> bool:
        if report.cpu is not None or report.head is None:
            return True
        before = report.head.before.strip()
        # Another processor's stack may stand here; the invoker's own line bears its name.
        same = cpu.comm == report.comm or (cpu.comm != "" and before.endswith(cpu.comm))
        if same or (line.cut and (report.comm or "").startswith(cpu.comm)):
            report.cpu, report.comm = cpu, cpu.comm or report.comm
            report.phase = max(report.phase, CPU)
            report.take(line, "cpu")
        return True

    def _state(self, line: Line) -> bool:
        text = line.text
        limit_of = shapes.read_limit_of(line) if text.lstrip().startswith("Task in ") else None
        report = self._current(line, TABLE)
        probe = report or Report(first=line.first)
        if limit_of is None:
            if not _foreign(report, line):
                name = read_state(probe.state, text, line.first)
            else:
                return False
            if name is None:
                return False
        else:
            name = "limit_of"
            probe.limit_of = probe.limit_of or limit_of
        if report is None:
            probe.phase = STATE
            self._open.append(probe)
        elif report.phase < STATE:
            report.phase = STATE
        probe.take(line, _STATE_MARKS.get(name))
        if name == "zone":
            probe.marks.setdefault(f"zone{len(probe.state.zones)}", Evidence(line=line.first, text=text.strip()[:400]))
        return True

    def _table(self, line: Line) -> bool:
        report = self._current(line, TABLE)
        probe = report or Report(first=line.first)
        if _foreign(report, line):
            return False
        name = probe.table.read(line)
        if name is None:
            return False
        if report is None:
            self._open.append(probe)
        probe.phase = TABLE
        probe.ignored = False
        probe.take(line, "table" if name != "row" else None)
        return True

    def _agent(self, line: Line) -> list[Incident]:
        for text in line.readings():
            kill = self._agents.read(text, line.prefix.program, line.first)
            if kill is not None:
                break
        else:
            return []
        named = kill.pid is not None or kill.comm is not None
        victim = Victim(pid=kill.pid, comm=kill.comm, **kill.numbers)
        prefix = line.prefix
        incident = Incident(
            kind="userspace-oom",
            kind_from="agent's line",
            agent=kill.agent,
            victims=(victim,) if named else (),
            cgroup=kill.cgroup,
            unit=kill.unit,
            reason=kill.reason,
            time=prefix.time,
            uptime_s=prefix.uptime_s,
            host=prefix.host,
            source=self._source,
            lines=((line.first, line.last),),
            first_line=line.first,
            complete=True,
            marks={"agent": Evidence(line=line.first, text=line.text.strip()[:400])},
        )
        return [replace(incident)]


_STATE_MARKS = {
    "counters": "counters",
    "memcg_usage": "memcg_usage",
    "memsw_usage": "memsw_usage",
    "swap_usage": "swap_usage",
    "swap": "swap",
    "ram_pages": "ram",
    "limit_of": "limit_of",
    "memcg_stats": "memcg_stats",
    "slabs": "slabs",
}


def _foreign(report: Report | None, line: Line) -> bool:
    return report is None and line.prefix.caller is not None and line.prefix.caller[0] == "C"
