"""The memory state in a report: counters, zones, totals, slabs, cgroup usage.

First value wins: what a report says twice it says first about itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from forestall.forensics.model import Slab, Zone

UNLIMITED_KB = 1 << 50
"""Counters without a limit print 2^63 bytes rounded to pages; nothing real is that large."""

_MAX_COUNTERS = 256
_MAX_ZONES = 4096
_MAX_SLABS = 2048

_COUNTERS = re.compile(
    r"^\s*(?:[aA]ctive_anon|active_file|unevictable|slab_reclaimable|slab|mapped"
    r"|sec_pagetables|kernel_misc_reclaimable|free|free_cma|free_pcp):\d+(?:\s|$)"
)
_COUNTER = re.compile(r"\b([A-Za-z_]+):(\d+)(?![\dkK])")
_ZONE = re.compile(r"^\s*(?:Node (\d+) )?([A-Z]\w{2,15}) free:(\d+)kB(.*)$")
_ZONE_KB = re.compile(r"\b(boost|min|low|high|present|managed|free_cma):(\d+)kB")
_NODE = re.compile(r"^\s*Node (\d+) active_anon:\d+kB")
_BUDDY = re.compile(r"^\s*(?:Node (\d+) )?([A-Z]\w{2,15}): (\d+\*\d+kB.*)$")
_BLOCK = re.compile(r"(\d+)\*(\d+)kB(?: \(([A-Z]+)\))?")
_PAGES = (
    (re.compile(r"^\s*(\d+) pages (?:of )?RAM\s*$"), "ram_pages"),
    (re.compile(r"^\s*(\d+) pages HighMem(?:/MovableOnly)?\s*$"), "highmem_pages"),
    (re.compile(r"^\s*(\d+) pages cma reserved\s*$"), "cma_pages"),
    (re.compile(r"^\s*(\d+) (?:pages reserved|reserved pages)\s*$"), "reserved_pages"),
)
_SWAP = re.compile(r"^\s*(Free|Total) swap\s*[=:]\s*(\d+)\s?kB")
_USAGE = re.compile(
    r"^\s*(memory\+swap|memory|swap|kmem): usage (\d+)kB, limit (\d+)kB(?:, failcnt (\d+))?"
)
_STATS_FOR = re.compile(r"^\s*Memory cgroup stats(?: for (.*?))?:(?:\s(.*))?$")
_STAT_V1 = re.compile(r"\b([a-z_]+):(\d+)KB")
_STAT_V2 = re.compile(r"^\s*([a-z][a-z_0-9]+) (\d+)\s*$")
_SLAB = re.compile(r"^\s*(\S.{0,63}?)\s+(\d+)KB\s+(\d+)KB\s*$")
_USAGE_NAMES = {"memory": "memcg", "memory+swap": "memsw", "swap": "swap", "kmem": "kmem"}
_STAT_BYTES = frozenset(
    [
        "anon",
        "file",
        "kernel",
        "kernel_stack",
        "pagetables",
        "sec_pagetables",
        "percpu",
        "sock",
        "vmalloc",
        "shmem",
        "zswap",
        "zswapped",
        "file_mapped",
        "file_dirty",
        "file_writeback",
        "swapcached",
        "anon_thp",
        "file_thp",
        "shmem_thp",
        "inactive_anon",
        "active_anon",
        "inactive_file",
        "active_file",
        "unevictable",
        "slab_reclaimable",
        "slab_unreclaimable",
        "slab",
    ]
)


@dataclass(slots=True)
class State:
    """What was read so far of one report's memory state."""

    numbers: dict[str, int] = field(default_factory=dict)
    vm_pages: dict[str, int] = field(default_factory=dict)
    zones: dict[tuple[int | None, str], Zone] = field(default_factory=dict)
    nodes: set[int] = field(default_factory=set)
    slabs: list[Slab] = field(default_factory=list)
    memcg_stat_kb: dict[str, int] = field(default_factory=dict)
    stats_for: str | None = None
    block_kb: int | None = None
    """The smallest block of a buddy list, which is the page size."""
    in_stats: bool = False
    in_slabs: bool = False

    @property
    def has_memory(self) -> bool:
        """Whether any of the machine's memory state was seen."""
        return bool(self.vm_pages or self.zones or self.nodes or "ram_pages" in self.numbers)

    @property
    def has_memcg(self) -> bool:
        """Whether a control group's usage or counters were seen."""
        return "memcg_usage_kb" in self.numbers or self.stats_for is not None


def read_state(state: State, text: str, line: int) -> str | None:
    """Take one line into the state; name what it was, or None if it is not of the state."""
    for reader in _READERS:
        name = reader(state, text, line)
        if name is not None:
            return name
    return None


