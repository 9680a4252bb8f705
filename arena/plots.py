"""Plots as small hand-written SVG files that read well on any background.

Rule: text in, text out; no drawing library, no script, no external font.
"""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from arena.figures import Cell, Sheet

COLOURS = {
    "none": "#8c8c8c",
    "earlyoom": "#d95f02",
    "nohang": "#7570b3",
    "systemd-oomd": "#1b9e77",
    "oomd": "#b8860b",
    "forestall": "#d6006c",
}
"""One per guard, distinct also in print; forestall is drawn last and larger."""

_ROW = 18
_LEFT = 110
_WIDTH = 760
_TOP = 44
_LOW_MS, _HIGH_MS = 10.0, 60_000.0


def _document(width: float, height: float, parts: Sequence[str], title: str) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        f'font-family="sans-serif" font-size="11" role="img">'
        f"<title>{escape(title)}</title>"
        f'<rect width="{width:g}" height="{height:g}" fill="#ffffff"/>'
    )
    return "\n".join([head, *parts, "</svg>"]) + "\n"


def _text(x: float, y: float, words: str, *, anchor: str = "start") -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(words)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="#dddddd"/>'


def _legend(guards: Sequence[str], y: float) -> list[str]:
    parts = []
    for index, guard in enumerate(guards):
        x = _LEFT + index * 105
        parts += [
            f'<circle cx="{x}" cy="{y - 4:g}" r="4" fill="{COLOURS[guard]}"/>',
            _text(x + 8, y, guard),
        ]
    return parts


def _span(ms: int) -> str:
    return f"{ms} ms" if ms < 1000 else f"{ms // 1000} s"


def _stall_x(stall_ms: float) -> float:
    clamped = min(max(stall_ms, _LOW_MS), _HIGH_MS)
    share = math.log10(clamped / _LOW_MS) / math.log10(_HIGH_MS / _LOW_MS)
    return round(_LEFT + share * (_WIDTH - _LEFT - 20), 1)


def stalls(sheet: Sheet, scenarios: Sequence[str], guards: Sequence[str]) -> str:
    """Draw the longest stall of every scenario and guard, on a logarithmic scale.

    A hollow mark says that the guard did not pass.
    """
    shown = [name for name in scenarios if any(sheet.cell(name, guard) for guard in guards)]
    height = _TOP + _ROW * len(shown) + 24
    parts = _legend(guards, 16)
    for mark in (10, 30, 100, 300, 1000, 3000, 10_000, 30_000):
        x = _stall_x(mark)
        parts += [
            _line(x, _TOP - 8, x, height - 20),
            _text(x, height - 6, _span(mark), anchor="middle"),
        ]
    for row, name in enumerate(shown):
        y = _TOP + row * _ROW
        parts.append(_text(_LEFT - 12, y + 4, name, anchor="end"))
        for guard in guards:
            cell = sheet.cell(name, guard)
            if cell is not None and cell.stall_ms is not None:
                parts.append(_mark(_stall_x(cell.stall_ms), y, cell))
    title = f"Longest stall of the watched service, {sheet.guest}; hollow: not passed"
    return _document(_WIDTH, height, parts, title)


def _mark(x: float, y: float, cell: Cell) -> str:
    colour = COLOURS[cell.guard]
    fill = colour if cell.verdict == "pass" else "none"
    radius = 5 if cell.guard == "forestall" else 4
    words = f"{cell.guard}: {cell.stall_ms:g} ms, {cell.verdict}"
    return (
        f'<circle cx="{x:g}" cy="{y:g}" r="{radius}" fill="{fill}" stroke="{colour}" '
        f'stroke-width="1.5"><title>{escape(words)}</title></circle>'
    )


def memory(cells: Mapping[str, Cell], title: str) -> str:
    """Draw MemAvailable over time, one line per guard, a cross for every death.

    Args:
        cells: guard to its runs; the first run is drawn.
        title: what the plot shows.
    """
    width, height, left, top = 760.0, 240.0, 48.0, 34.0
    runs = {guard: cell.runs[0].run for guard, cell in cells.items() if cell.runs[0].run.series}
    span = max((run.series[-1][0] for run in runs.values()), default=1.0)
    peak = max((mib for run in runs.values() for _, mib in run.series), default=1.0)

    def at(seconds: float, mib: float) -> tuple[float, float]:
        x = left + seconds / span * (width - left - 16)
        return round(x, 1), round(top + (1 - mib / peak) * (height - top - 28), 1)

    parts = [
        _text(left, height - 6, "0 s"),
        _text(width - 16, height - 6, f"{span:g} s", anchor="end"),
    ]
    parts += [
        _line(*at(0, peak * share), *at(span, peak * share))
        for share in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    parts += [
        _text(left - 6, at(0, peak * share)[1] + 4, f"{peak * share:.0f}", anchor="end")
        for share in (0.0, 0.5, 1.0)
    ]
    for index, (guard, run) in enumerate(runs.items()):
        points = " ".join("{:g},{:g}".format(*at(*point)) for point in run.series)
        stroke = f'fill="none" stroke="{COLOURS[guard]}" stroke-width="1.5"'
        parts.append(f'<polyline points="{points}" {stroke}/>')
        for death in run.deaths[:20]:
            x, _ = at(min(death.at_s, span), 0)
            y = top + 8 + index * 10
            words = f"{guard}: {death.role or death.program} by {death.by}"
            cross = f"M{x - 3:g} {y - 3:g}l6 6m0-6l-6 6"
            parts.append(f'<path d="{cross}" {stroke}><title>{escape(words)}</title></path>')
    parts += _legend(list(runs), 16)
    return _document(width, height, parts, title)
