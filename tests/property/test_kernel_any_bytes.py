"""Whatever the kernel says, only our own error comes out."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forestall.kernel import parse, parse_process
from forestall.kernel.errors import KernelFormatError
from forestall.kernel.files import KernelFile
from forestall.kernel.meminfo import Meminfo
from forestall.kernel.mounts import mounts_of
from forestall.kernel.swap import PricedArea, usable_bytes
from tests.fakes.proc import FakeProc

PARSERS = [
    parse.parse_meminfo,
    parse.parse_holdings,
    parse.parse_pressure,
    parse.parse_vmstat,
    parse.parse_swaps,
    parse.parse_mm_stat,
    parse.parse_arcstats,
    parse.parse_memory_events,
    lambda raw: parse.parse_limit("memory.max", raw),
    lambda raw: parse.parse_flat("memory.stat", raw),
    parse_process.parse_stat,
    parse_process.parse_statm,
    parse_process.parse_status,
    parse_process.parse_swap,
    parse_process.parse_oom_score,
    parse_process.parse_oom_score_adj,
    parse_process.parse_cgroup,
    parse_process.parse_cmdline,
    lambda raw: list(mounts_of(raw)),
]

SEEDS = [
    b"MemTotal: 1 kB\nMemAvailable: 1 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\nShmem: 3 kB\n",
    b"some avg10=0.00 avg60=0.00 avg300=0.00 total=1\nfull avg10=0.00 total=2\n",
    b"1 (a) S 0 1 1 0 -1 4 0 0 0 0 0 0 0 0 20 0 1 0 30 0 0 0\n",
    b"4:memory:/a\n0::/b\n",
    b"pswpin 1\npswpout 1\npgmajfault 1\n",
]


@st.composite
def bent(draw):
    """Real text with a few bytes changed, cut, or doubled."""
    raw = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, max(0, len(raw) - 1)))
        raw[at : at + draw(st.integers(0, 6))] = draw(st.binary(max_size=6))
    return bytes(raw)


@pytest.mark.parametrize("parser", PARSERS)
@given(raw=st.binary(max_size=2048) | bent())
def test_any_bytes_parse_or_are_refused(parser, raw):
    """No text from the kernel may stop the loop."""
    with suppress(KernelFormatError):
        parser(raw)


@given(name=st.binary(max_size=15).filter(lambda name: b"\0" not in name))
def test_any_name_comes_back_and_moves_no_field(name):
    stat = parse_process.parse_stat(
        b"7 (" + name + b") R 3 4 5 0 -1 4 0 0 0 0 0 0 0 0 20 0 1 0 30 0 0 0\n"
    )

    assert stat.comm.encode("utf-8", "surrogateescape") == name
    assert (stat.id.pid, stat.id.start_ticks, stat.parent_pid) == (7, 30, 3)


KIB = st.integers(0, 10**10)


@given(before=st.lists(KIB, min_size=6, max_size=6), after=st.lists(KIB, min_size=6, max_size=6))
def test_the_learned_layout_never_differs_from_the_parser(before, after, tmp_path_factory):
    """Numbers outgrow their columns between two reads, and everything behind them moves."""
    proc = FakeProc(tmp_path_factory.mktemp("m"))
    names = ("total", "free", "available", "swap_total", "swap_free", "shmem")
    path = proc.meminfo(**{**dict(zip(names, before, strict=True)), "total": before[0] + 1})
    file = KernelFile(str(path))
    meminfo = Meminfo(file)
    meminfo.read()
    proc.meminfo(**{**dict(zip(names, after, strict=True)), "total": after[0] + 1})

    memory = meminfo.read()
    file.close()

    assert memory == parse.parse_meminfo(path.read_bytes())


AREA = st.builds(
    lambda size, used, priority, zram: PricedArea(
        parse.SwapArea("/dev/x", "partition", size, min(size, used), priority), zram
    ),
    st.integers(0, 2**40),
    st.integers(0, 2**40),
    st.integers(-10, 100),
    st.none()
    | st.builds(
        parse.ZramStat,
        st.integers(0, 2**40),
        st.integers(0, 2**40),
        st.integers(0, 2**40),
        st.integers(0, 2**40),
    ),
)


@given(
    areas=st.lists(AREA, max_size=4).map(tuple),
    free=st.integers(0, 2**42),
    total=st.integers(1, 2**40),
)
def test_free_swap_is_never_worth_more_than_it_is(areas, free, total):
    assert 0 <= usable_bytes(areas, free, total) <= free
