"""What can be set on a unit, once: options, checks, drop-in files and the help are read off this.

Rule: what systemd would only warn about and ignore is an error here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from forestall.core.wards import ADJUST_LEAST, ADJUST_MOST

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MARK = "# Written by forestall unit; forestall unit NAME --undo removes it.\n"
FILE_NAME = "50-forestall.conf"
SECTIONS = {
    "service": "Service",
    "slice": "Slice",
    "scope": "Scope",
    "socket": "Socket",
    "mount": "Mount",
    "swap": "Swap",
}
_RUNS = frozenset({"service", "socket", "mount", "swap"})
_HOLDS = _RUNS | {"slice", "scope"}
_SIZES = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
INFINITY = "infinity"


@dataclass(frozen=True, slots=True, kw_only=True)
class Directive:
    """One setting of a unit."""

    option: str
    name: str
    """As systemd writes it."""
    metavar: str
    help: str
    kinds: frozenset[str]
    """Unit types that have it."""
    since: int
    """The systemd that has it first."""
    read: Callable[[str], str]
    """Checks a value and writes it as systemd wants it; raises ValueError."""
    cgroup_file: str = ""
    """Where the kernel shows it."""
    needs_oomd: bool = False


def read_adjust(text: str) -> str:
    """Check an oom_score_adj.

    Raises: ValueError, as every reader here.
    """
    try:
        number = int(text)
    except ValueError:
        raise ValueError("write a whole number from -1000 to 1000") from None
    if not ADJUST_LEAST <= number <= ADJUST_MOST:
        raise ValueError("must lie between -1000 and 1000; systemd would ignore it")
    return str(number)


def read_size(text: str) -> str:
    """Check an amount of memory: 512M, 512MiB, 2G, 50%, infinity.

    Raises: ValueError.
    """
    if text == INFINITY:
        return text
    if text.endswith("%"):
        digits, unit = text[:-1], "%"
    else:
        bare = text.removesuffix("iB").removesuffix("B")
        digits, unit = (bare[:-1], bare[-1]) if bare[-1:] in _SIZES and bare else (bare, "")
    try:
        number = float(digits)
    except ValueError:
        raise ValueError("write a size such as 512M, 2G, 50% or infinity") from None
    if not 0 < number < float("inf") or (unit == "%" and number > 100):
        raise ValueError("must be more than nothing, and no more than 100%")
    return f"{digits}{unit}"


def read_percent(text: str) -> str:
    """Check a percentage.

    Raises: ValueError.
    """
    if not text.endswith("%"):
        raise ValueError("write a percentage, such as 60%")
    return read_size(text)


def one_of(*words: str) -> Callable[[str], str]:
    """Make a reader that takes a few words."""

    def read(text: str) -> str:
        if text not in words:
            raise ValueError("write one of " + ", ".join(words))
        return text

    return read


def _memory(name: str, help: str) -> Directive:  # noqa: A002 - the field's name
    return Directive(
        option=f"--memory-{name}",
        name=f"Memory{name.capitalize()}",
        metavar="SIZE",
        help=help,
        kinds=_HOLDS,
        since=231 if name != "min" else 240,
        read=read_size,
        cgroup_file=f"memory.{name}",
    )


def _managed(
    option: str,
    name: str,
    metavar: str,
    help: str,  # noqa: A002 - the field's name
    read: Callable[[str], str],
) -> Directive:
    return Directive(
        option=f"--managed-oom-{option}",
        name=f"ManagedOOM{name}",
        metavar=metavar,
        help=help,
        kinds=_HOLDS - {"scope"} if name != "Preference" else _HOLDS,
        since=248 if name == "Preference" else 247,
        read=read,
        needs_oomd=True,
    )


DIRECTIVES = (
    Directive(
        option="--oom-score-adjust",
        name="OOMScoreAdjust",
        metavar="N",
        help="For the kernel's killer: -1000 (never) to 1000 (first).",
        kinds=_RUNS,
        since=0,
        read=read_adjust,
    ),
    Directive(
        option="--oom-policy",
        name="OOMPolicy",
        metavar="continue|stop|kill",
        help="When the kernel ends one of its processes: go on, stop it, or end all of it.",
        kinds=frozenset({"service", "scope"}),
        since=243,
        read=one_of("continue", "stop", "kill"),
    ),
    _memory("min", "Never reclaimed from it, whatever happens."),
    _memory("low", "Reclaimed from it only when nobody else has any."),
    _memory("high", "From here on it is slowed down."),
    _memory("max", "At this the kernel ends something in it."),
    _managed("swap", "Swap", "auto|kill", "systemd-oomd on swap.", one_of("auto", "kill")),
    _managed(
        "memory-pressure",
        "MemoryPressure",
        "auto|kill",
        "systemd-oomd on memory pressure.",
        one_of("auto", "kill"),
    ),
    _managed(
        "memory-pressure-limit",
        "MemoryPressureLimit",
        "PERCENT",
        "The pressure at which systemd-oomd acts.",
        read_percent,
    ),
    _managed(
        "preference",
        "Preference",
        "none|avoid|omit",
        "How systemd-oomd treats it as a victim.",
        one_of("none", "avoid", "omit"),
    ),
)
BY_NAME: Mapping[str, Directive] = {directive.name: directive for directive in DIRECTIVES}


def size_bytes(text: str) -> int | None:
    """Return what a size means; None for a percentage or for no limit."""
    if text == INFINITY or text.endswith("%"):
        return None
    unit = text[-1] if text[-1] in _SIZES else ""
    return int(float(text.removesuffix(unit)) * _SIZES[unit])


def render(settings: Mapping[str, str], kind: str) -> str:
    """Write a drop-in file."""
    lines = [f"{name}={settings[name]}\n" for name in BY_NAME if name in settings]
    return MARK + f"[{SECTIONS[kind]}]\n" + "".join(lines)


def parse(text: str) -> dict[str, str] | None:
    """Read a drop-in file of ours; None when it is not, or not any more, as we wrote it."""
    lines = text.removeprefix(MARK).splitlines()
    section = lines[0].strip("[]") if lines else ""
    kind = next((kind for kind, title in SECTIONS.items() if title == section), None)
    pairs = (line.partition("=") for line in lines[1:])
    settings = {name: held for name, _, held in pairs}
    if kind is None or not settings or render(settings, kind) != text:
        return None
    return settings
