"""The settings of nohang, systemd-oomd, oomd and low-memory-monitor as ours. Pure.

Sources: nohang 0.2 and 0.3 (its configuration file); oomd.conf(5); oomd's
plugin reference; low-memory-monitor 2.1.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from forestall.admin.imports import Imported, percent, standard, when_low
from forestall.config import forms
from forestall.core.model import Stage
from forestall.core.rules import Condition, Limit, Signal, Trigger, above, available, swap_free
from forestall.core.units import MIB, SECOND

if TYPE_CHECKING:
    from collections.abc import Mapping

WINDOW_S_MAX = 30
HOLD_S_MAX = 600
WITH_SWAP_LOW_SHARE = 0.10
_NOHANG_FIELDS = {
    "NAME": "name",
    "CGROUP_V1": "cgroup",
    "CGROUP_V2": "cgroup",
    "REALPATH": "exe",
    "CMDLINE": "cmdline",
}
_NOHANG_CARRIED = frozenset(
    [
        *("soft_threshold_min_mem", "soft_threshold_min_swap", "hard_threshold_min_mem"),
        *("hard_threshold_min_swap", "warning_threshold_min_mem", "warning_threshold_min_swap"),
        *("soft_threshold_max_psi", "hard_threshold_max_psi", "psi_excess_duration"),
        *("psi_metrics", "psi_checking_enabled", "max_soft_exit_time"),
        *("low_memory_warnings_enabled", "zram_checking_enabled"),
    ]
)
_NOHANG_REASONS = (
    ("zram", "zram is always priced at what its pages cost in memory"),
    ("_zram", "zram is always priced at what its pages cost in memory"),
    ("fill_rate", "the pace is measured, not set"),
    ("_sleep", "the guard sleeps by the measured pace; timing.interval is the longest"),
    ("psi_p", "stalls are read from the kernel's counters, and one victim ends before the next"),
    ("gui", "forestall agent shows notes on the desktop"),
    ("_exe", "programs to run are set with the alerts"),
    ("warning", "warnings repeat by timing.warn_repeat, or are not made by stalls"),
    ("print_", "the guard's log and recorder have their own form"),
    ("badness", "candidates are ranked by what ending them frees"),
    ("ignore_positive", "candidates are never ranked by oom_score_adj"),
    ("delay", "after a victim the guard waits for its memory: timing.settle"),
    ("victim_cache", "a victim stays the victim until it is gone"),
)


def import_nohang(text: str, source: str) -> Imported:
    """Read a configuration file of nohang as ours."""
    got = Imported("nohang", source)
    keys: dict[str, str] = {}
    for line in text.splitlines():
        if not line or line[0] in "#\t ":
            continue
        if line.startswith("@"):
            _nohang_rule(line.strip(), got)
            continue
        name, sign, held = line.partition("=")
        if sign:
            keys[name.strip()] = held.strip()
    _nohang_triggers(keys, got)
    for name, held in keys.items():
        if name not in _NOHANG_CARRIED:
            why = next((why for part, why in _NOHANG_REASONS if part in name), "has no place here")
            got.lost.append(f"{name} = {held}: {why}")
    return got


def import_systemd_oomd(
    text: str, source: str, preferences: Mapping[str, str] | None = None
) -> Imported:
    """Read systemd-oomd's settings as ours.

    Args:
        preferences: ManagedOOMPreference by unit, where it is avoid or omit.
    """
    got = Imported("systemd-oomd", source)
    keys = dict(_ini(text))
    used = keys.pop("SwapUsedLimit", "90%")
    left = _left(used)
    if left is None:
        got.lost.append(f"SwapUsedLimit={used}: no percentage")
    else:
        conditions = (available(left), swap_free(left))
        got.triggers.append(Trigger("oomd-swap", Stage.KILL, conditions))
    limit = keys.pop("DefaultMemoryPressureLimit", "60%")
    duration = keys.pop("DefaultMemoryPressureDurationSec", "30s")
    share, hold_s = percent(limit.removesuffix("%")), _seconds(duration)
    if share is None or share.share is None or hold_s is None:
        got.lost.append(f"DefaultMemoryPressureLimit={limit} for {duration}: cannot be read")
    else:
        got.triggers.append(_stall("oomd-pressure", share.share, hold_s, Stage.KILL))
    for name, held in keys.items():
        got.lost.append(f"{name}={held}: has no place here")
    for unit, preference in (preferences or {}).items():
        row = {"avoid": "avoid_more", "omit": "never_more"}.get(preference)
        if row:
            got.entry(row, "unit", f"^{re.escape(unit)}$", f"{unit} {preference}")
    got.notes += [
        "systemd-oomd looks at the pressure of each cgroup that asks for it; this is the machine's",
        "it ends a whole cgroup; forestall ends a process, a family, or an application's unit",
    ]
    return got


def import_oomd(text: str, source: str) -> Imported:
    """Read a configuration of oomd as ours.

    Each group of detectors that ends in a kill becomes a trigger.
    """
    got = Imported("oomd", source)
    try:
        plain: Any = json.loads(_without_comments(text))
        rulesets = plain["rulesets"]
    except (ValueError, KeyError, TypeError) as error:
        got.lost.append(f"the file cannot be read: {error}")
        return got
    for place, ruleset in enumerate(rulesets if isinstance(rulesets, list) else ()):
        _oomd_ruleset(ruleset, place, got)
    got.notes.append("it ends a whole cgroup; forestall ends a process, a family, or a unit")
    return got


def import_low_memory_monitor(text: str, source: str) -> Imported:
    """Read low-memory-monitor's settings, of which there is one."""
    got = Imported("low-memory-monitor", source)
    stalled = above(Signal.STALL_SOME, 0.10, SECOND)
    got.triggers.append(Trigger("low-memory-monitor", Stage.WARN, (stalled,)))
    got.notes.append("its levels are built in; the middle one is taken as a warning")
    for name, held in _ini(text):
        got.lost.append(f"{name}={held}: forestall ends something itself, and better chosen")
    return got


