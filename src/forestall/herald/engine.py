"""What herald does, without threads, sockets or clocks: events in, letters out, outcomes in.

Times are arguments: ``now_ns`` is monotonic and folds; ``wall_ns`` is the time
of day, which the spool needs because it outlives a boot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from forestall.core.units import MINUTE, SECOND, human_ns
from forestall.herald import fold as folding
from forestall.herald import spool as spooling
from forestall.herald.event import INFO, Event, read_event
from forestall.herald.fold import Fold
from forestall.herald.moments import utc
from forestall.herald.outcome import (
    RETRY_AFTER_NS_MAX,
    WHY_CHARACTERS_MAX,
    Later,
    Never,
    Sent,
    next_try_ns,
)

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping

    from forestall.herald.letter import Letter
    from forestall.herald.outcome import Outcome
    from forestall.herald.spool import Spool

ALIVE_NS = 1 * MINUTE
"""How often a sign of life is written, for "the machine went down at"."""
DISK_RETRY_NS = 5 * MINUTE
WAIT_NS_MAX = 30 * SECOND
SILENT_NS = 15 * SECOND
"""The guard may restart; only when it stays away so long is that told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one channel wants."""

    name: str
    least: int = INFO
    """Events of lower urgency are not for it."""
    kinds: frozenset[str] = frozenset()
    """Only these; empty for all."""
    window_ns: int = folding.WINDOW_NS
    """Fold what comes so soon after another; 0 folds nothing."""

    def wants(self, event: Event) -> bool:
        """Tell whether an event is for this channel."""
        if event.what == "test":
            return True
        return event.urgency >= self.least and (not self.kinds or event.what in self.kinds)


@dataclass(frozen=True, slots=True)
class Parcel:
    """A letter on its way to a channel."""

    epoch: int
    number: int
    channel: str
    letter: Letter


class Engine:
    """Folds, spools, and decides what is sent when.

    Args:
        host: Put into every event.
        boot: Names this boot, so that the next one is told apart.
    """

    def __init__(self, spool: Spool, plans: Iterable[Plan], *, host: str, boot: str) -> None:
        self._spool = spool
        self._plans = {plan.name: plan for plan in plans}
        self._host = host
        self._boot = boot
        self._folds: dict[str, Fold] = {}
        self._epoch = spool.epoch
        self._away: dict[str, Parcel] = {}
        """By channel: the one letter it is busy with."""
        self._run = spool.fact("run")
        self._sequence = int(spool.fact("sequence") or 0)
        self._alive_ns: int | None = None
        self._disk_ns: int | None = None
        self._silent_since_ns: int | None = None
        self._silence_told = False
        self._farewell = False
        """The guard's last word was that it stops: silence is no news then."""

    @property
    def last(self) -> tuple[str, int]:
        """The last event that was received: the guard's life, and its number in it."""
        return self._run, self._sequence

    def begin(self, now_ns: int, wall_ns: int) -> None:
        """Take up what an earlier herald left: held events go out, and a sudden stop is told."""
        self._post_all_held(wall_ns)
        alive, boot = self._spool.fact("alive"), self._spool.fact("boot")
        if alive and not self._spool.fact("stopped"):
            self.own(
                "went-down",
                _sudden_stop(
                    int(alive), wall_ns, same_boot=boot == self._boot, last=self._spool.fact("last")
                ),
                now_ns,
                wall_ns,
            )
        self._spool.keep(boot=self._boot, stopped="", alive=str(wall_ns))

    def stop(self, wall_ns: int) -> None:
        """Say farewell: the next start has nothing to complain of."""
        self._post_all_held(wall_ns)
        self._spool.keep(stopped="1", alive=str(wall_ns))

    def leave(self) -> int:
        """Bring to the disk what is in memory; returns how many events it does not take.

        To be called last: what they were is told nowhere else.
        """
        if self._spool.return_to_disk():
            return 0
        tallies = [self._spool.tally(channel) for channel in self._spool.channels()]
        return sum(tally.waiting + tally.held for tally in tallies)

    def take(
        self, sequence: int, raw: Mapping[str, Any], now_ns: int, wall_ns: int
    ) -> Event | None:
        """Take an event of the guard; None when it was known already."""
        event = read_event(sequence, {**raw, "host": self._host})
        run = event.run or "?"
        if run == self._run and sequence <= self._sequence:
            return None
        lost = sequence - 1 - (self._sequence if run == self._run else 0)
        if lost > 0:
            self._spool.bump("lost", lost)
            self.own("lost", f"{lost} events of the guard did not arrive", now_ns, wall_ns)
        self._run, self._sequence = run, sequence
        self._farewell = event.what == "stop"
        self._spread(event, now_ns, wall_ns, counter="received")
        return event

    def own(self, what: str, sentence: str, now_ns: int, wall_ns: int) -> None:
        """Tell something of our own."""
        raw = {"what": what, "sentence": sentence, "time_ns": wall_ns, "host": self._host}
        self._spread(read_event(0, raw), now_ns, wall_ns, counter="own")

    def reached(self, now_ns: int, wall_ns: int) -> None:
        """Note that the guard answers."""
        if self._silence_told and self._silent_since_ns is not None:
            away = human_ns(now_ns - self._silent_since_ns)
            self.own("silent", f"the guard answers again, after {away}", now_ns, wall_ns)
        self._silent_since_ns, self._silence_told = None, False

    def missed(self, now_ns: int) -> None:
        """Note that the guard does not answer."""
        if self._silent_since_ns is None:
            self._silent_since_ns = now_ns

    def tick(self, now_ns: int, wall_ns: int) -> list[Parcel]:
        """Close windows, write the sign of life; returns what is to be sent now."""
        self._settle_spool(now_ns, wall_ns)
        self._tell_silence(now_ns, wall_ns)
        for name, fold in list(self._folds.items()):
            self._folds[name], numbers = folding.close(fold, now_ns)
            if numbers:
                self._post(name, numbers, wall_ns)
        if self._alive_ns is None or now_ns - self._alive_ns >= ALIVE_NS:
            self._alive_ns = now_ns
            self._spool.keep(alive=str(wall_ns))
        parcels = []
        for row in self._spool.due(wall_ns, wall_ns + RETRY_AFTER_NS_MAX):
            if row.channel in self._away or row.channel not in self._plans:
                continue
            parcel = Parcel(self._spool.epoch, row.number, row.channel, row.letter)
            self._away[row.channel] = parcel
            parcels.append(parcel)
        return parcels

    def settle(self, parcel: Parcel, outcome: Outcome, wall_ns: int) -> None:
        """Take note of what became of a parcel."""
        self._away.pop(parcel.channel, None)
        if parcel.epoch != self._spool.epoch:
            return  # The letter is in the other spool, and is sent again from there.
        why = "" if isinstance(outcome, Sent) else outcome.why[:WHY_CHARACTERS_MAX]

        def change(base: sqlite3.Connection) -> None:
            match outcome:
                case Sent():
                    spooling.finish(base, parcel.number, spooling.SENT, wall_ns)
                case Never():
                    spooling.finish(base, parcel.number, spooling.FAILED, wall_ns, why)
                case Later():
                    tries, made_ns = spooling.history(base, parcel.number)
                    next_ns = next_try_ns(tries + 1, outcome, wall_ns, made_ns)
                    if next_ns is None:
                        spooling.finish(base, parcel.number, spooling.FAILED, wall_ns, why)
                    else:
                        spooling.postpone(base, parcel.number, next_ns, why)

        self._spool.write(change)

    def wait_ns(self, now_ns: int, wall_ns: int) -> int:
        """Return how long nothing needs to be done, unless something comes in."""
        waits = [WAIT_NS_MAX]
        waits += [fold.until_ns - now_ns for fold in self._folds.values() if fold.until_ns]
        waits += [
            next_ns - wall_ns
            for channel, next_ns in self._spool.next_by_channel().items()
            if channel in self._plans and channel not in self._away
        ]
        return max(0, min(waits))

    # Inside.

    def _spread(self, event: Event, now_ns: int, wall_ns: int, *, counter: str) -> None:
        self._settle_spool(now_ns, wall_ns)
        folds = dict(self._folds)

        def change(base: sqlite3.Connection) -> dict[str, Fold]:
            # Begins anew on every try: a failed disk must leave no half of it.
            new = dict(folds) if self._spool.epoch == self._epoch else {}
            spooling.bump(base, "", counter, 1)
            facts = {"run": self._run, "sequence": str(self._sequence), "alive": str(wall_ns)}
            if counter == "received":
                facts["last"] = event.sentence
            spooling.keep(base, facts)
            for plan in self._plans.values():
                if not plan.wants(event):
                    continue
                number = spooling.hold(base, plan.name, event)
                fold = new.get(plan.name, Fold())
                # A window that is over must not fold one more event into its summary.
                fold, due = folding.close(fold, now_ns)
                fold, numbers = folding.take(
                    fold, number, event.urgency, now_ns, window_ns=plan.window_ns
                )
                new[plan.name] = fold
                for batch in (due, numbers):
                    spooling.post(base, plan.name, batch, wall_ns)
            return new

        self._folds = self._spool.write(change)
        self._epoch = self._spool.epoch

    def _tell_silence(self, now_ns: int, wall_ns: int) -> None:
        since_ns = self._silent_since_ns
        if since_ns is None or self._silence_told or self._farewell:
            return
        if now_ns - since_ns >= SILENT_NS:
            self._silence_told = True
            away = human_ns(now_ns - since_ns)
            sentence = f"the guard has not answered for {away}: nobody watches memory"
            self.own("silent", sentence, now_ns, wall_ns)

    def _post(self, channel: str, numbers: tuple[int, ...], wall_ns: int) -> None:
        self._spool.write(lambda base: spooling.post(base, channel, numbers, wall_ns))

    def _post_all_held(self, wall_ns: int) -> None:
        self._folds = {}
        for channel in self._spool.channels():
            held = self._spool.held(channel)
            if held:
                self._post(channel, tuple(number for number, _event in held), wall_ns)

    def _settle_spool(self, now_ns: int, wall_ns: int) -> None:
        """Try the disk again from time to time; forget numbers of a spool that is gone."""
        if self._spool.on_disk or self._disk_ns is None:
            self._disk_ns = now_ns
        elif now_ns - self._disk_ns >= DISK_RETRY_NS:
            self._disk_ns = now_ns
            self._spool.return_to_disk()
        if self._spool.epoch != self._epoch:
            self._epoch = self._spool.epoch
            self._post_all_held(wall_ns)


def _sudden_stop(alive_ns: int, wall_ns: int, *, same_boot: bool, last: str) -> str:
    away = human_ns(max(0, wall_ns - alive_ns))
    who = "herald stopped" if same_boot else "the machine went down"
    sentence = f"{who} at {utc(alive_ns)} or soon after, without a farewell, for at most {away}"
    return sentence + (f"; the last event before: {last}" if last else "")
