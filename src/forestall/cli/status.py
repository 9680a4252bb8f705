"""``forestall status``: how memory stands, and what the guard would do."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import click
from rich.live import Live
from rich.text import Text

from forestall.cli.console import out, safe
from forestall.cli.link import connect
from forestall.config.conditions import SIGNALS
from forestall.core.units import human_bytes, human_ns, human_share

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    Status = Mapping[str, Any]

_LEVEL_STYLES = {"normal": "green", "low": "cyan", "medium": "yellow", "critical": "bold red"}
_STAGE_STYLES = {"warn": "yellow", "relieve": "yellow", "terminate": "red", "kill": "bold red"}
_TAKES = {form.signal.value: form.takes for form in SIGNALS}
UNKNOWN = "unknown"
_INDENT = " " * 11
"""As wide as what stands before a line's content."""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print what the guard says, as JSON.")
@click.option("--watch", is_flag=True, help="Keep showing; Ctrl-C stops.")
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3600),
    default=1.0,
    show_default=True,
    metavar="S",
    help="Between two looks of --watch, in seconds.",
)
@click.option("--socket", metavar="PATH", help="Where the guard listens.")
@click.pass_context
def command(
    ctx: click.Context, as_json: bool, watch: bool, interval: float, socket: str | None
) -> None:
    """Show how memory stands, and what the guard would do.

    Ends with 1 when the level is critical, with 5 when no guard answers.
    """
    console = out()
    with connect(socket) as guard:
        status = guard.call("GetStatus").get("status", {})
        if as_json and not watch:
            click.echo(json.dumps(status, indent=2, sort_keys=True))
        elif not watch:
            console.print(render(status))
        elif as_json:
            while True:
                click.echo(json.dumps(status, sort_keys=True))
                time.sleep(interval)
                status = guard.call("GetStatus").get("status", {})
        else:
            _follow(guard.call, status, console, interval)
    ctx.exit(1 if status.get("level") == "critical" else 0)


def _follow(call: Any, status: Status, console: Console, interval: float) -> None:  # noqa: ANN401 - Client.call
    with Live(fitted(status, console), console=console, auto_refresh=False, screen=False) as live:
        while True:
            time.sleep(interval)
            live.update(fitted(call("GetStatus").get("status", {}), console), refresh=True)


def fitted(status: Status, console: Console) -> Text:
    """Render a status for a terminal's width: what would be cut off goes on below, indented."""
    lines: list[Text] = []
    for line in render(status).split(allow_blank=True):
        if line.cell_len <= console.width:
            lines.append(line)
            continue
        first, *others = line.wrap(console, max(20, console.width - len(_INDENT)))
        lines += [first, *(Text(_INDENT) + other for other in others)]
    return Text("\n").join(lines)


def render(status: Status) -> Text:
    """Write a status for people; what is missing is shown as unknown."""
    lines = [_level_line(status), *_memory_lines(status), _next_line(status)]
    lines += [_loop_line(one) for one in status.get("restart_loops") or ()]
    lines.append(Text())
    for trigger in status.get("triggers") or ():
        lines += _trigger_lines(trigger)
    lines += _group_lines(status.get("groups") or ())
    lines += [_waiting_line(one) for one in status.get("waiting") or ()]
    lines += _guard_lines(status.get("guard") or {})
    return Text("\n").join(lines)


def _level_line(status: Status) -> Text:
    level = safe(status.get("level", UNKNOWN))
    line = Text("level      ") + Text(level, style=_LEVEL_STYLES.get(level, ""))
    hunt = status.get("hunt")
    if hunt and hunt != "calm":
        line.append(f", {safe(hunt)}", style="bold")
    return line


def _memory_lines(status: Status) -> list[Text]:
    memory = status.get("memory")
    if not memory:
        return [Text(f"memory     {UNKNOWN}")]
    used = memory.get("used_share")
    share = f"{human_share(used)} used of " if isinstance(used, float | int) else ""
    lines = [
        Text(
            f"memory     {share}{_bytes(memory.get('total_bytes'))}, "
            f"{_bytes(memory.get('available_bytes'))} available"
        )
    ]
    if memory.get("swap_total_bytes"):
        text = (
            f"{_bytes(memory.get('swap_free_bytes'))} free of {_bytes(memory['swap_total_bytes'])}"
        )
        if memory.get("swap_usable_bytes") != memory.get("swap_free_bytes"):
            text += f", worth {_bytes(memory.get('swap_usable_bytes'))}"
        lines.append(Text(f"swap       {text}"))
    else:
        lines.append(Text("swap       none"))
    return lines


