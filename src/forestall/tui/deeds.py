"""What can be done from the live screen, how it is asked about, and how it is undone. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from forestall.core.sentence import plain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from forestall.core.model import ProcessId
    from forestall.inspect.looking import Scored

UNDO_MAX = 100
ADJ_MAX = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """One call to the guard, in words for who is asked."""

    method: str
    process: ProcessId
    question: str
    done: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    undoable: bool = True


def end(one: Scored) -> Deed:
    """End a process; this cannot be undone."""
    who = _who(one)
    return Deed(
        method="End",
        process=one.id,
        question=f"End {who} now? It is asked to stop (SIGTERM). This cannot be undone.",
        done=who,  # what came of it follows, in the guard's words
        undoable=False,
    )


def set_adj(one: Scored, adj: int, *, root: bool) -> Deed:
    """Write a process's oom_score_adj.

    Args:
        root: Whether we are root, who may also lower it again.
    """
    who = _who(one)
    one_way = not root and adj > (one.oom_score_adj or 0)
    return Deed(
        method="SetAdj",
        process=one.id,
        question=f"Set oom_score_adj of {who} from {one.oom_score_adj} to {adj}?"
        + ("\nOnly root can lower it again." if one_way else ""),
        done=f"oom_score_adj of {who} is {adj}",
        parameters={"adj": adj},
    )


def protect(one: Scored) -> Deed:
    """Tell the guard never to end a process."""
    return _standing(one, "never", "Never end {}, as long as this guard runs?", "{} is protected")


def prefer(one: Scored) -> Deed:
    """Tell the guard to end a process before others."""
    return _standing(
        one, "prefer", "If somebody must go, end {} before others?", "{} goes before others"
    )


def undoing(deed: Deed, answer: Mapping[str, Any]) -> Deed | None:
    """Make the deed that takes another one back, from what the guard said was there before."""
    if not deed.undoable or "before" not in answer:
        return None
    key = "adj" if deed.method == "SetAdj" else "standing"
    return Deed(
        method=deed.method,
        process=deed.process,
        question=f"Undo: {deed.done}?",
        done=f"undone: {deed.done}",
        parameters={key: answer["before"]},
        undoable=False,
    )


def parse_adj(text: str) -> int | None:
    """Read an oom_score_adj that somebody typed; None if it is none."""
    try:
        adj = int(text.strip())
    except ValueError:
        return None
    return adj if -ADJ_MAX <= adj <= ADJ_MAX else None


def _standing(one: Scored, standing: str, question: str, done: str) -> Deed:
    who = _who(one)
    return Deed(
        method="SetStanding",
        process=one.id,
        question=question.format(who),
        done=done.format(who),
        parameters={"standing": standing},
    )


def _who(one: Scored) -> str:
    return f"{plain(one.name)} ({one.id.pid})"
