"""What the policy may learn (events) and what it may ask for (requests).

Rule: time enters only inside events. Each event carries its moment first, in
nanoseconds of CLOCK_MONOTONIC.
"""

from __future__ import annotations

from forestall.core.model import (
    Activity,
    Force,
    Group,
    GroupActivity,
    Holdings,
    Leaving,
    Level,
    Memory,
    Pressure,
    ProcessId,
    Row,
    Stage,
)
from forestall.core.value import TYPE_CHECKING, value

if TYPE_CHECKING:
    from typing import TypeAlias

# Events: what the policy may learn.


@value
class Sampled:
    """A tick: this is how memory stands."""

    now_ns: int
    memory: Memory
    pressure: Pressure | None = None
    """None without PSI."""
    activity: Activity | None = None
    """None on the ticks that did not read vmstat."""


CONFIRM = "confirm"
CONFIRMED = 8
"""So many of a family are asked what they still hold: its head and its largest."""


@value
class Missed:
    """A sample or a survey could not be read; the policy stays where it was."""

    now_ns: int
    what: str
    """``sample``, ``survey``, or ``confirm``: an end that was not carried out."""
    why: str


@value
class Surveyed:
    """The answer to Survey; protected and hidden processes included, marked by their standing."""

    now_ns: int
    began_ns: int
    rows: tuple[Row, ...]
    holdings: Holdings | None = None
    dropped: int = 0
    """Processes left out because the survey was full; the smallest ones."""
    hidden: bool = False
    """Other users' processes cannot be seen (hidepid, or no permission)."""
    shared: bool = False
    """Whether the rows' shared and writing bytes were looked for; otherwise they are unknown."""
    leaving: tuple[Leaving, ...] = ()
    """Who cannot be ended any more, because it ends already; these are not among the rows."""
    paused_ns: int = 0
    """Of the time it took, what was left to others."""
    groups: tuple[GroupActivity, ...] = ()
    """Of the groups in which those live who have a row."""


@value
class Watched:
    """How the control groups with limits of their own stand."""

    now_ns: int
    groups: tuple[Group, ...]


@value
class Gone:
    """The process has ended, by our doing or its own."""

    now_ns: int
    victim: ProcessId


@value
class Refused:
    """The kernel would not deliver the signal, or a safety check of the effect held it back."""

    now_ns: int
    victim: ProcessId
    why: str


@value
class Reset:
    """An error of our own: the policy starts afresh, and what was half decided is forgotten."""

    now_ns: int
    why: str
    fallback: bool = False
    """From here on the minimal policy decides, ``core.fallback``."""


@value
class Relieved:
    """Relief has done what it was asked for."""

    now_ns: int
    action: str
    gained_bytes: int
    sentence: str = ""
    """What it says of it, if anything."""


@value
class Declined:
    """Relief would not, or could not; the reason is for people."""

    now_ns: int
    action: str
    why: str


# Requests: what the policy may ask for.


@value
class Survey:
    """Read the process table: dear, so only on demand."""

    shared: bool = False
    """Also find who holds shared memory (open memfds and tmpfs files): dearer still."""


@value
class End:
    """Signal one process, a family, or a unit; ``why`` goes to the journal word for word."""

    victims: tuple[ProcessId, ...]
    force: Force
    why: str
    comm: str
    """Of the leading victim, for logs; hostile text."""
    expected_bytes: int
    """What ending them should free."""
    cgroup: str = ""
    """When set, the whole unit goes, by cgroup.kill where the kernel has it."""
    trigger: str = ""
    unit: str = ""
    """Cgroup of a unit that ends with these: its manager is told why."""
    least_bytes: int = 0
    """Only if the first CONFIRMED of them still hold so much; the answer is else ``Missed`` a
    CONFIRM. For a choice that was made some moments ago."""


READ_BACK = "read-back"
"""What relief does after an end: bring back what those who wait had lost to a disk."""


@value
class Relieve:
    """Ask relief to free what is safe to free, or to read back what is waited for."""

    action: str
    why: str


@value
class Tell:
    """Something worth telling people and programs; never waited for."""

    what: str
    """level, warning, decision, outcome, nobody, futile, kernel-kill, other-kill, stuck, …"""
    sentence: str
    level: Level
    stage: Stage | None = None
    victim: ProcessId | None = None
    comm: str = ""
    time_left_ns: int | None = None
    trigger: str = ""
    unit: str = ""
    """System unit of the victim, so that ``systemctl status`` shows the sentence with it."""


if TYPE_CHECKING:
    Event: TypeAlias = (
        Sampled | Missed | Surveyed | Watched | Gone | Refused | Reset | Relieved | Declined
    )
    Request: TypeAlias = Survey | End | Relieve | Tell
