"""What the service needs beyond its unit to recycle swap, given only when the settings ask for it.

A drop-in of its own, so that ``systemctl cat forestall`` shows what was added and
why; ``install`` writes it, and takes it back when no trigger asks any more.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from forestall.admin.unit_file import UNIT_NAME, Line, render

if TYPE_CHECKING:
    from forestall.core.rules import Rules

ACTION = "swap"
"""As a trigger names it; relief has the same word."""
GRANT_FOLDER = f"/etc/systemd/system/{UNIT_NAME}.d"
GRANT_FILE = f"{GRANT_FOLDER}/50-forestall-swap.conf"

_GRANT = (
    Line(
        "CapabilityBoundingSet",
        "CAP_SYS_ADMIN CAP_SYS_CHROOT",
        "swapoff and swapon ask for the first; the second is for the mounts, see below.\n"
        "Both are added to those of the unit.",
    ),
    Line("SystemCallFilter", "@swap setns"),
    Line(
        "RestrictNamespaces",
        "mnt",
        "The helper enters the machine's own mounts: the kernel remembers the path by which an\n"
        "area was switched on, and one of this service's own mounts would die with it.",
    ),
    Line("DeviceAllow", "block-* rw", "Swap on a partition has its device opened again."),
)


def swap_triggers(rules: Rules) -> tuple[str, ...]:
    """Name the triggers at which relief is to recycle swap."""
    return tuple(trigger.name for trigger in rules.triggers if trigger.action == ACTION)


def missing_grant(rules: Rules, root: Path = Path("/")) -> str:
    """Say what to do if the rules ask for what the installed service may not; else nothing."""
    asked = swap_triggers(rules)
    installed = (root / f"etc/systemd/system/{UNIT_NAME}").exists()
    if not asked or not installed or (root / GRANT_FILE.lstrip("/")).exists():
        return ""
    return (
        f"{', '.join(asked)}: the service may not switch swap off and on yet; "
        "run forestall install once more"
    )


def render_swap_grant() -> str:
    """Return the text of the drop-in."""
    return render((("Service", (_GRANT,)),), {})
