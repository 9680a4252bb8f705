"""Before the signal: does a choice of some moments ago still fit?"""

from __future__ import annotations

from forestall.core.events import CONFIRM, Missed
from forestall.core.units import human_bytes
from forestall.core.value import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from forestall.core.events import End
    from forestall.core.model import ProcessId


def objection(
    request: End, now_ns: int, held_bytes: Callable[[Sequence[ProcessId]], int]
) -> Missed | None:
    """Say why an end must not be carried out; None where nothing speaks against it.

    Args:
        held_bytes: What these still hold, ``ProcessTable.confirm``; asked only where the
            request says how much it must be.
    """
    if not request.least_bytes:
        return None
    held = held_bytes(request.victims)
    if held >= request.least_bytes:
        return None
    why = f"it holds {human_bytes(held)} now, less than when it was chosen"
    return Missed(now_ns, CONFIRM, why)
