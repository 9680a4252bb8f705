"""A tick's readings: how memory stands, and how much time is lost to it.

Rule: everything is opened at the start, and a sample only re-reads. What a
kernel lacks (PSI, swap, zram, ZFS) costs nothing. Memory that cannot be read is
an error; pressure and activity that cannot be read are unknown, and counted.
"""

from __future__ import annotations

import os

from forestall.core.events import Sampled
from forestall.core.model import Activity, Holdings, Memory, Pressure
from forestall.core.value import TYPE_CHECKING, build, replace
from forestall.kernel.confinement import find_confinement
from forestall.kernel.errors import KernelFormatError
from forestall.kernel.files import KernelFile, try_open
from forestall.kernel.meminfo import AVAILABLE, SWAP_FREE, Meminfo
from forestall.kernel.parse import parse_arcstats, parse_holdings, parse_pressure, parse_vmstat
from forestall.kernel.swap import SwapReader, ratio_of

if TYPE_CHECKING:
    from forestall.core.pace import Rest
    from forestall.kernel.files import Pread
    from forestall.kernel.meminfo import Floor

PRESSURE_BYTES = 256
"""Two lines of at most 100 bytes."""
VMSTAT_BYTES = 16 * 1024
VMSTAT_LAST = b"\noom_kill "
"""Stands behind all other counters that are asked for, on every kernel (mm/vmstat.c)."""


