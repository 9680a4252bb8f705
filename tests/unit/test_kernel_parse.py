"""Kernel text to values: real text, odd text, text cut short."""

import pytest

from forestall.core.model import Pressure, ProcessId
from forestall.kernel.errors import KernelFormatError
from forestall.kernel.parse import (
    Arc,
    MemoryEvents,
    parse_arcstats,
    parse_flat,
    parse_holdings,
    parse_limit,
    parse_meminfo,
    parse_memory_events,
    parse_mm_stat,
    parse_pressure,
    parse_swaps,
    parse_vmstat,
)
from forestall.kernel.parse_process import (
    parse_cgroup,
    parse_cmdline,
    parse_oom_score_adj,
    parse_stat,
    parse_statm,
    parse_status,
    parse_swap,
)
from tests.fakes.proc import FakeProc

KIB = 1024


@pytest.fixture
def proc(tmp_path):
    return FakeProc(tmp_path)


def test_meminfo_gives_memory_and_swap_in_bytes(proc):
    raw = proc.meminfo(total=1000, available=400, swap_total=200, swap_free=50, shmem=7)

    memory = parse_meminfo(raw.read_bytes())

    assert (memory.total_bytes, memory.available_bytes) == (1000 * KIB, 400 * KIB)
    assert (memory.swap_total_bytes, memory.swap_free_bytes) == (200 * KIB, 50 * KIB)
    assert memory.shmem_bytes == 7 * KIB


def test_a_kernel_without_mem_available_is_refused_by_name(proc):
    """The estimate would be ours and not the kernel's; nobody acts on a guess."""
    raw = proc.meminfo().read_bytes().replace(b"MemAvailable", b"MemSomething")

    with pytest.raises(KernelFormatError, match="no MemAvailable"):
        parse_meminfo(raw)


def test_meminfo_cut_anywhere_is_refused_or_whole(proc):
    """A number that lost its last digits would be a tenth of the truth."""
    raw = proc.meminfo(swap_total=8388604, swap_free=1234567).read_bytes()
    whole = parse_meminfo(raw)

    for size in range(len(raw)):
        try:
            memory = parse_meminfo(raw[:size])
        except KernelFormatError:
            continue
        assert memory == whole or memory._replace(shmem_bytes=whole.shmem_bytes) == whole


def test_holdings_count_the_page_cache_without_shmem(proc):
    raw = proc.meminfo(cached=5000, shmem=1000, anon=300, slab=20).read_bytes()

    holdings = parse_holdings(raw, zram_bytes=9)

    assert holdings.file_bytes == (5000 + 1760 - 1000) * KIB
    assert (holdings.anon_bytes, holdings.shmem_bytes) == (300 * KIB, 1000 * KIB)
    assert (holdings.slab_unreclaimable_bytes, holdings.zram_bytes) == (20 * KIB, 9)


def test_holdings_of_an_old_kernel_count_the_huge_page_pool(proc):
    raw = proc.meminfo().read_bytes()
    raw = raw.replace(b"Hugetlb:               0 kB\n", b"")
    raw = raw.replace(b"HugePages_Total:       0", b"HugePages_Total:       3")

    assert parse_holdings(raw).hugetlb_bytes == 3 * 2048 * KIB


def test_pressure_gives_both_totals(proc):
    raw = proc.pressure(some_us=14841810, full_us=9784710).read_bytes()

    assert parse_pressure(raw) == Pressure(14841810, 9784710)


def test_an_empty_pressure_file_is_unknown_and_not_zero():
    assert parse_pressure(b"") is None


def test_pressure_cut_anywhere_is_refused_or_unknown(proc):
    raw = proc.pressure(some_us=14841810, full_us=9784710).read_bytes()

    for size in range(1, len(raw)):
        with pytest.raises(KernelFormatError):
            parse_pressure(raw[:size])


