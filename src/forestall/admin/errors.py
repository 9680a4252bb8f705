"""Errors of administration.

ForestallError
└── AdminError    the change cannot be made; nothing was changed, or what was is undone
"""

from __future__ import annotations

from forestall.core.errors import ForestallError


class AdminError(ForestallError):
    """A change that cannot be made; the message says why, and what to do."""