class Sampler:
    """Reads one sample after another.

    Cost: 9 µs for memory and pressure, 27 µs more with activity (Python 3.11, Linux 6.18).

    Args:
        root: Where /proc and /sys are; another one in tests.
        pread: Replaced in tests that let the n-th read fail.

    Raises: OSError without /proc/meminfo; KernelFormatError without MemAvailable in it.
    """

    def __init__(self, root: str = "/", *, pread: Pread = os.pread) -> None:
        base = root.rstrip("/")
        self._file = KernelFile(f"{base}/proc/meminfo", pread=pread)
        self._meminfo = Meminfo(self._file)
        self._confinement = find_confinement(base, pread=pread)
        self._pressure = self._open_pressure(base, pread)
        self._vmstat = try_open(f"{base}/proc/vmstat", pread=pread)
        self._arcstats = try_open(f"{base}/proc/spl/kstat/zfs/arcstats", pread=pread)
        self._io_pressure = try_open(f"{base}/proc/pressure/io", pread=pread)
        self._swap = SwapReader(base, pread=pread)
        self._swap_total_bytes = -1
        self._pressure_raw = b""
        self._pressure_known: Pressure | None = None
        self._rest: Rest | None = None
        self._floors: tuple[Floor, ...] = ()
        """How the lines of meminfo read that ``_rest`` lets pass; empty: it takes a sample."""
        self._priced_otherwise = False
        self.pressure_errors = 0
        self.activity_errors = 0
        self.arc_errors = 0
        # A first reading learns the layout, and refuses a kernel we cannot serve.
        self._meminfo.read()

    def sample(self, now_ns: int, with_activity: bool) -> Sampled:  # noqa: FBT001 - a port
        """Read how memory stands.

        Args:
            now_ns: The moment to stamp the sample with.
            with_activity: Read /proc/vmstat too; it costs more than all else together.

        Raises: OSError; KernelFormatError.
        """
        memory = self._meminfo.read()
        if memory.swap_total_bytes or self._swap_total_bytes > 0:
            memory = self._priced(memory, now_ns)
        if self._arcstats is not None:
            memory = self._with_arc(memory, self._arcstats)
        if self._confinement is not None:
            memory = self._confinement.narrow(memory)
        pressure = None if self._pressure is None else self._read_pressure(self._pressure)
        activity = self._read_activity() if with_activity else None
        return build(Sampled, (now_ns, memory, pressure, activity))

    def unmoved(self, rest: Rest) -> bool:
        """Tell, without reading a number, that a sample would show nothing new.

        Exact when it says so. Where it cannot tell (a container, ZFS, zram, a text that moved,
        an error) it says no, and a sample finds out.
        Cost: two thirds of a sample, on cold caches half.
        """
        if rest is not self._rest:
            self._rest = rest
            self._floors = self._floors_of(rest)
        if not self._floors:
            return False
        try:
            if not self._meminfo.stays_above(self._floors):
                return False
            pressure = self._pressure
            if pressure is None:
                return True
            return pressure.pread(pressure.fd, PRESSURE_BYTES, 0) == self._pressure_raw
        except OSError:
            return False

    def holdings(self) -> Holdings:
        """Read where memory is when processes do not explain it.

        Raises: OSError; KernelFormatError.
        """
        self._swap.refresh_prices()
        return parse_holdings(self._file.read(), zram_bytes=self._swap.zram_bytes)

    def describe(self) -> dict[str, object]:
        """Say what was found, for status and doctor."""
        confinement = self._confinement
        return {
            "pressure": self._pressure.path if self._pressure else None,
            "vmstat": self._vmstat is not None,
            "zfs": self._arcstats is not None,
            "container_limit": confinement.folder if confinement else None,
            "cgroup_version": confinement.version if confinement else None,
            "swap": [
                {
                    "path": priced.area.path,
                    "kind": "zram" if priced.zram else priced.area.kind,
                    "size_bytes": priced.area.size_bytes,
                    "priority": priced.area.priority,
                    "ratio": ratio_of(priced.zram) if priced.zram else None,
                }
                for priced in self._swap.areas
            ],
            "errors": {
                "pressure": self.pressure_errors,
                "activity": self.activity_errors,
                "arc": self.arc_errors,
                "swap": self._swap.errors,
            },
        }

    def close(self) -> None:
        """Close every descriptor."""
        for part in (
            self._file,
            self._pressure,
            self._vmstat,
            self._arcstats,
            self._io_pressure,
            self._swap,
            self._confinement,
        ):
            if part is not None:
                part.close()

    def _floors_of(self, rest: Rest) -> tuple[Floor, ...]:
        known = self._pressure_known.some_us if self._pressure_known is not None else None
        adjusted = self._arcstats is not None or self._confinement is not None
        if adjusted or self._priced_otherwise or known != rest.some_us:
            return ()
        wanted = [(AVAILABLE, rest.available_bytes)]
        if self._swap_total_bytes > 0:
            wanted.append((SWAP_FREE, rest.swap_bytes))
        found = [self._meminfo.floor(name, least_bytes) for name, least_bytes in wanted]
        floors = tuple(floor for floor in found if floor is not None)
        return floors if len(floors) == len(wanted) else ()

    def _open_pressure(self, base: str, pread: Pread) -> KernelFile | None:
        # Inside a container its own pressure counts: the host's tells of strangers.
        confinement = self._confinement
        paths = [f"{confinement.folder}/memory.pressure"] if confinement else []
        for path in (*paths, f"{base}/proc/pressure/memory"):
            file = try_open(path, pread=pread)
            if file is None:
                continue
            try:
                # With PSI switched off, opening or reading gives EOPNOTSUPP, or nothing comes.
                if parse_pressure(file.head(PRESSURE_BYTES)) is not None:
                    return file
            except (OSError, KernelFormatError):
                pass
            file.close()
        return None

    def _priced(self, memory: Memory, now_ns: int) -> Memory:
        swap = self._swap
        total_bytes = memory.swap_total_bytes
        if swap.stale(now_ns, total_bytes):
            swap.refresh(now_ns, total_bytes)
        self._swap_total_bytes = total_bytes
        usable_bytes = swap.price(memory.swap_free_bytes, memory.total_bytes)
        self._priced_otherwise = usable_bytes != memory.swap_usable_bytes
        if not self._priced_otherwise:
            return memory
        return replace(memory, swap_usable_bytes=usable_bytes)

    def _with_arc(self, memory: Memory, file: KernelFile) -> Memory:
        # The cache gives way when memory is asked for, down to its minimum; the kernel counts
        # it as used because ZFS keeps it outside the page cache.
        try:
            arc = parse_arcstats(file.read())
        except (OSError, KernelFormatError):
            self.arc_errors += 1
            return memory
        spare_bytes = max(0, arc.size_bytes - arc.min_bytes)
        available_bytes = min(memory.total_bytes, memory.available_bytes + spare_bytes)
        return replace(memory, available_bytes=available_bytes)

    def _read_pressure(self, file: KernelFile) -> Pressure | None:
        try:
            raw = file.pread(file.fd, PRESSURE_BYTES, 0)
            if raw != self._pressure_raw:
                self._pressure_known = parse_pressure(raw)
                self._pressure_raw = raw
        except (OSError, KernelFormatError):
            # Memory is still known: to pass that on is better than to be blind.
            self.pressure_errors += 1
            return None
        # In calm the text is the same from tick to tick.
        return self._pressure_known

    def _read_activity(self) -> Activity | None:
        if self._vmstat is None:
            return None
        try:
            raw = self._vmstat.head(VMSTAT_BYTES)
            # To ask for the end would have the kernel format all of it once more.
            if VMSTAT_LAST not in raw:
                raw = self._vmstat.read()
            activity = parse_vmstat(raw)
        except (OSError, KernelFormatError):
            self.activity_errors += 1
            return None
        return replace(activity, io_full_us=self._read_io())

    def _read_io(self) -> int | None:
        if self._io_pressure is None:
            return None
        try:
            pressure = parse_pressure(self._io_pressure.head(PRESSURE_BYTES))
        except (OSError, KernelFormatError):
            self.pressure_errors += 1
            return None
        return pressure.full_us if pressure is not None else None
