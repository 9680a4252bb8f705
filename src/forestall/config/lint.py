"""Settings that are valid and yet look like a mistake, on this machine or any.

Pure: what runs here comes in as a parameter, so that the same settings can be
judged for another machine. Rule: a finding says what follows, and what to do.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from forestall.config import victims
from forestall.config.conditions import render_condition
from forestall.config.forms import duration_text
from forestall.core.model import Stage, Standing
from forestall.core.rules import Field, Signal, whole_of
from forestall.core.units import SECOND, human_bytes
from forestall.core.wards import is_old_scale, of_oom_adj

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from forestall.config.read import Settings
    from forestall.core.model import Memory
    from forestall.core.rules import Condition, Trigger, VictimRule

OLD_OOM_ADJ_NEVER = -17
"""The value that meant "never" in oom_adj (-17 to 15), which Linux dropped in 3.7."""
LONG_GRACE_NS = 30 * SECOND
TOO_MANY_SHARE = 0.5
TOO_MANY_LEAST = 10
_ENDING = {Stage.TERMINATE, Stage.KILL}
_FORECASTS = {Signal.TIME_LEFT, Signal.SURGE_LEFT, Signal.REMAINDER}
_PSI = {Signal.STALL_SOME, Signal.STALL_FULL, Signal.STALL_IO}


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """What a rule may look at; None where it could not be read."""

    pid: int
    name: str
    uid: int
    exe: str | None = None
    cmdline: str | None = None
    cgroup: str | None = None
    oom_score_adj: int | None = None

    @property
    def unit(self) -> str | None:
        """The systemd unit that holds it: the last part of the path that names one."""
        for part in reversed((self.cgroup or "").split("/")):
            if part.endswith((".service", ".scope", ".slice")):
                return part
        return None if self.cgroup is None else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """The machine the settings are judged for; None is "not known" and stays unjudged."""

    processes: Sequence[Process] | None = None
    memory: Memory | None = None
    psi: bool | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that looks like a mistake."""

    key: str
    what: str
    remedy: str


def lint(settings: Settings, around: Surroundings) -> list[Finding]:
    """Return what looks like a mistake, in the order of the settings."""
    return [
        *_limits(settings, around.memory),
        *_signals(settings, around),
        *_victim_patterns(settings, around.processes),
        *_old_scale(settings, around.processes),
    ]


def matches(rule: VictimRule, process: Process) -> bool | None:
    """Tell whether a rule matches a process; None where what it looks at is not known."""
    if rule.field is Field.UID:
        return process.uid == int(rule.pattern)
    seen: str | None = getattr(process, rule.field.value)
    return None if seen is None else re.search(rule.pattern, seen) is not None


# Limits.


def _limits(settings: Settings, memory: Memory | None) -> Iterator[Finding]:
    triggers = settings.rules.triggers
    if not any(trigger.stage in _ENDING for trigger in triggers):
        yield Finding(
            "triggers", "no trigger ends anything", "enable one whose stage is terminate or kill"
        )
    for trigger in triggers:
        yield from _impossible(trigger, memory)
    if settings.rules.grace_ns > LONG_GRACE_NS:
        yield Finding(
            "timing.grace",
            f"{duration_text(settings.rules.grace_ns)} is longer than memory usually lasts",
            "5s to 10s give a program time to save its work",
        )
    if memory is not None:
        yield from _order(triggers, memory)
        yield from _levels(settings, memory)


def _impossible(trigger: Trigger, memory: Memory | None) -> Iterator[Finding]:
    for one in trigger.conditions:
        if _value(one, memory) == 0 and one.below:
            text = render_condition(one)
            yield Finding(f"triggers.{trigger.name}", f'"{text}" never holds', "raise the limit")
        for other in trigger.conditions:
            if one.signal is not other.signal or not one.below or other.below:
                continue
            low, high = _value(one, memory), _value(other, memory)
            if low is not None and high is not None and low <= high:
                what = (
                    f'"{render_condition(one)}" and "{render_condition(other)}" exclude each other'
                )
                yield Finding(f"triggers.{trigger.name}", what, "the trigger never acts; drop one")


def _order(triggers: Sequence[Trigger], memory: Memory) -> Iterator[Finding]:
    """A harsher stage that acts earlier than a milder one leaves the milder without work."""
    for mild in triggers:
        for harsh in triggers:
            if mild.stage is not Stage.TERMINATE or harsh.stage is not Stage.KILL:
                continue
            if _covers(harsh, mild, memory):
                yield Finding(
                    f"triggers.{mild.name}",
                    f"{harsh.name} kills at once wherever this would terminate politely",
                    f"set its limits above those of {harsh.name}",
                )


def _covers(harsh: Trigger, mild: Trigger, memory: Memory) -> bool:
    """Whether harsh holds whenever mild does, as far as the numbers tell."""
    if harsh.hold_ns > mild.hold_ns:
        return False
    for needed in harsh.conditions:
        if needed.below and _value(needed, memory) == math.inf:
            continue  # It always holds here: a machine without swap.
        given = [
            one
            for one in mild.conditions
            if (one.signal, one.below, one.window_ns)
            == (needed.signal, needed.below, needed.window_ns)
        ]
        if not any(_stricter(one, needed, memory) for one in given):
            return False
    return True


def _stricter(one: Condition, other: Condition, memory: Memory) -> bool:
    mine, theirs = _value(one, memory), _value(other, memory)
    if mine is None or theirs is None:
        return False
    return mine <= theirs if one.below else mine >= theirs


