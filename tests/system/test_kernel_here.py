"""The readers on this very machine, and what they say of the children of the test."""

import errno
import mmap
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from forestall.core.model import Standing
from forestall.core.rules import DEFAULT_VICTIM_RULES
from forestall.core.standing import Matcher
from forestall.kernel import clock, libc, wakeups
from forestall.kernel.features import find_features
from forestall.kernel.pressure import open_trigger
from forestall.kernel.processes import ProcessTable, identify
from forestall.kernel.sampler import Sampler
from forestall.kernel.shared import shared_holders, tmpfs_usage
from forestall.kernel.wakeups import Wakeups

MIB = 1024 * 1024
MS = 1_000_000

HOLDER = """
import os, sys
{body}
print("ready", flush=True)
sys.stdin.read(1)
"""


@pytest.fixture
def child():
    """Start children that say when they are ready; each is ended with its pipe."""
    started = []

    def start(body):
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", HOLDER.format(body=body)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        started.append(process)
        assert process.stdout.readline() == b"ready\n"
        return process

    yield start
    for process in started:
        process.stdin.close()
        process.wait()
        process.stdout.close()


@pytest.fixture
def table():
    table = ProcessTable(
        matcher=Matcher(DEFAULT_VICTIM_RULES),
        own_pid=os.getpid(),
        page_bytes=mmap.PAGESIZE,
        clk_tck=os.sysconf("SC_CLK_TCK"),
    )
    yield table
    table.close()


def test_a_sample_agrees_with_the_file_it_comes_from():
    sensor = Sampler()

    memory = sensor.sample(clock.now_ns(), with_activity=True).memory
    sensor.close()

    text = Path("/proc/meminfo").read_text()
    total = next(line for line in text.splitlines() if line.startswith("MemTotal"))
    assert memory.total_bytes <= int(total.split()[1]) * 1024
    assert 0 < memory.available_bytes <= memory.total_bytes


def test_samples_after_the_first_cause_no_page_faults():
    import resource

    sensor = Sampler()
    for tick in range(100):
        sensor.sample(tick, with_activity=True)
    before = resource.getrusage(resource.RUSAGE_SELF)

    for tick in range(1000):
        sensor.sample(tick, with_activity=False)
    after = resource.getrusage(resource.RUSAGE_SELF)
    sensor.close()

    assert after.ru_majflt == before.ru_majflt
    assert after.ru_minflt - before.ru_minflt <= 8


def test_a_child_is_seen_with_its_memory_and_its_start_time(child, table):
    hog = child("block = bytearray(os.urandom(1)) * (32 << 20)")

    surveyed = table.survey(clock.now_ns)
    row = {row.id.pid: row for row in surveyed.rows}[hog.pid]

    assert 32 * MIB <= row.anon_bytes < 64 * MIB
    assert row.id == identify(hog.pid)
    assert row.uid == os.getuid()
    # A child of ours: to the table that makes it part of the guard.
    assert (row.standing, row.rule) == (Standing.NEVER, "part of the guard")
    assert surveyed.began_ns <= surveyed.now_ns


def test_a_headless_process_is_seen(child, table):
    """The first thread ends; the second holds the memory and lives on."""
    hog = child(
        "import ctypes, threading\n"
        "block = bytearray(b'x') * (32 << 20)\n"
        "def live():\n"
        "    print('ready', flush=True)\n"
        "    os.read(0, 1)\n"
        "    os._exit(0)\n"
        "threading.Thread(target=live).start()\n"
        "ctypes.CDLL(None).pthread_exit(None)\n"
    )
    wait_for = select.poll()
    with Path(f"/proc/{hog.pid}/stat").open("rb", buffering=0) as stat:
        for _ in range(500):
            stat.seek(0)
            if b") Z " in stat.read():
                break
            wait_for.poll(1)
        else:
            pytest.fail("the first thread did not end")

    row = {row.id.pid: row for row in table.survey(clock.now_ns).rows}[hog.pid]

    assert row.anon_bytes >= 32 * MIB
    assert row.state in "RSD"


def test_memory_in_a_memfd_is_credited_to_its_holder(child, table):
    keeper = child("fd = os.memfd_create('x'); os.write(fd, bytes(8 << 20))")
    bystander = child("pass")

    rows = {row.id.pid: row for row in table.survey(clock.now_ns, shared=True).rows}

    assert rows[keeper.pid].shared_bytes == 8 * MIB
    assert rows[bystander.pid].shared_bytes == 0


def test_memory_that_a_family_shares_is_credited_once(child):
    father = child(
        "fd = os.memfd_create('x'); os.write(fd, bytes(8 << 20))\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    os.read(0, 1)\n"
        "    os._exit(0)"
    )
    children = Path(f"/proc/{father.pid}/task/{father.pid}/children").read_text()
    son = int(children.split()[0])

    found = shared_holders("/", [father.pid, son])

    assert found.freed({father.pid: os.getpid(), son: father.pid}) == {father.pid: 8 * MIB}
    assert found.freed({father.pid: 1, son: 1}) == {}


