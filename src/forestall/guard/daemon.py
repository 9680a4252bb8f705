"""The daemon: real ports for the loop, and the one place where it waits.

Everything is opened, forked and imported before readiness is told. After that
the guard never forks while memory is short, resolves no name, writes to no disk
and waits for nobody.
"""

from __future__ import annotations

import marshal
import os
import signal

from forestall import __version__
from forestall.control.server import Server
from forestall.core.codec import decode
from forestall.core.events import End, Tell
from forestall.core.rules import Options, Rules
from forestall.core.sentence import plain
from forestall.core.standing import Matcher
from forestall.core.state import Calm
from forestall.core.units import MINUTE, MS, SECOND
from forestall.core.value import TYPE_CHECKING
from forestall.effects import adjust, protect
from forestall.effects.end import EndProcess
from forestall.guard import relief_process, selftest
from forestall.guard.confirm import objection
from forestall.guard.desk import Desk
from forestall.guard.glance import cgroup2_root, relief_event
from forestall.guard.harden import harden
from forestall.guard.journal import Speaker
from forestall.guard.loop import Loop, Ports
from forestall.guard.priority import Priority
from forestall.guard.supervisor import Supervisor
from forestall.guard.survey import readers_of, survey
from forestall.guard.voice import Voice
from forestall.kernel import fill, libc
from forestall.kernel.clock import now_ns, wall_ns
from forestall.kernel.pressure import open_trigger
from forestall.kernel.processes import ProcessTable, identify
from forestall.kernel.sampler import Sampler
from forestall.kernel.wakeups import BROKEN, READ, URGENT, Wakeups
from forestall.recorder.ring import BEFORE_ENTRIES, Ring
from forestall.relief.hand import Hand

if TYPE_CHECKING:
    from typing import Any

    from forestall.core.events import Event, Relieve, Surveyed
    from forestall.core.model import ProcessId, Standing

STALL_US = 70_000
WINDOW_US = 1_000_000
"""Wake when 7 % of a second was lost to memory; without privilege the window becomes 2 s."""
WARM_UP_ROUNDS = 3
QUIET_NS = 1 * SECOND
"""Calm for so long after an episode before its record is written out."""
WRITING_NS = 5 * MS
"""Between two pieces of a record: quick enough to be done in seconds, slow enough to see."""
RELIEF_RETRY_NS = 1 * MINUTE
LAST_WORDS_MS = 2_000
"""At the stop, so long for relief to take the next piece of a record: a disk may be slow."""


def take_over(fd: int) -> int:
    """Run the guard on the rules and options in a memfd; returns the exit code."""
    with os.fdopen(fd, "rb") as handed:
        handed.seek(0)
        plain_rules, plain_options, foreground = marshal.loads(handed.read())  # noqa: S302 - ours
    rules, options = decode(plain_rules), decode(plain_options)
    return Guard(rules, options, foreground=foreground).run()


