"""The arena's command line.

Exit status: 0 all passed, 1 something failed or was lost, 2 usage, 4 the host
cannot; ``shell`` gives the command's own status, or 125 when the guest was lost.
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import click

from arena import host, image, results, shell, summary
from arena import table as tables
from arena.errors import ArenaError, HostError
from arena.guards import GUARDS
from arena.runner import Arena
from arena.scenarios import SCENARIOS, SMOKE, find
from arena.variants import VARIANTS

PAUSE_S = 2.0
"""Long enough for whoever waits for the guest lock to get it."""

_suite = click.option(
    "--guest", "suite", type=click.Choice(list(image.SUITES)), default="bookworm", show_default=True
)
_extra = click.option(
    "--extra-packages",
    default="",
    help="Debian packages beyond the usual, by comma; another image.",
)


def _packages(text: str) -> tuple[str, ...]:
    return tuple(sorted(word for word in text.replace(",", " ").split() if word))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def root() -> None:
    """Prove memory guards on real kernels in small guests."""


@root.command()
@_suite
@_extra
def build(suite: str, extra_packages: str) -> None:
    """Build a guest, or find that it is fresh."""
    guest = image.ensure(
        suite, cache=host.cache_folder(), extra_packages=_packages(extra_packages), say=click.echo
    )
    click.echo(f"{guest.folder}: Linux {guest.release}")


@root.command("shell")
@click.argument("command")
@_suite
@_extra
@click.option(
    "--put",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="File or folder to have in /run/put (the command's working folder).",
)
@click.option("--get", multiple=True, help="Path in the guest to bring back to the current folder.")
@click.option("--source/--no-source", default=False, help="Project and dependencies in /run/src.")
@click.option("--multi-user", is_flag=True, help="Boot the whole of Debian, not only the job.")
@click.option("--mem", "memory_mib", default=1024, show_default=True, help="MiB")
@click.option("--cpus", default=2, show_default=True)
@click.option("--swap", "swap_mib", default=0, help="MiB of disk swap, switched on.")
@click.option("--timeout", "timeout_s", default=180.0, show_default=True, help="seconds")
@click.option("--append", "kernel_words", default="", help="More words on the kernel command line.")
def shell_command(  # noqa: PLR0913, PLR0917 - one parameter per option
    command: str,
    suite: str,
    extra_packages: str,
    put: tuple[Path, ...],
    get: tuple[str, ...],
    source: bool,  # noqa: FBT001 - click passes flags
    multi_user: bool,  # noqa: FBT001
    memory_mib: int,
    cpus: int,
    swap_mib: int,
    timeout_s: float,
    kernel_words: str,
) -> None:
    """Run COMMAND (a sh script) as root in a fresh guest; its output and status come out."""
    request = shell.Request(
        command=command,
        suite=suite,
        put=put,
        get=get,
        source=source,
        extra_packages=_packages(extra_packages),
        multi_user=multi_user,
        memory_mib=memory_mib,
        cpus=cpus,
        swap_mib=swap_mib,
        timeout_s=timeout_s,
        kernel_words=kernel_words,
    )
    sys.exit(shell.run(request))


def _open(suite: str) -> Arena:
    return Arena.open(suite, host.cache_folder(), host.lock_path(), click.echo)


@root.command("list")
def list_command() -> None:
    """List scenarios and guards."""
    for case in SCENARIOS.values():
        smoke = "*" if case.name in SMOKE else " "
        click.echo(f"{smoke} {case.name:12} {case.title}")
    for case in VARIANTS.values():
        click.echo(f"  {case.name:14} {case.title}")
    click.echo(f"\nguards: {', '.join(GUARDS)}   (* smoke)")


@root.command("run")
@click.argument("scenario", type=click.Choice([*SCENARIOS, *VARIANTS]))
@click.argument("guard", type=click.Choice(list(GUARDS)))
@_suite
@click.option("--times", default=1, show_default=True, help="Runs; three for a latency claim.")
@click.option("--first", default=1, help="Number of the first run, which also makes its seed.")
@click.option("--seed", type=int, help="Names and sizes of another draw.")
@click.option(
    "--keep/--no-keep",
    default=False,
    help="Add the result to arena/results, if the table counts it.",
)
def run_command(  # noqa: PLR0913, PLR0917 - one parameter per option
    scenario: str,
    guard: str,
    suite: str,
    times: int,
    first: int,
    seed: int | None,
    keep: bool,  # noqa: FBT001
) -> None:
    """Run SCENARIO with GUARD in a fresh guest and judge it; status 1 unless it passed."""
    arena = _open(suite)
    case = (SCENARIOS | VARIANTS)[scenario]
    keep = keep and scenario in SCENARIOS
    good = True
    for number in range(first, first + times):
        result = arena.run(case, GUARDS[guard], number, seed)
        if keep:
            results.add(result)
            tables.write()
        verdict = result.judged(case)
        click.echo(summary.line(result, verdict))
        click.echo(f"  raw: {arena.folder_of(scenario, guard, number)}")
        good = good and verdict.result == "pass"
    sys.exit(0 if good else 1)


@root.command()
@click.option("--guard", type=click.Choice(list(GUARDS)), default="forestall", show_default=True)
@_suite
@click.option("--scenarios", "names", default=",".join(SMOKE), show_default=True)
def smoke(guard: str, suite: str, names: str) -> None:
    """Prove the installed service on a few scenarios; the last line counts.

    Whoever must die has to die by the guard's own hand.
    """
    arena = _open(suite)
    passed = failed = 0
    for name in names.split(","):
        case = find(name)
        verdict = None
        for number in (1, 2):  # a lost guest is no verdict: once more, then it counts as failed
            result = arena.run(case, GUARDS[guard], number)
            verdict = result.judged(case, hand="guard")
            click.echo(summary.line(result, verdict))
            if verdict.result != "lost":
                break
        good = verdict is not None and verdict.result == "pass"
        passed, failed = passed + good, failed + (not good)
    click.echo(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


@root.command()
@click.option("--guard", type=click.Choice(list(GUARDS)), default="forestall", show_default=True)
@_suite
def others(guard: str, suite: str) -> None:
    """Run the scenarios of other sizes, which no table counts; status 1 unless all passed."""
    arena = _open(suite)
    passed = 0
    for case in VARIANTS.values():
        result = arena.run(case, GUARDS[guard], 1)
        verdict = result.judged(case)
        passed += verdict.result == "pass"
        click.echo(summary.line(result, verdict))
        time.sleep(PAUSE_S)
    click.echo(f"{passed} of {len(VARIANTS)} passed")
    sys.exit(0 if passed == len(VARIANTS) else 1)


@root.command("all")
@_suite
@click.option("--guards", default=",".join(GUARDS), show_default=True)
@click.option("--scenarios", "names", default="", help="By comma; all if empty.")
@click.option("--times", default=1, show_default=True)
@click.option("--again/--resume", default=False, help="Repeat what has a result already.")
def all_command(
    suite: str,
    guards: str,
    names: str,
    times: int,
    again: bool,  # noqa: FBT001
) -> None:
    """Run everything against everyone; stop and start it as you like.

    Each result is stored at once, and the right to run a guest is given up
    between runs, so that others come in.
    """
    arena = _open(suite)
    cases = [find(name) for name in names.split(",")] if names else list(SCENARIOS.values())
    known = {(r.guest, r.guard, *r.key) for r in results.load_all()}
    plan = [
        (case, GUARDS[guard], number)
        for number in range(1, times + 1)
        for case in cases
        for guard in guards.split(",")
        if again or (suite, guard, case.name, number) not in known
    ]
    for position, (case, guard_, number) in enumerate(plan, start=1):
        result = arena.run(case, guard_, number)
        if result.run.complete or result.run.panic:
            results.add(result)
            tables.write()
        verdict = result.judged(case)
        click.echo(f"[{position}/{len(plan)}] {summary.line(result, verdict)}")
        time.sleep(PAUSE_S)


@root.command()
def table() -> None:
    """Write the table and plots of docs/arena.md from the stored results."""
    for path in tables.write():
        click.echo(path)


def main() -> int:
    """Run the command line; every error of ours becomes a sentence and a status."""
    # A guest must not outlive the command that was asked to end.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    try:
        root(prog_name="python -m arena")
    except HostError as error:
        click.echo(f"arena: {error}", err=True)
        return 4
    except ArenaError as error:
        click.echo(f"arena: {error}", err=True)
        return shell.LOST_STATUS if "shell" in sys.argv[1:2] else 1
    return 0
