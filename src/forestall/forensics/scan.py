"""The reader's front: bytes in any portions, incidents as they are decided.

Most of a log is not about memory. A portion is searched for a handful of needles
before any line is looked at, and only the lines around a needle are read one by one,
until the assembler says that nothing is open.

Cost: see docs/oom-reports.md for the measured throughput.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Iterator

from forestall.forensics.assemble import Assembler
from forestall.forensics.lines import Joiner
from forestall.forensics.merge import settle
from forestall.forensics.model import Incident

MAX_LINE_BYTES = 64 * 1024
_MAX_ROW_BYTES = 1024 * 1024
_PORTION_BYTES = 262144
"""Every needle is looked for in turn, so a portion should stay in the processor's cache."""
_LINES_BACK = 3
_WARM_LINES = 8
"""Lines read after a needle whatever they are, so that a wrapped line finds its end."""

NEEDLES = (
    b"oom",
    b"kill",
    b"active_anon",
    b"total_vm",
    b"pages ram",
    b": usage ",
    b"deadlocked",
    b"adness",
    b"vict",
    b"forestall",
)
"""Every line that begins or decides something holds one of these, in lower case."""

_ROW = re.compile(rb"\[\s*\d+\]\s+\d+\s+\d+\s+\d+\s")


class Scanner:
    """Takes a log in portions of any size; gives incidents in the order they are decided."""

    def __init__(self, source: str | None = None) -> None:
        self._assembler = Assembler(source)
        self._joiner = Joiner()
        self._tail = b""
        self._line = 0
        """Number of the last line handed on or skipped."""
        self._warm = 0
        """Lines still to be read whatever they are."""

    def feed(self, portion: bytes) -> Iterator[Incident]:
        """Take a portion of the log."""
        for start in range(0, len(portion), _PORTION_BYTES):
            yield from self._feed(portion[start : start + _PORTION_BYTES])

    def _feed(self, portion: bytes) -> Iterator[Incident]:
        if len(self._tail) > MAX_LINE_BYTES and b"\n" not in portion:
            # A line without end: its beginning is kept, the rest of it is dropped.
            return
        data = self._tail + portion if self._tail else portion
        end = data.rfind(b"\n") + 1
        self._tail = b""
        held = yield from self._read_lines(data, end)
        self._tail = data[held:]

    def flush(self) -> Iterator[Incident]:
        """Give what is still open, as after a silence; the log may go on."""
        for line in self._joiner.flush():
            yield from self._assembler.feed(line)
        yield from self._assembler.flush()

    def finish(self) -> Iterator[Incident]:
        """Say that the log ends here."""
        data, self._tail = self._tail, b""
        end = data.rfind(b"\n") + 1
        held = yield from self._read_lines(data, end)
        if not data[held:].strip():
            yield from self.flush()
            return
        for raw in data[held:end].split(b"\n")[:-1]:
            yield from self._read(raw)
        if end < len(data):
            self._line += 1
            text = data[end : end + MAX_LINE_BYTES].decode("utf-8", "backslashreplace")
            for line in self._joiner.feed(text, self._line, cut=True):
                yield from self._assembler.feed(line)
        yield from self.flush()

    def _read_lines(self, data: bytes, end: int) -> Generator[Incident, None, int]:
        """Read or skip the whole lines of a portion; give where the lines begin that it holds back.

        Held back are the last lines of a quiet portion: the next may show that they matter.
        """
        position = 0
        lower = data.lower()
        hits: dict[bytes, int] = {}
        while position < end:
            if self._warm <= 0 and self._assembler.idle:
                for line in self._joiner.flush():
                    yield from self._assembler.feed(line)
                if self._assembler.idle:
                    needle = _next_needle(lower, position, hits)
                    start = _step_back(data, position, min(needle, end))
                    self._line += data.count(b"\n", position, start)
                    position = start
                    if needle >= end:
                        return position
                self._warm = _WARM_LINES
            after = data.find(b"\n", position) + 1
            yield from self._read(data[position : after - 1])
            position = after
        return end

    def _read(self, raw: bytes) -> Iterator[Incident]:
        self._line += 1
        lower = raw.lower()
        self._warm = _WARM_LINES if any(n in lower for n in NEEDLES) else self._warm - 1
        text = raw[:MAX_LINE_BYTES].decode("utf-8", "backslashreplace")
        for line in self._joiner.feed(text, self._line):
            yield from self._assembler.feed(line)


def _next_needle(data: bytes, position: int, hits: dict[bytes, int]) -> int:
    """Find the next needle; ``hits`` remembers where each was seen."""
    nearest = len(data)
    for needle in NEEDLES:
        at = hits.get(needle, -2)
        if at != -1 and at < position:
            at = data.find(needle, position)
            hits[needle] = at
        if at != -1:
            nearest = min(nearest, at)
    return nearest


def _step_back(data: bytes, position: int, nearest: int) -> int:
    """Find the line a little before a needle where reading must begin."""
    start = _line_start(data, position, nearest)
    for _back in range(_LINES_BACK):
        start = _line_start(data, position, start - 1)
    # Rows of a task table whose header was lost hold no needle.
    lowest = max(position, start - _MAX_ROW_BYTES)
    while start > lowest:
        before = _line_start(data, position, start - 1)
        if _ROW.search(data, before, min(start, before + 400)) is None:
            break
        start = before
    return start


def _line_start(data: bytes, position: int, at: int) -> int:
    return max(data.rfind(b"\n", position, at) + 1, position) if at > position else position


def parse(portions: Iterable[bytes], source: str | None = None) -> list[Incident]:
    """Read a whole log.

    Args:
        portions: The log in portions of any size, cut anywhere.
        source: What to call it in the incidents, usually a file's name.
    """
    scanner = Scanner(source)
    found: list[Incident] = []
    for portion in portions:
        found.extend(scanner.feed(portion))
    found.extend(scanner.finish())
    return settle(found)
