"""The key lines of a report, field by field.

Each function takes a whole line and gives what it could read, or None. A number
that touches the place where the log was cut is not read: half a number is another
number. Names are whatever the kernel put between the fixed words, up to 15 bytes,
and may hold any of those words themselves: the outermost match is the kernel's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from forestall.forensics.lines import Line

COMM_CHARS = 15

_HEAD = re.compile(r"(.{0,120}?)\s?\binvoked oom-killer", re.DOTALL)
_GFP = re.compile(r"gfp_mask=(0x[0-9a-fA-F]+)(?:\(([^()]*)\))?(?=[,\s)])")
_ORDER = re.compile(r"\border=(-?\d+)")
_NODEMASK = re.compile(r"\bnodemask=(\(null\)|[\d,-]+?)(?=,\s|\s|,order)")
_ADJ = re.compile(r"\boom_score_adj=(-?\d+)")
_OLD_ADJ = re.compile(r"\b(?:oom_adj|oomkilladj)=(-?\d+)")
_HEAD_END = re.compile(r", (?:oom_score_adj|oom_adj)=-?\d+\s*$")
_OOM_KILL_END = re.compile(r",pid=\d+,uid=\d+\s*$")
_KILL_END = re.compile(
    r"\),?(?: UID \d+,)? (?:total-vm|vsz):\d+kB(?:, (?:anon|file|shmem)-rss:\d+kB)*"
    r"(?:, UID:\d+ pgtables:\d+kB oom_score_adj:-?\d+)?\s*$"
)
_CPUSET = re.compile(r"^\s*(.{1,15}?) cpuset=(.*?),? mems_allowed=([\d,-]+)")
_CPU = re.compile(
    r"\bCPU: (\d+) (?:UID: (\d+) )?PID: (\d+) Comm: (.*?)"
    r"(?: Kdump: loaded)?(?: (?:Not tainted|Tainted:)\s?(.*))?$"
)
_OLD_CPU = re.compile(r"\bPid: (\d+), comm:\s+(.*?)(?: (?:Not tainted|Tainted:)\s?(.*))?$")
_RELEASE = re.compile(r"(?:^|\s)(\d+\.\d+\.[\w.+~-]+)(?=\s|$)")
_KILLED = re.compile(r"[Kk]illed process (\d+)(?:, UID (\d+),)? \(")
_SCORED = re.compile(r"[Kk]ill process (\d+) \((.*)\) score (\d+)(?=,? or |,|\s|$)", re.DOTALL)
_SHARING = re.compile(r"[Kk]ill process (\d+) \((.*)\) sharing same memory")
_REASON = re.compile(
    r"((?:Memory cgroup )?[Oo]ut of [Mm]emory(?: \([\w ]+\))?)\s*:?\s+[Kk]ill(?:ed)? process"
)
_NAME_END = re.compile(r"(.*)\)(?=,?\s*(?:UID[ :]|total-vm:|vsz:)|\s*,?\s*$|\.$)", re.DOTALL)
_SIZE = re.compile(r"\b(total-vm|vsz|anon-rss|file-rss|shmem-rss|pgtables):\s?(\d+) ?kB")
_UID = re.compile(r"\bUID[: ](\d+)")
_KILL_ADJ = re.compile(r"\boom_score_adj:(-?\d+)")
_REAPED = re.compile(r"oom_reaper: reaped process (\d+) \((.*)\),? now ")
_GROUP = re.compile(r"Tasks in (.*) are going to be killed due to memory\.oom\.group set")
_LIMIT_OF = re.compile(r"Task in (.*) killed as a result of limit of (.*)$")
_SUPPRESSED = re.compile(
    r"(\w+): (\d+) (?:callbacks suppressed|output lines suppressed due to ratelimiting)"
)

_SIZE_NAMES = {
    "total-vm": "total_vm_kb",
    "vsz": "total_vm_kb",
    "anon-rss": "anon_rss_kb",
    "file-rss": "file_rss_kb",
    "shmem-rss": "shmem_rss_kb",
    "pgtables": "pgtables_kb",
}


class Head(NamedTuple):
    """``X invoked oom-killer``."""

    before: str
    """All text before the words: the name, and perhaps a prefix of unknown shape."""
    comm: str | None
    gfp_mask: str | None
    gfp_flags: str | None
    order: int | None
    nodemask: str | None
    oom_score_adj: int | None
    oom_adj: int | None


class Cpu(NamedTuple):
    """The line under it: who was running, and on which kernel."""

    pid: int
    uid: int | None
    comm: str
    release: str | None


@dataclass(slots=True)
class OomKill:
    """The ``oom-kill:`` line of kernels since 5.0."""

    constraint: str | None = None
    nodemask: str | None = None
    cpuset: str | None = None
    mems_allowed: str | None = None
    global_oom: bool = False
    oom_memcg: str | None = None
    task_memcg: str | None = None
    task: str | None = None
    pid: int | None = None
    uid: int | None = None


class Killed(NamedTuple):
    """A ``Killed process`` line."""

    pid: int
    comm: str | None
    """None where the log was cut inside it, or right behind what may be its end."""
    fields: dict[str, int]
    reason: str | None


class Chosen(NamedTuple):
    """A ``Kill process … score`` line, which kernels before 5.2 print first."""

    pid: int
    comm: str
    score: int | None
    reason: str | None


def number(found: re.Match[str] | None, text: str, *, cut: bool, group: int = 1) -> int | None:
    """Read a number, unless the log was cut right behind it."""
    if found is None or (cut and found.end(group) == len(text.rstrip())):
        return None
    return int(found[group]) if len(found[group]) <= 19 else None


def read_head(line: Line) -> Head | None:
    """Read the first line of a report."""
    best: Head | None = None
    most = -1
    for text in line.readings():
        head = _head_of(text, cut=line.cut)
        worth = -1 if head is None else _count(head) * 2 + (_HEAD_END.search(text) is not None)
        if worth > most:
            best, most = head, worth
    return best


def _head_of(text: str, *, cut: bool) -> Head | None:
    found = _HEAD.search(text)
    if found is None:
        return None
    gfp = _GFP.search(text, found.end())
    order = number(_ORDER.search(text, found.end()), text, cut=cut)
    nodemask = _NODEMASK.search(text, found.end())
    before = found[1]
    return Head(
        before,
        comm_before(before),
        gfp[1] if gfp else None,
        (gfp[2] or "").replace(" ", "") or None if gfp else None,
        order,
        nodemask[1] if nodemask else None,
        number(_ADJ.search(text, found.end()), text, cut=cut),
        number(_OLD_ADJ.search(text, found.end()), text, cut=cut),
    )


def _count(values: tuple[object, ...]) -> int:
    return sum(value is not None for value in values)


def comm_before(before: str) -> str | None:
    """Take the process name from the end of the text before ``invoked``."""
    name = before.strip()
    if len(name) <= COMM_CHARS or name.startswith("\\"):
        return name or None
    # A prefix of unknown shape: the name follows its last separator, or is its last word.
    tail = re.split(r"\]:?\s|:\s|\|\s|\t|\s{2,}", name)[-1].strip()
    if 0 < len(tail) <= COMM_CHARS:
        return tail
    word = name.rsplit(None, 1)[-1]
    return word[-COMM_CHARS:] or None


def read_cpu(line: Line, comm: str | None) -> Cpu | None:
    """Read the line that gives the invoker's pid.

    Args:
        line: The line.
        comm: The invoker's name, which chooses among the ways to join a broken line.
    """
    first: Cpu | None = None
    for text in line.readings():
        cpu = _cpu_of(text)
        if cpu is not None and cpu.comm == comm:
            return cpu
        first = first or cpu
    return first


def _cpu_of(text: str) -> Cpu | None:
    found = _CPU.search(text)
    if found is not None:
        uid = int(found[2][:10]) if found[2] else None
        return Cpu(int(found[3][:10]), uid, found[4].strip(), _release(found[5]))
    found = _OLD_CPU.search(text)
    if found is not None:
        return Cpu(int(found[1][:10]), None, found[2].strip(), _release(found[3]))
    return None


def _release(rest: str | None) -> str | None:
    found = _RELEASE.search(rest) if rest else None
    return found[1] if found else None


def read_cpuset(line: Line) -> tuple[str, str, str] | None:
    """Read ``NAME cpuset=PATH mems_allowed=NODES``, printed up to 4.20."""
    best: tuple[str, str, str] | None = None
    for text in line.readings():
        found = _CPUSET.match(text)
        if found is not None and (best is None or found[2].count(" ") < best[1].count(" ")):
            best = (found[1], found[2], found[3])
    return best


def read_oom_kill(line: Line) -> OomKill | None:
    """Read the ``oom-kill:`` line, or a part of it that was printed later."""
    best: OomKill | None = None
    most = -1 << 30
    for text in line.readings():
        start = text.find("oom-kill:constraint=")
        if start < 0 and not text.lstrip().startswith(","):
            continue
        result = _oom_kill_of(text[max(start, 0) :], cut=line.cut)
        # Paths and names may hold blanks and hardly ever do: a blank is rather a broken line's.
        have = 4 * _said(result) - text.count(" ") + (_OOM_KILL_END.search(text) is not None)
        if have > most:
            best, most = result, have
    return best


def _said(result: OomKill) -> int:
    values = (result.constraint, result.nodemask, result.cpuset, result.mems_allowed)
    paths = (result.oom_memcg or result.global_oom or None, result.task_memcg, result.task)
    return _count((*values, *paths, result.pid, result.uid))


def _oom_kill_of(text: str, *, cut: bool) -> OomKill:
    result = OomKill()
    tail = None
    for tail in re.finditer(r",pid=(\d+)(?:,uid=(\d+))?", text):  # noqa: B007 - the last counts
        pass
    body = text
    if tail is not None:
        body = text[: tail.start()]
        result.pid = number(tail, text, cut=cut)
        result.uid = number(tail, text, cut=cut, group=2) if tail[2] else None
        task = _task_at(body)
        if task is not None:
            result.task = body[task + len(",task=") :].rstrip()
            body = body[:task] + ","
    found = re.match(r"oom-kill:constraint=([^,]{1,64}),", text)
    result.constraint = found[1] if found else None
    result.global_oom = ",global_oom" in body
    for name in ("nodemask", "cpuset", "mems_allowed", "oom_memcg", "task_memcg"):
        setattr(result, name, _between(body, name))
    return result


def _task_at(body: str) -> int | None:
    # The path before may hold ",task=" as well as the name may: a name has 15 bytes at most.
    starts = [found.start() for found in re.finditer(",task=", body)]
    for start in starts:
        if len(body) - start - len(",task=") <= COMM_CHARS:
            return start
    return starts[-1] if starts else None


_NEXT = r"(?:nodemask=|cpuset=|mems_allowed=|global_oom|oom_memcg=|task_memcg=|task=)"


def _between(body: str, name: str) -> str | None:
    found = re.search(rf"(?:^|,){name}=(.*?)(?=,{_NEXT}|,$)", body, re.DOTALL)
    return found[1].strip() if found else None


def read_killed(line: Line) -> Killed | None:
    """Read a ``Killed process`` line of any kernel."""
    best: Killed | None = None
    most = (0, False, False)
    for text in line.readings():
        killed = _killed_of(text, cut=line.cut)
        if killed is None:
            continue
        worth = (len(killed.fields), _KILL_END.search(text) is not None, _clean(killed.comm))
        if best is None or worth > most:
            best, most = killed, worth
    return best


def _clean(comm: str | None) -> bool:
    return comm is not None and comm == comm.strip()


def _killed_of(text: str, *, cut: bool) -> Killed | None:
    found = _KILLED.search(text)
    if found is None or len(found[1]) > 10:
        return None
    rest = text[found.end() :]
    name = _NAME_END.match(rest)
    if name is None or len(name[1]) > 64:
        # The name may be followed by words of a kernel not yet seen.
        name = re.match(r"(.{0,15})\)", rest, re.DOTALL)
        if name is None:
            return None
    tail = rest[name.end() :]
    fields = {_SIZE_NAMES[size[1]]: int(size[2][:19]) for size in _SIZE.finditer(tail)}
    uid = int(found[2]) if found[2] else number(_UID.search(tail), tail, cut=cut)
    adj = number(_KILL_ADJ.search(tail), tail, cut=cut)
    if uid is not None:
        fields["uid"] = uid
    if adj is not None:
        fields["oom_score_adj"] = adj
    comm = None if cut and not tail.strip() else name[1]
    return Killed(int(found[1]), comm, fields, reason_of(text))


def read_chosen(line: Line) -> Chosen | None:
    """Read a ``Kill process … score N or sacrifice child`` line."""
    for text in line.readings():
        found = _SCORED.search(text)
        if found is not None and len(found[1]) <= 10:
            score = number(found, text, cut=line.cut, group=3)
            return Chosen(int(found[1]), found[2], score, reason_of(text))
    return None


def read_sharing(text: str) -> tuple[int, str] | None:
    """Read the line for a process that shares the victim's memory."""
    found = _SHARING.search(text)
    return (int(found[1][:10]), found[2]) if found else None


