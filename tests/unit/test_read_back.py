"""After an end, what those who wait had lost to a disk comes back in bulk; nobody else's does."""

import errno
import os
import socket
import threading
from pathlib import Path

import pytest

from forestall.core.events import READ_BACK, Gone, Relieve, Relieved
from forestall.core.policy import step
from forestall.core.rules import DEFAULT_RULES
from forestall.core.state import begin
from forestall.core.units import GIB, MIB, MS, SECOND
from forestall.core.value import replace
from forestall.kernel import libc
from forestall.relief.ranges import FILE_PIECE_BYTES, PIECE_BYTES, data_pieces, devices_of, pieces
from forestall.relief.read_back import (
    DEADLINE_NS,
    DRAIN_NS,
    FAULTS_MIN,
    IN_FLIGHT_MAX,
    LOOK_NS,
    QUIET_LOOKS,
    TIMES_MAX,
    WAIT_MS,
    ReadBack,
)
from forestall.relief.serve import Relief
from forestall.relief.wire import receive, send
from tests.fakes.builders import row, sampled, surveyed
from tests.fakes.proc import FakeProc

KIB = 1024
MAPS = b"""\
55d0a0000000-55d0a0200000 r--p 00000000 08:01 131 /usr/bin/beat
55d0a0200000-55d0a0300000 rw-p 00200000 08:01 131 /usr/bin/beat
55d0a1000000-55d0a2800000 rw-p 00000000 00:00 0 [heap]
7f0000000000-7f0040000000 r--s 00000000 08:01 132 /srv/data/table
7f1000000000-7f1000100000 ---p 00000000 00:00 0
7f2000000000-7f2000400000 rw-s 00000000 00:19 9 /dev/shm/spool
7f3000000000-7f3004000000 r-xp 00000000 08:01 133 /usr/lib/large.so
7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0 [stack]
7ffd00100000-7ffd00104000 r--p 00000000 00:00 0 [vvar]
7ffd00200000-7ffd00202000 r-xp 00000000 00:00 0 [vdso]
"""
TEXT = [(at, FILE_PIECE_BYTES) for at in range(0x55D0A0000000, 0x55D0A0200000, FILE_PIECE_BYTES)]
MOUNTS = b"""\
22 1 8:1 / / rw - ext4 /dev/sda1 rw
23 22 0:25 / /dev/shm rw - tmpfs tmpfs rw
24 22 0:40 / /home rw - btrfs /dev/sdb rw
25 22 0:41 / /net rw - nfs4 server:/x rw
"""
DEVICES = devices_of(MOUNTS)
LIBRARY = 0x7F3000000000
HEAP = (0x55D0A1000000, 24 * MIB)


class Bench:
    """A machine of files on which processes wait, and what the kernel is told for them."""

    def __init__(self, folder):
        self.fake = FakeProc(folder)
        self.fake.meminfo(available=800 * KIB)
        self.now_ns = 0
        self.faults = {}
        self.total = 0
        self.swap_kib = {}
        self.advised = []
        self.closed = []
        self.answer = 0
        self.fake.vmstat()
        self.fake.write("proc/self/mountinfo", MOUNTS)

    def process(self, pid, *, swap_kib=0, maps=MAPS):
        self.faults[pid] = 0
        self.swap_kib[pid] = swap_kib
        self.fake.process(pid, swap_kib=swap_kib)
        self.fake.write(f"proc/{pid}/maps", maps)

    def wait(self, pid, times=5):
        """Let a process take major faults."""
        self.faults[pid] += times
        self.total += times
        swap_kib = self.swap_kib[pid]
        self.fake.process(pid, swap_kib=swap_kib, major_faults=self.faults[pid])
        self.fake.vmstat(pgmajfault=self.total)

    def begin(self, **words):
        return ReadBack(
            str(self.fake.root),
            now_ns=lambda: self.now_ns,
            advise=self.advise,
            open_pidfd=lambda pid: os.open(f"{self.fake.proc}/{pid}/stat", os.O_RDONLY),
            **words,
        )

    def advise(self, pidfd, start, size_bytes):
        pid = int(Path(f"/proc/self/fd/{pidfd}").readlink().parent.name)
        self.advised.append((pid, start, size_bytes))
        self.now_ns += MS
        return self.answer

    def look(self, errand):
        """Let the time between two looks pass, and everything found be done."""
        self.now_ns += LOOK_NS
        alive = errand.step()
        while alive and errand.pause_ms == 0:
            alive = errand.step()
        return alive

    def helped(self):
        return list(dict.fromkeys(pid for pid, _, _ in self.advised))


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def test_who_waits_is_helped_and_a_bystander_is_left_alone(bench):
    bench.process(100, swap_kib=24 * KIB)
    bench.process(101, swap_kib=24 * KIB)
    errand = bench.begin()
    bench.wait(100)
    alive = bench.look(errand)

    assert alive
    assert bench.helped() == [100]
    assert {(100, *piece) for piece in TEXT} < set(bench.advised)
    assert (
        sum(
            size
            for _, start, size in bench.advised
            if start >= HEAP[0] and start < HEAP[0] + HEAP[1]
        )
        == HEAP[1]
    )


