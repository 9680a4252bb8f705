"""Errors of the control socket.

ForestallError
└── ControlError
    ├── Unreachable      nobody answers, or not in time: exit code 5
    ├── BadMessage       what came is not the protocol
    └── Refused          the guard answered with an error, or a handler refuses
"""

from __future__ import annotations

from forestall.core.errors import ForestallError
from forestall.core.value import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any


class ControlError(ForestallError):
    """Root of what can go wrong between a client and the guard."""


class Unreachable(ControlError):
    """The guard does not answer."""


class BadMessage(ControlError):
    """Bytes that are not the protocol; the connection is of no more use."""


class Refused(ControlError):
    """The answer is an error; raised by handlers, and again in the client.

    Args:
        name: Full name, such as ``org.forestall.Guard.NoSuchProcess``.
        parameters: What the interface description promises for it.
    """

    def __init__(self, name: str, parameters: dict[str, Any] | None = None) -> None:
        self.name = name
        self.parameters = parameters or {}
        facts = ", ".join(f"{key}: {item}" for key, item in self.parameters.items())
        super().__init__(name.rpartition(".")[2] + (f" ({facts})" if facts else ""))
