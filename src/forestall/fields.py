"""Every quantity that is shown anywhere, once: title, unit, metric name, help.

Tables, live screen, JSON, metrics and reports are read off this, so that they
cannot disagree. Names carry their unit last, as everywhere in the program;
metrics are in base units (bytes, seconds, ratios), and no metric names a process.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from forestall.core.units import human_bytes, human_ns, human_share

if TYPE_CHECKING:
    from collections.abc import Callable

UNKNOWN = "N/A"
"""How every unknown is shown; never as zero."""


class Unit(Enum):
    """What a number counts, and so how it is written."""

    BYTES = "bytes"
    SHARE = "share"
    """0.0 to 1.0."""
    DURATION = "ns"
    BYTES_PER_S = "bytes/s"
    POINTS = "thousandths of RAM + swap"
    CHANGE = "points gained or lost"
    COUNT = "count"
    NUMBER = "number"
    """An identifier: neither added up nor abbreviated."""
    TEXT = "text"


class Metric(Enum):
    """How a metrics page presents it."""

    NONE = ""
    """Not at all: it names a process, or is words."""
    GAUGE = "gauge"
    COUNTER = "counter"


class Field(NamedTuple):
    """One quantity."""

    name: str
    """The key in JSON."""
    title: str
    """The head of its column."""
    unit: Unit
    help: str
    metric: Metric = Metric.NONE
    metric_name: str = ""

    def show(self, found: object) -> str:
        """Write a value for people; None is unknown.

        Text is not made harmless here: that is for who knows where it goes.
        """
        if found is None:
            return UNKNOWN
        if isinstance(found, bool) or not isinstance(found, int | float):
            return str(found)
        return _WRITERS[self.unit](found)

    def measure(self, found: float) -> float:
        """Convert to a metric's base unit: nanoseconds become seconds."""
        return found / 1_000_000_000 if self.unit is Unit.DURATION else found


_WRITERS: dict[Unit, Callable[[float], str]] = {
    Unit.BYTES: human_bytes,
    Unit.SHARE: human_share,
    Unit.DURATION: human_ns,
    Unit.BYTES_PER_S: lambda found: f"{human_bytes(found)}/s",
    Unit.POINTS: lambda found: f"{found:.0f}",
    Unit.CHANGE: lambda found: f"{found:+.0f}" if found else "",
    Unit.COUNT: lambda found: f"{found:.0f}",
    Unit.NUMBER: lambda found: f"{found:.0f}",
    Unit.TEXT: str,
}


def _gauge(name: str, title: str, unit: Unit, metric_name: str, text: str) -> Field:
    return Field(name, title, unit, text, Metric.GAUGE, f"forestall_{metric_name}")


def _counter(name: str, title: str, metric_name: str, text: str) -> Field:
    return Field(name, title, Unit.COUNT, text, Metric.COUNTER, f"forestall_{metric_name}_total")


MACHINE = (
    _gauge("total_bytes", "MEMORY", Unit.BYTES, "memory_bytes", "RAM of this machine, or limit."),
    _gauge(
        "available_bytes",
        "AVAILABLE",
        Unit.BYTES,
        "available_bytes",
        "What can be handed out without swapping; the ZFS cache above its minimum counts.",
    ),
    _gauge("used_share", "USED", Unit.SHARE, "used_ratio", "1 - available / total."),
    _gauge("swap_total_bytes", "SWAP", Unit.BYTES, "swap_bytes", "Size of all swap areas."),
    _gauge(
        "swap_free_bytes", "SWAP FREE", Unit.BYTES, "swap_free_bytes", "Free swap, in pages' worth."
    ),
    _gauge(
        "swap_usable_bytes",
        "SWAP USABLE",
        Unit.BYTES,
        "swap_usable_bytes",
        "What free swap is really worth: zram priced at what its pages cost in RAM.",
    ),
    _gauge(
        "stall_some_share",
        "STALL SOME",
        Unit.SHARE,
        "stall_some_ratio",
        "Share of time in which some task waited for memory.",
    ),
    _gauge(
        "stall_full_share",
        "STALL FULL",
        Unit.SHARE,
        "stall_full_ratio",
        "Share of time in which every task waited for memory.",
    ),
    _gauge(
        "time_left_ns",
        "TIME LEFT",
        Unit.DURATION,
        "time_left_seconds",
        "Until memory and swap are gone, at the pace of the last moments.",
    ),
    Field("level", "LEVEL", Unit.TEXT, "How full memory is: normal, low, medium, critical."),
)