def test_the_smallest_comes_first(bench):
    """A shell of 2 MiB must not wait behind a browser of 100."""
    for pid, mib in ((100, 100), (101, 2), (102, 24)):
        bench.process(pid, swap_kib=mib * KIB)
    errand = bench.begin()
    for pid in (100, 101, 102):
        bench.wait(pid)
    bench.look(errand)

    assert bench.helped() == [101, 102, 100]


def test_it_is_over_when_nobody_waits(bench):
    bench.process(100, swap_kib=24 * KIB)
    errand = bench.begin()
    looks = 1
    while bench.look(errand):
        looks += 1

    assert looks == QUIET_LOOKS
    assert errand.outcome() is None
    assert bench.advised == []


def test_a_disk_that_everybody_waits_for_is_not_quiet(bench):
    """Who stands in its queue takes no new faults: in a guest all was given up for that."""
    bench.process(100, swap_kib=24 * KIB)
    bench.fake.pressure(path="proc/pressure/io")
    errand = bench.begin()
    for look in range(1, 2 * QUIET_LOOKS):
        bench.fake.pressure(full_us=look * 90_000, path="proc/pressure/io")
        assert bench.look(errand)
    bench.wait(100)
    bench.look(errand)

    assert bench.helped() == [100]


def test_a_few_faults_are_the_life_of_a_machine(bench):
    bench.process(100, swap_kib=24 * KIB)
    errand = bench.begin()
    bench.wait(100, FAULTS_MIN - 1)
    bench.look(errand)
    few = list(bench.advised)
    bench.wait(100, FAULTS_MIN)
    bench.look(errand)

    assert few == []
    assert bench.helped() == [100]


def test_nobody_is_helped_for_ever(bench):
    """Who goes on waiting reads a file, or something that was never in memory."""
    bench.process(100, swap_kib=24 * KIB)
    errand = bench.begin()
    while bench.look(errand):
        bench.wait(100)

    assert [pid for pid, start, _ in bench.advised if start == TEXT[0][0]] == [100] * TIMES_MAX


def test_what_does_not_fit_stays_where_it_is(bench):
    """Half of what was available at the start stays free."""
    bench.process(100, swap_kib=401 * KIB)
    bench.process(101, swap_kib=399 * KIB)
    errand = bench.begin()
    bench.wait(100)
    bench.wait(101)
    bench.look(errand)

    assert bench.helped() == [101]


def test_it_stops_when_memory_runs_short_again(bench):
    bench.process(100, swap_kib=24 * KIB)
    errand = bench.begin()
    bench.wait(100)
    bench.fake.meminfo(available=399 * KIB)

    assert not bench.look(errand)
    assert bench.advised == []


def test_it_does_not_go_on_for_ever(bench):
    for pid in range(100, 400):
        bench.process(pid, swap_kib=1)
    errand = bench.begin()
    bench.wait(100)
    while bench.look(errand):
        bench.wait(100 + len(bench.helped()))

    assert DEADLINE_NS < bench.now_ns < 2 * DEADLINE_NS
    assert 100 < len(bench.helped()) < 300


def test_our_own_processes_and_the_kernels_are_not_looked_at(bench):
    bench.process(100, swap_kib=8)
    bench.fake.kernel_thread(2)
    errand = bench.begin(own_pids=frozenset({100}))
    bench.wait(100)
    bench.look(errand)

    assert bench.advised == []


def test_a_process_that_goes_meanwhile_is_no_matter(bench):
    bench.process(100, swap_kib=8)
    bench.process(101, swap_kib=8)
    errand = bench.begin()
    bench.wait(100)
    bench.wait(101)
    (bench.fake.proc / "100/maps").unlink()
    bench.look(errand)

    assert bench.helped() == [101]


@pytest.mark.parametrize("error", [errno.EPERM, errno.ENOSYS, errno.EINVAL])
def test_a_kernel_that_cannot_is_said_once_and_not_asked_on(bench, error):
    bench.process(100, swap_kib=24 * KIB)
    bench.answer = error
    errand = bench.begin()
    bench.wait(100)
    alive = bench.look(errand)

    assert not alive
    assert len(bench.advised) == 1
    assert errand.outcome()["op"] == "declined"
    assert os.strerror(error) in errand.outcome()["why"]


