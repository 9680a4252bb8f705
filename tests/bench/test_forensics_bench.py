"""How fast a log without incidents is read, and that memory stays bounded."""

from __future__ import annotations

import random
import time
import tracemalloc

import pytest

from forestall.forensics import Scanner

pytestmark = pytest.mark.bench

MEGABYTES_PER_SECOND_MIN = 50
_WORDS = [
    "systemd",
    "session",
    "opened",
    "for",
    "user",
    "root",
    "by",
    "uid",
    "info",
    "network",
    "link",
    "up",
    "state",
    "change",
    "request",
    "GET",
    "POST",
    "200",
    "nginx",
    "started",
    "service",
    "unit",
    "failed",
]


def _quiet_log(lines: int) -> bytes:
    chance = random.Random(1)
    return "".join(
        f"Nov 22 17:{n // 60 % 60:02d}:{n % 60:02d} host {chance.choice(_WORDS)}[{n % 9999}]: "
        + " ".join(chance.choice(_WORDS) for _ in range(chance.randrange(4, 16)))
        + "\n"
        for n in range(lines)
    ).encode()


def _read(data: bytes) -> int:
    scanner = Scanner()
    found = 0
    for start in range(0, len(data), 128 * 1024):
        found += sum(1 for _ in scanner.feed(data[start : start + 128 * 1024]))
    return found + sum(1 for _ in scanner.finish())


def test_a_log_without_incidents_is_read_at_disk_speed():
    data = _quiet_log(200_000)
    best = 1e9
    for _round in range(5):
        start = time.process_time()
        assert _read(data) == 0
        best = min(best, time.process_time() - start)
    speed = len(data) / 1e6 / best
    print(f"quiet log: {speed:.0f} MB/s")  # noqa: T201 - a bench prints what it measured

    assert speed >= MEGABYTES_PER_SECOND_MIN


def test_memory_does_not_grow_with_the_log():
    data = _quiet_log(100_000)
    tracemalloc.start()
    try:
        _read(data)
        _current, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 4 * 1024 * 1024
