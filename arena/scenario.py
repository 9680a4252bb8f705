"""The words of a scenario: actors, machine, and what must come out.

Rule: plain values that can be read like a sheet; staging is :mod:`arena.stage`,
judging :mod:`arena.judge`.

In an actor's script a number written ``~40`` varies by an eighth from run to run, and
programs are drawn from a cast, so that no guard can learn a scenario by heart.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from arena.errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Mapping

APP_GROUP = (
    "user.slice/user-1000.slice/user@1000.service/app.slice/app-gnome-{program}-{number}.scope"
)
SERVICE_GROUP = "system.slice/{program}.service"
SESSION_GROUP = "user.slice/user-1000.slice/session-3.scope"


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """One process (or the head of a tree) that the monitor starts."""

    role: str
    """What the judge calls it; the guest never sees this word."""

    cast: str
    """Which list of :mod:`arena.cast` its program name comes from."""

    script: str = ""
    """Behaviour and settings for the actor program; empty for a real program."""

    uid: int = 1000
    oom_score_adj: int = 0
    group: str = APP_GROUP
    limits: tuple[str, ...] = ()
    """Settings of its control group, e.g. ``memory.max=200M``."""

    when: Literal["before", "trouble"] = "before"
    delay_s: float = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """Swap space; ``disk`` names a class of :data:`arena.machine.DISKS`."""

    kind: Literal["disk", "zram"] = "disk"
    mib: int = 256
    disk: str = "ssd"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What a machine holds, what goes wrong, and what must come of it."""

    name: str
    title: str
    trouble: tuple[Actor, ...]
    landscape: tuple[Actor, ...]
    must_die: tuple[str, ...] = ()
    may_die: tuple[str, ...] = ()
    must_finish: tuple[str, ...] = ()
    """Roles whose every process has to end by itself with status 0."""

    max_deaths: int | None = None
    """How many processes may die of a signal in all; None: no matter how many of those allowed."""

    memcg_kills: bool = False
    """The kernel may kill inside a limited group; it may never kill globally."""

    memory_mib: int = 1024
    swap: Swap | None = None
    root_disk: str = "ssd"
    limit_s: float = 40
    """What must die has to be gone by then, counted from the start of trouble."""

    recover_s: float = 3
    """The watched service has to beat evenly again so long after that."""

    thrash_recover_s: float | None = None
    """Or so long after the disk began to hold everybody up, whichever is later: what was swapped
    out comes back no faster than a slow disk reads."""

    calm_by_s: float | None = None
    """Where nobody must die: the watched service has to beat evenly from then on."""

    settle_s: float = 1
    """Quiet time after everybody in the landscape holds what it wants."""

    after_s: float = 4
    programs: Mapping[str, str] = field(default_factory=dict)
    """Program name to role, for what the actors themselves start."""

    end_roles: tuple[str, ...] = ()
    """Roles whose end ends the run; by default everyone who makes trouble."""

    thaw_s: float | None = None
    """If given, /mnt/share is frozen when trouble starts, and thawed so long after."""

    setup: str = ""
    """Shell lines that run in the guest before anything is started."""

    source: str = ""
    """Where the case comes from."""

    def __post_init__(self) -> None:
        known = self.roles
        for role in (*self.must_die, *self.may_die, *self.must_finish, *self.end_roles):
            if role not in known:
                raise PlanError(f"scenario {self.name}: nobody plays {role!r}")
        both = set(self.must_die) & set(self.may_die)
        if both:
            raise PlanError(f"scenario {self.name}: {sorted(both)} both must and may die")

    @property
    def roles(self) -> tuple[str, ...]:
        """Every role, in order of appearance."""
        names = [actor.role for actor in (*self.landscape, *self.trouble)]
        for actor in (*self.landscape, *self.trouble):
            names += [
                word.split("=", 1)[1]
                for word in actor.script.split()
                if word.startswith(("role=", "leaky_role="))
            ]
        return tuple(dict.fromkeys([*names, *self.programs.values()]))

    @property
    def must_live(self) -> tuple[str, ...]:
        """Everybody whose death nobody allowed."""
        allowed = {*self.must_die, *self.may_die}
        return tuple(role for role in self.roles if role not in allowed)

    @property
    def benign(self) -> bool:
        """Nothing is wrong here: nobody may die."""
        return not self.must_die and not self.may_die

    @property
    def awaited(self) -> tuple[str, ...]:
        """Roles whose end ends the run."""
        if self.end_roles:
            return self.end_roles
        return tuple(dict.fromkeys(actor.role for actor in self.trouble))
