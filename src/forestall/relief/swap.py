"""Recycling swap: one area at a time read back into memory, and used again at once.

Only when what is in swap fits into what is available with a margin to spare; given
up, with the area as it was, when others begin to suffer. The seed's ``swapoff -a
&& swapon -a`` pulls swap into memory that is not there, and if it dies half-way
the machine has no swap at all.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re

from forestall.core.units import MIB, SECOND, human_bytes
from forestall.core.value import TYPE_CHECKING
from forestall.kernel.errors import KernelError
from forestall.kernel.features import CAPABILITIES
from forestall.kernel.files import read_whole
from forestall.kernel.parse import parse_swaps
from forestall.kernel.parse_process import parse_status
from forestall.relief.outcome import Done, Plan, Refusal
from forestall.relief.worker import NOTE, SWAPON_FAILED

if TYPE_CHECKING:
    from forestall.core.model import Memory
    from forestall.kernel.parse import SwapArea
    from forestall.relief.outcome import Outcome
    from forestall.relief.tools import Tools

ACTION = "swap"
WORTH_BYTES = 1 * MIB
MARGIN_SHARE = 0.10
MARGIN_BYTES_MIN = 128 * MIB
DEADLINE_NS = 180 * SECOND
UNDER_WAY = "another recycling is still under way"
GOES_ON = (
    "it was given up, but the kernel first reads back all of the process it is at; "
    "then the area is in use as before"
)
"""The kernel looks for signals between two processes only; see relief.worker."""
NOT_GRANTED = (
    "CAP_SYS_ADMIN is missing here, so swap cannot be switched off and on; the service gets it by "
    "forestall install, once a trigger asks for it"
)
FORGET_MS = 30_000
_DELETED = " (deleted)"


def margin_bytes(memory: Memory) -> int:
    """What must stay available when all of it is back in memory."""
    return max(MARGIN_BYTES_MIN, int(memory.total_bytes * MARGIN_SHARE))


def plan(tools: Tools) -> Plan | Refusal:
    """Say what would come back into memory, or why it would not fit.

    Raises: OSError; KernelError.
    """
    if tools.uid == 0:
        why = UNDER_WAY if is_under_way(tools) else mend(tools)
        if why:
            return Refusal(ACTION, why)
    areas = areas_of(tools)
    used = sum(area.used_bytes for area in areas)
    if not areas:
        return Refusal(ACTION, "there is no swap")
    if used < WORTH_BYTES:
        return Refusal(ACTION, "there is next to nothing in swap")
    if tools.uid != 0:
        return Refusal(ACTION, "only root may switch swap off and on")
    if not _may_switch(tools):
        return Refusal(ACTION, NOT_GRANTED)
    memory = tools.memory()
    why = _does_not_fit(memory, used) or tools.not_calm()
    if why:
        return Refusal(ACTION, why)
    left = human_bytes(memory.available_bytes - used)
    names = ", ".join(_shown(area) for area in in_order(areas))
    return Plan(
        ACTION,
        used,
        f"would bring {human_bytes(used)} from swap back into memory, leaving {left} available: "
        f"{names}",
    )


def perform(tools: Tools) -> Outcome:
    """Recycle every area that holds anything, one after the other.

    Raises: OSError; KernelError.
    """
    planned = plan(tools)
    if isinstance(planned, Refusal):
        return planned
    before = areas_of(tools)
    used = sum(area.used_bytes for area in before)
    for area in in_order(before):
        why = _recycle(tools, area)
        if why:
            came_back = max(0, used - sum(now.used_bytes for now in areas_of(tools)))
            return Refusal(
                ACTION, f"{_shown(area)}: {why}; {human_bytes(came_back)} had come back by then"
            )
    after = areas_of(tools)
    gained = max(0, used - sum(area.used_bytes for area in after))
    return Done(
        ACTION,
        gained,
        f"brought {human_bytes(gained)} from swap back into memory; "
        f"{human_bytes(tools.memory().available_bytes)} are available{_moved(before, after)}",
    )


def mend(tools: Tools) -> str:
    """Switch on what a killed recycling left switched off; say so, or nothing."""
    note = f"{tools.root}{NOTE}"
    if is_under_way(tools):
        return ""
    try:
        priority, _, path = read_whole(note).rstrip(b"\n").partition(b" ")
        wanted = int(priority)
        used = {os.fsencode(path_of(area)) for area in areas_of(tools)}
    except (OSError, KernelError, ValueError):
        return ""
    error = 0
    if path.startswith(b"/") and path not in used:
        error = tools.swapon(path, wanted)
    if error not in {0, errno.EBUSY}:
        return f"{os.fsdecode(path)} was left switched off, and so it stays: {os.strerror(error)}"
    try:
        os.unlink(note)
    except FileNotFoundError:
        pass  # Who switched it on has taken the note away.
    except OSError:
        tools.errand("forget").wait(FORGET_MS)  # /run is read-only in a service.
    if path in used or not path.startswith(b"/"):
        return ""
    return (
        f"{os.fsdecode(path)} was left switched off by a recycling that was killed; it is on again"
    )


def is_under_way(tools: Tools) -> bool:
    """Tell whether somebody recycles: whoever does holds a lock on the note."""
    try:
        fd = os.open(f"{tools.root}{NOTE}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def in_order(areas: tuple[SwapArea, ...]) -> tuple[SwapArea, ...]:
    """Choose the areas to recycle, highest priority first.

    A priority below zero cannot be asked for: the kernel gives the next lower one. So that
    their order stays, those below a recycled one are recycled too, empty or not.
    """
    chosen = []
    follow = False
    for area in sorted(areas, key=_priority, reverse=True):
        if area.used_bytes or (follow and area.priority < 0):
            chosen.append(area)
            follow = follow or area.priority < 0
    return tuple(chosen)


def areas_of(tools: Tools) -> tuple[SwapArea, ...]:
    """Read the swap areas in use; empty on a kernel without swap.

    Raises: OSError; KernelFormatError.
    """
    try:
        return parse_swaps(read_whole(f"{tools.root}/proc/swaps"))
    except FileNotFoundError:
        return ()


def path_of(area: SwapArea) -> str:
    """Return the path without the kernel's escapes.

    Source: mm/swapfile.c swap_show: blank, tab, line feed and backslash come as octal.
    """
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), area.path)


def _may_switch(tools: Tools) -> bool:
    """Whether root's own power reaches so far; not in a sandbox or a container."""
    try:
        status = parse_status(read_whole(f"{tools.root}/proc/self/status"))
    except (OSError, KernelError):
        return True  # The kernel will say.
    return bool(status.effective_capabilities >> CAPABILITIES["CAP_SYS_ADMIN"] & 1)


