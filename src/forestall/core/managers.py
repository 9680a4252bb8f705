"""Which unit's manager is to be told that its unit went for want of memory.

systemd takes a unit for ended that way when its cgroup says so. With the usual
``OOMPolicy=stop`` it then stops all of the unit, so this is said only where the
unit ends anyway: when its main process is ended, or all of it. When a worker of
a service is ended and the service goes on, its manager is told nothing, for it
would end the rest; the journal's entry names the unit all the same.
"""

from __future__ import annotations

from forestall.core.families import application_of
from forestall.core.model import Row
from forestall.core.value import TYPE_CHECKING

if TYPE_CHECKING:
    from forestall.core.families import Part

MANAGER = "systemd"
"""What managers of users, and those in containers, call themselves."""


def unit_to_tell(part: Part, rows: tuple[Row, ...]) -> str:
    """Return the cgroup of the unit that ends with this part; empty when none does."""
    unit = application_of(part.root.cgroup)
    if not unit:
        return ""
    ended = {row.id for row in part.members}
    inside = [
        row for row in rows if row.cgroup.startswith(unit) and application_of(row.cgroup) == unit
    ]
    if part.kind == "unit" or all(row.id in ended for row in inside):
        return unit
    if not unit.endswith(".service"):
        return ""  # a scope has no main process
    main = _main(inside, rows)
    return unit if main is not None and main.id in ended else ""


def system_unit(cgroup: str) -> str:
    """Name the system manager's unit that a cgroup belongs to; empty for a user's own units."""
    if "/user@" in cgroup:
        return ""
    return application_of(cgroup).rpartition("/")[2]


def _main(inside: list[Row], rows: tuple[Row, ...]) -> Row | None:
    """Find the main process: of those the manager started, or was left with, the eldest.

    One too small for a row is here still when a larger one descends from it; where it does not,
    an orphan may be taken for it.
    """
    managers = {row.id.pid for row in rows if row.comm == MANAGER} | {1}
    started = [row for row in inside if row.parent_pid in managers]
    return min(started, key=lambda row: (row.id.start_ticks, row.id.pid), default=None)
