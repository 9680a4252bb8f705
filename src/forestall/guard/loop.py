"""The shell: ask the kernel, ask the policy, write it down, do it.

Rule: this is the only module that catches every exception. A guard that stops
guarding is worse than one that forgets what it was about to do.
"""

from __future__ import annotations

from collections import deque

from forestall.core import fallback
from forestall.core.events import (
    End,
    Gone,
    Missed,
    Relieve,
    Reset,
    Sampled,
    Survey,
    Surveyed,
    Tell,
    Watched,
)
from forestall.core.groups import next_look_ns
from forestall.core.model import Level, Memory, ProcessId, Role, Row, Standing
from forestall.core.pace import (
    FILL_BYTES_PER_S,
    STARVED_NS,
    held_up,
    kept_waiting,
    nothing_new,
    pause_ns,
    rest,
    urgent,
    wants_activity,
)
from forestall.core.policy import step
from forestall.core.state import Choosing, afresh, begin, under
from forestall.core.units import GIB, MINUTE, MS
from forestall.core.value import TYPE_CHECKING
from forestall.kernel.errors import KernelError

if TYPE_CHECKING:
    from collections.abc import Callable

    from forestall.core.events import Event, Request
    from forestall.core.model import Group
    from forestall.core.pace import Rest
    from forestall.core.rules import Rules
    from forestall.core.state import State

EVENTS_PER_TURN_MAX = 2048
"""A family of 512 brings as many pieces of news; more than this is a policy gone wrong."""
STUMBLES_MAX = 3
STUMBLE_WINDOW_NS = 1 * MINUTE
REST_TIMES = 6
REST_NS_MAX = 50 * MS
"""Ticks of a millisecond are for machines on which one costs 50 µs. Where it costs a millisecond
(emulated, throttled, starved), the guard must not take the processor that others wait for."""
BLIND_SAMPLES = 5
"""So many samples missed in a row are worth telling."""


def _take_a_sample(_rest: Rest) -> bool:
    """Where there is no shorter look than a sample."""
    return False


class Ports:
    """Everything the loop touches; a test, a dry run and the daemon differ only in these."""

    def __init__(  # noqa: PLR0913 - one parameter for each way out of the loop
        self,
        *,
        now_ns: Callable[[], int],
        sample: Callable[[int, bool], Sampled],
        survey: Callable[[bool], Surveyed],
        perform: Callable[[End, int], list[Event]],
        relieve: Callable[[Relieve], None],
        tell: Callable[[Tell, int], None],
        record: Callable[[State, Event, tuple[Request, ...], int], None],
        groups: Callable[[], tuple[Group, ...]] = tuple,
        unmoved: Callable[[Rest], bool] = _take_a_sample,
    ) -> None:
        self.now_ns = now_ns
        self.sample = sample
        self.survey = survey
        self.perform = perform
        self.relieve = relieve
        self.tell = tell
        self.record = record
        self.groups = groups
        self.unmoved = unmoved


