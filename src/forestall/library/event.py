"""What a handler is given. Rule: plain numbers in the units people say, None for unknown."""

from __future__ import annotations

from forestall.core.value import TYPE_CHECKING, value

if TYPE_CHECKING:
    from typing import Any


@value
class Process:
    """One of the large users of memory; also reads like a dict, as in ``process["pid"]``."""

    pid: int
    name: str
    """Harmless to print: what does not print was made an escape."""
    memory_percent: float
    """Of memory, what ending it would free: private memory, its swap, memory it alone shares."""

    def __getitem__(self, field: str) -> Any:  # noqa: ANN401 - each field has its own type
        """Return a field by its name."""
        if field not in self._fields:  # type: ignore[attr-defined]
            raise KeyError(field)
        return getattr(self, field)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        return self._asdict()  # type: ignore[attr-defined,no-any-return]


@value
class Victim:
    """Who would go if something had to go now."""

    pid: int
    name: str
    processes: int
    """More than one when its family goes with it."""
    frees_bytes: int | None
    why: str

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        return self._asdict()  # type: ignore[attr-defined,no-any-return]


@value
class PressureEvent:
    """How memory stands, and why this is told now."""

    timestamp: float
    """Seconds since 1970, as ``time.time``."""
    pressure_level: str
    """``normal``, ``low``, ``medium`` or ``critical``."""
    memory_percent: float
    """In use: what is not available; of the container's limit where that is the nearer one."""
    swap_percent: float
    """In use; 0.0 without swap."""
    available_bytes: int
    total_bytes: int
    top_processes: tuple[Process, ...]
    """At most five above one percent, largest first."""
    likely_victim: Victim | None = None
    """None when nobody is suitable, or ending a process would not help."""
    time_left_s: float | None = None
    """Until memory and swap are gone at the present pace; None when they are not falling."""
    reason: str = "asked"
    """``level`` changed; still ``critical``; a ``warning`` of the guard; a ``kill``, by whom
    ``what`` tells; or ``asked`` for."""
    what: str = ""
    """The kind of the guard's event (docs/events.md), if it was the guard: ``warning``,
    ``decision``, ``ended``, ``kernel-kill``, ``other-kill``, …"""
    sentence: str = ""
    """What the guard said, if it was the guard."""
    source: str = "own"
    """``guard`` when a guard runs here and takes part, ``own`` readings otherwise."""
    limit: str = ""
    """The cgroup whose limit this is about; empty for the whole machine."""

    @property
    def level(self) -> str:
        """The same as ``pressure_level``."""
        return self.pressure_level

    @property
    def available_gb(self) -> float:
        """Available memory in GiB."""
        return self.available_bytes / (1 << 30)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        plain: dict[str, Any] = self._asdict()  # type: ignore[attr-defined]
        victim = self.likely_victim
        plain["top_processes"] = [process.as_dict() for process in self.top_processes]
        plain["likely_victim"] = None if victim is None else victim.as_dict()
        return plain
