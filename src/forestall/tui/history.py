"""The last minutes, kept small, and drawn as a line of block characters. Pure."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from forestall.core.model import ProcessId
    from forestall.inspect.looking import Scored
    from forestall.tui.source import Moment

MOMENTS_MAX = 300
BLOCKS = "▁▂▃▄▅▆▇█"
ASCII_BLOCKS = "_.-=+*%#"
UNKNOWN = "·"
"""Where a moment is missing; never drawn as zero."""


class History:
    """What was seen at the last looks."""

    def __init__(self, moments_max: int = MOMENTS_MAX) -> None:
        self._moments_max = moments_max
        self.used: deque[float | None] = deque(maxlen=moments_max)
        self.stall: deque[float | None] = deque(maxlen=moments_max)
        self._sizes: dict[ProcessId, deque[float | None]] = {}
        self.span_ns = 0
        self._began_ns: deque[int] = deque(maxlen=moments_max)

    def add(self, moment: Moment) -> None:
        """Take a moment in; processes that are gone are forgotten."""
        memory = moment.scene.memory
        self.used.append(None if memory is None else memory.used_share)
        self.stall.append(moment.stall_share)
        self._began_ns.append(moment.scene.now_ns)
        self.span_ns = moment.scene.now_ns - self._began_ns[0]
        sizes = {}
        for one in moment.scene.look.scored:
            line = self._sizes.get(one.id) or deque(maxlen=self._moments_max)
            line.append(held(one))
            sizes[one.id] = line
        self._sizes = sizes

    def of(self, process: ProcessId) -> Sequence[float | None]:
        """Return a process's sizes, the oldest first; empty if it was never seen."""
        return tuple(self._sizes.get(process, ()))


def held(one: Scored) -> float | None:
    """What a process holds for itself: anonymous memory and swap."""
    if one.anon_bytes is None or one.swap_bytes is None:
        return None
    return one.anon_bytes + one.swap_bytes


def draw(
    numbers: Iterable[float | None],
    width: int,
    *,
    top: float | None = None,
    blocks: str = BLOCKS,
) -> str:
    """Draw the last numbers as a line; without a top, the largest fills a cell."""
    last = list(numbers)[-width:] if width > 0 else []
    known = [number for number in last if number is not None]
    highest = top if top is not None else max(known, default=0.0)
    cells = []
    for number in last:
        if number is None:
            cells.append(UNKNOWN)
        else:
            share = number / highest if highest > 0 else 0.0
            cells.append(blocks[min(len(blocks) - 1, max(0, int(share * len(blocks))))])
    return "".join(cells)
