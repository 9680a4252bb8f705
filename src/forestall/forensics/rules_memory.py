"""Rules about where the memory was: zones, nodes, blocks, swap, cache, tmpfs, slabs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from forestall.forensics.causes import Cause, Finding
from forestall.forensics.measure import pages_kb, room_kb, size, vm_kb
from forestall.forensics.model import Evidence, Incident, Zone

_CRASH_RAM_KB = 1024 * 1024
_CRASH_UPTIME_S = 120.0
_SLAB_SHARE = 0.3


def slab(incident: Incident, _log: Sequence[Incident]) -> Finding | None:
    """Slabs that cannot be reclaimed hold much."""
    room = room_kb(incident)
    held = vm_kb(incident, "slab_unreclaimable")
    if incident.kind == "memcg":
        held = incident.memcg_stat_kb.get("slab_unreclaimable")
    if room is not None and incident.kind != "memcg":
        # A crash kernel finds half of its memory reserved before it counts.
        room -= pages_kb(incident, incident.reserved_pages) or 0
    if room is None or held is None or held < room * _SLAB_SHARE:
        return None
    top = max(incident.slabs, key=lambda one: one.total_kb, default=None)
    named = f" The largest cache is {top.name} with {size(top.total_kb)}." if top else ""
    return Finding(
        rule="slab",
        cause=Cause.KERNEL_MEMORY,
        sentence=f"Unreclaimable slab held {size(held)} of {size(room)}.{named}",
        confidence=0.85,
        advice="Watch the cache that grows and suspect the module or file system it belongs to.",
        command="slabtop -o -s c | head -20",
        evidence=incident.evidence("counters", "slabs"),
    )


def tmpfs(incident: Incident, _log: Sequence[Incident]) -> Finding | None:
    """Shared memory and tmpfs hold much, and no process's end need free it."""
    room = room_kb(incident)
    held = vm_kb(incident, "shmem")
    if incident.kind == "memcg":
        held = incident.memcg_stat_kb.get("shmem")
    if room is None or held is None or held < room * 0.25:
        return None
    return Finding(
        rule="tmpfs",
        cause=Cause.NO_LIMIT,
        sentence=f"tmpfs and shared memory held {size(held)} of {size(room)}; ending processes"
        " need not free it.",
        confidence=0.8,
        advice="Find the files, delete what is not needed, and mount tmpfs with a size.",
        command="df -h -t tmpfs; ipcs -m",
        evidence=incident.evidence("counters", "memcg_stats"),
    )


def dirty_cache(incident: Incident, _log: Sequence[Incident]) -> Finding | None:
    """Much of the memory waits to be written to a slow disk."""
    room = room_kb(incident)
    waiting = vm_kb(incident, "dirty", "writeback")
    if incident.kind == "memcg":
        stat = incident.memcg_stat_kb
        waiting = stat.get("file_dirty", stat.get("dirty", 0)) + stat.get(
            "file_writeback", stat.get("writeback", 0)
        )
    share = 0.3 if incident.kind == "memcg" else 0.15
    if room is None or waiting is None or waiting < room * share:
        return None
    return Finding(
        rule="dirty-cache",
        cause=Cause.CACHES,
        sentence=f"{size(waiting)} of {size(room)} were written pages waiting for a disk: the"
        " kernel could not drop them in time.",
        confidence=0.8,
        advice="Write less at once or to a faster disk; lower vm.dirty_bytes; give the group"
        " room for its page cache.",
        command="sysctl vm.dirty_bytes vm.dirty_background_bytes; cat /proc/pressure/io",
        evidence=incident.evidence("counters", "memcg_stats", "memcg_usage"),
    )


