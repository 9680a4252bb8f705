"""What is mapped, and how far a disk is behind: any bytes, and never an exception."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forestall.kernel.diskstats import device_of, in_flight
from forestall.kernel.maps import Mapping, mappings_of

LINE = b"7f1000000000-7f1000100000 r-xp 00002000 fd:01 131  /usr/lib/a b.so\n"
DISKS = b"""\
   8 0 sda 9 0 72 5 3 0 24 2 3 7 7
   8 2 sda2 9 0 72 5 3 0 24 2 1 7 7
   8 16 sdb 9 0 72 5 3 0 24 2 0 7 7
 259 1 nvme0n1 9 0 72 5 3 0 24 2 41 7 7
 259 3 nvme0n1p2 9 0 72 5 3 0 24 2 2 7 7
 259 0 nvme0n10 9 0 72 5 3 0 24 2 0 7 7
   7 0 loop0 1
"""


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
    assert in_flight(raw, None) >= 0
    assert in_flight(DISKS + raw, (8, 2)) >= 3
    assert device_of(raw, "sda") is None


@pytest.mark.parametrize(
    ("device", "count"),
    [
        ((8, 0), 3),  # the whole disk
        ((8, 2), 3),  # a part of it
        ((8, 16), 0),
        ((259, 3), 41),
        ((259, 0), 0),  # nvme0n10 is not a part of nvme0n1
        ((7, 0), 41),  # its line is cut short: the busiest
        ((0, 40), 41),  # a file system without a disk's number
        (None, 41),
    ],
)
def test_a_part_of_a_disk_has_the_queue_of_the_whole(device, count):
    assert in_flight(DISKS, device) == count


def test_a_disk_is_found_by_its_name():
    assert device_of(DISKS, "sda2") == (8, 2)
    assert device_of(DISKS, "swapfile") is None
