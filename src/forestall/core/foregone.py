"""A choice that looking again could not change. Pure.

A survey costs milliseconds, until memory is what everybody waits for: then each
read of /proc waits as well, 0.2 s for all of them in a leak and 1.7 s in a
thrash (measured in guests), and by the end of it the machine has stood still
for as long. What the last survey found is good enough when it is moments old
and even the worst that can have happened since would not change the answer:
that all that went since then went to one other, within an instant.

Rule: only a clear case, only while looking is dear; and the effect ends nobody
who has let go of what it was chosen for (``End.least_bytes``).
"""

from __future__ import annotations

from math import exp

from forestall.core.census import LONG_NS, NOW_WEIGHT, SHORT_NS, blame_of
from forestall.core.decide import end, shared_to_blame
from forestall.core.events import CONFIRMED
from forestall.core.judge import MIN_FREES_BYTES, Chosen
from forestall.core.managers import unit_to_tell
from forestall.core.state import Conclusion
from forestall.core.trend import headroom_bytes, stall_share
from forestall.core.units import MS, SECOND, human_ns
from forestall.core.value import TYPE_CHECKING, replace

if TYPE_CHECKING:
    from forestall.core.events import Request, Surveyed
    from forestall.core.judge import Verdict
    from forestall.core.model import Row
    from forestall.core.rules import Rules
    from forestall.core.state import Choosing, State

AGE_NS = 5 * SECOND
"""Older than this it is another situation, whatever the numbers say."""
DEAR_NS = 50 * MS
STALL_NS = 500 * MS
STALL_SHARE = 0.2
"""So much of the last half second somebody waited for memory: so would the survey."""
HOLDS_SHARE = 0.9
"""Whoever has let go of more than a tenth was not growing."""


def conclude(seen: State, event: Surveyed, verdict: Verdict) -> Conclusion | None:
    """Keep a verdict for later; None where it is not clear, or somebody leaves already."""
    if not isinstance(verdict, Chosen) or verdict.rivals is None or seen.memory is None:
        return None
    part = verdict.part
    if event.leaving or part.frees_bytes < MIN_FREES_BYTES:
        return None
    unit = unit_to_tell(part, event.rows)
    return Conclusion(event.now_ns, verdict, headroom_bytes(seen.memory), unit)


def foregone(seen: State) -> Conclusion | None:
    """Return the conclusion that stands, if it is not worth looking again.

    Cost: 2 µs, and asked only when a trigger fires.
    """
    found, memory = seen.conclusion, seen.memory
    if found is None or memory is None or seen.dying or shared_to_blame(seen):
        return None
    age_ns = seen.now_ns - found.now_ns
    if age_ns > AGE_NS or not _dear(seen):
        return None
    lost_bytes = max(0, found.headroom_bytes - headroom_bytes(memory))
    assert found.verdict.rivals is not None
    rivals = found.verdict.rivals + (1 + NOW_WEIGHT) * lost_bytes
    return found if _faded(seen, found, age_ns) > rivals else None


def end_foregone(
    seen: State, hunt: Choosing, found: Conclusion, rules: Rules
) -> tuple[State, tuple[Request, ...]]:
    """Act on a conclusion as on a verdict."""
    part = found.verdict.part
    root_first = sorted(
        part.members, key=lambda row: (row.id == part.root.id, _own_bytes(row)), reverse=True
    )
    members = tuple(root_first)
    held_bytes = sum(_own_bytes(row) for row in members[:CONFIRMED])
    age = human_ns(seen.now_ns - found.now_ns)
    why = f"{found.verdict.why}; as seen {age} before, for looking again could not change it"
    return end(
        seen,
        hunt,
        seen.now_ns,
        replace(found.verdict, part=replace(part, members=members), why=why),
        found.unit,
        rules,
        least_bytes=int(HOLDS_SHARE * held_bytes),
    )


def _own_bytes(row: Row) -> int:
    return row.anon_bytes + row.swap_bytes


def _dear(seen: State) -> bool:
    stall = stall_share(seen.trail, seen.now_ns, STALL_NS, full=False)
    return seen.survey_cost_ns >= DEAR_NS or (stall is not None and stall >= STALL_SHARE)


def _faded(seen: State, found: Conclusion, age_ns: int) -> float:
    """What it would answer for by now, had it not grown since."""
    long, short = exp(-age_ns / LONG_NS), exp(-age_ns / SHORT_NS)
    blames = [blame_of(seen.census, row.id) for row in found.verdict.part.members]
    return sum(
        one.recent_bytes * long + (one.growth_bytes - one.recent_bytes) * short for one in blames
    )
