"""Errors of the settings.

ForestallError
└── ConfigError    settings that do not make rules; carries every problem found
    └── TrustError     code or settings that others could have written
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from forestall.core.errors import ForestallError

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake, as a person needs it: where, what, and what to do."""

    file: str
    key: str
    """Dotted, such as ``timing.grace``; empty when the file as a whole is at fault."""
    what: str
    hint: str = ""

    def __str__(self) -> str:
        where = f"{self.file}: {self.key}" if self.key else self.file
        return f"{where}: {self.what}" + (f" ({self.hint})" if self.hint else "")


class ConfigError(ForestallError):
    """Settings that do not make rules."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class TrustError(ConfigError):
    """Code or settings that somebody other than root could have written."""
