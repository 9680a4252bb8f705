"""What people may order through the guard's socket, with real processes and a bystander."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from forestall.control.client import Client
from forestall.control.connection import Peer
from forestall.control.errors import Refused
from forestall.control.server import Server
from forestall.core.model import ProcessId, Standing
from forestall.core.standing import Matcher
from forestall.effects.adjust import Adjusted, Denied, adjust
from forestall.effects.end import EndProcess
from forestall.guard.desk import Desk
from forestall.kernel.clock import now_ns
from forestall.kernel.processes import ProcessTable, identify


@pytest.fixture
def sleepers():
    """A process, and a bystander beside it."""
    pair = [subprocess.Popen(["sleep", "60"]) for _ in range(2)]
    yield pair
    for one in pair:
        one.kill()
        one.wait()


def adj_of(pid):
    with open(f"/proc/{pid}/oom_score_adj") as file:  # noqa: PTH123
        return int(file.read())


def start_of(pid):
    return {"pid": pid, "start_ticks": identify(pid).start_ticks}


class Office:
    """A desk with real effects, and no loop behind it."""

    def __init__(self):
        self.ender = EndProcess(identify, never=frozenset({os.getpid()}), dry_run=False)
        self.table = ProcessTable(
            matcher=Matcher(()), own_pid=os.getpid(), page_bytes=4096, clk_tck=100
        )
        self.desk = Desk(
            None,
            now_ns=now_ns,
            facts=dict,
            reloaded=lambda _rules: None,
            perform=self.ender.perform,
            identify=identify,
            adjust=lambda process, adj, raise_only: adjust(process, adj, raise_only=raise_only),
            mark=self.table.mark,
        )

    def order(self, method, uid=0, **parameters):
        return self.desk.handlers()[method](parameters, Peer(pid=1, uid=uid, gid=uid))


@pytest.fixture
def office():
    one = Office()
    yield one
    one.ender.forget()
    one.table.close()


def test_an_adjustment_is_written_to_the_one_that_was_meant(office, sleepers):
    meant, bystander = sleepers
    before = adj_of(meant.pid)
    answer = office.order("SetAdj", adj=before + 100, **start_of(meant.pid))

    assert answer == {"before": before}
    assert adj_of(meant.pid) == before + 100
    assert adj_of(bystander.pid) == before


def test_a_recycled_number_is_left_alone(office, sleepers):
    meant, bystander = sleepers
    wrong = start_of(meant.pid) | {"start_ticks": 1}
    before = adj_of(meant.pid)

    for method, more in (("SetAdj", {"adj": 900}), ("SetStanding", {"standing": "never"})):
        with pytest.raises(Refused) as refused:
            office.order(method, **wrong, **more)
        assert refused.value.name.endswith("NoSuchProcess")
    assert adj_of(meant.pid) == adj_of(bystander.pid) == before
    assert isinstance(adjust(ProcessId(meant.pid, 1), 900, raise_only=False), Denied)


def test_who_is_not_root_may_raise_and_not_lower(sleepers):
    meant, bystander = sleepers
    process = identify(meant.pid)
    before = adj_of(meant.pid)

    assert adjust(process, before + 50, raise_only=True) == Adjusted(before)
    denied = adjust(process, before, raise_only=True)
    assert isinstance(denied, Denied)
    assert "only root" in denied.why
    assert adj_of(meant.pid) == before + 50
    assert adj_of(bystander.pid) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a process that belongs to somebody else")
def test_strangers_may_order_nothing(office, sleepers):
    meant, bystander = sleepers
    for method, more in (
        ("SetAdj", {"adj": 900}),
        ("SetStanding", {"standing": "prefer"}),
        ("End", {}),
    ):
        with pytest.raises(Refused) as refused:
            office.order(method, uid=12345, **start_of(meant.pid), **more)
        assert refused.value.name.endswith("PermissionDenied")
    assert meant.poll() is None
    assert bystander.poll() is None


def test_a_standing_goes_before_the_rules_and_is_taken_back(office, sleepers):
    meant, _bystander = sleepers
    process = start_of(meant.pid)

    assert office.order("SetStanding", standing="never", **process) == {"before": None}
    assert office.table.marks[identify(meant.pid)][0] is Standing.NEVER
    assert office.order("SetStanding", standing="prefer", **process) == {"before": "never"}
    assert office.order("SetStanding", standing=None, **process) == {"before": "prefer"}
    assert office.table.marks == {}


def test_a_mark_is_what_the_survey_says(office):
    hold = "held = bytearray(b'x' * (8 << 20)); print(flush=True); input()"
    pair = [
        subprocess.Popen(
            [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(2)
    ]
    for one in pair:
        one.stdout.readline()
    meant, bystander = (identify(one.pid) for one in pair)
    table = ProcessTable(matcher=Matcher(()), own_pid=-1, page_bytes=4096, clk_tck=100)
    table.mark(meant, Standing.PREFER, "asked for")
    rows = {row.id: row for row in table.survey(now_ns, warm=True).rows}
    table.close()
    for one in pair:
        one.communicate(b"\n")

    assert (rows[meant].standing, rows[meant].rule) == (Standing.PREFER, "asked for")
    assert rows[bystander].standing is Standing.NORMAL


def test_marks_have_a_limit(office):
    for pid in range(2000, 2000 + 300):
        office.table.mark(ProcessId(pid, 1), Standing.AVOID, "asked for")

    assert len(office.table.marks) == 256
    assert ProcessId(2000, 1) not in office.table.marks


@pytest.mark.parametrize("adj", [None, True, "5", 1001, -1001, 1.5])
def test_what_is_no_adjustment_is_refused(office, sleepers, adj):
    with pytest.raises(Refused) as refused:
        office.order("SetAdj", adj=adj, **start_of(sleepers[0].pid))

    assert refused.value.parameters == {"parameter": "adj"}


def test_what_is_no_standing_is_refused(office, sleepers):
    with pytest.raises(Refused) as refused:
        office.order("SetStanding", standing="immortal", **start_of(sleepers[0].pid))

    assert refused.value.parameters == {"parameter": "standing"}


def test_ending_ends_the_one_and_spares_the_bystander(office, sleepers):
    meant, bystander = sleepers
    office.order("End", **start_of(meant.pid))

    assert meant.wait(timeout=10) == -signal.SIGTERM
    assert bystander.poll() is None


def test_the_screen_and_the_guard_speak_the_same_language(office, sleepers, tmp_path):
    """Over a real socket, as the live screen calls it."""
    meant, bystander = sleepers
    server = Server(str(tmp_path / "s"), office.desk.handlers())
    server.open()
    stop = threading.Event()

    def serve():
        import select

        while not stop.is_set():
            fds = dict(server.fds(now_ns()))
            poll = select.poll()
            for fd, mask in fds.items():
                poll.register(fd, mask)
            for fd, mask in poll.poll(20):
                server.ready(fd, mask, now_ns())
            server.pump(now_ns())

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        before = adj_of(meant.pid)
        with Client(str(tmp_path / "s")) as client:
            answer = client.call("SetAdj", adj=before + 7, **start_of(meant.pid))
            undo = client.call("SetStanding", standing="never", **start_of(meant.pid))
    finally:
        stop.set()
        thread.join()
        server.close()

    assert answer == {"before": before}
    assert undo == {"before": None}
    assert adj_of(meant.pid) == before + 7
    assert adj_of(bystander.pid) == before
