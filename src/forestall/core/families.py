"""Parts that could be ended: single processes, families, application units.

A family is a subtree of the process tree, or orphans of one making; it is one
hog when it behaves as one. The tree is never climbed to what holds a session
together (login shells, multiplexers, compositors), to init, or to anything a
rule protects: what is above such a process is not a family but a machine.
"""

from __future__ import annotations

from forestall.core.model import Role, Row, Standing
from forestall.core.value import TYPE_CHECKING, value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ORPHANS_MIN = 3
"""So many nameless siblings under init or a session make a family of their own."""
CONTAINER_ID_DIGITS = 64
DEPTH_MAX = 64
"""A process tree deeper than this is treated as if cut there."""


@value
class Part:
    """Something that can be ended as one."""

    root: Row
    """The process it is named after: the subtree's root, or the largest member."""
    members: tuple[Row, ...]
    """Those that would be ended; protected members are not among them."""
    kind: str
    """process, family, orphans or unit"""
    blame: int
    frees_bytes: int
    cgroup: str = ""


def families(rows: tuple[Row, ...], blame: Callable[[Row], int]) -> list[Part]:
    """List every family and unit with two members or more, in no order.

    Cost: linear in rows times the depth of the tree; 0.6 ms for 300 rows.
    """
    by_pid = {row.id.pid: row for row in rows}
    members: dict[int, list[Row]] = {}
    for row in rows:
        if touchable(row):
            for root in _climb(row, by_pid):
                members.setdefault(root.id.pid, []).append(row)
    parts = [
        _part(by_pid[pid], kin, "family", blame) for pid, kin in members.items() if len(kin) > 1
    ]
    parts.extend(_orphans(rows, by_pid, blame))
    parts.extend(_units(rows, blame))
    return parts


def touchable(row: Row) -> bool:
    """Tell whether a process may be ended as a member of something larger."""
    standing = row.standing
    # Not "in {…}": to hash a member of an enumeration costs more than all else here.
    return (standing is Standing.NORMAL or standing is Standing.PREFER) and row.role is Role.NONE


def application_of(cgroup: str) -> str:
    """Return the path of the application, service or container that a cgroup lies in.

    The innermost that is one; groups that it keeps below itself (``Delegate=``, podman's
    ``libpod-….scope/container``) belong to it. Empty for what holds a session, for slices, and
    where there is none. Containers that no systemd knows of (Docker's and Kubernetes' cgroupfs
    driver: ``/docker/<id>``, ``/kubepods/…/<id>``) go by the 64 hexadecimal digits of their id.
    """
    path = cgroup
    while len(path) > 1:
        outer, _, part = path.rpartition("/")
        if part.startswith(("session-", "user@")) or part == "init.scope":
            return ""
        if part.endswith((".service", ".scope")) or _is_container_id(part):
            return path
        path = outer
    return ""


def unit_name(path: str) -> str:
    """Name an application for people; a container by twelve digits of its id, as Docker does."""
    leaf = path.rpartition("/")[2]
    stem = leaf.removesuffix(".scope")
    maker, dash, ident = stem.rpartition("-")
    if not _is_container_id(ident):
        return leaf
    return f"{maker}{dash}{ident[:12]}" if maker else f"container {ident[:12]}"


def _is_container_id(part: str) -> bool:
    return len(part) == CONTAINER_ID_DIGITS and not part.strip("0123456789abcdef")


def _climb(row: Row, by_pid: dict[int, Row]) -> Iterable[Row]:
    # The row itself, then each ancestor that may be ended too.
    current: Row | None = row
    for _ in range(DEPTH_MAX):
        if current is None or not touchable(current):
            return
        yield current
        current = by_pid.get(current.parent_pid)


def _orphans(
    rows: tuple[Row, ...], by_pid: dict[int, Row], blame: Callable[[Row], int]
) -> Iterable[Part]:
    # Children of something that cannot be ended itself, alike in name, owner and unit:
    # a storm whose maker has left, or jobs started side by side from one shell.
    alike: dict[tuple[int, str, int, str], list[Row]] = {}
    for row in rows:
        if not touchable(row):
            continue
        parent = by_pid.get(row.parent_pid)
        if parent is None or not touchable(parent):
            key = (row.parent_pid, row.comm, row.uid, row.cgroup)
            alike.setdefault(key, []).append(row)
    for kin in alike.values():
        if len(kin) >= ORPHANS_MIN:
            yield _part(max(kin, key=_size), kin, "orphans", blame)


def _units(rows: tuple[Row, ...], blame: Callable[[Row], int]) -> Iterable[Part]:
    units: dict[str, list[Row]] = {}
    found: dict[str, str] = {}
    for row in rows:
        unit = found.get(row.cgroup)
        if unit is None:
            unit = found[row.cgroup] = application_of(row.cgroup)
        if unit:
            units.setdefault(unit, []).append(row)
    for cgroup, kin in units.items():
        # One protected or session-holding member, and the unit is not an application.
        if len(kin) > 1 and all(touchable(row) for row in kin):
            yield _part(max(kin, key=_size), kin, "unit", blame, cgroup)


def _part(
    root: Row, kin: list[Row], kind: str, blame: Callable[[Row], int], cgroup: str = ""
) -> Part:
    # The root first: what forks must be stopped before what it forked.
    rest = [row for row in kin if row.id != root.id]
    return Part(
        root,
        (root, *rest),
        kind,
        sum(blame(row) for row in kin),
        sum(row.footprint_bytes for row in kin),
        cgroup,
    )


def _size(row: Row) -> tuple[int, int]:
    return row.footprint_bytes, row.id.pid
