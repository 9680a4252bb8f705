"""What this kernel can do, found by trying. Rule: never a version check, and nothing is changed.

For status and doctor, and for the guard at its start: what is missing has a
fallback, and people want to know which one is at work.
"""

from __future__ import annotations

import errno
import os
import signal

from forestall.core.value import TYPE_CHECKING, value
from forestall.kernel import libc
from forestall.kernel.errors import KernelFormatError
from forestall.kernel.files import read_whole
from forestall.kernel.parse import parse_pressure, parse_swaps
from forestall.kernel.parse_process import parse_cgroup, parse_status
from forestall.kernel.pressure import open_trigger

if TYPE_CHECKING:
    from collections.abc import Iterator

SHORT_WINDOW_US = 1_000_000

# include/uapi/linux/capability.h, those that matter here.
CAPABILITIES = {
    "CAP_DAC_OVERRIDE": 1,
    "CAP_DAC_READ_SEARCH": 2,
    "CAP_KILL": 5,
    "CAP_NET_ADMIN": 12,
    "CAP_IPC_LOCK": 14,
    "CAP_SYS_PTRACE": 19,
    "CAP_SYS_ADMIN": 21,
    "CAP_SYS_NICE": 23,
    "CAP_SYS_RESOURCE": 24,
    "CAP_SYSLOG": 34,
    "CAP_PERFMON": 38,
    "CAP_BPF": 39,
}


@value
class Features:
    """What was found; None is "could not be told"."""

    release: str
    pidfd_open: bool
    pidfd_send_signal: bool
    process_mrelease: bool
    psi: bool
    psi_short_windows: bool
    """Windows of less than 2 s are granted: the kernel wakes us within half a second."""
    cgroup_mount: str
    """Where cgroup v2 is mounted; empty without it."""
    cgroup_memory: bool
    """The v2 hierarchy has the memory controller."""
    cgroup_kill: bool | None
    own_cgroup: str
    mglru: bool | None
    swap_kinds: tuple[str, ...]
    """Of the areas in use: ``zram``, ``partition``, ``file``."""
    zram: bool
    zfs: bool
    hidepid: bool
    """/proc hides what belongs to others."""
    capabilities: frozenset[str]
    """The effective ones of those that matter here."""
    container: str
    """What confines us, as far as it says so; empty on a host."""
    thp: str
    """Huge pages for anonymous memory: ``always``, ``madvise``, ``never``; empty if unknown."""


@value
class Mount:
    """One line of /proc/self/mountinfo."""

    id: int
    device: str
    """Major and minor number, as "0:25"."""
    path: str
    kind: str
    options: str
    """Of the mount and of the file system, joined by a comma."""


def find_features(root: str = "/") -> Features:
    """Try everything once; takes a few milliseconds and is meant for the start."""
    base = root.rstrip("/")
    mounts = tuple(mounts_of(_text(f"{base}/proc/self/mountinfo")))
    cgroup_mount = next((mount.path for mount in mounts if mount.kind == "cgroup2"), "")
    own_cgroup = _own_cgroup(base)
    kinds = _swap_kinds(base)
    pidfd_open, pidfd_send_signal = _try_pidfds()
    pressure_path = f"{base}/proc/pressure/memory"
    return Features(
        release=os.uname().release,
        pidfd_open=pidfd_open,
        pidfd_send_signal=pidfd_send_signal,
        # A descriptor that cannot exist: EBADF comes from a kernel that knows the call.
        process_mrelease=libc.process_mrelease(-1) == errno.EBADF,
        psi=_has_psi(pressure_path),
        psi_short_windows=_has_short_windows(pressure_path),
        cgroup_mount=cgroup_mount,
        cgroup_memory="memory" in _text(f"{base}{cgroup_mount}/cgroup.controllers").split()
        if cgroup_mount
        else False,
        cgroup_kill=_has_cgroup_kill(f"{base}{cgroup_mount}") if cgroup_mount else False,
        own_cgroup=own_cgroup,
        mglru=_mglru(f"{base}/sys/kernel/mm/lru_gen/enabled"),
        swap_kinds=kinds,
        zram="zram" in kinds,
        zfs=os.path.exists(f"{base}/proc/spl/kstat/zfs/arcstats"),
        hidepid=any(_hides(mount) for mount in mounts),
        capabilities=_capabilities(base),
        container=_container(base, cgroup_mount),
        thp=_chosen(_text(f"{base}/sys/kernel/mm/transparent_hugepage/enabled")),
    )


