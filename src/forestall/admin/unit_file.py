"""The service's unit file, a directive at a time, each with its reason.

``deploy/forestall.service`` is this, rendered; a test holds it to that. What is
deliberately *not* set has its reason here too: a sandbox that breaks the guard
shows at the first emergency (earlyoom#315, #321).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

UNIT_NAME = "forestall.service"
PREFIX = "/usr/local/lib/forestall"
LAUNCHER = "/usr/local/bin/forestall"
PYTHON = "/usr/bin/python3"


class Line(NamedTuple):
    """One directive; a reason alone is a comment about what is not set."""

    name: str
    setting: str
    reason: str = ""


_UNIT = (
    Line("Description", "forestall: keeps this machine usable when memory runs out"),
    Line("StartLimitIntervalSec", "0", "A machine without its guard is worse than a busy journal."),
)

_RUN = (
    Line("Type", "notify"),
    Line("ExecStart", "{python} -I -S -E {prefix}/forestall/config/stage.py"),
    Line("ExecReload", "{launcher} reload"),
    Line("NotifyAccess", "main"),
    Line(
        "WatchdogSec",
        "3min",
        "Generous: journald was killed by its own watchdog on machines short of memory.",
    ),
    Line("Restart", "always"),
    Line("RestartSec", "1"),
    Line("RestartPreventExitStatus", "2 3 4", "Wrong settings do not mend by being read again."),
    Line("KillMode", "mixed"),
    Line("TimeoutStopSec", "10"),
    Line("RuntimeDirectory", "forestall"),
    Line("RuntimeDirectoryMode", "0755"),
    Line("StateDirectory", "forestall"),
    Line("StateDirectoryMode", "0750"),
    Line("UMask", "0027"),
)

_SURVIVE = (
    Line("OOMScoreAdjust", "-1000"),
    Line("OOMPolicy", "continue", "Were relief killed, the guard itself would go on."),
    Line("ManagedOOMPreference", "omit"),
    Line("Nice", "-20", "To be ready soon; later the guard hurries only when it is kept waiting."),
    Line("LimitMEMLOCK", "infinity"),
    Line("TasksMax", "32"),
    Line(
        "", "", "No MemoryMax: it would be killed at its own limit, by the one it guards against."
    ),
)

_SANDBOX = (
    Line(
        "CapabilityBoundingSet",
        "CAP_KILL CAP_SYS_NICE CAP_SYS_RESOURCE CAP_SYS_PTRACE CAP_DAC_OVERRIDE",
        "Signals; priority; pressure triggers with short windows; reading what others run and\n"
        "hold; cgroup.kill in folders that belong to users. Memory is locked by LimitMEMLOCK.",
    ),
    Line("NoNewPrivileges", "yes"),
    Line("ProtectSystem", "strict"),
    Line("ProtectHome", "read-only"),
    Line("PrivateDevices", "yes"),
    Line("PrivateNetwork", "yes"),
    Line("RestrictAddressFamilies", "AF_UNIX"),
    Line("ProtectClock", "yes"),
    Line("ProtectHostname", "yes"),
    Line("ProtectKernelLogs", "yes"),
    Line("ProtectKernelModules", "yes"),
    Line("RestrictNamespaces", "yes"),
    Line("RestrictSUIDSGID", "yes"),
    Line("LockPersonality", "yes"),
    Line("SystemCallArchitectures", "native"),
    Line(
        "SystemCallFilter",
        "@system-service",
        "EPERM instead of death: a call the filter does not know fails, and is reported.",
    ),
    Line("SystemCallFilter", "process_mrelease process_madvise", "Not in @system-service."),
    Line("SystemCallErrorNumber", "EPERM"),
    Line("", "", "ProtectKernelTunables would forbid drop_caches."),
    Line(
        "",
        "",
        "ProtectControlGroups would forbid cgroup.kill, memory.reclaim and telling systemd why.",
    ),
    Line("", "", "ProcSubset=pid would hide meminfo and pressure, ProtectProc the victims."),
    Line("", "", "RestrictRealtime would forbid SCHED_RR, which is a setting."),
    Line(
        "",
        "",
        "MemoryDenyWriteExecute: importing ctypes makes a callback, and older libffi needs\n"
        "memory for it that is both.",
    ),
    Line("", "", "PrivateTmp would hide the tmpfs that may hold the memory."),
)

_INSTALL = (Line("WantedBy", "multi-user.target"),)


def render_unit(*, prefix: str = PREFIX, launcher: str = LAUNCHER, python: str = PYTHON) -> str:
    """Return the text of the guard's unit file."""
    sections = (
        ("Unit", (_UNIT,)),
        ("Service", (_RUN, _SURVIVE, _SANDBOX)),
        ("Install", (_INSTALL,)),
    )
    return render(sections, {"{prefix}": prefix, "{launcher}": launcher, "{python}": python})


def render(
    sections: Iterable[tuple[str, Iterable[Iterable[Line]]]], names: Mapping[str, str]
) -> str:
    """Write a unit file: sections of groups of lines, and names that stand for paths."""
    parts = ["# Written by forestall install; forestall uninstall removes it.\n"]
    for title, groups in sections:
        parts.append(f"\n[{title}]\n")
        parts.append("\n".join("".join(map(_render, group)) for group in groups))
    text = "".join(parts)
    for name, given in names.items():
        text = text.replace(name, given)
    return text


def _render(line: Line) -> str:
    comment = "".join(f"# {text}\n" for text in line.reason.split("\n")) if line.reason else ""
    return comment + (f"{line.name}={line.setting}\n" if line.name else "")
