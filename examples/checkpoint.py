"""A data script that saves its state when memory gets short, and goes on from there next time.

python examples/checkpoint.py sums.json --seconds 10
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from pathlib import Path

from forestall import PressureEvent, PressureMonitor

STOP_SECONDS = 10.0
"""With less time than this left, saving comes before one more step."""


class Job:
    """Sums up numbers; the state is small, the work in between might not be."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.next_number = 0
        self.total = 0
        self.save_now = threading.Event()
        self.stop_now = threading.Event()
        if path.exists():
            state = json.loads(path.read_text())
            self.next_number, self.total = state["next_number"], state["total"]

    def step(self) -> None:
        """Do one piece of the work."""
        self.total += self.next_number
        self.next_number += 1

    def save(self) -> None:
        """Write the state; the old one stays until the new one is whole."""
        fresh = self._path.with_suffix(".part")
        fresh.write_text(json.dumps({"next_number": self.next_number, "total": self.total}))
        fresh.replace(self._path)
        self.save_now.clear()

    def on_pressure(self, event: PressureEvent) -> None:
        """Ask for a checkpoint from the medium level on; stop when time runs out.

        The work itself is not touched here: a handler runs in its own thread.
        """
        if event.level in {"medium", "critical"}:
            self.save_now.set()
        if event.level == "critical" and (event.time_left_s or STOP_SECONDS + 1) < STOP_SECONDS:
            self.stop_now.set()


def main() -> int:
    """Work until the time is over, or memory is."""
    parser = argparse.ArgumentParser(description="A script that checkpoints under pressure.")
    parser.add_argument("state", type=Path)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    job = Job(options.state)
    until = time.monotonic() + options.seconds
    with PressureMonitor(handlers=[job.on_pressure]):
        while time.monotonic() < until and not job.stop_now.is_set():
            job.step()
            if job.save_now.is_set():
                job.save()
    job.save()
    print(f"{job.next_number} numbers, sum {job.total}; saved to {options.state}")
    return 75 if job.stop_now.is_set() else 0  # EX_TEMPFAIL: run me again


if __name__ == "__main__":
    sys.exit(main())
