"""Who leaves already, on the running kernel: a process that has its SIGKILL and cannot die yet.

The old freezer holds a process back even from its death, which makes the moment last.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from forestall.core.standing import Matcher
from forestall.kernel.clock import now_ns
from forestall.kernel.processes import ProcessTable, identify

FREEZER = Path("/sys/fs/cgroup/freezer")
HELD_MIB = 32
PROGRAM = """
import threading
for _ in range({threads}):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
held = b"x" * ({mib} << 20)
print("ready", flush=True)
threading.Event().wait()
"""


@pytest.fixture
def freezer():
    """A group of the old freezer: one call fills and freezes it, another thaws it.

    Taken down before the children are, who could not die in it.
    """
    group = FREEZER / f"forestall-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no freezer of the old kind here, or not ours: {error}")
    state = group / "freezer.state"

    def freeze(pid):
        (group / "cgroup.procs").write_text(str(pid))
        state.write_text("FROZEN")
        while state.read_text().strip() != "FROZEN":
            state.write_text("FROZEN")

    yield freeze, lambda: state.write_text("THAWED")
    state.write_text("THAWED")
    for pid in (group / "cgroup.procs").read_text().split():
        (FREEZER / "cgroup.procs").write_text(pid)
    group.rmdir()


@pytest.fixture
def children():
    started = []

    def begin(threads):
        code = PROGRAM.format(threads=threads, mib=HELD_MIB)
        child = subprocess.Popen([sys.executable, "-I", "-c", code], stdout=subprocess.PIPE)
        started.append(child)
        assert child.stdout.readline() == b"ready\n"
        return child

    yield begin
    for child in started:
        child.kill()
        child.wait()
        child.stdout.close()


@pytest.mark.parametrize(
    ("threads", "number"), [(0, signal.SIGKILL), (0, signal.SIGTERM), (3, signal.SIGTERM)]
)
def test_whoever_has_a_fatal_signal_leaves_and_its_neighbour_stays(
    threads, number, children, freezer
):
    """Whatever the signal was, and however many threads have to go."""
    freeze, thaw = freezer
    victim, bystander = children(threads), children(0)
    process = identify(victim.pid)
    table = ProcessTable(
        matcher=Matcher(()),
        own_pid=os.getpid(),
        page_bytes=os.sysconf("SC_PAGE_SIZE"),
        clk_tck=os.sysconf("SC_CLK_TCK"),
    )
    freeze(victim.pid)
    before = table.survey(now_ns, warm=True)
    victim.send_signal(number)
    after = table.survey(now_ns, warm=True)
    table.close()
    rows = {row.id for row in after.rows}
    left = {one.id: one.frees_bytes for one in after.leaving}
    thaw()

    assert process in {row.id for row in before.rows}
    assert process not in {one.id for one in before.leaving}
    assert process not in rows
    assert left[process] >= HELD_MIB << 20
    assert identify(bystander.pid) in rows
    assert bystander.poll() is None
    assert victim.wait(10) == -number