def _next_line(status: Status) -> Text:
    following = status.get("next_to_go")
    if not following or following.get("pid") is None:
        why = f": {safe(following['why'])}" if following and following.get("why") else ""
        return Text(f"next to go nobody{why}")
    count = following.get("processes") or 1
    family = f" and {count - 1} more" if count > 1 else ""
    age = following.get("age_ns")
    seen = f", seen {human_ns(age)} ago" if isinstance(age, int) else ""
    line = Text("next to go ")
    line.append(safe(following.get("name")), style="bold")
    line.append(
        f" ({following['pid']}){family}, frees {_bytes(following.get('frees_bytes'))}{seen}"
    )
    if following.get("why"):
        line.append(f"\n           {safe(following['why'])}", style="dim")
    return line


def _loop_line(loop: Status) -> Text:
    span, age = loop.get("span_ns"), loop.get("age_ns")
    within = f" in {human_ns(span)}" if isinstance(span, int) else ""
    last = f", last {human_ns(age)} ago" if isinstance(age, int) else ""
    line = Text("comes back ", style="red")
    line.append(safe(loop.get("name", UNKNOWN)), style="bold")
    line.append(f" was ended {safe(loop.get('times', UNKNOWN))} times{within}{last}")
    if loop.get("advice"):
        line.append(f"\n           {safe(loop['advice'])}", style="dim")
    return line


def _trigger_lines(trigger: Status) -> list[Text]:
    stage = safe(trigger.get("stage", UNKNOWN))
    holds = bool(trigger.get("holds"))
    head = Text("● " if holds else "○ ", style=_STAGE_STYLES.get(stage, "") if holds else "dim")
    head.append(f"{safe(trigger.get('name')):<18}", style="bold" if holds else "")
    head.append(f"{stage:<10}", style=_STAGE_STYLES.get(stage, "") if holds else "dim")
    parts = [_condition_text(one) for one in trigger.get("conditions") or ()]
    head.append("; ".join(parts), style="" if holds else "dim")
    return [head]


def _group_lines(groups: Sequence[Status]) -> list[Text]:
    """Show the limited control groups that are past half of their limit, the fullest first."""
    rows = []
    for group in groups:
        limit, room = group.get("limit_bytes"), group.get("room_bytes")
        if not isinstance(limit, int) or not isinstance(room, int) or room >= limit // 2:
            continue
        left = group.get("left_ns")
        when = f", about {human_ns(left)} at this pace" if isinstance(left, int) else ""
        line = Text(
            f"group      {safe(group.get('path'))}: {_bytes(max(0, room))} left of its own "
            f"{_bytes(limit)}{when}"
        )
        rows.append((room / limit if limit else 0.0, line))
    return [line for _, line in sorted(rows, key=lambda one: one[0])]


def _waiting_line(unit: Status) -> Text:
    """Show a unit that waits for memory, and what it reads back."""
    share = unit.get("stall_some_share")
    waits = human_share(share) if isinstance(share, int | float) else UNKNOWN
    again = unit.get("refault_bytes_per_s")
    reads = f", reads back {human_bytes(again)} a second" if isinstance(again, int) else ""
    return Text(
        f"waits      {safe(unit.get('path', UNKNOWN))}: for memory {waits} of the time{reads}",
        style="yellow",
    )


def _condition_text(condition: Status) -> str:
    signal = str(condition.get("signal"))
    window = condition.get("window_ns")
    name = signal + (f"[{human_ns(window).replace(' ', '')}]" if window else "")
    sign = "<" if condition.get("below") else ">"
    if signal == "swap_free" and condition.get("limit") == 0:
        return "no swap"
    now = _amount(signal, condition.get("now"))
    return f"{safe(name)} {now} ({sign} {_amount(signal, condition.get('limit'))})"


def _amount(signal: str, number: float | None) -> str:
    if not isinstance(number, int | float):
        return UNKNOWN
    match _TAKES.get(signal):
        case "limit":
            return human_bytes(number)
        case "share":
            return human_share(number)
        case "duration":
            return human_ns(number)
    return f"{human_bytes(number)}/s"


def _guard_lines(guard: Status) -> list[Text]:
    if not guard:
        return []
    mode = "dry run, nobody is touched" if guard.get("dry_run") else "guarding"
    if guard.get("only_uid") is not None:
        mode += f", processes of uid {guard['only_uid']} only"
    late = guard.get("late_ns_max")
    lines = [
        Text(),
        Text(
            f"guard      pid {safe(guard.get('pid', UNKNOWN))}, {mode}; "
            f"{safe(guard.get('samples', UNKNOWN))} samples, latest by "
            f"{human_ns(late) if isinstance(late, int) else UNKNOWN}"
        ),
    ]
    for lack in guard.get("lacks") or ():
        lines.append(Text("degraded   ", style="yellow") + Text(safe(lack)))
    return lines


def _bytes(size_bytes: float | None) -> str:
    return human_bytes(size_bytes) if isinstance(size_bytes, int | float) else UNKNOWN
