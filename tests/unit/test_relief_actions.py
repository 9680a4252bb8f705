"""Cleanups: each says what it would gain, refuses what would harm, and leaves swap as it was."""

import errno
import json
import os
import signal
import socket
import threading

import pytest
from click.testing import CliRunner

from forestall.cli.clean import command
from forestall.core.units import GIB, MIB, SECOND
from forestall.kernel.parse import SwapArea
from forestall.relief import actions, cgroup, page_cache, serve, swap, worker
from forestall.relief.errand import Errand
from forestall.relief.outcome import Done, Plan, Refusal
from forestall.relief.serve import Relief
from forestall.relief.tools import Tools, strain_between
from forestall.relief.wire import receive, send
from forestall.relief.worker import ENDED, SWAPON_FAILED, keep, leave_sandbox, write_note
from tests.fakes.builders import sampled
from tests.fakes.proc import GIB_KIB, FakeProc

KIB = 1024
DISK = "/dev/vdc"
FILE = "/swapfile"


class FakeErrand:
    """An errand that lasts some looks, does something to the machine, and ends with a status."""

    def __init__(self, bench, arguments):
        self.bench = bench
        self.arguments = arguments
        self.looks = bench.lasts
        self.status = None
        self.ended = False

    def wait(self, timeout_ms):
        if self.status is None and timeout_ms:
            self.bench.now_ns += timeout_ms * 1_000_000
            self.bench.while_running(self)
            self.looks -= 1
            if self.looks < 0:
                self.status = self.bench.status
                self.bench.effect(self.arguments)
        return self.status

    def cpu_ns(self):
        return self.bench.cpu_ns

    def end(self):
        if self.status is None:
            self.ended = True
            self.status = errno.EINTR
        return self.status


