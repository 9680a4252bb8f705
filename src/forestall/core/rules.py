"""What the policy is told to do: limits, triggers, victim rules. Built by ``config``, read here.

Amounts are scale-aware: ``min(4%, 1GiB)`` means four percent on a laptop and
one GiB on a server, because what matters near the end is how much is left to
work with, and a percentage of two terabytes is a lot.
"""

from __future__ import annotations

from enum import Enum

from forestall.core.model import Level, Memory, Stage, Standing
from forestall.core.units import GIB, MIB, MS, SECOND
from forestall.core.value import value
from forestall.core.wards import names_pattern


@value
class Limit:
    """An amount of memory that scales with the machine."""

    share: float | None = None
    """Share of the whole (RAM for available, swap for swap_free)."""
    size_bytes: int | None = None
    smaller: bool = True
    """Of the two, take the smaller (``min``) or the larger (``max``)."""

    def of(self, whole_bytes: int) -> int:
        """Resolve against a whole; one part absent means the other alone."""
        if self.share is None:
            return self.size_bytes or 0
        part_bytes = int(whole_bytes * self.share)
        if self.size_bytes is None:
            return part_bytes
        pick = min if self.smaller else max
        return pick(part_bytes, self.size_bytes)


class Signal(Enum):
    """What a condition may look at; units in brackets."""

    AVAILABLE = "available"
    """[bytes] Memory that can be had without swapping."""
    SWAP_FREE = "swap_free"
    """[bytes] Usable free swap; a machine without swap counts as having none left."""
    STALL_SOME = "stall_some"
    """[share] Time in which at least one task waited for memory, over the window."""
    STALL_FULL = "stall_full"
    """[share] Time in which every task waited for memory, over the window."""
    STALL_IO = "stall_io"
    """[share] Time in which every task waited for a disk, over the window."""
    TIME_LEFT = "time_left"
    """[ns] Until memory and swap are gone, at the pace of the last moments."""
    SURGE_LEFT = "surge_left"
    """[ns] The same at the fastest pace of the last six seconds: what is wanted, not what
    reclaim still lets through once memory is short."""
    REMAINDER = "remainder"
    """[share] Memory and swap that are left, of what went within the last minute."""
    REFAULTS = "refaults"
    """[bytes/s] Memory read back soon after it had been pushed out, over the window."""
    READBACK = "readback"
    """[share] Of the pages moved to and from swap over the window, those read back."""


@value
class Condition:
    """One comparison; unknown never holds, because nobody acts on a guess."""

    signal: Signal
    below: bool
    """True: holds below the limit; false: holds above it."""
    amount: Limit | None = None
    """For available and swap_free."""
    number: float = 0.0
    """For the others, in the signal's unit."""
    window_ns: int = 0
    """For stall, refaults and readback: the time looked back over."""


@value
class Trigger:
    """All conditions at once, and for how long; several triggers are alternatives."""

    name: str
    stage: Stage
    conditions: tuple[Condition, ...]
    hold_ns: int = 0
    action: str = ""
    """What relief does at the stage relieve; empty: reclaim from cold cgroups."""


class Field(Enum):
    """What of a process a victim rule looks at."""

    NAME = "name"
    EXE = "exe"
    CMDLINE = "cmdline"
    UNIT = "unit"
    CGROUP = "cgroup"
    UID = "uid"


@value
class VictimRule:
    """Gives a standing to the processes it matches; the first that matches counts."""

    standing: Standing
    field: Field
    pattern: str
    """Regular expression (search); for uid a decimal number."""
    label: str
    """How the rule is named in sentences: where it came from."""
    adjust: int | None = None
    """The oom_score_adj that ``forestall protect`` gives; as written, perhaps on the old scale."""


@value
class LevelRule:
    """A level of fullness: entered when used memory reaches the share and little enough is left."""

    level: Level
    used_share: float
    available_max_bytes: int
    """Never entered while more than this is available: 95 % of 2 TiB is not critical."""


@value
class Rules:
    """The validated settings that the policy reads."""

    levels: tuple[LevelRule, ...]
    """Mildest first."""
    level_margin_share: float
    """A level is left only when used memory is this much below where it was entered."""
    triggers: tuple[Trigger, ...]
    grace_ns: int
    """Between SIGTERM and SIGKILL, at most; shortened by the measured slope."""
    kill_patience_ns: int
    """After SIGKILL without effect, before the victim counts as stuck."""
    settle_ns: int
    """After a victim is gone, at most this long for its memory to come back."""
    recovery: Limit
    """What should be available (or, in swap, free) when we are done: what 'enough' means."""
    family_share: float
    """A family is judged as one when it holds at least this share of the growth."""
    victim_rules: tuple[VictimRule, ...]
    warn_repeat_ns: int
    interval_ns: int
    """Longest sleep between samples."""
    unit_kill: bool
    """Whether an application unit may be ended as a whole."""
    kill_within_cgroup: bool
    """Whether to act when a cgroup, not the machine, runs into its own limit."""
    read_back: bool = False
    """Whether relief brings back, after an end, what those who wait had lost to a disk. Records
    from before there was this were made without it."""


@value
class Options:
    """How the guard runs; nothing here changes a decision, except ``dry_run``."""

    dry_run: bool = False
    only_uid: int | None = None
    """Guard this user's processes only (without root)."""
    socket_path: str = "/run/forestall/control.sock"
    record_dir: str = "/var/lib/forestall"
    record_ring_bytes: int = 2 * MIB
    record_disk_bytes: int = 64 * MIB
    nice: int = -20
    """Below 0 only while there is no time to lose (``core.pace.urgent``), and 0 else."""
    realtime: bool = False
    """SCHED_RR 1; with RT_GROUP_SCHED it blocks the cpu controller."""
    oom_score_adj: int = -1000
    lock_memory: bool = True
    relief: bool = True
    log_style: str = "auto"
    """auto, plain or journal."""


