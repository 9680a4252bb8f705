"""What the policy remembers between two events. Immutable: every state is a keyframe.

The hunt is where a decision stands; each of its four states carries only what
it knows.
"""

from __future__ import annotations

from forestall.core.census import Census, Track
from forestall.core.codec import register
from forestall.core.model import Activity, Force, Holdings, Level, Memory, ProcessId, Stage
from forestall.core.trend import Flow, Point, Trail
from forestall.core.value import TYPE_CHECKING, value

if TYPE_CHECKING:
    from typing import TypeAlias

    from forestall.core.rules import Rules


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
class Told:
    """When things were last told, so that nothing floods."""

    warned_ns: int | None = None
    critical_ns: int | None = None
    nobody_ns: int | None = None
    relieve_ns: int | None = None


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


def begin(rules: Rules) -> State:
    """Return the state to start from under these rules."""
    return State(holding=(None,) * len(rules.triggers))


def under(state: State, rules: Rules) -> State:
    """Carry a state over to new rules: what was seen stays, what was half decided does not."""
    return state._replace(  # type: ignore[attr-defined,no-any-return]
        hunt=Calm(), holding=(None,) * len(rules.triggers), ceilings=None, warning=""
    )


register(Calm, Choosing, Ending, Settling, Ceilings, Prospect, Told, State)
register(Trail, Point, Flow, Census, Track)
