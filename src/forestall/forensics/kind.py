"""Which kind of shortage a report is about, and what in the log says so.

The signs are asked in order of how much they prove. A report that is cut short is
judged by its call trace, and with no trace by its allocation flags; the answer names
the sign, so that a reader knows what it rests on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

UNKNOWN = "memcg-or-global"

_CONSTRAINTS = {
    "CONSTRAINT_NONE": "global",
    "CONSTRAINT_MEMCG": "memcg",
    "CONSTRAINT_CPUSET": "cpuset",
    "CONSTRAINT_MEMORY_POLICY": "mempolicy",
}
_MEMCG_CALLS = re.compile(
    r"^(?:__)?(?:mem_cgroup_(?:out_of_memory|oom|do_charge)|try_charge|pagefault_memcg)"
)
_GLOBAL_CALLS = re.compile(
    r"^_*(?:alloc_pages|alloc_frozen_pages|folio_alloc|get_free_pages|page_cache_alloc)"
)
_KERNEL_THREADS = re.compile(
    r"^(?:kworker|kswapd|swapper|kthreadd|ksoftirqd|khugepaged|kcompactd|nfsd|jbd2|migration"
    r"|kdevtmpfs|loop\d|md\d|z_|txg_|xfs|btrfs|dmcrypt|irq/)"
)
_PLAIN_KERNEL = frozenset({"0xcc0", "0xd0", "0x24000c0", "0x14000c0", "0x6000c0"})
"""GFP_KERNEL and nothing else, in the encodings of different releases."""


@dataclass(slots=True, kw_only=True)
class Signs:
    """Everything in a report that bears on its kind."""

    order: int | None
    gfp_mask: str | None
    gfp_flags: str | None
    has_head: bool
    comm: str | None
    constraint: str | None
    global_oom: bool
    memcg_path: str | None
    reason: str | None
    killed: bool
    trace: tuple[str, ...]
    has_memory: bool
    has_memcg: bool
    has_table: bool
    sysrq: bool
    no_killable: bool
    went_on: bool
    panic: str | None
    oom_group: str | None


def kind_of(signs: Signs) -> tuple[str, str]:
    """Give the kind and the sign it was told by."""
    if signs.sysrq or signs.order == -1 or "moom_callback" in signs.trace:
        return "sysrq", "order or call trace"
    if signs.panic is not None and "panic_on_oom" in signs.panic:
        return "panic_on_oom", "panic message"
    memcg = _memcg_sign(signs)
    if not signs.killed and signs.constraint is None:
        stopped = _nothing_to_kill(signs)
        if stopped is not None:
            return _stopped(signs, memcg, stopped)
    return _by_scope(signs, memcg)


def _stopped(signs: Signs, memcg: str | None, sign: str) -> tuple[str, str]:
    if signs.panic is not None or (memcg is None and signs.has_memory):
        return "no-killable", sign
    if memcg is not None:
        return "memcg", memcg
    # A machine with nothing left to kill panics. This one went on, so a limit was meant.
    if signs.no_killable and signs.went_on and not signs.has_head:
        return "memcg", "nothing to kill and no panic"
    return "no-killable", sign


def _nothing_to_kill(signs: Signs) -> str | None:
    if signs.no_killable:
        return "message"
    if signs.panic is not None:
        return "panic message"
    # The compiler moves the branch that never should be taken into a part called .cold:
    # a dump called from there is the one before "no killable processes".
    for caller, callee in zip(signs.trace[1:], signs.trace, strict=False):
        if callee == "dump_header" and caller == "out_of_memory.cold":
            return "call trace"
    return None


def _memcg_sign(signs: Signs) -> str | None:
    if signs.constraint == "CONSTRAINT_MEMCG":
        return "constraint"
    if signs.memcg_path is not None or signs.oom_group is not None:
        return "limit's path"
    if signs.reason is not None and signs.reason.startswith("Memory cgroup"):
        return "kill line"
    if any(_MEMCG_CALLS.match(call) for call in signs.trace):
        return "call trace"
    return "usage lines" if signs.has_memcg and not signs.has_memory else None


def _by_scope(signs: Signs, memcg: str | None) -> tuple[str, str]:
    if signs.constraint in _CONSTRAINTS:
        return _CONSTRAINTS[signs.constraint], "constraint"
    if memcg is not None:
        return "memcg", memcg
    if signs.global_oom:
        return "global", "oom-kill line"
    if signs.reason is not None:
        return "global", "kill line"
    if signs.has_memory:
        return "global", "memory state"
    if any(_GLOBAL_CALLS.match(call) for call in signs.trace):
        return "global", "call trace"
    # A kill without its reason, or a report whose state was left out, does not say.
    if not signs.has_head or signs.has_table or signs.killed:
        return UNKNOWN, "nothing"
    return _by_flags(signs)


def _by_flags(signs: Signs) -> tuple[str, str]:
    # Only the head is there. Charging a control group asks for plain GFP_KERNEL; the
    # page allocator is asked for that alone by kernel threads, else with more flags.
    plain = signs.gfp_flags == "GFP_KERNEL" or (
        signs.gfp_flags is None and signs.gfp_mask in _PLAIN_KERNEL
    )
    thread = signs.comm is not None and _KERNEL_THREADS.match(signs.comm)
    if plain and signs.order == 0 and not thread:
        return "memcg", "allocation flags"
    return "global", "allocation flags"
