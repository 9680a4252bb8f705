"""The kernel's arithmetic: what it prints as oom_score, what that means, and back again.

    badness = resident + swapped + page tables, in pages
              + oom_score_adj * (total pages / 1000)

What /proc/PID/oom_score prints of it has changed: up to v5.8 the badness in
thousandths of RAM + swap, never below zero; since v5.9 two thirds of that plus
1000, so that an idle process shows 666. Everything here is undone to *points*:
thousandths of RAM + swap, the adjustment included, below zero for the protected.

Source: mm/oom_kill.c oom_badness, fs/proc/base.c proc_oom_score.
Rule: pure. The scale is found out by trying, never by a version.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from forestall.core.value import value

if TYPE_CHECKING:
    from collections.abc import Iterable

    from forestall.kernel.scores import Portrait

ADJ_MIN = -1000
"""OOM_SCORE_ADJ_MIN: never considered."""
TOLERANCE_POINTS = 50
"""Off by so much is another scale: per-CPU counters, and root's old discount of 3 %, are less."""


class Scale(Enum):
    """How the running kernel prints a badness."""

    THIRDS = "thirds"
    """(1000 + points) * 2 / 3, so 0 to 2000. Since Linux kernel commit 9066e5cfb73c
    ("mm, oom: make the calculation of oom badness more accurate") (in v5.9)."""
    POINTS = "points"
    """The points themselves, 0 to 1000; before."""
    UNKNOWN = "unknown"
    """Neither fits what is printed."""


@value
class Machine:
    """What every process is measured against."""

    total_bytes: int
    swap_total_bytes: int
    page_bytes: int
    scale: Scale = Scale.UNKNOWN

    @property
    def pages(self) -> int:
        """RAM and swap."""
        return (self.total_bytes + self.swap_total_bytes) // self.page_bytes


def badness_pages(portrait: Portrait, machine: Machine) -> int | None:
    """Work out what the killer compares; None if it would not look at this one, or unknown."""
    return None if why_not(portrait, machine.scale) is not None else weight_pages(portrait, machine)


def weight_pages(portrait: Portrait, machine: Machine) -> int | None:
    """Work out what the killer compares of one that it looks at; None if that is unknown."""
    memory, adj = portrait.memory, portrait.oom_score_adj
    if memory is None or adj is None:
        return None
    if memory.swap_bytes is None or memory.page_tables_bytes is None:
        return None
    held = memory.rss_bytes + memory.swap_bytes + memory.page_tables_bytes
    return held // machine.page_bytes + adj * (machine.pages // 1000)


def why_not(portrait: Portrait, scale: Scale) -> str | None:
    """Say why the kernel's killer passes a process by; None if it does not."""
    # The first process of a container is init only there, and has a score like others.
    if portrait.id.pid == 1 and not portrait.oom_score:
        return "init is never taken"
    if portrait.kernel_thread:
        return "a thread of the kernel has no memory of its own"
    if portrait.oom_score_adj == ADJ_MIN:
        return "oom_score_adj -1000: never considered"
    if portrait.state in "XZ" and portrait.memory is None:
        return "it has ended, only its number is left"
    scored = scale is not Scale.THIRDS or portrait.oom_score != 0
    if not scored and (portrait.oom_score_adj or 0) > -900:
        return "the kernel gives it no score: it is exiting, or just starting (vfork)"
    return None


def points_of_pages(pages: int, machine: Machine) -> int:
    """Turn pages into thousandths of RAM + swap, cut towards zero as the kernel does."""
    points = abs(pages) * 1000 // machine.pages
    return points if pages >= 0 else -points


def printed(points: int, scale: Scale) -> int:
    """Turn points into what /proc/PID/oom_score prints."""
    if scale is Scale.THIRDS:
        return (1000 + points) * 2 // 3
    return max(0, points)


def points_of(oom_score: int, scale: Scale) -> int | None:
    """Undo what /proc/PID/oom_score prints; None if the scale is unknown.

    A step of the printed number is one or two points; the higher is taken, so that the
    idle process that prints 666 has 0. A printed 0 is "never considered", or nearly.
    """
    if scale is Scale.THIRDS:
        return (oom_score * 3 + 2) // 2 - 1000 if oom_score else None
    return oom_score if scale is Scale.POINTS else None


def find_scale(portraits: Iterable[Portrait], machine: Machine) -> Scale:
    """Find out how this kernel prints, by processes whose numbers are all known.

    Most must fit the same scale: somebody may grow between two reads.
    """
    votes = {Scale.THIRDS: 0, Scale.POINTS: 0}
    for portrait in portraits:
        pages = badness_pages(portrait, machine)
        if pages is None or portrait.oom_score is None:
            continue
        points = points_of_pages(pages, machine)
        for scale in votes:
            if abs(printed(points, scale) - portrait.oom_score) <= TOLERANCE_POINTS:
                votes[scale] += 1
    if votes[Scale.THIRDS] == votes[Scale.POINTS]:
        return Scale.UNKNOWN
    return max(votes, key=lambda scale: votes[scale])
