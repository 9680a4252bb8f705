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

from forestall.forensics import shapes
from forestall.forensics.agents import AgentReader
from forestall.forensics.body import Body
from forestall.forensics.lines import Line
from forestall.forensics.model import Evidence, Incident, Reaped, Victim
from forestall.forensics.report import MAX_VICTIMS, Report
from forestall.forensics.streams import (
    HEAD,
    KILL,
    LINGER_LINES,
    MAX_OPEN,
    MAX_QUIET_LINES,
    OOM_KILL,
    TABLE,
    Streams,
)

_PANIC = re.compile(r"Kernel panic - not syncing: (.*)$")
_PANIC_OOM = re.compile(r"[Oo]ut of memory|deadlocked on memory|panic_on_oom")
_SYSRQ = re.compile(r"[sS]ys[rR]q\s?:.*\b[mM]anual OOM|[sS]ysrq: Manual OOM|SysRq : Manual OOM")
_OOM_FUNCTIONS = frozenset(
    {"oom_kill_process", "__oom_kill_process", "out_of_memory", "dump_header"}
)


class Assembler:
    """Takes whole lines in order, gives incidents as they are decided."""

    def __init__(self, source: str | None = None) -> None:
        self._source = source
        self._streams = Streams()
        self._body = Body(self._streams)
        self._agents = AgentReader()
        self._hidden: int | None = None
        self._recent: list[tuple[int, int]] = []
        """(line, pid) of the last kills, against lines pasted twice."""

    @property
    def idle(self) -> bool:
        """Whether no line can matter unless it begins something new."""
        return not self._streams.reports

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
        if not self._body.take(line):
            yield from self._agent(line)
        yield from self._expire(line.first)

    def flush(self) -> Iterator[Incident]:
        """Give everything that is still open."""
        for report in self._streams.reports:
            yield from self._close(report)
        self._streams.reports.clear()

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
        for report in [r for r in self._streams.reports if self._streams.same(r, line) or r.done]:
            report.went_on = True
            given += self._take_out(report)
        report = self._streams.begin(line, phase=HEAD)
        report.head, report.comm = head, head.comm
        report.take(line, "head")
        report.hidden_kills, self._hidden = self._hidden, None
        return given

    def _take_out(self, report: Report) -> list[Incident]:
        self._streams.reports.remove(report)
        return list(self._close(report))

    def _close(self, report: Report) -> Iterator[Incident]:
        if report.real:
            yield report.incident(self._source)

    def _expire(self, line: int) -> list[Incident]:
        if not self._streams.reports:
            return []
        given: list[Incident] = []
        for report in list(self._streams.reports):
            limit = LINGER_LINES if report.done else MAX_QUIET_LINES
            if line - report.last > limit:
                given += self._take_out(report)
        while len(self._streams.reports) > MAX_OPEN:
            given += self._take_out(self._streams.reports[0])
        return given

    # -- the lines that decide -----------------------------------------------------------------

    def _oom_kill(self, line: Line) -> list[Incident] | None:
        found = shapes.read_oom_kill(line)
        if found is None:
            return None
        given: list[Incident] = []
        report = self._streams.current(line, TABLE)
        if report is None or report.ignored:
            given = [i for r in self._streams.past(line) for i in self._take_out(r)]
            report = self._streams.begin(line, phase=OOM_KILL)
        report.oom_kill, report.phase = found, OOM_KILL
        report.take(line, "oom_kill")
        return given + self._expire(line.first)

    def _chosen(self, line: Line) -> list[Incident] | None:
        shared = shapes.read_sharing(line.text)
        if shared is not None:
            report = self._streams.current(line, KILL)
            if report is not None:
                report.take(line)
            return []
        chosen = shapes.read_chosen(line)
        if chosen is None:
            return None
        report = self._streams.current(line, OOM_KILL)
        given: list[Incident] = []
        if report is None or report.chosen is not None:
            given = [i for r in self._streams.past(line) for i in self._take_out(r)]
            report = self._streams.begin(line, phase=OOM_KILL)
        report.chosen, report.phase = chosen, OOM_KILL
        report.reason = report.reason or chosen.reason
        report.take(line, "chosen")
        return given + self._expire(line.first)

    def _killed(self, line: Line) -> list[Incident] | None:
        killed = shapes.read_killed(line)
        if killed is None:
            return None
        group = self._streams.group(line)
        if group is not None:
            self._add_to_group(group, killed, line)
            return []
        report = self._streams.current(line, OOM_KILL)
        if report is None and self._pasted_twice(line, killed.pid):
            return []
        given: list[Incident] = []
        if report is None or self._another(report, killed):
            given = [i for r in self._streams.past(line) for i in self._take_out(r)]
            report = self._streams.begin(line, phase=KILL)
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
        report = self._streams.current(line, KILL) or self._streams.begin(line, phase=KILL)
        report.oom_group = path
        report.take(line, "group")
        return []

    def _reaped(self, line: Line) -> list[Incident] | None:
        found = shapes.read_reaped(line.text)
        if found is None:
            return None
        for report in reversed(self._streams.reports):
            if report.done or report.chosen is not None:
                report.take(line, "reaped")
                if len(report.reaped) < MAX_VICTIMS:
                    report.reaped.append(Reaped(pid=found[0], comm=found[1], **found[2]))
                break
        return self._expire(line.first)

    def _no_killable(self, line: Line) -> list[Incident] | None:
        panic = _PANIC.search(line.text)
        report = self._streams.current(line, KILL)
        given: list[Incident] = []
        if report is None or report.ignored or report.killed or report.no_killable:
            given = [i for r in self._streams.past(line) for i in self._take_out(r)]
            report = self._streams.begin(line, phase=KILL)
        report.no_killable = True
        report.phase = KILL
        report.panic = report.panic or (panic[1] if panic else None)
        report.take(line, "no_killable")
        return given

    def _panic(self, line: Line) -> list[Incident] | None:
        found = _PANIC.search(line.text)
        if found is None or not _PANIC_OOM.search(found[1]) or "[ end Kernel" in line.text:
            return None if found is None else []
        report = self._streams.current(line, KILL)
        if report is None or report.ignored or report.killed or report.panic is not None:
            report = self._streams.begin(line, phase=KILL)
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
        self._streams.sysrq_line = line.first
        return []

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
        return [incident]
