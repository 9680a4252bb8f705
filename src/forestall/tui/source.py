"""Where the live screen gets what it shows, and whom it asks to change something.

Rule: it changes nothing itself; every action is a call to the guard. All of it
blocks, so the screen calls it from a thread, one call at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from forestall.control.errors import ControlError, Refused
from forestall.inspect.explain import Explanation, explain
from forestall.kernel.errors import KernelError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from forestall.control.client import Client
    from forestall.core.model import Pressure, ProcessId
    from forestall.inspect.scores import Scene, Scores

LEADING = 200
"""So many rows of the flat table; a tree, a unit or a filter needs everybody."""
PLACES = 10
"""How far down the guard's order somebody who moves the cursor wants to know."""
PSS_BYTES_MAX = 2 << 30
"""The page tables of anything larger are not walked while somebody only moves the cursor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What the screen shows at one time."""

    scene: Scene
    stall_share: float | None
    """Time in which some task waited for memory, since the moment before; None if unknown."""
    may_act: bool
    why_not: str
    """Why nothing can be changed from here; empty if it can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Detail:
    """One process in full."""

    explanation: Explanation
    pss_bytes: int | None


class Source(Protocol):
    """What the screen needs; tests bring their own."""

    @property
    def root(self) -> bool:
        """Whether we are root."""
        ...

    def look(self, *, everybody: bool) -> Moment:
        """Look at everything once."""
        ...

    def detail(self, scene: Scene, pid: int) -> Detail | None:
        """Look closely at one process; None if it is gone."""
        ...

    def call(self, method: str, process: ProcessId, **parameters: object) -> dict[str, Any]:
        """Ask the guard for something; raises Refused or another ControlError."""
        ...


class Machine:
    """This machine and its guard.

    Args:
        connect: Connects to the guard; raises Unreachable.
        uid: Who we are: root, or the owner of the guard, may act.
    """

    def __init__(self, scores: Scores, connect: Callable[[], Client], *, uid: int) -> None:
        self._scores = scores
        self._connect = connect
        self._uid = uid
        self._pressure: tuple[int, Pressure] | None = None

    @property
    def root(self) -> bool:
        """Whether we are root."""
        return self._uid == 0

    def look(self, *, everybody: bool) -> Moment:
        """Look at everything once.

        Raises: OSError; KernelError.
        """
        status = self._status()
        scene = self._scores.look(portraits_max=None if everybody else LEADING, status=status)
        why_not = self._why_not(status)
        return Moment(
            scene=scene, stall_share=self._stall(scene), may_act=not why_not, why_not=why_not
        )

    def detail(self, scene: Scene, pid: int) -> Detail | None:
        """Look closely at one process; None if it is gone."""
        try:
            found = explain(self._scores, scene, pid, places_max=PLACES)
        except (OSError, KernelError):
            return None
        if found is None:
            return None
        small = (found.scored.rss_bytes or 0) <= PSS_BYTES_MAX and not scene.mark
        return Detail(
            explanation=found, pss_bytes=self._scores.looker.pss_bytes(pid) if small else None
        )

    def call(self, method: str, process: ProcessId, **parameters: object) -> dict[str, Any]:
        """Ask the guard for something.

        Raises: ControlError.
        """
        with self._connect() as guard:
            return guard.call(
                method, pid=process.pid, start_ticks=process.start_ticks, **parameters
            )

    def _status(self) -> dict[str, Any] | None:
        try:
            with self._connect() as guard:
                status = guard.call("GetStatus").get("status")
        except ControlError:
            return None
        return status if isinstance(status, dict) else None

    def _why_not(self, status: Mapping[str, Any] | None) -> str:
        if status is None:
            return "no guard runs, and only the guard changes anything"
        if self._uid == 0:
            return ""
        facts = status.get("guard")
        own = isinstance(facts, dict) and facts.get("only_uid") == self._uid
        return "" if own else "only root may change something"

    def _stall(self, scene: Scene) -> float | None:
        before, now = self._pressure, scene.pressure
        self._pressure = None if now is None else (scene.now_ns, now)
        if before is None or now is None or scene.now_ns <= before[0]:
            return None
        return min(1.0, (now.some_us - before[1].some_us) * 1000 / (scene.now_ns - before[0]))


def refusal(error: ControlError) -> str:
    """Say in words why the guard did not do it."""
    if not isinstance(error, Refused):
        return str(error)
    reason = error.parameters.get("reason")
    if reason:
        return str(reason)
    short = error.name.rpartition(".")[2]
    return {
        "NoSuchProcess": "that process is gone",
        "PermissionDenied": "that is not permitted to you",
        "MethodNotFound": "the running guard is too old for that",
        "MethodNotImplemented": "the running guard is too old for that",
    }.get(short, short)
