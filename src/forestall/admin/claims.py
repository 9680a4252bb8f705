"""Which oom_score_adj a process should have, and whether it has proved to be what it says.

Pure, given the subjects. Rule: lowering takes a proof, because any process may
call itself sshd; raising takes none, because whoever lies only harms himself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from forestall.config import victims
from forestall.core.model import Standing
from forestall.core.rules import Field
from forestall.core.standing import Facts, Matcher
from forestall.core.wards import (
    ADJUST_LEAST,
    ANYBODY,
    WARDS,
    Ward,
    is_old_scale,
    of_oom_adj,
    ward_of_name,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from forestall.admin.subjects import Subject
    from forestall.core.rules import VictimRule

_INETD = re.compile(r"\s-[46DdeGqTt]*i")
"""sshd's flag for "serve this one connection"."""
FIRST_PERSON_UID = 1000
"""From here on accounts are people's (login.defs UID_MIN); below they are the system's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a process should have."""

    adjust: int
    label: str
    """The ward or the rule that says so."""
    unproven: str = ""
    """Why it is not believed; empty where it is, or need not be."""
    starts_others: bool = False
    """Its children are other people's programs, and would inherit it."""
    explained: str = ""
    """What was made of the number as written."""


@dataclass(frozen=True, slots=True)
class _Compiled:
    rule: VictimRule
    matcher: Matcher


class Claims:
    """Judges processes by the settings and the built-in wards.

    Args:
        rules: The victim rules in force, in their order; the first that matches counts.
        runs_roots_program: Whether a process runs a program that only root can write.
        user_name: The account behind a uid; None where there is none.
        exact: Take numbers as written, also those that look like the old scale.
    """

    def __init__(
        self,
        rules: tuple[VictimRule, ...],
        *,
        runs_roots_program: Callable[[Subject], bool],
        user_name: Callable[[int], str | None],
        exact: bool = False,
    ) -> None:
        self._rules = [_Compiled(rule, Matcher((rule,))) for rule in rules]
        self._roots = runs_roots_program
        self._user_name = user_name
        self._exact = exact

    def of(self, subject: Subject, parent: Subject | None) -> Claim | None:
        """Return what a process should have; None where nobody wants anything of it."""
        if subject.id.pid == 1:
            return None  # The kernel never ends init; an adjustment would only be inherited.
        facts = Facts(
            subject.name,
            subject.uid,
            subject.cgroup,
            subject.exe,
            subject.cmdline,
            subject.id.pid,
        )
        for one in self._rules:
            if one.matcher.standing(facts)[1]:
                return self._by_rule(one.rule, subject, parent)
        ward = ward_of_name(subject.name, Standing.NORMAL) or _by_cmdline(subject)
        return self._by_ward(ward, subject, parent) if ward else None

    def _by_rule(self, rule: VictimRule, subject: Subject, parent: Subject | None) -> Claim | None:
        if victims.is_built_in(rule):
            ward = ward_of_name(subject.name, rule.standing)
            return self._by_ward(ward, subject, parent) if ward else None
        if rule.adjust is None:
            return None
        adjust, explained = understand(rule.adjust, exact=self._exact)
        unproven = "" if adjust >= 0 else self._doubt_rule(rule, subject)
        return Claim(
            adjust=adjust,
            label=rule.label,
            unproven=unproven,
            starts_others=adjust == ADJUST_LEAST,
            explained=explained,
        )

    def _by_ward(self, ward: Ward, subject: Subject, parent: Subject | None) -> Claim | None:
        adjust = ward.adjust
        if adjust is None:
            return None
        if adjust > 0:
            return Claim(adjust=adjust, label=ward.label)
        if adjust == ADJUST_LEAST and not _listens(subject, parent):
            return None  # A connection of sshd's: its shell must stay mortal.
        unproven = self._doubt_ward(ward, subject)
        return Claim(
            adjust=adjust, label=ward.label, unproven=unproven, starts_others=ward.starts_others
        )

    def _doubt_rule(self, rule: VictimRule, subject: Subject) -> str:
        unit = subject.system_unit
        if rule.field is Field.UNIT and unit and re.search(rule.pattern, unit):
            return ""
        if subject.uid is None or subject.uid >= FIRST_PERSON_UID:
            return "it runs in no unit that the rule names, and as a person's account"
        if not self._roots(subject):
            return "it runs in no unit that the rule names, and its program is not root's alone"
        return ""

    def _doubt_ward(self, ward: Ward, subject: Subject) -> str:
        unit = subject.system_unit
        if any(fnmatchcase(unit, pattern) for pattern in ward.units):
            return ""
        if unit:
            return f"it runs in {unit}, which is none of {', '.join(ward.units)}"
        if not self._is_expected_user(ward, subject):
            return f"it runs in none of {', '.join(ward.units)}, and not as {_users(ward)}"
        named = PurePosixPath(subject.exe or "").name
        if named not in ward.names and named[:15] not in ward.names:
            return "the program it runs has another name"
        return "" if self._roots(subject) else "the program it runs is not root's alone"

    def _is_expected_user(self, ward: Ward, subject: Subject) -> bool:
        if subject.uid is None:
            return False
        if ANYBODY in ward.users:
            # In a session of its own: a user cannot move a process into another user's slice.
            mine = f"/user.slice/user-{subject.uid}.slice/"
            return subject.uid == 0 or (subject.cgroup or "").startswith(mine)
        return self._user_name(subject.uid) in ward.users


def understand(number: int, *, exact: bool = False) -> tuple[int, str]:
    """Read a number that somebody wrote for oom_score_adj.

    Returns: What was meant, and a sentence about it if that is something else.
    """
    if exact or not is_old_scale(number):
        return number, ""
    meant = of_oom_adj(number)
    tenths = abs(number)
    return meant, (
        f"{number} is a number of the old oom_adj (-17 to 15) and is taken as {meant}; "
        f"as oom_score_adj it would move the score by {tenths / 10:.1f} % of memory"
    )


def _by_cmdline(subject: Subject) -> Ward | None:
    for ward in WARDS:
        if ward.cmdline and subject.cmdline and re.search(ward.cmdline, subject.cmdline):
            return ward
    return None


def _listens(subject: Subject, parent: Subject | None) -> bool:
    """Tell the listener from its connections, which run the same program as the same user.

    A connection's parent is another sshd, or its title says whose it is.
    """
    if parent is not None and parent.name == subject.name:
        return False
    line = (subject.cmdline or "").strip()
    if "[listener]" in line:
        return True
    return bool(line) and not line.startswith(f"{subject.name}:") and not _INETD.search(line)


def _users(ward: Ward) -> str:
    names = [name for name in ward.users if name != ANYBODY]
    return " or ".join(names) if names else "somebody in a session of their own"
