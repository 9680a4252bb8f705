"""``forestall scores``: who the kernel's killer would take, who the guard, and how near it is."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import click
from rich.console import Group
from rich.live import Live
from rich.text import Text

from forestall.cli import exits
from forestall.cli.console import out
from forestall.cli.scenes import (
    guard_pid,
    guard_status,
    process_document,
    rules_here,
    scene_document,
)
from forestall.cli.score_table import process_lines, summary_lines, tree_lines, unit_lines
from forestall.core.sentence import plain
from forestall.inspect.groups import by_unit, tree
from forestall.inspect.scores import Scores
from forestall.kernel.clock import wall_ns
from forestall.kernel.errors import KernelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console

    from forestall.inspect.looking import Scored
    from forestall.inspect.scores import Scene

TOP = 10
WATCH_ABOVE = 50
"""The seed's monitor: ten rows, above 50, for 300 s, every 10 s."""
DURATION_S = 300.0
INTERVAL_S = 10.0
DEEPEST = -1001
"""Below every score: nobody is left out."""


class View:
    """What the options ask to see."""

    def __init__(self, *, above: int, top: int, as_tree: bool, units: bool) -> None:
        self.above = above
        self.top = top or None
        self.as_tree = as_tree
        self.units = units

    @property
    def portraits_max(self) -> int | None:
        """How many processes must be read in full."""
        return None if self.as_tree or self.units else self.top

    def rows(self, scene: Scene) -> list[Scored]:
        """Return the processes that were asked for."""
        return [
            one
            for one in scene.look.scored
            if self.above <= DEEPEST or (one.points is not None and one.points > self.above)
        ][: self.top]

    def text(self, scene: Scene) -> Text:
        """Write a scene for people."""
        return Text("\n").join([*self.table(scene), Text(), *summary_lines(scene)])

    def screen(self, scene: Scene) -> Group:
        """Write a scene for a terminal that shows one after the other: sentences may wrap."""
        table = self.table(scene)
        for line in table:
            line.no_wrap, line.overflow = True, "ellipsis"
        return Group(_now(), *table, Text(), *summary_lines(scene))

    def table(self, scene: Scene) -> list[Text]:
        """Write the rows that were asked for, under their heads."""
        rows = self.rows(scene)
        if self.units:
            return unit_lines(by_unit(scene.look.scored)[: self.top])
        if not rows:
            return [Text(_nobody(scene, self.above))]
        if self.as_tree:
            return tree_lines(tree(scene.look.scored, rows), scene)
        return process_lines(rows, scene)

    def document(self, scene: Scene) -> dict[str, Any]:
        """Write a scene as plain data."""
        whole = scene_document(scene)
        if self.units:
            whole["units"] = [
                {
                    "unit": one.unit and plain(one.unit),
                    "processes": one.processes,
                    "points_max": one.points_max,
                    "rss_bytes": one.rss_bytes,
                    "anon_bytes": one.anon_bytes,
                    "swap_bytes": one.swap_bytes,
                    "complete": one.complete,
                    "leader": one.leader.id.pid,
                }
                for one in by_unit(scene.look.scored)[: self.top]
            ]
        elif self.as_tree:
            branches = tree(scene.look.scored, self.rows(scene))
            whole["scores"] = [
                process_document(branch.scored, scene) | {"depth": branch.depth}
                for branch in branches
            ]
        else:
            whole["scores"] = [process_document(one, scene) for one in self.rows(scene)]
        return whole


@click.command()
@click.option(
    "--above",
    type=click.IntRange(-1000, 2000),
    metavar="N",
    help="Only scores above N thousandths of RAM + swap; 50 with --watch, else everybody.",
)
@click.option(
    "--top",
    type=click.IntRange(0, 1_000_000),
    default=TOP,
    show_default=True,
    metavar="N",
    help="So many rows; 0 for all.",
)
@click.option("--watch", is_flag=True, help="Look again and again, and show what changed.")
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 86_400),
    default=INTERVAL_S,
    show_default=True,
    metavar="S",
    help="Between two looks of --watch, in seconds.",
)
@click.option(
    "--duration",
    type=click.FloatRange(0, 31_536_000),
    default=DURATION_S,
    show_default=True,
    metavar="S",
    help="How long --watch goes on, in seconds; 0 until Ctrl-C.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON; with --watch a line a look.")
