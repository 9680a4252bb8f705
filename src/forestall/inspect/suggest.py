"""Who could be ended by hand: what it would give back, why it, the command, and what is protected.

Rule: an advice, never an action. What a rule protects is listed with the rule
and not suggested; names are made harmless here.
"""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from forestall.core.census import Census, blame_of
from forestall.core.model import Role, Standing
from forestall.core.rules import DEFAULT_RULES
from forestall.core.sentence import plain
from forestall.core.standing import Matcher, unit_of
from forestall.core.units import MIB, human_bytes
from forestall.kernel import clock
from forestall.kernel.processes import ProcessTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from forestall.core.events import Surveyed
    from forestall.core.model import Row
    from forestall.core.rules import Rules

SUGGESTIONS_MAX = 3
PROTECTED_MAX = 5
WORTH_BYTES = 16 * MIB
"""Less is not worth anybody's trouble."""
GROWING_BYTES = 8 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """One thing that could be ended."""

    pid: int
    name: str
    gain_bytes: int
    """What its end gives back: not its resident size, which others share."""
    reason: str
    command: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Protected:
    """One that is large and is not suggested."""

    pid: int
    name: str
    held_bytes: int
    rule: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What can be said to a person who wants memory back."""

    suggestions: tuple[Suggestion, ...]
    protected: tuple[Protected, ...]
    hidden: bool = False
    """Other users' processes could not be seen."""


def survey(root: str = "/", *, rules: Rules = DEFAULT_RULES) -> Surveyed:
    """Read the process table once, for advice.

    Raises: OSError without /proc.
    """
    table = ProcessTable(
        root,
        matcher=Matcher(rules.victim_rules),
        own_pid=os.getpid(),
        page_bytes=os.sysconf("SC_PAGE_SIZE"),
        clk_tck=os.sysconf("SC_CLK_TCK"),
    )
    try:
        return table.survey(clock.now_ns, swap_used=True, warm=True)
    finally:
        table.close()


def advise(
    rows: Sequence[Row],
    *,
    census: Census | None = None,
    likely_pid: int | None = None,
    hidden: bool = False,
) -> Advice:
    """Suggest the three whose end would give back most, the guard's own choice first.

    Args:
        census: What was seen of them before; it tells who grows.
        likely_pid: Whom the guard's judgement would choose, if that is known.
        hidden: Other users' processes could not be seen.
    """
    census = census or Census()
    fair = [row for row in rows if _may_be_suggested(row) and row.footprint_bytes >= WORTH_BYTES]
    fair.sort(key=lambda row: (row.id.pid == likely_pid, *_size(row)), reverse=True)
    guarded = sorted((row for row in rows if not _may_be_suggested(row)), key=_size, reverse=True)
    return Advice(
        suggestions=tuple(
            _suggestion(row, census, chosen=row.id.pid == likely_pid)
            for row in fair[:SUGGESTIONS_MAX]
        ),
        protected=tuple(
            Protected(
                pid=row.id.pid,
                name=plain(row.comm),
                held_bytes=row.footprint_bytes,
                rule=row.rule or "it holds a login session",
            )
            for row in guarded[:PROTECTED_MAX]
            if row.footprint_bytes >= WORTH_BYTES
        ),
        hidden=hidden,
    )


def command_for(row: Row) -> str:
    """Write the command that ends it: its service if it is one, else the process.

    A service would be started again by systemd; stopping it is what stays.
    """
    unit = unit_of(row.cgroup)
    if not unit.endswith(".service") or unit.startswith(("user@", "session-")):
        return f"kill {row.id.pid}"
    users = "/user@" in row.cgroup
    return f"systemctl {'--user ' if users else ''}stop {shlex.quote(plain(unit))}"


def _may_be_suggested(row: Row) -> bool:
    return (
        row.standing in {Standing.NORMAL, Standing.PREFER}
        and row.role is Role.NONE
        and row.state != "Z"
    )


def _suggestion(row: Row, census: Census, *, chosen: bool) -> Suggestion:
    grew = blame_of(census, row.id).recent_bytes
    reasons = [f"holds {human_bytes(row.footprint_bytes)}"]
    if row.swap_bytes:
        reasons.append(f"{human_bytes(row.swap_bytes)} of it in swap")
    if grew >= GROWING_BYTES:
        reasons.append(f"grew by {human_bytes(grew)} of late")
    if row.standing is Standing.PREFER:
        reasons.append(row.rule)
    if chosen:
        reasons.append("the guard would choose it, too")
    return Suggestion(
        pid=row.id.pid,
        name=plain(row.comm),
        gain_bytes=row.footprint_bytes,
        reason=", ".join(reasons),
        command=command_for(row),
    )


def _size(row: Row) -> tuple[int, int]:
    return row.footprint_bytes, row.id.pid