def test_one_range_that_is_gone_does_not_end_the_rest(bench):
    bench.process(100, swap_kib=1)
    bench.answer = errno.ENOMEM
    errand = bench.begin()
    bench.wait(100)
    bench.look(errand)

    assert len(bench.advised) > len(pieces(MAPS, DEVICES, swap_bytes=1024))


def test_every_descriptor_is_closed(bench):
    before = len(list(Path("/proc/self/fd").iterdir()))
    for pid in (100, 101):
        bench.process(pid, swap_kib=24 * KIB)
    errand = bench.begin()
    bench.wait(100)
    bench.wait(101)
    bench.now_ns += LOOK_NS
    errand.step()
    errand.step()
    errand.close()

    assert len(list(Path("/proc/self/fd").iterdir())) == before


def disks(*in_flight):
    """Write /proc/diskstats for so many disks."""
    lines = (
        f" 254 {16 * n} vd{'abc'[n]} 9 0 72 5 3 0 24 2 {count} 7 7 0 0 0 0 0 0\n"
        for n, count in enumerate(in_flight)
    )
    return "".join(lines)


def test_nothing_is_added_to_a_disk_that_is_behind(bench):
    """Whoever waits for a page that was not thought of stands behind all that was asked for."""
    bench.process(100, swap_kib=24 * KIB)
    bench.fake.write("proc/diskstats", disks(0, IN_FLIGHT_MAX + 1))
    errand = bench.begin()
    bench.wait(100)
    bench.now_ns += LOOK_NS
    errand._asked_ns = bench.now_ns
    errand.step()
    held, pause = list(bench.advised), errand.pause_ms
    bench.fake.write("proc/diskstats", disks(0, IN_FLIGHT_MAX))
    errand.step()

    assert held == []
    assert pause == WAIT_MS
    assert bench.helped() == [100]


def test_a_disk_that_others_keep_busy_does_not_stop_it(bench):
    bench.process(100, swap_kib=24 * KIB)
    bench.fake.write("proc/diskstats", disks(99))
    errand = bench.begin()
    bench.wait(100)
    bench.now_ns += LOOK_NS
    errand.step()
    for _ in range(4):
        bench.now_ns += DRAIN_NS
        errand.step()

    assert len(bench.advised) == 4


# What of a process is worth reading.


def test_programs_and_what_was_swapped_come_first_and_data_files_do_not():
    found = dict(pieces(MAPS, DEVICES, swap_bytes=4096))

    assert found == {
        **dict(TEXT),
        HEAP[0]: HEAP[1],
        0x7F2000000000: 4 * MIB,
        0x7FFD00000000: 0x21000,
    }


def test_without_swap_only_programs_are_read():
    assert pieces(MAPS, DEVICES, swap_bytes=0) == TEXT


def test_a_large_range_is_asked_for_piece_by_piece():
    heap = [
        size
        for start, size in pieces(MAPS, DEVICES, swap_bytes=GIB)
        if HEAP[0] <= start < HEAP[0] + HEAP[1]
    ]

    assert heap == [PIECE_BYTES] * 12


def test_data_files_are_read_whole_or_not_at_all():
    """7f0000000000 maps 1 GiB of a table: nobody knows which part is wanted."""
    found = data_pieces(MAPS, DEVICES, room_bytes=GIB)
    large = data_pieces(MAPS.replace(b"7f0040000000", b"7f0004000000"), DEVICES, room_bytes=GIB)
    no_room = data_pieces(MAPS, DEVICES, room_bytes=MIB)

    assert {start for start, _ in found} == {
        *range(0x55D0A0200000, 0x55D0A0300000, FILE_PIECE_BYTES),
        *range(0x7F3000000000, 0x7F3004000000, FILE_PIECE_BYTES),
    }
    assert {start for start, _ in large} > {start for start, _ in found}
    assert {start for start, _ in no_room} == set(
        range(0x55D0A0200000, 0x55D0A0300000, FILE_PIECE_BYTES)
    )


@pytest.mark.parametrize(
    ("device", "name", "read"),
    [
        ("fd:00", "/data/x", True),
        ("00:28", "/home/x", True),
        ("00:29", "/net/x", False),
        ("00:2a", "/dev/shm/x", False),
        ("00:2a", "/memfd:x (deleted)", False),
        ("00:01", "/memfd:x (deleted)", True),
        ("00:19", "/anything", True),
    ],
)
def test_a_file_system_that_could_block_is_left_alone(device, name, read):
    """A user's FUSE mount may bear any name; its device number is the kernel's."""
    line = f"7f0000000000-7f0000010000 rw-s 00000000 {device} 9 {name}\n".encode()
    found = pieces(line, DEVICES, swap_bytes=1) + data_pieces(line, DEVICES, room_bytes=GIB)

    assert bool(found) is read


