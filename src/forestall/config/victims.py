"""The lists of ``[victims]``: entries to victim rules and back.

An entry is a string, a regular expression on the process name, or a table with
one of ``name exe cmdline unit cgroup uid``, and perhaps ``oom_score_adj``, which
``forestall protect`` gives to what it matches. A list replaces the one it stands
for; the list with ``_more`` after its name adds to it, over all files.

The first rule that matches a process counts, so the order is part of the
meaning: never before all; then what was written in files, then what is built
in; within these, what protects before what exposes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from forestall.config import forms
from forestall.config.suggest import did_you_mean
from forestall.core.model import Standing
from forestall.core.rules import DEFAULT_VICTIM_RULES, Field, VictimRule
from forestall.core.wards import ADJUST_LEAST, ADJUST_MOST

PATTERN_CHARACTERS_MAX = 2000
ENTRIES_MAX = 200
UID_MAX = 2**32 - 2
ADJUST_KEY = "oom_score_adj"
# The kernel keeps 15 bytes of a name (TASK_COMM_LEN with its closing NUL).
NAME_BYTES_MAX = 15


@dataclass(frozen=True, slots=True)
class VictimList:
    """One list of the section."""

    name: str
    standing: Standing
    help: str


LISTS = (
    VictimList("never", Standing.NEVER, "Never ended, whatever happens."),
    VictimList("avoid", Standing.AVOID, "Ended only when nobody else is left."),
    VictimList("normal", Standing.NORMAL, "Neither: takes processes out of the built-in lists."),
    VictimList("prefer", Standing.PREFER, "Ended first."),
)
MORE = "_more"
LIST_KEYS = tuple(name for row in LISTS for name in (row.name, row.name + MORE))

_BUILT_IN = {(rule.standing, rule.field, rule.pattern): rule for rule in DEFAULT_VICTIM_RULES}
_PROTECTION = {row.standing: place for place, row in enumerate(LISTS)}


def defaults(row: VictimList) -> tuple[VictimRule, ...]:
    """Return the built-in entries of a list."""
    return tuple(rule for rule in DEFAULT_VICTIM_RULES if rule.standing is row.standing)


def parse_entry(raw: object, row: VictimList, source: str) -> VictimRule:
    """Read one entry of a list.

    Args:
        source: Named in sentences about the rule.

    Raises: ValueError with a sentence for the person who wrote it.
    """
    adjust, rest = _adjust(raw)
    field, pattern = _field_and_pattern(rest)
    built_in = _BUILT_IN.get((row.standing, field, pattern))
    if built_in is not None and adjust is None:
        return built_in
    label = f"{row.name} {field.value} {pattern!r} ({source})"
    return VictimRule(row.standing, field, pattern, label, adjust)


def is_built_in(rule: VictimRule) -> bool:
    """Tell whether a rule is one of the defaults."""
    return rule in DEFAULT_VICTIM_RULES


def in_order(rules: list[VictimRule]) -> tuple[VictimRule, ...]:
    """Put rules into the order in which they count; equals keep their places."""

    def place(rule: VictimRule) -> tuple[bool, bool, int]:
        not_never = rule.standing is not Standing.NEVER
        return not_never, is_built_in(rule), _PROTECTION[rule.standing]

    return tuple(sorted(rules, key=place))


def render_entry(rule: VictimRule) -> str:
    """Write a rule as an entry of its list."""
    text = rule.pattern if rule.field is Field.UID else forms.render_text(rule.pattern)
    if rule.adjust is not None:
        return f"{{ {rule.field.value} = {text}, {ADJUST_KEY} = {rule.adjust} }}"
    return text if rule.field is Field.NAME else f"{{ {rule.field.value} = {text} }}"


def _adjust(raw: object) -> tuple[int | None, object]:
    """Take the adjustment out of an entry, if it has one."""
    if not isinstance(raw, dict) or ADJUST_KEY not in raw:
        return None, raw
    adjust = forms.parse_integer(raw[ADJUST_KEY])
    if not ADJUST_LEAST <= adjust <= ADJUST_MOST:
        raise ValueError(f"{ADJUST_KEY} must lie between {ADJUST_LEAST} and {ADJUST_MOST}")
    return adjust, {name: held for name, held in raw.items() if name != ADJUST_KEY}


def _field_and_pattern(raw: object) -> tuple[Field, str]:
    if isinstance(raw, str):
        return Field.NAME, _regex(raw)
    if not isinstance(raw, dict):
        raise ValueError('write a pattern in quotes, or a table such as { exe = "^/usr/bin/" }')
    names = [field.value for field in Field]
    for name in raw:
        if name not in names:
            raise ValueError(f"a process has no {name!r} here{did_you_mean(str(name), names)}")
    if len(raw) != 1:
        raise ValueError("write one of " + ", ".join(names) + " into the table, and only one")
    name, pattern = next(iter(raw.items()))
    if name == Field.UID.value:
        return Field.UID, _uid(pattern)
    if not isinstance(pattern, str):
        raise ValueError(f"{name}: write a regular expression in quotes")
    return Field(name), _regex(pattern)


def _regex(pattern: str) -> str:
    if not pattern:
        raise ValueError("an empty pattern would match every process")
    if len(pattern) > PATTERN_CHARACTERS_MAX:
        raise ValueError(f"longer than {PATTERN_CHARACTERS_MAX} characters")
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
    return pattern


def _uid(raw: object) -> str:
    text = str(raw) if isinstance(raw, int | str) and not isinstance(raw, bool) else ""
    if not text.isascii() or not text.isdigit() or int(text[:20]) > UID_MAX:
        raise ValueError("uid: write the user's number; id -u NAME prints it")
    return str(int(text))
