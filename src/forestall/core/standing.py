"""How far a process is protected, and what it holds together. Pure; patterns are compiled once.

A name is fifteen bytes that the process chose itself. That is enough to be
spared for being large, and it never makes anything a victim; what must not be
ended at all (init, ourselves) is told by number, in ``kernel.processes``.
"""

from __future__ import annotations

import re

from forestall.core.errors import RuleError
from forestall.core.model import Role, Standing
from forestall.core.rules import Field
from forestall.core.value import TYPE_CHECKING, value

if TYPE_CHECKING:
    from collections.abc import Callable

    from forestall.core.rules import VictimRule

COMM_BYTES_MAX = 15
"""TASK_COMM_LEN less its NUL: the kernel cuts longer names."""


@value
class Facts:
    """What rules may look at; None is unknown, and unknown never matches."""

    name: str
    uid: int | None = None
    cgroup: str | None = None
    exe: str | None = None
    cmdline: str | None = None
    pid: int = 0
    session_id: int = 0

    @property
    def unit(self) -> str | None:
        """The service or scope it runs in; empty where it runs in none."""
        return None if self.cgroup is None else unit_of(self.cgroup)

    @property
    def leads_session(self) -> bool:
        """Whether a terminal, if any, was given to this process and is taken with it."""
        return self.pid != 0 and self.pid == self.session_id


class Matcher:
    """The victim rules, compiled.

    Raises: RuleError for a pattern that is none, or a uid that is no number.
    """

    def __init__(self, rules: tuple[VictimRule, ...]) -> None:
        self._rules = tuple((_compile(rule), rule.standing, rule.label) for rule in rules)
        self.needs = frozenset(rule.field for rule in rules)
        """The fields that some rule looks at; the others need not be read."""

    def standing(self, facts: Facts) -> tuple[Standing, str]:
        """Return the standing by the first rule that matches, and the rule's label.

        Cost: 1 to 2 µs a process with the built-in lists.
        """
        for matches, standing, label in self._rules:
            if matches(facts):
                return standing, label
        return Standing.NORMAL, ""


def role_of(facts: Facts) -> Role:
    """Tell whether ending this process would take a session, or others' work, with it."""
    if _HOLDERS.match(facts.name):
        return Role.SESSION
    # A shell that leads its session is where somebody works; one that does not runs a script.
    if facts.leads_session and _SHELLS.match(facts.name):
        return Role.SESSION
    return Role.NONE


def unit_of(cgroup: str) -> str:
    """Return the innermost service or scope of a cgroup path; empty where there is none.

    A service may keep cgroups of its own below its name, so the last part alone will not do.
    """
    for part in reversed(cgroup.split("/")):
        if part.endswith((".service", ".scope")):
            return part
    return ""


def _compile(rule: VictimRule) -> Callable[[Facts], bool]:
    if rule.field is Field.UID:
        if not (rule.pattern.isascii() and rule.pattern.isdigit()):
            raise RuleError(f"{rule.label}: a uid is a decimal number, not {rule.pattern!r}")
        uid = int(rule.pattern)
        return lambda facts: facts.uid == uid
    try:
        search = re.compile(rule.pattern).search
    except (re.error, OverflowError, RecursionError) as error:
        raise RuleError(f"{rule.label}: {rule.pattern!r} is no pattern: {error}") from None
    look = _LOOKS[rule.field]

    def matches(facts: Facts) -> bool:
        text = look(facts)
        return text is not None and search(text) is not None

    return matches


def _name(facts: Facts) -> str | None:
    return facts.name


def _exe(facts: Facts) -> str | None:
    return facts.exe


def _cmdline(facts: Facts) -> str | None:
    return facts.cmdline


def _unit(facts: Facts) -> str | None:
    return facts.unit


def _cgroup(facts: Facts) -> str | None:
    return facts.cgroup


_LOOKS = {
    Field.NAME: _name,
    Field.EXE: _exe,
    Field.CMDLINE: _cmdline,
    Field.UNIT: _unit,
    Field.CGROUP: _cgroup,
}


def _names(*names: str) -> re.Pattern[str]:
    """Match any of the names as the kernel shows them; a star stands for any ending."""
    parts = []
    for name in names:
        stem, star, _ = name.partition("*")
        cut = len(stem) > COMM_BYTES_MAX
        parts.append(re.escape(stem[:COMM_BYTES_MAX]) + ("" if star or cut else r"\Z"))
    return re.compile("|".join(parts), re.DOTALL)


_SHELLS = _names(
    *("bash", "-bash", "zsh", "-zsh", "fish", "-fish", "sh", "-sh", "dash", "-dash"),
    *("ksh", "-ksh", "ksh93", "mksh", "tcsh", "-tcsh", "csh", "nu", "xonsh", "elvish"),
)

_HOLDERS = _names(
    # Ways in.
    *("sshd*", "login", "su", "sudo", "doas", "getty", "agetty", "mingetty", "dropbear"),
    *("mosh-server", "systemd", "(sd-pam)", "crond", "cron", "atd", "supervisord"),
    # Multiplexers.
    *("tmux*", "screen", "SCREEN", "zellij", "byobu", "abduco", "dtach"),
    # Message buses and what keeps containers.
    *("dbus-daemon", "dbus-broker*", "containerd-shim*", "containerd", "dockerd", "conmon"),
    *("podman", "lxc-start", "systemd-nspawn"),
    # Display managers.
    *("gdm*", "sddm*", "lightdm*", "greetd", "ly-dm", "xdm", "lxdm"),
    # Display servers, compositors, session managers.
    *("Xorg", "X", "Xwayland", "Xvnc", "gnome-shell", "gnome-session*", "mutter*", "kwin*"),
    *("ksmserver", "startplasma*", "plasmashell", "plasma_session", "sway", "weston", "labwc"),
    *("hyprland", "Hyprland", "niri", "wayfire", "river", "cosmic-comp", "cosmic-session"),
    *("xfce4-session", "xfwm4", "xfdesktop", "cinnamon", "cinnamon-session*", "mate-session"),
    *("marco", "lxsession", "lxqt-session", "openbox", "i3", "bspwm", "awesome", "xinit", "startx"),
    # Terminal emulators: each holds a shell or many.
    *("gnome-terminal-server", "kgx", "ptyxis*", "konsole", "yakuake", "kitty", "alacritty"),
    *("foot", "footclient", "xterm", "urxvt*", "wezterm-gui", "wezterm-mux*", "ghostty"),
    *("xfce4-terminal", "mate-terminal", "terminator", "tilix", "qterminal", "st"),
)
