"""What protect would change: pure, from subjects and claims to a plan that can describe itself.

Rule: a protection never weakens and an exposure never shelters: whoever already
has less (or more) than the table gives keeps it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from forestall.admin.claims import Claim, Claims
    from forestall.admin.subjects import Subject
    from forestall.core.model import ProcessId

PROTECT, EXPOSE = "protect", "expose"
"""The two halves of the second seed's menu, as ``--only`` takes them."""
HEIRS_SHOWN_MAX = 5
ANCESTRY_MAX = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One oom_score_adj to be written."""

    id: ProcessId
    name: str
    old: int
    new: int
    label: str
    """The ward or the rule that asks for it."""
    unit: str = ""
    children: tuple[str, ...] = ()
    """Who its children are now: its next ones begin with the new value."""
    explained: str = ""

    def describe(self) -> str:
        """Say it in a line."""
        return f"{self.name} ({self.id.pid}): {self.old} -> {self.new}, {self.label}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A process that is left alone although its name asks for a change."""

    id: ProcessId
    name: str
    label: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What would be changed, and what not."""

    changes: tuple[Change, ...]
    held: tuple[Held, ...]
    already: int
    """How many have what they should have, or more of it."""

    def to_plain(self) -> dict[str, Any]:
        """Return plain data for scripts."""
        return {
            "changes": [_plain(change) for change in self.changes],
            "held": [_plain(held) for held in self.held],
            "already": self.already,
        }


def make_plan(
    subjects: Sequence[Subject], claims: Claims, *, only: Sequence[str] = (), heirs: bool = False
) -> Plan:
    """Compare what processes have with what they should have.

    Args:
        only: ``protect``, ``expose``, or labels and names; empty means all.
        heirs: Also change those whose children are other people's programs.
    """
    by_pid = {subject.id.pid: subject for subject in subjects}
    children: dict[int, list[str]] = {}
    for subject in subjects:
        children.setdefault(subject.parent_pid, []).append(subject.name)
    changes, held, already = [], [], 0
    for subject in subjects:
        claim = claims.of(subject, by_pid.get(subject.parent_pid))
        if claim is None or not _is_wanted(claim, subject, only):
            continue
        if has_enough(subject.adjust, claim.adjust):
            already += 1
            continue
        why = claim.unproven or ("" if heirs else _inheritance(claim))
        if why:
            held.append(Held(id=subject.id, name=subject.name, label=claim.label, why=why))
        else:
            names = sorted(set(children.get(subject.id.pid, ())))[:HEIRS_SHOWN_MAX]
            changes.append(change_of(subject, claim, tuple(names)))
    return Plan(changes=tuple(changes), held=tuple(held), already=already)


def change_of(subject: Subject, claim: Claim, children: tuple[str, ...] = ()) -> Change:
    """Make the change that a claim asks for."""
    return Change(
        id=subject.id,
        name=subject.name,
        old=subject.adjust,
        new=claim.adjust,
        label=claim.label,
        unit=subject.unit,
        children=children,
        explained=claim.explained,
    )


def has_enough(held: int, wanted: int) -> bool:
    """Tell whether a value is the wanted one, or further in its direction."""
    return held <= wanted if wanted < 0 else held >= wanted


def ancestors(pid: int, parents: Mapping[int, int]) -> list[int]:
    """List the line above a process, the nearest first."""
    line: list[int] = []
    while (pid := parents.get(pid, 0)) > 0 and pid not in line and len(line) < ANCESTRY_MAX:
        line.append(pid)
    return line


def _inheritance(claim: Claim) -> str:
    if claim.adjust < 0 and claim.starts_others:
        return "what it starts would inherit this; protect follow takes that back (or --heirs)"
    return ""


def _is_wanted(claim: Claim, subject: Subject, only: Sequence[str]) -> bool:
    half = PROTECT if claim.adjust < 0 else EXPOSE
    return not only or bool({half, claim.label, subject.name}.intersection(only))


def _plain(row: Change | Held) -> dict[str, Any]:
    plain = asdict(row)
    pid, start_ticks = plain.pop("id")
    return {"pid": pid, "start_ticks": start_ticks, **plain}