def test_data_files_come_last(bench):
    bench.process(100, swap_kib=8)
    errand = bench.begin()
    bench.wait(100)
    bench.look(errand)
    order = [start for _, start, _ in bench.advised]

    assert order.index(LIBRARY) > order.index(HEAP[0])
    assert order == [start for start, _ in pieces(MAPS, DEVICES, swap_bytes=8 * KIB)] + [
        start for start, _ in reversed(data_pieces(MAPS, DEVICES, room_bytes=GIB))
    ]


def test_who_begins_to_wait_meanwhile_does_not_stand_behind_a_large_one(bench):
    """A shell of 2 MiB that waits a tenth of a second later comes before the second browser."""
    for pid, mib in ((100, 100), (101, 101), (102, 2)):
        bench.process(pid, swap_kib=mib * KIB)
    errand = bench.begin()
    bench.wait(100)
    bench.wait(101)
    bench.now_ns += LOOK_NS
    errand.step()
    bench.wait(102)
    while bench.look(errand):
        pass

    assert bench.helped() == [100, 102, 101]


def test_it_says_for_whom(bench):
    for pid in range(100, 105):
        bench.process(pid, swap_kib=KIB)
    errand = bench.begin()
    for pid in range(100, 105):
        bench.wait(pid)
    bench.look(errand)
    answer = errand.outcome()

    assert answer["sentence"].startswith("up to 330 MiB were read back for p, p, p and 2 more, who")


@pytest.mark.parametrize("cut", range(0, len(MAPS), 7))
def test_maps_cut_anywhere_are_read_as_far_as_they_go(cut):
    whole = pieces(MAPS, DEVICES, swap_bytes=4096)
    found = pieces(MAPS[:cut], DEVICES, swap_bytes=4096)

    assert all(start in {at for at, _ in whole} for start, _ in found[:-1])


def test_the_real_call_takes_our_own_memory():
    """Either the kernel does it, or it says why not; it is never a crash."""
    address = libc.map_memory(MIB)
    pidfd = os.pidfd_open(os.getpid())
    error = libc.process_will_need(pidfd, address, MIB)
    os.close(pidfd)
    libc.unmap_memory(address, MIB)

    assert error in {0, errno.EPERM, errno.ENOSYS, errno.EINVAL}


# Relief does it between other requests.


def test_relief_writes_a_record_while_it_reads_back(tmp_path):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    relief = Relief(theirs, mrelease=lambda _fd: 0, record_dir=str(tmp_path), record_bytes_max=9999)
    thread = threading.Thread(target=relief.run)
    thread.start()
    send(ours, {"op": "relieve", "action": READ_BACK})
    send(ours, {"op": "write", "name": "episode-1.jsonl", "data": b"one\n", "last": True})
    answer, _fd = receive(ours)
    ours.close()
    thread.join()
    theirs.close()

    assert answer == {"op": "written", "name": "episode-1.jsonl"}


class Unable:
    """An errand that this kernel cannot do."""

    pause_ms = 0

    def step(self):
        return False

    def outcome(self):
        return {"op": "declined", "action": READ_BACK, "why": "cannot"}

    def close(self):
        pass


def test_what_cannot_be_done_is_told_once():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    relief = Relief(theirs, mrelease=lambda _fd: 0, record_dir="", record_bytes_max=0)
    alive = [relief._go_on(Unable()) for _ in range(3)]
    first, _fd = receive(ours)
    with pytest.raises(BlockingIOError):
        receive(ours)
    ours.close()
    theirs.close()

    assert alive == [True] * 3
    assert first["why"] == "cannot"


# When it is asked for.


def play(rules):
    """Let a shortage end by a death; returns everything that was asked for."""
    state = begin(rules)
    asked = []
    hog = row(100, 14 * GIB)
    news = [
        sampled(SECOND, 0.001),
        surveyed(SECOND + MS, hog, row(101, 2 * GIB)),
        Gone(SECOND + 50 * MS, hog.id),
        sampled(SECOND + 60 * MS, 0.9),
    ]
    for event in news:
        state, requests = step(state, event, rules)
        asked += requests
    return [one for one in asked if isinstance(one, Relieve)]


def test_it_is_asked_for_when_memory_is_back_and_not_before():
    (request,) = play(DEFAULT_RULES)

    assert request.action == READ_BACK


def test_a_setting_switches_it_off():
    assert play(replace(DEFAULT_RULES, read_back=False)) == []


def test_the_journal_says_what_was_brought_back():
    news = Relieved(1, READ_BACK, 24 * MIB, "up to 24.0 MiB were read back")
    _state, (told,) = step(begin(DEFAULT_RULES), news, DEFAULT_RULES)

    assert told.sentence == news.sentence