def _levels(settings: Settings, memory: Memory) -> Iterator[Finding]:
    """Say what a level can never be on this machine: its amount is below its share."""
    for rule in settings.rules.levels:
        at_share_bytes = memory.total_bytes * (1 - rule.used_share)
        key = f"levels.{rule.level.value}_unless_available"
        if rule.available_max_bytes < at_share_bytes and key in settings.origins:
            yield Finding(
                key,
                f"{rule.level.value} begins at {human_bytes(rule.available_max_bytes)} available"
                f" here, well past its share ({human_bytes(at_share_bytes)} available)",
                "raise it, or leave it out",
            )


def _value(condition: Condition, memory: Memory | None) -> float | None:
    if condition.amount is None:
        return condition.number
    if memory is None:
        return None
    if condition.signal is Signal.SWAP_FREE and not memory.swap_total_bytes:
        return math.inf  # A machine without swap counts as having none left: any limit holds.
    return condition.amount.of(whole_of(condition.signal, memory))


# Signals.


def _signals(settings: Settings, around: Surroundings) -> Iterator[Finding]:
    for trigger in settings.rules.triggers:
        key = f"triggers.{trigger.name}"
        ours = key in settings.origins
        signals = {condition.signal for condition in trigger.conditions}
        if around.psi is False and signals & _PSI and ours:
            yield Finding(
                key,
                "this kernel does not measure stalls, so the trigger never acts",
                "boot with psi=1, or use other signals",
            )
        no_swap = around.memory is not None and around.memory.swap_total_bytes == 0
        if no_swap and Signal.READBACK in signals and ours:
            yield Finding(key, "there is no swap, so nothing is read back", "use refaults instead")
        if signals <= _FORECASTS and trigger.stage in _ENDING:
            yield Finding(
                key,
                "a forecast alone ends processes while memory may be plenty",
                'add a condition such as "available < 5%"',
            )


# Victims.


def _victim_patterns(settings: Settings, processes: Sequence[Process] | None) -> Iterator[Finding]:
    rules = settings.rules.victim_rules
    for place, rule in enumerate(rules):
        if victims.is_built_in(rule):
            continue
        key = _key(rule)
        too_long = _too_long_name(rule)
        if too_long:
            yield Finding(
                key,
                f"{too_long!r} has more than {victims.NAME_BYTES_MAX} bytes; "
                "the kernel cuts names there, so it never matches",
                f"write {too_long[: victims.NAME_BYTES_MAX]!r}, or match exe or cmdline",
            )
        elif processes:
            yield from _against(rule, key, rules[:place], processes)


def _against(
    rule: VictimRule, key: str, before: Sequence[VictimRule], processes: Sequence[Process]
) -> Iterator[Finding]:
    hit = [process for process in processes if matches(rule, process)]
    left = [p for p in hit if not any(matches(earlier, p) for earlier in before)]
    name = f"{rule.field.value} {rule.pattern!r}"
    if not hit:
        yield Finding(key, f"{name} matches nothing that runs here", "check the spelling")
    elif not left:
        earlier = next(one for one in before if matches(one, hit[0]))
        yield Finding(key, f"{name} has no effect: {earlier.label} comes first", "change that list")
    if len(hit) >= TOO_MANY_LEAST and len(hit) > TOO_MANY_SHARE * len(processes):
        what = f"{name} matches {len(hit)} of {len(processes)} processes"
        yield Finding(key, what, "anchor it, as in ^name$")
    if rule.standing is Standing.PREFER and any(process.pid == 1 for process in hit):
        yield Finding(key, f"{name} matches process 1", "it is never ended; narrow the pattern")


def _too_long_name(rule: VictimRule) -> str:
    """Return a plain name of more than 15 bytes that the pattern asks for, or nothing."""
    if rule.field is not Field.NAME:
        return ""
    literal = rule.pattern.removeprefix("^").removesuffix("$")
    plain = literal.replace("-", "").replace("_", "").replace(" ", "").isalnum()
    return literal if plain and len(literal.encode()) > victims.NAME_BYTES_MAX else ""


def _key(rule: VictimRule) -> str:
    row = next(row for row in victims.LISTS if row.standing is rule.standing)
    return f"victims.{row.name}"


# The old scale.


def _old_scale(settings: Settings, processes: Sequence[Process] | None) -> Iterator[Finding]:
    remedy = "write -1000 for never; forestall protect knows who should have it"
    if settings.options.oom_score_adj == OLD_OOM_ADJ_NEVER:
        yield Finding("guard.oom_score_adj", _old_scale_text("the guard"), remedy)
    for rule in settings.rules.victim_rules:
        if rule.adjust is not None and is_old_scale(rule.adjust):
            meant = of_oom_adj(rule.adjust)
            what = f"oom_score_adj {rule.adjust} is a number of the old oom_adj, taken as {meant}"
            yield Finding(_key(rule), what, f"write {meant}, or protect --exact")
    for process in processes or ():
        if process.oom_score_adj == OLD_OOM_ADJ_NEVER:
            who = f"process {process.pid} ({process.name})"
            yield Finding("", _old_scale_text(who), remedy)


def _old_scale_text(who: str) -> str:
    return (
        f"{who} has oom_score_adj -17: that was 'never' in the old oom_adj, "
        "here it is a discount of 1.7% of memory"
    )
