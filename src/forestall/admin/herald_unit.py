"""The units of herald and of the sessions' agent, a directive at a time, each with its reason."""

from __future__ import annotations

from forestall.admin.unit_file import LAUNCHER, PREFIX, PYTHON, Line, render

HERALD_NAME = "forestall-herald.service"
AGENT_NAME = "forestall-agent.service"

_HERALD_UNIT = (
    Line("Description", "forestall's herald: alerts, notes and commands of your own"),
    Line("After", "forestall.service network.target"),
    Line("", "", "No Requires: herald outlives the guard, and says that it is silent."),
    Line("StartLimitIntervalSec", "0"),
)

_HERALD_RUN = (
    Line("Type", "exec"),
    Line("ExecStart", "{python} -I -S -E {prefix}/forestall/herald/__main__.py"),
    Line("Restart", "always"),
    Line("RestartSec", "5"),
    Line("RestartPreventExitStatus", "3", "Wrong settings do not mend by being read again."),
    Line("TimeoutStopSec", "10"),
    Line("DynamicUser", "yes"),
    Line("SupplementaryGroups", "tty", "To write to terminals that take messages (mesg y)."),
    Line("StateDirectory", "forestall-herald"),
    Line("StateDirectoryMode", "0700"),
    Line("LogsDirectory", "forestall"),
    Line("LogsDirectoryMode", "0750"),
    Line("UMask", "0027"),
    Line(
        "ImportCredential",
        "forestall.*",
        "Secrets: files /etc/credstore/forestall.NAME, owned by root, mode 0600. Before\n"
        "systemd 254 install names each one in a drop-in.",
    ),
)

_HERALD_SURVIVE = (
    Line("OOMScoreAdjust", "-500", "It should outlive what it tells of, but not the guard."),
    Line("ManagedOOMPreference", "avoid"),
    Line("Nice", "5", "What is short of memory is often short of a processor: words can wait."),
    Line("MemoryMax", "128M", "With commands of your own in it; a spool is on disk."),
    Line("TasksMax", "64"),
)

_HERALD_SANDBOX = (
    Line("NoNewPrivileges", "yes"),
    Line("CapabilityBoundingSet", ""),
    Line("ProtectSystem", "strict"),
    Line("ProtectHome", "yes"),
    Line("PrivateTmp", "yes"),
    Line("DevicePolicy", "closed"),
    Line("DeviceAllow", "char-pts rw", "Terminals; PrivateDevices would hide the consoles."),
    Line("DeviceAllow", "char-tty rw"),
    Line("RestrictAddressFamilies", "AF_UNIX AF_INET AF_INET6"),
    Line("ProtectClock", "yes"),
    Line("ProtectHostname", "yes"),
    Line("ProtectKernelLogs", "yes"),
    Line("ProtectKernelModules", "yes"),
    Line("ProtectKernelTunables", "yes"),
    Line("ProtectControlGroups", "yes"),
    Line("RestrictNamespaces", "yes"),
    Line("RestrictRealtime", "yes"),
    Line("RestrictSUIDSGID", "yes"),
    Line("LockPersonality", "yes"),
    Line("SystemCallArchitectures", "native"),
    Line("SystemCallFilter", "@system-service"),
    Line("SystemCallErrorNumber", "EPERM"),
    Line("", "", "ProtectProc would hide the five largest processes from the alerts."),
    Line("", "", "NoNewPrivileges stops a set-gid sendmail (Postfix, Exim): use type = smtp."),
)

_AGENT_UNIT = (
    Line("Description", "forestall's warnings on this desktop"),
    Line("PartOf", "graphical-session.target"),
    Line("After", "graphical-session.target"),
)

_AGENT_RUN = (
    Line("ExecStart", "{launcher} agent"),
    Line("Restart", "always"),
    Line("RestartSec", "30"),
    Line("RestartPreventExitStatus", "1 2", "Without jeepney there is nothing to try again."),
    Line("MemoryMax", "64M"),
    Line("NoNewPrivileges", "yes"),
)


def render_herald_unit(*, prefix: str = PREFIX, python: str = PYTHON, imports: bool = True) -> str:
    """Return the text of herald's unit file.

    Args:
        imports: systemd here finds secrets by itself; an older one warns of the word at each start.
    """
    run = tuple(line for line in _HERALD_RUN if imports or line.name != "ImportCredential")
    sections = (
        ("Unit", (_HERALD_UNIT,)),
        ("Service", (run, _HERALD_SURVIVE, _HERALD_SANDBOX)),
        ("Install", ((Line("WantedBy", "multi-user.target"),),)),
    )
    return render(sections, {"{prefix}": prefix, "{python}": python})


def render_agent_unit(*, launcher: str = LAUNCHER) -> str:
    """Return the text of the agent's unit file, for the services of users."""
    sections = (
        ("Unit", (_AGENT_UNIT,)),
        ("Service", (_AGENT_RUN,)),
        ("Install", ((Line("WantedBy", "graphical-session.target"),),)),
    )
    return render(sections, {"{launcher}": launcher})