def test_vmstat_gives_the_counters(proc):
    raw = proc.vmstat(
        pswpin=1,
        pswpout=2,
        pgmajfault=3,
        workingset_refault_anon=4,
        workingset_refault_file=5,
        pgscan_direct=6,
        oom_kill=7,
    )

    assert tuple(parse_vmstat(raw.read_bytes())) == (7, 1, 2, 4, 5, 3, 6, None)


def test_vmstat_of_an_old_kernel_knows_refaults_of_files_only():
    """Before v5.9 there was one counter, and it watched files; before v4.13 no oom_kill."""
    raw = b"pswpin 1\npswpout 2\npgmajfault 3\nworkingset_refault 40\npgscan_direct_throttle 9\n"

    activity = parse_vmstat(raw)

    assert (activity.refault_anon_pages, activity.refault_file_pages) == (None, 40)
    assert (activity.oom_kill, activity.scan_direct_pages) == (None, None)


@pytest.mark.parametrize(
    "comm",
    ["bash", "", "a b", "foo) Z ", "foo)\nZ\n", ")))(((", "()", "\N{PILE OF POO}", "a (b) R 7"],
)
def test_a_process_cannot_lie_about_itself_by_its_name(comm, proc):
    """The command is chosen by the process; the fields after it are not."""
    proc.process(100, comm=comm, start=4816953, state="D", parent=7, session=42)

    stat = parse_stat((proc.proc / "100/stat").read_bytes())

    assert stat.id == ProcessId(100, 4816953)
    assert (stat.comm, stat.state, stat.parent_pid, stat.session_id) == (comm, "D", 7, 42)


def test_a_name_cut_within_a_character_comes_back_byte_for_byte(proc):
    """The kernel cuts at fifteen bytes, wherever that is."""
    proc.process(100, comm=b"\xf0\x9f\x92\xa9\xf0\x9f\x92\xff\x1b[31m")

    comm = parse_stat((proc.proc / "100/stat").read_bytes()).comm

    assert comm.encode("utf-8", "surrogateescape") == b"\xf0\x9f\x92\xa9\xf0\x9f\x92\xff\x1b[31m"


def test_a_dying_process_has_no_group_and_that_is_no_error():
    """Once its signal handlers are gone the kernel prints -1."""
    raw = b"9 (x) X 0 -1 -1 0 -1 4 0 0 0 0 0 0 0 0 20 0 1 0 77 0 0 0\n"

    assert parse_stat(raw).group_id == -1


def test_stat_cut_anywhere_before_the_start_time_is_refused(proc):
    proc.process(100, start=4816953)
    raw = (proc.proc / "100/stat").read_bytes()
    end = raw.index(b"4816953") + len(b"4816953")

    for size in range(end + 1):
        with pytest.raises(KernelFormatError):
            parse_stat(raw[:size])


def test_kernel_threads_are_told_by_their_flag_and_not_by_their_parent(proc):
    """Inside a container PID 2 is anybody."""
    proc.kernel_thread(50)
    proc.process(51, parent=2)

    stats = [parse_stat((proc.proc / f"{pid}/stat").read_bytes()) for pid in (50, 51)]

    assert [stat.kernel_thread for stat in stats] == [True, False]


def test_statm_gives_anonymous_pages_and_never_fewer_than_none():
    assert parse_statm(b"732 415 382 5 0 66 0\n").anon_pages == 33
    assert parse_statm(b"732 382 415 5 0 66 0\n").anon_pages == 0


def test_status_gives_owner_swap_and_capabilities(proc):
    proc.process(100, uid=1001, swap_kib=512, threads=3)
    raw = (proc.proc / "100/status").read_bytes()

    status = parse_status(raw)

    assert (status.uid, status.threads, status.swap_bytes) == (1001, 3, 512 * KIB)
    assert parse_swap(raw) == 512 * KIB


