"""Handlers ready to use: log, alert when critical, clean up, suggest.

Each is a function of an event. Those with settings are classes whose instances
are called, and each plain name is such an instance with the usual settings.
"""

from __future__ import annotations

import sys
import time

from forestall.core.units import SECOND, human_bytes, human_ns
from forestall.core.value import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from forestall.inspect.suggest import Advice
    from forestall.library.event import PressureEvent

    Say = Callable[[str], object]

ALERT_REPEAT_S = 60.0
CLEAN_REPEAT_S = 60.0
SUGGEST_REPEAT_S = 30.0
SWAP_PERCENT_MIN = 50.0
"""As the seed has it: swap is looked at when more than half of it is in use."""
_CLEAN_LEVELS = frozenset({"medium", "critical"})


def describe(event: PressureEvent) -> list[str]:
    """Write an event as lines for people."""
    moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event.timestamp))
    whole = f"the limit of {event.limit}" if event.limit else "memory"
    lines = [
        f"[{moment}] {event.pressure_level.upper()}: {event.memory_percent:.1f}% of {whole} used, "
        f"{human_bytes(event.available_bytes)} available, swap {event.swap_percent:.1f}%"
    ]
    if event.time_left_s is not None:
        lines.append(f"  about {human_ns(event.time_left_s * SECOND)} left at this pace")
    lines += [
        f"  {process.pid:>7} {process.name:<15} {process.memory_percent:5.1f}%"
        for process in event.top_processes
    ]
    if event.likely_victim is not None:
        lines.append(f"  next to go: {event.likely_victim.why}")
    if event.sentence:
        lines.append(f"  the guard says: {event.sentence}")
    return lines


def describe_advice(advice: Advice) -> list[str]:
    """Write suggestions as lines for people."""
    lines = []
    for one in advice.suggestions:
        lines.append(f"consider ending {one.name} ({one.pid}): {one.reason}")
        lines.append(f"    gives back {human_bytes(one.gain_bytes)}:  {one.command}")
    for kept in advice.protected:
        size = human_bytes(kept.held_bytes)
        lines.append(f"protected: {kept.name} ({kept.pid}), {size}, {kept.rule}")
    if advice.hidden:
        lines.append("other users' processes cannot be seen from here")
    return lines or ["no process is large enough for its end to help; see forestall memory"]


class LogPressure:
    """Writes every event down.

    Args:
        say: Takes a line; absent: standard output.
    """

    def __init__(self, say: Say | None = None) -> None:
        self._say = say or _print

    def __call__(self, event: PressureEvent) -> None:
        """Write one event."""
        for line in describe(event):
            self._say(line)


class AlertOnCritical:
    """Sends one message when memory becomes critical, and again a minute later at the soonest.

    Args:
        send: Takes the message: a chat, a mail, a pager; absent: standard error.
        repeat_s: Seconds between two messages.
        now_s: Clock in seconds.
    """

    def __init__(
        self,
        send: Say | None = None,
        *,
        repeat_s: float = ALERT_REPEAT_S,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._send = send or _complain
        self._pace = _Pace(repeat_s, now_s)

    def __call__(self, event: PressureEvent) -> None:
        """Send if it is critical and due."""
        if event.pressure_level == "critical" and self._pace.take():
            who = f"; next to go: {event.likely_victim.name}" if event.likely_victim else ""
            self._send(
                f"memory is critical: {event.memory_percent:.1f}% used, "
                f"{human_bytes(event.available_bytes)} available{who}"
            )


class CleanUp:
    """Frees what is safe to free from the medium level on; what would harm is declined.

    The page cache first; swap as well when more than half of it is in use. Both need root,
    and both are refused with a reason by the same guards as ``forestall clean``.

    Args:
        say: Takes a line about what was done, or why not; absent: standard output.
        perform: Carries an action out and returns what to say; absent: relief's own.
        repeat_s: Seconds between two attempts.
        now_s: Clock in seconds.
    """

    def __init__(
        self,
        say: Say | None = None,
        *,
        perform: Callable[[str], str] | None = None,
        repeat_s: float = CLEAN_REPEAT_S,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say = say or _print
        self._perform = perform or _relieve
        self._pace = _Pace(repeat_s, now_s)

    def __call__(self, event: PressureEvent) -> None:
        """Clean up if it is at least medium and due."""
        if event.pressure_level not in _CLEAN_LEVELS or not self._pace.take():
            return
        self._say(self._perform("page-cache"))
        if event.swap_percent > SWAP_PERCENT_MIN:
            self._say(self._perform("swap"))


class Suggest:
    """Says, when memory is critical, whom a person could end, and who is protected.

    Args:
        say: Takes a line; absent: standard output.
        advise: Finds suggestions; absent: from the process table.
        repeat_s: Seconds between two advices.
        now_s: Clock in seconds.
    """

    def __init__(
        self,
        say: Say | None = None,
        *,
        advise: Callable[[PressureEvent], Advice] | None = None,
        repeat_s: float = SUGGEST_REPEAT_S,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say = say or _print
        self._advise = advise or _advice
        self._pace = _Pace(repeat_s, now_s)

    def __call__(self, event: PressureEvent) -> None:
        """Suggest if it is critical and due."""
        if event.pressure_level == "critical" and self._pace.take():
            for line in describe_advice(self._advise(event)):
                self._say(line)


class _Pace:
    # Critical repeats with every interval; people and disks should not hear it as often.
    def __init__(self, repeat_s: float, now_s: Callable[[], float]) -> None:
        self._repeat_s = repeat_s
        self._now_s = now_s
        self._last_s: float | None = None

    def take(self) -> bool:
        now_s = self._now_s()
        if self._last_s is not None and now_s - self._last_s < self._repeat_s:
            return False
        self._last_s = now_s
        return True


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _complain(line: str) -> None:
    sys.stderr.write(line + "\n")


def _relieve(action: str) -> str:
    from forestall.relief.actions import perform  # noqa: PLC0415 - only those who clean up pay

    return perform(action).sentence


def _advice(event: PressureEvent) -> Advice:
    from forestall.inspect.suggest import advise, survey  # noqa: PLC0415 - likewise

    found = survey()
    likely = event.likely_victim.pid if event.likely_victim else None
    return advise(found.rows, likely_pid=likely, hidden=found.hidden)


log_pressure = LogPressure()
alert_on_critical = AlertOnCritical()
clean_up = CleanUp()
suggest = Suggest()
