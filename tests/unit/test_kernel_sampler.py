"""A tick's readings on machines of every kind."""

import errno
import os
from pathlib import Path

import pytest

from forestall.core.model import Pressure
from forestall.kernel.errors import KernelFormatError
from forestall.kernel.sampler import Sampler
from tests.fakes.proc import FakeProc

GIB = 1024**3
GIB_KIB = 1024**2
SECOND = 1_000_000_000


@pytest.fixture
def proc(tmp_path):
    proc = FakeProc(tmp_path)
    proc.meminfo()
    proc.vmstat()
    return proc


def sampler(proc, **seams):
    return Sampler(str(proc.root), **seams)


def test_an_open_file_is_read_afresh(proc):
    """One descriptor serves every tick, so a stale read would blind us."""
    sensor = sampler(proc)
    proc.meminfo(available=1)

    sampled = sensor.sample(7, with_activity=False)

    assert (sampled.now_ns, sampled.memory.available_bytes) == (7, 1024)
    assert sampled.activity is None


def test_activity_is_read_when_asked_for(proc):
    sensor = sampler(proc)
    proc.vmstat(pswpin=5, oom_kill=2)

    activity = sensor.sample(0, with_activity=True).activity

    assert (activity.swap_in_pages, activity.oom_kill) == (5, 2)


def test_activity_costs_one_read_where_the_last_counter_came_with_the_first(proc):
    """Each read of /proc/vmstat has the kernel format all of it."""
    reads = []

    def pread(fd, size, offset):
        reads.append(Path(f"/proc/self/fd/{fd}").readlink())
        return os.pread(fd, size, offset)

    sensor = sampler(proc, pread=pread)
    reads.clear()
    sensor.sample(0, with_activity=True)

    assert sum(path.name == "vmstat" for path in reads) == 1


def test_activity_is_read_to_the_end_where_a_read_stops_early(proc):
    """The kernel stops a read at a full buffer, and old kernels lack the last counter."""

    def pread(fd, size, offset):
        return os.pread(fd, min(size, 1024 if offset == 0 else size), offset)

    sensor = sampler(proc, pread=pread)
    text = (proc.root / "proc/vmstat").read_bytes()
    (proc.root / "proc/vmstat").write_bytes(b"nr_filler 1\n" * 100 + text)

    assert sensor.sample(0, with_activity=True).activity is not None


def test_a_kernel_without_mem_available_is_refused_at_the_start(proc):
    proc.write("proc/meminfo", b"MemTotal: 1 kB\nMemFree: 1 kB\n")

    with pytest.raises(KernelFormatError, match="MemAvailable"):
        sampler(proc)


@pytest.mark.parametrize("text", [None, b"", b"\n", b"garbage"])
def test_without_pressure_memory_is_still_known(proc, text):
    if text is not None:
        proc.write("proc/pressure/memory", text)

    sampled = sampler(proc).sample(0, with_activity=False)

    assert sampled.pressure is None
    assert sampled.memory.available_bytes == 8 * GIB


def test_pressure_that_is_switched_off_on_reading_is_none(proc):
    """psi=0 leaves the file on some kernels, and reading it gives EOPNOTSUPP."""
    proc.pressure()
    path = str(proc.proc / "pressure/memory")

    def pread(fd, size, offset):
        if str(Path(f"/proc/self/fd/{fd}").readlink()) == path:
            raise OSError(errno.EOPNOTSUPP, "not supported")
        return os.pread(fd, size, offset)

    assert sampler(proc, pread=pread).sample(0, with_activity=False).pressure is None


def test_pressure_follows_the_file_and_garbage_is_counted(proc):
    proc.pressure(some_us=5)
    sensor = sampler(proc)

    first = sensor.sample(0, with_activity=False).pressure
    proc.pressure(some_us=9, full_us=1)
    second = sensor.sample(0, with_activity=False).pressure
    proc.write("proc/pressure/memory", b"some total=")
    third = sensor.sample(0, with_activity=False).pressure

    assert (first, second, third) == (Pressure(5, 0), Pressure(9, 1), None)
    assert sensor.describe()["errors"]["pressure"] == 1


