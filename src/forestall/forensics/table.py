"""The task table, whatever its columns are.

The header row names the columns and is believed. Without one the rows tell: by how
many numbers they have, and by what holds between them. Values are pages.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from forestall.forensics.lines import Line, header_columns
from forestall.forensics.model import Task

MAX_ROWS = 20_000

_HEADER = re.compile(r"^\s*\[\s*pid\s*\]\s+uid\b")
_ROW = re.compile(r"^\s*\[\s*(\d{1,10})\]((?:\s+-?\d{1,20}){4,16})(?:\s(\s*\S.*))?$")
_NUMBERS = re.compile(r"\s+(-?\d{1,20})(?=\s|$)")

_FIELDS = {
    "uid": "uid",
    "tgid": "tgid",
    "total_vm": "total_vm_pages",
    "rss": "rss_pages",
    "rss_anon": "rss_anon_pages",
    "rss_file": "rss_file_pages",
    "rss_shmem": "rss_shmem_pages",
    "nr_ptes": "nr_ptes",
    "nr_pmds": "nr_pmds",
    "pgtables_bytes": "pgtables_bytes",
    "swapents": "swapents_pages",
    "oom_adj": "oom_adj",
    "oom_score_adj": "oom_score_adj",
}
_COMMON = ("uid", "tgid", "total_vm", "rss")
_EL6 = (*_COMMON, "cpu", "oom_adj", "oom_score_adj")
_OLDEST = (*_COMMON, "cpu", "oom_adj")
_PTES = (*_COMMON, "nr_ptes", "swapents", "oom_score_adj")
_BYTES = (*_COMMON, "pgtables_bytes", "swapents", "oom_score_adj")
_PMDS = (*_COMMON, "nr_ptes", "nr_pmds", "swapents", "oom_score_adj")
_SPLIT = (
    *_COMMON,
    "rss_anon",
    "rss_file",
    "rss_shmem",
    "pgtables_bytes",
    "swapents",
    "oom_score_adj",
)


@dataclass(slots=True)
class Row:
    """A row before its columns are known."""

    pid: int
    numbers: tuple[int, ...]
    rest: str
    line: int


@dataclass(slots=True)
class Table:
    """The rows of one report's table so far."""

    columns: tuple[str, ...] = ()
    seen: bool = False
    """The table's title or header was seen, or a row of it."""
    rows: list[Row] = field(default_factory=list)
    lost: int = 0

    def read(self, line: Line) -> str | None:
        """Take one line; name what it was, or None if it is not of the table."""
        text = line.text
        if "Tasks state (" in text:
            self.seen = True
            return "title"
        if _HEADER.match(text):
            return self._read_header(line)
        if text.lstrip()[:1] != "[":
            return None
        return self._read_row(line)

    def _read_header(self, line: Line) -> str:
        self.seen = True
        columns = header_columns(line)
        if columns and not line.cut:
            # The pid stands in brackets before the numbers.
            self.columns = columns[1:]
        return "header"

    def _read_row(self, line: Line) -> str | None:
        best: Row | None = None
        for text in line.readings():
            row = self._row_of(text, line.first)
            if row is not None and (best is None or self._better(row, best)):
                best = row
            if best is not None and self._fits(best):
                break
        if best is None:
            return None
        self.seen = True
        if not self._fits(best) or (line.cut and not best.rest):
            self.lost += 1
        elif len(self.rows) < MAX_ROWS:
            self.rows.append(best)
        else:
            self.lost += 1
        return "row"

    def _row_of(self, text: str, line: int) -> Row | None:
        found = _ROW.match(text)
        if found is None:
            return None
        numbers = tuple(int(number) for number in _NUMBERS.findall(found[2]))
        rest = found[3] or ""
        wanted = len(self.columns)
        if wanted and len(numbers) > wanted:
            # A name may begin with a number, or be one: what is beyond the last column is name.
            surplus = [str(number) for number in numbers[wanted:]]
            rest = " ".join([*surplus, rest.strip()]).strip()
            numbers = numbers[:wanted]
        elif not rest and not wanted:
            rest, numbers = str(numbers[-1]), numbers[:-1]
        return Row(int(found[1]), numbers, rest.strip(), line)

    def _fits(self, row: Row) -> bool:
        if self.columns:
            return len(row.numbers) == len(self.columns) and bool(row.rest)
        return len(row.numbers) >= len(_OLDEST) and bool(row.rest)

    def _better(self, row: Row, than: Row) -> bool:
        return self._fits(row) and not self._fits(than)

    def tasks(self, *, old_adj: bool) -> tuple[tuple[Task, ...], tuple[str, ...], str | None]:
        """Give the rows as tasks, with the columns and how they were known.

        Args:
            old_adj: The report's first line printed ``oom_adj``, as kernels before 3.x did.
        """
        if not self.rows:
            return (), self.columns, "header" if self.columns else None
        columns = self.columns or columns_from(self.rows, old_adj=old_adj)
        layout = "header" if self.columns else "rows"
        return tuple(_task(row, columns) for row in self.rows), columns, layout


def columns_from(rows: Iterable[Row], *, old_adj: bool) -> tuple[str, ...]:
    """Tell the columns from the rows."""
    counts: dict[int, list[Row]] = {}
    for row in rows:
        counts.setdefault(len(row.numbers), []).append(row)
    width, same = max(counts.items(), key=lambda item: len(item[1]))
    if width == len(_OLDEST):
        return _OLDEST
    if width == len(_PTES):
        return _seven(same, old_adj=old_adj)
    if width == len(_PMDS):
        return _PMDS
    if width == len(_SPLIT) and all(row.numbers[3] == sum(row.numbers[4:7]) for row in same):
        return _SPLIT
    unknown = tuple(f"column{number}" for number in range(len(_COMMON) + 1, width))
    return (*_COMMON, *unknown, "oom_score_adj")[:width]


def _seven(rows: list[Row], *, old_adj: bool) -> tuple[str, ...]:
    # Page tables in bytes are whole kilobytes; their number is seldom divisible by 1024.
    sizes = [row.numbers[4] for row in rows]
    if any(sizes) and all(size % 1024 == 0 for size in sizes):
        return _BYTES
    protected = [row.numbers for row in rows if row.numbers[6]]
    as_el6 = all(-17 <= numbers[5] <= 15 for numbers in protected)
    paired = protected and all((n[5] < 0) == (n[6] < 0) and n[5] for n in protected)
    return _EL6 if old_adj or (as_el6 and paired) else _PTES


def _task(row: Row, columns: tuple[str, ...]) -> Task:
    values = {
        _FIELDS[name]: value
        for name, value in zip(columns, row.numbers, strict=False)
        if name in _FIELDS
    }
    return Task(pid=row.pid, comm=row.rest or None, line=row.line, **values)
