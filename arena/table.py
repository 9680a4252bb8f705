"""docs/arena.md's tables, the README's short form and the plots, from stored results.

Rule: only what lies between the markers is written; the words around it are
people's.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from arena import plots, results
from arena.errors import ResultError
from arena.figures import sheets
from arena.guards import GUARDS
from arena.scenarios import SCENARIOS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arena.figures import Cell, Sheet

PROJECT = Path(__file__).parent.parent
DOCUMENT = PROJECT / "docs" / "arena.md"
README = PROJECT / "README.md"
PLOTS = PROJECT / "docs" / "arena"
PLOTTED = ("fast", "storm", "thrash", "tmpfs")
OURS = "forestall"
SHORT = {
    "fast": "leak at full speed, with swap",
    "fast-noswap": "the same, no swap",
    "storm": "fork storm",
    "leaves": "16 workers that want too much",
    "thrash": "thrash on slow swap",
    "tmpfs": "tmpfs filled to the brim",
    "database": "still database beside a leaking script",
    "helper": "30 MiB helper at adj 999 beside a leak",
    "build": "`make -j8` in tmux",
    "tabs": "one leaking tab of a browser",
    "burst": "harmless burst, no swap",
}
"""What the README shows, in its words."""
PEERS = tuple(name for name in GUARDS if name not in {OURS, "none"})


def _number(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _seconds(ms: float | None) -> str:
    if ms is None:
        return "-"
    return f"{ms:.0f} ms" if ms < 1000 else f"{ms / 1000:.1f} s"


def _row(*words: str) -> str:
    return "| " + " | ".join(word.replace("|", "/") for word in words) + " |"


def _head(*words: str) -> list[str]:
    return [_row(*words), "|" + "---|" * len(words)]


def _cell(cell: Cell | None) -> str:
    """Say in a few words how a guard fared."""
    if cell is None:
        return "not run"
    noise = " ~" if cell.noisy else ""
    if cell.verdict == "pass":
        return f"**pass** {_seconds(cell.stall_ms)}{noise}"
    several = f" {cell.passed}/{len(cell.runs)}" if len(cell.runs) > 1 else ""
    if cell.verdict == "lost":
        return f"lost{several}"
    if cell.lost_bystanders:
        shown = cell.lost_bystanders[:4]
        more = f" +{len(cell.lost_bystanders) - 4}" if len(cell.lost_bystanders) > 4 else ""
        return f"fail{several}: kills {', '.join(shown)}{more}"
    return f"fail{several}: {_short(cell.reasons[0][0])} {_seconds(cell.stall_ms)}{noise}"


def _short(reason: str) -> str:
    for pattern, words in (
        (r"the kernel's OOM killer acted", "kernel kills"),
        (r"the service was late", "stalls"),
        (r"the kernel gave up", "kernel panic"),
        (r"\S+ lives after", "never acts"),
        (r"\S+ did not finish", "kills the harmless"),
    ):
        if re.match(pattern, reason):
            return words
    return reason


def verdicts(sheet: Sheet, guards: Sequence[str]) -> list[str]:
    """Return the one table: a line per scenario, a column per guard."""
    lines = _head("scenario", *guards)
    for name, case in SCENARIOS.items():
        cells = [sheet.cell(name, guard) for guard in guards]
        if any(cells):
            lines.append(_row(f"**{name}**: {case.title}", *(_cell(cell) for cell in cells)))
    return [*lines, _row("passed", *(f"**{_passed(sheet, guard)}**" for guard in guards))]


def _passed(sheet: Sheet, guard: str) -> str:
    run = [cell for cell in sheet.cells if cell.guard == guard]
    return f"{sum(cell.verdict == 'pass' for cell in run)} of {len(run)}"


BAR_MS = 50.0


def ratios(sheet: Sheet) -> list[str]:
    """Return the longest stall of ours beside none's and the best peer's."""
    lines = _head(
        *("scenario", "forestall", "none", "best peer that lost nobody", "to none", "to best peer"),
        "bar",
    )
    for name in SCENARIOS:
        ours = sheet.cell(name, OURS)
        if ours is None:
            continue
        none, best = sheet.cell(name, "none"), sheet.best_peer(name, PEERS)
        stall = ours.stall_ms
        best_ms = best.stall_ms if best else None
        all_run = all(sheet.cell(name, peer) for peer in PEERS)
        lines.append(
            _row(
                name,
                _seconds(stall),
                _seconds(none.stall_ms if none else None),
                f"{_seconds(best_ms)} ({best.guard})" if best else "-",
                _ratio(stall, none.stall_ms if none else None),
                _ratio(stall, best_ms),
                _bar(stall, best_ms, all_run=all_run),
            )
        )
    return lines


def _ratio(ours: float | None, other: float | None) -> str:
    return "-" if ours is None or not other else f"{ours / other:.2f}"


def _bar(ours: float | None, best: float | None, *, all_run: bool) -> str:
    # At most 50 ms, or half of the best peer that lost nobody. A peer that is still to run can
    # only make it harder: what is missed already is missed, and what is not yet is open.
    if ours is None:
        return "-"
    if ours <= BAR_MS:
        return "met"
    if best is not None and ours > 0.5 * best:
        return "missed"
    if not all_run:
        return "open"
    return "met" if best is not None else "missed"


def costs(sheet: Sheet, guards: Sequence[str]) -> list[str]:
    """Return what each guard costs, as medians over all its runs."""
    lines = _head(
        *("guard", "processes", "Pss KiB", "private dirty KiB", "CPU ms per run"),
        *("waited for a CPU ms", "major faults"),
    )
    for guard in guards:
        runs = [result for cell in sheet.cells if cell.guard == guard for result in cell.runs]
        # Two of nohang's first runs looked for it in another slice, and found nothing.
        runs = [result for result in runs if result.run.cost.processes]
        if not runs or guard == "none":
            continue

        def at(name: str, runs: list[results.Result] = runs) -> str:
            return _number(results.middle(runs, lambda run: getattr(run.cost, name)))

        lines.append(
            _row(
                guard,
                *(at("processes"), at("pss_kib"), at("private_dirty_kib"), at("cpu_ms")),
                *(at("run_delay_ms"), at("major_faults")),
            )
        )
    return lines


def failures(sheet: Sheet, guards: Sequence[str]) -> list[str]:
    """Name every failure, guard by guard."""
    lines = []
    for guard in guards:
        bad = [cell for cell in sheet.cells if cell.guard == guard and cell.verdict != "pass"]
        order = list(SCENARIOS)
        bad.sort(key=lambda cell: order.index(cell.scenario.name))
        if bad:
            lines += ["", f"**{guard}**", ""]
        for cell in bad:
            shown = [
                reason if count == 1 else f"{reason} (x {count})" for reason, count in cell.reasons
            ]
            more = f"; and {len(shown) - 6} more" if len(shown) > 6 else ""
            lines.append(
                f"- {cell.scenario.name} ({cell.passed} of {len(cell.runs)} passed): "
                f"{'; '.join(shown[:6])}{more}"
            )
    return lines


def details(sheet: Sheet, guards: Sequence[str]) -> list[str]:
    """Return the figures of every scenario and guard, medians."""
    lines = _head(
        *("scenario", "guard", "runs", "gone s", "first signal s (at MiB)", "p50 / p99 ms"),
        *("base p50", "on time", "longest stall", "lowest MiB", "kernel kills", "noise"),
    )
    for name in SCENARIOS:
        for guard in guards:
            cell = sheet.cell(name, guard)
            if cell is None:
                continue
            first = cell.middle(lambda run: run.first_signal_s)
            at = cell.middle(lambda run: run.first_signal_mib)
            noise = max((result.other_cores or 0.0 for result in cell.runs), default=0.0)
            lines.append(
                _row(
                    *(name, guard, str(len(cell.runs))),
                    _number(cell.middle(lambda run: run.gone_s), 1),
                    f"{_number(first, 1)} ({_number(at)})" if first is not None else "-",
                    f"{_number(cell.middle(lambda run: run.beats.p50))} / "
                    f"{_number(cell.middle(lambda run: run.beats.p99))}",
                    _number(cell.middle(lambda run: run.beats.base_p50)),
                    _number(cell.middle(lambda run: run.beats.on_time_share), 2),
                    _seconds(cell.stall_ms),
                    _number(cell.middle(lambda run: run.lowest_mib)),
                    _number(cell.middle(lambda run: run.kernel_kills)),
                    f"{noise:.1f}",
                )
            )
    return lines


def replace_between(text: str, marker: str, lines: Sequence[str]) -> str:
    """Replace what lies between ``<!-- MARKER -->`` and ``<!-- /MARKER -->``.

    Raises:
        ResultError: the markers are not there, in that order.
    """
    begin, end = f"<!-- {marker} -->", f"<!-- /{marker} -->"
    before, opened, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not opened or not closed:
        raise ResultError(f"the document has no markers {begin} and {end}")
    return "\n".join([before + begin, "", *lines, "", end]) + after


def report(all_sheets: Sequence[Sheet]) -> list[str]:
    """Return everything that docs/arena.md shows of the results."""
    lines = []
    for sheet in all_sheets:
        guards = [name for name in GUARDS if any(cell.guard == name for cell in sheet.cells)]
        lines += [f"### {sheet.guest}, Linux {sheet.release}", "", *verdicts(sheet, guards), ""]
        lines += [f"![longest stalls](arena/stalls-{sheet.guest}.svg)", ""]
        lines += [
            f"![memory over time, {name}](arena/memory-{sheet.guest}-{name}.svg)"
            for name in PLOTTED
            if any(sheet.cell(name, guard) for guard in guards)
        ]
        if OURS in guards:
            lines += ["", "#### The longest stall against the others", "", *ratios(sheet)]
        lines += ["", "#### What a guard costs", "", *costs(sheet, guards)]
        lines += ["", "#### Every failure by name", *failures(sheet, guards)]
        lines += ["", "<details><summary>All figures</summary>", "", *details(sheet, guards)]
        lines += ["", "</details>", ""]
    return lines or ["No results are stored yet."]


def short(all_sheets: Sequence[Sheet]) -> list[str]:
    """Return the README's form, of the first guest: a line for each kind of trouble."""
    if not all_sheets:
        return ["No results are stored yet."]
    sheet = all_sheets[0]
    guards = (OURS, *PEERS, "none")
    lines = _head("", *guards[:-1], "no guard")
    for name, title in SHORT.items():
        words = (_cell(sheet.cell(name, guard)) for guard in guards)
        lines.append(_row(title, *(_plain(text) for text in words)))
    passed = (_passed(sheet, guard) for guard in guards)
    return [*lines, _row("passed, of those run", *passed)]