def test_swap_may_come_and_go_while_we_run(proc):
    sensor = sampler(proc)
    proc.meminfo(swap_total=GIB_KIB, swap_free=GIB_KIB)
    proc.swaps(("/swapfile", "file", GIB_KIB, 0, -2))

    with_swap = sensor.sample(0, with_activity=False).memory
    proc.meminfo()
    proc.swaps()
    without = sensor.sample(1, with_activity=False).memory

    assert (with_swap.swap_total_bytes, with_swap.swap_usable_bytes) == (GIB, GIB)
    assert (without.swap_total_bytes, without.swap_usable_bytes) == (0, 0)


def test_memory_may_be_plugged_in_while_we_run(proc):
    sensor = sampler(proc)
    proc.meminfo(total=200 * GIB_KIB, available=150 * GIB_KIB)

    memory = sensor.sample(0, with_activity=False).memory

    assert (memory.total_bytes, memory.available_bytes) == (200 * GIB, 150 * GIB)


def test_the_zfs_cache_above_its_minimum_counts_as_available(proc):
    proc.arcstats(size=5 * GIB, c_min=1 * GIB)

    memory = sampler(proc).sample(0, with_activity=False).memory

    assert memory.available_bytes == 12 * GIB


def test_a_zfs_cache_that_cannot_be_read_adds_nothing(proc):
    proc.arcstats(size=5 * GIB, c_min=1 * GIB)
    sensor = sampler(proc)
    proc.write("proc/spl/kstat/zfs/arcstats", b"")

    memory = sensor.sample(0, with_activity=False).memory

    assert memory.available_bytes == 8 * GIB
    assert sensor.describe()["errors"]["arc"] == 1


def zram_machine(proc, orig, held, *, free_kib=8 * GIB_KIB, limit=0):
    proc.meminfo(swap_total=8 * GIB_KIB, swap_free=free_kib)
    proc.swaps(("/dev/zram0", "partition", 8 * GIB_KIB, 8 * GIB_KIB - free_kib, 100))
    proc.mm_stat("zram0", orig, held, held, limit)
    return sampler(proc).sample(0, with_activity=False).memory


def test_free_zram_is_worth_what_it_spares(proc):
    """At two to one, a page swapped out gives half a page."""
    memory = zram_machine(proc, 2 * GIB, 1 * GIB, free_kib=6 * GIB_KIB)

    assert memory.swap_free_bytes == 6 * GIB
    assert memory.swap_usable_bytes == 3 * GIB


def test_empty_zram_is_taken_to_compress_as_usual(proc):
    assert zram_machine(proc, 0, 0).swap_usable_bytes == int(8 * GIB * 0.6)


def test_zram_that_does_not_compress_is_worth_nothing(proc):
    assert zram_machine(proc, 2 * GIB, 2 * GIB).swap_usable_bytes == 0


