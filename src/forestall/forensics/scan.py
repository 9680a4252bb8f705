"""The reader's front: bytes in any portions, incidents as they are decided.

Most of a log is not about memory. Blocks are searched for a handful of needles
before any line is looked at, and only the lines around a needle are read one by one,
until the assembler says that nothing is open.

Cost: see docs/oom-reports.md for the measured throughput.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from forestall.forensics.assemble import Assembler
from forestall.forensics.lines import Joiner
from forestall.forensics.merge import settle
from forestall.forensics.model import Incident

BLOCK_BYTES = 256 * 1024
MAX_LINE_BYTES = 64 * 1024
_LINES_BACK = 3
_WARM_LINES = 8
"""Lines read after a needle whatever they are, so that a wrapped line finds its end."""

NEEDLES = (
    b"oom",
    b"OOM",
    b"Kill",
    b"kill",
    b"em-Info",
    b"active_anon",
    b"asks state",
    b"total_vm",
    b"pages RAM",
    b": usage ",
    b"f memory",
    b"deadlocked",
    b"SIGTERM",
    b"SIGKILL",
    b"adness",
    b"vict",
    b"forestall",
)
"""Every line that begins or decides something holds one of these."""

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
        if len(self._tail) > MAX_LINE_BYTES and b"\n" not in portion:
            # A line without end: its beginning is kept, the rest of it is dropped.
            return
        data = self._tail + portion if self._tail else portion
        end = data.rfind(b"\n") + 1
        self._tail = data[end:]
        position = 0
        while position < end:
            stop = end
            if end - position > BLOCK_BYTES:
                stop = data.rfind(b"\n", position, position + BLOCK_BYTES) + 1
                if stop == 0:
                    stop = data.find(b"\n", position) + 1
            yield from self._block(data[position:stop])
            position = stop

    def flush(self) -> Iterator[Incident]:
        """Give what is still open, as after a silence; the log may go on."""
        for line in self._joiner.flush():
            yield from self._assembler.feed(line)
        yield from self._assembler.flush()

    def finish(self) -> Iterator[Incident]:
        """Say that the log ends here."""
        if self._tail:
            self._line += 1
            text = self._tail[:MAX_LINE_BYTES].decode("utf-8", "backslashreplace")
            self._tail = b""
            for line in self._joiner.feed(text, self._line, cut=True):
                yield from self._assembler.feed(line)
        yield from self.flush()

    def _block(self, block: bytes) -> Iterator[Incident]:
        position = 0
        hits: dict[bytes, int] = {}
        while position < len(block):
            if self._warm <= 0 and self._assembler.idle:
                for line in self._joiner.flush():
                    yield from self._assembler.feed(line)
                if self._assembler.idle:
                    start = _next_start(block, position, hits)
                    self._line += block.count(b"\n", position, start)
                    position = start
                    if position >= len(block):
                        return
                self._warm = _WARM_LINES
            end = block.find(b"\n", position) + 1
            yield from self._read(block[position : end - 1])
            position = end

    def _read(self, raw: bytes) -> Iterator[Incident]:
        self._line += 1
        self._warm -= 1
        text = raw[:MAX_LINE_BYTES].decode("utf-8", "backslashreplace")
        for line in self._joiner.feed(text, self._line):
            yield from self._assembler.feed(line)


def _next_start(block: bytes, position: int, hits: dict[bytes, int]) -> int:
    """Find where reading must begin again: a little before the next needle, or at the end."""
    nearest = len(block)
    for needle in NEEDLES:
        at = hits.get(needle, -2)
        if at != -1 and at < position:
            at = block.find(needle, position)
            hits[needle] = at
        if at != -1:
            nearest = min(nearest, at)
    if nearest == len(block):
        return nearest
    start = block.rfind(b"\n", position, nearest) + 1 or position
    for _back in range(_LINES_BACK):
        if start <= position:
            return position
        start = max(block.rfind(b"\n", position, start - 1) + 1, position)
    # Rows of a task table whose header was lost hold no needle.
    while start > position:
        before = max(block.rfind(b"\n", position, start - 1) + 1, position)
        if _ROW.search(block, before, min(start, before + 400)) is None:
            break
        start = before
    return start


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
