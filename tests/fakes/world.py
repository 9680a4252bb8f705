"""A hostile little machine for the simulator: bodies that grow, obey, refuse, are stuck or leave.

It runs the production loop and the production policy; only the ports are its
own. Everything is drawn from one seed.
"""

import random
from dataclasses import dataclass, field

from forestall.core.events import CONFIRM, CONFIRMED, Gone, Missed, Refused, Sampled, Surveyed
from forestall.core.model import (
    Activity,
    Force,
    Holdings,
    Leaving,
    Memory,
    Pressure,
    ProcessId,
    Role,
    Row,
    Standing,
)
from forestall.core.units import GIB, MIB, MS, SECOND
from forestall.guard.loop import Loop, Ports

STANDINGS = [Standing.NORMAL] * 6 + [Standing.AVOID] * 2 + [Standing.PREFER, Standing.NEVER]
KINDS = (
    *("still", "still", "still", "leak", "slow", "burst", "storm", "thrash"),
    *("session", "files", "shared"),
)
PAGE = 4096


@dataclass
class Body:
    """One process."""

    id: ProcessId
    parent: int
    comm: str
    size: float
    limit: float
    growth: float
    standing: Standing
    role: Role = Role.NONE
    ignores_term: bool = False
    refuses: bool = False
    refuses_kill: bool = False
    stuck: bool = False
    files: float = 0.0
    """What it has written to a tmpfs; stays when it goes."""
    shared: float = 0.0
    """Held in a memfd; goes with it."""
    fills: str = ""
    """Grows in ``files`` or ``shared`` and not in its own memory."""
    leaves_ns: int | None = None
    forks_ns: int | None = None
    forked: int = 0
    dies_ns: int | None = None
    born_ns: int = 0
    thrashes: bool = False
    killed: bool = False
    """By a signal that nobody can catch, whoever sent it: it holds its memory until it dies."""
    restarts: bool = False
    """Something starts it again, and it grows again, as fast as it did."""
    was_growth: float = 0.0

    @property
    def immortal(self):
        """Whether no signal of ours will end it."""
        return self.stuck or self.refuses or self.refuses_kill