PROCESS = (
    Field("pid", "PID", Unit.NUMBER, "Number of the process."),
    Field("start_ticks", "START", Unit.NUMBER, "When it began, in clock ticks since boot."),
    Field("name", "NAME", Unit.TEXT, "The name it gave itself; at most 15 bytes."),
    Field("state", "STATE", Unit.TEXT, "R runs, S sleeps, D waits for a disk, T stopped, Z ended."),
    Field("parent_pid", "PARENT", Unit.NUMBER, "Who started it, or who took it over."),
    Field("uid", "UID", Unit.NUMBER, "Whose it is."),
    Field(
        "points",
        "SCORE",
        Unit.POINTS,
        "The kernel's badness, unscaled: thousandths of RAM + swap, adjustment included.",
    ),
    Field(
        "change_points",
        "CHANGE",
        Unit.CHANGE,
        "Of the score since the last look.",
    ),
    Field(
        "oom_score",
        "RAW",
        Unit.NUMBER,
        "/proc/PID/oom_score as printed; an idle process shows 666 since Linux 5.9.",
    ),
    Field(
        "oom_score_adj",
        "ADJ",
        Unit.NUMBER,
        "What was added for the administrator: thousandths, -1000 for never.",
    ),
    Field("rss_bytes", "RSS", Unit.BYTES, "Its pages in RAM, shared ones counted in full."),
    Field("anon_bytes", "ANON", Unit.BYTES, "Its private anonymous memory in RAM."),
    Field("swap_bytes", "SWAP", Unit.BYTES, "Its memory in swap."),
    Field("page_tables_bytes", "TABLES", Unit.BYTES, "What the kernel keeps to map its memory."),
    Field(
        "pss_bytes",
        "PSS",
        Unit.BYTES,
        "Its fair share of what it maps: a page shared by four counts a quarter.",
    ),
    Field("unit", "UNIT", Unit.TEXT, "The service or scope it runs in."),
    Field("mark", "MARK", Unit.TEXT, "! above a score of 500, !! above 800."),
    Field("next", "NEXT", Unit.TEXT, "K: the kernel's next victim; G: the guard's; KG: both."),
    Field("spared", "SPARED", Unit.TEXT, "Why the kernel would not take it."),
)

UNIT_SUMS = (
    Field("processes", "PROCESSES", Unit.COUNT, "How many run in the unit."),
    Field("points_max", "SCORE", Unit.POINTS, "The highest score of its processes."),
    Field("leader", "LARGEST", Unit.TEXT, "The process that holds most."),
)

GUARD = (
    _counter("samples", "SAMPLES", "samples", "Looks at memory."),
    _counter("surveys", "SURVEYS", "surveys", "Looks at all processes."),
    _counter("missed", "MISSED", "missed_samples", "Looks that failed."),
    _counter("errors", "ERRORS", "errors", "Mistakes of the guard's own, survived."),
    _gauge(
        "late_ns_max",
        "LATEST BY",
        Unit.DURATION,
        "late_seconds_max",
        "The latest tick, by so much.",
    ),
    _counter("records_written", "RECORDS", "records_written", "Pieces of the record kept on disk."),
    _counter(
        "record_entries_dropped", "RECORDS LOST", "record_entries_dropped", "Entries without room."
    ),
    _counter("relief_dropped", "RELIEF LOST", "relief_requests_dropped", "Not taken by relief."),
    _counter("log_dropped", "LOG LOST", "log_lines_dropped", "Log lines without a taker."),
)

FIELDS = (*MACHINE, *PROCESS, *UNIT_SUMS, *GUARD)
BY_NAME = {field.name: field for field in FIELDS}
