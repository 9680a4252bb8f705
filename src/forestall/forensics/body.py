"""The body of a report: processor, trace, memory state, table, and pieces printed late."""

from __future__ import annotations

import re

from forestall.forensics import shapes
from forestall.forensics.lines import Line
from forestall.forensics.model import Evidence
from forestall.forensics.report import MAX_TRACE, Report
from forestall.forensics.state import read_state
from forestall.forensics.streams import CPU, HEAD, OOM_KILL, STATE, TABLE, Streams

_ZONES_MARKED = 8
_MARK_CHARS = 400
_ADDRESS = r"^\s*(?:\[<[\da-f]+>\]\s*)?"
_CALL = re.compile(
    _ADDRESS + r"(\??)\s*\(?([A-Za-z_][\w.$]*)(?:\+0x[\da-f]+/0x[\da-f]+|\s\(\S+:\d+)"
)
_ARM_CALL = re.compile(_ADDRESS + r"\(?([A-Za-z_][\w.$]*)\)? from [\[(A-Za-z_]")
_AROUND = re.compile(
    r"\s*(?:Call Trace|Hardware name|Workqueue|Tainted:|</?TASK>|[RE][A-Z0-9]{2}: |Code: )"
)
_OTHER_DUMP = re.compile(
    r"page allocation (?:failure|stalls)|: allocation failure|[sS]ys[rR]q\s?: Show Memory"
    r"|cma: .*alloc failed"
)


class Body:
    """Gives the lines between a report's head and its end to the report they belong to."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams

    def take(self, line: Line) -> bool:
        """Take a line of trace, state or table; say whether it was one."""
        text = line.text
        if _OTHER_DUMP.search(text):
            self._ignore_dump(line)
            return True
        report = self._streams.reports[-1] if self._streams.reports else None
        if report is not None and self._continued_oom_kill(line):
            return True
        if self._cpu_or_trace(line):
            return True
        return self._state(line) or self._table(line)

    def _ignore_dump(self, line: Line) -> None:
        for report in self._streams.reports:
            if report.ignored:
                report.last = line.last
                return
        report = self._streams.begin(line, phase=HEAD)
        report.ignored = True
        report.take(line)

    def _continued_oom_kill(self, line: Line) -> bool:
        if not line.text.startswith(","):
            return False
        report = self._streams.current(line, OOM_KILL)
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
        report = self._streams.current(line, CPU)
        if report is None or report.ignored:
            return False
        text = line.text
        if " mems_allowed=" in text:
            return self._cpuset(report, line)
        if "omm" in text:
            cpu = shapes.read_cpu(line, report.comm)
            if cpu is not None:
                return self._cpu(report, cpu, line)
        if "moom_callback" in text:
            report.sysrq = True
        if self._trace(report, text) or _AROUND.match(text):
            report.take(line)
            return True
        return False

    def _trace(self, report: Report, text: str) -> bool:
        found = _CALL.match(text)
        if found is not None:
            # A question mark says that the address only lay about on the stack.
            name = None if found[1] else found[2]
        else:
            found = _ARM_CALL.match(text)
            if found is None:
                return False
            name = found[1]
        if name is not None and len(report.trace) < MAX_TRACE:
            report.trace.append(name)
        return True

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
        # A name may look like a prefix and have lost its beginning to it.
        same = same or (report.comm is not None and cpu.comm.endswith(f" {report.comm}"))
        if same or (line.cut and (report.comm or "").startswith(cpu.comm)):
            report.cpu, report.comm = cpu, report.comm if line.cut else cpu.comm
            report.phase = max(report.phase, CPU)
            report.take(line, "cpu")
        return True

    def _state(self, line: Line) -> bool:
        text = line.text
        limit_of = shapes.read_limit_of(line) if text.lstrip().startswith("Task in ") else None
        report = self._streams.current(line, TABLE)
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
            self._streams.reports.append(probe)
        elif report.phase < STATE:
            report.phase = STATE
        probe.take(line, _STATE_MARKS.get(name))
        if name == "zone" and len(probe.state.zones) <= _ZONES_MARKED:
            mark = Evidence(line=line.first, text=text.strip()[:_MARK_CHARS])
            probe.marks.setdefault(f"zone{len(probe.state.zones)}", mark)
        return True

    def _table(self, line: Line) -> bool:
        report = self._streams.current(line, TABLE)
        probe = report or Report(first=line.first)
        if _foreign(report, line):
            return False
        name = probe.table.read(line)
        if name is None:
            return False
        if report is None:
            self._streams.reports.append(probe)
        probe.phase = TABLE
        probe.ignored = False
        probe.take(line, "table" if name != "row" else None)
        return True


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
