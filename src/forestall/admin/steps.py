"""Things to do that can say themselves before they are done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do."""

    text: str
    perform: Callable[[], None]
