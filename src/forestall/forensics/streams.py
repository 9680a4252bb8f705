"""The reports that are open at one moment, and which of them a line belongs to.

Hosts in one log and processors in one kernel are streams of their own: a line goes to
the newest report of its stream that has not gone past the line's phase.
"""

from __future__ import annotations

from forestall.forensics.lines import Line
from forestall.forensics.report import Report

MAX_OPEN = 8
MAX_QUIET_LINES = 4000
"""A report that got no line of its own for so long is given as it is."""
LINGER_LINES = 60
"""How long a decided report waits for its group's further kills and the reaper."""

HEAD, CPU, STATE, TABLE, OOM_KILL, KILL = range(1, 7)
"""The phases of a report, in the order in which the kernel prints them."""


class Streams:
    """Open reports, the oldest first."""

    def __init__(self) -> None:
        self.reports: list[Report] = []
        self.sysrq_line: int | None = None
        """Where a person last asked for a kill."""

    def same(self, report: Report, line: Line) -> bool:
        """Say whether a line may be of a report's stream."""
        prefix = line.prefix
        if report.host and prefix.host and report.host != prefix.host:
            return False
        caller = prefix.caller
        return caller is None or report.caller is None or caller == report.caller

    def current(self, line: Line, phase: int) -> Report | None:
        """Find the report that a line of this phase continues."""
        for report in reversed(self.reports):
            if self.same(report, line) and report.phase <= phase:
                return report
        return None

    def begin(self, line: Line, *, phase: int) -> Report:
        """Open a report."""
        report = Report(first=line.first, phase=phase)
        if self.sysrq_line is not None and line.first - self.sysrq_line < LINGER_LINES:
            report.sysrq = True
        self.sysrq_line = None
        self.reports.append(report)
        return report

    def past(self, line: Line) -> list[Report]:
        """Find the reports of a line's stream that have come to their kill."""
        return [r for r in self.reports if self.same(r, line) and r.phase >= OOM_KILL]

    def group(self, line: Line) -> Report | None:
        """Find the report whose whole control group is being killed."""
        for report in reversed(self.reports):
            if report.oom_group is not None and self.same(report, line):
                return report
        return None
