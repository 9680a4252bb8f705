"""herald's process: one thread listens, one per channel sends, and this one decides.

Only this thread touches the engine and the spool; the others hand it what they
have by one queue. A channel that hangs holds up nobody but itself.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from importlib.util import find_spec
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from forestall.config.alerts import BY_NAME, default_channels
from forestall.control.client import TIMEOUT_S, Client
from forestall.control.messages import SERVICE
from forestall.core.units import SECOND
from forestall.herald.engine import Engine, Plan
from forestall.herald.event import URGENCIES
from forestall.herald.listen import Ear
from forestall.herald.send import send
from forestall.herald.spool import MEMORY, Spool
from forestall.kernel.clock import now_ns, wall_ns
from forestall.kernel.largest import boot_id, largest, total_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from forestall.config.alerts import Channel
    from forestall.herald.engine import Parcel
    from forestall.herald.outcome import Outcome

STATE_DIR = "/var/lib/forestall-herald"
SPOOL_NAME = "spool.sqlite"
EVENTS_WAITING_MAX = 256
"""Between the thread that listens and this one; beyond it the guard drops, and we see the gap."""
TOP_NS = 1 * SECOND
FRESH_NS = 5 * SECOND
"""An event older than this is history: who holds memory now says nothing about it."""
QUIET_S = 30.0
"""After so long without an event the guard is asked whether we know the last one."""
FAREWELL_NS = 3 * SECOND


def plan_of(channel: Channel) -> Plan:
    """Make the plan of a channel."""
    keys = channel.keys
    return Plan(
        name=channel.name,
        least=URGENCIES[keys["least"]],
        kinds=frozenset(keys["events"]),
        window_ns=keys["fold"] if BY_NAME[channel.kind].folds else 0,
    )


def spool_path(environment: Mapping[str, str]) -> str:
    """Where the spool is: in the folder systemd made, else in the usual one."""
    folder = environment.get("STATE_DIRECTORY", STATE_DIR).partition(":")[0]
    return f"{folder}/{SPOOL_NAME}"


def top_now() -> list[dict[str, Any]]:
    """Return up to five processes of more than 1 % of memory, largest first."""
    total = total_bytes()
    found = largest(5, total // 100 + 1, page_bytes=os.sysconf("SC_PAGE_SIZE"))
    return [
        {
            "pid": one.pid,
            "name": one.comm.decode("utf-8", "surrogateescape"),
            "share": one.resident_bytes / total,
        }
        for one in found
    ]


class Runner:
    """herald on this machine.

    Args:
        channels: Where alerts go.
        socket_path: The guard's.
        spool: The spool's file.
        environment: Where systemd says where credentials are.
    """

    def __init__(
        self,
        channels: tuple[Channel, ...],
        *,
        socket_path: str,
        spool: str,
        environment: Mapping[str, str],
    ) -> None:
        self._channels = {channel.name: channel for channel in channels}
        self._socket_path = socket_path
        self._environment = environment
        self._inbox: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        self._outcomes: SimpleQueue[tuple[Parcel, Outcome]] = SimpleQueue()
        self._room = threading.BoundedSemaphore(EVENTS_WAITING_MAX)
        self._ending = threading.Event()
        self._stopping = False
        self._outboxes: dict[str, SimpleQueue[Parcel]] = {}
        self._away = 0
        self._top: list[dict[str, Any]] = []
        self._top_ns = -TOP_NS
        self._spool = Spool(spool, complain)
        self._engine = Engine(
            self._spool, map(plan_of, channels), host=os.uname().nodename, boot=boot_id()
        )

    def stop(self) -> None:
        """Ask for an end; may be called from a signal handler or another thread.

        What waits in the inbox is left: the guard, or the next herald, still has it.
        """
        self._stopping = True
        self._inbox.put(("stop", None))  # Re-entrant, unlike Queue.

    def run(self) -> None:
        """Work until told to stop."""
        self._engine.begin(now_ns(), wall_ns())
        for name in self._channels:
            self._outboxes[name] = SimpleQueue()
            threading.Thread(target=self._work, args=(name,), daemon=True).start()
        threading.Thread(target=self._listen, daemon=True).start()
        while self._turn():
            pass
        self._ending.set()
        self._engine.stop(wall_ns())
        self._part()
        lost = self._engine.leave()
        if lost:
            complain(f"{lost} events are lost: they were not sent, and are in memory only")
        self._spool.close()

    # This thread.

    def _turn(self) -> bool:
        if self._stopping:
            return False
        self._settle()
        self._dispatch()
        try:
            kind, what = self._inbox.get(timeout=self._engine.wait_ns(now_ns(), wall_ns()) / SECOND)
        except Empty:
            return True
        return self._take(kind, what)

    def _take(self, kind: str, what: Any) -> bool:  # noqa: ANN401 - by kind
        match kind:
            case "event":
                self._room.release()
                sequence, raw = what
                self._engine.take(sequence, self._with_top(raw), now_ns(), wall_ns())
            case "outcome":
                pass  # Settled before whatever waited in front of this.
            case "reached" if what:
                self._engine.reached(now_ns(), wall_ns())
            case "reached":
                self._engine.missed(now_ns())
            case "stop":
                return False
        return True

    def _settle(self) -> None:
        """Take note of what channels have sent: ahead of all events, or each waits for 256."""
        while True:
            try:
                parcel, outcome = self._outcomes.get_nowait()
            except Empty:
                return
            self._away -= 1
            self._engine.settle(parcel, outcome, wall_ns())

    def _dispatch(self) -> None:
        for parcel in self._engine.tick(now_ns(), wall_ns()):
            self._away += 1
            self._outboxes[parcel.channel].put(parcel)

    def _with_top(self, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        time_ns = raw.get("time_ns")
        if not isinstance(time_ns, int) or abs(wall_ns() - time_ns) > FRESH_NS:
            return raw
        moment_ns = now_ns()
        if moment_ns - self._top_ns >= TOP_NS:
            self._top_ns = moment_ns
            self._top = top_now()
        return {**raw, "top": self._top}

    def _part(self) -> None:
        """Give the channels a moment for what they have; the rest stays in the spool."""
        deadline_ns = now_ns() + FAREWELL_NS
        self._dispatch()
        while self._away and (left_ns := deadline_ns - now_ns()) > 0:
            try:
                self._inbox.get(timeout=left_ns / SECOND)
            except Empty:
                return
            self._settle()

    # The others.

    def _work(self, name: str) -> None:
        channel = self._channels[name]
        while True:
            parcel = self._outboxes[name].get()
            outcome = send(channel, parcel.letter, environment=self._environment, wall_ns=wall_ns())
            self._outcomes.put((parcel, outcome))
            self._inbox.put(("outcome", None))

    def _listen(self) -> None:
        Ear(
            self._stream,
            heard=self._heard,
            reached=lambda answers: self._inbox.put(("reached", answers)),
            pause=self._ending.wait,
        ).follow()

    def _stream(
        self, since: int, *, answer_s: float = TIMEOUT_S
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        with Client(self._socket_path, timeout_s=answer_s) as guard:
            # A guard that hangs takes connections; only an answer tells that it lives.
            guard.call(f"{SERVICE}.GetInfo")
            yield from guard.monitor(since=since, patience_s=QUIET_S)

    def _heard(self, sequence: int, raw: dict[str, Any]) -> None:
        self._room.acquire()
        self._inbox.put(("event", (sequence, raw)))


def run(channels: tuple[Channel, ...], *, socket_path: str, environment: Mapping[str, str]) -> None:
    """Run herald until SIGTERM or SIGINT."""
    channels = without_the_impossible(channels)
    path = spool_path(environment)
    if not Path(path).parent.is_dir():
        complain(f"{Path(path).parent} is missing: letters are in memory only")
        path = MEMORY
    runner = Runner(channels, socket_path=socket_path, spool=path, environment=environment)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: runner.stop())
    complain(f"{len(channels)} channels: {', '.join(channel.name for channel in channels)}")
    runner.run()


def without_the_impossible(
    channels: tuple[Channel, ...], find: Callable[[str], object | None] = find_spec
) -> tuple[Channel, ...]:
    """Leave out the built-in desktop channel where jeepney is missing: nobody asked for it.

    A channel that was asked for stays, and says at every letter what it lacks.
    """
    if find("jeepney") is not None:
        return channels
    return tuple(
        channel
        for channel in channels
        if channel.kind != "desktop" or channel not in default_channels()
    )


def complain(sentence: str) -> None:
    """Say something to the journal; nobody is waited for, nothing is raised."""
    try:
        sys.stderr.write(f"forestall-herald: {sentence}\n")
        sys.stderr.flush()
    except OSError:
        pass  # Nobody listens; the work goes on.
