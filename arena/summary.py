"""Results in words: one line per run."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from arena.judge import Verdict
    from arena.results import Result


def line(result: Result, verdict: Verdict) -> str:
    """Say what happened in one run."""
    run = result.run
    dead = Counter((death.role or death.program, death.by) for death in run.deaths)
    deaths = ", ".join(
        f"{name}{f' x {count}' if count > 1 else ''} by {by}" for (name, by), count in dead.items()
    )
    words = [
        f"{verdict.result.upper():4} {result.scenario:11} {result.guard:12}",
        f"dead: {deaths or '-'}",
        f"gone {run.gone_s} s, stall {run.beats.stall} ms, p99 {run.beats.p99} ms "
        f"(base {run.beats.base_p50}), on time {run.beats.on_time_share}",
        f"low {run.lowest_mib} of {run.ready_mib} MiB, noise {result.other_cores}, "
        f"wall {result.wall_s} s",
    ]
    text = " | ".join(words)
    if verdict.reasons:
        text += "\n     " + "; ".join(verdict.reasons)
    return text
