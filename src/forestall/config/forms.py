"""How values are written in settings: one form per kind, read and rendered side by side.

Rule: a parser raises ValueError with a sentence for the person who wrote the
value, and every parser reads back what its renderer wrote.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from forestall.core.rules import Limit
from forestall.core.units import GIB, KIB, MIB, MINUTE, MS, SECOND, TIB, US

if TYPE_CHECKING:
    from collections.abc import Callable

_SIZE_UNITS = {"B": 1, "KiB": KIB, "MiB": MIB, "GiB": GIB, "TiB": TIB}
_TIME_UNITS = {"ns": 1, "us": US, "ms": MS, "s": SECOND, "min": MINUTE, "h": 60 * MINUTE}
_TEXT_CHARACTERS_MAX = 4096


@dataclass(frozen=True, slots=True)
class Form:
    """A way to write a value."""

    name: str
    """In a word, for the documentation."""
    example: str
    """As it stands in TOML, quotes included."""
    parse: Callable[[Any], Any]
    render: Callable[[Any], str]
    """To TOML; reads back as the same value."""


def parse_share(raw: object) -> float:
    """Read ``"5%"`` as 0.05; 0 % to 100 % inclusive.

    Raises: ValueError, as every parser here.
    """
    text = _text(raw, "a percentage", '"5%"')
    if not text.endswith("%"):
        raise ValueError('write a percentage, such as "5%"')
    share = _number(text[:-1], "a percentage", '"5%"') / 100
    if not 0 <= share <= 1:
        raise ValueError("must lie between 0% and 100%")
    return share


def parse_size(raw: object) -> int:
    """Read ``"256MiB"`` as bytes; units are binary and always written.

    Raises: ValueError.
    """
    text = _text(raw, "a size", '"256MiB"')
    digits, unit = _split_unit(text)
    if unit not in _SIZE_UNITS:
        raise ValueError(_unit_hint("size", unit, tuple(_SIZE_UNITS), "256MiB"))
    return _whole(_number(digits, "a size", '"256MiB"') * _SIZE_UNITS[unit])


def parse_duration(raw: object) -> int:
    """Read ``"2.5s"`` as nanoseconds; the unit is always written.

    Raises: ValueError.
    """
    text = _text(raw, "a duration", '"5s"')
    digits, unit = _split_unit(text)
    if unit not in _TIME_UNITS:
        raise ValueError(_unit_hint("time", unit, tuple(_TIME_UNITS), "5s"))
    return _whole(_number(digits, "a duration", '"5s"') * _TIME_UNITS[unit])


def parse_limit(raw: object) -> Limit:
    """Read ``"2%"``, ``"256MiB"``, ``"min(2%, 256MiB)"`` or ``"max(…)"``.

    Raises: ValueError.
    """
    text = _text(raw, "a limit", '"min(2%, 256MiB)"')
    head, bracket, tail = text.partition("(")
    if not bracket:
        return Limit(parse_share(text)) if text.endswith("%") else Limit(None, parse_size(text))
    pick = head.strip()
    if pick not in {"min", "max"} or not tail.endswith(")"):
        raise ValueError("write min(2%, 256MiB), max(2%, 256MiB), 2% or 256MiB")
    parts = [part.strip() for part in tail[:-1].split(",")]
    shares = [part for part in parts if part.endswith("%")]
    sizes = [part for part in parts if not part.endswith("%")]
    if len(shares) != 1 or len(sizes) != 1:
        raise ValueError(f"{pick} takes one percentage and one size, as in {pick}(2%, 256MiB)")
    return Limit(parse_share(shares[0]), parse_size(sizes[0]), smaller=pick == "min")


def parse_flag(raw: object) -> bool:
    """Read true or false.

    Raises: ValueError.
    """
    if not isinstance(raw, bool):
        raise ValueError("write true or false, without quotes")
    return raw


def parse_integer(raw: object) -> int:
    """Read a whole number.

    Raises: ValueError.
    """
    if isinstance(raw, bool) or not isinstance(raw, int):
        raise ValueError("write a whole number, without quotes")
    return raw


def parse_path(raw: object) -> str:
    """Read an absolute path.

    Raises: ValueError.
    """
    text = _text(raw, "a path", '"/var/lib/forestall"')
    if not text.startswith("/") or "\0" in text or "/../" in f"{text}/":
        raise ValueError("write an absolute path without ..")
    return text


def parse_text(raw: object) -> str:
    """Read a text that is not empty.

    Raises: ValueError.
    """
    text = _text(raw, "a text", '"…"')
    if not text:
        raise ValueError("must not be empty")
    return text


def choice(*names: str) -> Form:
    """Make the form of a setting that takes one of a few words."""

    def parse(raw: object) -> str:
        text = _text(raw, "one of " + ", ".join(names), f'"{names[0]}"')
        if text not in names:
            raise ValueError("write one of " + ", ".join(names))
        return text

    return Form("one of " + ", ".join(names), f'"{names[0]}"', parse, render_text)


def render_text(text: str) -> str:
    """Write a TOML string; TOML's escapes are JSON's, but for DEL, which TOML wants escaped."""
    body = "".join(
        _ESCAPES.get(char) or (char if char.isprintable() else _escape(char)) for char in text
    )
    return f'"{body}"'


def render_share(share: float) -> str:
    """Write 0.05 as ``"5%"``."""
    return f'"{share_text(share)}"'


def render_size(size_bytes: int) -> str:
    """Write bytes in the largest unit that keeps them whole."""
    return f'"{size_text(size_bytes)}"'


def render_duration(duration_ns: float) -> str:
    """Write nanoseconds in the largest unit that keeps them short."""
    return f'"{duration_text(duration_ns)}"'


def render_limit(limit: Limit) -> str:
    """Write a limit as the settings have it."""
    return f'"{limit_text(limit)}"'


def render_plain(thing: object) -> str:
    """Write a number or a flag."""
    return str(thing).lower()


def share_text(share: float) -> str:
    """Write 0.05 as ``5%``."""
    # repr would show 0.07 * 100 as 7.000000000000001; twelve digits read back as the same share.
    return f"{float(f'{share * 100:.12g}'):.12g}%"


def size_text(size_bytes: int) -> str:
    """Write 268435456 as ``256MiB``."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size_bytes and size_bytes % _SIZE_UNITS[unit] == 0:
            return f"{size_bytes // _SIZE_UNITS[unit]}{unit}"
    return f"{size_bytes}B"


