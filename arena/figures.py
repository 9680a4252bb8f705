"""What the tables and plots show: results of several runs drawn together.

Rule: medians over the runs that have a figure; a cell without runs is ``None``
and is shown as not run, never as zero.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from arena import results
from arena.judge import Verdict, bystanders

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from arena.digest import Run
    from arena.results import Result
    from arena.scenario import Scenario

NOISY_CORES = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """All runs of one scenario with one guard on one guest."""

    scenario: Scenario
    guard: str
    runs: tuple[Result, ...]

    def verdicts(self) -> list[Verdict]:
        """Judge every run by today's rules."""
        return [result.judged(self.scenario) for result in self.runs]

    @property
    def verdict(self) -> str:
        """``pass`` only if every run passed; ``lost`` if no run failed but some guest was lost."""
        found = {verdict.result for verdict in self.verdicts()}
        return "fail" if "fail" in found else "lost" if "lost" in found else "pass"

    @property
    def passed(self) -> int:
        """How many runs passed."""
        return sum(verdict.result == "pass" for verdict in self.verdicts())

    @property
    def lost_bystanders(self) -> tuple[str, ...]:
        """Roles that died in some run though nobody allowed it."""
        names: dict[str, None] = {}
        for result in self.runs:
            names |= dict.fromkeys(bystanders(self.scenario, result.run))
        return tuple(names)

    @property
    def noisy(self) -> bool:
        """The host was busy with other things in more than half of the runs."""
        loud = [result.other_cores or 0 for result in self.runs]
        return sum(cores > NOISY_CORES for cores in loud) * 2 > len(loud)

    @property
    def reasons(self) -> list[tuple[str, int]]:
        """Why runs did not pass, and how often."""
        said = Counter(reason for verdict in self.verdicts() for reason in verdict.reasons)
        return said.most_common()

    def middle(self, figure: Callable[[Run], float | int | None]) -> float | None:
        """Return the median of a figure."""
        return results.middle(self.runs, figure)

    @property
    def stall_ms(self) -> float | None:
        """Median of the longest stall; None once the service itself was lost."""
        alive = [r for r in self.runs if "service" not in bystanders(self.scenario, r.run)]
        return results.middle(alive, lambda run: run.beats.stall)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """All cells of one guest."""

    guest: str
    release: str
    cells: tuple[Cell, ...]

    def cell(self, scenario: str, guard: str) -> Cell | None:
        """Find a cell; None when nothing was run."""
        for cell in self.cells:
            if cell.scenario.name == scenario and cell.guard == guard:
                return cell
        return None

    def best_peer(self, scenario: str, guards: Sequence[str]) -> Cell | None:
        """Find the guard with the shortest stall among those that lost no bystander."""
        found = [
            cell
            for guard in guards
            if (cell := self.cell(scenario, guard))
            and not cell.lost_bystanders
            and cell.stall_ms is not None
        ]
        return min(found, key=lambda cell: cell.stall_ms or 0.0, default=None)


def sheets(stored: Iterable[Result], cases: dict[str, Scenario]) -> list[Sheet]:
    """Sort stored results into one sheet per guest; results of unknown scenarios are left out."""
    groups: dict[tuple[str, str, str], list[Result]] = {}
    releases: dict[str, set[str]] = {}
    for result in stored:
        if result.scenario in cases:
            groups.setdefault((result.guest, result.scenario, result.guard), []).append(result)
            releases.setdefault(result.guest, set()).add(result.release)
    return [
        Sheet(
            guest=guest,
            release=", ".join(sorted(releases[guest])),
            cells=tuple(
                Cell(scenario=cases[scenario], guard=guard, runs=tuple(runs))
                for (other, scenario, guard), runs in groups.items()
                if other == guest
            ),
        )
        for guest in sorted(releases)
    ]
