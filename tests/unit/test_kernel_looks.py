"""Looks at memory that read no number: they say "unmoved" only where a sample would."""

import os
from contextlib import closing

import pytest

from forestall.core.pace import Rest
from forestall.kernel.sampler import Sampler
from tests.fakes.proc import GIB_KIB, FakeProc


@pytest.fixture
def proc(tmp_path):
    proc = FakeProc(tmp_path)
    proc.meminfo()
    proc.pressure(7, 7)
    return proc


def rest_at(sampler, available_kib, *, swap_kib=0, some_us=7):
    sampler.sample(0, with_activity=False)
    return Rest(10**18, available_kib * 1024, swap_kib * 1024, some_us)


@pytest.mark.parametrize("least_kib", [1, 999, 99_999_999, 10**8, 10**9])
@pytest.mark.parametrize("found_kib", [0, 1, 999, 1000, 99_999_999, 10**8, 10**8 + 1, 10**9])
def test_a_look_compares_sizes_as_numbers_do(proc, least_kib, found_kib):
    """Also where a number outgrows its column and all that follows moves."""
    proc.meminfo(total=2 * 10**9, available=5000)
    with closing(Sampler(str(proc.root))) as sampler:
        rest = rest_at(sampler, least_kib)
        proc.meminfo(total=2 * 10**9, available=found_kib)
        said = sampler.unmoved(rest)
        found = sampler.sample(0, with_activity=False).memory.available_bytes

    assert not said or found >= rest.available_bytes
    assert said or found < rest.available_bytes or found_kib >= 10**8


def test_a_look_sees_swap_go(proc):
    proc.meminfo(swap_total=GIB_KIB, swap_free=GIB_KIB)
    with closing(Sampler(str(proc.root))) as sampler:
        rest = rest_at(sampler, 1, swap_kib=GIB_KIB // 2)
        before = sampler.unmoved(rest)
        proc.meminfo(swap_total=GIB_KIB, swap_free=GIB_KIB // 2 - 1)
        after = sampler.unmoved(rest)

    assert (before, after) == (True, False)


def test_a_look_sees_the_first_microsecond_of_a_stall(proc):
    with closing(Sampler(str(proc.root))) as sampler:
        rest = rest_at(sampler, 1)
        before = sampler.unmoved(rest)
        proc.pressure(8, 7)
        after = sampler.unmoved(rest)

    assert (before, after) == (True, False)


def test_a_look_that_cannot_tell_leaves_it_to_a_sample(proc):
    with closing(Sampler(str(proc.root))) as sampler:
        of_another_time = rest_at(sampler, 1, some_us=6)

        assert not sampler.unmoved(of_another_time)

    proc.arcstats(size=GIB_KIB * 1024, c_min=0)
    with closing(Sampler(str(proc.root))) as sampler:
        assert not sampler.unmoved(rest_at(sampler, 1)), "ZFS gives back more than meminfo says"


def test_a_look_that_fails_leaves_it_to_a_sample(proc):
    fails = []

    def pread(fd, size, offset):
        if fails:
            raise OSError(5, "EIO")
        return os.pread(fd, size, offset)

    with closing(Sampler(str(proc.root), pread=pread)) as sampler:
        rest = rest_at(sampler, 1)
        fails.append(True)

        assert not sampler.unmoved(rest)


def test_a_text_that_moved_or_was_cut_is_no_look(proc):
    path = proc.meminfo()
    whole = path.read_bytes()
    with closing(Sampler(str(proc.root))) as sampler:
        rest = rest_at(sampler, 1)
        for text in (b"", whole[:60], b"X" + whole, whole.replace(b"MemFree", b"Mem")):
            path.write_bytes(text)

            assert not sampler.unmoved(rest)
