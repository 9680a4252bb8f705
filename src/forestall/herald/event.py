"""An event as herald holds it: cleaned once at the door, so that nothing hostile goes on.

Rule: whatever comes in, a value comes out; what is missing or of the wrong kind
is None, and every text is one line of printable characters.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from forestall.control.schema import SCHEMA
from forestall.core.sentence import plain

if TYPE_CHECKING:
    from collections.abc import Mapping

TEXT_CHARACTERS_MAX = 1000
NAME_CHARACTERS_MAX = 64
TOP_MAX = 5

INFO, WARNING, ERROR = 0, 1, 2
URGENCIES = {"info": INFO, "warning": WARNING, "error": ERROR}
URGENCY_NAMES = tuple(URGENCIES)
_URGENT = {
    "warning": WARNING,
    "critical": WARNING,
    "degraded": WARNING,
    "lost": WARNING,
    "silent": WARNING,
    "test": WARNING,
    "decision": ERROR,
    "ended": ERROR,
    "nobody": ERROR,
    "futile": ERROR,
    "stuck": ERROR,
    "refused": ERROR,
    "kernel-kill": ERROR,
    "other-kill": WARNING,
    "restart-loop": ERROR,
    "blind": ERROR,
    "error": ERROR,
    "went-down": ERROR,
}
_LEVELS_WORTH_A_WARNING = frozenset({"medium", "critical"})

OWN_KINDS = {
    "lost": "Events did not reach herald; how many, if that can be told.",
    "silent": "The guard does not answer, or answers again.",
    "went-down": "The machine, or herald alone, stopped without a farewell.",
    "alert": "Somebody ran `forestall alert send`.",
    "test": "Somebody ran `forestall alert test`.",
}
"""Kinds of event that herald makes itself, beside the guard's."""


@dataclass(frozen=True, slots=True)
class Consumer:
    """A process that holds much."""

    pid: int
    name: str
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event; the fields are those of ``control.schema``."""

    what: str
    sentence: str = ""
    level: str = ""
    time_ns: int = 0
    run: str = ""
    sequence: int = 0
    schema: int = SCHEMA
    monotonic_ns: int | None = None
    trigger: str = ""
    name: str = ""
    pid: int | None = None
    start_ticks: int | None = None
    time_left_ns: int | None = None
    used_share: float | None = None
    swap_used_share: float | None = None
    available_bytes: int | None = None
    total_bytes: int | None = None
    swap_total_bytes: int | None = None
    likely_name: str = ""
    likely_pid: int | None = None
    likely_start_ticks: int | None = None
    likely_frees_bytes: int | None = None
    top: tuple[Consumer, ...] = ()
    host: str = ""

    @property
    def urgency(self) -> int:
        """How much it matters: INFO, WARNING or ERROR."""
        if self.what == "level" and self.level in _LEVELS_WORTH_A_WARNING:
            return WARNING
        return _URGENT.get(self.what, INFO)

    def to_dict(self) -> dict[str, Any]:
        """Return the event as JSON has it; what is unknown is left out."""
        return {key: held for key, held in asdict(self).items() if held not in (None, "", ())}

    def to_json(self) -> str:
        """Return the event as one line of JSON."""
        return json.dumps(self.to_dict(), sort_keys=True)


_TEXTS = ("sentence", "level", "run", "trigger")
_NAMES = ("what", "name", "likely_name", "host")
_INTEGERS = (
    "monotonic_ns",
    "pid",
    "start_ticks",
    "time_left_ns",
    "available_bytes",
    "total_bytes",
    "swap_total_bytes",
    "likely_pid",
    "likely_start_ticks",
    "likely_frees_bytes",
)
_SHARES = ("used_share", "swap_used_share")
INTEGER_MAX = 2**63 - 1


def read_event(sequence: int, raw: Mapping[str, Any]) -> Event:
    """Read an event as it came; never raises on what is in it."""
    fields: dict[str, Any] = {name: clean(raw.get(name), TEXT_CHARACTERS_MAX) for name in _TEXTS}
    fields |= {name: clean(raw.get(name), NAME_CHARACTERS_MAX) for name in _NAMES}
    fields |= {name: _integer(raw.get(name)) for name in _INTEGERS}
    fields |= {name: _share(raw.get(name)) for name in _SHARES}
    fields["what"] = fields["what"] or "unknown"
    return Event(
        sequence=_integer(sequence) or 0,
        time_ns=_integer(raw.get("time_ns")) or 0,
        schema=_integer(raw.get("schema")) or 0,
        top=_top(raw.get("top")),
        **fields,
    )


def from_json(text: str) -> Event:
    """Read back what ``to_json`` wrote.

    Raises: ValueError.
    """
    raw = json.loads(text)
    if not isinstance(raw, dict):
        raise ValueError("an event is an object")
    return read_event(raw.get("sequence", 0), raw)


def clean(raw: object, characters_max: int = TEXT_CHARACTERS_MAX) -> str:
    """Make foreign text one harmless line of bounded length; what is no text is empty."""
    if not isinstance(raw, str) or not raw:
        return ""
    cut = raw[:characters_max]
    try:
        text = plain(cut)
    except UnicodeEncodeError:
        # JSON can hold half of a surrogate pair, which no file name or process name can.
        text = plain(cut.encode("utf-8", "replace").decode())
    return text if len(text) <= characters_max else text[: characters_max - 1] + "…"


def _integer(raw: object) -> int | None:
    if isinstance(raw, bool) or not isinstance(raw, int) or abs(raw) > INTEGER_MAX:
        return None
    return raw


def _share(raw: object) -> float | None:
    if isinstance(raw, bool) or not isinstance(raw, int | float) or not -1e9 < raw < 1e9:
        return None
    return float(raw)


def _top(raw: object) -> tuple[Consumer, ...]:
    if not isinstance(raw, list | tuple):
        return ()
    found = []
    for one in raw[:TOP_MAX]:
        if not isinstance(one, dict):
            continue
        pid, share = _integer(one.get("pid")), _share(one.get("share"))
        if pid is not None and share is not None:
            found.append(Consumer(pid, clean(one.get("name"), NAME_CHARACTERS_MAX), share))
    return tuple(found)
