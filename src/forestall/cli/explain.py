"""``forestall explain``: why a process stands where it stands, and what would change that."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NoReturn

import click
from rich.text import Text

from forestall.cli import exits
from forestall.cli.choices import processes
from forestall.cli.console import out, safe
from forestall.cli.scenes import (
    choice_document,
    guard_pid,
    guard_status,
    plain_text,
    process_document,
    rules_here,
    victim_document,
)
from forestall.cli.score_table import guard_line, kernel_line
from forestall.core.sentence import plain
from forestall.fields import BY_NAME, UNKNOWN
from forestall.inspect.badness import Scale
from forestall.inspect.explain import Explanation, explain
from forestall.inspect.scores import Scores
from forestall.kernel.errors import KernelError, ProcessGone

if TYPE_CHECKING:
    from collections.abc import Iterator

    from forestall.inspect.explain import Formula
    from forestall.inspect.scores import Scene

_SIZES = ("rss_bytes", "anon_bytes", "swap_bytes", "page_tables_bytes", "pss_bytes")


@click.command()
@click.argument("pid", type=click.IntRange(min=1), shell_complete=processes)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@click.option("--socket", metavar="PATH", help="Where the guard listens.")
@click.pass_context
def command(ctx: click.Context, pid: int, as_json: bool, socket: str | None) -> None:
    """Explain where a process stands when memory runs out.

    Shows the running kernel's formula with the process's numbers, its place in
    the kernel's order and in the guard's, and what another oom_score_adj would
    change. Ends with 1 when nobody has that PID, with 4 when it may be hidden.
    """
    status = guard_status(socket)
    rules, note = rules_here()
    if note:
        click.echo(f"forestall: {note}", err=True)
    try:
        scores = Scores(rules, guard_pid=guard_pid(status), rank=True)
        scene = scores.look(portraits_max=None, status=status)
    except (OSError, KernelError) as error:
        _complain(ctx, f"the processes cannot be read here: {error}", exits.KERNEL)
    try:
        found = explain(scores, scene, pid)
        spared = None if found else scores.looker.portrait(pid)
    except ProcessGone:
        if scene.look.hidden:
            what = f"no process {pid} can be seen; /proc hides those of others: ask as root"
            _complain(ctx, what, exits.KERNEL)
        _complain(ctx, f"no process has the number {pid}", exits.PROBLEM)
    except (OSError, KernelError) as error:
        what = f"process {pid} cannot be read ({error}); /proc may hide it: ask as root"
        _complain(ctx, what, exits.KERNEL)
    if found is None:
        assert spared is not None
        what = "is a thread of the kernel" if spared.kernel_thread else "was not there a moment ago"
        who = f"{safe(plain(spared.comm))} ({pid})"
        _complain(ctx, f"{who} {what}: the kernel's killer does not consider it", exits.PROBLEM)
    pss_bytes = scores.looker.pss_bytes(pid)
    if as_json:
        click.echo(json.dumps(document(found, scene, pss_bytes), indent=1))
    else:
        out().print(Text("\n").join(lines(found, scene, pss_bytes)))


def lines(found: Explanation, scene: Scene, pss_bytes: int | None) -> Iterator[Text]:
    """Write an explanation for people."""
    one = found.scored
    yield Text(f"{safe(plain(one.name))} ({one.id.pid})", style="bold")
    unit = UNKNOWN if one.unit is None else safe(plain_text(one.unit)) or "none"
    uid = UNKNOWN if one.uid is None else str(one.uid)
    yield Text(f"who          uid {uid}, unit {unit}")
    above = " < ".join(f"{safe(name)} ({number})" for number, name in found.ancestry)
    yield Text(f"started by   {above or UNKNOWN}")
    sizes = _sizes(found, pss_bytes)
    yield Text(
        "memory       "
        + ", ".join(f"{BY_NAME[name].title} {BY_NAME[name].show(sizes[name])}" for name in _SIZES)
    )
    yield Text()
    yield from _kernel_lines(found, scene)
    yield Text()
    yield from _guard_lines(found, scene)
    for note in scene.notes:
        yield Text("note         ", style="yellow") + Text(safe(note))


def _kernel_lines(found: Explanation, scene: Scene) -> Iterator[Text]:
    yield Text("The kernel", style="bold")
    if found.scored.spared is not None:
        yield Text(f"passes it by: {safe(found.scored.spared)}")
    elif found.formula is None:
        yield Text("Its numbers may not be read here; ask as root.")
    else:
        for text in formula_lines(found.formula, scene):
            yield Text(text)
        sure = "" if scene.look.kernel.exact else ", of those that can be seen"
        yield Text(f"rank         {found.rank} of {found.ranked}{sure}")
    yield kernel_line(scene)
    for change in found.changes:
        points = "never" if change.points is None else f"score {change.points}"
        rank = "" if change.rank is None else f", rank {change.rank}"
        yield Text(f"adj {change.adj:+5d}    {safe(change.words)} ({points}{rank})")


def formula_lines(formula: Formula, scene: Scene) -> Iterator[str]:
    """Write the kernel's arithmetic with the numbers in it."""
    yield (
        f"badness      resident {formula.rss_pages} + swap {formula.swap_pages} + tables "
        f"{formula.table_pages} + adj {formula.adj} x {formula.unit_pages} = "
        f"{formula.badness_pages} pages"
    )
    yield (
        f"score        {formula.badness_pages} x 1000 / {formula.total_pages} = {formula.points} "
        "thousandths of RAM + swap"
    )
    shown = UNKNOWN if formula.printed is None else str(formula.printed)
    if scene.look.machine.scale is Scale.THIRDS:
        how = f"(1000 + {formula.points}) x 2 / 3 = {formula.oom_score}"
    elif scene.look.machine.scale is Scale.POINTS:
        how = f"the score itself, {formula.oom_score}, as before Linux 5.9"
    else:
        how = "by a scale that is not known here"
    yield f"oom_score    {how}; the kernel prints {shown}"


