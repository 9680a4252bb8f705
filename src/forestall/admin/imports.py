"""Another killer's settings as ours, and a line for each thing that has no place here. Pure.

Rule: nothing is dropped in silence, and what comes out reads back as settings
without a problem.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from forestall.config import forms
from forestall.config.errors import ConfigError
from forestall.config.read import load_text
from forestall.config.triggers import render_trigger
from forestall.core.model import Stage
from forestall.core.rules import Condition, Limit, Trigger, available, swap_free
from forestall.core.units import KIB

_POSIX_CLASS = re.compile(r"\[:[a-z]+:\]")


@dataclass(slots=True)
class Imported:
    """What was understood of a peer's settings."""

    peer: str
    source: str
    triggers: list[Trigger] = field(default_factory=list)
    lists: dict[str, list[str]] = field(default_factory=dict)
    """Entries of [victims] as TOML, by list."""
    plain: dict[str, str] = field(default_factory=dict)
    """Other settings as TOML, by dotted key."""
    lost: list[str] = field(default_factory=list)
    """What cannot be carried over, each with what there is instead."""
    notes: list[str] = field(default_factory=list)
    """What means something else here, although it was carried over."""

    def entry(self, name: str, field_name: str, pattern: str, written: str) -> None:
        """Add a pattern to a list of victims, if it is one here too."""
        if _POSIX_CLASS.search(pattern):
            self.lost.append(f"{written}: [[:classes:]] are POSIX's; write the characters out")
            return
        text = forms.render_text(pattern)
        row = text if field_name == "name" else f"{{ {field_name} = {text} }}"
        trial = f"[victims]\n{name} = [{row}]\n"
        try:
            load_text(trial)
        except ConfigError as error:
            self.lost.append(f"{written}: {error.problems[0].what}")
            return
        self.lists.setdefault(name, []).append(row)

    def to_toml(self) -> str:
        """Write the settings file."""
        lines = [f"# From {self.peer}: {_line(self.source)}"]
        lines += [f"# {_line(note)}" for note in self.notes]
        lines += [f"# Not carried over: {_line(what)}" for what in self.lost]
        for section in dict.fromkeys(key.partition(".")[0] for key in self.plain):
            lines += ["", f"[{section}]"]
            for key, held in self.plain.items():
                if key.startswith(f"{section}."):
                    lines.append(f"{key.partition('.')[2]} = {held}")
        if self.lists:
            lines += ["", "[victims]"]
            for name, rows in self.lists.items():
                lines += [f"{name} = [", *(f"  {row}," for row in rows), "]"]
        for trigger in self.triggers:
            lines += ["", *render_trigger(trigger)]
        return "\n".join(lines) + "\n"


def when_low(memory: Limit, swap: Limit | None) -> tuple[Condition, ...]:
    """Write "little memory, and little swap" as conditions; swap None is not asked about."""
    return (available(memory),) if swap is None else (available(memory), swap_free(swap))


def standard(soft: tuple[Limit, Limit | None], hard: tuple[Limit, Limit | None]) -> list[Trigger]:
    """Make the pair that every peer has, under the names of our own pair."""
    return [
        Trigger("exhausted", Stage.KILL, when_low(*hard)),
        Trigger("nearly-exhausted", Stage.TERMINATE, when_low(*soft)),
    ]


def percent(text: str) -> Limit | None:
    """Read a percentage as a limit; None where it is none, or is always true."""
    try:
        share = float(text) / 100
    except ValueError:
        return None
    return Limit(share) if 0 <= share < 1 else None


def kib(text: str) -> Limit | None:
    """Read a number of KiB as a limit."""
    return Limit(None, int(text) * KIB) if text.isdigit() else None


def _line(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)