class Bench:
    """A machine made of files, with errands that only pretend."""

    def __init__(self, root):
        self.proc = FakeProc(root)
        self.now_ns = 1000 * SECOND
        self.errands = []
        self.lasts = 1
        self.status = 0
        self.cpu_ns = 0
        self.effect = lambda _arguments: None
        self.while_running = lambda _errand: None
        self.while_paused = lambda: None
        self.swapons = []
        self.swapon_status = 0
        self.urgent = ""
        self.memory()
        self.proc.pressure()
        self.proc.vmstat()
        self.proc.write("proc/swaps", "Filename Type Size Used Priority\n")
        self.proc.write("proc/self/cgroup", "0::/system.slice/forestall.service\n")

    def memory(self, available=8 * GIB_KIB, **kib):
        self.proc.meminfo(available=available, **kib)

    def areas(self, *areas):
        self.proc.swaps(*areas)
        total = sum(area[2] for area in areas)
        used = sum(area[3] for area in areas)
        self.memory(swap_total=total, swap_free=total - used)

    def tools(self, uid=0):
        return Tools(
            str(self.proc.root),
            uid=uid,
            interrupted=lambda: self.urgent,
            errand=self._errand,
            swapon=self._swapon,
            now_ns=lambda: self.now_ns,
            pause=self._pause,
        )

    def perform(self, action, **settings):
        tools = self.tools()
        try:
            return actions.perform(action, tools=tools, **settings)
        finally:
            tools.close()

    def plan(self, action, *, uid=0, **settings):
        tools = self.tools(uid)
        try:
            return actions.plan(action, tools=tools, **settings)
        finally:
            tools.close()

    def started(self):
        return [errand.arguments for errand in self.errands]

    def _pause(self, timeout_ms):
        self.now_ns += timeout_ms * 1_000_000
        self.while_paused()

    def _errand(self, *arguments):
        errand = FakeErrand(self, arguments)
        self.errands.append(errand)
        return errand

    def _swapon(self, path, priority):
        self.swapons.append((path, priority))
        if not self.swapon_status:
            self.areas((os.fsdecode(path), "partition", GIB_KIB, 0, priority))
        return self.swapon_status


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def half_full(bench):
    bench.areas((DISK, "partition", GIB_KIB, GIB_KIB // 2, 5))


def emptied(bench):
    return lambda _arguments: bench.areas((DISK, "partition", GIB_KIB, 0, 5))


# Swap: what would not fit is refused.


def test_swap_that_does_not_fit_is_refused_and_nothing_is_begun(bench):
    half_full(bench)
    bench.memory(available=GIB_KIB, swap_total=GIB_KIB, swap_free=GIB_KIB // 2)
    outcome = bench.perform("swap")

    assert isinstance(outcome, Refusal)
    assert "512 MiB of swap do not fit" in outcome.why
    assert bench.errands == []


@pytest.mark.parametrize(("spare_kib", "fits"), [(0, False), (1, True), (-1, False)])
def test_the_margin_is_a_tenth_of_memory_to_the_byte(bench, spare_kib, fits):
    margin_kib = 16 * GIB_KIB // 10
    used = GIB_KIB // 2
    half_full(bench)
    # A tenth of 16 GiB is no whole number of KiB; the kernel counts in KiB.
    bench.memory(
        available=used + margin_kib + spare_kib, swap_total=GIB_KIB, swap_free=GIB_KIB - used
    )
    planned = bench.plan("swap")

    assert isinstance(planned, Plan) is fits


def test_without_swap_there_is_nothing_to_do(bench):
    assert bench.perform("swap").why == "there is no swap"


def test_empty_swap_is_left_alone(bench):
    bench.areas((DISK, "partition", GIB_KIB, 0, -2))

    assert "next to nothing" in bench.perform("swap").why


def test_swap_is_left_alone_while_tasks_wait_for_memory(bench):
    half_full(bench)
    bench.while_paused = lambda: bench.proc.pressure(some_us=100_000)
    outcome = bench.perform("swap")

    assert "waited for memory 10% of the last moments" in outcome.why
    assert bench.errands == []


def test_a_plan_says_what_would_be_gained_and_left(bench):
    half_full(bench)
    planned = bench.plan("swap")

    assert planned.gain_bytes == GIB // 2
    assert "leaving 7.50 GiB available" in planned.sentence
    assert bench.errands == []


def test_only_root_may(bench):
    half_full(bench)

    assert "only root" in bench.plan("swap", uid=1000).why
    assert "only root" in bench.plan("page-cache", uid=1000).why


# Swap: what is done, and how it is given up.


@pytest.mark.parametrize(
    ("effective", "may"), [("000001ffffffffff", True), ("00000000a80425fb", False)]
)
def test_root_in_a_sandbox_that_may_not_switch_swap_says_so_and_begins_nothing(
    bench, effective, may
):
    half_full(bench)
    bench.proc.write("proc/self/status", f"Uid:\t0\t0\t0\t0\nThreads:\t1\nCapEff:\t{effective}\n")
    planned = bench.plan("swap")

    assert isinstance(planned, Plan) is may
    if not may:
        assert "CAP_SYS_ADMIN is missing here" in planned.why
        assert "forestall install" in planned.why
    assert bench.errands == []


def test_recycling_reports_what_came_back(bench):
    half_full(bench)
    bench.effect = emptied(bench)
    outcome = bench.perform("swap")

    assert outcome == Done("swap", GIB // 2, outcome.sentence)
    assert "brought 512 MiB from swap back into memory" in outcome.sentence
    assert bench.started() == [("recycle", DISK, "5")]
    assert bench.swapons == []


def test_areas_are_recycled_one_at_a_time(bench):
    bench.areas(
        (DISK, "partition", GIB_KIB, GIB_KIB // 4, 5), (FILE, "file", GIB_KIB, GIB_KIB // 4, 9)
    )

    def effect(arguments):
        used = 0 if arguments[1] == DISK else GIB_KIB // 4
        bench.areas((DISK, "partition", GIB_KIB, used, 5), (FILE, "file", GIB_KIB, 0, 9))

    bench.effect = effect
    outcome = bench.perform("swap")

    assert [arguments[1] for arguments in bench.started()] == [FILE, DISK]
    assert outcome.gained_bytes == GIB // 2


def test_an_area_that_is_lost_is_switched_on_again_with_its_priority(bench):
    half_full(bench)
    bench.status = 247  # killed after swapoff, before swapon
    bench.effect = lambda _arguments: bench.areas()
    outcome = bench.perform("swap")

    assert bench.swapons == [(DISK.encode(), 5)]
    assert isinstance(outcome, Refusal)
    assert "in use as before" in outcome.why


def test_an_area_that_cannot_be_switched_on_again_is_shouted_about(bench):
    half_full(bench)
    bench.effect = lambda _arguments: bench.areas()
    bench.swapon_status = errno.EPERM
    outcome = bench.perform("swap")

    assert "IT IS SWITCHED OFF" in outcome.why
    assert f"swapon -p 5 {DISK}" in outcome.why


def test_it_is_given_up_when_memory_runs_short(bench):
    half_full(bench)
    bench.lasts = 100
    bench.while_running = lambda _errand: bench.memory(
        available=GIB_KIB // 2, swap_total=GIB_KIB, swap_free=GIB_KIB // 2
    )
    outcome = bench.perform("swap")

    assert "memory ran short meanwhile: 512 MiB available" in outcome.why
    assert bench.errands[0].ended


def test_it_is_given_up_when_stall_rises(bench):
    half_full(bench)
    bench.lasts = 100

    def suffer(_errand):
        # Everybody waits, and the errand itself was busy all the time.
        bench.cpu_ns = bench.now_ns
        bench.proc.pressure(some_us=bench.now_ns // 1000)

    bench.while_running = suffer
    outcome = bench.perform("swap")

    assert "tasks waited for memory" in outcome.why
    assert bench.errands[0].ended


def groups_that_wait(bench, **some_us):
    bench.proc.write("sys/fs/cgroup/cgroup.controllers", "memory\n")
    for name, lost_us in some_us.items():
        bench.proc.pressure(
            some_us=lost_us, path=f"sys/fs/cgroup/system.slice/{name}.service/memory.pressure"
        )


def test_it_is_given_up_when_another_group_waits_though_the_errand_waits_all_the_time(bench):
    """On the machine's own counter nobody else can be seen then."""
    half_full(bench)
    bench.lasts = 100
    groups_that_wait(bench, forestall=0, other=0, calm=0)
    began_ns = bench.now_ns + SECOND  # after the look whether the machine is calm

    def suffer(_errand):
        lost_us = (bench.now_ns - began_ns) // 1000
        bench.proc.pressure(some_us=lost_us)
        groups_that_wait(bench, forestall=lost_us, other=lost_us // 2, calm=0, new=lost_us)

    bench.while_running = suffer
    outcome = bench.perform("swap")

    assert "/system.slice/other.service waited for memory 50% of the last moments" in outcome.why
    assert bench.errands[0].ended


def test_our_own_group_may_wait_as_long_as_it_likes(bench):
    half_full(bench)
    bench.lasts = 30
    bench.effect = emptied(bench)
    groups_that_wait(bench, forestall=0, other=0)
    began_ns = bench.now_ns
    bench.while_running = lambda _errand: groups_that_wait(
        bench, forestall=(bench.now_ns - began_ns) // 1000, other=0
    )

    assert isinstance(bench.perform("swap"), Done)


def test_its_own_waiting_for_the_disk_is_not_a_stall_of_others(bench):
    half_full(bench)
    bench.lasts = 30
    bench.effect = emptied(bench)
    # All the time from here on somebody waits, and that is the errand, which uses no CPU.
    waited_us = iter(range(0, 100_000_000, 100_000))
    bench.while_running = lambda _errand: bench.proc.pressure(some_us=next(waited_us))
    outcome = bench.perform("swap")

    assert isinstance(outcome, Done)


def test_it_is_given_up_when_others_must_reclaim_for_themselves(bench):
    half_full(bench)
    bench.lasts = 100
    bench.while_running = lambda _errand: bench.proc.vmstat(pgscan_direct=bench.now_ns // 100_000)
    outcome = bench.perform("swap")

    assert "reclaim memory themselves" in outcome.why


def test_it_is_given_up_when_the_guard_needs_relief(bench):
    half_full(bench)
    bench.lasts = 100

    def call(_errand):
        bench.urgent = "the guard needs relief for something more urgent"

    bench.while_running = call
    outcome = bench.perform("swap")

    assert "more urgent" in outcome.why
    assert "in use as before" in outcome.why


def test_it_is_given_up_at_its_deadline(bench):
    half_full(bench)
    bench.lasts = 10_000
    outcome = bench.perform("swap")

    assert "not done within" in outcome.why


def test_an_impatient_person_leaves_swap_as_it_was(bench):
    half_full(bench)
    bench.lasts = 100

    def ctrl_c(_errand):
        bench.areas()
        raise KeyboardInterrupt

    bench.while_running = ctrl_c

    with pytest.raises(KeyboardInterrupt):
        bench.perform("swap")
    assert bench.errands[0].ended
    assert bench.swapons == [(DISK.encode(), 5)]


def test_areas_below_a_recycled_automatic_priority_follow_so_that_the_order_stays():
    areas = (
        SwapArea("a", "file", GIB, 0, -2),
        SwapArea("b", "file", GIB, GIB, -3),
        SwapArea("c", "file", GIB, 0, -4),
        SwapArea("d", "file", GIB, 0, 7),
    )

    assert [area.path for area in swap.in_order(areas)] == ["b", "c"]


def test_paths_are_read_without_the_kernels_escapes():
    area = SwapArea(r"/my\040swap\134file", "file", GIB, GIB, 1)

    assert swap.path_of(area) == r"/my swap\file"


def test_an_area_whose_file_is_deleted_is_left_alone(bench):
    bench.areas((r"/gone\040(deleted)", "file", GIB_KIB, GIB_KIB // 4, 1))
    outcome = bench.perform("swap")

    assert "deleted" in outcome.why
    assert bench.errands == []


# The page cache.


def test_the_page_cache_is_written_out_then_dropped(bench):
    def effect(arguments):
        if arguments[0] == "write":
            bench.memory(free=4 * GIB_KIB)

    bench.effect = effect
    outcome = bench.perform("page-cache")

    assert [arguments[0] for arguments in bench.started()] == ["sync", "write"]
    assert bench.started()[1][1].endswith("/proc/sys/vm/drop_caches")
    assert outcome.gained_bytes == 3 * GIB
    assert "available memory changed by 0 B" in outcome.sentence


def test_a_sync_that_hangs_is_given_up_and_nothing_dropped(bench):
    bench.lasts = 10_000
    outcome = bench.perform("page-cache")

    assert "sync was given up" in outcome.why
    assert bench.errands[0].ended
    assert len(bench.errands) == 1


def test_the_page_cache_is_left_alone_while_tasks_wait(bench):
    bench.while_paused = lambda: bench.proc.pressure(some_us=60_000)
    outcome = bench.perform("page-cache")

    assert "read again at once" in outcome.why
    assert bench.errands == []


def test_a_machine_that_tells_nothing_about_stalls_is_left_alone(bench):
    for path in ("pressure/memory", "vmstat"):
        (bench.proc.proc / path).unlink()

    assert "nothing here tells" in bench.plan("page-cache").why


def test_without_psi_direct_reclaim_stands_for_a_stall(bench):
    (bench.proc.proc / "pressure/memory").unlink()
    calm = bench.plan("page-cache")
    bench.while_paused = lambda: bench.proc.vmstat(pgscan_direct=5000)
    busy = bench.plan("page-cache")

    assert isinstance(calm, Plan)
    assert "reclaim memory themselves" in busy.why


def test_next_to_no_cache_is_not_worth_a_drop(bench):
    bench.memory(cached=9000)

    assert "only" in bench.plan("page-cache").why


def test_dirty_mapped_and_shared_pages_are_no_gain():
    table = {
        "Cached": 5 * GIB,
        "Buffers": 1 * GIB,
        "Shmem": 2 * GIB,
        "Mapped": 1 * GIB,
        "Dirty": 512 * MIB,
    }

    assert page_cache.droppable_bytes(table) == 5 * GIB // 2


# Cold cgroups.


def cold(bench, name="app.slice/idle.service", current=1 * GIB, inactive=800 * MIB, refaults=0):
    folder = f"sys/fs/cgroup/{name}"
    bench.proc.write("sys/fs/cgroup/cgroup.controllers", "memory\n")
    bench.proc.write(f"{folder}/memory.current", f"{current}\n")
    bench.proc.write(
        f"{folder}/memory.stat",
        f"inactive_file {inactive}\ninactive_anon 0\nworkingset_refault_file {refaults}\n"
        "workingset_refault_anon 0\n",
    )
    bench.proc.write(f"{folder}/memory.reclaim", "")
    return name


def test_a_cold_cgroup_gives_back_at_most_half_in_pieces(bench):
    name = cold(bench)

    def effect(arguments):
        left = int((bench.proc.root / f"sys/fs/cgroup/{name}/memory.current").read_text())
        cold(bench, current=left - int(arguments[2]))

    bench.effect = effect
    outcome = bench.perform(f"cgroup {name}")

    assert outcome.gained_bytes == GIB // 2
    assert {int(arguments[2]) for arguments in bench.started()} == {cgroup.PIECE_BYTES}


def test_a_kernel_that_takes_more_than_it_is_asked_for_is_asked_for_less(bench):
    """As 6.1 does: 48 MiB for 32."""
    name = cold(bench)

    def effect(arguments):
        left = int((bench.proc.root / f"sys/fs/cgroup/{name}/memory.current").read_text())
        cold(bench, current=left - int(arguments[2]) * 3 // 2)

    bench.effect = effect
    outcome = bench.perform(f"cgroup {name}", want_bytes=100 * MIB)

    assert 100 * MIB <= outcome.gained_bytes <= 100 * MIB + cgroup.PIECE_BYTES // 2


def test_a_person_may_say_how_much(bench):
    name = cold(bench)
    planned = bench.plan(f"cgroup {name}", want_bytes=700 * MIB)

    assert planned.gain_bytes == 700 * MIB


def test_more_than_is_inactive_is_never_asked_for(bench):
    name = cold(bench, inactive=100 * MIB)
    planned = bench.plan(f"cgroup {name}", want_bytes=900 * MIB)

    assert planned.gain_bytes == 100 * MIB


def test_a_cgroup_that_reads_back_is_not_cold(bench):
    name = cold(bench)
    bench.while_paused = lambda: cold(bench, refaults=1000)

    assert "not cold: it read 1000 pages back" in bench.plan(f"cgroup {name}").why


def test_it_stops_when_the_cgroup_begins_to_read_back(bench):
    name = cold(bench)
    bench.effect = lambda _arguments: cold(bench, current=GIB - 64 * MIB, refaults=500)
    outcome = bench.perform(f"cgroup {name}")

    assert len(bench.errands) == 1
    assert "began to read back" in outcome.sentence


def test_less_than_asked_for_is_an_end_and_no_error(bench):
    name = cold(bench)
    bench.status = errno.EAGAIN
    bench.effect = lambda _arguments: cold(bench, current=GIB - 10 * MIB)
    outcome = bench.perform(f"cgroup {name}")

    assert outcome.gained_bytes == 10 * MIB
    assert len(bench.errands) == 1


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/", "name a cgroup below"),
        ("../../etc", "name a cgroup below"),
        ("nothing", "there is no cgroup"),
        ("system.slice", "we are in it"),
        ("system.slice/forestall.service", "we are in it"),
    ],
)
def test_cgroups_that_must_not_be_touched_are_refused(bench, path, why):
    cold(bench)
    cold(bench, "system.slice")
    cold(bench, "system.slice/forestall.service")

    assert why in bench.plan(f"cgroup {path}").why


def test_a_machine_without_v2_says_so(bench):
    assert "no cgroup v2" in bench.plan("cgroup a").why
    assert "no cgroup v2" in bench.plan("reclaim").why


def test_the_automatic_form_takes_large_cold_ones_only(bench):
    cold(bench, "app.slice/idle.service")
    cold(bench, "app.slice/busy.service")
    cold(bench, "app.slice/small.service", current=10 * MIB)
    bench.while_paused = lambda: cold(bench, "app.slice/busy.service", refaults=999)
    planned = bench.plan("reclaim")

    assert "app.slice/idle.service" in planned.sentence
    assert "busy" not in planned.sentence
    assert "small" not in planned.sentence


def test_a_whole_path_names_the_same_cgroup(bench):
    cold(bench)
    mount = f"{bench.proc.root}/sys/fs/cgroup"

    assert cgroup.folder_of(str(bench.proc.root), f"{mount}/a/b") == f"{mount}/a/b"
    assert cgroup.folder_of(str(bench.proc.root), "/a/b") == f"{mount}/a/b"


# Errands are real processes.


def test_a_real_errand_writes_and_ends_with_zero(tmp_path):
    file = tmp_path / "knob"
    file.write_text("")
    errand = Errand("write", str(file), "1\n")
    status = None
    while status is None:
        status = errand.wait(1000)

    assert status == 0
    assert file.read_text() == "1\n"


def test_a_real_errand_that_blocks_is_given_up(tmp_path):
    """Opening a pipe that nobody reads blocks, as a kernel file may."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    bystander = Errand("write", str(pipe), "1\n")
    errand = Errand("write", str(pipe), "1\n")
    running = errand.wait(10)
    status = errand.end()
    spared = bystander.wait(0)
    bystander.end()

    assert running is None
    assert status is not None
    assert spared is None


def test_the_errand_of_an_area_that_is_none_fails_with_the_kernels_reason():
    errand = Errand("recycle", "/nonexistent/area", "5")
    status = None
    while status is None:
        status = errand.wait(1000)

    assert status in {errno.ENOENT, errno.EPERM, errno.ENOSYS}


class Area:
    """A swap area for a keeper: files say what was done, since two processes do it."""

    def __init__(self, folder):
        self.off, self.log = folder / "off", folder / "log"
        self.log.touch()

    def switch_off(self):
        self.off.touch()
        return 0

    def switch_on(self):
        with self.log.open("a") as log:
            log.write("on ")
        if not self.off.exists():
            return errno.EBUSY
        self.off.unlink()
        return 0


def kept(off, on):
    """The keeper changes its own signal handlers, so it has a process of its own."""
    pid = os.fork()
    if pid == 0:
        os._exit(keep(off, on))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def killed(after=lambda: None):
    def off():
        after()
        os.kill(os.getpid(), signal.SIGKILL)

    return off


def test_whoever_switches_off_is_killed_the_keeper_switches_on_again(tmp_path):
    """As in a guest: swapoff had emptied the area, and its caller died before swapon."""
    area = Area(tmp_path)

    assert kept(killed(area.switch_off), area.switch_on) == 0
    assert not area.off.exists()


def test_a_child_that_is_killed_before_the_area_is_off_leaves_it_in_use(tmp_path):
    area = Area(tmp_path)

    assert kept(killed(), area.switch_on) == ENDED
    assert not area.off.exists()


def test_an_interrupted_call_is_told_and_the_area_is_tried(tmp_path):
    area = Area(tmp_path)

    assert kept(lambda: errno.EINTR, area.switch_on) == errno.EINTR
    assert area.log.read_text() == "on "


def test_what_was_refused_is_not_switched_on(tmp_path):
    """Somebody else may have switched it off on purpose meanwhile."""
    area = Area(tmp_path)

    assert kept(lambda: errno.EINVAL, area.switch_on) == errno.EINVAL
    assert area.log.read_text() == ""


def test_an_area_that_cannot_be_switched_on_is_told_apart(tmp_path):
    area = Area(tmp_path)

    assert kept(area.switch_off, lambda: errno.ENOMEM) == SWAPON_FAILED


def test_a_signal_to_the_keeper_interrupts_the_child_and_the_area_is_on(tmp_path):
    area = Area(tmp_path)
    ready, told = os.pipe()

    def off():
        area.switch_off()
        os.write(told, b".")
        signal.pause()
        return 0

    keeper = os.fork()
    if keeper == 0:
        os._exit(keep(off, area.switch_on))
    os.read(ready, 1)
    os.kill(keeper, signal.SIGINT)
    status = os.waitstatus_to_exitcode(os.waitpid(keeper, 0)[1])
    os.close(ready)
    os.close(told)

    assert status == 0
    assert not area.off.exists()


def test_the_keeper_of_swap_may_be_interrupted_but_not_killed():
    keeper, other = Errand("recycle", "/nonexistent/area", "5"), Errand("nothing")
    for errand in (keeper, other):
        errand.end()

    assert not keeper._killable
    assert other._killable


def test_a_recycling_that_was_killed_as_a_whole_is_mended_once(bench):
    note = bench.proc.write("run/forestall-recycling", f"5 {DISK}\n")
    bench.areas()
    first, second = bench.plan("swap"), bench.plan("swap")

    assert bench.swapons == [(DISK.encode(), 5)]
    assert "was left switched off by a recycling that was killed" in first.why
    assert "next to nothing" in second.why
    assert not note.exists()


def test_while_another_recycling_is_under_way_nothing_is_begun_or_mended(bench):
    note = bench.proc.write("run/forestall-recycling", "")
    fd = write_note(str(note), f"5 {DISK}\n".encode())
    bench.areas()
    bench.proc.write("proc/swaps", "Filename Type Size Used Priority\n")
    planned, tools = bench.plan("swap"), bench.tools()
    mended = swap.mend(tools)
    os.close(fd)
    again = swap.mend(tools)
    tools.close()

    assert "still under way" in planned.why
    assert mended == ""
    assert "it is on again" in again
    assert bench.swapons == [(DISK.encode(), 5)]


def test_the_note_of_an_area_that_is_in_use_is_taken_away(bench):
    note = bench.proc.write("run/forestall-recycling", f"5 {DISK}\n")
    half_full(bench)

    assert isinstance(bench.plan("swap"), Plan)
    assert bench.swapons == []
    assert not note.exists()


@pytest.mark.parametrize("text", ["", "nonsense", "5", "x /dev/vdc", "\0\0 \xff"])
def test_a_note_that_is_none_changes_nothing(bench, text):
    bench.proc.write("run/forestall-recycling", text)
    half_full(bench)

    assert isinstance(bench.plan("swap"), Plan)
    assert bench.swapons == []


def test_errands_have_a_group_of_their_own(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    errand = Errand("write", str(pipe), "x")
    group = os.getpgid(errand.pid)
    errand.end()

    assert group == errand.pid != os.getpgrp()


def test_errands_can_be_interrupted_although_relief_cannot(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        errand = Errand("write", str(pipe), "x")
    finally:
        signal.signal(signal.SIGINT, before)
    status = errand.end()

    assert status == -signal.SIGINT & 0xFF


# Relief, as the guard talks to it.


def test_relief_answers_a_request_it_does_not_know_with_a_reason():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    relief = Relief(theirs, mrelease=lambda _fd: 0, record_dir="", record_bytes_max=0)
    thread = threading.Thread(target=relief.run)
    thread.start()
    send(ours, {"op": "relieve", "action": "miracle"})
    message, _fd = receive(ours)
    ours.close()
    thread.join()
    theirs.close()

    assert message["op"] == "declined"
    assert message["action"] == "miracle"
    assert "there is no such cleanup" in message["why"]


def test_what_the_guard_wants_meanwhile_is_noticed():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    relief = Relief(theirs, mrelease=lambda _fd: 0, record_dir="", record_bytes_max=0)
    before = relief._wanted()
    send(ours, {"op": "reap"})
    after = relief._wanted()
    ours.close()
    theirs.close()

    assert before == ""
    assert "more urgent" in after


def test_an_outcome_is_plain_data_for_the_guard():
    done = actions.describe(Done("swap", 5, "did it"))
    refused = actions.describe(Refusal("swap", "no"))

    assert (done["op"], done["gained_bytes"]) == ("relieved", 5)
    assert refused == {"op": "declined", "action": "swap", "why": "no"}


def test_what_cannot_be_read_is_a_refusal(bench):
    bench.proc.write("proc/swaps", "Filename\nbroken\n")

    assert isinstance(bench.perform("swap"), Refusal)


def test_strain_is_unknown_without_readings():
    before, now = sampled(0, 0.5), sampled(SECOND, 0.5)
    strain = strain_between(before, now)

    assert strain.stall_share == 0.0
    assert strain.scan_pages_per_s is None


# The command.


def test_a_refusal_ends_with_one_and_the_reason():
    done = CliRunner().invoke(command, ["cgroup", "no/such/cgroup", "--dry-run"])

    assert done.exit_code == 1
    assert "was not done" in done.output


def test_a_dry_run_prints_json():
    done = CliRunner().invoke(command, ["page-cache", "--dry-run", "--json"])

    assert json.loads(done.output)["op"] in {"plan", "declined"}


def test_a_size_that_is_none_is_a_usage_error():
    done = CliRunner().invoke(command, ["cgroup", "a", "--size", "much", "--dry-run"])

    assert done.exit_code == 2


@pytest.mark.parametrize(("own", "entered"), [("mnt:[1]", 0), ("mnt:[2]", 1)])
def test_a_helper_in_mounts_of_its_own_enters_the_machines(tmp_path, own, entered):
    """Switched on from a service's own mounts, /dev/vdc stood as /vdc in /proc/swaps."""
    first, ours = tmp_path / "first", tmp_path / "own"
    (tmp_path / "mnt:[1]").touch()
    first.symlink_to("mnt:[1]")
    ours.symlink_to(own)
    got = []
    leave_sandbox(lambda fd: got.append(os.fstat(fd).st_ino) or 0, str(ours), str(first))

    assert len(got) == entered


def test_a_helper_that_may_not_look_stays_where_it_is(tmp_path):
    leave_sandbox(lambda _fd: pytest.fail("entered"), str(tmp_path / "none"), "/proc/1/ns/mnt")


def test_the_real_way_to_switch_an_area_on_says_what_the_kernel_says():
    tools = Tools()
    try:
        assert tools.swapon(b"/nonexistent/area", 5) in {errno.ENOENT, errno.EPERM, errno.ENOSYS}
    finally:
        tools.close()


def test_the_note_has_one_place():
    assert serve.NOTE == worker.NOTE