@dataclass
class World:
    """The machine, and what happened on it."""

    seed: int
    rules: object
    now_ns: int = 1000 * SECOND
    bodies: dict = field(default_factory=dict)
    signalled: list = field(default_factory=list)
    decisions: list = field(default_factory=list)
    mortal_at: list = field(default_factory=list)
    """Who was there and could be ended, at each decision."""
    refused: set = field(default_factory=set)
    """Who would not be signalled, whatever became of them later."""
    told: list = field(default_factory=list)
    stale: list = field(default_factory=list)
    """What was asked for on memory that had not just been read."""
    diary: list = field(default_factory=list)
    kernel_kills: int = 0
    stalls: int = 0
    foreign: list = field(default_factory=list)
    """Ends by another killer: (when, who, how much it held)."""
    removed: dict = field(default_factory=dict)
    """When each one was gone with its memory."""
    sampled_ns: int = 0
    """When memory was last read with success."""
    left_files: float = 0.0
    some_us: float = 0.0
    full_us: float = 0.0
    swap_in: float = 0.0
    swap_out: float = 0.0
    io_us: float = 0.0

    def __post_init__(self):
        self.dice = random.Random(self.seed)
        dice = self.dice
        self.total = dice.choice([512 * MIB, 2 * GIB, 16 * GIB, 256 * GIB])
        self.swap = int(self.total * dice.choice([0, 0, 0.25, 1.0]))
        self.flaky = dice.choice([0.0, 0.0, 0.05, 0.3])
        self.fast_swap = dice.random() < 0.4
        self.base = self.total * 0.08
        # Its own dice, so that the worlds without another killer stay what they were.
        self.others = random.Random(self.seed + 1_000_003)
        self.killer = self.others.choice(["", "", "early", "random"])
        self._killer_rests_ns = 0
        self._restarts: list = []
        self._were_immortal: set = set()
        self._pid = 2
        self._used = 0.0
        self._shmem = 0.0
        self.scarce_since_ns = None
        for _ in range(dice.randint(3, 30)):
            self._populate()
        if self.others.random() < 0.3:
            for body in self.bodies.values():
                body.restarts = body.growth > 0 and not body.fills
                body.was_growth = body.growth
        self._thrash = any(body.thrashes for body in self.bodies.values())
        self.loop = Loop(self.rules, self._ports())

    def _ports(self):
        return Ports(
            now_ns=lambda: self.now_ns,
            sample=self._sample,
            survey=self._survey,
            perform=self._perform,
            relieve=lambda _request: None,
            tell=lambda tell, now: self.told.append((now, tell)),
            record=lambda state, event, requests, _late: self.diary.append(
                (state, event, requests)
            ),
        )

    def _populate(self):
        dice = self.dice
        kind = dice.choice(KINDS)
        size = self.total * dice.uniform(0.001, 0.12)
        body = self._body(size, dice.choice(STANDINGS))
        body.ignores_term = dice.random() < 0.2
        body.refuses = dice.random() < 0.1
        body.refuses_kill = dice.random() < 0.05
        body.stuck = dice.random() < 0.1
        if dice.random() < 0.1:
            body.leaves_ns = self.now_ns + dice.randint(1, 60) * SECOND
        if kind == "leak":
            body.growth, body.limit = self.total * dice.uniform(0.01, 0.5), self.total * 3
        elif kind == "slow":
            body.growth, body.limit = self.total * dice.uniform(0.001, 0.01), self.total * 3
        elif kind == "burst":
            body.growth, body.limit = self.total * 0.3, self.total * dice.uniform(0.05, 0.5)
        elif kind == "storm":
            body.forks_ns = self.now_ns + dice.randint(0, 20) * SECOND
        elif kind == "thrash":
            body.thrashes = True
        elif kind == "session":
            self._session(body)
        elif kind in {"files", "shared"}:
            body.growth, body.limit = self.total * dice.uniform(0.01, 0.2), self.total * 3
            body.fills = kind

    def _session(self, holder):
        # A login shell or a multiplexer, and jobs below it that grow together.
        dice = self.dice
        holder.role, holder.size, holder.limit = Role.SESSION, self.total * 0.0005, 0.0
        holder.comm = "bash"
        rate = self.total * dice.uniform(0.01, 0.3)
        count = dice.randint(2, 8)
        for _ in range(count):
            job = self._body(self.total * 0.002, Standing.NORMAL, holder.id.pid, "job")
            job.growth, job.limit = rate / count, self.total
            job.ignores_term = dice.random() < 0.2

    def _body(self, size, standing, parent=1, comm=None):
        self._pid += self.dice.randint(1, 3)
        body = Body(
            ProcessId(self._pid, self.now_ns // (10 * MS)),
            parent,
            comm or f"p{self._pid}",
            size,
            size,
            0.0,
            standing,
            born_ns=self.now_ns,
        )
        self.bodies[body.id] = body
        return body

    # What the machine does while time passes.

    def run(self, seconds):
        end_ns = self.now_ns + seconds * SECOND
        planned_ns = self.now_ns
        while self.now_ns < end_ns:
            if self.dice.random() < 0.002:
                self.stalls += 1
                self._pass(self.dice.randint(1, 3) * SECOND)  # the clock stalls: suspend, or worse
            self.loop.turn(planned_ns)
            pause_ns = max(self.loop.pause_ns(), 40 * MS)
            planned_ns = self.now_ns + pause_ns
            self._pass(pause_ns)

    def _pass(self, span_ns):
        self.now_ns += span_ns
        for body in list(self.bodies.values()):
            self._live(body, span_ns)
        self._start_again()
        shmem = self.left_files
        used = 0.0
        for body in self.bodies.values():
            used += body.size
            shmem += body.files + body.shared
        self._shmem = shmem
        used = self._used = used + shmem
        over = used - (self.total - self.base)
        # What the default rules call scarce: 2 % of 256 GiB is room enough to work in.
        scarce = over > self.swap - min(0.02 * self.total, 256 * MIB)
        if not scarce or over > self.swap:
            self.scarce_since_ns = None
        elif self.scarce_since_ns is None:
            self.scarce_since_ns = self.now_ns
        if over > self.swap:
            self._kernel_kill()
        if self.killer:
            self._other_killer(over)
        share = span_ns / 1000
        if over > 0:
            moved = min(over, self.total * 0.1 * span_ns / SECOND) / PAGE
            self.swap_out += moved
            thrash = self._thrash
            self.some_us += share * 0.5
            if thrash:
                self.swap_in += moved
                self.full_us += share * 0.4
                # zram costs the processor and nobody waits for a disk.
                self.io_us += 0.0 if self.fast_swap else share * 0.35

    def _live(self, body, span_ns):
        if body.fills == "files":
            body.files += min(body.growth * span_ns / SECOND, self._room())
        elif body.fills == "shared":
            body.shared += min(body.growth * span_ns / SECOND, self._room())
        elif body.growth:
            body.size = min(body.limit, body.size + body.growth * span_ns / SECOND)
        if body.forks_ns is not None and self.now_ns >= body.forks_ns and body.forked < 40:
            body.forks_ns = self.now_ns + 100 * MS
            body.forked += 1
            size = self.total * 0.02
            self._body(size, body.standing, parent=body.id.pid, comm=body.comm)
        leaves = body.leaves_ns is not None and self.now_ns >= body.leaves_ns
        dies = body.dies_ns is not None and self.now_ns >= body.dies_ns
        if leaves or dies:
            self._remove(body)

    def _remove(self, body):
        if self.bodies.pop(body.id, None) is not None:
            self.left_files += body.files
            if body.restarts and body.leaves_ns is None:
                self._restarts.append((self.now_ns + self.others.randint(50, 900) * MS, body))
            self.removed[body.id] = self.now_ns
            self._were_immortal |= {body.id} if body.immortal else set()
            if body.dies_ns is not None:
                self.loop.feed(Gone(self.now_ns, body.id))

    def _start_again(self):
        due = [body for when_ns, body in self._restarts if when_ns <= self.now_ns]
        self._restarts = [one for one in self._restarts if one[0] > self.now_ns]
        for old in due:
            body = self._body(0.001 * self.total, old.standing, old.parent, old.comm)
            body.growth, body.limit, body.restarts = old.was_growth, old.limit, True
            body.ignores_term, body.was_growth = old.ignores_term, old.was_growth

    def _kernel_kill(self):
        mortal = [b for b in self.bodies.values() if b.standing is not Standing.NEVER]
        if mortal:
            self.kernel_kills += 1
            self._remove(max(mortal, key=lambda b: b.size))

    def _other_killer(self, over):
        """Another killer: one that watches free memory as we do, or somebody with ``kill -9``."""
        dice = self.others
        if self.now_ns < self._killer_rests_ns:
            return
        mortal = [
            body
            for body in self.bodies.values()
            if body.standing is not Standing.NEVER and not body.immortal and not body.killed
        ]
        early = self.killer == "early" and over > -dice.uniform(0.01, 0.06) * self.total
        if not mortal or not (early or (self.killer == "random" and dice.random() < 0.01)):
            return
        self._killer_rests_ns = self.now_ns + dice.choice([1, 3, 10]) * SECOND
        victim = max(mortal, key=lambda body: body.size)
        if self.killer == "random":
            victim = dice.choice(mortal)
        victim.killed, victim.growth = True, 0.0
        victim.forks_ns = None
        # Some hang on their way out: in a driver, or starved of the processor.
        slow = dice.random() < 0.2
        dies_ns = self.now_ns + (dice.randint(2, 9) * SECOND if slow else dice.randint(1, 900) * MS)
        victim.dies_ns = min(victim.dies_ns or dies_ns, dies_ns)
        self.foreign.append((self.now_ns, victim.id, victim.size + victim.shared))

    def _room(self):
        # A tmpfs has a limit of its own: by default half of memory.
        return max(0.0, self.total * 0.5 - self._shmem)

    def is_immortal(self, process):
        """Whether no signal of ours will end this one, or would have when it was there."""
        body = self.bodies.get(process)
        return process in self._were_immortal if body is None else body.immortal

    def used(self):
        return self._used

    # The ports.

    def _sample(self, now_ns, with_activity):
        if self.dice.random() < self.flaky:
            raise OSError(5, "flaky")
        over = max(0.0, self.used() - (self.total - self.base))
        free = int(max(0.0, self.swap - over))
        available = int(max(0.0, self.total - self.base - self.used()))
        counters = None
        if with_activity:
            counters = Activity(
                self.kernel_kills,
                int(self.swap_in),
                int(self.swap_out),
                *(int(self.swap_in), 0, 0, 0),
                io_full_us=int(self.io_us),
            )
        self.sampled_ns = self.now_ns
        return Sampled(
            now_ns,
            Memory(self.total, available, self.swap, free, free, int(self._shmem)),
            Pressure(int(self.some_us), int(self.full_us)),
            counters,
        )

    def _survey(self, shared):
        if self.dice.random() < self.flaky:
            raise OSError(5, "flaky")
        began_ns = self.now_ns
        self.now_ns += self.dice.randint(1, 20) * MS
        rows = tuple(self._row(body, shared) for body in self.bodies.values() if not body.killed)
        leaving = tuple(
            Leaving(body.id, body.comm, int(body.size + body.shared))
            for body in self.bodies.values()
            if body.killed
        )
        shmem = int(self._shmem)
        holdings = Holdings(int(self.used()) - shmem, 0, shmem, 0, 0, 0, 0)
        return Surveyed(self.now_ns, began_ns, rows, holdings, shared=shared, leaving=leaving)

    def _row(self, body, shared):
        return Row(
            id=body.id,
            parent_pid=body.parent,
            group_id=body.id.pid,
            session_id=body.id.pid,
            comm=body.comm,
            state="D" if body.stuck else "S",
            uid=1000,
            oom_score_adj=0,
            anon_bytes=int(body.size),
            swap_bytes=0,
            shared_bytes=int(body.shared) if shared else 0,
            writing_bytes=int(body.files) if shared else 0,
            major_faults=0,
            standing=body.standing,
            rule="sim" if body.standing is not Standing.NORMAL else "",
            role=body.role,
            cgroup="",
            age_ns=self.now_ns - body.born_ns,
        )

    def _perform(self, request, now_ns):
        if request.least_bytes:
            bodies = [self.bodies[one] for one in request.victims[:CONFIRMED] if one in self.bodies]
            held = sum(body.size for body in bodies if not body.killed)
            if held < request.least_bytes:
                return [Missed(now_ns, CONFIRM, "sim")]
        self.decisions.append((now_ns, request, self._short()))
        self.mortal_at.append(frozenset(b.id for b in self.bodies.values() if not b.immortal))
        if self.sampled_ns != self.now_ns:
            self.stale.append(request)
        news = []
        for victim in request.victims:
            self.signalled.append((now_ns, victim, request.force))
            body = self.bodies.get(victim)
            if body is None:
                news.append(Gone(now_ns, victim))
            elif body.refuses or (body.refuses_kill and request.force is Force.KILL):
                self.refused.add(victim)
                news.append(Refused(now_ns, victim, "sim"))
            elif not body.stuck and (request.force is Force.KILL or not body.ignores_term):
                dies_ns = now_ns + self.dice.randint(1, 800) * MS
                body.dies_ns = min(body.dies_ns or dies_ns, dies_ns)
                body.killed = request.force is Force.KILL
        return news

    def _short(self):
        over = self.used() - (self.total - self.base)
        available = max(0.0, -over)
        return available < 0.13 * self.total
