"""Reading what the guard wrote: ``episode-*.jsonl``, plain or gzipped.

Format: JSON lines. The first is the head: ``record`` ("forestall"), ``version``,
``forestall`` (the program's version, since format 2), ``rules``, ``state`` (the
policy's, before the first event) and ``dropped``. Every other line is one event:
``event``, ``requests`` (what the policy asked for), ``late_ns``; an internal
error of the guard (``Reset``) also brings its ``state``. Values are written as
``core.codec`` has them.

Rule: any bytes give a record or BadRecord. A record that was cut short (a full
disk, a power cut) is read up to its last whole line.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from forestall.core.codec import decode
from forestall.core.errors import CodecError
from forestall.core.events import (
    Declined,
    Gone,
    Missed,
    Refused,
    Relieved,
    Reset,
    Sampled,
    Surveyed,
)
from forestall.core.rules import Rules
from forestall.core.state import State
from forestall.recorder.ring import FORMAT_VERSION
from forestall.replay.errors import BadRecord

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from forestall.core.events import Event

READABLE = range(1, FORMAT_VERSION + 1)
RECORD_BYTES_MAX = 256 * 1024 * 1024
"""Unpacked; the guard's own ring is limited to 64 MiB of memory."""
EVENTS = (Sampled, Missed, Surveyed, Gone, Refused, Reset, Relieved, Declined)
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class Line:
    """One recorded event."""

    number: int
    """In the file, from 2."""
    event: Event
    requests: Any
    """Plain data, as recorded."""
    late_ns: int
    state: State | None
    """Before the event; None where it follows from the lines before."""


@dataclass(frozen=True, slots=True)
class Record:
    """One episode."""

    version: int
    program: str
    """Version of the guard that wrote it; empty when it did not say."""
    rules: Rules
    state: State
    dropped: int
    """Entries the recorder had no room for, so far."""
    lines: tuple[Line, ...]
    cut: bool
    """The last line was not whole; it is left out."""


def load(path: Path) -> Record:
    """Read a record.

    Raises: BadRecord; OSError.
    """
    with path.open("rb") as file:
        raw = file.read(RECORD_BYTES_MAX + 1)
    cut = False
    if raw.startswith(_GZIP):
        raw, cut = _unpack(raw)
    if len(raw) > RECORD_BYTES_MAX:
        raise BadRecord(f"{path}: larger than any record ({RECORD_BYTES_MAX} bytes)")
    try:
        return _parse(raw, cut=cut)
    except BadRecord as error:
        raise BadRecord(f"{path}: {error}") from None


def _unpack(raw: bytes) -> tuple[bytes, bool]:
    unpack = zlib.decompressobj(wbits=31)
    try:
        data = unpack.decompress(raw, RECORD_BYTES_MAX + 1)
    except zlib.error as error:
        raise BadRecord(f"damaged gzip: {error}") from None
    return data, not unpack.eof


def _parse(raw: bytes, *, cut: bool) -> Record:
    texts = raw.split(b"\n")
    # What follows the last newline is nothing, or the beginning of a line.
    cut = bool(texts.pop()) or cut
    if not texts:
        raise BadRecord("no record: there is not one whole line in it")
    head = _object(texts[0], 1)
    if head.get("record") != "forestall":
        raise BadRecord("no record of forestall's: the first line does not say so")
    version = head.get("version")
    if not isinstance(version, int) or version not in READABLE:
        known = f"{READABLE[0]} to {READABLE[-1]}"
        raise BadRecord(f"format {version!r}, and this forestall reads {known}")
    rules, state = _value(head, "rules", 1, Rules), _value(head, "state", 1, State)
    dropped = head.get("dropped")
    program = head.get("forestall", "")
    return Record(
        version,
        program if isinstance(program, str) else "",
        rules,
        state,
        dropped if isinstance(dropped, int) else 0,
        tuple(_lines(texts[1:])),
        cut,
    )


def _lines(texts: list[bytes]) -> Iterator[Line]:
    for number, text in enumerate(texts, 2):
        line = _object(text, number)
        late_ns, requests = line.get("late_ns"), line.get("requests")
        if not isinstance(late_ns, int) or not isinstance(requests, list):
            raise BadRecord(f"line {number}: an event without requests or lateness")
        state = _value(line, "state", number, State) if "state" in line else None
        yield Line(number, _value(line, "event", number, EVENTS), requests, late_ns, state)


def _object(text: bytes, number: int) -> dict[str, Any]:
    try:
        held = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadRecord(f"line {number}: not JSON: {error}") from None
    if not isinstance(held, dict):
        raise BadRecord(f"line {number}: not a JSON object")
    return held


def _value(held: dict[str, Any], key: str, number: int, kind: type | tuple[type, ...]) -> Any:  # noqa: ANN401 - of the kind asked for
    try:
        value = decode(held.get(key))
    except CodecError as error:
        raise BadRecord(f"line {number}: {key}: {error}; by another version?") from None
    if not isinstance(value, kind):
        raise BadRecord(f"line {number}: {key} is a {type(value).__name__}")
    return value
