"""Pushing out what a cold cgroup does not use, in bounded bytes.

``memory.reclaim`` blocks whoever writes to it, pushes out even what is needed when
asked for too much, and makes its target look busy to other killers. So: only a
cgroup that reads nothing back, only its inactive pages, a piece at a time, and no
further once anybody suffers.

Source: Documentation/admin-guide/cgroup-v2.rst memory.reclaim (since Linux 5.19);
EAGAIN: less was reclaimed than asked for.
"""

from __future__ import annotations

import errno
import os

from forestall.core.units import GIB, MIB, SECOND, human_bytes
from forestall.core.value import TYPE_CHECKING, value
from forestall.kernel.errors import KernelError
from forestall.kernel.files import read_whole
from forestall.kernel.parse import number, parse_flat
from forestall.relief.others import leaves, mount_of, own_group
from forestall.relief.outcome import Done, Plan, Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from forestall.relief.outcome import Outcome
    from forestall.relief.tools import Tools

ACTION = "cgroup"
RECLAIM = "reclaim"
"""The automatic form: the cold ones among all."""
PIECE_BYTES = 16 * MIB
BYTES_MAX = 1 * GIB
WORTH_BYTES = 8 * MIB
LARGE_BYTES = 64 * MIB
"""Smaller cgroups are not looked at by the automatic form."""
SHARE_MAX = 0.5
"""Of what a cgroup holds, at most so much in one go, unless a person says how much."""
COLD_REFAULTS_MAX = 64
"""Pages read back within the look; more means that it needs what it has."""
PIECE_DEADLINE_NS = 20 * SECOND
COLD_MAX = 4


@value
class Heat:
    """What a cgroup holds, and how much of it was read back so far."""

    folder: str
    current_bytes: int
    inactive_bytes: int
    """Of files, and of anonymous memory where there is swap for it."""
    refault_pages: int


def plan(tools: Tools, path: str, *, want_bytes: int | None = None) -> Plan | Refusal:
    """Say what a cgroup would give back, or why it should be left alone.

    Raises: OSError; KernelError.
    """
    action = f"{ACTION} {path}"
    folder = folder_of(tools.root, path)
    why = _cannot(tools, folder)
    if why:
        return Refusal(action, why)
    before = heat_of(folder, swap=_has_swap(tools))
    why = tools.not_calm()
    if why:
        return Refusal(action, why)
    after = heat_of(folder, swap=_has_swap(tools))
    return _plan_for(action, before, after, want_bytes)


def perform(tools: Tools, path: str, *, want_bytes: int | None = None) -> Outcome:
    """Reclaim from one cgroup.

    Raises: OSError; KernelError.
    """
    planned = plan(tools, path, want_bytes=want_bytes)
    if isinstance(planned, Refusal):
        return planned
    return _reclaim(tools, planned.action, folder_of(tools.root, path), planned.gain_bytes)


def plan_cold(tools: Tools) -> Plan | Refusal:
    """Find the cold cgroups of the machine and say what they would give back together.

    Raises: OSError; KernelError.
    """
    found = _cold(tools)
    if isinstance(found, Refusal):
        return found
    gain = sum(plan.gain_bytes for _folder, plan in found)
    names = ", ".join(plan.action.removeprefix(f"{ACTION} ") for _folder, plan in found)
    return Plan(
        RECLAIM, gain, f"would reclaim up to {human_bytes(gain)} from cold cgroups: {names}"
    )


def perform_cold(tools: Tools) -> Outcome:
    """Reclaim from the cold cgroups of the machine.

    Raises: OSError; KernelError.
    """
    found = _cold(tools)
    if isinstance(found, Refusal):
        return found
    gained = 0
    for folder, planned in found:
        outcome = _reclaim(tools, planned.action, folder, planned.gain_bytes)
        if isinstance(outcome, Refusal):
            if not gained:
                return Refusal(RECLAIM, outcome.why)
            break
        gained += outcome.gained_bytes
    return Done(RECLAIM, gained, f"reclaimed {human_bytes(gained)} from cold cgroups")


def folder_of(root: str, path: str) -> str:
    """Return the folder of a cgroup named from the root of the tree, or by its whole path."""
    mount = mount_of(root)
    inside = path.removeprefix(mount) if path.startswith(mount) else path
    return os.path.normpath(f"{mount}/{inside.lstrip('/')}")


def heat_of(folder: str, *, swap: bool) -> Heat:
    """Read what a cgroup holds and has read back.

    Raises: OSError; KernelFormatError.
    """
    stat = parse_flat("memory.stat", read_whole(f"{folder}/memory.stat"))
    current = number("memory.current", "usage", read_whole(f"{folder}/memory.current"))
    inactive = stat.get("inactive_file", 0) + (stat.get("inactive_anon", 0) if swap else 0)
    # Before 5.9 files and anonymous memory were counted together.
    refaults = stat.get("workingset_refault_file", stat.get("workingset_refault", 0))
    return Heat(folder, current, inactive, refaults + stat.get("workingset_refault_anon", 0))


