"""What is wrong with the adjustments on this machine: pure, from subjects to findings.

Four things go wrong in the field: everything is immune and the kernel panics;
a leaker is protected and the machine goes down with it (systemd#41372); a value
meant for a service is inherited by what it starts, -900 as well as +200
(systemd#38492); a protected unit outgrows everybody, and its neighbours die for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from forestall.core.units import MIB, human_bytes
from forestall.core.wards import ADJUST_LEAST, is_old_scale, of_oom_adj

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from forestall.admin.subjects import Subject

USUALLY_IMMUNE = frozenset({"sshd", "systemd-udevd", "(udev-worker)", "auditd", "forestall"})
"""They make themselves so, and are small."""
IMMUNE_LARGE_SHARE = 0.01
STRONG = -500
"""From here down half of memory must be held before the kernel looks at a process."""
LEAKER_SHARE = 0.05
LEAST_BYTES = 32 * MIB
LISTED_MAX = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing to look at."""

    kind: str
    """immune, leaker, inherited, neighbour or old-scale."""
    what: str
    remedy: str
    pids: tuple[int, ...] = ()


def audit(subjects: Sequence[Subject], total_bytes: int) -> list[Finding]:
    """Return what is wrong, the worst kind first.

    Args:
        total_bytes: Memory and swap: what a thousand is a thousand of.
    """
    mortal = [subject for subject in subjects if subject.id.pid != 1]
    return [
        *_immune(mortal, total_bytes),
        *_leakers(mortal, total_bytes),
        *_neighbours(mortal, total_bytes),
        *_inherited(subjects),
        *_old_scale(mortal),
    ]


def badness(subject: Subject, total_bytes: int) -> int | None:
    """Return what the kernel compares, in bytes; None for who is never chosen or not known.

    Source: mm/oom_kill.c oom_badness().
    """
    if subject.adjust == ADJUST_LEAST or subject.held_bytes is None or subject.id.pid == 1:
        return None
    return subject.held_bytes + subject.adjust * (total_bytes // 1000)


def _immune(subjects: Sequence[Subject], total_bytes: int) -> Iterator[Finding]:
    immune = [subject for subject in subjects if subject.adjust == ADJUST_LEAST]
    odd = [
        subject
        for subject in immune
        if subject.name not in USUALLY_IMMUNE
        or (subject.held_bytes or 0) >= total_bytes * IMMUNE_LARGE_SHARE
    ]
    if len(immune) == len(subjects) and immune:
        yield Finding(
            kind="immune",
            what="every process is at -1000: out of memory, the kernel panics",
            remedy="find who set it (often a service that starts everything else) and raise it",
            pids=_pids(immune),
        )
    elif odd:
        held = sum(subject.held_bytes or 0 for subject in odd)
        yield Finding(
            kind="immune",
            what=f"{_names(odd)} can never be ended by the kernel (-1000) and hold "
            f"{human_bytes(held)}",
            remedy="-900 protects as well and leaves a way out; unit --oom-score-adjust sets it",
            pids=_pids(odd),
        )


def _leakers(subjects: Sequence[Subject], total_bytes: int) -> Iterator[Finding]:
    least = max(LEAST_BYTES, int(total_bytes * LEAKER_SHARE))
    for subject in _largest(subjects):
        held = subject.held_bytes or 0
        if subject.adjust <= STRONG and held >= least:
            yield Finding(
                kind="leaker",
                what=f"{_who(subject)} holds {human_bytes(held)} at {subject.adjust}: if it "
                "leaks, everybody else goes first",
                remedy=f"give {subject.unit or 'its unit'} a limit: forestall unit --memory-max",
                pids=(subject.id.pid,),
            )


def _neighbours(subjects: Sequence[Subject], total_bytes: int) -> Iterator[Finding]:
    """Find who would die today although, or because, somebody's adjustment says otherwise."""
    scored = [(score, s) for s in subjects if (score := badness(s, total_bytes)) is not None]
    if not scored:
        return
    _, first = max(scored, key=lambda pair: (pair[0], pair[1].id.pid))
    held = first.held_bytes or 0
    larger = [s for s in _largest(subjects) if (s.held_bytes or 0) > max(held, LEAST_BYTES)]
    shielded = [subject for subject in larger if subject.adjust < 0]
    if shielded:
        units = sorted({subject.unit or subject.name for subject in shielded})
        yield Finding(
            kind="neighbour",
            what=f"the kernel would end {_who(first)} with {human_bytes(held)}, because "
            f"{', '.join(units[:LISTED_MAX])} is protected and holds "
            f"{human_bytes(shielded[0].held_bytes or 0)}",
            remedy="a memory limit on the protected unit makes it pay for itself",
            pids=(first.id.pid, *_pids(shielded)),
        )
    elif larger and first.adjust > 0:
        yield Finding(
            kind="neighbour",
            what=f"the kernel would end {_who(first)} with {human_bytes(held)} for its "
            f"+{first.adjust}, before {_who(larger[0])} with "
            f"{human_bytes(larger[0].held_bytes or 0)}",
            remedy="right if that was meant; user services get +200 from systemd unasked",
            pids=(first.id.pid, larger[0].id.pid),
        )


def _inherited(subjects: Sequence[Subject]) -> Iterator[Finding]:
    """Find values that came down from a parent to a program in another unit."""
    by_pid = {subject.id.pid: subject for subject in subjects}
    heirs: dict[tuple[int, int], list[Subject]] = {}
    for subject in subjects:
        parent = by_pid.get(subject.parent_pid)
        if parent is None or subject.adjust == 0 or parent.adjust != subject.adjust:
            continue
        if subject.name == parent.name or subject.name in USUALLY_IMMUNE:
            continue
        # Within a service its own helpers may well share its fate; a session is somebody's work.
        if subject.unit == parent.unit and subject.unit.endswith(".service") and parent.system_unit:
            continue
        heirs.setdefault((parent.id.pid, subject.adjust), []).append(subject)
    for (pid, adjust), group in sorted(heirs.items()):
        parent = by_pid[pid]
        yield Finding(
            kind="inherited",
            what=f"{_names(group)} got {adjust} from {_who(parent)}",
            remedy="protect follow gives such children back what they should have"
            if adjust < 0
            else "raise the limit of patience where it starts: forestall unit --oom-score-adjust 0",
            pids=_pids(group),
        )


def _old_scale(subjects: Sequence[Subject]) -> Iterator[Finding]:
    for subject in subjects:
        if is_old_scale(subject.adjust):
            yield Finding(
                kind="old-scale",
                what=f"{_who(subject)} has {subject.adjust}, a number of the old oom_adj: "
                f"{abs(subject.adjust) / 10:.1f} % of memory, next to nothing",
                remedy=f"what was meant is {of_oom_adj(subject.adjust)}",
                pids=(subject.id.pid,),
            )


def _largest(subjects: Sequence[Subject]) -> list[Subject]:
    return sorted(subjects, key=lambda s: (-(s.held_bytes or 0), s.id.pid))


def _who(subject: Subject) -> str:
    return f"{subject.name} ({subject.id.pid})"


def _names(subjects: Sequence[Subject]) -> str:
    shown = ", ".join(_who(subject) for subject in subjects[:LISTED_MAX])
    more = len(subjects) - LISTED_MAX
    return shown + (f" and {more} more" if more > 0 else "")


def _pids(subjects: Sequence[Subject]) -> tuple[int, ...]:
    return tuple(subject.id.pid for subject in subjects)
