"""Where the memory is: every byte in one place, the rest called unaccounted, nothing hostile."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from forestall.cli.memory import command, lines_of
from forestall.core.units import GIB, MIB
from forestall.inspect.memory import places, read_whereabouts
from forestall.kernel.errors import KernelFormatError
from forestall.kernel.inventory import (
    largest_files,
    parse_meminfo_table,
    parse_slabinfo,
    parse_sysv,
)
from forestall.kernel.shared import tmpfs_usage
from tests.fakes.proc import FakeProc

SLABINFO = b"""slabinfo - version: 2.1
# name <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables
dentry 140000 147000 192 21 1 : tunables 0 0 0 : slabdata 7000 7000 0
kmalloc-2k 1000 1600 2048 16 8 : tunables 0 0 0 : slabdata 100 100 0
cut short 1 2
"""
SYSVIPC = b""" key shmid perms size cpid lpid nattch uid gid cuid cgid atime dtime ctime rss swap
0 65536 600 67108864 812 812 0 1000 1000 1000 1000 0 0 1600000000 33554432 4096
7 1 600 4096 1 1 2 0 0 0 0 0 0 1600000000 4096 0
"""
TABLE = {
    "MemTotal": 16 * GIB,
    "MemFree": 1 * GIB,
    "MemAvailable": 3 * GIB,
    "Buffers": 100 * MIB,
    "Cached": 5 * GIB,
    "SwapCached": 10 * MIB,
    "Shmem": 3 * GIB,
    "AnonPages": 4 * GIB,
    "SReclaimable": 200 * MIB,
    "SUnreclaim": 300 * MIB,
    "KernelStack": 20 * MIB,
    "PageTables": 50 * MIB,
    "VmallocUsed": 60 * MIB,
    "Percpu": 5 * MIB,
    "Hugetlb": 1 * GIB,
}


@pytest.fixture
def machine(tmp_path):
    proc = FakeProc(tmp_path)
    proc.meminfo()
    return proc


def size_of(found, name):
    return next(place.size_bytes for place in found if place.name == name)


def test_every_byte_is_in_one_place():
    found = places(TABLE, zram_bytes=512 * MIB)

    assert sum(place.size_bytes or 0 for place in found) == TABLE["MemTotal"]


def test_what_is_left_over_is_unaccounted():
    found = places(TABLE)
    listed = sum(p.size_bytes or 0 for p in found if p.name != "unaccounted")

    assert size_of(found, "unaccounted") == TABLE["MemTotal"] - listed
    assert size_of(found, "unaccounted") > 4 * GIB


def test_tmpfs_is_not_counted_as_page_cache():
    found = places(TABLE)

    assert size_of(found, "file") == 2 * GIB + 100 * MIB
    assert size_of(found, "shmem") == 3 * GIB


def test_stacks_are_not_counted_twice_as_vmalloc():
    assert size_of(places(TABLE), "vmalloc") == 40 * MIB


def test_what_the_kernel_does_not_say_is_unknown_and_not_zero():
    table = {"MemTotal": GIB, "MemFree": GIB // 2}

    assert size_of(places(table), "percpu") is None


def test_the_zfs_cache_is_taken_out_of_what_is_left_over():
    found = places(TABLE, arc_bytes=2 * GIB)

    assert size_of(found, "zfs") == 2 * GIB
    assert size_of(found, "unaccounted") == size_of(places(TABLE), "unaccounted") - 2 * GIB


def test_the_largest_place_comes_first_and_free_last():
    found = places(TABLE)

    assert found[0].name == "unaccounted"
    assert found[-1].name == "free"


def test_slab_caches_are_measured_by_their_slabs():
    caches = parse_slabinfo(SLABINFO, 4096)

    assert [(c.name, c.size_bytes) for c in caches] == [
        ("dentry", 7000 * 4096),
        ("kmalloc-2k", 100 * 8 * 4096),
    ]


def test_segments_are_read_by_the_header():
    first, second = parse_sysv(SYSVIPC)

    assert (first.id, first.resident_bytes, first.swap_bytes) == (65536, 32 * MIB, 4096)
    assert second.attached == 2


@pytest.mark.parametrize("cut", range(0, len(SYSVIPC), 37))
def test_any_truncation_is_read_or_left_out(cut):
    assert isinstance(parse_sysv(SYSVIPC[:cut]), tuple)
    assert isinstance(parse_slabinfo(SLABINFO[:cut], 4096), tuple)


def test_meminfo_without_a_total_is_refused():
    with pytest.raises(KernelFormatError):
        parse_meminfo_table(b"nonsense\n")


def test_the_largest_files_are_found_and_links_not_followed(tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "big").write_bytes(b"x" * 300_000)
    (tmp_path / "small").write_bytes(b"x" * 10_000)
    (tmp_path / "loop").symlink_to(tmp_path)
    files, cut = largest_files(str(tmp_path), count=2)

    assert [Path(file.path).name for file in files] == ["big", "small"]
    assert not cut


def test_a_search_has_a_limit_and_says_so(tmp_path):
    for number in range(20):
        (tmp_path / str(number)).write_bytes(b"x")
    _files, cut = largest_files(str(tmp_path), count=2, files_max=10)

    assert cut


def test_tmpfs_mounts_are_listed_with_their_files(machine):
    folder = machine.root / "dev/shm"
    folder.mkdir(parents=True)
    (folder / "ev\x1bil").write_bytes(b"x" * 100_000)
    machine.write(
        "proc/self/mountinfo", "30 1 0:99 / /dev/shm rw,nosuid - tmpfs tmpfs rw,size=1024k\n"
    )
    found = read_whereabouts(str(machine.root))
    text = "\n".join(lines_of(found))

    assert found.tmpfs[0].path == "/dev/shm"
    assert found.tmpfs[0].files[0][0] == r"/dev/shm/ev\x1bil"
    assert "\x1b" not in text


def test_a_tmpfs_mounted_over_another_is_counted_once(machine):
    folder = machine.root / "run/user"
    folder.mkdir(parents=True)
    line = "{} 25 0:{} / /run/user rw - tmpfs tmpfs rw\n"
    machine.write("proc/self/mountinfo", line.format(30, 40) + line.format(31, 41))
    usages = tmpfs_usage(str(machine.root))

    assert [usage.path for usage in usages] == ["/run/user"]


def test_huge_pages_and_zram_are_shown_with_what_is_unused(machine):
    for name, count in (("nr_hugepages", 512), ("free_hugepages", 500), ("resv_hugepages", 0)):
        machine.write(f"sys/kernel/mm/hugepages/hugepages-2048kB/{name}", f"{count}\n")
    machine.mm_stat("zram0", 4 * GIB, GIB, 5 * GIB // 4)
    machine.write("proc/slabinfo", SLABINFO)
    machine.write("proc/sysvipc/shm", SYSVIPC)
    text = "\n".join(lines_of(read_whereabouts(str(machine.root))))

    assert "huge pages of 2.00 MiB: 1.00 GiB set apart, 0.98 GiB of it unused" in text
    assert "zram0: 4.00 GiB stored in 1.25 GiB of memory" in text
    assert "kmalloc-2k" in text
    assert "ipcrm -m 65536" in text


def test_what_cannot_be_seen_is_said(machine):
    found = read_whereabouts(str(machine.root))

    assert found.slab_caches is None
    assert any("slab" in what for what in found.incomplete)


def test_here_the_places_add_up_to_the_whole():
    found = read_whereabouts()
    known = sum(place.size_bytes or 0 for place in found.places)

    assert known == pytest.approx(found.total_bytes, rel=0.02)


def test_a_memfd_is_found_with_its_holder():
    code = (
        "import os, sys; fd = os.memfd_create('hog'); os.write(fd, b'x' * (8 << 20)); "
        "print('ready', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        holder.stdout.readline()
        found = read_whereabouts().memfds
    finally:
        holder.communicate(b"")

    assert any(pid == holder.pid for memfd in found for pid, _name in memfd.holders)


def test_the_command_prints_json_and_text():
    as_json = CliRunner().invoke(command, ["--json"])
    as_text = CliRunner().invoke(command, [])

    assert json.loads(as_json.output)["total_bytes"] > 0
    assert "unaccounted" in as_text.output or "page cache" in as_text.output
