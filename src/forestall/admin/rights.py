"""Whether we may do what we are asked to, said before anything is begun."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from forestall.admin.errors import NotPermitted

if TYPE_CHECKING:
    from collections.abc import Callable


def require_root(what: str, *, effective_uid: Callable[[], int] = os.geteuid) -> None:
    """Check that we are root.

    Args:
        what: What is to be done, as the beginning of a sentence.

    Raises: NotPermitted naming what is missing.
    """
    if effective_uid() != 0:
        raise NotPermitted(f"{what} takes root; try sudo")
