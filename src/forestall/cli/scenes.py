"""What scores and explain and top have in common: the rules, the guard's word, plain documents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forestall.cli.link import connect
from forestall.config.errors import ConfigError
from forestall.config.read import load
from forestall.control.errors import ControlError
from forestall.core.rules import DEFAULT_RULES
from forestall.core.sentence import plain

if TYPE_CHECKING:
    from forestall.core.rules import Rules
    from forestall.inspect.looking import NextVictim, Scored
    from forestall.inspect.ranking import Choice
    from forestall.inspect.scores import Scene

GUARD_TIMEOUT_S = 1.0


def rules_here() -> tuple[Rules, str]:
    """Return the rules of this machine's settings, and a note where they cannot be used."""
    try:
        return load().rules, ""
    except ConfigError as error:
        count = len(error.problems)
        return DEFAULT_RULES, (
            f"The settings have {count} problem{'s' * (count != 1)}, so the built-in rules were "
            "asked; see `forestall config check`."
        )
    except OSError as error:
        return DEFAULT_RULES, f"The settings may not be read ({error.strerror}): built-in rules."


def guard_status(path: str | None) -> dict[str, Any] | None:
    """Ask the guard how things stand; None where none answers.

    Raises: Unreachable when a path was given and nobody answers there.
    """
    try:
        with connect(path, timeout_s=GUARD_TIMEOUT_S) as guard:
            status = guard.call("GetStatus").get("status")
    except ControlError:
        if path is not None:
            raise
        return None
    return status if isinstance(status, dict) else None


def guard_pid(status: dict[str, Any] | None) -> int | None:
    """Return the guard's number out of its status."""
    facts = (status or {}).get("guard")
    found = facts.get("pid") if isinstance(facts, dict) else None
    return found if isinstance(found, int) else None


def process_document(one: Scored, scene: Scene) -> dict[str, Any]:
    """Write a process as plain data, by the names of ``fields``."""
    return {
        "pid": one.id.pid,
        "start_ticks": one.id.start_ticks,
        "name": plain(one.name),
        "state": one.state,
        "parent_pid": one.parent_pid,
        "uid": one.uid,
        "points": one.points,
        "change_points": one.change_points,
        "oom_score": one.oom_score,
        "oom_score_adj": one.oom_score_adj,
        "rss_bytes": one.rss_bytes,
        "anon_bytes": one.anon_bytes,
        "swap_bytes": one.swap_bytes,
        "page_tables_bytes": one.page_tables_bytes,
        "pss_bytes": one.pss_bytes,
        "unit": None if one.unit is None else plain_text(one.unit),
        "mark": one.mark,
        "next": next_mark(one, scene),
        "spared": one.spared,
    }


def next_mark(one: Scored, scene: Scene) -> str:
    """Return K where the kernel, G where the guard would take this one next."""
    kernel = "K" if one.id.pid == scene.look.kernel.pid else ""
    return kernel + ("G" if one.id.pid == scene.guard.pid else "")


def scene_document(scene: Scene) -> dict[str, Any]:
    """Write everything of a scene but its processes as plain data."""
    memory = scene.memory
    return {
        "memory": None
        if memory is None
        else {
            "total_bytes": memory.total_bytes,
            "available_bytes": memory.available_bytes,
            "used_share": round(memory.used_share, 4),
            "swap_total_bytes": memory.swap_total_bytes,
            "swap_free_bytes": memory.swap_free_bytes,
            "mark": scene.mark,
        },
        "scale": scene.look.machine.scale.value,
        "processes": scene.look.processes,
        "kernel_next": victim_document(scene.look.kernel),
        "guard_next": choice_document(scene.guard),
        "difference": scene.difference,
        "hidden": scene.look.hidden,
        "notes": list(scene.notes),
    }


def victim_document(victim: NextVictim) -> dict[str, Any]:
    """Write the kernel's next victim as plain data."""
    return {
        "pid": victim.pid,
        "name": victim.name or None,
        "points": victim.points,
        "why": victim.why,
        "exact": victim.exact,
    }


def choice_document(choice: Choice) -> dict[str, Any]:
    """Write the guard's choice as plain data."""
    return {
        "pid": choice.pid,
        "name": choice.name or None,
        "processes": choice.processes,
        "frees_bytes": choice.frees_bytes,
        "why": choice.why,
        "told_by_guard": choice.told,
        "age_ns": choice.age_ns,
    }


def plain_text(text: str) -> str:
    """Make a possibly empty text harmless; a name would show as a question mark."""
    return plain(text) if text else ""
