"""Errors of the core.

ForestallError
└── CodecError    a record does not decode
"""


class ForestallError(Exception):
    """Root of every error this project raises on purpose."""


class CodecError(ForestallError):
    """Plain data that is not a value of the policy."""
