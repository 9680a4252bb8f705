"""The cleanups by name: ``page-cache``, ``swap``, ``reclaim``, ``cgroup PATH``.

Rule: nothing is raised but our own mistakes; what cannot be read or done is a
refusal with its reason.
"""

from __future__ import annotations

from forestall.core.units import human_bytes
from forestall.core.value import TYPE_CHECKING
from forestall.kernel.errors import KernelError
from forestall.relief import cgroup, page_cache, swap
from forestall.relief.outcome import Done, Refusal
from forestall.relief.tools import Tools

if TYPE_CHECKING:
    from collections.abc import Callable

    from forestall.relief.outcome import Outcome, Plan

UNKNOWN = "there is no such cleanup; name page-cache, swap, reclaim or cgroup PATH"


def plan(
    action: str, *, tools: Tools | None = None, want_bytes: int | None = None
) -> Plan | Refusal:
    """Say what a cleanup would gain, or why it would harm."""
    match action.split(" ", 1):
        case ["page-cache"]:
            return _guarded(action, page_cache.plan, tools)
        case ["swap"]:
            return _guarded(action, swap.plan, tools)
        case ["reclaim"]:
            return _guarded(action, cgroup.plan_cold, tools)
        case ["cgroup", path]:
            return _guarded(
                action, lambda with_: cgroup.plan(with_, path, want_bytes=want_bytes), tools
            )
    return Refusal(action, UNKNOWN)


def perform(action: str, *, tools: Tools | None = None, want_bytes: int | None = None) -> Outcome:
    """Carry a cleanup out and say what it really gained."""
    match action.split(" ", 1):
        case ["page-cache"]:
            return _guarded(action, page_cache.perform, tools)
        case ["swap"]:
            return _guarded(action, swap.perform, tools)
        case ["reclaim"]:
            return _guarded(action, cgroup.perform_cold, tools)
        case ["cgroup", path]:
            return _guarded(
                action, lambda with_: cgroup.perform(with_, path, want_bytes=want_bytes), tools
            )
    return Refusal(action, UNKNOWN)


def describe(outcome: Outcome) -> dict[str, object]:
    """Return plain data, for JSON and for the guard."""
    if isinstance(outcome, Done):
        return {
            "op": "relieved",
            "action": outcome.action,
            "gained_bytes": outcome.gained_bytes,
            "sentence": outcome.sentence,
            "gained": human_bytes(outcome.gained_bytes),
        }
    return {"op": "declined", "action": outcome.action, "why": outcome.why}


if TYPE_CHECKING:
    from typing import TypeVar

    T = TypeVar("T")


def _guarded(action: str, do: Callable[[Tools], T], tools: Tools | None) -> T | Refusal:
    try:
        if tools is not None:
            return do(tools)
        own = Tools()
        try:
            return do(own)
        finally:
            own.close()
    except (OSError, KernelError) as error:
        return Refusal(action, str(error))
