"""Why a process stands where it stands: the kernel's formula with its numbers, the guard's order.

Rule: everything is worked out from one look, so that the ranks, the formula and
the "what if" belong together; what the kernel prints is put beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from forestall.core.sentence import plain
from forestall.inspect.badness import ADJ_MIN, Scale, points_of_pages, printed
from forestall.inspect.ranking import PLACES_MAX, protection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from forestall.inspect.badness import Machine
    from forestall.inspect.looking import Scored
    from forestall.inspect.scores import Scene, Scores
    from forestall.kernel.scores import Portrait

TRIED_ADJUSTMENTS = (-1000, -500, -100, 0, 100, 500, 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Formula:
    """The kernel's arithmetic for one process, in pages."""

    rss_pages: int
    swap_pages: int
    table_pages: int
    adj: int
    unit_pages: int
    """What one unit of oom_score_adj is worth: a thousandth of RAM + swap."""
    badness_pages: int
    total_pages: int
    points: int
    oom_score: int | None
    """What the kernel should print, by the scale it uses; None if that is unknown."""
    printed: int | None
    """What it did print."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIf:
    """What another oom_score_adj would do."""

    adj: int
    points: int | None
    """None: never considered."""
    rank: int | None
    behind: str
    """Who would then stand just before it; empty if nobody."""
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Everything about one process's place."""

    scored: Scored
    portrait: Portrait
    ancestry: tuple[tuple[int, str], ...]
    formula: Formula | None
    rank: int | None
    """Its place in the kernel's order, from 1; None if it is not considered or unknown."""
    ranked: int
    """How many the kernel considers, as far as can be seen."""
    changes: tuple[WhatIf, ...]
    guard_place: int | None
    """Its place in the guard's order; None if the guard would not end it, or far down."""
    guard_words: str
    without_it: str
    """Whom the guard would end if this one were protected."""


def explain(
    scores: Scores, scene: Scene, pid: int, *, places_max: int = PLACES_MAX
) -> Explanation | None:
    """Explain a process's place in a scene that was taken with every portrait.

    None if it is in the scene no more.

    Args:
        places_max: How far down the guard's order it is looked for.

    Raises: ProcessGone; OSError; KernelError.
    """
    scored = next((one for one in scene.look.scored if one.id.pid == pid), None)
    portrait = scores.looker.portrait(pid)
    if scored is None or portrait.id != scored.id:
        return None
    machine = scene.look.machine
    rivals = _rivals(scene.look.scored)
    place, words, without = _guard(scores, scored, places_max)
    return Explanation(
        scored=scored,
        portrait=portrait,
        ancestry=tuple((number, plain(name)) for number, name in scores.looker.ancestry(pid)),
        formula=_formula(scored, machine),
        rank=_rank(scored.badness_pages, scored, rivals),
        ranked=len(rivals),
        changes=_changes(scored, rivals, machine),
        guard_place=place,
        guard_words=words,
        without_it=without,
    )


def _rivals(everybody: Sequence[Scored]) -> list[Scored]:
    known = [one for one in everybody if one.badness_pages is not None]
    return sorted(known, key=lambda one: _order(one.badness_pages or 0, one), reverse=True)


def _order(badness: int, one: Scored) -> tuple[int, int, int]:
    # The kernel takes the later born of equals.
    return badness, one.id.start_ticks, one.id.pid


def _rank(badness: int | None, scored: Scored, rivals: Sequence[Scored]) -> int | None:
    return None if badness is None else 1 + len(_ahead(badness, scored, rivals))


def _ahead(badness: int, scored: Scored, rivals: Sequence[Scored]) -> list[Scored]:
    own = _order(badness, scored)
    return [
        one for one in rivals if one.id != scored.id and _order(one.badness_pages or 0, one) > own
    ]


