"""Who is protected and who goes first, once: the guard's classes and oom_score_adj come from here.

A ward is a set of programs that share a fate. Its class tells our guard, its
adjustment tells the kernel's killer; a ward may have one without the other: a
web server deserves a little of the kernel's mercy, but the worker that leaks in
it must stay a candidate of ours.

Numbers on the old scale (oom_adj, -17 to 15) are the seeds', and mean on the
kernel's scale of today what they meant then.
"""

from __future__ import annotations

from forestall.core.model import Standing
from forestall.core.value import value

OOM_DISABLE = -17
"""include/uapi/linux/oom.h: "never", in oom_adj."""
OOM_ADJUST_MAX = 15
ADJUST_LEAST = -1000
ADJUST_MOST = 1000
ANYBODY = "*"
"""In place of a user's name: whoever it is, within a login session of their own."""


def of_oom_adj(old: int) -> int:
    """Convert a number of the old scale as the kernel does when one is written to oom_adj.

    Source: fs/proc/base.c oom_adj_write: thousandths by seventeenths, cut towards zero.
    """
    if old == OOM_ADJUST_MAX:
        return ADJUST_MOST
    size = abs(old) * ADJUST_MOST // -OOM_DISABLE
    return size if old > 0 else -size


def is_old_scale(number: int) -> bool:
    """Tell whether a number was most likely meant for oom_adj.

    On the scale of today -17 to 15 is less than two percent of memory: nobody's wish.
    """
    return number != 0 and OOM_DISABLE <= number <= OOM_ADJUST_MAX


@value
class Ward:
    """Programs that share a fate."""

    label: str
    names: tuple[str, ...]
    """As the kernel shows them; a star stands for any ending."""
    standing: Standing
    oom_adj: int | None = None
    """On the old scale; None leaves the kernel's adjustment alone."""
    units: tuple[str, ...] = ()
    """System units that prove a process to be what it says; a star stands for anything."""
    users: tuple[str, ...] = ()
    """Users who prove it together with a program file that belongs to root."""
    cmdline: str = ""
    """Regular expression that finds it under another name; good enough to expose only."""
    starts_others: bool = False
    """Its children are other people's programs, and would inherit its adjustment."""

    @property
    def adjust(self) -> int | None:
        """The oom_score_adj it should have."""
        return None if self.oom_adj is None else of_oom_adj(self.oom_adj)


WARDS = (
    Ward(
        "the way in",
        ("sshd",),
        Standing.AVOID,
        -17,
        ("ssh.service", "sshd.service"),
        ("root",),
    ),
    Ward(
        "databases",
        ("mysqld", "mariadbd", "postgres", "mongod"),
        Standing.AVOID,
        -10,
        ("mysql*.service", "mariadb*.service", "postgresql*.service", "mongod*.service"),
        ("mysql", "postgres", "mongodb", "mongod"),
    ),
    Ward(
        "web servers",
        ("nginx", "apache2", "httpd"),
        Standing.NORMAL,
        -5,
        ("nginx*.service", "apache2*.service", "httpd*.service"),
        ("root", "www-data", "nginx", "apache", "http"),
    ),
    Ward(
        "buses and login",
        ("dbus-daemon", "dbus-broker", "dbus-broker-lau", "systemd-logind", "elogind"),
        Standing.AVOID,
        -5,
        ("dbus*.service", "systemd-logind.service", "elogind.service"),
        ("root", "messagebus", "dbus"),
    ),
    Ward(
        "display servers and compositors",
        (
            *("Xorg", "Xwayland", "gnome-shell", "kwin_wayland", "kwin_x11", "plasmashell"),
            *("sway", "weston", "mutter"),
        ),
        Standing.AVOID,
        -5,
        ("gdm*.service", "sddm.service", "lightdm.service", "display-manager.service"),
        (ANYBODY,),
        starts_others=True,
    ),
    Ward(
        "session managers",
        ("gdm", "gdm3", "sddm", "lightdm", "login", "agetty", "systemd"),
        Standing.AVOID,
        -5,
        ("gdm*.service", "sddm.service", "lightdm.service", "getty@*.service"),
        (ANYBODY,),
        starts_others=True,
    ),
    Ward(
        "system",
        (
            *("init", "systemd-*", "NetworkManager", "dockerd", "containerd"),
            *("pipewire", "wireplumber", "apt", "apt-get", "dpkg", "dnf", "rpm", "pacman"),
            *("zypper", "unattended-upgr"),
        ),
        Standing.AVOID,
    ),
    Ward(
        "browsers",
        (
            *("Web Content", "WebExtensions", "Isolated Web Co", "Privileged Cont"),
            *("chromium", "chrome", "firefox", "firefox-esr"),
        ),
        Standing.PREFER,
        10,
    ),
    Ward(
        "development tools",
        ("code", "idea", "pycharm"),
        Standing.NORMAL,
        5,
        cmdline=r"\bcom\.intellij\.idea\.Main\b",
    ),
)


def ward_of_name(name: str, *standings: Standing) -> Ward | None:
    """Find the ward that a process name belongs to, among those of the classes."""
    for ward in WARDS:
        if ward.standing in standings and any(_matches(name, one) for one in ward.names):
            return ward
    return None


def names_pattern(standing: Standing) -> str:
    """Return the regular expression of all names of a class."""
    names = [name for ward in WARDS if ward.standing is standing for name in ward.names]
    # Nothing in them but the star means anything to a regular expression; a test holds them to it.
    return "^(" + "|".join(name.replace("*", ".*") for name in names) + ")$"


def _matches(name: str, wanted: str) -> bool:
    stem, star, _ = wanted.partition("*")
    return name.startswith(stem) if star else name == wanted