class Loop:
    """One policy at work."""

    def __init__(self, rules: Rules, ports: Ports) -> None:
        self.rules = rules
        self.state = begin(rules)
        self.late_ns_max = 0
        self.samples = 0
        self.surveys = 0
        self.missed = 0
        self.errors = 0
        self.untold = 0
        """Internal errors that could not even be told, or recorded."""
        self.fill_per_s = FILL_BYTES_PER_S
        """How fast this machine can use up memory at most."""
        self._ports = ports
        self._stumbles: deque[int] = deque(maxlen=STUMBLES_MAX)
        self._blind = 0
        self._late_ns = 0
        self._kept_ns = 0
        self._groups_ns = 0
        self._costs_ns = (0, 0)
        """Of the last two ticks without a survey."""
        self._step = step
        self._rest: Rest | None = None
        """What the policy need not be asked about; None: everything. Ends with each answer."""
        self._pause_ns = 0

    def pause_ns(self) -> int:
        """How long to wait for the next turn."""
        if self._rest is None:
            # The cheaper of the last two: one that was preempted says nothing about the machine.
            cost_ns = min(self._costs_ns)
            self._pause_ns = max(
                pause_ns(self.state, self.rules, self.fill_per_s),
                min(REST_TIMES * cost_ns, REST_NS_MAX),
            )
            if self._pause_ns < self.rules.interval_ns:
                self._rest = rest(self.state, self.rules)
        return self._pause_ns

    def urgent(self) -> bool:
        """Whether we should go before everybody else on the processors."""
        return urgent(self.state, self._kept_ns)

    def rouse(self) -> None:
        """Have the policy asked at the next turn, whatever it sees."""
        self._rest = None

    def still(self, now_ns: int, late_ns: int) -> bool:
        """Look; tell whether nothing has moved, so that there is no turn to take yet.

        Raises: SystemExit, as for ``turn``.
        """
        rest = self._rest
        if rest is None or now_ns >= rest.until_ns or late_ns >= STARVED_NS:
            return False
        try:
            if not self._ports.unmoved(rest):
                return False
        except Exception as error:  # noqa: BLE001 - the one place, see above
            self._stumble(error)
            return False
        self.samples += 1
        self._kept_ns = kept_waiting(self._kept_ns, late_ns)
        if late_ns > self.late_ns_max:  # noqa: PLR1730 - ten times a second, on cold caches
            self.late_ns_max = late_ns
        return True

    def turn(self, planned_ns: int) -> bool:
        """Take one sample and see it through; False when there was nothing new in it.

        Raises: SystemExit on the third internal error within a minute while memory
            is not short; the supervisor then starts a fresh process.
        """
        now_ns = self._ports.now_ns()
        self._late_ns = late_ns = now_ns - planned_ns if now_ns > planned_ns else 0
        self.late_ns_max = max(self.late_ns_max, late_ns)
        self._kept_ns = kept_waiting(self._kept_ns, late_ns)
        rest, surveys = self._rest, self.surveys
        try:
            if rest is None or now_ns >= rest.until_ns:
                wanted = wants_activity(self.state, now_ns)
                event = self._sample(now_ns, with_activity=wanted)
            else:
                event = self._sample(now_ns, with_activity=False)
                if isinstance(event, Sampled) and nothing_new(rest, event):
                    return False
            self._see_through(event)
        except Exception as error:  # noqa: BLE001 - the one place, see above
            self._stumble(error)
            return True
        if self.surveys == surveys:
            self._costs_ns = (self._costs_ns[1], self._ports.now_ns() - now_ns)
        if now_ns - self._groups_ns >= next_look_ns(self.state) and not held_up(self.state):
            self._watch_groups(now_ns)
        return True

    def feed(self, event: Event) -> None:
        """Let the policy learn something, and do what it asks for.

        Raises: SystemExit, as for ``turn``.
        """
        try:
            self._see_through(event)
        except Exception as error:  # noqa: BLE001 - the one place, see above
            self._stumble(error)

    def trial(self, rules: Rules) -> str | None:
        """Play a shortage under rules that are not in force yet; returns why they fail, or None."""
        now_ns = self._ports.now_ns()
        victim = ProcessId(2, 1)
        row = Row(
            *(victim, 1, 2, 2, "trial", "S", 0, 0, GIB, 0, 0, 0, 0),
            *(Standing.NORMAL, "", Role.NONE, "", 0),
        )
        try:
            state = under(self.state, rules)
            for event in (
                Sampled(now_ns, Memory(GIB, 0, 0, 0, 0)),
                Surveyed(now_ns, now_ns, (row,)),
                Gone(now_ns, victim),
            ):
                state, _requests = step(state, event, rules)
            pause_ns(state, rules)
        except Exception as error:  # noqa: BLE001 - the one place, see above
            return f"{type(error).__name__}: {error}"
        return None

    def adopt(self, rules: Rules) -> None:
        """Go on under other rules; what was seen stays."""
        self.state = under(self.state, rules)
        self.rules = rules
        self._rest = None

    def _watch_groups(self, now_ns: int) -> None:
        self._groups_ns = now_ns
        groups = self._ports.groups()
        if groups or self.state.groups:
            self.feed(Watched(now_ns, groups))

    def _sample(self, now_ns: int, *, with_activity: bool) -> Event:
        try:
            event = self._ports.sample(now_ns, with_activity)
        except (KernelError, OSError) as error:
            self.missed += 1
            self._blind += 1
            if self._blind == BLIND_SAMPLES:
                sentence = f"memory could not be read {BLIND_SAMPLES} times in a row: {error}"
                self._ports.tell(Tell("blind", sentence, self.state.level), now_ns)
            return Missed(now_ns, "sample", str(error)[:200])
        self.samples += 1
        self._blind = 0
        return event

    def _see_through(self, event: Event) -> None:
        self._rest = None
        # A list, though taken from its front: most turns bring no news, and an empty one is free.
        news: list[Event] = []
        for _ in range(EVENTS_PER_TURN_MAX):
            before = self.state
            self.state, requests = self._step(before, event, self.rules)
            # Before acting: afterwards there may be no memory left to write with.
            self._ports.record(before, event, requests, self._late_ns)
            if requests:
                self._answer_all(requests, news)
            if not news:
                return
            event = news.pop(0)
        raise AssertionError("the policy does not come to rest")

    def _answer_all(self, requests: tuple[Request, ...], news: list[Event]) -> None:
        held_back = False
        for request in requests:
            if held_back and isinstance(request, Tell) and request.what == "decision":
                continue  # It was not carried out, and the policy will say so.
            answers = self._answer(request)
            news.extend(answers)
            held_back = held_back or any(isinstance(one, Missed) for one in answers)

    def _answer(self, request: Request) -> list[Event]:
        match request:
            case Survey(shared):
                return self._survey(shared=shared)
            case End():
                return self._ports.perform(request, self._ports.now_ns())
            case Tell():
                self._ports.tell(request, self.state.now_ns)
            case Relieve():
                self._ports.relieve(request)
        return []

    def _survey(self, *, shared: bool) -> list[Event]:
        self.surveys += 1
        try:
            surveyed = self._ports.survey(shared)
        except (KernelError, OSError) as error:
            self.missed += 1
            return [Missed(self._ports.now_ns(), "survey", str(error)[:200])]
        if not isinstance(self.state.hunt, Choosing):
            return [surveyed]
        # A survey takes time: look again before anybody is touched, so that memory which
        # came back meanwhile saves a life. Who cannot look does not act on what was.
        now_ns = self._ports.now_ns()
        fresh = self._sample(now_ns, with_activity=wants_activity(self.state, now_ns))
        if isinstance(fresh, Missed):
            return [fresh, Missed(fresh.now_ns, "survey", "memory could not be read after it")]
        return [fresh, surveyed]

    def _stumble(self, error: Exception) -> None:
        now_ns = self._ports.now_ns()
        self._rest = None
        self.errors += 1
        sentence = f"internal error, the policy starts afresh: {type(error).__name__}: {error}"
        try:
            self._ports.tell(Tell("error", sentence[:500], Level.NORMAL), now_ns)
        except Exception:  # noqa: BLE001 - what fails may be the telling itself
            self.untold += 1
        self._stumbles.append(now_ns)
        often = len(self._stumbles) == STUMBLES_MAX
        often = often and now_ns - self._stumbles[0] < STUMBLE_WINDOW_NS
        # Leaving now would leave the machine alone with its shortage.
        stay = often and fallback.is_short(self.state)
        before = self.state
        self.state = afresh(before, self.rules)
        if stay:
            self._step = fallback.step
        try:
            # On record, so that what follows replays.
            self._ports.record(before, Reset(now_ns, sentence[:500], stay), (), self._late_ns)
        except Exception:  # noqa: BLE001 - what fails may be the recorder itself
            self.untold += 1
        if often and not stay:
            raise SystemExit(70)