def duration_text(duration_ns: float) -> str:
    """Write 2500000000 as ``2.5s``; nothing is rounded away."""
    whole_ns = int(duration_ns)
    if SECOND <= whole_ns < 1000 * SECOND and whole_ns % SECOND and whole_ns % MS == 0:
        return f"{whole_ns / SECOND:.6g}s"
    if not whole_ns:
        return "0s"
    for unit in ("h", "min", "s", "ms", "us"):
        if whole_ns % _TIME_UNITS[unit] == 0:
            return f"{whole_ns // _TIME_UNITS[unit]}{unit}"
    return f"{whole_ns}ns"


def limit_text(limit: Limit) -> str:
    """Write a limit without quotes, as conditions have it."""
    if limit.share is None:
        return size_text(limit.size_bytes or 0)
    if limit.size_bytes is None:
        return share_text(limit.share)
    pick = "min" if limit.smaller else "max"
    return f"{pick}({share_text(limit.share)}, {size_text(limit.size_bytes)})"


SHARE = Form("percentage", '"5%"', parse_share, render_share)
SIZE = Form("size", '"256MiB"', parse_size, render_size)
DURATION = Form("duration", '"5s"', parse_duration, render_duration)
LIMIT = Form("limit", '"min(2%, 256MiB)"', parse_limit, render_limit)
FLAG = Form("true or false", "true", parse_flag, render_plain)
INTEGER = Form("whole number", "0", parse_integer, render_plain)
PATH = Form("path", '"/var/lib/forestall"', parse_path, render_text)

_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def _escape(char: str) -> str:
    code = ord(char)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _text(raw: object, what: str, example: str) -> str:
    if not isinstance(raw, str):
        raise ValueError(f"write {what} in quotes, such as {example}")
    if len(raw) > _TEXT_CHARACTERS_MAX:
        raise ValueError(f"longer than {_TEXT_CHARACTERS_MAX} characters")
    return raw.strip()


def _number(digits: str, what: str, example: str) -> float:
    # float() would also take "nan", "1_0" and the digits of other scripts.
    bare = digits.strip()
    if not bare.isascii() or not bare.replace(".", "", 1).isdigit():
        raise ValueError(f"{bare!r} is no number; write {what} such as {example}")
    number = float(bare)
    if not math.isfinite(number):
        raise ValueError("is too large")
    return number


def _whole(amount: float) -> int:
    if amount >= 2**63:
        raise ValueError("is too large")
    return round(amount)


def _split_unit(text: str) -> tuple[str, str]:
    digits = text.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ%")
    return digits, text[len(digits) :]


def _unit_hint(what: str, unit: str, units: tuple[str, ...], example: str) -> str:
    listed = ", ".join(units)
    if not unit:
        return f"a unit is missing; write {listed}, as in {example}"
    binary = {"K": "KiB", "KB": "KiB", "M": "MiB", "MB": "MiB", "G": "GiB", "GB": "GiB"}
    times = {"SEC": "s", "SECONDS": "s", "M": "min", "MINUTES": "min", "MSEC": "ms"}
    meant = (binary if what == "size" else times).get(unit.upper())
    ask = f"; did you mean {meant}?" if meant else f"; write {listed}, as in {example}"
    return f"{unit!r} is no unit of {what} here{ask}"