def _nohang_rule(line: str, got: Imported) -> None:
    head, _, pattern = line.partition("///")
    words, pattern = head.split(), pattern.strip()
    field = _NOHANG_FIELDS.get(words[0].removeprefix("@BADNESS_ADJ_RE_"))
    if not words[0].startswith("@BADNESS_ADJ_RE_") or field is None or len(words) != 2:
        got.lost.append(f"{line[:80]}: rules look at name, exe, cmdline, cgroup, unit and uid only")
        return
    try:
        weight = int(words[1])
    except ValueError:
        got.lost.append(f"{line[:80]}: no number")
        return
    got.entry("prefer_more" if weight > 0 else "avoid_more", field, pattern, line[:80])


def _nohang_triggers(keys: Mapping[str, str], got: Imported) -> None:
    limits = {}
    for stage in ("soft", "hard", "warning"):
        pair = [
            _nohang_limit(keys.get(f"{stage}_threshold_min_{what}")) for what in ("mem", "swap")
        ]
        limits[stage] = (pair[0], pair[1])
    soft, hard, warn = limits["soft"], limits["hard"], limits["warning"]
    if soft[0] is None or hard[0] is None:
        got.lost.append("soft_threshold_min_mem, hard_threshold_min_mem: missing or no amount")
        return
    got.triggers = standard((soft[0], soft[1]), (hard[0], hard[1]))
    if keys.get("low_memory_warnings_enabled") == "True" and warn[0] is not None:
        got.triggers.append(Trigger("low", Stage.WARN, when_low(warn[0], warn[1])))
    if keys.get("psi_checking_enabled") == "True":
        _nohang_stall("soft", Stage.TERMINATE, soft[0], keys, got)
        _nohang_stall("hard", Stage.KILL, hard[0], keys, got)
    if keys.get("zram_checking_enabled") == "True":
        got.lost.append("zram_checking_enabled: zram is always priced at what it costs in memory")
    grace = _seconds(keys.get("max_soft_exit_time", ""))
    if grace is not None:
        got.plain["timing.grace"] = forms.render_duration(grace * SECOND)


def _nohang_stall(
    which: str, stage: Stage, memory: Limit, keys: Mapping[str, str], got: Imported
) -> None:
    share = percent(keys.get(f"{which}_threshold_max_psi", ""))
    kind, _, average = keys.get("psi_metrics", "full_avg10").partition("_avg")
    hold_s = _seconds(keys.get("psi_excess_duration", "30"))
    if share is None or share.share is None or hold_s is None or not average.isdigit():
        got.lost.append(f"{which}_threshold_max_psi: no percentage, or never reached")
        return
    signal = Signal.STALL_FULL if kind == "full" else Signal.STALL_SOME
    window_s = min(int(average), WINDOW_S_MAX)
    conditions = (available(memory), above(signal, share.share, window_s * SECOND))
    hold_ns = int(min(hold_s, HOLD_S_MAX) * SECOND)
    got.triggers.append(Trigger(f"nohang-stall-{which}", stage, conditions, hold_ns))