def _plan_for(action: str, before: Heat, after: Heat, want_bytes: int | None) -> Plan | Refusal:
    read_back = after.refault_pages - before.refault_pages
    if read_back > COLD_REFAULTS_MAX:
        return Refusal(action, f"it is not cold: it read {read_back} pages back within a second")
    most = min(after.inactive_bytes, BYTES_MAX)
    usual = int(after.current_bytes * SHARE_MAX)
    gain = min(most, usual if want_bytes is None else want_bytes)
    if gain < WORTH_BYTES:
        held = human_bytes(after.inactive_bytes)
        return Refusal(action, f"it holds only {held} that it does not use")
    return Plan(
        action,
        gain,
        f"would push out up to {human_bytes(gain)} of the {human_bytes(after.current_bytes)} "
        f"it holds; {human_bytes(after.inactive_bytes)} of that are inactive",
    )


def _reclaim(tools: Tools, action: str, folder: str, want_bytes: int) -> Outcome:
    swap = _has_swap(tools)
    first = before = heat_of(folder, swap=swap)
    asked = 0
    why = ""
    # By what is really gone, too: the kernel takes up to half as much again as it is asked for.
    while (
        not why
        and (wanted := want_bytes - max(asked, first.current_bytes - before.current_bytes)) > 0
    ):
        piece = min(PIECE_BYTES, wanted)
        errand = tools.errand("write", f"{folder}/memory.reclaim", str(piece))
        why = tools.watch(errand, floor_bytes=0, deadline_ns=PIECE_DEADLINE_NS)
        status = errand.wait(0)
        asked += piece
        if not why and status not in {0, errno.EAGAIN}:
            why = f"the kernel refuses ({os.strerror(status or 0)})"
        now = heat_of(folder, swap=swap)
        if now.refault_pages - before.refault_pages > COLD_REFAULTS_MAX:
            why = why or "it began to read back what was pushed out"
        before = now
        if status == errno.EAGAIN:
            break  # less than asked for is all there was
    gained = max(0, first.current_bytes - before.current_bytes)
    if why and not gained:
        return Refusal(action, why)
    stopped = f"; stopped because {why}" if why else ""
    left = human_bytes(before.current_bytes)
    return Done(action, gained, f"pushed out {human_bytes(gained)}, {left} are left{stopped}")


def _cold(tools: Tools) -> list[tuple[str, Plan]] | Refusal:
    mount = mount_of(tools.root)
    if not mount or tools.uid != 0:
        return Refusal(RECLAIM, _no_v2() if not mount else "only root may reclaim from others")
    swap = _has_swap(tools)
    before = {heat.folder: heat for heat in _large(mount, swap=swap)}
    why = tools.not_calm()
    if why:
        return Refusal(RECLAIM, why)
    found = []
    for folder, heat in before.items():
        if _cannot(tools, folder):
            continue
        try:
            after = heat_of(folder, swap=swap)
        except (OSError, KernelError):
            continue
        planned = _plan_for(f"{ACTION} {folder.removeprefix(mount)}", heat, after, None)
        if isinstance(planned, Plan):
            found.append((folder, planned))
    found.sort(key=_gain, reverse=True)
    return found[:COLD_MAX] or Refusal(RECLAIM, "no large cgroup is cold")


def _large(mount: str, *, swap: bool) -> Iterator[Heat]:
    """Yield the large cgroups that have none below them."""
    for folder in leaves(mount):
        try:
            heat = heat_of(folder, swap=swap)
        except (OSError, KernelError):
            continue  # it was removed meanwhile, or has no memory controller
        if heat.current_bytes >= LARGE_BYTES:
            yield heat


def _cannot(tools: Tools, folder: str) -> str:
    mount = mount_of(tools.root)
    if not mount:
        return _no_v2()
    if tools.uid != 0:
        return "only root may reclaim from others"
    if folder == mount or not folder.startswith(mount + "/"):
        return f"name a cgroup below {mount}"
    if not os.path.isdir(folder):
        return f"there is no cgroup {folder.removeprefix(mount)}"
    if not os.path.exists(f"{folder}/memory.reclaim"):
        return "it has no memory.reclaim (no memory controller, or Linux before 5.19)"
    own = own_group(tools.root)
    if own and f"{mount}{own}/".startswith(folder + "/"):
        return "we are in it ourselves"
    return ""


def _has_swap(tools: Tools) -> bool:
    return tools.memory().swap_usable_bytes > 0


def _no_v2() -> str:
    return "this machine has no cgroup v2 hierarchy, and v1 has no memory.reclaim"


def _gain(item: tuple[str, Plan]) -> tuple[int, str]:
    return item[1].gain_bytes, item[0]
