"""What an event carries, once: the guard fills it in, herald reads it, docs/events.md is this.

Rule: fields are added, never renamed and never given another meaning; a change
that breaks a reader raises SCHEMA.
"""

from __future__ import annotations

from forestall.core.value import value

SCHEMA = 1


@value
class Field:
    """One field of an event."""

    name: str
    kind: str
    """As JSON has it: text, integer, number, or list."""
    help: str
    by: str = "guard"
    """Who fills it in: the guard; or herald, which has the time for it."""


FIELDS = (
    Field("schema", "integer", f"Version of this table; now {SCHEMA}."),
    Field("run", "text", "One life of the guard; sequence numbers count within it, from 1."),
    Field("sequence", "integer", "Number of the event; a step of more than one is a loss."),
    Field("what", "text", "The kind of event, see below."),
    Field("sentence", "text", "All of it in words; names in it are harmless already."),
    Field("level", "text", "normal, low, medium or critical."),
    Field("time_ns", "integer", "Time of day, nanoseconds since 1970, UTC."),
    Field("monotonic_ns", "integer", "CLOCK_MONOTONIC, to order and to subtract."),
    Field("trigger", "text", "Name of the trigger that held, or empty."),
    Field("name", "text", "Process the event is about, as the kernel keeps its name; or empty."),
    Field("pid", "integer", "Its process ID, if the event is about one."),
    Field("start_ticks", "integer", "Its start time: with the pid it names one process for good."),
    Field("time_left_ns", "integer", "How long until memory is exhausted, if it can be told."),
    Field("used_share", "number", "Memory in use, 0 to 1: 1 - available / total."),
    Field("swap_used_share", "number", "Swap in use, 0 to 1; absent without swap."),
    Field("available_bytes", "integer", "Memory that can be handed out without swapping."),
    Field("total_bytes", "integer", "Memory of the machine, or of what confines us."),
    Field("swap_total_bytes", "integer", "Size of swap; 0 without."),
    Field("likely_name", "text", "Who would go if something had to go; from the last survey."),
    Field("likely_pid", "integer", "Its process ID."),
    Field("likely_start_ticks", "integer", "Its start time."),
    Field("likely_frees_bytes", "integer", "What its end would free."),
    Field(
        "top",
        "list",
        "Up to five processes of more than 1 % of memory, largest first: "
        "pid, name, share; seen when herald received the event.",
        by="herald",
    ),
    Field("host", "text", "The machine's name.", by="herald"),
)
