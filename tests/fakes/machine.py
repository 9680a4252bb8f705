"""A machine in a folder: /proc in the kernel's formats, settings, units. Plain files only."""

from pathlib import Path

from forestall.core.model import ProcessId

TICKS = 1000


class FakeMachine:
    """Writes what the readers read; hands out what the tests compare."""

    def __init__(self, root: Path):
        self.root = root
        (root / "proc/sys/kernel/random").mkdir(parents=True)
        (root / "proc/sys/kernel/random/boot_id").write_text("first-boot\n")
        self.meminfo(total_mib=1024)

    def meminfo(self, total_mib, swap_mib=0):
        (self.root / "proc/meminfo").write_text(
            f"MemTotal:       {total_mib * 1024} kB\nMemFree:        100 kB\n"
            f"MemAvailable:   {total_mib * 512} kB\nSwapTotal:      {swap_mib * 1024} kB\n"
            f"SwapFree:       {swap_mib * 1024} kB\n"
        )

    def process(
        self,
        pid,
        name,
        *,
        parent=1,
        adj=0,
        uid=0,
        cgroup="/",
        exe=None,
        cmdline=None,
        held_mib=1,
        start=None,
    ):
        folder = self.root / "proc" / str(pid)
        folder.mkdir(parents=True, exist_ok=True)
        start = TICKS + pid if start is None else start
        tail = f"S {parent} {pid} {pid} 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 {start} 9999 10 0"
        (folder / "stat").write_text(f"{pid} ({name}) {tail}\n")
        (folder / "oom_score_adj").write_text(f"{adj}\n")
        (folder / "status").write_text(
            f"Name:\t{name}\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\nVmRSS:\t{held_mib * 1024} kB\n"
            "VmPTE:\t0 kB\nVmSwap:\t0 kB\nRssShmem:\t0 kB\nThreads:\t1\n"
            "CapEff:\t000001ffffffffff\n"
        )
        (folder / "cgroup").write_text(f"0::{cgroup}\n")
        (folder / "cmdline").write_bytes((cmdline or name).encode().replace(b" ", b"\0") + b"\0")
        link = folder / "exe"
        link.unlink(missing_ok=True)
        link.symlink_to(exe or self.program(name))
        return ProcessId(pid, start)

    def program(self, name, folder="usr/sbin", mode=0o755):
        """Put a program that only its owner can write."""
        path = self.root / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
        path.chmod(mode)
        return path

    def end(self, pid):
        folder = self.root / "proc" / str(pid)
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()

    def adj(self, pid):
        return int((self.root / "proc" / str(pid) / "oom_score_adj").read_text())

    def set_adj(self, pid, adj):
        (self.root / "proc" / str(pid) / "oom_score_adj").write_text(f"{adj}\n")

    def settings(self, text):
        path = self.root / "etc/forestall/forestall.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