@click.option("--tree", "as_tree", is_flag=True, help="Put each under the one that started it.")
@click.option("--by-unit", "units", is_flag=True, help="Sum up services and scopes.")
@click.option("--socket", metavar="PATH", help="Where the guard listens.")
@click.pass_context
def command(  # noqa: PLR0913, PLR0917 - a parameter for each option
    ctx: click.Context,
    above: int | None,
    top: int,
    watch: bool,
    interval: float,
    duration: float,
    as_json: bool,
    as_tree: bool,
    units: bool,
    socket: str | None,
) -> None:
    """Show processes by the kernel's out-of-memory score, and who would go next.

    The score is unscaled: thousandths of RAM + swap, oom_score_adj included, 0
    for an idle process; RAW is what the kernel prints. Marked are scores above
    500 (!) and 800 (!!). The kernel's next victim (K) and the guard's (G) stand
    side by side, with the reason where they differ. This command leaves itself
    out.

    Ends with 1 when more than 90 % of memory is used.
    """
    if as_tree and units:
        raise click.UsageError("Give --tree or --by-unit, not both.")
    floor = (WATCH_ABOVE if watch else DEEPEST) if above is None else above
    view = View(above=floor, top=top, as_tree=as_tree, units=units)
    status = guard_status(socket)
    rules, note = rules_here()
    if note:
        click.echo(f"forestall: {note}", err=True)
    try:
        scores = Scores(rules, guard_pid=guard_pid(status))
        scene = scores.look(portraits_max=view.portraits_max, status=status, pss=not watch)
    except (OSError, KernelError) as error:
        click.echo(f"forestall: the processes cannot be read here: {error}", err=True)
        ctx.exit(exits.KERNEL.code)
    if watch:
        scenes = _looks(scores, view, socket, first=scene, interval=interval, duration=duration)
        scene = _follow(scenes, view, out(), as_json=as_json)
    elif as_json:
        click.echo(rows_json(view.document(scene)))
    else:
        out().print(view.text(scene))
    ctx.exit(exits.PROBLEM.code if scene.mark == "danger" else exits.FINE.code)


def _looks(  # noqa: PLR0913 - clock and sleep are seams
    scores: Scores,
    view: View,
    socket: str | None,
    *,
    first: Scene,
    interval: float,
    duration: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Scene]:
    began = clock()
    yield first
    while not duration or clock() - began + interval <= duration:
        sleep(interval)
        status = guard_status(socket)
        yield scores.look(portraits_max=view.portraits_max, status=status)


def _follow(scenes: Iterator[Scene], view: View, console: Console, *, as_json: bool) -> Scene:
    scene = next(scenes)
    if as_json or not console.is_terminal:
        _print(scene, view, console, as_json=as_json)
        for scene in scenes:
            _print(scene, view, console, as_json=as_json)
        return scene
    console.soft_wrap = False  # or whatever is longer than the screen would be cut off
    with Live(view.screen(scene), console=console, auto_refresh=False) as live:
        for scene in scenes:
            live.update(view.screen(scene), refresh=True)
    return scene


def _print(scene: Scene, view: View, console: Console, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"time": wall_ns() / 1e9} | view.document(scene)))
        return
    console.print(_now())
    console.print(view.text(scene))
    console.print()


def _now() -> Text:
    return Text(time.strftime("[%H:%M:%S]"), style="bold")


def rows_json(document: dict[str, Any]) -> str:
    """Write a document with each row of its lists on a line, as grep likes it.

    Cost: 25 ms for 5,000 processes; ``indent`` leaves json's quick writer and takes 120.
    """
    parts = []
    for name, held in document.items():
        if isinstance(held, list) and held:
            rows = ",\n  ".join(map(json.dumps, held))
            parts.append(f" {json.dumps(name)}: [\n  {rows}\n ]")
        else:
            parts.append(f" {json.dumps(name)}: {json.dumps(held)}")
    return "{\n" + ",\n".join(parts) + "\n}"


def _nobody(scene: Scene, above: int) -> str:
    if not scene.look.scored:
        return "No process can be seen here."
    best = max((one.points for one in scene.look.scored if one.points is not None), default=None)
    highest = "no score can be read" if best is None else f"the highest is {best}"
    return f"No process has a score above {above}; {highest}."