class Guard:
    """The guard on this machine."""

    def __init__(self, rules: Rules, options: Options, *, foreground: bool) -> None:
        self._options = options
        self._foreground = foreground
        self._stopping = False
        self._quiet_since_ns = 0
        self._relief_tried_ns = 0
        self._pressure_fd = -1
        self._polled: dict[int, tuple[str, int]] = {}
        self._settled = False
        """The poll is in line, and nothing that could change that has happened."""
        self._polled_pid = 0
        self._voice = Voice(
            Speaker("plain" if foreground else options.log_style),
            state=lambda: self._loop.state,
            publish=self._publish,
            foreground=foreground,
            dry_run=options.dry_run,
        )
        self._priority = Priority(options.nice)
        self._supervisor = Supervisor(dict(os.environ))
        self._hand = Hand(lambda end: relief_process.serve(end, options))
        self._sampler = Sampler()
        self._table = self._processes(rules)
        self._readers = readers_of(self._sampler, cgroup2_root())
        self._wakeups = Wakeups()
        self._ender = EndProcess(
            identify,
            never=frozenset({os.getpid(), os.getppid()}),
            dry_run=options.dry_run,
            # cgroup.kill does not ask whose processes a unit holds.
            cgroup_root="" if options.only_uid is not None else cgroup2_root(),
            may_go=self._may_go,
            reap=self._hand.reap,
        )
        self._ring = Ring(rules, bytes_max=options.record_ring_bytes, write=self._write_record)
        self._loop = Loop(
            rules,
            Ports(
                now_ns=now_ns,
                sample=self._sampler.sample,
                unmoved=self._sampler.unmoved,
                survey=self._survey,
                perform=self._perform,
                relieve=self._relieve,
                tell=self._voice.tell,
                record=self._ring.append,
                groups=self._readers.groups.read,
            ),
        )
        desk = Desk(
            self._loop,
            now_ns=now_ns,
            facts=self._facts,
            reloaded=self._adopt,
            perform=self._perform,
            identify=identify,
            adjust=self._adjust,
            mark=self._mark,
        )
        self._server = Server(options.socket_path, desk.handlers())

    def run(self) -> int:
        """Guard until told to stop; returns the exit code."""
        libc.prctl_set_name(b"forestall")
        if not self._rehearse():
            return 4
        if self._options.relief:
            self._start_relief()
        self._open_socket()
        self._arm()
        self._warm_up()
        self._harden()
        self._supervisor.ready(self._voice.announce(self._options))
        try:
            self._guard()
        finally:
            self._stop()
        return 0

    # Start.

    def _processes(self, rules: Rules) -> ProcessTable:
        return ProcessTable(
            matcher=Matcher(rules.victim_rules),
            own_pid=os.getpid(),
            page_bytes=os.sysconf("SC_PAGE_SIZE"),
            clk_tck=os.sysconf("SC_CLK_TCK"),
            only_uid=self._options.only_uid,
        )

    def _rehearse(self) -> bool:
        """Try the kill path; False when there is none and we are meant to kill."""
        fit = True
        for finding in selftest.rehearse(libc.process_mrelease):
            self._voice.lack(finding.means)
            fit = fit and (not finding.fatal or self._options.dry_run)
        if not fit:
            self._voice.say("degraded", "the guard cannot end anybody here and does not start")
        return fit

    def _start_relief(self) -> None:
        self._relief_tried_ns = now_ns()
        try:
            self._hand.start()
            self._table.shield({self._hand.pid})
        except OSError as error:
            self._voice.lack(f"relief could not be started ({os.strerror(error.errno or 0)})")

    def _open_socket(self) -> None:
        try:
            self._server.open()
        except OSError as error:
            reason = error.strerror or str(error)
            self._voice.lack(f"no control socket at {self._options.socket_path} ({reason})")

    def _arm(self) -> None:
        stop_signals = [signal.SIGTERM, signal.SIGINT]
        if self._foreground:
            stop_signals.append(signal.SIGHUP)
        else:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        self._wakeups.watch_signals(stop_signals, "signal")
        path = self._sampler.describe().get("pressure")
        trigger = None
        if isinstance(path, str):
            trigger = open_trigger(path, stall_us=STALL_US, window_us=WINDOW_US)
        if trigger is None:
            self._voice.lack("no pressure trigger: stalls are seen at the next tick only")
        else:
            self._pressure_fd = trigger.fd
            self._wakeups.add(trigger.fd, URGENT, "pressure")

    def _warm_up(self) -> None:
        """Touch every page and fill every cache that an emergency would need."""
        for _ in range(WARM_UP_ROUNDS):
            self._sampler.sample(now_ns(), with_activity=True)
            self._sampler.holdings()
            self._table.survey(now_ns, swap_used=True, warm=True)
        # As many turns as the ring remembers: from then on each takes the place of another.
        for _ in range(BEFORE_ENTRIES + 1):
            self._loop.turn(now_ns())
        selftest.rehearse_end(identify, now_ns())
        self._loop.fill_per_s = fill.fastest_per_s(self._loop.fill_per_s)

    def _harden(self) -> None:
        # First: what the collector frees need not be locked.
        protect.quiet_collector()
        for failure in harden(self._options, self._priority, realtime=self._options.realtime):
            self._voice.lack(failure)

    # The loop.

    def _guard(self) -> None:
        next_ns = now_ns()
        while not self._stopping:
            next_ns = self._once(next_ns)

    def _once(self, next_ns: int) -> int:
        """Wait for the planned moment or for what ends the wait; returns the next planned one."""
        if not self._settled or self._polled_pid != self._hand.pid:
            self._watch_descriptors()
        writing = self._ring.pending
        if writing and not self._ring.in_episode and self._hand.fd >= 0:
            ready = self._wakeups.wait(min(next_ns - now_ns(), WRITING_NS))
            moment_ns = now_ns()
        else:
            ready, moment_ns, next_ns = self._doze(next_ns)
        urgent = bool(ready) and self._take(ready)
        planned_ns = min(next_ns, moment_ns) if urgent else next_ns
        if told := moment_ns >= planned_ns:
            told = self._loop.turn(planned_ns)
            self._priority.settle(urgent=self._loop.urgent())
            moment_ns = now_ns()
            next_ns = moment_ns + self._loop.pause_ns()
        if told or ready or writing:
            # A look that showed nothing new leaves everything as it was.
            if ready or self._ender.watched or not self._server.quiet:
                self._settled = False
            self._after(moment_ns)
        return next_ns

    def _doze(self, next_ns: int) -> tuple[list[tuple[object, int]], int, int]:
        """Sleep; at each planned moment look, and sleep on while nothing has moved.

        Returns: What woke us, when, and the moment that had been planned for.
        """
        loop = self._loop
        pause_ns = loop.pause_ns()
        while True:
            ready = self._wakeups.wait(next_ns - now_ns())
            moment_ns = now_ns()
            if ready or moment_ns < next_ns or not loop.still(moment_ns, moment_ns - next_ns):
                return ready, moment_ns, next_ns
            next_ns = moment_ns + pause_ns

    def _take(self, ready: list[tuple[object, int]]) -> bool:
        """Serve what woke us; True when a sample should follow at once."""
        urgent = False
        for token, mask in ready:
            if token == "signal":  # noqa: S105 - a wake-up's name
                self._wakeups.signals()
                self._stopping = True
            elif token == "pressure":  # noqa: S105
                urgent = True
                self._loop.rouse()
                if mask & BROKEN:
                    self._wakeups.remove(self._pressure_fd)
            elif token == "relief":  # noqa: S105
                self._hear_relief()
            elif isinstance(token, tuple) and token[0] == "victim":
                urgent = self._victim_gone(token[1]) or urgent
            elif isinstance(token, tuple):
                self._server.ready(token[1], mask, now_ns())
        return urgent

    def _victim_gone(self, pidfd: int) -> bool:
        gone = self._ender.gone(pidfd, now_ns())
        if gone is None:
            return False
        # The closed descriptor's number may be handed out again at once.
        self._wakeups.remove(pidfd)
        self._polled.pop(pidfd, None)
        self._loop.feed(gone)
        return True

    def _hear_relief(self) -> None:
        for message in self._hand.news():
            event = relief_event(message, now_ns())
            if event is not None:
                self._loop.feed(event)

    def _watch_descriptors(self) -> None:
        """Bring the poll in line with the descriptors that are of interest now."""
        wanted: dict[int, tuple[Any, int]] = {
            pidfd: (("victim", pidfd), READ) for pidfd in self._ender.watched
        }
        if self._hand.fd >= 0:
            wanted[self._hand.fd] = ("relief", READ)
        for fd, mask in self._server.fds(now_ns()):
            wanted[fd] = (("control", fd), mask)
        for fd in self._polled:
            if fd not in wanted:
                self._wakeups.remove(fd)
        for fd, (token, mask) in wanted.items():
            if self._polled.get(fd) != (token, mask):
                self._wakeups.add(fd, mask, token)
        self._polled = wanted
        self._polled_pid = self._hand.pid
        self._settled = not self._ender.watched and self._server.quiet

    def _after(self, moment_ns: int) -> None:
        """What can wait: clients, records, the watchdog, the live line."""
        self._server.pump(moment_ns)
        self._supervisor.alive(moment_ns)
        calm = isinstance(self._loop.state.hunt, Calm)
        if not calm:
            self._quiet_since_ns = moment_ns
        elif moment_ns - self._quiet_since_ns >= QUIET_NS:
            if self._ring.in_episode:
                self._ring.close_episode(self._record_name())
            self._ring.pump()
            waited_ns = moment_ns - self._relief_tried_ns
            if self._options.relief and self._hand.fd < 0 and waited_ns >= RELIEF_RETRY_NS:
                self._start_relief()
        self._voice.live(moment_ns)

    # Ports.

    def _survey(self, shared: bool) -> Surveyed:  # noqa: FBT001 - a port
        loop = self._loop
        self._priority.settle(urgent=loop.urgent())
        return survey(
            *(loop.state, self._table, self._readers),
            shared=shared,
            fill_per_s=loop.fill_per_s,
        )

    def _perform(self, request: End, moment_ns: int) -> list[Event]:
        held_back = objection(request, moment_ns, self._table.confirm)
        if held_back is not None:
            return [held_back]
        count = len(request.victims)
        pid = request.victims[0].pid if request.victims else 0
        many = f" and {count - 1} more" if count > 1 else ""
        news: list[Event] = list(self._ender.perform(request, moment_ns))
        verb = "would send" if self._options.dry_run else "sent"
        sentence = f"{verb} {request.force.value} to {pid} ({plain(request.comm)}){many}"
        first, level = request.victims[0] if request.victims else None, self._loop.state.level
        self._voice.tell(Tell("ended", sentence, level, victim=first, comm=request.comm), moment_ns)
        return news

    def _adjust(
        self,
        process: ProcessId,
        adj: int,
        raise_only: bool,  # noqa: FBT001 - a port
    ) -> adjust.Adjusted | adjust.Denied:
        if self._options.dry_run:
            return adjust.Denied("the guard is in dry run and changes nothing")
        return adjust.adjust(process, adj, raise_only=raise_only)

    def _may_go(self, pid: int) -> bool:
        # New rules bring a new table.
        return self._table.may_go(pid)

    def _mark(self, process: ProcessId, standing: Standing | None, why: str) -> Standing | None:
        # New rules bring a new table, so its method cannot be handed out once.
        return self._table.mark(process, standing, why)

    def _relieve(self, request: Relieve) -> None:
        if not self._options.dry_run:
            self._hand.relieve(request.action)

    def _publish(self, event: dict[str, Any]) -> int:
        return self._server.publish(event)

    def _record_name(self) -> str:
        return f"episode-{wall_ns() // MS}.jsonl"

    def _write_record(self, name: str, data: bytes, last: bool) -> bool:  # noqa: FBT001 - a port
        if self._hand.fd < 0:
            return False
        return self._hand.write(name, data, last=last)

    def _adopt(self, rules: Rules) -> None:
        table = self._processes(rules)  # raises before anything is changed
        table.shield({self._hand.pid})
        table.marks = self._table.marks
        self._table.close()
        self._table = table
        self._ring.adopt(rules, self._record_name())
        self._loop.adopt(rules)
        self._voice.say("reload", f"new rules are in force: {len(rules.triggers)} triggers")

    def _facts(self) -> dict[str, Any]:
        loop = self._loop
        return {
            "version": __version__,
            "pid": os.getpid(),
            "dry_run": self._options.dry_run,
            "only_uid": self._options.only_uid,
            "samples": loop.samples,
            "surveys": loop.surveys,
            "missed": loop.missed,
            "errors": loop.errors,
            "late_ns_max": loop.late_ns_max,
            "records_written": self._ring.written,
            "record_entries_dropped": self._ring.dropped,
            "relief_running": self._hand.fd >= 0,
            "relief_dropped": self._hand.dropped,
            **self._voice.facts(),
            "marks": [
                {"pid": one.pid, "start_ticks": one.start_ticks, "standing": mark.value, "why": why}
                for one, (mark, why) in self._table.marks.items()
            ],
            "kernel": self._sampler.describe(),
        }

    def _stop(self) -> None:
        self._supervisor.stopping()
        self._voice.clear()
        self._ring.close_episode(self._record_name())
        while self._ring.pending and self._hand.fd >= 0:
            before = self._hand.dropped
            self._ring.pump()
            if self._hand.dropped != before and not self._hand.takes_more(LAST_WORDS_MS):
                break  # relief is stuck; what is left is lost, and was counted
        self._voice.say("stop", "the guard stops")
        self._server.pump(now_ns())
        self._server.close()
        self._hand.close()
