"""The n-th read, open or signal fails, for every n, under the whole loop.

The machine is made of files and the loop, the policy, the sampler, the process
table and the effect are the real ones; only the signal itself goes nowhere.
Never may an exception come out of a turn, and never may anybody be signalled
but the hog, or on numbers that are not fresh.
"""

import errno
import itertools
import os

import pytest

from forestall.core.model import ProcessId, Stage, Standing
from forestall.core.rules import DEFAULT_RULES, Field, Limit, Trigger, VictimRule, available
from forestall.core.standing import Matcher
from forestall.core.state import Calm, Settling
from forestall.core.units import MS, SECOND
from forestall.core.value import replace
from forestall.effects.end import EndProcess
from forestall.guard.loop import Loop, Ports
from forestall.kernel.parse_process import parse_stat
from forestall.kernel.processes import ProcessTable
from forestall.kernel.sampler import Sampler
from tests.fakes.proc import FailingRead, FakeProc

GIB_KIB = 1024**2
HOG, BYSTANDER, SHIELDED, OWN = 100, 101, 102, 500
RULES = replace(
    DEFAULT_RULES,
    triggers=(Trigger("out", Stage.KILL, (available(Limit(0.10)),)),),
    victim_rules=(VictimRule(Standing.NEVER, Field.NAME, "^shielded$", "test"),),
)
ERRORS = [
    OSError(errno.EIO, "input/output error"),
    OSError(errno.ENOMEM, "no memory"),
    OSError(errno.EMFILE, "too many open files"),
    ProcessLookupError(errno.ESRCH, "gone"),
    PermissionError(errno.EPERM, "not yours"),
]
IDS = [errno.errorcode[error.errno] for error in ERRORS]
# The other two are news and not faults: somebody has left, or is not ours to end.
PASSING, PASSING_IDS = ERRORS[:3], IDS[:3]


class Faults:
    """Counts calls; when armed, the n-th from then on fails, and perhaps every later one."""

    def __init__(self, error, *, lasting=False):
        self.error = error
        self.lasting = lasting
        self.n = 0
        self.calls = 0

    def wrap(self, real):
        def call(*args, **kwargs):
            if self.n:
                self.calls += 1
                if self.calls == self.n or (self.lasting and self.calls > self.n):
                    raise self.error
            return real(*args, **kwargs)

        return call


class Machine:
    """A fake machine that runs out of memory under a real guard."""

    def __init__(self, root, error, *, lasting=False):
        self.proc = FakeProc(root)
        self.now_ns = 1000 * SECOND
        self.faults = Faults(error, lasting=lasting)
        self.signals = []
        self.seen_ns = 0
        self.stale = []
        self.closed = False
        self.gone = []
        self._open = 0
        self.scarce(available=8 * GIB_KIB)
        self.proc.pressure()
        self.proc.vmstat()
        self.proc.process(1, comm="systemd", parent=0, start=1)
        self.proc.process(OWN, comm="forestall", parent=1, anon_kib=4096)
        self.proc.process(HOG, comm="hog", parent=1, anon_kib=9 * GIB_KIB)
        self.proc.process(BYSTANDER, comm="bystander", parent=1, anon_kib=100 * 1024)
        self.proc.process(SHIELDED, comm="shielded", parent=1, anon_kib=4 * GIB_KIB)
        wrap = self.faults.wrap
        self.sampler = Sampler(str(root), pread=wrap(os.pread))
        self.table = ProcessTable(
            str(root),
            matcher=Matcher(RULES.victim_rules),
            own_pid=OWN,
            page_bytes=4096,
            clk_tck=100,
            open_file=wrap(os.open),
            read_file=wrap(os.read),
        )
        self.ender = EndProcess(
            wrap(self._identify),
            never=frozenset({OWN}),
            dry_run=False,
            open_pidfd=wrap(self._pidfd),
            send=wrap(self._send),
        )
        self.loop = Loop(
            RULES,
            Ports(
                now_ns=lambda: self.now_ns,
                sample=self._sample,
                survey=lambda shared: self.table.survey(lambda: self.now_ns, shared=shared),
                perform=self._perform,
                relieve=lambda _request: None,
                tell=lambda _tell, _now: None,
                record=lambda *_entry: None,
            ),
        )

    def scarce(self, available):
        self.proc.meminfo(total=16 * GIB_KIB, available=available, swap_total=0, swap_free=0)

    def turn(self, span_ns=100 * MS):
        self.now_ns += span_ns
        self.loop.turn(self.now_ns)

    def _sample(self, now_ns, with_activity):
        sampled = self.sampler.sample(now_ns, with_activity=with_activity)
        self.seen_ns = now_ns
        return sampled

    def _perform(self, request, now_ns):
        if self.seen_ns != self.now_ns:
            self.stale.append(request)
        return self.ender.perform(request, now_ns)

    def _identify(self, pid):
        return parse_stat((self.proc.root / f"proc/{pid}/stat").read_bytes()).id

    def _pidfd(self, pid):
        self._asked = pid
        return os.open("/dev/null", os.O_RDONLY)

    def _send(self, pidfd, _number):
        self.signals.append(self._asked)
        self.gone.append(pidfd)

    def deaths(self):
        """Let those who were signalled die, as the loop would learn it."""
        for pidfd in self.gone:
            news = self.ender.gone(pidfd, self.now_ns)
            if news is not None:
                self.proc.remove(news.victim.pid)
                self.loop.feed(news)
        self.gone.clear()

    def close(self):
        if self.closed:
            return
        self.closed = True
        self.ender.forget()
        self.sampler.close()
        self.table.close()