def _recycle(tools: Tools, area: SwapArea) -> str:
    """Recycle one area; say why it was not done, or nothing."""
    path = path_of(area)
    if path.endswith(_DELETED):
        return "its file is deleted, so it could not be switched on again"
    memory = tools.memory()
    why = tools.interrupted() or _does_not_fit(memory, area.used_bytes)
    if why:
        return why
    errand = tools.errand("recycle", path, str(area.priority))
    try:
        floor = margin_bytes(memory) // 2
        why = tools.watch(errand, floor_bytes=floor, deadline_ns=DEADLINE_NS)
    finally:
        # On every way out, and even when a person lost patience.
        lost = _switch_on_again(tools, area)
    if lost:
        return lost
    status = errand.wait(0)
    if status is None:
        return f"{why}; {GOES_ON}"
    if not why and status:
        why = _status_text(status)
    return f"{why}; it was given up, and is in use as before" if why else ""


def _switch_on_again(tools: Tools, area: SwapArea) -> str:
    """Make sure that the area is in use; say that it is not, if nothing helps."""
    if any(now.path == area.path for now in areas_of(tools)):
        return ""
    error = tools.swapon(os.fsencode(path_of(area)), area.priority)
    if any(now.path == area.path for now in areas_of(tools)):
        return ""
    wanted = f" -p {area.priority}" if area.priority >= 0 else ""
    return f"IT IS SWITCHED OFF ({os.strerror(error)}); try: swapon{wanted} {area.path}"


def _does_not_fit(memory: Memory, used_bytes: int) -> str:
    margin = margin_bytes(memory)
    if memory.available_bytes - used_bytes > margin:
        return ""
    return (
        f"{human_bytes(used_bytes)} of swap do not fit: {human_bytes(memory.available_bytes)} are "
        f"available, and {human_bytes(margin)} of that must stay"
    )


def _moved(before: tuple[SwapArea, ...], after: tuple[SwapArea, ...]) -> str:
    now = {area.path: area.priority for area in after}
    moved = [area for area in before if now.get(area.path) != area.priority]
    if not moved:
        return ""
    names = ", ".join(f"{area.path} from {area.priority} to {now.get(area.path)}" for area in moved)
    return f"; priorities changed: {names}"


def _status_text(status: int) -> str:
    if status >= SWAPON_FAILED:
        return "its helper was ended from outside"
    return f"the kernel refuses ({os.strerror(status)})"


def _shown(area: SwapArea) -> str:
    return f"{area.path} ({human_bytes(area.used_bytes)}, priority {area.priority})"


def _priority(area: SwapArea) -> int:
    return area.priority
