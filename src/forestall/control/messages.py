"""The control protocol: varlink, that is JSON objects with a NUL after each.

Pure: bytes to messages and back, the table of methods, and the interface
description that is generated from it, so that ``varlinkctl introspect`` tells
what the server does.
"""

from __future__ import annotations

import json

from forestall.control.errors import BadMessage, Refused
from forestall.core.value import TYPE_CHECKING, value

if TYPE_CHECKING:
    from typing import Any

INTERFACE = "org.forestall.Guard"
SERVICE = "org.varlink.service"

PERMISSION_DENIED = f"{SERVICE}.PermissionDenied"
INVALID_PARAMETER = f"{SERVICE}.InvalidParameter"
METHOD_NOT_FOUND = f"{SERVICE}.MethodNotFound"
METHOD_NOT_IMPLEMENTED = f"{SERVICE}.MethodNotImplemented"
INTERFACE_NOT_FOUND = f"{SERVICE}.InterfaceNotFound"
EXPECTED_MORE = f"{SERVICE}.ExpectedMore"
NO_SUCH_PROCESS = f"{INTERFACE}.NoSuchProcess"
RULES_REFUSED = f"{INTERFACE}.RulesRefused"
FAILED = f"{INTERFACE}.Failed"

ROOT = "root"
ANYONE = "anyone"
OWNER = "owner"
"""Root or the victim's own user; only the handler can know whose process it is."""


@value
class Method:
    """One method of the interface."""

    name: str
    signature: str
    """As the interface description has it: what goes in, ``->``, what comes out."""
    who: str
    """ROOT, ANYONE or OWNER."""
    help: str
    more: bool = False
    """Answers with a stream, and must be called with ``more``."""


METHODS = (
    Method(
        "GetStatus",
        "() -> (status: object)",
        ANYONE,
        "Level, memory, triggers, who would go and why, counters.",
    ),
    Method(
        "Monitor",
        "(since: ?int) -> (sequence: int, event: object)",
        ANYONE,
        "Events as they happen; a gap in the sequence tells what was dropped.\n"
        "With since, what is still remembered after that number comes first.",
        more=True,
    ),
    Method(
        "Reload",
        "(rules: object) -> (triggers: int)",
        ROOT,
        "Puts compiled rules in force; rules that do not decode change nothing.",
    ),
    Method(
        "End",
        "(pid: int, start_ticks: int) -> (outcome: string)",
        OWNER,
        "Ends a process, named so that a recycled number is left alone.",
    ),
    Method(
        "SetAdj",
        "(pid: int, start_ticks: int, adj: int) -> (before: int)",
        OWNER,
        "Writes a process's oom_score_adj; only root may lower it.",
    ),
    Method(
        "SetStanding",
        "(pid: int, start_ticks: int, standing: ?string) -> (before: ?string)",
        ROOT,
        "Gives a process a standing of never, avoid, normal or prefer until it ends,\n"
        "before all rules; without one, the rules count again.",
    ),
    Method(
        "GetRecord",
        "(offset: int) -> (data: string, next: int, size: int)",
        ROOT,
        "The flight recorder, base64, a piece at a time until next equals size.",
    ),
)
BY_NAME = {f"{INTERFACE}.{method.name}": method for method in METHODS}

_ERRORS = (
    "error NoSuchProcess (pid: int)",
    "error RulesRefused (reason: string)",
    "error Failed (reason: string)",
)

SERVICE_DESCRIPTION = """\
# What every varlink service answers
interface org.varlink.service

method GetInfo() -> (
  vendor: string,
  product: string,
  version: string,
  url: string,
  interfaces: []string
)

method GetInterfaceDescription(interface: string) -> (description: string)

error InterfaceNotFound (interface: string)

error MethodNotFound (method: string)

error MethodNotImplemented (method: string)

error InvalidParameter (parameter: string)

error PermissionDenied ()

error ExpectedMore ()
"""


def interface_description() -> str:
    """Return the description of our interface, generated from METHODS."""
    parts = [f"# forestall keeps a machine usable when memory runs out\ninterface {INTERFACE}\n"]
    for method in METHODS:
        comment = "".join(f"# {line}\n" for line in method.help.split("\n"))
        parts.append(f"{comment}# For: {method.who}\nmethod {method.name}{method.signature}\n")
    parts += [f"{error}\n" for error in _ERRORS]
    return "\n".join(parts)


DESCRIPTIONS = {INTERFACE: interface_description(), SERVICE: SERVICE_DESCRIPTION}


@value
class Call:
    """A request, as it came."""

    method: str
    parameters: dict[str, Any]
    more: bool
    oneway: bool


def encode(message: dict[str, Any]) -> bytes:
    """Frame a message.

    A name with bytes that are no UTF-8 shows a ``?`` for each: lone surrogates
    are not JSON, and a strict reader would drop the whole message.
    Raises: ValueError for what JSON cannot say, such as NaN.
    """
    text = json.dumps(message, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "replace") + b"\0"


def encode_reply(parameters: dict[str, Any], *, continues: bool = False) -> bytes:
    """Frame an answer.

    Raises: ValueError, as encode.
    """
    reply: dict[str, Any] = {"parameters": parameters}
    if continues:
        reply["continues"] = True
    return encode(reply)


def encode_error(name: str, parameters: dict[str, Any] | None = None) -> bytes:
    """Frame a refusal."""
    return encode({"error": name, "parameters": parameters or {}})


def encode_call(
    method: str, parameters: dict[str, Any], *, more: bool = False, oneway: bool = False
) -> bytes:
    """Frame a request."""
    call: dict[str, Any] = {"method": method, "parameters": parameters}
    if more:
        call["more"] = True
    if oneway:
        call["oneway"] = True
    return encode(call)


def decode(raw: bytes) -> dict[str, Any]:
    """Read one message, without its NUL.

    Raises: BadMessage for anything but a JSON object.
    """
    try:
        message = json.loads(raw)
    except (ValueError, RecursionError) as error:
        # UnicodeDecodeError and JSONDecodeError are ValueErrors; so is an int of 4,300 digits.
        raise BadMessage(f"not JSON: {error}") from None
    if not isinstance(message, dict):
        raise BadMessage("not a JSON object")
    return message


def decode_call(raw: bytes) -> Call:
    """Read a request.

    Raises: BadMessage.
    """
    message = decode(raw)
    method = message.get("method")
    parameters = message.get("parameters")
    parameters = {} if parameters is None else parameters
    if not isinstance(method, str) or not isinstance(parameters, dict):
        raise BadMessage("a call is a method and its parameters")
    return Call(
        method, parameters, more=message.get("more") is True, oneway=message.get("oneway") is True
    )


def take_integer(parameters: dict[str, Any], name: str) -> int:
    """Return a whole number out of a call's parameters, for handlers.

    Raises: Refused as the protocol wants it.
    """
    number = parameters.get(name)
    if isinstance(number, bool) or not isinstance(number, int):
        raise Refused(INVALID_PARAMETER, {"parameter": name})
    return number
