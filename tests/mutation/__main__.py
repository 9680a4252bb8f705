"""Plant each mutant in a copy of the source, run the tests that should notice, and say who did.

    python -m tests.mutation                  all of them, one after another
    python -m tests.mutation hunt             those whose file or reason has "hunt" in it
    python -m tests.mutation --write          and write docs/mutants.md

A survivor is a mistake that no test would notice: write the test. Each mutant
runs under low priority and a time limit; running out of it counts as caught.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.mutation.mutants import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
LIMIT_S = 600
TESTS = (
    "tests/unit/test_policy.py",
    "tests/unit/test_foregone.py",
    "tests/unit/test_aside.py",
    "tests/unit/test_priority.py",
    "tests/unit/test_read_back.py",
    "tests/unit/test_fill.py",
    "tests/unit/test_others.py",
    "tests/unit/test_refaults.py",
    "tests/unit/test_repeats.py",
    "tests/unit/test_managers.py",
    "tests/unit/test_judge.py",
    "tests/unit/test_core_edges.py",
    "tests/unit/test_core_standing.py",
    "tests/property/test_trend_property.py",
    "tests/sim/test_world.py",
)
EFFECT_TESTS = ("tests/system/test_effects_end.py", "tests/system/test_unit_mark.py")
SEEDS = "40"


def main(arguments: list[str]) -> int:
    """Run the mutants that were asked for; returns 1 when one survived."""
    write = "--write" in arguments
    words = [word for word in arguments if not word.startswith("-")]
    chosen = [
        mutant
        for mutant in MUTANTS
        if all(word in mutant.file + " " + mutant.why for word in words)
    ]
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        # The tests too: somebody may be writing better ones meanwhile.
        copy = Path(folder)
        for part in ("src", "tests"):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / part, copy / part, ignore=ignored)
        shutil.copy(ROOT / "pyproject.toml", copy)
        whole = run(copy, (*TESTS, *EFFECT_TESTS))
        if whole is not None:
            print(f"the tests fail without any mutant: {whole}")
            return 2
        results = [(mutant, *judged(copy, mutant)) for mutant in chosen]
    survivors = [mutant for mutant, noticed, _ in results if noticed is None]
    print(f"{len(results) - len(survivors)} of {len(results)} were caught")
    if write and not words:
        (ROOT / "docs" / "mutants.md").write_text(page(results))
    return 1 if survivors else 0


def judged(copy: Path, mutant: Mutant) -> tuple[str | None, float]:
    """Plant one mutant, and take it out again; returns the test that noticed, and the time."""
    file = copy / "src" / "forestall" / mutant.file
    text = file.read_text()
    if text.count(mutant.old) != 1:
        raise SystemExit(f"{mutant.file}: not exactly once: {mutant.old!r}")
    file.write_text(text.replace(mutant.old, mutant.new))
    began = time.monotonic()
    try:
        noticed = run(copy, EFFECT_TESTS if mutant.file.startswith("effects") else TESTS)
    finally:
        file.write_text(text)
    took_s = time.monotonic() - began
    print(f"{'caught  ' if noticed else 'SURVIVED'} {took_s:5.1f} s  {mutant.file}: {mutant.why}")
    if noticed:
        print(f"                    {noticed}", flush=True)
    return noticed, took_s


def run(copy: Path, tests: tuple[str, ...]) -> str | None:
    """Run tests on a copy of the source; returns the first that failed, or None."""
    command = [sys.executable, "-B", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    command += ["--no-header", "--tb=no", *tests]
    command += [
        "--deselect",
        "tests/sim/test_world.py::test_the_page_shows_what_the_golden_file_holds",
    ]
    environment = {**os.environ, "FORESTALL_SIM_SEEDS": SEEDS, "PYTHONDONTWRITEBYTECODE": "1"}
    environment["PYTHONPATH"] = str(copy / "src")
    try:
        done = subprocess.run(
            ["nice", "-n", "10", *command],
            cwd=copy,
            env=environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"ran for more than {LIMIT_S} s"
    if done.returncode == 0:
        return None
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if not failed:
        # Not a verdict: the tests were killed, or could not begin.
        raise SystemExit(f"no test said why: {done.returncode} {done.stdout} {done.stderr}")
    return failed[0].split(" ")[1].partition("::")[2] or failed[0]


def page(results: list[tuple[Mutant, str | None, float]]) -> str:
    """Write the results down as a page."""
    caught = sum(noticed is not None for _, noticed, _ in results)
    lines = [
        "# Mutants",
        "",
        "<!-- Written by `python -m tests.mutation --write` (`make mutants`); do not edit. -->",
        "",
        "Small mistakes, planted one at a time in a copy of the source. A mistake that no test",
        "notices is a test that is missing. The simulator runs 40 seeds for each.",
        "",
        f"**{caught} of {len(results)} were caught.**",
        "",
        "| where | the mistake would mean | noticed by |",
        "|---|---|---|",
    ]
    for mutant, noticed, _ in results:
        who = f"`{noticed}`" if noticed else "**nobody**"
        lines.append(f"| `{mutant.file}` | {mutant.why} | {who} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