def _read_counters(state: State, text: str, _line: int) -> str | None:
    if _COUNTERS.match(text) is None:
        return None
    state.in_stats = False
    for found in _COUNTER.finditer(text):
        if len(state.vm_pages) >= _MAX_COUNTERS:
            break
        state.vm_pages.setdefault(found[1].lower(), int(found[2][:19]))
    return "counters"


def _read_zone(state: State, text: str, line: int) -> str | None:
    found = _ZONE.match(text)
    if found is None:
        node = _NODE.match(text)
        if node is not None:
            state.nodes.add(int(node[1][:9]))
            return "node"
        return None
    if len(state.zones) >= _MAX_ZONES:
        return "zone"
    sizes = {name: int(size[:19]) for name, size in _ZONE_KB.findall(found[4])}
    zone = _zone(state, found[1], found[2])
    if zone.free_kb is None:
        state.zones[zone.node, zone.name] = replace(
            zone,
            free_kb=int(found[3][:19]),
            min_kb=sizes.get("min"),
            low_kb=sizes.get("low"),
            high_kb=sizes.get("high"),
            managed_kb=sizes.get("managed"),
            present_kb=sizes.get("present"),
            free_cma_kb=sizes.get("free_cma"),
            line=line,
        )
    return "zone"


def _zone(state: State, node: str | None, name: str) -> Zone:
    key = (int(node[:9]) if node else None, name)
    return state.zones.get(key) or Zone(node=key[0], name=name)


def _read_buddy(state: State, text: str, line: int) -> str | None:
    found = _BUDDY.match(text)
    if found is None:
        return None
    blocks = tuple((int(b[1][:9]), int(b[0][:12]), b[2]) for b in _BLOCK.findall(found[3]))
    zone = _zone(state, found[1], found[2])
    if not zone.blocks and len(state.zones) < _MAX_ZONES:
        state.zones[zone.node, zone.name] = replace(zone, blocks=blocks, line=zone.line or line)
    if blocks and state.block_kb is None:
        state.block_kb = blocks[0][0]
    return "buddy"


def _read_totals(state: State, text: str, _line: int) -> str | None:
    if " swap" in text:
        found = _SWAP.match(text)
        if found is not None:
            name = "swap_free_kb" if found[1] == "Free" else "swap_total_kb"
            state.numbers.setdefault(name, int(found[2][:19]))
            return "swap"
    if "pages" not in text:
        return None
    for pattern, name in _PAGES:
        found = pattern.match(text)
        if found is not None:
            state.numbers.setdefault(name, int(found[1][:19]))
            return name
    return "totals" if re.match(r"^\s*\d+ (?:total pagecache )?pages\b", text) else None


def _read_usage(state: State, text: str, _line: int) -> str | None:
    found = _USAGE.match(text)
    if found is None:
        return None
    name = _USAGE_NAMES[found[1]]
    state.numbers.setdefault(f"{name}_usage_kb", int(found[2][:19]))
    limit = int(found[3][:19])
    if limit < UNLIMITED_KB:
        state.numbers.setdefault(f"{name}_limit_kb", limit)
    if name == "memcg" and found[4]:
        state.numbers.setdefault("memcg_failcnt", int(found[4][:19]))
    return f"{name}_usage"


def _read_stats(state: State, text: str, _line: int) -> str | None:
    found = _STATS_FOR.match(text)
    if found is not None:
        state.in_stats = True
        first = state.stats_for is None
        state.stats_for = state.stats_for or found[1] or ""
        if first and found[2]:
            for name, size in _STAT_V1.findall(found[2])[:_MAX_COUNTERS]:
                state.memcg_stat_kb.setdefault(name, int(size[:19]))
        return "memcg_stats"
    if not state.in_stats:
        return None
    row = _STAT_V2.match(text)
    if row is None:
        return None
    if row[1] in _STAT_BYTES:
        state.memcg_stat_kb.setdefault(row[1], int(row[2][:19]) // 1024)
    return "memcg_stat"


def _read_slabs(state: State, text: str, _line: int) -> str | None:
    if "Unreclaimable slab info" in text:
        state.in_slabs = True
        return "slabs"
    if not state.in_slabs:
        return None
    found = _SLAB.match(text)
    if found is not None and len(state.slabs) < _MAX_SLABS:
        slab = Slab(name=found[1], used_kb=int(found[2][:12]), total_kb=int(found[3][:12]))
        state.slabs.append(slab)
        return "slab"
    return None


def _read_rest(_state: State, text: str, _line: int) -> str | None:
    if re.match(
        r"^\s*(?:Mem-[iI]nfo|lowmem_reserve\[|Swap cache|Node \d+ (?:hugepages|\w+ per-cpu))", text
    ):
        return "memory"
    return None


_READERS = (
    _read_counters,
    _read_zone,
    _read_buddy,
    _read_totals,
    _read_usage,
    _read_stats,
    _read_slabs,
    _read_rest,
)
