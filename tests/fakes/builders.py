"""Builders of values, with defaults that are nobody's business in most tests."""

from forestall.core.events import Sampled, Surveyed
from forestall.core.model import (
    Activity,
    Holdings,
    Leaving,
    Memory,
    Pressure,
    ProcessId,
    Role,
    Row,
    Standing,
)
from forestall.core.units import GIB, SECOND


def memory(available_share, *, total=16 * GIB, swap=0, swap_free=None, usable=None, shmem=0):
    free = swap if swap_free is None else swap_free
    return Memory(
        total_bytes=total,
        available_bytes=int(total * available_share),
        swap_total_bytes=swap,
        swap_free_bytes=free,
        swap_usable_bytes=free if usable is None else usable,
        shmem_bytes=shmem,
    )


def sampled(now_ns, available_share, *, some_us=0, full_us=0, activity=None, **sizes):
    pressure = Pressure(some_us, full_us)
    return Sampled(now_ns, memory(available_share, **sizes), pressure, activity)


def activity(
    *, oom_kill=0, swap_in=0, swap_out=0, refault_anon=0, refault_file=0, faults=0, io_full_us=None
):
    return Activity(oom_kill, swap_in, swap_out, refault_anon, refault_file, faults, 0, io_full_us)


def row(pid, anon, *, comm=None, parent=1, start=None, age_s=3600, **fields):
    defaults = {
        "group_id": pid,
        "session_id": pid,
        "comm": comm or f"p{pid}",
        "state": "S",
        "uid": 1000,
        "oom_score_adj": 0,
        "swap_bytes": 0,
        "shared_bytes": 0,
        "writing_bytes": 0,
        "major_faults": 0,
        "standing": Standing.NORMAL,
        "rule": "",
        "role": Role.NONE,
        "cgroup": "",
    }
    return Row(
        id=ProcessId(pid, pid * 100 if start is None else start),
        parent_pid=parent,
        anon_bytes=int(anon),
        age_ns=int(age_s * SECOND),
        **(defaults | fields),
    )


def surveyed(now_ns, *rows, cost_ns=1_000_000, holdings=None, leaving=()):
    return Surveyed(now_ns, now_ns - cost_ns, tuple(rows), holdings, leaving=tuple(leaving))


def leaving(pid, frees, *, comm=None, start=None):
    process = ProcessId(pid, pid * 100 if start is None else start)
    return Leaving(process, comm or f"p{pid}", int(frees))


def holdings(*, anon=0, file=0, shmem=0, slab=0, tables=0, hugetlb=0, zram=0):
    return Holdings(anon, file, shmem, slab, tables, hugetlb, 0, zram)