def mounts_of(text: str) -> Iterator[Mount]:
    """Read the lines of /proc/self/mountinfo; a line that makes no sense is left out.

    Source: proc(5). Optional fields end with a single hyphen, then come type and source.
    Blanks in paths come as octal escapes.
    """
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        head, tail = before.split(" "), after.split(" ")
        if len(head) < 6 or len(tail) < 3 or not head[0].isdigit():
            continue
        options = f"{head[5]},{tail[2]}"
        yield Mount(int(head[0]), head[2], _unescape(head[4]), tail[0], options)


def _unescape(path: str) -> str:
    for escape, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        path = path.replace(escape, character)
    return path


def _text(path: str) -> str:
    try:
        return read_whole(path).decode("utf-8", "surrogateescape")
    except (OSError, KernelFormatError):
        return ""


def _own_cgroup(base: str) -> str:
    try:
        return parse_cgroup(read_whole(f"{base}/proc/self/cgroup"))
    except (OSError, KernelFormatError):
        return ""


def _swap_kinds(base: str) -> tuple[str, ...]:
    try:
        areas = parse_swaps(read_whole(f"{base}/proc/swaps"))
    except (OSError, KernelFormatError):
        return ()
    return tuple(sorted({"zram" if area.zram else area.kind for area in areas}))


def _try_pidfds() -> tuple[bool, bool]:
    try:
        pidfd = os.pidfd_open(os.getpid())
    except OSError:
        return False, False
    try:
        signal.pidfd_send_signal(pidfd, 0)  # zero only asks whether it could
    except OSError:
        return True, False
    finally:
        os.close(pidfd)
    return True, True


def _has_psi(path: str) -> bool:
    try:
        return parse_pressure(read_whole(path)) is not None
    except (OSError, KernelFormatError):
        return False


def _has_short_windows(path: str) -> bool:
    # The longest stall of the window: it could not fire even if we kept it.
    trigger = open_trigger(path, stall_us=SHORT_WINDOW_US, window_us=SHORT_WINDOW_US)
    if trigger is None:
        return False
    trigger.close()
    return trigger.window_us == SHORT_WINDOW_US


def _has_cgroup_kill(mount: str) -> bool | None:
    """Look into any child: the root has no such file; None where there is no child."""
    try:
        with os.scandir(mount) as entries:
            child = next((entry.path for entry in entries if entry.is_dir()), None)
    except OSError:
        return None
    return os.path.exists(f"{child}/cgroup.kill") if child else None


def _mglru(path: str) -> bool | None:
    text = _text(path).strip()
    try:
        # Bit 0 is the main switch. Without the file the kernel has none.
        return bool(int(text, 16) & 1) if text else False
    except ValueError:
        return None


def _hides(mount: Mount) -> bool:
    if mount.kind != "proc" or mount.path != "/proc":
        return False
    words = mount.options.split(",")
    return any(
        word.startswith("hidepid=") and word not in {"hidepid=0", "hidepid=off"} for word in words
    )


def _capabilities(base: str) -> frozenset[str]:
    try:
        held = parse_status(read_whole(f"{base}/proc/self/status")).effective_capabilities
    except (OSError, KernelFormatError):
        return frozenset()
    return frozenset(name for name, bit in CAPABILITIES.items() if held >> bit & 1)


def _container(base: str, cgroup_mount: str) -> str:
    """Name what confines us: managers leave a note, and a cgroup root with a limit is no root."""
    note = _text(f"{base}/run/systemd/container").strip()
    if note:
        return note
    for path, name in (("/run/.containerenv", "podman"), ("/.dockerenv", "docker")):
        if os.path.exists(f"{base}{path}"):
            return name
    confined = cgroup_mount and os.path.exists(f"{base}{cgroup_mount}/memory.max")
    return "unknown" if confined else ""


def _chosen(text: str) -> str:
    """Read the word in brackets: "always [madvise] never"."""
    return text.partition("[")[2].partition("]")[0]