def test_a_file_on_tmpfs_stays_and_names_its_writer(child, tmp_path):
    path = Path("/dev/shm") / f"forestall-test-{os.getpid()}"
    if not Path("/dev/shm").is_dir():
        pytest.skip("no /dev/shm here")
    writer = child(f"f = open({str(path)!r}, 'wb'); f.write(bytes(4 << 20)); f.flush()")
    try:
        found = shared_holders("/", [writer.pid])
        path.unlink()
        unlinked = shared_holders("/", [writer.pid])
    finally:
        path.unlink(missing_ok=True)

    assert found.freed({}) == {}
    assert found.writing() == {writer.pid: 4 * MIB}
    assert found.writers[0].path == str(path)
    assert unlinked.freed({}) == {writer.pid: 4 * MIB}
    assert unlinked.writing() == {}


def test_tmpfs_mounts_are_listed_with_their_sizes():
    usages = tmpfs_usage()

    for usage in usages:
        assert 0 <= usage.used_bytes <= usage.size_bytes


def test_features_agree_with_this_kernel():
    features = find_features()

    assert features.pidfd_open
    assert features.release == os.uname().release
    assert features.psi == (Sampler().sample(0, with_activity=False).pressure is not None)


def test_a_trigger_is_armed_or_refused_but_never_an_error(tmp_path):
    assert open_trigger(str(tmp_path / "none"), stall_us=1, window_us=1_000_000) is None
    trigger = open_trigger("/proc/pressure/memory", stall_us=150_000, window_us=1_000_000)
    if trigger is None:
        pytest.skip("this kernel gives us no trigger")
    waits = Wakeups()
    waits.add(trigger.fd, wakeups.URGENT, "pressure")

    waits.wait(0)
    waits.remove(trigger.fd)
    trigger.close()

    assert trigger.window_us in {1_000_000, 2_000_000}
    assert trigger.stall_us == 150_000


@pytest.fixture
def waits():
    waits = Wakeups()
    yield waits
    waits.close()


def test_a_wait_never_ends_early(waits):
    for timeout_ns in (1, 500_000, 1_000_001, 3 * MS):
        began_ns = clock.now_ns()
        ready = waits.wait(timeout_ns)

        assert ready == []
        assert clock.now_ns() - began_ns >= timeout_ns


def test_no_time_means_a_look_without_sleep(waits):
    reader, writer = os.pipe()
    waits.add(reader, wakeups.READ, "pipe")
    os.write(writer, b"x")

    ready = waits.wait(0)
    waits.remove(reader)
    none = waits.wait(-5)
    for fd in (reader, writer):
        os.close(fd)

    assert ready == [("pipe", select.POLLIN)]
    assert none == []


def test_a_signal_wakes_the_wait_and_is_named(waits):
    before = signal.getsignal(signal.SIGUSR1)
    waits.watch_signals([signal.SIGUSR1], "signals")
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
        ready = waits.wait(None)
        named = waits.signals()
    finally:
        signal.signal(signal.SIGUSR1, before)

    assert ready == [("signals", select.POLLIN)]
    assert named == (signal.SIGUSR1,)
    assert waits.signals() == ()


def test_the_death_of_a_child_wakes_the_wait(waits, child):
    doomed, bystander = child("pass"), child("pass")
    pidfds = [os.pidfd_open(process.pid) for process in (doomed, bystander)]
    for pidfd, name in zip(pidfds, ("doomed", "bystander"), strict=True):
        waits.add(pidfd, wakeups.READ, name)
    signal.pidfd_send_signal(pidfds[0], signal.SIGKILL)

    ready = waits.wait(5_000 * MS)
    for pidfd in pidfds:
        waits.remove(pidfd)
        os.close(pidfd)

    assert [token for token, _ in ready] == ["doomed"]
    assert bystander.poll() is None


def test_process_mrelease_refuses_the_living_and_frees_the_dying(child):
    doomed, bystander = child("block = bytearray(b'x') * (64 << 20)"), child("pass")
    pidfds = [os.pidfd_open(process.pid) for process in (doomed, bystander)]
    living = libc.process_mrelease(pidfds[1])
    if living == errno.ENOSYS:
        pytest.skip("this kernel has no process_mrelease")
    signal.pidfd_send_signal(pidfds[0], signal.SIGKILL)

    dying = libc.process_mrelease(pidfds[0])
    for pidfd in pidfds:
        os.close(pidfd)

    assert living == errno.EINVAL
    assert dying in {0, errno.ESRCH, errno.EINVAL}
    assert bystander.poll() is None


def test_locking_on_fault_works_or_says_why():
    result = libc.mlockall(libc.MCL_CURRENT | libc.MCL_FUTURE | libc.MCL_ONFAULT)
    libc.munlockall()

    assert result in {0, errno.EPERM, errno.ENOMEM}


def test_our_name_is_cut_to_what_the_kernel_keeps():
    before = Path("/proc/self/comm").read_bytes().strip()
    result = libc.prctl_set_name(b"forestall-with-a-long-name")
    named = Path("/proc/self/comm").read_bytes().strip()
    libc.prctl_set_name(before)

    assert (result, named) == (0, b"forestall-with-")
    assert libc.prctl_set_name(b"a\0b") == errno.EINVAL