def fragmentation(incident: Incident, _log: Sequence[Incident]) -> Finding | None:
    """Enough is free, but not in one piece."""
    order = incident.order
    if order is None or order <= 0 or incident.kind == "memcg" or incident.page_size_kb is None:
        return None
    wanted = incident.page_size_kb << min(order, 20)
    usable = [zone for zone in incident.zones if zone.blocks and zone.name != "DMA"]
    enough = [z for z in usable if z.free_kb is not None and z.min_kb and z.free_kb > z.min_kb]
    lacking = [z for z in enough if not any(n for kb, n, _ in z.blocks if kb >= wanted)]
    if usable and not enough:
        return None
    sure = bool(lacking)
    return Finding(
        rule="fragmentation",
        cause=Cause.FRAGMENTATION,
        sentence=f"One piece of {size(wanted)} was wanted (order {order})"
        + (
            f"; {lacking[0].title} had {size(lacking[0].free_kb)} free, none in such a piece."
            if sure
            else "; the free memory need not have been too little, only too scattered."
        ),
        confidence=0.8 if sure else 0.5,
        advice="Raise vm.min_free_kbytes, see whether compaction is built in and works, and"
        " which driver wants such large pieces.",
        command="cat /proc/buddyinfo; sysctl vm.min_free_kbytes vm.compaction_proactiveness",
        evidence=(*incident.evidence("head"), *(mark for z in lacking[:2] for mark in _zone(z))),
    )


def lowmem(incident: Incident, _log: Sequence[Incident]) -> Finding | None:
    """A 32-bit machine is out of the low memory the kernel needs, high memory is free."""
    high = [zone for zone in incident.zones if zone.name == "HighMem"]
    low = [zone for zone in incident.zones if zone.name in {"Normal", "DMA"} and _short(zone)]
    free_high = [z for z in high if z.free_kb and z.free_kb > 4 * (z.high_kb or z.min_kb or 0)]
    if not free_high or not low:
        return None
    return Finding(
        rule="lowmem",
        cause=Cause.HARDWARE,
        sentence=f"Low memory ran out ({low[0].title} {size(low[0].free_kb)} free, below its"
        f" minimum of {size(low[0].min_kb)}) while HighMem had {size(free_high[0].free_kb)} free:"
        " the 32-bit kernel can use only the low part for itself and for file buffers.",
        confidence=0.9,
        advice="Use a 64-bit kernel; until then less page cache on block devices, or a kernel"
        " with another split (VMSPLIT).",
        command="uname -m; grep -E 'LowTotal|LowFree|HighFree' /proc/meminfo",
        evidence=(*_zone(low[0]), *_zone(free_high[0])),
    )


def one_node(incident: Incident, _log: Sequence[Incident]) -> Finding | None:
    """The request was confined to some nodes; elsewhere there is memory."""
    if incident.kind not in {"mempolicy", "cpuset"}:
        return None
    free = vm_kb(incident, "free")
    where = incident.nodemask if incident.kind == "mempolicy" else incident.mems_allowed
    by = "its memory policy" if incident.kind == "mempolicy" else f"the cpuset {incident.cpuset}"
    movable = [z for z in incident.zones if z.name == "Movable" and not _short(z)]
    note = (
        f" {movable[0].title} had {size(movable[0].free_kb)} free, but memory the kernel needs"
        " for itself cannot come from a movable zone: no kill could help."
        if movable and incident.gfp_flags and "MOVABLE" not in incident.gfp_flags
        else ""
    )
    elsewhere = f" The machine as a whole had {size(free)} free." if free is not None else ""
    return Finding(
        rule="one-node",
        cause=Cause.HARDWARE,
        sentence=f"The request could be served from node {where} only, by {by}.{elsewhere}{note}",
        confidence=0.95,
        advice="Give it more nodes, or a policy that prefers instead of binds.",
        command="numactl --hardware; numastat -m",
        evidence=incident.evidence("oom_kill", "counters", "zone1"),
    )


def cma(incident: Incident, _log: Sequence[Incident]) -> Finding | None:
    """What is free is reserved for devices."""
    zones = [z for z in incident.zones if z.free_kb and z.free_cma_kb is not None]
    held = [z for z in zones if z.free_kb and (z.free_cma_kb or 0) > z.free_kb * 0.7]
    short = [z for z in held if z.min_kb and (z.free_kb or 0) - (z.free_cma_kb or 0) < z.min_kb]
    if not short:
        return None
    zone = short[0]
    return Finding(
        rule="cma",
        cause=Cause.HARDWARE,
        sentence=f"{zone.title} had {size(zone.free_kb)} free, of which {size(zone.free_cma_kb)}"
        " is reserved for devices (CMA) and cannot serve the kernel's own requests.",
        confidence=0.85,
        advice="Make the reservation smaller (cma= on the kernel's command line).",
        command="grep -i cma /proc/meminfo; cat /proc/cmdline",
        evidence=_zone(zone),
    )


