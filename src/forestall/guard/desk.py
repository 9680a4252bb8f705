"""What the guard answers at its control socket: plain dicts for people and programs.

Rule: everyone may ask how things stand; foreign command lines are never told,
and names are made harmless where they leave.
"""

from __future__ import annotations

import os

from forestall.control.errors import Refused
from forestall.control.messages import (
    FAILED,
    INVALID_PARAMETER,
    NO_SUCH_PROCESS,
    PERMISSION_DENIED,
    RULES_REFUSED,
)
from forestall.core.codec import decode
from forestall.core.errors import CodecError, ForestallError
from forestall.core.events import End, Gone
from forestall.core.model import Force, ProcessId, Standing
from forestall.core.refaults import READER_PAGES_PER_S, rising
from forestall.core.repeats import advice, loops
from forestall.core.rules import Rules
from forestall.core.sentence import plain
from forestall.core.signals import measure
from forestall.core.units import PAGE_BYTES, SECOND, US
from forestall.core.value import TYPE_CHECKING
from forestall.effects.adjust import Denied
from forestall.kernel.errors import KernelError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from forestall.control.connection import Peer
    from forestall.core.rules import Condition
    from forestall.core.state import State
    from forestall.effects.adjust import Adjusted
    from forestall.guard.loop import Loop


WAITING_SHARE = 0.01
"""Who waits for less of the time does not feel it."""
WAITING_MAX = 8


def status_of(state: State, rules: Rules, now_ns: int) -> dict[str, Any]:
    """Say how things stand, in numbers with their units in the names."""
    memory = state.memory
    prospect = state.prospect
    status: dict[str, Any] = {
        "level": state.level.value,
        "hunt": type(state.hunt).__name__.lower(),
        "triggers": [
            {
                "name": trigger.name,
                "stage": trigger.stage.value,
                "holds": since is not None,
                "conditions": [_condition(condition, state) for condition in trigger.conditions],
            }
            for trigger, since in zip(rules.triggers, state.holding, strict=False)
        ],
        "next_to_go": None,
        "groups": [
            {
                "path": plain(track.path),
                "limit_bytes": track.limit_bytes,
                "room_bytes": track.room_bytes,
                "left_ns": track.left_ns,
                "stall_full_share": track.stall_share,
                "soft": track.soft,
            }
            for track in state.groups
        ],
    }
    if memory is not None:
        status["memory"] = {
            "total_bytes": memory.total_bytes,
            "available_bytes": memory.available_bytes,
            "used_share": round(memory.used_share, 4),
            "swap_total_bytes": memory.swap_total_bytes,
            "swap_free_bytes": memory.swap_free_bytes,
            "swap_usable_bytes": memory.swap_usable_bytes,
        }
    if prospect is not None:
        status["next_to_go"] = {
            "pid": prospect.victim.pid if prospect.victim else None,
            "start_ticks": prospect.victim.start_ticks if prospect.victim else None,
            "name": plain(prospect.comm) if prospect.victim else None,
            "processes": prospect.count,
            "frees_bytes": prospect.frees_bytes,
            "why": prospect.why,
            "age_ns": now_ns - prospect.now_ns,
        }
    status["waiting"] = _waiting(state, now_ns)
    status["restart_loops"] = [
        {
            "name": plain(one.name),
            "times": one.times,
            "span_ns": one.last_ns - one.first_ns,
            "age_ns": now_ns - one.last_ns,
            "advice": advice(one),
        }
        for one in loops(state, now_ns)
    ]
    return status


def _waiting(state: State, now_ns: int) -> list[dict[str, Any]]:
    """List the units that wait for memory or read much back, those that wait most first."""
    found: list[dict[str, Any]] = []
    for path, rates in state.census.groups.items():
        share = (rising(rates.stall_some_us, now_ns) or 0.0) * US / SECOND
        pages_per_s = rising(rates.refault_pages, now_ns)
        if share >= WAITING_SHARE or (pages_per_s or 0.0) >= READER_PAGES_PER_S:
            found.append(
                {
                    "path": plain(path),
                    "stall_some_share": round(min(1.0, share), 4),
                    "refault_bytes_per_s": None
                    if pages_per_s is None
                    else round(pages_per_s * PAGE_BYTES),
                }
            )
    return sorted(found, key=lambda one: one["stall_some_share"], reverse=True)[:WAITING_MAX]


def _condition(condition: Condition, state: State) -> dict[str, Any]:
    memory = state.memory
    now = measure(condition, state.trail, state.now_ns, memory) if memory else None
    limit: float = condition.number
    if memory is not None and condition.amount is not None:
        swap = condition.signal.value == "swap_free"
        limit = condition.amount.of(memory.swap_total_bytes if swap else memory.total_bytes)
    return {
        "signal": condition.signal.value,
        "below": condition.below,
        "limit": limit,
        "now": now,
        "window_ns": condition.window_ns,
    }


