"""Errors of replay.

ForestallError
└── BadRecord    a file that is no record, or one that this version cannot read
"""

from __future__ import annotations

from forestall.core.errors import ForestallError


class BadRecord(ForestallError):
    """The file is no record of the guard's, or not one that can be read here."""
