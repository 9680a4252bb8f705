"""What this machine means for a memory guard: findings, each with its remedy.

Pure: features, processes and knobs come in as values. Rule: what could not be
told gives no finding; nothing is guessed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from forestall.config.lint import OLD_OOM_ADJ_NEVER
from forestall.core.units import GIB, human_bytes
from forestall.inspect.killers import running
from forestall.kernel.errors import KernelError
from forestall.kernel.files import read_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from forestall.config.lint import Process
    from forestall.core.model import Memory
    from forestall.kernel.features import Features


class Severity(Enum):
    """How bad it is, worst first."""

    PROBLEM = "problem"
    """The guard works worse than it could, or not at all."""
    ADVICE = "advice"
    """Worth knowing; the guard copes."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing about this machine."""

    title: str
    means: str
    remedy: str
    severity: Severity


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What doctor looks at."""

    features: Features
    processes: Sequence[Process] = ()
    memory: Memory | None = None
    knobs: Mapping[str, int] | None = None
    """Numbers of /proc/sys/vm by name, those that could be read."""
    uid: int = 0


KNOBS = ("panic_on_oom", "overcommit_memory", "oom_kill_allocating_task")


def read_knobs(root: str = "/") -> dict[str, int]:
    """Read the knobs of memory that matter here; those that cannot be read are left out."""
    base = root.rstrip("/")
    knobs = {}
    for name in KNOBS:
        try:
            text = read_whole(f"{base}/proc/sys/vm/{name}").strip()
        except (OSError, KernelError):
            continue
        if text.isdigit():
            knobs[name] = int(text)
    return knobs


def examine(machine: Machine) -> list[Finding]:
    """Return all findings, worst first."""
    findings = [finding for check in CHECKS for finding in check(machine)]
    order = list(Severity)
    return sorted(findings, key=lambda finding: order.index(finding.severity))


def _killing(machine: Machine) -> Iterator[Finding]:
    features = machine.features
    if not (features.pidfd_open and features.pidfd_send_signal):
        yield Finding(
            "no pidfds",
            "the guard signals through pidfds only, so it can end nobody here",
            "Linux 5.3 or newer; in a container allow pidfd_open and pidfd_send_signal",
            Severity.PROBLEM,
        )
    if not features.process_mrelease:
        yield Finding(
            "no process_mrelease",
            "the memory of a victim that gets no CPU comes back late",
            "Linux 5.15 or newer; a sandbox has to allow the call by name",
            Severity.ADVICE,
        )
    if machine.uid == 0 and "CAP_KILL" not in features.capabilities:
        yield Finding(
            "no CAP_KILL",
            "root without it cannot end the processes of others",
            "add CAP_KILL to the container or unit",
            Severity.PROBLEM,
        )
    if features.hidepid and "CAP_SYS_PTRACE" not in features.capabilities:
        yield Finding(
            "/proc is mounted with hidepid",
            "processes of others cannot be seen, so the true culprit may be missed",
            "run the guard as root, or with gid= of the mount",
            Severity.PROBLEM,
        )


def _seeing(machine: Machine) -> Iterator[Finding]:
    features = machine.features
    if not features.psi:
        yield Finding(
            "no pressure stall information",
            "stalls cannot be seen: only how full memory is decides, and thrashing goes unnoticed",
            "boot with psi=1 on the kernel command line, or use a kernel with CONFIG_PSI",
            Severity.PROBLEM,
        )
    elif not features.psi_short_windows:
        yield Finding(
            "pressure triggers with windows of 2 s only",
            "the kernel wakes the guard up to 3 s late; it samples more often instead",
            "give it CAP_SYS_RESOURCE, as the installed service has",
            Severity.ADVICE,
        )
    if not features.cgroup_mount:
        yield Finding(
            "no cgroup v2",
            "units cannot be ended as a whole, and their limits are not seen",
            "boot with systemd.unified_cgroup_hierarchy=1",
            Severity.ADVICE,
        )
    elif not features.cgroup_memory:
        yield Finding(
            "cgroup v2 without the memory controller",
            "memory of units is not known; processes are judged one by one",
            "move the memory controller from v1 to v2: boot with cgroup_no_v1=memory",
            Severity.ADVICE,
        )
    if features.container:
        yield Finding(
            f"inside a container ({features.container})",
            "only the container's processes and limit are guarded, not the host",
            "install forestall on the host to guard that",
            Severity.ADVICE,
        )


def _protecting(machine: Machine) -> Iterator[Finding]:
    if machine.uid != 0:
        yield Finding(
            f"not root (uid {machine.uid})",
            "run like this, the guard ends only processes of this user, whoever is the culprit",
            "use the service (sudo forestall install), or run as root",
            Severity.ADVICE,
        )
    held = machine.features.capabilities
    for name, means in (
        ("CAP_IPC_LOCK", "the guard cannot lock its memory and may be swapped out itself"),
        ("CAP_SYS_RESOURCE", "the guard cannot protect itself from the kernel's killer"),
    ):
        if name not in held:
            yield Finding(
                f"no {name} here",
                f"run like this, {means}",
                "use the service (sudo forestall install), or run as root",
                Severity.ADVICE,
            )


def _swap(machine: Machine) -> Iterator[Finding]:
    memory = machine.memory
    if memory is None:
        return
    if memory.swap_total_bytes == 0:
        yield Finding(
            "no swap",
            "memory runs out within seconds and with little warning",
            "a zram device of half the memory gives time to react",
            Severity.ADVICE,
        )
    elif memory.swap_total_bytes > max(2 * memory.total_bytes, 8 * GIB):
        yield Finding(
            f"swap of {human_bytes(memory.swap_total_bytes)}",
            "more than twice the memory: the machine thrashes long before swap is full",
            "the thrash trigger acts on stalls; less swap fails sooner and cleaner",
            Severity.ADVICE,
        )


def _knobs(machine: Machine) -> Iterator[Finding]:
    knobs = machine.knobs or {}
    if knobs.get("panic_on_oom"):
        yield Finding(
            "vm.panic_on_oom is set",
            "the kernel panics instead of killing, if the guard ever comes too late",
            "sysctl vm.panic_on_oom=0, unless a failover depends on it",
            Severity.PROBLEM,
        )
    if knobs.get("overcommit_memory") == 2:
        yield Finding(
            "vm.overcommit_memory is 2",
            "allocations fail long before memory is full, and programs crash where they stand",
            "sysctl vm.overcommit_memory=0, unless something needs strict accounting",
            Severity.ADVICE,
        )
    if knobs.get("oom_kill_allocating_task"):
        yield Finding(
            "vm.oom_kill_allocating_task is set",
            "the kernel ends whoever asks at the wrong moment, not the culprit",
            "sysctl vm.oom_kill_allocating_task=0",
            Severity.PROBLEM,
        )


def _rivals(machine: Machine) -> Iterator[Finding]:
    for killer, process in running(machine.processes):
        yield Finding(
            f"{killer.name} is running (process {process.pid})",
            "two killers fight over one machine: both act on the same moment",
            "forestall install --replace disables it until uninstall",
            Severity.PROBLEM,
        )


def _old_scale(machine: Machine) -> Iterator[Finding]:
    old = [one for one in machine.processes if one.oom_score_adj == OLD_OOM_ADJ_NEVER]
    if old:
        names = ", ".join(f"{one.name} ({one.pid})" for one in old[:5])
        yield Finding(
            f"oom_score_adj -17: {names}",
            "-17 meant never in the old oom_adj; here it is a discount of 1.7% of memory",
            "OOMScoreAdjust=-1000 in the unit is never; forestall protect helps to choose",
            Severity.ADVICE,
        )


CHECKS: tuple[Callable[[Machine], Iterator[Finding]], ...] = (
    _killing,
    _seeing,
    _protecting,
    _swap,
    _knobs,
    _rivals,
    _old_scale,
)
