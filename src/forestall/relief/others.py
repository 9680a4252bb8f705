"""What others lose to memory while we work: by control group, our own left out.

The machine's pressure counts our own errand's waiting as somebody's stall, and while
it waits for a disk all the time nobody else's can be seen in it. Each group has a
counter of its own, so theirs can.
"""

from __future__ import annotations

import os

from forestall.core.value import TYPE_CHECKING
from forestall.kernel.errors import KernelError
from forestall.kernel.files import read_whole
from forestall.kernel.parse import parse_pressure
from forestall.kernel.parse_process import parse_cgroup

if TYPE_CHECKING:
    from collections.abc import Iterator

GROUPS_MAX = 512
DEPTH_MAX = 4


class Others:
    """The stall counters of all groups but ours.

    Cost: 20 µs a group.
    """

    def __init__(self, root: str) -> None:
        self._mount = mount_of(root)
        self._own = own_group(root)

    def look(self) -> dict[str, int]:
        """Return the time lost so far, in microseconds, by group; empty without v2 or PSI."""
        if not self._mount:
            return {}
        found = {}
        for folder in leaves(self._mount):
            name = folder.removeprefix(self._mount)
            if name == self._own:
                continue
            try:
                pressure = parse_pressure(read_whole(f"{folder}/memory.pressure"))
            except (OSError, KernelError):
                continue  # it was removed meanwhile, or its pressure is not kept
            if pressure is not None:
                found[name] = pressure.some_us
        return found


def worst(before: dict[str, int], now: dict[str, int], span_ns: int) -> tuple[float, str]:
    """Return the largest share of the time that a group lost between two looks, and its name."""
    shares = [
        ((lost_us - before[name]) * 1000 / max(1, span_ns), name)
        for name, lost_us in now.items()
        if name in before
    ]
    return max(shares, default=(0.0, ""))


def leaves(mount: str) -> Iterator[str]:
    """Yield the folders of groups that have none below them, down to a depth, so many at most."""
    waiting = [(mount, 0)]
    looked = 0
    while waiting and looked < GROUPS_MAX:
        folder, depth = waiting.pop()
        looked += 1
        try:
            with os.scandir(folder) as entries:
                below = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:
            continue  # it was removed meanwhile
        if below and depth < DEPTH_MAX:
            waiting += [(path, depth + 1) for path in below]
        elif depth:
            yield folder


def mount_of(root: str) -> str:
    """Return where the v2 hierarchy is; empty without one."""
    for folder in (f"{root}/sys/fs/cgroup", f"{root}/sys/fs/cgroup/unified"):
        if os.path.exists(f"{folder}/cgroup.controllers"):
            return folder
    return ""


def own_group(root: str) -> str:
    """Return our own group, from the root of the hierarchy; empty when it cannot be told."""
    try:
        return parse_cgroup(read_whole(f"{root}/proc/self/cgroup"))
    except (OSError, KernelError):
        return ""
