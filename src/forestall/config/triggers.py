"""The tables of ``[triggers.NAME]``: to triggers and back.

A table under the name of a default trigger changes what it names and keeps the
rest; a new name needs ``stage`` and ``when``; ``enabled = false`` takes one out.
Two more are known by name and off until they are named: the seed's clean-up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from forestall.config import forms
from forestall.config.conditions import parse_condition, render_condition
from forestall.config.suggest import did_you_mean
from forestall.core.model import Stage
from forestall.core.rules import DEFAULT_TRIGGERS, Limit, Trigger, available, swap_free
from forestall.core.units import MINUTE, SECOND

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from forestall.core.rules import Condition

T = TypeVar("T")

TRIGGERS_MAX = 64
CONDITIONS_MAX = 16
HOLD_NS_MAX = 10 * MINUTE
NAME_CHARACTERS_MAX = 40


@dataclass(frozen=True, slots=True)
class TriggerKey:
    """One key of a trigger's table."""

    name: str
    example: str
    help: str


KEYS = (
    TriggerKey("stage", '"kill"', "What to do: " + ", ".join(stage.value for stage in Stage) + "."),
    TriggerKey("when", '["available < 5%", "swap_free < 10%"]', "Conditions; all hold at once."),
    TriggerKey("for", '"1s"', "How long they must hold; absent means at once."),
    TriggerKey(
        "action",
        '"page-cache"',
        'At the stage relieve: `"page-cache"`, `"swap"`, `"reclaim"` (cold cgroups, if absent) or '
        '`"cgroup PATH"`. Each is refused, with the reason, where it would harm.',
    ),
    TriggerKey("enabled", "false", "False takes the trigger out."),
)
_KEY_NAMES = tuple(key.name for key in KEYS)
OPTIONAL_TRIGGERS = (
    Trigger(
        "cache-at-medium",
        Stage.RELIEVE,
        (available(Limit(0.15)),),
        hold_ns=5 * SECOND,
        action="page-cache",
    ),
    Trigger(
        "swap-above-half",
        Stage.RELIEVE,
        (available(Limit(0.15)), swap_free(Limit(0.50))),
        hold_ns=5 * SECOND,
        action="swap",
    ),
)
"""Known by name and off, until a table with their name is there; the seed's clean-up."""
_DEFAULTS = {trigger.name: trigger for trigger in (*DEFAULT_TRIGGERS, *OPTIONAL_TRIGGERS)}
_ACTIONS = ("page-cache", "swap", "reclaim")
_CGROUP = "cgroup "
_STAGES = {stage.value: stage for stage in Stage}


def is_name(name: str) -> bool:
    """Tell whether a trigger may be called so: short, letters, digits, - and _."""
    plain = name.replace("-", "").replace("_", "")
    return plain.isascii() and plain.isalnum() and len(name) <= NAME_CHARACTERS_MAX


def read_trigger(name: str, table: Mapping[str, Any]) -> tuple[Trigger | None, dict[str, str]]:
    """Read one trigger's merged table.

    Returns: The trigger, None if it is switched off or wrong; and what is
    wrong, by key.
    """
    wrong: dict[str, str] = {}
    default = _DEFAULTS.get(name)
    if not is_name(name):
        wrong[""] = "name triggers with letters, digits, - and _, at most 40 of them"
    for key in table:
        if key not in _KEY_NAMES:
            wrong[key] = f"is no key of a trigger{did_you_mean(key, _KEY_NAMES)}"
    enabled = _take(table, "enabled", wrong, forms.parse_flag, fallback=True)
    stage = _take(table, "stage", wrong, _stage, fallback=default.stage if default else None)
    hold_ns = _take(table, "for", wrong, _hold, fallback=default.hold_ns if default else 0)
    action = _take(table, "action", wrong, _action, fallback=default.action if default else "")
    if "action" in table and stage is not Stage.RELIEVE:
        wrong.setdefault("action", 'goes with stage = "relieve"')
    conditions = default.conditions if default else ()
    if "when" in table:
        conditions = _conditions(table["when"], wrong)
    if not default and table.get("enabled") is not False:
        for key in ("stage", "when"):
            if key not in table:
                wrong[key] = f"is missing{_maybe_default(name)}"
    if wrong or not enabled or stage is None:
        return None, wrong
    return Trigger(
        name, stage, conditions, hold_ns, action if stage is Stage.RELIEVE else ""
    ), wrong


def render_trigger(trigger: Trigger) -> list[str]:
    """Write a trigger as the lines of its table."""
    lines = [f"[triggers.{trigger.name}]", f'stage = "{trigger.stage.value}"', "when = ["]
    for condition in trigger.conditions:
        lines.append(f"  {forms.render_text(render_condition(condition))},")
    lines.append("]")
    if trigger.hold_ns:
        lines.append(f"for = {forms.render_duration(trigger.hold_ns)}")
    if trigger.action:
        lines.append(f"action = {forms.render_text(trigger.action)}")
    return lines


def _take(
    table: Mapping[str, Any],
    key: str,
    wrong: dict[str, str],
    parse: Callable[[object], T],
    *,
    fallback: T,
) -> T:
    if key not in table:
        return fallback
    try:
        return parse(table[key])
    except ValueError as error:
        wrong[key] = str(error)
        return fallback


def _stage(raw: object) -> Stage | None:
    if not isinstance(raw, str) or raw not in _STAGES:
        raise ValueError("write one of " + ", ".join(f'"{name}"' for name in _STAGES))
    return _STAGES[raw]


def _action(raw: object) -> str:
    if isinstance(raw, str):
        path = raw.removeprefix(_CGROUP)
        if raw in _ACTIONS or (raw.startswith(_CGROUP) and path.strip() and ".." not in path):
            return raw
    raise ValueError('write one of "page-cache", "swap", "reclaim", "cgroup PATH"')


def _hold(raw: object) -> int:
    hold_ns = forms.parse_duration(raw)
    if hold_ns > HOLD_NS_MAX:
        raise ValueError(f"must lie at {forms.duration_text(HOLD_NS_MAX)} or below")
    return hold_ns


def _conditions(raw: object, wrong: dict[str, str]) -> tuple[Condition, ...]:
    if not isinstance(raw, list) or not raw:
        wrong["when"] = 'write a list of conditions, such as ["available < 5%"]'
        return ()
    if len(raw) > CONDITIONS_MAX:
        wrong["when"] = f"more than {CONDITIONS_MAX} conditions"
        return ()
    conditions = []
    for place, item in enumerate(raw):
        try:
            conditions.append(parse_condition(item))
        except ValueError as error:
            wrong[f"when[{place}]"] = str(error)
    return tuple(conditions)


def _maybe_default(name: str) -> str:
    near = did_you_mean(name, _DEFAULTS)
    return near if "did you mean" in near else ""
