"""Physical lines put together again into the lines the kernel printed.

Mail programs and terminals wrap, rsyslog writes line feeds as ``#012``, journald
indents the further lines of a record, containers put a line into JSON. Whether a
line without a prefix belongs to the one before is decided by shape: it does when
the one before is visibly unfinished, or had a prefix where this one has none and
does not begin like a line of its own.

Rule: pieces are kept apart, because only who reads the fields can tell whether the
break ate a blank.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from forestall.forensics.prefix import Stripped, clean, strip_prefix

MAX_PIECES = 24
MAX_LINE_CHARS = 16_384
_MAX_BREAKS_TRIED = 4
_EDGES_KEPT = 32
_EDGES_SURE = 3

COLUMNS = frozenset(
    [
        "pid",
        "uid",
        "tgid",
        "total_vm",
        "rss",
        "rss_anon",
        "rss_file",
        "rss_shmem",
        "nr_ptes",
        "nr_pmds",
        "pgtables_bytes",
        "swapents",
        "cpu",
        "oom_adj",
        "oom_score_adj",
        "name",
    ]
)

_START = re.compile(
    r"""
    .{1,80}\sinvoked\ oom-killer
    | \s*oom-kill:constraint | ,task= | ,task_memcg= | ,pid=
    | \s*(?:Memory\ cgroup\ )?[Oo]ut\ of\ memory | \s*[Kk]ill(?:ed|ing)?\ process\ \d
    | \s*Tasks\ state\ \( | \s*\[\s*(?:pid|\d+)\s*\]\s | \s*Tasks\ in\ /
    | \s*CPU\s*:?\s+\d+ | \s*Pid:\ \d+, | \s*Hardware\ name: | \s*Workqueue: | \s*Tainted:\ \[
    | \s*Call\ [Tt]race | \s*Modules\ linked | \s*(?:RIP|EIP|Code|RSP|ESP):\s
    | \s*Mem-Info | \s*active_anon:\d+\s | \s*Active_anon:\d
    | \s+(?:active_file|unevictable|slab_reclaimable|mapped|sec_pagetables|kernel_misc_reclaimable
        |free|free_cma):\d+(?:\s|$)
    | \s*Node\ \d+\s | \s*(?:DMA|DMA32|Normal|HighMem|Movable|Device)(?:\ free:|:\s|\ per-cpu)
    | \s*lowmem_reserve\[ | \s*protections?\[
    | \s*\d+\ (?:total\ pagecache|pages\ |reserved\ pages|free\ pages|slab\ pages)
    | \s*Swap\ cache | \s*Free\ swap | \s*Total\ swap
    | \s*(?:memory(?:\+swap)?|swap|kmem):\ usage | \s*Memory\ cgroup\ stats | \s*Task\ in\ /
    | \s*oom_reaper: | \s*Kernel\ panic | \s*Unreclaimable\ slab | \s*-{3,}
    | \s*</?TASK> | \s*\??\s*[\w.$]+\+0x[\da-f]+/ | \s*\[<[\da-f]+>\] | \s*[\w.$]+\ from\ [\w.$]+
    | \s+[a-z][a-z_0-9]+\ \d+$
    | (?:sending|Sending|escalating|mem\ avail|low\ memory|low\ Memory)
    """,
    re.VERBOSE,
)
_RAW_RECORD = re.compile(r"\d{1,4},\d+,\d+,")
_RECORD_FIELD = re.compile(r" (?:SUBSYSTEM|DEVICE|PRINTK_CALLER)=\S")
_OPEN_END = re.compile(r"[Oo]ut of memory(?: \(\w+\))?:$|[Kk]ill(?:ed)? process$")
_LIMIT_OF = re.compile(r"\s*Task in /")
_DIGITS = re.compile(r"\d{1,5}$")
_ENDS_IN_NUMBER = re.compile(r"(?:oom_score_adj[=:]-?|,uid=)\d+$")
_HEAD_DONE = re.compile(r"(?:oom_score_adj|oom_adj|oomkilladj)=-?\d")
_FIELDS = re.compile(r"total-vm:|vsz:|rss:\d|\bUID[: ]|pgtables:|oom_score_adj:|^now ")
_SIZES = re.compile(
    r"\s*[\w()]*:?\s?\d*[kK]B\b|\s*all_unreclaimable|\s*\d+\*\d+kB|\s*\([A-Z]+\)|\s*=\s"
)
_SIZED = re.compile(
    r"\s*(?:Node \d+ )?\w+(?: free:|: \d+\*|\d* active_anon:| hugepages)|\s*Memory cgroup stats for"
)
_ROW = re.compile(r"\s*\[\s*\d+\]((?:\s+-?\d+)+)(\s+\S)?")
_HEADER = re.compile(r"\s*\[\s*pid\s*\]\s+uid\b")


@dataclass(slots=True)
class Line:
    """A line as the kernel printed it, as well as it can be told."""

    prefix: Stripped
    pieces: list[str]
    first: int
    last: int
    cut: bool = False
    """The log ended, or was clipped, inside this line: its last word may be half a word."""
    tight: int = 0
    """Bit n says that break n came at the edge of a terminal and ate no blank."""
    _text: str | None = field(default=None, repr=False)

    @property
    def text(self) -> str:
        """The pieces, joined in the likeliest way."""
        if self._text is None:
            self._text = _joined(self.pieces, self.tight)
        return self._text

    def readings(self) -> Iterator[str]:
        """Every way to join the pieces, the likeliest first."""
        yield self.text
        breaks = min(len(self.pieces) - 1, _MAX_BREAKS_TRIED)
        for mask in range(1, 1 << breaks):
            yield _joined(self.pieces, self.tight ^ mask)


def header_columns(line: Line) -> tuple[str, ...]:
    """Name the columns of a task table by its header row, all but the name's."""
    best: tuple[str, ...] = ()
    most = -99
    for text in line.readings():
        names = text.replace("[", " ").replace("]", " ").split()
        known = sum(1 if name in COLUMNS else -1 for name in names)
        if names and names[-1] == "name" and known > most:
            best, most = tuple(names[:-1]), known
    return best


def _joined(pieces: list[str], tight: int) -> str:
    # Bit n of `tight` says that break n ate no blank.
    if len(pieces) == 1:
        return pieces[0]
    text = pieces[0]
    for number, piece in enumerate(pieces[1:]):
        if tight >> number & 1:
            text += piece
        elif not text:
            text = piece
        else:
            text = f"{text.rstrip()} {piece.lstrip()}"
    return text


class Joiner:
    """Takes physical lines in order, gives whole ones."""

    def __init__(self) -> None:
        self._open: Line | None = None
        self._columns = 0
        """Numbers in a row of the task table, once its header was seen."""
        self._edges: deque[int] = deque(maxlen=_EDGES_KEPT)
        """Lengths of the last physical lines that were broken."""
        self._length = 0

    def feed(self, physical: str, number: int, *, cut: bool = False) -> Iterator[Line]:
        """Take one physical line; give the lines that are whole now."""
        if "\\x0a" in physical and _RAW_RECORD.match(physical):
            # The kernel's own device writes the line feeds inside a record like this.
            physical = physical.replace("\\x0a", "#012")
        if "#012" in physical:
            parts = physical.replace("#011", "\t").split("#012")
            yield from self._feed_one(parts[0], number, cut=False)
            # The further lines of the record inherit the prefix of the first.
            first = self._open.prefix if self._open else None
            for part in parts[1:]:
                yield from self.flush()
                prefix = first._replace(text=part) if first else Stripped(part, prefixed=False)
                self._open = Line(prefix, [part], number, number, cut=cut)
            return
        yield from self._feed_one(physical, number, cut=cut)

    def flush(self) -> Iterator[Line]:
        """Give the line that was still open."""
        if self._open is not None:
            line, self._open = self._open, None
            if _HEADER.match(line.text):
                self._columns = len(header_columns(line))
            yield line

    def _feed_one(self, physical: str, number: int, *, cut: bool) -> Iterator[Line]:
        if _RECORD_FIELD.match(physical) and self._open is not None:
            return
        raw = clean(physical[:MAX_LINE_CHARS])
        length, raw = len(raw), raw.rstrip()
        if raw[:1] == "{":
            raw = _unboxed(raw)
        if raw[-1:] == ">" and len(raw) > 60:
            raw, cut = raw[:-1], True
        stripped = strip_prefix(raw)
        if self._open is not None and self._may_continue(stripped):
            if not stripped.text.strip():
                yield from self.flush()
                return
            if self._continues(stripped.text):
                self._append(stripped.text, number, cut=cut)
                self._length = length
                return
        before = self._open
        yield from self.flush()
        further = before is not None and before.prefix.prefixed and not before.prefix.from_user
        if not stripped.prefixed and before is not None and further and raw[:1] == " ":
            # A further line of a record: the time and the origin are those of its first line.
            stripped = before.prefix._replace(text=raw)
        self._open = Line(stripped, [stripped.text], number, number, cut=cut)
        self._length = length

    def _may_continue(self, stripped: Stripped) -> bool:
        # Where a wrapped log went through another logger, the pieces have its prefix only.
        if not stripped.prefixed:
            return True
        return (
            self._open is not None
            and stripped.program is None
            and not stripped.from_user
            and stripped.depth < self._open.prefix.depth
        )

    def _append(self, raw: str, number: int, *, cut: bool) -> None:
        line = self._open
        if line is None:
            return
        self._edges.append(self._length)
        if self._at_edge():
            line.tight |= 1 << (len(line.pieces) - 1)
        line.pieces.append(raw)
        line.last = number
        line.cut = cut
        line._text = None  # noqa: SLF001

    def _at_edge(self) -> bool:
        # A terminal breaks every line at the same column; a mail program, at the last blank before.
        edge = max(self._edges)
        at_edge = sum(length == edge for length in self._edges)
        return (
            self._length == edge and at_edge >= _EDGES_SURE and at_edge * 3 >= len(self._edges) * 2
        )

    def _continues(self, raw: str) -> bool:
        line = self._open
        if line is None or len(line.pieces) >= MAX_PIECES:
            return False
        text = line.text
        if not text.strip():
            return line.prefix.prefixed
        if _OPEN_END.search(text) is not None and not raw.startswith("["):
            return True
        if raw[:1] == "," and "oom-kill:constraint" in text and ",uid=" not in text:
            return True
        if text.endswith(" from") or (text.endswith(" invoked") and raw.startswith("oom-killer")):
            return True
        if _LIMIT_OF.match(text) is not None and "limit of /" not in text:
            return True
        if _START.match(raw):
            return False
        if _DIGITS.match(raw) and text[-1:].isdigit() and _ENDS_IN_NUMBER.search(text):
            return True
        verdict = self._unfinished(text, raw)
        return line.prefix.prefixed if verdict is None else verdict

    def _unfinished(self, text: str, raw: str) -> bool | None:
        """Say whether a line of known shape lacks its end; None for an unknown shape."""
        if " invoked oom-killer" in text:
            return text.endswith(",") or _HEAD_DONE.search(text) is None
        if "oom-kill:constraint" in text or text.startswith(",task"):
            return re.search(r",uid=\d+", text) is None
        if "ill process " in text or "illed process " in text or "reaped process " in text:
            return _kill_unfinished(text, raw)
        if " cpuset=" in text and "mems_allowed" not in text:
            return "mems_allowed" in raw
        if _HEADER.match(text):
            return not text.endswith(" name")
        row = _ROW.match(text)
        if row is not None:
            return self._row_unfinished(row, raw)
        if _SIZED.match(text):
            return _SIZES.match(raw) is not None
        return None

    def _row_unfinished(self, row: re.Match[str], raw: str) -> bool:
        if not self._columns:
            return row[2] is None
        if len(row[1].split()) + 1 < self._columns:
            return True
        return row[2] is None and not _ROW.match(raw)


def _kill_unfinished(text: str, raw: str) -> bool:
    if re.search(r"oom_score_adj:-?\d", text):
        return False
    if re.search(r"[Kk]ill process \d+ ", text):
        return "child" not in text and "sharing" not in text
    # Finished pieces end with a size, a name's bracket or a sentence; what else ends, was broken.
    return re.search(r"(?:kB|\)|\.)$", text) is None or _FIELDS.search(raw[:48]) is not None


def _unboxed(raw: str) -> str:
    """Take the message out of a JSON record: journald, docker, fluentd."""
    try:
        record = json.loads(raw)
    except (ValueError, RecursionError):
        return raw
    if not isinstance(record, dict):
        return raw
    for key in ("MESSAGE", "log", "message", "msg"):
        message = record.get(key)
        if isinstance(message, str):
            break
    else:
        return raw
    message = message.rstrip("\n").replace("\n", "#012")
    if "MESSAGE" not in record:
        return message
    program = record.get("SYSLOG_IDENTIFIER") or record.get("_COMM") or "kernel"
    facility = record.get("SYSLOG_FACILITY", "0" if record.get("_TRANSPORT") == "kernel" else "1")
    if record.get("_TRANSPORT") == "kernel" and str(facility) == "0":
        return f"kernel: {message}"
    return f"{program}[{record.get('_PID', 0)}]: {message}"
