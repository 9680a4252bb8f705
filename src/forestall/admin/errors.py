"""Errors of administration.

ForestallError
└── AdminError         the change cannot be made; nothing was changed, or what was is undone
    └── NotPermitted   we lack a right; the message names it
"""

from __future__ import annotations

from forestall.core.errors import ForestallError


class AdminError(ForestallError):
    """A change that cannot be made; the message says why, and what to do."""


class NotPermitted(AdminError):
    """A right is missing; the message names it."""
