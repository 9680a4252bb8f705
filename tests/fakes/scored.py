"""FakeScores: a FakeProc whose processes also have an oom_score, as some kernel would print it."""

import os

from tests.fakes.proc import GIB_KIB, PAGE_KIB, FakeProc


class FakeScores(FakeProc):
    """A machine of 16 GiB without swap, unless told otherwise."""

    def __init__(self, root, *, new_scale=True, total_kib=16 * GIB_KIB, swap_kib=0):
        super().__init__(root)
        self.new_scale = new_scale
        self.total_kib = total_kib + swap_kib
        self.meminfo(total=total_kib, swap_total=swap_kib, swap_free=swap_kib)
        self.pressure()
        self.vmstat()
        self.namespace()
        self.scored(1, comm="init", parent=0, anon_kib=8192, score=0)

    def namespace(self, inode=4026531836):
        link = self.proc / "self/ns/pid"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(f"pid:[{inode}]")

    def scored(self, pid, *, tables_kib=0, score=None, **fields):
        """Write a process; its score follows from the kernel's formula unless one is given."""
        # What is in swap is part of the private address space.
        fields.setdefault("data_kib", fields.get("anon_kib", 0) + fields.get("swap_kib", 0))
        self.process(pid, **fields)
        anon, file = fields.get("anon_kib", 0), fields.get("file_kib", 0)
        swap, adj, uid = fields.get("swap_kib", 0), fields.get("adj", 0), fields.get("uid", 1000)
        self.write(
            f"proc/{pid}/status",
            f"Name:\tp\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n"
            f"VmRSS:\t{anon + file:>8} kB\nRssAnon:\t{anon:>8} kB\nRssFile:\t{file:>8} kB\n"
            f"RssShmem:\t       0 kB\nVmPTE:\t{tables_kib:>8} kB\nVmSwap:\t{swap:>8} kB\n"
            "Threads:\t1\nCapEff:\t0000000000000000\n",
        )
        if score is None:
            score = self._printed(anon + file + swap + tables_kib, adj)
        self.write(f"proc/{pid}/oom_score", f"{score}\n")
        return self

    def _printed(self, held_kib, adj):
        total = self.total_kib // PAGE_KIB
        pages = held_kib // PAGE_KIB + adj * (total // 1000)
        if not self.new_scale:
            return max(1, pages) * 1000 // total
        if adj == -1000:
            return 0
        # C divides towards zero.
        return int((1000 + int(pages * 1000 / total)) * 2 / 3)

    def hide(self, pid):
        """Let a process's files be there, and be nobody's to read: as hidepid=1 does."""
        self._forbidden = {*getattr(self, "_forbidden", set()), f"{pid}/"}

    def open_file(self, name, flags, **where):
        if any(name.startswith(prefix) for prefix in getattr(self, "_forbidden", ())):
            raise PermissionError(1, "Operation not permitted")
        return os.open(name, flags, **where)