def test_zram_is_worth_no_more_than_its_own_limit_can_hold(proc):
    """Room for half a GiB compressed is one GiB of pages, which spares half of that."""
    memory = zram_machine(proc, 2 * GIB, GIB, limit=GIB + GIB // 2, free_kib=6 * GIB_KIB)

    assert memory.swap_usable_bytes == GIB // 2


def test_of_several_areas_the_first_to_fill_is_priced_first(proc):
    """Disk behind zram: what zram has left costs, what the disk has left does not."""
    proc.meminfo(swap_total=12 * GIB_KIB, swap_free=10 * GIB_KIB)
    proc.swaps(
        ("/swapfile", "file", 4 * GIB_KIB, 0, -2),
        ("/dev/zram0", "partition", 8 * GIB_KIB, 2 * GIB_KIB, 100),
    )
    proc.mm_stat("zram0", 2 * GIB, GIB, GIB)
    sensor = sampler(proc)
    before = sensor.sample(0, with_activity=False).memory
    proc.meminfo(swap_total=12 * GIB_KIB, swap_free=3 * GIB_KIB)

    after = sensor.sample(1, with_activity=False).memory

    assert before.swap_usable_bytes == 4 * GIB + 3 * GIB
    assert after.swap_usable_bytes == 3 * GIB


def test_the_division_of_swap_is_read_again_after_ten_seconds_and_not_before(proc):
    zram_machine(proc, 2 * GIB, GIB)
    sensor = sampler(proc)
    sensor.sample(0, with_activity=False)
    proc.mm_stat("zram0", 4 * GIB, GIB, GIB)

    early = sensor.sample(10 * SECOND - 1, with_activity=False).memory
    late = sensor.sample(10 * SECOND, with_activity=False).memory

    assert early.swap_usable_bytes == 4 * GIB
    assert late.swap_usable_bytes == 6 * GIB


def test_holdings_show_what_zram_keeps_in_ram(proc):
    zram_machine(proc, 2 * GIB, GIB)
    sensor = sampler(proc)
    sensor.sample(0, with_activity=False)

    assert sensor.holdings().zram_bytes == GIB


V2 = "sys/fs/cgroup"


def contained(proc, limit, usage=GIB, inactive=0, swap="max"):
    proc.write(f"{V2}/memory.max", f"{limit}\n")
    proc.write(f"{V2}/memory.current", f"{usage}\n")
    proc.write(
        f"{V2}/memory.stat",
        f"anon 5\nshmem 77\ninactive_file {inactive}\nslab_reclaimable 1000\n",
    )
    proc.write(f"{V2}/memory.swap.max", f"{swap}\n")
    proc.write(f"{V2}/memory.swap.current", f"{GIB // 4}\n")


def test_inside_a_container_its_limit_is_all_there_is(proc):
    proc.meminfo(swap_total=GIB_KIB, swap_free=GIB_KIB)
    contained(proc, 2 * GIB, usage=GIB, inactive=GIB // 2, swap=GIB // 2)

    memory = sampler(proc).sample(0, with_activity=False).memory

    assert memory.total_bytes == 2 * GIB
    assert memory.available_bytes == GIB + GIB // 2 + 1000
    assert (memory.swap_total_bytes, memory.swap_free_bytes) == (GIB // 2, GIB // 4)
    assert memory.shmem_bytes == 77


def test_a_container_never_has_more_than_the_machine(proc):
    proc.meminfo(available=GIB_KIB // 2)
    contained(proc, 4 * GIB, usage=GIB)

    memory = sampler(proc).sample(0, with_activity=False).memory

    assert memory.available_bytes == GIB // 2


def test_a_containers_own_pressure_counts(proc):
    proc.pressure(some_us=1)
    proc.pressure(some_us=2, path=f"{V2}/memory.pressure")
    contained(proc, 2 * GIB)

    assert sampler(proc).sample(0, with_activity=False).pressure == Pressure(2, 0)


def test_a_container_without_limit_is_limited_later(proc):
    contained(proc, "max")
    sensor = sampler(proc)
    before = sensor.sample(0, with_activity=False).memory
    proc.write(f"{V2}/memory.max", f"{2 * GIB}\n")

    after = sensor.sample(1, with_activity=False).memory

    assert (before.total_bytes, after.total_bytes) == (16 * GIB, 2 * GIB)


def test_a_limit_on_our_own_unit_is_none_of_ours(proc):
    """MemoryMax= in the service file limits the guard, not what it guards."""
    proc.write(f"{V2}/system.slice/forestall.service/memory.max", b"67108864\n")
    proc.write("proc/self/cgroup", b"0::/system.slice/forestall.service\n")

    assert sampler(proc).sample(0, with_activity=False).memory.total_bytes == 16 * GIB


@pytest.mark.parametrize(("limit", "total"), [(2 * GIB, 2 * GIB), (9223372036854771712, 16 * GIB)])
def test_a_v1_container_is_told_from_a_host(proc, limit, total):
    folder = "sys/fs/cgroup/memory"
    proc.write(f"{folder}/memory.limit_in_bytes", f"{limit}\n")
    proc.write(f"{folder}/memory.usage_in_bytes", f"{GIB}\n")
    proc.write(f"{folder}/memory.stat", b"total_inactive_file 4096\ntotal_shmem 0\n")

    memory = sampler(proc).sample(0, with_activity=False).memory

    assert memory.total_bytes == total
    if total == limit:
        assert memory.available_bytes == GIB + 4096


def test_closing_gives_every_descriptor_back(proc):
    zram_machine(proc, 2 * GIB, GIB)
    proc.pressure()
    proc.arcstats(1, 1)
    contained(proc, 2 * GIB)
    before = len(list(Path("/proc/self/fd").iterdir()))

    sensor = sampler(proc)
    sensor.sample(0, with_activity=True)
    sensor.close()

    assert len(list(Path("/proc/self/fd").iterdir())) == before
