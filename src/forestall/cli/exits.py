"""Exit codes, once: raised by ``main``, printed in docs/exit-codes.md."""

from __future__ import annotations

from typing import NamedTuple


class Exit(NamedTuple):
    """One exit code."""

    code: int
    name: str
    meaning: str


FINE = Exit(0, "fine", "It worked, and nothing is wrong.")
PROBLEM = Exit(1, "problem", "It worked, and found a problem; or the guard refused.")
USAGE = Exit(2, "usage", "The command line makes no sense; the message says what to write.")
SETTINGS = Exit(3, "settings", "The settings are wrong; every problem is printed.")
KERNEL = Exit(4, "kernel", "This kernel, or what we are allowed here, cannot do it.")
UNREACHABLE = Exit(5, "unreachable", "The guard does not run, or does not answer in time.")
INTERNAL = Exit(70, "internal", "A mistake of forestall's own; please report it.")
INTERRUPTED = Exit(130, "interrupted", "Stopped from the keyboard.")

EXITS = (FINE, PROBLEM, USAGE, SETTINGS, KERNEL, UNREACHABLE, INTERNAL, INTERRUPTED)


def exits_markdown() -> str:
    """Return the whole of ``docs/exit-codes.md``."""
    lines = [
        "# Exit codes",
        "",
        "*Generated from `src/forestall/cli/exits.py`; edit that and run `make docs`.*",
        "",
        "| code | name | meaning |",
        "| --- | --- | --- |",
        *(f"| {row.code} | {row.name} | {row.meaning} |" for row in EXITS),
    ]
    return "\n".join(lines) + "\n"