def swap(incident: Incident, _log: Sequence[Incident]) -> Finding | None:
    """Swap is full, or there is none."""
    total, free = incident.swap_total_kb, incident.swap_free_kb
    if total is None or incident.kind in {"memcg", "sysrq"}:
        return None
    if total == 0:
        sentence = "There was no swap: memory that nobody touches could not make room."
        return _swap(incident, "no-swap", sentence, Cause.HARDWARE, 0.3)
    if free is not None and free < total * 0.03:
        sentence = f"Swap was full: {size(free)} of {size(total)} free."
        return _swap(incident, "swap-full", sentence, Cause.HARDWARE, 0.4)
    return None


def _swap(incident: Incident, rule: str, sentence: str, cause: Cause, confidence: float) -> Finding:
    return Finding(
        rule=rule,
        cause=cause,
        sentence=sentence,
        confidence=confidence,
        advice="Swap does not replace memory; some of it (zram, or a file) buys the time in which"
        " a warning can be heard.",
        command="swapon --show; zramctl",
        evidence=incident.evidence("swap"),
    )


def no_shortage(incident: Incident, _log: Sequence[Incident]) -> Finding | None:
    """Plenty was free: something other than the machine's memory ran out."""
    room, free = room_kb(incident), vm_kb(incident, "free")
    if incident.kind != "global" or room is None or free is None or free < room * 0.25:
        return None
    if incident.order is not None and incident.order > 0:
        return None
    if any(_short(zone) or _mostly_cma(zone) for zone in incident.zones if zone.name != "DMA"):
        return None
    fault = incident.gfp_mask in {"0x0", "0x0000"}
    path = " The report came from a page fault that failed (gfp_mask 0)." if fault else ""
    return Finding(
        rule="no-shortage",
        cause=Cause.KERNEL_MEMORY,
        sentence=f"The machine had {size(free)} of {size(room)} free.{path} A limit on kernel"
        " memory inside a control group is the usual reason.",
        confidence=0.8 if fault else 0.5,
        advice="Look for a kernel-memory limit (memory.kmem.limit_in_bytes) and take it away;"
        " newer kernels no longer have it.",
        command="find /sys/fs/cgroup -name memory.kmem.limit_in_bytes -exec grep -Hv 9223 {} +",
        evidence=incident.evidence("head", "counters"),
    )


def _mostly_cma(zone: Zone) -> bool:
    return bool(zone.free_kb and (zone.free_cma_kb or 0) > zone.free_kb * 0.7)


def crash_kernel(incident: Incident, _log: Sequence[Incident]) -> Finding | None:
    """The kernel that writes a crash dump ran out of its reservation."""
    ram, uptime = incident.total_ram_kb, incident.uptime_s
    early = uptime is not None and uptime < _CRASH_UPTIME_S
    if ram is None or ram > _CRASH_RAM_KB or not early or incident.kind != "no-killable":
        return None
    if any(task.tgid is not None for task in incident.tasks) and len(incident.tasks) > _MANY_TASKS:
        return None
    return Finding(
        rule="crash-kernel",
        cause=Cause.HARDWARE,
        sentence=f"A kernel with {size(ram)} ran out {uptime:.0f} s after its start, before there"
        " were processes: this looks like the crash-dump kernel and too small a reservation.",
        confidence=0.8,
        advice="Reserve more with crashkernel=, or load fewer drivers in the dump kernel.",
        command="cat /proc/cmdline; kdumpctl estimate",
        evidence=incident.evidence("head", "ram", "panic"),
    )


_MANY_TASKS = 20


def _short(zone: Zone) -> bool:
    return zone.free_kb is not None and zone.min_kb is not None and zone.free_kb < zone.min_kb


def _zone(zone: Zone) -> tuple[Evidence, ...]:
    if zone.line is None:
        return ()
    text = f"{zone.title} free:{zone.free_kb}kB min:{zone.min_kb}kB"
    return (Evidence(line=zone.line, text=text),)


MEMORY_RULES: tuple[Callable[[Incident, Sequence[Incident]], Finding | None], ...] = (
    crash_kernel,
    no_shortage,
    one_node,
    lowmem,
    cma,
    fragmentation,
    slab,
    tmpfs,
    dirty_cache,
    swap,
)
