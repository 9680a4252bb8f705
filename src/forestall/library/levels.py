"""The user's thresholds as the core's level rules."""

from __future__ import annotations

from itertools import pairwise

from forestall.core.model import Level
from forestall.core.rules import DEFAULT_RULES, LevelRule, Rules
from forestall.core.value import TYPE_CHECKING, replace

if TYPE_CHECKING:
    from collections.abc import Mapping

_EVERYTHING_BYTES = 1 << 63
_NAMES = tuple(rule.level.value for rule in DEFAULT_RULES.levels)


def rules_for(thresholds: Mapping[str, float] | None) -> Rules:
    """Return rules with these levels; without thresholds the guard's own defaults.

    Given thresholds are taken at their word; the defaults also ask that little
    is left in bytes, because 95 % of two terabytes is not critical.
    Raises: ValueError for an unknown level, a value outside 0 to 100, a wrong order.
    """
    if thresholds is None:
        return DEFAULT_RULES
    unknown = [name for name in thresholds if name not in _NAMES]
    if unknown:
        raise ValueError(f"there is no level {unknown[0]!r}; name {', '.join(_NAMES)}")
    levels = []
    for rule in DEFAULT_RULES.levels:
        percent = thresholds.get(rule.level.value)
        if percent is None:
            levels.append(rule)
            continue
        if not 0 < percent <= 100:
            raise ValueError(f"{rule.level.value} is {percent}: write percent, above 0, up to 100")
        levels.append(LevelRule(rule.level, percent / 100.0, _EVERYTHING_BYTES))
    for mild, harsh in pairwise(levels):
        if mild.used_share >= harsh.used_share:
            raise ValueError(f"{harsh.level.value} must lie above {mild.level.value}")
    return replace(DEFAULT_RULES, levels=tuple(levels))


LEVELS = tuple(level.value for level in Level)
