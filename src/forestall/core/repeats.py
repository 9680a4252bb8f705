"""Whoever comes back after its end and grows into the same shortage: noticed, and said.

A service that restarts, a worker that is forked again, a script in a loop: to
end it once more helps for minutes. Only a person can mend it, so the person is
told how often, within what time, and what would help.

Rule: who was there before the last end has not come back. Sisters that are
ended one after the other in one shortage are no loop.
"""

from __future__ import annotations

from forestall.core.families import application_of
from forestall.core.sentence import plain
from forestall.core.state import Ended
from forestall.core.units import MINUTE, human_ns
from forestall.core.value import TYPE_CHECKING, replace

if TYPE_CHECKING:
    from forestall.core.families import Part
    from forestall.core.model import Row
    from forestall.core.state import State

WINDOW_NS = 10 * MINUTE
"""Who comes back later than this begins anew."""
ENDS_MAX = 16
"""Different ones remembered; the one that was ended longest ago is forgotten first."""


def note_end(state: State, part: Part, now_ns: int) -> tuple[State, Ended]:
    """Remember an end; returns the state and what is known of this one now."""
    key = _key(part.root)
    before = next((one for one in state.ends if one.key == key), None)
    victims = tuple(row.id for row in part.members)
    ended = Ended(key, _name(part.root), 1, now_ns, now_ns, victims)
    if before is not None and now_ns - before.last_ns <= WINDOW_NS:
        if _came_back(part, before, now_ns):
            ended = replace(ended, times=before.times + 1, first_ns=before.first_ns)
        else:
            # A sister of the one before: the count stands, and so does its moment, for whoever
            # was started after that has come back.
            ended = replace(before, victims=victims)
    others = tuple(one for one in state.ends if one.key != key)
    return replace(state, ends=(*others, ended)[-ENDS_MAX:]), ended


def loops(state: State, now_ns: int) -> tuple[Ended, ...]:
    """List those that came back and were ended again, as far as that is still of interest."""
    return tuple(one for one in state.ends if one.times > 1 and now_ns - one.last_ns <= WINDOW_NS)


def repeat_clause(ended: Ended) -> str:
    """Say how often it was ended; empty the first time."""
    if ended.times < 2:
        return ""
    span = human_ns(ended.last_ns - ended.first_ns)
    return f"{plain(ended.name)} was ended for the {_ordinal(ended.times)} time in {span}"


def advice(ended: Ended) -> str:
    """Say what a person can do about it."""
    if ended.name.endswith(".service"):
        return (
            "it comes back into the same shortage: give it a longer RestartSec=, a MemoryMax= "
            "of its own, or mend what makes it grow"
        )
    return (
        "it comes back into the same shortage: stop what starts it again, give it a limit of its "
        "own (systemd-run -p MemoryMax=…), or mend what makes it grow"
    )


def _came_back(part: Part, before: Ended, now_ns: int) -> bool:
    since_ns = now_ns - before.last_ns
    return all(row.age_ns < since_ns for row in part.members)


def _key(root: Row) -> str:
    unit = application_of(root.cgroup)
    if unit.endswith(".service"):
        return unit
    # A scope is made for one run, and the next run has another: a container, an application.
    around = unit.rpartition("/")[0] if unit else root.parent_pid
    return f"{around} {root.uid} {root.comm}"


def _name(root: Row) -> str:
    unit = application_of(root.cgroup)
    return unit.rpartition("/")[2] if unit.endswith(".service") else root.comm


def _ordinal(number: int) -> str:
    last = number % 10
    if last in {1, 2, 3} and number % 100 not in {11, 12, 13}:
        return f"{number}{('st', 'nd', 'rd')[last - 1]}"
    return f"{number}th"
