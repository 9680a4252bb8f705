"""Results on disk: one JSON file per guest and guard, one line per run.

Rule: a result says enough to be judged again; raw events stay in the cache.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from arena.digest import Run, from_json, to_json
from arena.errors import ResultError
from arena.host import locked
from arena.judge import Verdict, judge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from arena.scenario import Scenario

FOLDER = Path(__file__).parent / "results"
FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One run with its circumstances."""

    scenario: str
    guard: str
    guest: str
    release: str
    """The guest kernel's version."""

    number: int
    seed: int
    run: Run
    other_cores: float | None
    """Noise of the host; see :class:`arena.host.Noise`."""

    wall_s: float | None
    accelerator: str

    @property
    def key(self) -> tuple[str, int]:
        """What identifies it inside its file."""
        return self.scenario, self.number

    def judged(self, scenario: Scenario, *, hand: str | None = None) -> Verdict:
        """Judge it by today's rules."""
        return judge(scenario, self.run, hand=hand)


def path_of(guest: str, guard: str, folder: Path = FOLDER) -> Path:
    """Name the file of a guest and a guard."""
    return folder / f"{guest}-{guard}.json"


def load(path: Path) -> list[Result]:
    """Read a file of results; a missing file holds none.

    Raises:
        ResultError: it is damaged or of another format.
    """
    if not path.exists():
        return []
    try:
        content = json.loads(path.read_text())
        if content["format"] != FORMAT:
            raise ResultError(f"{path}: format {content['format']}, this arena writes {FORMAT}")
        return [_result(row) for row in content["runs"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ResultError(f"{path} is damaged: {error!r}") from error


def _result(row: dict[str, object]) -> Result:
    words = dict(row)
    words["run"] = from_json(words["run"])  # type: ignore[arg-type]
    return Result(**words)  # type: ignore[arg-type]


def _row(result: Result) -> str:
    words = {name: getattr(result, name) for name in Result.__slots__}
    words["run"] = to_json(result.run)
    return json.dumps(words, separators=(",", ":"))


def save(path: Path, results: Iterable[Result]) -> None:
    """Write all results of a file, whole or not at all, one per line."""
    rows = ",\n".join(_row(result) for result in sorted(results, key=lambda one: one.key))
    part = path.with_suffix(".part")
    part.write_text(f'{{"format":{FORMAT},"runs":[\n{rows}\n]}}\n')
    part.replace(path)


def add(result: Result, folder: Path = FOLDER) -> None:
    """Put one result into its file, in place of an earlier one with its number."""
    folder.mkdir(parents=True, exist_ok=True)
    path = path_of(result.guest, result.guard, folder)
    with locked(folder):
        others = [other for other in load(path) if other.key != result.key]
        save(path, [*others, result])


def load_all(folder: Path = FOLDER) -> list[Result]:
    """Read every file of the folder."""
    return [result for path in sorted(folder.glob("*.json")) for result in load(path)]


def middle(results: Iterable[Result], figure: Callable[[Run], float | int | None]) -> float | None:
    """Return the median of a figure over the runs that have it."""
    values = [value for result in results if (value := figure(result.run)) is not None]
    return median(values) if values else None
