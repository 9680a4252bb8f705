"""Runs nohang's own code with its clock taken over.

Usage: ``python3 nohang_probe.py SCRIPT CONFIG WHAT N``.

The first sleep ends the start. ``ticks``: N more sleeps return at once, and the processor time
between them is what its loop costs. ``scan``: its find_victim is called N times.
No signal leaves this process: os.kill does nothing, on top of thresholds out of reach.
"""

import os
import sys
import time
import warnings
from pathlib import Path

script, config, what, number = sys.argv[1:]
number = int(number)
slept_ns = []


def answer(ns):
    sys.stdout.write(f"\nprobe {ns}\n")
    sys.stdout.flush()
    os._exit(0)


def hook(_seconds):
    if what == "scan":
        find_victim = sys._getframe(1).f_globals["find_victim"]
        best = None
        for _ in range(number):
            before_ns = time.process_time_ns()
            find_victim(False)
            took_ns = time.process_time_ns() - before_ns
            best = took_ns if best is None else min(best, took_ns)
        answer(best)
    slept_ns.append(time.process_time_ns())
    if len(slept_ns) > number:
        answer((slept_ns[-1] - slept_ns[0]) // number)


warnings.simplefilter("ignore")
time.sleep = hook
os.kill = lambda _pid, _signal: None
sys.argv = [script, "--monitor", "-c", config]
exec(compile(Path(script).read_text(), script, "exec"), {"__name__": "__main__"})
