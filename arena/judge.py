"""The judge: a scenario's rules on a run's figures, pass, fail or lost, with reasons.

Rule: pure, and strict. What the run did not prove did not happen; a guest that
was lost proves nothing, not even a failure, unless its kernel said why it died.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from arena.digest import Run
    from arena.scenario import Scenario

UNSETTLED = "the landscape did not settle"
"""The monitor's words when the innocent were still growing: nobody could be told apart."""

DEADLOCK = "System is deadlocked on memory"
"""The kernel's last words when nobody is left whom it may kill."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the judge says, and why; a pass needs no reasons."""

    result: Literal["pass", "fail", "lost"]
    reasons: tuple[str, ...] = ()


def judge(scenario: Scenario, run: Run, *, hand: str | None = None) -> Verdict:
    """Judge one run.

    Args:
        scenario: the rules.
        run: what was seen.
        hand: if given, whose hand those who must die have to die by
            (``guard`` in the smoke test).
    """
    if run.panic is not None and DEADLOCK in run.panic:
        return Verdict(result="fail", reasons=(f"the kernel gave up: {run.panic}",))
    lost = _lost(scenario, run)
    if lost:
        return Verdict(result="lost", reasons=tuple(lost))
    reasons = [
        *_who_should_have_died(scenario, run, hand),
        *_who_should_have_lived(scenario, run),
        *_who_should_have_finished(scenario, run),
        *_how_many(scenario, run),
        *_kernel(scenario, run),
        *_recovery(scenario, run),
        *_calm(scenario, run),
    ]
    return Verdict(result="fail" if reasons else "pass", reasons=tuple(reasons))


def _lost(scenario: Scenario, run: Run) -> list[str]:
    if run.panic is not None:
        return [f"the guest's kernel panicked: {run.panic}"]
    if not run.complete:
        return ["the guest did not report to the end"]
    if UNSETTLED in run.warnings:
        return [UNSETTLED]
    reasons = [
        f"{role} was never started"
        for role in scenario.roles
        if role not in run.roles or not run.roles[role].started
    ]
    if run.beats.base_p50 is None:
        reasons.append("the watched service never beat")
    return reasons


def _who_should_have_died(scenario: Scenario, run: Run, hand: str | None) -> list[str]:
    reasons = []
    for role in scenario.must_die:
        if run.roles[role].live:
            reasons.append(f"{role} lives after {run.trouble_length_s} s")
        elif not any(death.role == role for death in run.deaths):
            reasons.append(f"{role} ended by itself")
        elif hand:
            others = sorted({d.by for d in run.deaths if d.role == role and d.by != hand})
            if others:
                reasons.append(f"{role} died by {', '.join(others)}, not by the {hand}")
    if scenario.must_die and run.gone_s is not None and run.gone_s > scenario.limit_s:
        reasons.append(f"gone only after {run.gone_s} s")
    return reasons


def bystanders(scenario: Scenario, run: Run) -> dict[str, str]:
    """Name everyone who died though nobody allowed it, with a sentence each.

    Strangers (processes no actor started) go by their program's name.
    """
    found: dict[str, str] = {}
    allowed = {*scenario.must_die, *scenario.may_die}
    for death in run.deaths:
        name = death.role or death.program
        if not death.role or death.role not in allowed:
            found.setdefault(name, f"{name} died by {_whom(death.by)} at {death.at_s} s")
    for role in scenario.must_live:
        count = run.roles.get(role)
        if count is None or role in found:
            continue
        if count.killed:
            found[role] = f"{role} was killed ({count.killed} of {count.started})"
        elif not count.live and count.failed:
            found[role] = f"{role} broke down"
    return found


def _who_should_have_lived(scenario: Scenario, run: Run) -> list[str]:
    reasons = list(bystanders(scenario, run).values())
    if run.cost.restarted:
        reasons.append("the guard itself died or was restarted")
    return reasons


def _whom(by: str) -> str:
    return f"the {by}" if by in {"guard", "kernel"} else by


def _who_should_have_finished(scenario: Scenario, run: Run) -> list[str]:
    return [
        f"{role} did not finish its work"
        for role in scenario.must_finish
        if run.roles[role].live or run.roles[role].finished < run.roles[role].started
    ]


def _how_many(scenario: Scenario, run: Run) -> list[str]:
    dead = sum(count.killed for count in run.roles.values())
    if scenario.max_deaths is not None and dead > scenario.max_deaths:
        by_role = Counter({role: count.killed for role, count in run.roles.items() if count.killed})
        names = ", ".join(f"{role} {number}" for role, number in by_role.most_common())
        return [f"{dead} processes died where {scenario.max_deaths} may ({names})"]
    return []


def _kernel(scenario: Scenario, run: Run) -> list[str]:
    if run.kernel_kills is None:
        return ["the kernel's own kills are not known"]
    inside = sum(1 for death in run.deaths if death.by == "memcg") if scenario.memcg_kills else 0
    beyond = run.kernel_kills - inside
    return [f"the kernel's OOM killer acted {beyond} times"] if beyond > 0 else []


def _recovery(scenario: Scenario, run: Run) -> list[str]:
    if scenario.benign or run.gone_s is None or not scenario.must_die:
        return []
    if run.roles["service"].live == 0:
        return []  # said already
    if run.recovered_s is None:
        return ["the service did not beat evenly again"]
    allowed_s, since = run.gone_s + scenario.recover_s, f"{run.gone_s} s was the end"
    if scenario.thrash_recover_s is not None and run.thrash_s is not None:
        allowed_s = max(allowed_s, run.thrash_s + scenario.thrash_recover_s)
        since = f"the thrash began at {run.thrash_s} s, {since}"
    if run.recovered_s > allowed_s:
        return [f"the service was late until {run.recovered_s} s; {since}"]
    return []


def _calm(scenario: Scenario, run: Run) -> list[str]:
    if scenario.calm_by_s is None:
        return []
    if run.recovered_s is None:
        return ["the service was late to the end"]
    if run.recovered_s > scenario.calm_by_s:
        return [f"the service was late until {run.recovered_s} s, allowed {scenario.calm_by_s} s"]
    return []
