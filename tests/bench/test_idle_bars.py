"""Processor time of the guard: idle, on watch, and parked at its limit; and its lateness.

Time and runs come from /proc/PID/schedstat, ours and the peers' over the same seconds. There
is no terminal. Dry run throughout. The waits here are what is measured, not a pause.
"""

import os
import subprocess
import sys
from contextlib import ExitStack

import pytest

from forestall.control.client import Client
from forestall.core.model import Stage
from forestall.core.rules import DEFAULT_RULES, Limit, Trigger, available
from forestall.core.units import GIB, MIB, SECOND
from forestall.core.value import replace
from tests.bench import support
from tests.bench.support import times

pytestmark = pytest.mark.bench

IDLE_S, WATCH_S, PARKED_S = 60, 20, 20
IDLE_SHARE_MAX, WATCH_SHARE_MAX, PARKED_SHARE_MAX = 0.0005, 0.0015, 0.01
SHARE_SLACK = 3.0
"""On cold caches and beside busy neighbours the same work costs up to three times as much, and
memory that others take is looked into: the guard's surveys are in its share."""
OF_EARLYOOM_MAX = 10.0
"""Per wake-up, surveys included; both are as cold."""
RUNS_PER_S_MAX = {"idle": 4, "on watch": 50, "parked at the limit": 150}
"""Beside other work, which makes memory fall; of themselves 1, 10 and 33."""
LATE_S = 8
LATE_MS_MAX = 100
LATE_SLACK = 4
"""Of the lateness of a bare sleeper of nice -20. Both are the worst of some 400 wake-ups,
so each is one chance preemption: 10 ms beside 13, 110 beside 87 and 278 beside 87 were seen."""


def shares(processes, seconds):
    """Measure (share of one processor, runs per second) of each over the same time."""
    before = [(support.cpu_ns(p.pid), support.runs_of(p.pid)) for p in processes]
    support.wait_for_end(processes[0], seconds)
    after = [(support.cpu_ns(p.pid), support.runs_of(p.pid)) for p in processes]
    return [
        ((new[0] - old[0]) / 1e9 / seconds, (new[1] - old[1]) / seconds)
        for old, new in zip(before, after, strict=True)
    ]


def trigger(name, stage, bytes_):
    return Trigger(name, stage, (available(Limit(size_bytes=bytes_)),))


def measure(board, folder, bar, rules, *, seconds, limit, below_kib=1):
    with ExitStack() as stack:
        ours = stack.enter_context(support.guard(rules, folder))
        relief = support.children_of(ours.pid)
        earlyoom, nohang = support.peer("earlyoom"), support.peer("nohang")
        everybody = [ours]
        if earlyoom:
            everybody.append(stack.enter_context(support.earlyoom(earlyoom, below_kib=below_kib)))
        if nohang:
            everybody.append(stack.enter_context(support.nohang(nohang, folder)))
        # The first seconds are those of a start: surveys, and pages touched for the first time.
        support.wait_for_end(ours, 3)
        relief_before = sum(support.cpu_ns(pid) for pid in relief)
        found = shares(everybody, seconds)
        with Client(str(folder / "control.sock")) as client:
            told = client.call("GetStatus")["status"]["guard"]
        relief_share = (sum(support.cpu_ns(p) for p in relief) - relief_before) / 1e9 / seconds
    share, runs = found[0]
    ratio = share / runs / (found[1][0] / found[1][1]) if earlyoom else None
    texts = [f"{100 * s:.3f} % ({r:.1f}/s)" for s, r in found]
    board.show(
        f"processor, {bar} (wake-ups); {told['surveys']} surveys in {seconds + 3} s",
        texts[0],
        earlyoom=texts[1] if earlyoom else "",
        nohang=texts[-1] if nohang else "",
        ratio=f"{times(ratio)} a wake-up" if ratio else "",
        limit=f"{100 * limit:.2f} %",
        met=share <= limit,
    )
    assert relief_share < limit, "relief has nothing to do and does it"
    assert runs <= RUNS_PER_S_MAX[bar]
    assert share <= limit * SHARE_SLACK
    assert ratio is None or ratio <= OF_EARLYOOM_MAX


def test_an_idle_guard_is_not_noticed(board, tmp_path):
    measure(board, tmp_path, "idle", DEFAULT_RULES, seconds=IDLE_S, limit=IDLE_SHARE_MAX)


def test_a_guard_on_watch_is_hardly_noticed(board, tmp_path):
    """A warning is within reach, an end is not: one GiB and a half above it."""
    now_bytes = support.available_bytes()
    acting_bytes = now_bytes - 3 * GIB // 2
    rules = replace(
        DEFAULT_RULES,
        triggers=(
            trigger("acting", Stage.KILL, acting_bytes),
            trigger("watching", Stage.WARN, now_bytes + GIB),
        ),
        warn_repeat_ns=3600 * SECOND,
    )

    measure(
        *(board, tmp_path, "on watch", rules),
        seconds=WATCH_S,
        limit=WATCH_SHARE_MAX,
        below_kib=acting_bytes // 1024,
    )


def test_a_guard_parked_at_its_limit_leaves_the_machine_to_others(board, tmp_path):
    """400 MiB above an end, and staying there."""
    acting_bytes = support.available_bytes() - 400 * MIB
    rules = replace(
        DEFAULT_RULES,
        triggers=(
            trigger("acting", Stage.KILL, acting_bytes),
            trigger("watching", Stage.WARN, acting_bytes + GIB),
        ),
        warn_repeat_ns=3600 * SECOND,
    )

    measure(
        *(board, tmp_path, "parked at the limit", rules),
        seconds=PARKED_S,
        limit=PARKED_SHARE_MAX,
        below_kib=acting_bytes // 1024,
    )


def test_a_decision_is_hardly_later_than_the_scheduler(board, tmp_path):
    """Ticks of 25 ms beside more burners than processors; the hog in a guest is the arena's.

    A bare sleeper of nice -20 tells what the scheduler alone makes of such a load.
    """
    acting_bytes = support.available_bytes() - 400 * MIB
    rules = replace(DEFAULT_RULES, triggers=(trigger("acting", Stage.KILL, acting_bytes),))
    burn = [sys.executable, "-I", "-c", "while True: pass"]
    with support.guard(rules, tmp_path):
        burners = [subprocess.Popen(burn) for _ in range((os.cpu_count() or 1) + 1)]
        try:
            bare_ms = support.drive("beat", LATE_S, tmp_path)["late_ns_max"] / 1e6
        finally:
            for burner in burners:
                burner.kill()
                burner.wait()
        with Client(str(tmp_path / "control.sock")) as client:
            told = client.call("GetStatus")["status"]["guard"]
    late_ms = told["late_ns_max"] / 1e6

    board.show(
        f"latest of {told['samples']} decisions beside burners (a bare sleeper)",
        f"{late_ms:.1f} ms ({bare_ms:.1f} ms)",
        limit=f"{LATE_MS_MAX} ms",
        met=late_ms <= LATE_MS_MAX,
    )
    assert late_ms <= max(LATE_MS_MAX, LATE_SLACK * bare_ms)
