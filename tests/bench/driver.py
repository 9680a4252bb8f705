"""Times one part of the guard in a process of its own: ``python -I -S -E driver.py SRC WHAT N``.

The interpreter is bare, as the guard's is, and nothing but the guard is imported, so what is
measured here is what runs. Answers go to standard output, one ``name value`` a line.
"""

import gc
import os
import resource
import select
import sys
import time

sys.path.insert(0, sys.argv[1])

from forestall.core.pace import Rest
from forestall.core.rules import DEFAULT_RULES, Options
from forestall.core.standing import Matcher
from forestall.core.units import MS, SECOND
from forestall.effects import protect
from forestall.guard.daemon import Guard
from forestall.guard.selftest import rehearse_end
from forestall.kernel.clock import now_ns
from forestall.kernel.processes import ProcessTable, identify
from forestall.kernel.sampler import Sampler


def tell(name, number):
    sys.stdout.write(f"{name} {number}\n")


def cpu_per_call_ns(call, times):
    began_ns = time.process_time_ns()
    for _ in range(times):
        call()
    return (time.process_time_ns() - began_ns) // times


def reads(times):
    """One sample: memory alone, with pressure, and with vmstat."""
    sampler = Sampler()
    sampler.sample(now_ns(), with_activity=True)
    meminfo = sampler._meminfo
    tell("memory_ns", cpu_per_call_ns(meminfo.read, times))
    tell(
        "pressure_ns", cpu_per_call_ns(lambda: sampler.sample(now_ns(), with_activity=False), times)
    )
    tell("activity_ns", cpu_per_call_ns(lambda: sampler.sample(now_ns(), with_activity=True), 2000))


def prepared(folder):
    """A guard that has started and warmed up, and has not begun to loop."""
    options = Options(
        dry_run=True, relief=False, record_dir=folder, socket_path=f"{folder}/control.sock"
    )
    guard = Guard(DEFAULT_RULES, options, foreground=False)
    guard._rehearse()
    guard._open_socket()
    guard._arm()
    guard._warm_up()
    guard._harden()
    return guard


def turns(times):
    """A whole turn of the loop: poll, sample, step, record, clients; nothing is due but that."""
    guard = prepared(sys.argv[4])

    def turn():
        guard._loop.rouse()
        guard._once(now_ns())

    for _ in range(200):
        turn()
    tell("turn_ns", cpu_per_call_ns(turn, times))
    tell("look_ns", cpu_per_call_ns(look_of(guard), times))
    tell("late_ns_max", guard._loop.late_ns_max)


def look_of(guard):
    """What runs between two sleeps while nothing moves: poll, and a look that reads no number."""
    sampler, loop, wakeups = guard._sampler, guard._loop, guard._wakeups
    state = loop.state
    least_bytes = state.memory.available_bytes // 2
    rest = Rest(now_ns() + 3600 * SECOND, least_bytes, 0, state.trail.points[-1].some_us)

    def look():
        loop._rest = rest
        wakeups.wait(0)
        loop.still(now_ns(), 0)

    assert sampler.unmoved(rest), "memory moved by half, or somebody waits for it"
    return look


def survey(times):
    """A survey as it is while memory is short: the process table known, nothing warm."""
    table = ProcessTable(
        matcher=Matcher(DEFAULT_RULES.victim_rules),
        own_pid=os.getpid(),
        page_bytes=os.sysconf("SC_PAGE_SIZE"),
        clk_tck=os.sysconf("SC_CLK_TCK"),
    )
    gc.disable()
    tell("first_ns", cpu_per_call_ns(lambda: table.survey(now_ns), 1))
    tell("best_ns", min(cpu_per_call_ns(lambda: table.survey(now_ns), 1) for _ in range(times)))
    tell("rows", len(table.survey(now_ns).rows))


def faults(times):
    """Page faults of ticks, surveys and the kill path, after the calm of a few minutes.

    The heap takes its shape with the first surveys: what the ring still remembers of one lives
    beside the next. The faults of that time are told too, under "early".
    """
    guard = prepared(sys.argv[4])
    early = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        guard._loop.feed(guard._survey(False))
        for _ in range(times // 10):
            guard._once(now_ns())
    tell("early_minor", resource.getrusage(resource.RUSAGE_SELF).ru_minflt - early)
    tell("locked", int("memory is not locked" not in " ".join(guard._lacks)))
    for name, call, count in (
        ("tick", lambda: guard._once(now_ns()), times),
        ("survey", lambda: guard._survey(False), 20),
        ("end", lambda: rehearse_end(identify, now_ns()), 20),
    ):
        before = resource.getrusage(resource.RUSAGE_SELF)
        for _ in range(count):
            call()
        after = resource.getrusage(resource.RUSAGE_SELF)
        tell(f"{name}_minor", after.ru_minflt - before.ru_minflt)
        tell(f"{name}_major", after.ru_majflt - before.ru_majflt)


def beat(seconds):
    """A sleeper with ticks like the guard's that goes before everybody: how late it wakes."""
    protect.raise_priority(-20)
    poll = select.poll()
    late_ns = 0
    end_ns = now_ns() + seconds * SECOND
    while now_ns() < end_ns:
        planned_ns = now_ns() + 25 * MS
        poll.poll(25)
        late_ns = max(late_ns, now_ns() - planned_ns)
    tell("late_ns_max", late_ns)


if __name__ == "__main__":
    {"reads": reads, "turns": turns, "survey": survey, "faults": faults, "beat": beat}[sys.argv[2]](
        int(sys.argv[3])
    )
