"""What can go wrong in the arena, besides a guard doing the wrong thing.

ArenaError
├── HostError     the host lacks a tool, a permission or a file
├── BuildError    the guest image could not be made
├── PlanError     a scenario that cannot be staged as written
└── ResultError   a stored result that cannot be read
"""

from __future__ import annotations


class ArenaError(Exception):
    """Anything the arena wants to tell a person without a traceback."""


class HostError(ArenaError):
    """The host lacks something; the message says how to get it."""


class BuildError(ArenaError):
    """Building the guest failed; the message ends with the tool's own words."""


class PlanError(ArenaError):
    """A scenario contradicts itself or asks for what the monitor cannot do."""


class ResultError(ArenaError):
    """A stored result is damaged or of another format."""
