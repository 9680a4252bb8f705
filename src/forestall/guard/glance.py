"""Small readings the daemon needs: relief's news, the v2 hierarchy, the terminal's width."""

from __future__ import annotations

import os

from forestall.core.events import Declined, Relieved
from forestall.core.value import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from forestall.core.events import Event

USUAL_COLUMNS = 80


def relief_event(message: dict[str, Any], moment_ns: int) -> Event | None:
    """Turn what relief said into news for the policy; None for what only relief cares about."""
    match message.get("op"):
        case "relieved":
            sentence = str(message.get("sentence", ""))
            return Relieved(
                moment_ns, str(message["action"]), int(message["gained_bytes"]), sentence
            )
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


def columns(fd: int) -> int:
    """Ask a terminal how wide it is now; 80 where it does not say."""
    try:
        return os.get_terminal_size(fd).columns or USUAL_COLUMNS
    except OSError:
        return USUAL_COLUMNS
