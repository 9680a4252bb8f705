"""Errors of herald.

ForestallError
└── HeraldError
    ├── SecretError    a secret is missing, or others could read it
    └── MissingPart    an optional library is not installed
"""

from __future__ import annotations

from forestall.core.errors import ForestallError


class HeraldError(ForestallError):
    """Something about alerts."""


class SecretError(HeraldError):
    """A secret that is missing, or that others could read; never says what it is."""


class MissingPart(HeraldError):
    """An optional library is not installed; the message says how to get it."""