def _nohang_limit(text: str | None) -> Limit | None:
    amount, _, unit = (text or "").partition(" ")
    if unit.strip() == "%":
        return percent(amount)
    try:
        return Limit(None, int(float(amount) * MIB)) if unit.strip() == "M" else None
    except ValueError:
        return None


def _oomd_ruleset(ruleset: object, place: int, got: Imported) -> None:
    if not isinstance(ruleset, dict):
        got.lost.append(f"ruleset {place}: is none")
        return
    name = str(ruleset.get("name", place))
    actions = [str(action.get("name")) for action in _dicts(ruleset.get("actions"))]
    if not any("kill" in action for action in actions):
        got.lost.append(f"{name}: does {', '.join(actions) or 'nothing'}, which ends nobody")
        return
    groups = ruleset.get("detectors")
    for number, group in enumerate(groups if isinstance(groups, list) else ()):
        title = str(group[0]) if isinstance(group, list) and group else name
        conditions: list[Condition] = []
        hold_s = 0.0
        for plugin in _dicts(group):
            made, held_s = _oomd_detector(plugin, f"{name}, {title}", got)
            conditions += made
            hold_s = max(hold_s, held_s)
        if conditions and all(one.signal is Signal.SWAP_FREE for one in conditions):
            # Here a machine without swap counts as having none left: it would always hold.
            conditions.insert(0, available(Limit(WITH_SWAP_LOW_SHARE)))
            got.notes.append(f"{title}: here only while available < {WITH_SWAP_LOW_SHARE:.0%} too")
        if conditions:
            slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:30] or "ruleset"
            trigger_name = f"oomd-{slug}" + (f"-{number}" if number else "")
            hold_ns = int(min(hold_s, HOLD_S_MAX) * SECOND)
            got.triggers.append(Trigger(trigger_name, Stage.KILL, tuple(conditions), hold_ns))


def _oomd_detector(
    plugin: Mapping[str, Any], where: str, got: Imported
) -> tuple[list[Condition], float]:
    kind, given = str(plugin.get("name")), plugin.get("args")
    args = given if isinstance(given, dict) else {}
    if kind == "swap_free" and (limit := percent(str(args.get("threshold_pct", "")))):
        return [swap_free(limit)], 0
    share = percent(str(args.get("threshold", "")))
    hold_s = _seconds(str(args.get("duration", "0")))
    memory = args.get("resource") == "memory"
    if kind == "pressure_above" and share and share.share and memory and hold_s is not None:
        cgroup = args.get("cgroup", "/")
        if cgroup not in {"", "/"}:
            got.lost.append(f"{where}: the pressure of {cgroup} alone; the machine's is taken")
        return [above(Signal.STALL_FULL, share.share, 10 * SECOND)], hold_s
    got.lost.append(f"{where}: {kind} has no counterpart here")
    return [], 0


def _dicts(plain: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - JSON
    return [one for one in plain if isinstance(one, dict)] if isinstance(plain, list) else []


def _stall(name: str, share: float, hold_s: float, stage: Stage) -> Trigger:
    hold_ns = int(min(hold_s, HOLD_S_MAX) * SECOND)
    return Trigger(name, stage, (above(Signal.STALL_FULL, share, 10 * SECOND),), hold_ns)


def _left(used: str) -> Limit | None:
    """Turn "90 % used" into "less than 10 % left"; systemd takes per mille and more too."""
    limit = percent(used.removesuffix("%"))
    if limit is None or limit.share is None or not used.endswith("%"):
        return None
    return Limit(round(1 - limit.share, 6))


def _seconds(text: str) -> float | None:
    units = {"": 1.0, "s": 1.0, "sec": 1.0, "ms": 0.001, "min": 60.0, "m": 60.0}
    match = re.fullmatch(r"([0-9.]+)\s*([a-z]*)", text.strip())
    if match is None or match[2] not in units:
        return None
    try:
        return float(match[1]) * units[match[2]]
    except ValueError:
        return None


def _ini(text: str) -> list[tuple[str, str]]:
    pairs = []
    for line in text.splitlines():
        name, sign, held = line.strip().partition("=")
        if sign and name[:1] not in "#;[":
            pairs.append((name.strip(), held.strip()))
    return pairs


def _without_comments(text: str) -> str:
    """Drop // and /* */ outside of strings."""
    pattern = re.compile(r'("(?:\\.|[^"\\])*")|//[^\n]*|/\*.*?\*/', re.DOTALL)
    return pattern.sub(lambda match: match[1] or "", text)