def reason_of(text: str) -> str | None:
    """Give the words before ``Kill`` that name the kind of shortage."""
    found = _REASON.search(text)
    return found[1] if found else None


def read_reaped(text: str) -> tuple[int, str, dict[str, int]] | None:
    """Read the reaper's line."""
    found = _REAPED.search(text)
    if found is None:
        return None
    sizes = {
        _SIZE_NAMES[size[1]]: int(size[2][:19])
        for size in _SIZE.finditer(text, found.end())
        if size[1].endswith("-rss")
    }
    return int(found[1][:10]), found[2], sizes


def read_group(text: str) -> str | None:
    """Read the announcement that a whole cgroup goes."""
    found = _GROUP.search(text)
    return found[1] if found else None


def read_limit_of(line: Line) -> tuple[str, str] | None:
    """Read ``Task in A killed as a result of limit of B``, printed up to 4.20."""
    best: tuple[str, str] | None = None
    for text in line.readings():
        found = _LIMIT_OF.search(text)
        if found is None:
            continue
        paths = (found[1].strip(), found[2].strip())
        if best is None or "".join(paths).count(" ") < "".join(best).count(" "):
            best = paths
    return best


def read_suppressed(text: str) -> tuple[str, int] | None:
    """Read which function's messages were not printed, and how many."""
    found = _SUPPRESSED.search(text)
    return (found[1], int(found[2][:9])) if found else None