def available(below: Limit) -> Condition:
    """Write "available < limit"."""
    return Condition(Signal.AVAILABLE, below=True, amount=below)


def swap_free(below: Limit) -> Condition:
    """Write "swap_free < limit"."""
    return Condition(Signal.SWAP_FREE, below=True, amount=below)


def above(signal: Signal, number: float, window_ns: int) -> Condition:
    """Write "signal[window] > number"."""
    return Condition(signal, below=False, number=number, window_ns=window_ns)


def time_left(below_ns: int) -> Condition:
    """Write "time_left < duration"."""
    return Condition(Signal.TIME_LEFT, below=True, number=float(below_ns))


# The defaults below were chosen by the arena; docs/decisions/0002-default-triggers.md says how.
DEFAULT_TRIGGERS = (
    Trigger(
        "exhausted",
        Stage.KILL,
        (available(Limit(0.02, 256 * MIB)), swap_free(Limit(0.10, 256 * MIB))),
    ),
    Trigger(
        "nearly-exhausted",
        Stage.TERMINATE,
        (available(Limit(0.03, 512 * MIB)), swap_free(Limit(0.10, 512 * MIB))),
    ),
    Trigger(
        "running-out",
        Stage.KILL,
        (
            available(Limit(0.06, 1 * GIB)),
            swap_free(Limit(0.50)),
            time_left(2_500 * MS),
            above(Signal.STALL_SOME, 0.10, 1 * SECOND),
        ),
    ),
    Trigger(
        "surge",
        Stage.KILL,
        (
            available(Limit(0.04, 512 * MIB)),
            # Swap that is hardly touched may yet hold it all: a pace alone is no proof.
            swap_free(Limit(0.75)),
            Condition(Signal.SURGE_LEFT, below=True, number=float(3 * SECOND)),
            above(Signal.STALL_SOME, 0.15, 1 * SECOND),
        ),
    ),
    Trigger(
        "overrun",
        Stage.KILL,
        (
            available(Limit(0.04, 512 * MIB)),
            Condition(Signal.REMAINDER, below=True, number=0.5),
            Condition(Signal.SURGE_LEFT, below=True, number=float(20 * SECOND)),
            above(Signal.STALL_SOME, 0.20, 500 * MS),
        ),
    ),
    Trigger(
        "frozen",
        Stage.KILL,
        (
            available(Limit(0.05, 1 * GIB)),
            above(Signal.STALL_SOME, 0.80, 2 * SECOND),
            above(Signal.STALL_FULL, 0.40, 2 * SECOND),
        ),
        hold_ns=500 * MS,
    ),
    Trigger(
        "thrash",
        Stage.KILL,
        (
            available(Limit(0.08, 2 * GIB)),
            above(Signal.STALL_FULL, 0.25, 2 * SECOND),
            above(Signal.STALL_IO, 0.20, 2 * SECOND),
        ),
        hold_ns=500 * MS,
    ),
    Trigger(
        "churn",
        Stage.KILL,
        (
            available(Limit(0.08, 2 * GIB)),
            above(Signal.STALL_FULL, 0.25, 2 * SECOND),
            above(Signal.READBACK, 0.25, 2 * SECOND),
            above(Signal.REFAULTS, 8.0 * MIB, 2 * SECOND),
        ),
        hold_ns=1 * SECOND,
    ),
    Trigger(
        "prolonged",
        Stage.KILL,
        (
            available(Limit(0.03, 1 * GIB)),
            above(Signal.STALL_FULL, 0.28, 10 * SECOND),
        ),
        hold_ns=3 * SECOND,
    ),
    Trigger(
        "soon",
        Stage.WARN,
        (time_left(60 * SECOND), available(Limit(0.25, 8 * GIB))),
        hold_ns=1 * SECOND,
    ),
    Trigger("low", Stage.WARN, (available(Limit(0.10, 2 * GIB)), swap_free(Limit(0.25)))),
)

DEFAULT_LEVELS = (
    LevelRule(Level.LOW, 0.70, 64 * GIB),
    LevelRule(Level.MEDIUM, 0.85, 32 * GIB),
    LevelRule(Level.CRITICAL, 0.95, 16 * GIB),
)

DEFAULT_VICTIM_RULES = (
    VictimRule(Standing.AVOID, Field.NAME, names_pattern(Standing.AVOID), "built-in avoid list"),
    VictimRule(Standing.PREFER, Field.NAME, names_pattern(Standing.PREFER), "built-in prefer list"),
)

DEFAULT_RULES = Rules(
    levels=DEFAULT_LEVELS,
    level_margin_share=0.02,
    triggers=DEFAULT_TRIGGERS,
    grace_ns=5 * SECOND,
    kill_patience_ns=5 * SECOND,
    settle_ns=3 * SECOND,
    recovery=Limit(0.10, 2 * GIB),
    family_share=0.60,
    victim_rules=DEFAULT_VICTIM_RULES,
    warn_repeat_ns=60 * SECOND,
    interval_ns=1 * SECOND,
    unit_kill=True,
    kill_within_cgroup=False,
    read_back=True,
)


def whole_of(signal: Signal, memory: Memory) -> int:
    """Return what a percentage of this signal is a percentage of."""
    return memory.swap_total_bytes if signal is Signal.SWAP_FREE else memory.total_bytes
