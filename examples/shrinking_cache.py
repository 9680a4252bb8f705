"""A cache that gives memory back before somebody takes the whole program.

python examples/shrinking_cache.py --seconds 10
"""

from __future__ import annotations

import argparse
import threading
import time
from collections import OrderedDict

from forestall import PressureEvent, PressureMonitor

KEEP_SHARE = {"normal": 1.0, "low": 0.75, "medium": 0.25, "critical": 0.0}


class ShrinkingCache:
    """The least recently used go first; how many may stay depends on the level of memory."""

    def __init__(self, entries_max: int) -> None:
        self._entries: OrderedDict[str, bytes] = OrderedDict()
        self._entries_max = entries_max
        self._allowed = entries_max
        # Handlers run in their own thread.
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str) -> bytes | None:
        """Return what is remembered, and remember that it was asked for."""
        with self._lock:
            found = self._entries.get(key)
            if found is not None:
                self._entries.move_to_end(key)
            return found

    def put(self, key: str, found: bytes) -> None:
        """Remember something, as far as memory allows."""
        with self._lock:
            self._entries[key] = found
            self._shrink()

    def on_pressure(self, event: PressureEvent) -> None:
        """Follow the level down, and up again."""
        with self._lock:
            self._allowed = int(self._entries_max * KEEP_SHARE[event.level])
            self._shrink()

    def _shrink(self) -> None:
        while len(self._entries) > self._allowed:
            self._entries.popitem(last=False)


def main() -> None:
    """Fill the cache for a while and say how large it is."""
    parser = argparse.ArgumentParser(description="A cache that shrinks under memory pressure.")
    parser.add_argument("--seconds", type=float, default=10.0)
    seconds = parser.parse_args().seconds
    cache = ShrinkingCache(entries_max=1000)
    until = time.monotonic() + seconds
    with PressureMonitor(handlers=[cache.on_pressure]) as monitor:
        number = 0
        while time.monotonic() < until:
            cache.put(str(number), bytes(1024))
            number += 1
            time.sleep(0.001)
        print(f"{number} put, {len(cache)} kept, memory is {monitor.current().level}")


if __name__ == "__main__":
    main()
