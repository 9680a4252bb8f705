"""What the policy remembers between two events. Immutable: every state is a keyframe.

The hunt is where a decision stands; each of its four states carries only what
it knows.
"""

from __future__ import annotations

from enum import Enum

from forestall.core.census import Census, Track
from forestall.core.codec import register
from forestall.core.families import Part
from forestall.core.judge import Chosen
from forestall.core.model import Activity, Force, Holdings, Level, Memory, ProcessId, Stage
from forestall.core.refaults import GroupRates, Rate
from forestall.core.trend import Flow, Point, Trail
from forestall.core.units import SECOND
from forestall.core.value import TYPE_CHECKING, replace, value

if TYPE_CHECKING:
    from typing import TypeAlias

    from forestall.core.rules import Rules

DYING_MAX = 8
"""Hunts remembered whose victims have not gone yet; the oldest is forgotten first."""


@value
class Calm:
    """Nothing is being decided."""


@value
class Choosing:
    """A trigger asks for a victim; waiting for the process table."""

    trigger: str
    stage: Stage
    since_ns: int
    asked: bool = True
    """False after a survey failed: the next sample asks again."""
    shared: bool = False
    """The survey under way also looks for holders of shared memory."""
    spared: frozenset[ProcessId] = frozenset()


@value
class Ending:
    """Victims have been signalled and are not all gone yet."""

    victims: tuple[ProcessId, ...]
    left: frozenset[ProcessId]
    force: Force
    trigger: str
    comm: str
    cgroup: str
    since_ns: int
    patient_until_ns: int
    expected_bytes: int
    before_bytes: int
    """Headroom when the signal was sent."""
    spared: frozenset[ProcessId] = frozenset()


@value
class Settling:
    """The victims are gone, or nobody could be chosen; their memory may come back late."""

    comm: str
    """Empty when there was nobody."""
    trigger: str
    since_ns: int
    until_ns: int
    expected_bytes: int
    before_bytes: int
    spared: frozenset[ProcessId] = frozenset()
    foreign: bool = False
    """Those who go were not sent by us; ``core.others`` says how long to wait."""


if TYPE_CHECKING:
    Hunt: TypeAlias = Calm | Choosing | Ending | Settling


@value
class Ceilings:
    """Amounts that follow from rules and totals; computed when either changes."""

    total_bytes: int
    swap_total_bytes: int
    any_bytes: int
    """Above this much available memory no trigger can hold."""
    acting_bytes: int
    """Above this much nothing can be ended."""
    amounts: tuple[tuple[int, int], ...] = ()
    """For each acting trigger that looks at amounts only: available and swap below which it
    acts at once. These are what a fast hog can overrun between two samples."""
    levels_bytes: int = 0
    """Above this much the level is normal once it is; a little more than exact, for rounding."""
    still_ns: int = 0
    """How long the policy may go unasked below ``any_bytes`` while nothing moves; 0 for never."""


@value
class Prospect:
    """Who would go if something had to go now; from the latest survey."""

    now_ns: int
    victim: ProcessId | None
    comm: str
    count: int
    frees_bytes: int
    why: str


@value
class Conclusion:
    """What the last survey would have led to, kept for when looking again is dear."""

    now_ns: int
    verdict: Chosen
    headroom_bytes: int
    unit: str
    """Cgroup of a unit that would end with it, for its manager."""


@value
class Told:
    """When things were last told, so that nothing floods."""

    warned_ns: int | None = None
    critical_ns: int | None = None
    nobody_ns: int | None = None
    relieve_ns: int | None = None


class Purpose(Enum):
    """What a look inside a limited group is for."""

    WARN = "warn"
    END = "end"
    REST = "rest"
    """Nothing: somebody in it was ended, and its memory is awaited."""


@value
class Within:
    """A group that runs into its own limit, and what is being done about it."""

    path: str
    purpose: Purpose
    since_ns: int


