"""What loggers write before a kernel line, taken off by shape.

There are more loggers than names for them: the shapes below are times, levels,
host and program names, in any order and number. What is left is the text the
kernel printed, its indentation kept. A line knows afterwards whether it had a
prefix, because only then a line without one can be told to be its continuation.
"""

from __future__ import annotations

import re
from typing import NamedTuple

KERNEL_PROGRAMS = frozenset({"kernel", "kern", "klogd", "vmunix", "dmesg", "kmsg", "linux"})
_MAX_ROUNDS = 8
_SEARCH_CHARS = 512

_QUOTE = re.compile(r"\s*(?:[>|](?:\s|(?=[\[<>|])))+")
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07|\x1b[()][0-9A-B]")
# The byte at fault in a "Code:" line is marked in the same way.
_LEVEL = re.compile(r"<(\d{1,3})>(?!\s?[\da-f]{2}\s)")
_RECORD = re.compile(r"(\d{1,4}),(\d+),(\d+),([^;\s]{0,80});")
_UPTIME = re.compile(r"\[\s{0,12}(\d{1,10}\.\d{2,9})\](?:\s?\[\s*([TC]\d+)\])?:?")
_ISO = re.compile(
    r"\[?\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2}(?:[.,]\d{1,9})?"
    r"\s?(?:Z|[+-]\d{2}:?\d{2}|UTC)?\]?:?(?=\s|$)"
)
_BRACKET_TIME = re.compile(r"\[[^\[\]]{0,48}?\d{1,2}:\d{2}:\d{2}[^\[\]]{0,32}\]:?")
_SYSLOG = re.compile(
    r"(?:\d{4}\s)?(?:[^\W\d]{2,10}[.,]?\s)?(?:[^\W\d]{2,10}\.?|\d{1,2}[^\W\d])\s{1,2}\d{1,2},?\s"
    r"(?:\d{4}\s)?\d{2}:\d{2}:\d{2}(?:[.,]\d{1,9})?(?:\s\d{4}(?=\s))?:?(?=\s|$)"
)
_DAY_FIRST = re.compile(
    r"\d{1,2}[./\s-](?:[^\W\d]{2,10}|\d{1,2})[./\s-](?:\d{2,4}\s)?"
    r"\d{2}:\d{2}:\d{2}(?:[.,]\d{1,9})?:?(?=\s|$)"
)
_CLOCK = re.compile(r"\d{2}:\d{2}:\d{2}(?:[.,]\d{1,9})?:?(?=\s|$)")
_TIMES = (_ISO, _CLOCK, _SYSLOG, _DAY_FIRST)
_FACILITY = re.compile(
    r"(?:([\w.:-]{2,64}):\s)?(kern|user|mail|daemon|auth|syslog|lpr|news|uucp|cron|authpriv|ftp|"
    r"local\d)\s{0,4}:\s?"
    r"(?:emerg|panic|alert|crit|err|error|warn|warning|notice|info|debug)\s{0,4}:"
)
_PROGRAM = re.compile(
    r"(?:([\w.:@-]{1,64})\s)?([\w./@+-]{1,64}|\(\w[\w./@+-]{0,62}\))(?:\[(\d{1,10})\])?:(?=\s|$)"
)
_EMBEDDED = re.compile(r"\[\s{0,12}\d{1,10}\.\d{6}\](?:\s?\[\s*[TC]\d+\])?\s")


class Stripped(NamedTuple):
    """A physical line without what its logger wrote before it."""

    text: str
    prefixed: bool
    time: str | None = None
    uptime_s: float | None = None
    host: str | None = None
    caller: str | None = None
    program: str | None = None
    """Which program wrote it, where that is not the kernel."""
    from_user: bool = False
    """The facility or the program name says that user space wrote it."""
    depth: int = 0
    """How many parts the prefix had. A line with fewer than the one before may be its end."""


class _State:
    """What the rounds have found so far; one per line."""

    __slots__ = ("caller", "depth", "from_user", "host", "prefixed", "program", "time", "uptime_s")

    def __init__(self) -> None:
        self.prefixed = False
        self.depth = 0
        self.time: str | None = None
        self.uptime_s: float | None = None
        self.host: str | None = None
        self.caller: str | None = None
        self.program: str | None = None
        self.from_user = False


def clean(line: str) -> str:
    """Take off terminal escapes, carriage returns and the marks of quoting."""
    if "\x1b" in line:
        line = _ANSI.sub("", line)
    if "\r" in line:
        line = line.replace("\r", "")
    quote = _QUOTE.match(line)
    return line[quote.end() :] if quote else line


