"""Short views of what the daemon holds: a line for a person, news out of relief's messages."""

from __future__ import annotations

import os

from forestall.core.events import Declined, Relieved
from forestall.core.sentence import plain
from forestall.core.units import human_bytes, human_ns, human_share
from forestall.core.value import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from forestall.core.events import Event
    from forestall.core.state import State


def live_line(state: State) -> str:
    """One line about now: level, memory, stall, and who would go."""
    memory = state.memory
    assert memory is not None
    parts = [
        f"{state.level.value}: {human_share(memory.used_share)} of "
        f"{human_bytes(memory.total_bytes)} used, {human_bytes(memory.available_bytes)} available"
    ]
    if memory.swap_total_bytes:
        parts.append(f"swap {human_bytes(memory.swap_usable_bytes)} free")
    prospect = state.prospect
    if prospect is not None and prospect.victim is not None:
        age = human_ns(max(0, state.now_ns - prospect.now_ns))
        who = f"{plain(prospect.comm)} ({prospect.victim.pid})"
        parts.append(f"next to go {who}, {human_bytes(prospect.frees_bytes)}, seen {age} ago")
    return "; ".join(parts)


def relief_event(message: dict[str, Any], moment_ns: int) -> Event | None:
    """Turn what relief said into news for the policy; None for what only relief cares about."""
    match message.get("op"):
        case "relieved":
            return Relieved(moment_ns, str(message["action"]), int(message["gained_bytes"]))
        case "declined":
            return Declined(moment_ns, str(message["action"]), str(message["why"]))
        case "failed":
            return Declined(moment_ns, str(message.get("what")), str(message.get("why")))
    return None


def cgroup2_root() -> str:
    """Find where the v2 hierarchy is mounted, for cgroup.kill; empty without one."""
    for root in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
        if os.path.exists(f"{root}/cgroup.controllers"):
            return root
    return ""