def _formula(scored: Scored, machine: Machine) -> Formula | None:
    sizes = scored.rss_bytes, scored.swap_bytes, scored.page_tables_bytes
    adj, badness = scored.oom_score_adj, scored.badness_pages
    if badness is None or adj is None:
        return None
    rss, swap, tables = (0 if size is None else size // machine.page_bytes for size in sizes)
    points = points_of_pages(badness, machine)
    return Formula(
        rss_pages=rss,
        swap_pages=swap,
        table_pages=tables,
        adj=adj,
        unit_pages=machine.pages // 1000,
        badness_pages=badness,
        total_pages=machine.pages,
        points=points,
        oom_score=None if machine.scale is Scale.UNKNOWN else printed(points, machine.scale),
        printed=scored.oom_score,
    )


def _changes(scored: Scored, rivals: Sequence[Scored], machine: Machine) -> tuple[WhatIf, ...]:
    adj = scored.oom_score_adj
    sizes = scored.rss_bytes, scored.swap_bytes, scored.page_tables_bytes
    if adj is None or None in sizes or (scored.spared is not None and adj != ADJ_MIN):
        return ()
    held = sum(size or 0 for size in sizes) // machine.page_bytes
    unit = max(1, machine.pages // 1000)
    now = _rank(scored.badness_pages, scored, rivals)
    tipping = [
        what
        for adj_wanted in _tipping(scored, held, unit, rivals)
        if (what := _what_if(scored, held, adj_wanted, rivals, machine)).rank != now
    ]
    usual = [
        _what_if(scored, held, wanted, rivals, machine)
        for wanted in TRIED_ADJUSTMENTS
        if wanted not in {one.adj for one in tipping}
    ]
    everything = sorted((*usual, *tipping), key=lambda one: one.adj)
    return tuple(one for one in everything if one.adj != adj)


def _tipping(scored: Scored, held: int, unit: int, rivals: Sequence[Scored]) -> set[int]:
    # The adjustment that just puts it behind the first of the others, and the one that puts it
    # before them all.
    first = next((one for one in rivals if one.id != scored.id), None)
    if first is None or first.badness_pages is None:
        return set()
    steps = (first.badness_pages - held) // unit
    return {adj for adj in (steps, steps + 1) if ADJ_MIN < adj <= -ADJ_MIN}


def _what_if(
    scored: Scored, held: int, adj: int, rivals: Sequence[Scored], machine: Machine
) -> WhatIf:
    if adj == ADJ_MIN:
        words = "the kernel would never take it"
        return WhatIf(adj=adj, points=None, rank=None, behind="", words=words)
    badness = held + adj * (machine.pages // 1000)
    ahead = _ahead(badness, scored, rivals)
    behind = f"{plain(ahead[-1].name)} ({ahead[-1].id.pid})" if ahead else ""
    now = _rank(scored.badness_pages, scored, rivals)
    rank = len(ahead) + 1
    if rank == now:
        words = "it would stand where it stands"
    elif ahead:
        words = f"would put it behind {behind}"
        if now == 1 and len(ahead) > 1:
            words += f", and {plain(ahead[0].name)} ({ahead[0].id.pid}) would be next"
    else:
        words = "would make it the kernel's next victim"
    return WhatIf(
        adj=adj, points=points_of_pages(badness, machine), rank=rank, behind=behind, words=words
    )


def _guard(scores: Scores, scored: Scored, places_max: int) -> tuple[int | None, str, str]:
    ranking = scores.ranking
    row = ranking.row_of(scored.id.pid)
    if ranking.only_uid is not None and scored.uid not in {None, ranking.only_uid}:
        words = f"it looks after processes of uid {ranking.only_uid} alone, and this is not one"
        return None, words, ""
    if row is None or row.id != scored.id:
        return None, "too small to be worth ending, or not to be seen", ""
    order = ranking.order(places_max)
    place = next((rank for rank, one in enumerate(order, 1) if scored.id in one.members), None)
    words = protection(row)
    if place is not None:
        choice = order[place - 1].choice
        if choice.processes > 1:
            words += f"; it would go with {choice.name} and its {choice.processes} processes"
    elif len(order) == places_max:
        words += f"; it is not among the first {places_max}"
    else:
        words += "; it would not be ended"
    without = ranking.choose(frozenset({scored.id}))
    named = f"{without.name} ({without.pid})" if without.pid is not None else without.why
    return place, words, named