@value
class GroupTrack:
    """What is remembered of a group with a limit of its own."""

    path: str
    now_ns: int
    limit_bytes: int
    room_bytes: int
    """What it may still take, reclaimable cache and its share of swap included."""
    pace_per_s: float
    """Bytes by which its room shrinks."""
    soft: bool
    oom_kills: int | None
    stall_full_us: int | None
    stall_share: float | None
    """Share of the time between the last two readings in which all its tasks waited for memory."""
    warned_ns: int | None

    @property
    def left_ns(self) -> int | None:
        """Until it is at its limit, at this pace; None while it is not moving there."""
        if self.pace_per_s < 1.0:
            return None
        return max(0, int(self.room_bytes * SECOND / self.pace_per_s))


@value
class Others:
    """What is remembered of waits for somebody else's victims."""

    awaited: frozenset[ProcessId] = frozenset()
    """Whose memory was waited for once already; only those that still leave."""
    rest_until_ns: int = 0
    """No wait before this: the last one ended with memory still short."""


@value
class Ended:
    """Somebody ended by us of late, and how often it has come back since."""

    key: str
    """What it is known by when it comes back: its unit, or name, owner and parent."""
    name: str
    """For people; hostile text."""
    times: int
    first_ns: int
    last_ns: int
    victims: tuple[ProcessId, ...]
    """Of the last end."""


@value
class State:
    """Everything the policy knows."""

    hunt: Hunt = Calm()
    now_ns: int = 0
    memory: Memory | None = None
    activity: Activity | None = None
    level: Level = Level.NORMAL
    trail: Trail = Trail()
    census: Census = Census()
    holding: tuple[int | None, ...] = ()
    """Since when each trigger's conditions have held, in the order of the rules."""
    ceilings: Ceilings | None = None
    falling_ns: int = 0
    """When headroom was last seen to fall fast; 0 for never."""
    survey_ns: int = 0
    survey_cost_ns: int = 0
    prospect: Prospect | None = None
    holdings: Holdings | None = None
    told: Told = Told()
    warning: str = ""
    """Name of a warning that waits for a survey to say who."""
    groups: tuple[GroupTrack, ...] = ()
    within: Within | None = None
    dying: tuple[Ending, ...] = ()
    """Ended and not gone yet when memory was back: the next shortage waits for what they hold."""
    others: Others = Others()
    ends: tuple[Ended, ...] = ()
    """Whom we ended of late, the latest last; bounded by ``core.repeats``."""
    conclusion: Conclusion | None = None


def begin(rules: Rules) -> State:
    """Return the state to start from under these rules."""
    return State(holding=(None,) * len(rules.triggers))


def under(state: State, rules: Rules) -> State:
    """Carry a state over to new rules: what was seen stays, what was half decided does not."""
    hunt, dying = state.hunt, state.dying
    if isinstance(hunt, Ending) and hunt.force is Force.KILL:
        # Who was killed dies under any rules.
        dying = still_dying(state, hunt)
    return state._replace(  # type: ignore[attr-defined,no-any-return]
        hunt=Calm(),
        holding=(None,) * len(rules.triggers),
        ceilings=None,
        warning="",
        within=None,
        dying=dying,
        conclusion=None,
    )


def afresh(state: State, rules: Rules) -> State:
    """Start again after an error of our own: nobody knows what of the last request was done."""
    return under(state._replace(hunt=Calm()), rules)  # type: ignore[attr-defined]


def still_dying(state: State, ending: Ending) -> tuple[Ending, ...]:
    """Add those who have been killed, and are no longer waited for."""
    return (*state.dying, ending)[-DYING_MAX:]


def without(dying: tuple[Ending, ...], gone: frozenset[ProcessId]) -> tuple[Ending, ...]:
    """Take out those who are gone, or waited for."""
    kept = (replace(ending, left=ending.left - gone) for ending in dying)
    return tuple(ending for ending in kept if ending.left)


register(Calm, Choosing, Ending, Settling, Ceilings, Prospect, Told, Others, Ended, State)
register(GroupTrack, Within, Purpose, Conclusion, Chosen, Part)
register(Trail, Point, Flow, Census, Track, GroupRates, Rate)
