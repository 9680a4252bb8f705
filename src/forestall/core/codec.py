"""Values to plain data and back, so that records, hand-over and replay share one form.

Plain data is what JSON and marshal hold: None, bool, int, float, str, lists and
dicts with string keys. A value becomes ``{"_": class name, field: …}``, an enum
member ``{"_": class name, "is": name}``, a mapping ``{"_": "dict", "of": pairs}``.
Round trip: ``decode(encode(x)) == x`` for everything the policy passes.
"""

from __future__ import annotations

from enum import Enum

from forestall.core import events, model, rules
from forestall.core.errors import CodecError
from forestall.core.value import TYPE_CHECKING, fields_of

if TYPE_CHECKING:
    from typing import Any

_CLASSES: dict[str, type] = {}


def register(*classes: type) -> None:
    """Make classes known to ``decode``; the policy's states add themselves."""
    for cls in classes:
        _CLASSES[cls.__name__] = cls


for _module in (model, rules, events):
    register(
        *(
            member
            for member in vars(_module).values()
            if isinstance(member, type) and member.__module__ == _module.__name__
        )
    )


def encode(thing: Any) -> Any:  # noqa: ANN401 - plain data of any depth
    """Turn a value into plain data.

    Raises: CodecError for anything that is neither plain nor a registered value.
    """
    if thing is None or isinstance(thing, bool | int | float | str):
        return thing
    cls = thing.__class__
    if cls is tuple or cls is list:
        return [encode(item) for item in thing]
    if isinstance(thing, Enum):
        return {"_": cls.__name__, "is": thing.name}
    if cls is dict:
        return {"_": "dict", "of": [[encode(key), encode(item)] for key, item in thing.items()]}
    if cls is frozenset:
        return {"_": "set", "of": [encode(item) for item in sorted(thing)]}
    if cls.__name__ not in _CLASSES:
        raise CodecError(f"{cls.__name__} is not a value of the policy")
    plain = {"_": cls.__name__}
    for name in fields_of(cls):
        plain[name] = encode(getattr(thing, name))
    return plain


def decode(plain: Any) -> Any:  # noqa: ANN401 - plain data of any depth
    """Turn plain data back into the value it was made from.

    Raises: CodecError for an unknown class, a field too many, or one too few.
    """
    try:
        return _decode(plain)
    except RecursionError:
        raise CodecError("nested too deeply") from None


def _decode(plain: Any) -> Any:  # noqa: ANN401 - plain data of any depth
    if isinstance(plain, list):
        return tuple([_decode(item) for item in plain])
    if not isinstance(plain, dict):
        return plain
    name = plain.get("_")
    try:
        if name == "dict":
            return {_decode(key): _decode(item) for key, item in plain["of"]}
        if name == "set":
            return frozenset([_decode(item) for item in plain["of"]])
        cls = _CLASSES.get(name) if isinstance(name, str) else None
        if cls is None:
            raise CodecError(f"unknown class {name!r}")
        if issubclass(cls, Enum):
            return cls[plain["is"]]
        return cls(**{field: _decode(item) for field, item in plain.items() if field != "_"})
    except (TypeError, KeyError, ValueError) as error:
        raise CodecError(f"{name}: {error}") from None