def strip_prefix(line: str) -> Stripped:
    """Take the logger's prefix off a cleaned line."""
    state = _State()
    position = 0
    for _round in range(_MAX_ROUNDS):
        step = _one_round(line, position, state)
        if step is None:
            break
        position = step
        state.prefixed = True
        state.depth += 1
    # A bracketed uptime further on means that everything before it was somebody
    # else's: a console line glued to program output, or a guest's log in its host's.
    if state.uptime_s is None and "." in line:
        found = _EMBEDDED.search(line, position, position + _SEARCH_CHARS)
        if found is not None:
            return _embedded(line, found.start(), state)
    if not state.prefixed:
        return Stripped(line, prefixed=False)
    text = line[position + 1 :] if line[position : position + 1] == " " else line[position:]
    return _finish(text, state)


def _embedded(line: str, start: int, state: _State) -> Stripped:
    state.from_user = False
    state.program = None
    quoted = line[:start].endswith('="') or line[:start].endswith('":"')
    end = _uptime(line, start, state)
    state.prefixed = True
    state.depth += 1
    text = line[end or start :]
    text = text.removeprefix(" ")
    if quoted:
        text = text.rstrip('"}\n ')
    rest = strip_prefix(text) if _PROGRAM.match(text.lstrip()) else None
    if rest is not None and rest.program is not None:
        state.program, state.from_user, text = rest.program, rest.from_user, rest.text
    return _finish(text, state)


def _finish(text: str, state: _State) -> Stripped:
    return Stripped(
        text,
        prefixed=True,
        time=state.time,
        uptime_s=state.uptime_s,
        host=state.host,
        caller=state.caller,
        program=state.program,
        from_user=state.from_user,
        depth=state.depth,
    )


def _one_round(line: str, position: int, state: _State) -> int | None:
    start = position
    while line[start : start + 1] in {" ", "\t"}:
        start += 1
    char = line[start : start + 1]
    if char == "[":
        return _uptime(line, start, state) or _bracket(line, start, state)
    if char == "<":
        return _level(line, start, state)
    if state.uptime_s is None and (char.isalnum() or char == "_"):
        when = _time(line, start, state)
        if when is not None:
            return when
    return _names(line, start, state)


def _uptime(line: str, start: int, state: _State) -> int | None:
    found = _UPTIME.match(line, start)
    if found is None:
        return None
    state.uptime_s = float(found[1])
    state.caller = found[2]
    # Programs cannot put an uptime in front of their own text: the kernel's ring buffer did.
    state.from_user = state.from_user and state.program is None
    if not state.from_user:
        state.program = None
    return found.end()


def _bracket(line: str, start: int, state: _State) -> int | None:
    found = _BRACKET_TIME.match(line, start)
    if found is None:
        return None
    state.time = found[0].rstrip(":")[1:-1]
    return found.end()


def _level(line: str, start: int, state: _State) -> int | None:
    found = _LEVEL.match(line, start)
    if found is None:
        return None
    state.from_user = int(found[1]) >= 8
    return found.end()


def _time(line: str, start: int, state: _State) -> int | None:
    if line[start : start + 1].isdigit():
        record = _RECORD.match(line, start)
        if record is not None:
            state.from_user = int(record[1]) >= 8
            state.uptime_s = int(record[3]) / 1e6
            caller = re.search(r"caller=([TC]\d+)", record[4])
            state.caller = caller[1] if caller else None
            return record.end()
    for pattern in _TIMES if line[start : start + 1].isdigit() else (_SYSLOG,):
        found = pattern.match(line, start)
        if found is not None:
            state.time = f"{state.time} {found[0]}" if state.time else found[0].rstrip(":")
            return found.end()
    return None


def _names(line: str, start: int, state: _State) -> int | None:
    facility = _FACILITY.match(line, start)
    if facility is not None:
        state.host = facility[1] or state.host
        state.from_user = facility[2] != "kern"
        return facility.end()
    found = _PROGRAM.match(line, start)
    if found is None:
        return None
    name = found[2].rsplit("/", 1)[-1].lower()
    if name in KERNEL_PROGRAMS:
        if found[1] and not state.prefixed and state.time is None and found[1].endswith(":"):
            return None
        state.host = found[1] or state.host
        return found.end()
    # A process may be called "a[1]:"; its name before the kernel's own words is not a prefix.
    if found[3] is None or line.startswith(" invoked oom-killer", found.end()):
        return None
    state.host = found[1] or state.host
    state.program = found[2]
    state.from_user = True
    return found.end()
