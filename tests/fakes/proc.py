"""FakeProc: plain files in the kernel's formats, below a root of the test's own."""

from pathlib import Path

MEMINFO = """\
MemTotal:       {total:>8} kB
MemFree:        {free:>8} kB
MemAvailable:   {available:>8} kB
Buffers:            1760 kB
Cached:         {cached:>8} kB
SwapCached:            0 kB
Active:            54696 kB
Inactive:         112820 kB
Unevictable:       {unevictable:>8} kB
Mlocked:           14360 kB
SwapTotal:      {swap_total:>8} kB
SwapFree:       {swap_free:>8} kB
Dirty:                44 kB
AnonPages:      {anon:>8} kB
Mapped:            10732 kB
Shmem:          {shmem:>8} kB
KReclaimable:     116152 kB
Slab:             141204 kB
SReclaimable:     116152 kB
SUnreclaim:     {slab:>8} kB
KernelStack:        1396 kB
PageTables:     {page_tables:>8} kB
CommitLimit:    12342048 kB
HugePages_Total:       0
HugePages_Free:        0
Hugepagesize:       2048 kB
Hugetlb:               0 kB
"""

GIB_KIB = 1024 * 1024
PAGE_KIB = 4


class FakeProc:
    """A machine made of files; what is not written does not exist."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.proc = root / "proc"
        self.proc.mkdir(exist_ok=True)
        self.page_bytes = PAGE_KIB * 1024

    def write(self, path: str, text: str | bytes) -> Path:
        """Write a file in place, so that open descriptors see the new text."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return file

    def meminfo(self, **kib):
        values = {
            "total": 16 * GIB_KIB,
            "free": 1 * GIB_KIB,
            "available": 8 * GIB_KIB,
            "cached": 4 * GIB_KIB,
            "unevictable": 16,
            "swap_total": 0,
            "swap_free": 0,
            "anon": 2 * GIB_KIB,
            "shmem": 8788,
            "slab": 25052,
            "page_tables": 1732,
        }
        return self.write("proc/meminfo", MEMINFO.format(**(values | kib)))

    def pressure(self, some_us=0, full_us=0, path="proc/pressure/memory"):
        averages = "avg10=0.00 avg60=0.00 avg300=0.00"
        return self.write(
            path, f"some {averages} total={some_us}\nfull {averages} total={full_us}\n"
        )

    def vmstat(self, **counters):
        values = {
            "nr_free_pages": 6072972,
            "pswpin": 0,
            "pswpout": 0,
            "pgmajfault": 0,
            "workingset_refault_anon": 0,
            "workingset_refault_file": 0,
            "pgscan_direct": 0,
            "oom_kill": 0,
        }
        lines = [f"{name} {count}\n" for name, count in (values | counters).items()]
        return self.write("proc/vmstat", "".join(lines))

    def swaps(self, *areas):
        """Write /proc/swaps: (path, kind, size KiB, used KiB, priority) each."""
        head = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
        lines = [f"{p:<40}{k}\t{size}\t\t{used}\t\t{prio}\n" for p, k, size, used, prio in areas]
        return self.write("proc/swaps", head + "".join(lines))

    def mm_stat(self, name, orig, compressed, held, limit=0):
        line = f"{orig:>8} {compressed:>8} {held:>8} {limit:>8} {held:>8} 0 0 0 0\n"
        return self.write(f"sys/block/{name}/mm_stat", line)

    def arcstats(self, size, c_min):
        return self.write(
            "proc/spl/kstat/zfs/arcstats",
            "13 1 0x01 147 39984 9103911378 2154382514958\n"
            "name                            type data\n"
            "hits                            4    5\n"
            f"c_min                           4    {c_min}\n"
            f"size                            4    {size}\n",
        )

    def process(  # one keyword per field of the kernel's
        self,
        pid,
        *,
        comm="p",
        start=100,
        parent=1,
        group=None,
        session=None,
        state="S",
        flags=0x400000,
        major_faults=0,
        threads=1,
        uid=1000,
        anon_kib=0,
        file_kib=0,
        swap_kib=0,
        data_kib=None,
        cgroup="/user.slice",
        adj=0,
        cmdline="",
        exe=None,
        pending=0,
    ):
        name = comm.encode("utf-8", "surrogateescape") if isinstance(comm, str) else comm
        tail = [state, parent, group or pid, session or pid, 0, -1, flags, 0, 0, major_faults, 0]
        tail += [0, 0, 0, 0, 20, 0, threads, 0, start, 0, (anon_kib + file_kib) // PAGE_KIB, 0]
        tail += [0, 0, 0, 0, 0, pending, 0]
        numbers = " ".join(str(field) for field in tail).encode()
        self.write(f"proc/{pid}/stat", b"%d (%b) %b\n" % (pid, name, numbers))
        self.statm(pid, anon_kib=anon_kib, file_kib=file_kib, data_kib=data_kib)
        self.write(
            f"proc/{pid}/status",
            f"Name:\tp\nTgid:\t{pid}\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\nGid:\t0\t0\t0\t0\n"
            f"RssShmem:\t       0 kB\nVmSwap:\t{swap_kib:>8} kB\nThreads:\t{threads}\n"
            "CapEff:\t0000000000000000\n",
        )
        self.write(f"proc/{pid}/cgroup", f"0::{cgroup}\n")
        self.write(f"proc/{pid}/oom_score_adj", f"{adj}\n")
        self.write(f"proc/{pid}/cmdline", cmdline.replace(" ", "\0") + "\0")
        if exe:
            (self.proc / str(pid) / "exe").symlink_to(exe)
        return self

    def statm(self, pid, *, anon_kib, file_kib=0, data_kib=None, folder=None):
        data = (anon_kib if data_kib is None else data_kib) // PAGE_KIB
        resident = (anon_kib + file_kib) // PAGE_KIB
        line = f"{resident + 10} {resident} {file_kib // PAGE_KIB} 5 0 {data} 0\n"
        if resident == 0:
            line = "0 0 0 0 0 0 0\n"
        self.write(f"proc/{folder or pid}/statm", line)

    def kernel_thread(self, pid, comm="kworker/0:1"):
        self.process(pid, comm=comm, parent=2, flags=0x208040)

    def remove(self, pid):
        folder = self.proc / str(pid)
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        folder.rmdir()


class FailingRead:
    """A read that fails at the n-th call, and at that one only.

    Args:
        real: What to call otherwise.
        fails_at: Counted from one; zero never fails.
        error: What the kernel says then.
    """

    def __init__(self, real, fails_at=0, error=None):
        self.calls = 0
        self._real = real
        self._fails_at = fails_at
        self._error = error

    def __call__(self, *args, **kwargs):
        self.calls += 1
        if self.calls == self._fails_at:
            raise self._error
        return self._real(*args, **kwargs)
