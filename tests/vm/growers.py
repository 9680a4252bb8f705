"""Runs inside a guest: processes that grow, and another killer beside the guard.

growers.py grow MIB RATE           grow to so many MiB, so many a second, then rest
growers.py kill PID BELOW_MIB      SIGKILL to PID as soon as less than that is available
growers.py follow BELOW_MIB MIB    grow to so many MiB when less than that is available
"""

import os
import signal
import sys
from pathlib import Path

STEP = 2 << 20


def main():
    what, first, second = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    {"grow": grow, "kill": kill, "follow": follow}[what](first, second)


def grow(mib, rate):
    held = []
    for _ in range(mib // 2):
        held.append(b"x" * STEP)
        signal.sigtimedwait((), 2 / rate)
    signal.pause()


def kill(pid, below_mib):
    os.nice(-20)
    wait_below(below_mib)
    os.kill(pid, signal.SIGKILL)
    sys.stdout.write(f"another killer: SIGKILL to {pid} with {available()} MiB left\n")


def follow(below_mib, mib):
    wait_below(below_mib)
    grow(mib, 60)


def wait_below(mib):
    while available() >= mib:
        signal.sigtimedwait((), 0.002)


def available():
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable"):
            return int(line.split()[1]) >> 10
    raise SystemExit("no MemAvailable")


main()