def _plain(text: str) -> str:
    return re.sub(r"^fail:? ?", "", text).replace("**pass**", "ok,").removesuffix(" ~")


def write(folder: Path = results.FOLDER) -> list[Path]:
    """Write documents and plots; return what was written."""
    all_sheets = sheets(results.load_all(folder), SCENARIOS)
    written = []
    for path, marker, lines in (
        (DOCUMENT, "arena:results", report(all_sheets)),
        (README, "arena:short", short(all_sheets)),
    ):
        if path.exists() and f"<!-- {marker} -->" in path.read_text():
            path.write_text(replace_between(path.read_text(), marker, lines))
            written.append(path)
    PLOTS.mkdir(parents=True, exist_ok=True)
    for sheet in all_sheets:
        guards = [name for name in GUARDS if any(cell.guard == name for cell in sheet.cells)]
        path = PLOTS / f"stalls-{sheet.guest}.svg"
        path.write_text(plots.stalls(sheet, list(SCENARIOS), guards))
        written.append(path)
        for name in PLOTTED:
            cells = {guard: cell for guard in guards if (cell := sheet.cell(name, guard))}
            if cells:
                path = PLOTS / f"memory-{sheet.guest}-{name}.svg"
                path.write_text(plots.memory(cells, f"MemAvailable in MiB, scenario {name}"))
                written.append(path)
    return written
