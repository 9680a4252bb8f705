"""After an end, what those who wait had lost to a disk comes back in bulk; nobody else's does."""

import errno
import os
import socket
import threading
from itertools import pairwise
from pathlib import Path

import pytest

from forestall.core.events import READ_BACK, Gone, Relieve, Relieved
from forestall.core.policy import step
from forestall.core.rules import DEFAULT_RULES
from forestall.core.state import begin
from forestall.core.units import GIB, MIB, MS, SECOND
from forestall.core.value import replace
from forestall.kernel import libc
from forestall.relief.lanes import DRAIN_NS
from forestall.relief.ranges import (
    DATA,
    PIECE_BYTES,
    PROGRAM,
    SWAPPED,
    THIN,
    devices_of,
    ranges_of,
)
from forestall.relief.read_back import (
    AHEAD,
    DEADLINE_NS,
    FAULTS_MIN,
    LOOK_NS,
    LOOK_PART,
    OPEN_MAX,
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
TEXT = [(at, PIECE_BYTES) for at in range(0x55D0A0000000, 0x55D0A0200000, PIECE_BYTES)]
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
    assert len(bench.advised) == 2  # one for each disk
    assert errand.outcome()["op"] == "declined"
    assert os.strerror(error) in errand.outcome()["why"]


def test_one_range_that_is_gone_does_not_end_the_rest(bench):
    bench.process(100, swap_kib=1)
    bench.answer = errno.ENOMEM
    errand = bench.begin()
    bench.wait(100)
    bench.look(errand)

    assert {start for start, _ in TEXT} < {start for _, start, _ in bench.advised}


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


def disks(**in_flight):
    """Write /proc/diskstats for these disks: sda has the files, sdb the swap."""
    lines = (
        f" 8 {16 * 'ab'.index(name[2])} {name} 9 0 72 5 3 0 24 2 {count} 7 7 0 0 0 0 0 0\n"
        for name, count in in_flight.items()
    )
    return "".join(lines)


def with_disks(bench, **in_flight):
    """Have a service wait whose files are on one disk and whose swap is on another."""
    bench.process(100, swap_kib=24 * KIB, maps=MAPS.replace(b"08:01", b"08:00"))
    bench.fake.write("proc/diskstats", disks(**in_flight))
    bench.fake.swaps(("/dev/sdb", "partition", GIB // KIB, MIB // KIB, -2))
    errand = bench.begin()
    bench.wait(100)
    bench.now_ns += LOOK_NS
    return errand


def ranks(bench):
    """Tell what was asked for."""
    heap = range(HEAP[0], HEAP[0] + HEAP[1])
    return {SWAPPED if start in heap else PROGRAM for _, start, _ in bench.advised}


def test_nothing_is_added_to_a_disk_that_is_behind(bench):
    """Whoever waits for a page that was not thought of stands behind all that was asked for."""
    errand = with_disks(bench, sda=1 + AHEAD, sdb=1 + AHEAD)
    errand.step()
    held, pause = list(bench.advised), errand.pause_ms
    bench.fake.write("proc/diskstats", disks(sda=AHEAD, sdb=AHEAD))
    errand.step()

    assert held == []
    assert pause == WAIT_MS
    assert bench.helped() == [100]


def test_a_disk_that_is_behind_does_not_hold_up_another(bench):
    """In a guest the swap disk had 2 s of writing to do, and the files of a service waited."""
    errand = with_disks(bench, sda=0, sdb=99)
    errand.step()
    of_files = ranks(bench)
    bench.advised.clear()
    bench.fake.write("proc/diskstats", disks(sda=99, sdb=0))
    errand.step()

    assert of_files == {PROGRAM}
    assert ranks(bench) == {SWAPPED}


def test_a_disk_that_others_keep_busy_does_not_stop_it(bench):
    errand = with_disks(bench, sda=99, sdb=99)
    errand.step()
    for _ in range(4):
        bench.now_ns += DRAIN_NS
        errand.step()

    assert len(bench.advised) == 4 * 2


def test_without_a_word_on_the_disks_it_goes_on(bench):
    bench.process(100, swap_kib=24 * KIB)
    bench.fake.swaps(("/swapfile", "file", GIB // KIB, MIB // KIB, -2))
    errand = bench.begin()
    bench.wait(100)
    bench.look(errand)

    assert bench.helped() == [100]


def test_looking_takes_a_part_of_the_time_only(bench, monkeypatch):
    """With thousands of processes a look takes as long as the time between two."""
    bench.process(100, swap_kib=24 * KIB)
    errand = bench.begin()
    looks = []
    look = errand._look

    def slow(now_ns):
        looks.append(now_ns)
        bench.now_ns += LOOK_NS
        return look(now_ns)

    monkeypatch.setattr(errand, "_look", slow)
    for _ in range(12 * LOOK_PART):
        bench.now_ns += LOOK_NS // 4
        errand.step()

    assert [later - first for first, later in pairwise(looks)] == [LOOK_PART * LOOK_NS] * 3


def test_who_is_being_helped_does_not_ask_for_it_twice(bench):
    errand = with_disks(bench, sda=0, sdb=99)
    for _ in range(3):
        errand.step()
        bench.wait(100)
        bench.now_ns += LOOK_NS

    assert len(bench.advised) == len(set(bench.advised))
    assert ranks(bench) == {PROGRAM, SWAPPED}


def test_not_all_are_helped_at_the_same_time(bench):
    """Each has a descriptor open."""
    many = range(101, 100 + 2 * OPEN_MAX)
    for pid in many:
        bench.process(pid, swap_kib=8, maps=MAPS.replace(b"08:01", b"08:00"))
    errand = with_disks(bench, sda=9999, sdb=0)
    for pid in many:
        bench.wait(pid)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(50):
        errand.step()
    during = len(list(Path("/proc/self/fd").iterdir()))
    errand.close()

    assert during - before == OPEN_MAX


# What of a process is worth reading.


def starts(rank, *, maps=MAPS, swap_bytes=4096, room_bytes=GIB):
    """Tell where the ranges of a rank begin, and how large they are."""
    found = ranges_of(maps, DEVICES, swap_bytes=swap_bytes, data_bytes_max=room_bytes)
    return {one.start: one.size_bytes for one in found if one.rank == rank}


def test_programs_what_was_swapped_and_data_files_are_told_apart():
    assert starts(PROGRAM) == {0x55D0A0000000: 2 * MIB}
    assert starts(SWAPPED) == {HEAP[0]: HEAP[1], 0x7F2000000000: 4 * MIB, 0x7FFD00000000: 0x21000}
    assert starts(DATA) == {0x55D0A0200000: MIB, LIBRARY: 64 * MIB}


def test_without_swap_only_files_are_read():
    assert starts(SWAPPED, swap_bytes=0) == {}
    assert starts(PROGRAM, swap_bytes=0) == starts(PROGRAM)


@pytest.mark.parametrize(
    ("swap_bytes", "times"), [(GIB, 1), (14 * MIB, 2), (3 * MIB, 9), (4096, THIN), (1, THIN)]
)
def test_where_little_is_in_swap_the_pieces_are_larger(swap_bytes, times):
    """Of 28 MiB; each piece should bring about as much."""
    found = ranges_of(MAPS, DEVICES, swap_bytes=swap_bytes, data_bytes_max=GIB)

    assert {one.piece_bytes for one in found if one.rank == SWAPPED} == {times * PIECE_BYTES}
    assert {one.piece_bytes for one in found if one.rank != SWAPPED} == {PIECE_BYTES}


def test_a_large_range_is_asked_for_piece_by_piece(bench):
    bench.process(100, swap_kib=24 * KIB)
    errand = bench.begin()
    bench.wait(100)
    bench.look(errand)
    heap = [one for one in bench.advised if HEAP[0] <= one[1] < HEAP[0] + HEAP[1]]

    assert heap == [
        (100, start, PIECE_BYTES) for start in range(HEAP[0], HEAP[0] + HEAP[1], PIECE_BYTES)
    ]


def test_data_files_are_read_whole_or_not_at_all():
    """7f0000000000 maps 1 GiB of a table: nobody knows which part is wanted."""
    smaller = MAPS.replace(b"7f0040000000", b"7f0004000000")

    assert starts(DATA, maps=smaller) == {**starts(DATA), 0x7F0000000000: 64 * MIB}
    assert starts(DATA, room_bytes=MIB) == {0x55D0A0200000: MIB}
    assert starts(DATA, maps=smaller, room_bytes=100 * MIB) == {
        0x55D0A0200000: MIB,
        0x7F0000000000: 64 * MIB,
    }


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
    found = ranges_of(line, DEVICES, swap_bytes=1, data_bytes_max=GIB)

    assert bool(found) is read


def test_nothing_runs_without_its_program_and_data_files_come_last(bench):
    bench.process(100, swap_kib=8, maps=MAPS.partition(b"\n")[2])
    bench.process(101, swap_kib=8)
    errand = bench.begin()
    bench.wait(100)
    bench.wait(101)
    bench.look(errand)
    order = [(pid, start) for pid, start, _ in bench.advised]

    assert order.index((101, TEXT[-1][0])) < order.index((100, LIBRARY + MIB))
    assert order.index((101, TEXT[-1][0])) < order.index((101, LIBRARY))


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
    whole = ranges_of(MAPS, DEVICES, swap_bytes=4096, data_bytes_max=GIB)
    found = ranges_of(MAPS[:cut], DEVICES, swap_bytes=4096, data_bytes_max=GIB)

    assert {one.start for one in found[:-1]} <= {one.start for one in whole}


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
