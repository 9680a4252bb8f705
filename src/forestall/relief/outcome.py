"""What a cleanup says before and after. Rule: a gain is measured, and a refusal has its reason."""

from __future__ import annotations

from forestall.core.value import TYPE_CHECKING, value

if TYPE_CHECKING:
    from typing import TypeAlias


@value
class Plan:
    """What would be done, and gained."""

    action: str
    gain_bytes: int
    """Expected; at most."""
    sentence: str


@value
class Done:
    """What was done, and really gained."""

    action: str
    gained_bytes: int
    sentence: str


@value
class Refusal:
    """It was not done, or not to its end; for people."""

    action: str
    why: str

    @property
    def sentence(self) -> str:
        """The reason as a whole sentence."""
        return f"{self.action} was not done: {self.why}"


if TYPE_CHECKING:
    Outcome: TypeAlias = Done | Refusal
