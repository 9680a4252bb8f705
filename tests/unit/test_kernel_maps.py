"""What is mapped, and how far a disk is behind: any bytes, and never an exception."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forestall.kernel.diskstats import most_in_flight
from forestall.kernel.maps import Mapping, mappings_of

LINE = b"7f1000000000-7f1000100000 r-xp 00002000 fd:01 131  /usr/lib/a b.so\n"


def test_a_line_is_read():
    assert list(mappings_of(LINE)) == [Mapping(0x7F1000000000, 1 << 20, "r-xp", (0xFD, 1), 131)]


@pytest.mark.parametrize(
    "line",
    [
        b"7ffd00200000-7ffd00202000 r-xp 00000000 00:00 0 [vdso]",
        b"7ffd00202000-7ffd00200000 r-xp 00000000 00:00 0",
        b"7ffd00200000 r-xp 00000000 00:00 0",
        b"7ffd00200000-7ffd00202000 r-xp 00000000 0000 0",
        b"7ffd00200000-7ffd00202000 r-xp 00000000 00:00 x",
        b"7ffd00200000-7ffd00202000 r-xp",
        b"",
    ],
)
def test_what_makes_no_sense_is_left_out_and_the_next_line_is_read(line):
    assert len(list(mappings_of(line + b"\n" + LINE))) == 1


@given(st.binary(max_size=200))
def test_any_bytes_are_read(raw):
    assert all(one.size_bytes > 0 for one in mappings_of(LINE + raw))
    assert most_in_flight(raw) >= 0


def test_the_busiest_disk_counts():
    lines = (
        b" 254 0 vda 9 0 72 5 3 0 24 2 3 7 7\n 254 16 vdb 9 0 72 5 3 0 24 2 41 7 7\n 7 0 loop0 1\n"
    )

    assert most_in_flight(lines) == 41