def test_a_process_without_memory_has_no_swap_line():
    raw = b"Name:\tx\nUid:\t0\t0\t0\t0\nThreads:\t1\nCapEff:\t000001fffeffffff\n"

    status = parse_status(raw)

    assert (status.swap_bytes, parse_swap(raw)) == (None, 0)
    assert status.effective_capabilities == 0x1FFFEFFFFFF


@pytest.mark.parametrize("raw", [b"1001\n", b"-1001\n", b"", b"\n", b"--5", b"1_0"])
def test_an_adjustment_out_of_range_is_refused(raw):
    with pytest.raises(KernelFormatError):
        parse_oom_score_adj(raw)


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"0::/user.slice/a.scope\n", "/user.slice/a.scope"),
        (b"4:memory:/jobs\n1:name=systemd:/x\n0::/\n", "/jobs"),
        (
            b"4:cpu,memory:/\n1:name=systemd:/system.slice/x.service\n0::/\n",
            "/system.slice/x.service",
        ),
        (b"4:memory:/a\n0::/system.slice/x.service\n", "/system.slice/x.service"),
        (b"0::/\n", "/"),
        (b"0::/a:b/c d\n", "/a:b/c d"),
        (b"0::/a.scope (deleted)\n", "/a.scope"),
        (b"3:cpu:/x\n", ""),
        (b"", ""),
    ],
)
def test_the_cgroup_is_the_one_that_says_most(raw, path):
    assert parse_cgroup(raw) == path


def test_a_command_line_is_joined_by_blanks():
    assert parse_cmdline(b"python3\0-m\0http.server\0") == "python3 -m http.server"
    assert parse_cmdline(b"") == ""


def test_swaps_tell_zram_from_disks(proc):
    raw = proc.swaps(
        ("/dev/zram0", "partition", 8388604, 100, 100),
        ("/swap\\040file", "file", 1024, 0, -2),
        ("/dev/zramp", "partition", 4, 0, 1),
    ).read_bytes()

    zram, file, disk = parse_swaps(raw)

    assert (zram.zram, file.zram, disk.zram) == ("zram0", "", "")
    assert (zram.size_bytes, zram.used_bytes, zram.priority) == (8388604 * KIB, 100 * KIB, 100)
    assert (file.path, file.priority) == ("/swap\\040file", -2)


def test_no_swap_is_a_heading_alone(proc):
    assert parse_swaps(proc.swaps().read_bytes()) == ()
    assert parse_swaps(b"") == ()


def test_mm_stat_may_have_more_columns_than_we_know():
    stat = parse_mm_stat(b"  1000  400  500  0  600  0 0 0 0 77 88\n")

    assert tuple(stat) == (1000, 400, 500, 0)


def test_arcstats_give_size_and_minimum(proc):
    assert parse_arcstats(proc.arcstats(900, 100).read_bytes()) == Arc(900, 100)


def test_memory_events_name_what_is_missing():
    whole = b"low 0\nhigh 1\nmax 2\noom 3\noom_kill 4\noom_group_kill 5\n"

    assert parse_memory_events(whole) == MemoryEvents(0, 1, 2, 3, 4)
    with pytest.raises(KernelFormatError, match="no oom_kill"):
        parse_memory_events(b"low 0\nhigh 1\nmax 2\noom 3\n")


def test_flat_files_give_every_key():
    assert parse_flat("memory.stat", b"anon 1\nfile 2\n") == {"anon": 1, "file": 2}


@pytest.mark.parametrize(
    ("raw", "limit"), [(b"max\n", None), (b"9223372036854771712\n", None), (b"4096\n", 4096)]
)
def test_no_limit_is_unknown_and_not_a_large_number(raw, limit):
    assert parse_limit("memory.max", raw) == limit


def test_the_excerpt_in_an_error_is_short_and_escaped():
    """It goes to the log, and a process chose the bytes."""
    error = KernelFormatError("stat", "too few fields", b"\x1b]0;evil\x07\n" + b"x" * 500)

    assert "\x1b" not in str(error)
    assert "\n" not in str(error)
    assert len(str(error)) < 200
