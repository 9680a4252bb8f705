"""Protecting processes from the kernel's killer, and taking all of it back.

Rule: the ledger is written before a value is; what undo finds changed by
somebody else it leaves alone and says so.
"""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from forestall.admin.adjust import GONE, write_adjust
from forestall.admin.claims import Claims
from forestall.admin.ledger import Entry, Ledger
from forestall.admin.plan import Change, Plan, ancestors, change_of, has_enough, make_plan
from forestall.admin.rights import require_root
from forestall.admin.subjects import Machine, Subject
from forestall.kernel.errors import KernelError
from forestall.kernel.features import CAPABILITIES
from forestall.kernel.files import read_whole
from forestall.kernel.parse_process import parse_status

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from forestall.admin.claims import Claim
    from forestall.core.model import ProcessId
    from forestall.core.rules import VictimRule

INHERITED = "inherited from "


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one process."""

    id: ProcessId
    name: str
    old: int
    new: int
    label: str
    failed: str = ""
    """Why nothing was written; empty where it was."""

    @property
    def gone(self) -> bool:
        """Whether there was nobody left to change."""
        return self.failed == GONE

    def describe(self) -> str:
        """Say it in a line."""
        who = f"{self.name} ({self.id.pid})"
        done = f"{who}: {self.old} -> {self.new}, {self.label}"
        return f"{who}: stays as it is: {self.failed}" if self.failed else done


class Protector:
    """Plans, applies, follows and undoes.

    Args:
        rules: The victim rules in force.
        root: Where /proc and the ledger are.
        user_name: The account behind a uid.
        write: Writes an oom_score_adj; returns why not.
        machine: Reads the processes.
        exact: Take numbers as written, also those that look like the old scale.
    """

    def __init__(
        self,
        rules: tuple[VictimRule, ...],
        *,
        root: Path = Path("/"),
        user_name: Callable[[int], str | None] | None = None,
        write: Callable[..., str] = write_adjust,
        machine: Machine | None = None,
        exact: bool = False,
    ) -> None:
        self._root = root
        self._machine = machine or Machine(root)
        self._write = write
        self._claims = Claims(
            rules,
            runs_roots_program=self._machine.runs_roots_program,
            user_name=user_name or account,
            exact=exact,
        )
        self._ledger = Ledger(root)
        self._seen: dict[int, tuple[int, str]] = {}

    @property
    def count(self) -> int:
        """How many processes have a value of ours, as far as the ledger knows."""
        return len(self._ledger.entries)

    def remembered(self) -> list[Entry]:
        """List whom undo would give something back, as far as the ledger knows."""
        return list(self._ledger.entries.values())

    def plan(self, *, only: Sequence[str] = (), heirs: bool = False) -> Plan:
        """Say what apply would do."""
        return make_plan(self._machine.subjects(), self._claims, only=only, heirs=heirs)

    def apply(self, changes: Sequence[Change]) -> list[Outcome]:
        """Make the changes of a plan.

        Raises: OSError when the ledger cannot be written; then nothing was changed.
        """
        if not changes:
            return []
        with self._ledger.alone():
            return self._make(changes)

    def undo(self) -> list[Outcome]:
        """Give every process back what it had, and so its children that inherited ours.

        Raises: OSError when the ledger cannot be written.
        """
        if not self._ledger.entries:
            return []
        with self._ledger.alone():
            entries = dict(self._ledger.entries)
            entries |= {entry.id: entry for entry in self._heirs(self._machine.subjects())}
            outcomes = []
            for entry in entries.values():
                outcome = self._give_back(entry)
                outcomes.append(outcome)
                # What somebody else has changed is no longer ours to give back.
                self._ledger.entries.pop(entry.id, None)
            refused = {o.id for o in outcomes if o.failed.startswith("refused")}
            self._ledger.entries |= {id_: entries[id_] for id_ in refused}
            self._ledger.save()
        return outcomes

    def tick(self) -> list[Outcome]:
        """Treat what is new since the last look; for ``follow``.

        Whoever was born with a value of ours without a claim to it gets back what
        his ancestor had before: immunity is not inherited in silence.
        Cost: 20 µs a process that is known, 150 µs one that is new.
        """
        fresh = self._fresh()
        if not fresh:
            return []
        subjects = [subject for pid in fresh if (subject := self._machine.subject(pid))]
        parents = {pid: stat.parent_pid for pid in self._seen if (stat := self._machine.stat(pid))}
        with self._ledger.alone():
            ours = {id_.pid: entry for id_, entry in self._ledger.entries.items()}
            outcomes: list[Outcome] = []
            changes: list[Change] = []
            for subject in subjects:
                claim = self._proven(subject)
                giver = self._former(subject) or self._giver(
                    subject, ancestors(subject.id.pid, parents), ours
                )
                held = subject
                if giver is not None and claim and claim.adjust == subject.adjust:
                    self._own(subject, giver)
                elif giver is not None:
                    outcomes.append(self._disown(subject, giver))
                    held = replace(subject, adjust=giver.old)
                if claim and not has_enough(held.adjust, claim.adjust):
                    changes.append(change_of(held, claim))
            outcomes += self._make(changes) if changes else []
            self._ledger.save()
        return outcomes

    # What changes values.

    def _make(self, changes: Sequence[Change]) -> list[Outcome]:
        before = dict(self._ledger.entries)
        for change in changes:
            known = before.get(change.id)
            self._ledger.entries[change.id] = Entry(
                id=change.id,
                name=change.name,
                old=known.old if known else change.old,
                new=change.new,
                label=change.label,
            )
        self._ledger.save()
        outcomes = []
        for change in changes:
            failed = self._write(str(self._root), change.id, change.new)
            if failed:
                del self._ledger.entries[change.id]
                if change.id in before:
                    self._ledger.entries[change.id] = before[change.id]
            outcomes.append(_outcome(change, change.old, change.new, failed))
        self._ledger.save()
        return outcomes

    def _give_back(self, entry: Entry) -> Outcome:
        failed = self._write(str(self._root), entry.id, entry.old, expect=entry.new)
        return _outcome(entry, entry.new, entry.old, failed)

    def _disown(self, subject: Subject, giver: Entry) -> Outcome:
        self._ledger.entries.pop(subject.id, None)
        failed = self._write(str(self._root), subject.id, giver.old, expect=subject.adjust)
        return Outcome(
            id=subject.id,
            name=subject.name,
            old=subject.adjust,
            new=giver.old,
            label=f"{INHERITED}{giver.name} ({giver.id.pid}), taken back",
            failed=failed,
        )

    def _own(self, subject: Subject, giver: Entry) -> None:
        label = f"{INHERITED}{giver.name} ({giver.id.pid})"
        self._ledger.entries.setdefault(
            subject.id,
            Entry(id=subject.id, name=subject.name, old=giver.old, new=subject.adjust, label=label),
        )

    # Inheritance.

    def _proven(self, subject: Subject) -> Claim | None:
        claim = self._claims.of(subject, self._machine.subject(subject.parent_pid))
        return None if claim is None or claim.unproven else claim

    def _former(self, subject: Subject) -> Entry | None:
        """Return the entry of a process that has become another program since."""
        entry = self._ledger.entries.get(subject.id)
        changed = entry is not None and entry.name != subject.name and entry.new == subject.adjust
        return entry if changed else None

    def _heirs(self, subjects: Sequence[Subject]) -> list[Entry]:
        """Find who has a value of ours only because an ancestor got it."""
        parents = {subject.id.pid: subject.parent_pid for subject in subjects}
        ours = {id_.pid: entry for id_, entry in self._ledger.entries.items()}
        heirs = []
        for subject in subjects:
            giver = self._giver(subject, ancestors(subject.id.pid, parents), ours)
            if giver is not None:
                label = f"{INHERITED}{giver.name} ({giver.id.pid})"
                heirs.append(
                    Entry(
                        id=subject.id,
                        name=subject.name,
                        old=giver.old,
                        new=subject.adjust,
                        label=label,
                    )
                )
        return heirs

    def _giver(self, subject: Subject, line: Sequence[int], ours: dict[int, Entry]) -> Entry | None:
        """Return the nearest ancestor of ours if the value can only have come from it."""
        if subject.id in self._ledger.entries or subject.id.pid == 1:
            return None
        giver = next((ours[pid] for pid in line if pid in ours), None)
        if giver is None or giver.new != subject.adjust or giver.old == giver.new:
            return None
        return giver if subject.id.start_ticks >= giver.id.start_ticks else None

    def _fresh(self) -> list[int]:
        """List who is new, or has become another program."""
        now: dict[int, tuple[int, str]] = {}
        for pid in self._machine.pids():
            stat = self._machine.stat(pid)
            if stat is not None and not stat.kernel_thread:
                now[pid] = (stat.id.start_ticks, stat.comm)
        fresh = [pid for pid, known in now.items() if self._seen.get(pid) != known]
        self._seen = now
        return fresh


def account(uid: int) -> str | None:
    """Name the account behind a uid."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None


def require_rights(
    root: Path = Path("/"), *, effective_uid: Callable[[], int] = os.geteuid
) -> list[str]:
    """Check that values may be written at all; returns what else will be refused.

    Raises: NotPermitted naming what is missing.
    """
    require_root("changing oom_score_adj of others", effective_uid=effective_uid)
    try:
        held = parse_status(read_whole(str(root / "proc/self/status"))).effective_capabilities
    except (OSError, KernelError):
        return []
    if held >> CAPABILITIES["CAP_SYS_RESOURCE"] & 1:
        return []
    return ["CAP_SYS_RESOURCE is missing here: values can be raised, but not lowered"]


def _outcome(row: Change | Entry, old: int, new: int, failed: str) -> Outcome:
    return Outcome(id=row.id, name=row.name, old=old, new=new, label=row.label, failed=failed)