class Desk:
    """The handlers of the control socket.

    Args:
        loop: Whose state is told, and whose rules are changed.
        facts: What else status tells: the daemon's own counters and abilities.
        reloaded: Called with the rules that are now in force.
        perform: Ends a process for a person.
        identify: Who holds a PID now.
        adjust: Writes a process's oom_score_adj; the last argument forbids to lower it.
        mark: Gives a process a standing until it ends, None to take it back; returns the one
            it had that way before.
    """

    def __init__(  # noqa: PLR0913 - seams are parameters
        self,
        loop: Loop,
        *,
        now_ns: Callable[[], int],
        facts: Callable[[], dict[str, Any]],
        reloaded: Callable[[Rules], None],
        perform: Callable[[End, int], list[Any]],
        identify: Callable[[int], ProcessId],
        adjust: Callable[[ProcessId, int, bool], Adjusted | Denied],
        mark: Callable[[ProcessId, Standing | None, str], Standing | None],
    ) -> None:
        self._loop = loop
        self._now_ns = now_ns
        self._facts = facts
        self._reloaded = reloaded
        self._perform = perform
        self._identify = identify
        self._adjust = adjust
        self._mark = mark

    def handlers(self) -> dict[str, Callable[[dict[str, Any], Peer], dict[str, Any]]]:
        """The table the server calls."""
        return {
            "GetStatus": self._get_status,
            "Reload": self._reload,
            "End": self._end,
            "SetAdj": self._set_adj,
            "SetStanding": self._set_standing,
        }

    def _get_status(self, _parameters: dict[str, Any], _peer: Peer) -> dict[str, Any]:
        status = status_of(self._loop.state, self._loop.rules, self._now_ns())
        status["guard"] = self._facts()
        return {"status": status}

    def _reload(self, parameters: dict[str, Any], _peer: Peer) -> dict[str, Any]:
        try:
            rules = decode(parameters.get("rules"))
            if not isinstance(rules, Rules):
                raise CodecError("not rules")
            # Fields of a wrong type show only when they are used: not in an emergency, please.
            why = self._loop.trial(rules)
            if why is not None:
                raise CodecError(why)
            self._reloaded(rules)
        except (ForestallError, OSError, ValueError, TypeError) as error:
            raise Refused(RULES_REFUSED, {"reason": plain(str(error))[:200]}) from None
        return {"triggers": len(rules.triggers)}

    def _end(self, parameters: dict[str, Any], peer: Peer) -> dict[str, Any]:
        victim = self._theirs(parameters, peer)
        end = End((victim,), Force.TERM, f"asked for by uid {peer.uid}", "", 0)
        news = self._perform(end, self._now_ns())
        if not news:
            return {"outcome": "asked to end"}
        return {"outcome": "gone" if isinstance(news[0], Gone) else f"refused: {news[0].why}"}

    def _set_adj(self, parameters: dict[str, Any], peer: Peer) -> dict[str, Any]:
        adj = parameters.get("adj")
        if type(adj) is not int or not -1000 <= adj <= 1000:
            raise Refused(INVALID_PARAMETER, {"parameter": "adj"})
        process = self._theirs(parameters, peer)
        answer = self._adjust(process, adj, peer.uid != 0)
        if not isinstance(answer, Denied):
            return {"before": answer.before}
        if answer.gone:
            raise Refused(NO_SUCH_PROCESS, {"pid": process.pid})
        raise Refused(FAILED, {"reason": answer.why})

    def _set_standing(self, parameters: dict[str, Any], peer: Peer) -> dict[str, Any]:
        wanted = parameters.get("standing")
        if wanted is not None and wanted not in _STANDINGS:
            raise Refused(INVALID_PARAMETER, {"parameter": "standing"})
        process = self._theirs(parameters, peer)
        standing = None if wanted is None else Standing(wanted)
        before = self._mark(process, standing, f"asked for by uid {peer.uid}")
        return {"before": None if before is None else before.value}

    def _theirs(self, parameters: dict[str, Any], peer: Peer) -> ProcessId:
        """Return the process that is meant, if it is there and the peer may decide about it."""
        pid, start = parameters.get("pid"), parameters.get("start_ticks")
        if type(pid) is not int or pid <= 1:
            raise Refused(INVALID_PARAMETER, {"parameter": "pid"})
        if type(start) is not int:
            raise Refused(INVALID_PARAMETER, {"parameter": "start_ticks"})
        process = ProcessId(pid, start)
        try:
            owner = os.stat(f"/proc/{pid}").st_uid
            same = self._identify(pid) == process
        except (OSError, KernelError):
            raise Refused(NO_SUCH_PROCESS, {"pid": pid}) from None
        if not same:
            raise Refused(NO_SUCH_PROCESS, {"pid": pid})
        if peer.uid not in {0, owner}:
            raise Refused(PERMISSION_DENIED)
        return process


_STANDINGS = frozenset(standing.value for standing in Standing)