@pytest.fixture
def machine(tmp_path_factory):
    made = []

    def make(error, **how):
        made.append(Machine(tmp_path_factory.mktemp("machine"), error, **how))
        return made[-1]

    yield make
    for one in made:
        one.close()


def emergency(machine, n):
    """Calm, then a shortage during which the n-th call fails; returns what was called."""
    machine.turn()
    machine.scarce(available=GIB_KIB // 2)
    machine.faults.n = n
    machine.turn()
    calls = machine.faults.calls
    machine.faults.n = 0
    return calls


@pytest.mark.parametrize("error", PASSING, ids=PASSING_IDS)
def test_any_one_fault_in_an_emergency_delays_the_end_and_does_not_prevent_it(machine, error):
    for n in itertools.count(1):
        guard = machine(error)
        calls = emergency(guard, n)
        for _ in range(3):
            guard.turn()
        guard.close()

        assert guard.loop.errors == 0, f"call {n}"
        assert guard.stale == [], f"call {n}"
        assert guard.signals == [HOG], f"call {n}"
        if calls < n:
            break

    assert n > 10, "the machine reads less than it should: the test proves nothing"
    assert guard.signals == [HOG]


@pytest.mark.parametrize("error", ERRORS, ids=IDS)
def test_a_fault_that_lasts_touches_nobody_and_stops_nothing(machine, error):
    for n in itertools.count(1, 4):
        guard = machine(error, lasting=True)
        guard.turn()
        guard.scarce(available=GIB_KIB // 2)
        guard.faults.n = n
        for _ in range(8):
            guard.turn()
        calls = guard.faults.calls
        guard.close()

        assert set(guard.signals) <= {HOG}
        assert guard.stale == []
        assert guard.loop.errors == 0
        if calls < n or n > 60:
            break


def test_without_a_fault_the_hog_goes_and_memory_is_seen_to_come_back(machine):
    """The bench itself: what the fault tests compare with."""
    guard = machine(ERRORS[0])
    emergency(guard, 0)
    guard.deaths()
    settling = guard.loop.state.hunt
    guard.scarce(available=9 * GIB_KIB)
    guard.turn()

    assert guard.signals == [HOG]
    assert isinstance(settling, Settling)
    assert isinstance(guard.loop.state.hunt, Calm)
    assert guard.ender.watched == {}


def test_a_hog_that_became_somebody_else_during_the_survey_is_left_alone(machine):
    """The number is taken by a stranger between the survey and the signal."""
    guard = machine(ERRORS[0])
    guard.turn()
    guard.scarce(available=GIB_KIB // 2)
    survey = guard.table.survey

    def slow_survey(*args, **how):
        answer = survey(*args, **how)
        guard.proc.process(HOG, comm="stranger", parent=1, start=999_999, anon_kib=9 * GIB_KIB)
        return answer

    guard.table.survey = slow_survey
    guard.turn()

    assert guard.signals == []
    assert guard._identify(HOG) == ProcessId(HOG, 999_999)


def test_the_wrapper_counts_as_the_one_for_kernel_files_does():
    real = FailingRead(lambda: "read", 2, ERRORS[0])
    ours = Faults(ERRORS[0])
    ours.n = 2
    call = ours.wrap(lambda: "read")
    for one in (real, call):
        assert one() == "read"
        with pytest.raises(OSError, match="input/output"):
            one()
        assert one() == "read"
