"""Errors of the core.

ForestallError
├── CodecError    a record does not decode
└── RuleError     a victim rule that cannot be understood
"""


class ForestallError(Exception):
    """Root of every error this project raises on purpose."""


class CodecError(ForestallError):
    """Plain data that is not a value of the policy."""


class RuleError(ForestallError):
    """A victim rule with a pattern that is none; settings are checked before, so a slip of ours."""
