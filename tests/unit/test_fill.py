"""How fast memory can be used up here, estimated from above."""

from pathlib import Path

import pytest

from forestall.core.pace import FILL_BYTES_PER_S, pause_ns
from forestall.core.policy import step
from forestall.core.rules import DEFAULT_RULES
from forestall.core.state import begin
from forestall.core.units import GIB, MIB, MS, SECOND
from forestall.kernel import libc
from forestall.kernel.fill import LEAST_PER_S, MARGIN, TRY_BYTES, fastest_per_s
from tests.fakes.builders import sampled


@pytest.mark.parametrize(
    ("cpus", "took_ns", "expected"),
    [
        # An emulated guest: 200 MiB/s a processor.
        (2, TRY_BYTES * SECOND // (200 * MIB), 2 * MARGIN * 200 * MIB),
        # A board with one slow processor is still given a gigabyte a second.
        (1, TRY_BYTES * SECOND // (100 * MIB), LEAST_PER_S),
        # A workstation.
        (16, TRY_BYTES * SECOND // (4 * GIB), FILL_BYTES_PER_S),
        (64, 0, FILL_BYTES_PER_S),
        (2, None, FILL_BYTES_PER_S),
    ],
)
def test_a_slow_machine_is_known_for_one_and_a_fast_one_is_bounded(cpus, took_ns, expected):
    found = fastest_per_s(FILL_BYTES_PER_S, cpus=cpus, populate_ns=lambda: took_ns)

    assert found == pytest.approx(expected, rel=1e-6)


def test_this_kernel_can_be_asked_and_gets_its_memory_back():
    """Or says EINVAL, before 5.14; then the fastest is taken for granted."""
    before = _mapped()
    found = fastest_per_s(FILL_BYTES_PER_S)

    assert LEAST_PER_S <= found <= FILL_BYTES_PER_S
    assert _mapped() - before < TRY_BYTES


def test_what_the_kernel_refuses_is_errno_and_no_exception():
    address = libc.map_memory(MIB)

    assert libc.map_memory(1 << 62) is None
    assert libc.advise(address, MIB, 12345) != 0
    assert libc.unmap_memory(address, MIB) == 0


def test_where_memory_cannot_go_faster_the_guard_looks_less_often():
    """100 MiB above the limit: 6 ms for the fastest machine, 64 for one sixteenth as fast."""
    total = 1 * GIB
    state = begin(DEFAULT_RULES)
    for tick, share in enumerate((0.30, 0.20, 0.13)):
        event = sampled(1000 * SECOND + tick * 100 * MS, share, total=total)
        state, _ = step(state, event, DEFAULT_RULES)
    fast = pause_ns(state, DEFAULT_RULES)
    slow = pause_ns(state, DEFAULT_RULES, FILL_BYTES_PER_S // 8)

    assert fast < 10 * MS
    assert slow == pytest.approx(8 * fast, rel=0.01)


def _mapped():
    return int(Path("/proc/self/statm").read_bytes().split()[0]) * 4096
