"""The policy's state machine, drawn from what the running code did in the simulator's worlds."""

import json
from collections import Counter
from pathlib import Path

from forestall.core.events import Missed, Surveyed
from forestall.core.state import Ending

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "transitions.json"
PAGE = ROOT / "docs" / "state-machine.md"
MEANINGS = {
    "Calm": "Nothing is being decided.",
    "Choosing": "A trigger asks for a victim; waiting for the process table.",
    "Ending(TERM)": "Somebody was asked to end.",
    "Ending(KILL)": "Somebody was ended and is not gone yet.",
    "Settling": "The victims are gone, or there was nobody; memory may come back late.",
}


def transitions_of(world):
    """Count (state, event, next state) where the state's name changes."""
    steps = Counter()
    after = [state for state, _, _ in world.diary[1:]] + [world.loop.state]
    for (before, event, _), later in zip(world.diary, after, strict=True):
        old, new = name_of(before.hunt), name_of(later.hunt)
        if old != new:
            steps[old, event_name(event), new] += 1
    return steps


def name_of(hunt):
    """Name a state of the hunt; an ending by its force."""
    name = type(hunt).__name__
    return f"{name}({hunt.force.name})" if isinstance(hunt, Ending) else name


def event_name(event):
    """Name an event; what was missed by what it was."""
    if isinstance(event, Missed):
        return f"Missed({event.what})"
    return "Surveyed" if isinstance(event, Surveyed) else type(event).__name__


def write(transitions):
    """Write the golden file and the page that shows it."""
    lines = [[*names, count] for names, count in sorted(transitions.items())]
    GOLDEN.write_text("[\n" + ",\n".join(f"  {json.dumps(line)}" for line in lines) + "\n]\n")
    PAGE.write_text(page(lines))


def page(lines):
    """Render the page."""
    arrows = {}
    for old, event, new, count in lines:
        arrows.setdefault((old, new), []).append((event, count))
    text = [
        "# The state machine of the hunt",
        "",
        "<!-- Drawn by `UPDATE_GOLDEN=1 pytest tests/sim`; do not edit. -->",
        "",
        "Every change of state that the running policy made in the simulator's worlds, and how",
        "often. It is drawn from `step()` itself, so it cannot go stale: a test compares it.",
        "",
        "```mermaid",
        "stateDiagram-v2",
        "    [*] --> Calm",
    ]
    for (old, new), events in sorted(arrows.items()):
        names = ", ".join(event for event, _ in events)
        text.append(f"    {mermaid(old)} --> {mermaid(new)}: {names}")
    text += ["```", "", "| state | meaning |", "|---|---|"]
    text += [f"| {state} | {meaning} |" for state, meaning in MEANINGS.items()]
    text += ["", "| from | on | to | times |", "|---|---|---|---:|"]
    text += [f"| {old} | {event} | {new} | {count:,} |" for old, event, new, count in lines]
    return "\n".join(text) + "\n"


def mermaid(state):
    """Write a state's name as mermaid takes it."""
    return state.replace("(", "_").replace(")", "")
