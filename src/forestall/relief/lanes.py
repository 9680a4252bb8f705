"""What is to be asked of each disk, and in which order.

A disk is a lane: one that is behind does not hold up what lies on another. In each
goes first what ranks first, then the smallest process.
"""

from __future__ import annotations

import os

from forestall.core.units import MS
from forestall.core.value import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeAlias

    from forestall.relief.ranges import Range

    Device: TypeAlias = tuple[int, int] | None

DRAIN_NS = 100 * MS
"""A disk that others keep busy for so long gets the next piece all the same."""


class Helped:
    """A process that is being helped; its descriptor is closed with the last of its ranges."""

    __slots__ = ("pidfd", "ranges", "swap_bytes")

    def __init__(self, pidfd: int, swap_bytes: int) -> None:
        self.pidfd = pidfd
        self.swap_bytes = swap_bytes
        self.ranges = 0
        """How many wait."""

    def close(self) -> None:
        """Close its descriptor; more than once does no harm."""
        fd, self.pidfd = self.pidfd, -1
        if fd >= 0:
            os.close(fd)


class _Turn:
    # A range in a lane, and how much of it has been asked for.
    __slots__ = ("at", "helped", "key", "range")

    def __init__(self, one: Range, helped: Helped, number: int) -> None:
        self.key = one.rank, helped.swap_bytes, number
        self.range = one
        self.helped = helped
        self.at = 0


class Lanes:
    """The lanes of one errand."""

    def __init__(self) -> None:
        self._turns: dict[Device, list[_Turn]] = {}
        """Whose turn it is comes last."""
        self._asked_ns: dict[Device, int] = {}
        self._number = 0

    def __bool__(self) -> bool:
        """Whether anything waits to be asked for."""
        return any(self._turns.values())

    def add(self, ranges: Iterable[Range], helped: Helped, now_ns: int) -> None:
        """Queue up what is to be read for a process."""
        for one in ranges:
            self._number += 1
            helped.ranges += 1
            self._asked_ns.setdefault(one.device, now_ns)
            self._turns.setdefault(one.device, []).append(_Turn(one, helped, self._number))
        for turns in self._turns.values():
            turns.sort(key=_key, reverse=True)
        if not helped.ranges:
            helped.close()

    def ask(
        self,
        now_ns: int,
        has_room: Callable[[Device], bool],
        advise: Callable[[int, int, int], int],
    ) -> list[int]:
        """Ask each disk that has room for one more piece.

        Args:
            has_room: Tells of a disk whether more may be asked of it.
            advise: ``libc.process_will_need``; its answers are returned.
        """
        answers = []
        for device, turns in self._turns.items():
            waited_ns = now_ns - self._asked_ns[device]
            if turns and (waited_ns >= DRAIN_NS or has_room(device)):
                self._asked_ns[device] = now_ns
                answers.append(_piece(turns, advise))
        return answers

    def clear(self) -> None:
        """Forget everything, and close every descriptor."""
        for turns in self._turns.values():
            for turn in turns:
                turn.helped.close()
            turns.clear()


def _key(turn: _Turn) -> tuple[int, int, int]:
    return turn.key


def _piece(turns: list[_Turn], advise: Callable[[int, int, int], int]) -> int:
    turn, one = turns[-1], turns[-1].range
    size_bytes = min(one.piece_bytes, one.size_bytes - turn.at)
    answer = advise(turn.helped.pidfd, one.start + turn.at, size_bytes)
    turn.at += size_bytes
    if turn.at >= one.size_bytes:
        turns.pop()
        turn.helped.ranges -= 1
        if not turn.helped.ranges:
            turn.helped.close()
    return answer