def _guard_lines(found: Explanation, scene: Scene) -> Iterator[Text]:
    yield Text("The guard", style="bold")
    place = "" if found.guard_place is None else f"place {found.guard_place} in its order: "
    yield Text(f"{place}{safe(found.guard_words)}")
    yield guard_line(scene)
    if found.without_it:
        yield Text(f"without it   it would be {safe(found.without_it)}")
    yield Text(f"             {safe(scene.difference)}")


def document(found: Explanation, scene: Scene, pss_bytes: int | None) -> dict[str, Any]:
    """Write an explanation as plain data."""
    formula = found.formula
    return {
        "process": process_document(found.scored, scene) | {"pss_bytes": pss_bytes},
        "ancestry": [{"pid": number, "name": name} for number, name in found.ancestry],
        "kernel": {
            "scale": scene.look.machine.scale.value,
            "formula": None
            if formula is None
            else {
                "rss_pages": formula.rss_pages,
                "swap_pages": formula.swap_pages,
                "table_pages": formula.table_pages,
                "oom_score_adj": formula.adj,
                "unit_pages": formula.unit_pages,
                "badness_pages": formula.badness_pages,
                "total_pages": formula.total_pages,
                "points": formula.points,
                "oom_score": formula.oom_score,
                "printed": formula.printed,
            },
            "rank": found.rank,
            "ranked": found.ranked,
            "next": victim_document(scene.look.kernel),
            "changes": [
                {
                    "oom_score_adj": change.adj,
                    "points": change.points,
                    "rank": change.rank,
                    "words": change.words,
                }
                for change in found.changes
            ],
        },
        "guard": {
            "place": found.guard_place,
            "words": found.guard_words,
            "next": choice_document(scene.guard),
            "without_it": found.without_it or None,
        },
        "difference": scene.difference,
        "notes": list(scene.notes),
    }


def _sizes(found: Explanation, pss_bytes: int | None) -> dict[str, int | None]:
    one = found.scored
    known = (one.rss_bytes, one.anon_bytes, one.swap_bytes, one.page_tables_bytes, pss_bytes)
    return dict(zip(_SIZES, known, strict=True))


def _complain(ctx: click.Context, what: str, code: exits.Exit) -> NoReturn:
    click.echo(f"forestall: {what}", err=True)
    ctx.exit(code.code)
