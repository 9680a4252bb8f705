"""Decisions in plain words: why this one, what it frees, why not the next three.

Process names are hostile text: they are escaped here once, because these
sentences go to journals, terminals and alerts alike.
"""

from __future__ import annotations

from forestall.core.families import unit_name
from forestall.core.model import Standing
from forestall.core.units import PAGE_BYTES, human_bytes, human_share
from forestall.core.value import TYPE_CHECKING

if TYPE_CHECKING:
    from forestall.core.families import Part
    from forestall.core.model import Memory, Row
    from forestall.core.refaults import Reader

"\x1b".encode("unicode_escape")
# Python loads a codec where it is first used; the first hostile name comes when memory is short.

STABLE_BYTES = 1 << 20
"""Growth below this is called stable."""


def plain(name: str) -> str:
    """Make a process name harmless: printable characters only, the rest as escapes."""
    if name.isascii() and name.isprintable():
        return name or "?"
    raw = name.encode("utf-8", "surrogateescape")
    text = raw.decode("utf-8", "backslashreplace")
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def victim_clause(
    part: Part, *, recent_bytes: int, growth_share: float, memory: Memory, by_growth: bool
) -> str:
    """Say who goes, what it did, and what its end frees."""
    who = f"{plain(part.root.comm)} ({part.root.id.pid})"
    if part.kind == "unit":
        who = f"unit {plain(unit_name(part.cgroup))} ({len(part.members)} processes)"
    elif len(part.members) > 1:
        who = f"{who} and its family of {len(part.members)}"
    frees = f"ending it frees about {human_bytes(part.frees_bytes)}"
    left = f"{human_bytes(memory.available_bytes)} ({human_share(memory.available_share)}) left"
    if by_growth:
        return (
            f"{who} grew by {human_bytes(recent_bytes)} of late, {human_share(growth_share)} of "
            f"all growth, with {left}; {frees}"
        )
    return f"{who} holds the most that may go, nobody grew, with {left}; {frees}"


def reader_clause(part: Part, reader: Reader, memory: Memory) -> str:
    """Say who goes for what its unit reads back, and what its end frees."""
    who = f"{plain(part.root.comm)} ({part.root.id.pid})"
    return (
        f"{who} is of {plain(unit_name(reader.path))}, which reads back "
        f"{human_bytes(int(reader.pages_per_s) * PAGE_BYTES)} a second, "
        f"{human_share(reader.share)} of all that is lost and wanted again; nobody grew, with "
        f"{human_bytes(memory.available_bytes)} ({human_share(memory.available_share)}) left; "
        f"ending it frees about {human_bytes(part.frees_bytes)}"
    )


def spared_clause(others: tuple[tuple[Row, int], ...]) -> str:
    """Say why the next three were spared; empty when there are none."""
    if not others:
        return ""
    reasons = []
    for row, recent_bytes in others:
        size = human_bytes(row.footprint_bytes)
        if row.standing is Standing.AVOID:
            reason = f"{size}, {row.rule}"
        elif recent_bytes < STABLE_BYTES:
            reason = f"{size}, stable"
        else:
            reason = f"{size}, grew by {human_bytes(recent_bytes)}"
        reasons.append(f"{plain(row.comm)} ({row.id.pid}: {reason})")
    return "; not " + ", ".join(reasons)


def instead_clause(following: Row, growth: int) -> str:
    """Say what would have changed the choice: who would go without it, and what spares it."""
    grew = growth >= STABLE_BYTES
    because = "it grew most of the others" if grew else "it holds most of the others"
    name = f"{plain(following.comm)} ({following.id.pid})"
    return f"; without it {name} would go, because {because}; a rule in [victims] would spare it"


def protected_sentence(row: Row) -> str:
    """Say that the one who grows is the one a rule protects."""
    return (
        f"{plain(row.comm)} ({row.id.pid}) grows, and a rule protects it ({row.rule}); "
        "ending others would only feed it: end it by hand, or change the rule"
    )
