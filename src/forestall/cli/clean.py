"""``forestall clean``: free what is safe to free, and refuse with a reason what is not."""

from __future__ import annotations

import json

import click

from forestall.cli import exits
from forestall.cli.console import err, out, safe
from forestall.config import forms
from forestall.relief import actions
from forestall.relief.outcome import Refusal

_dry_run = click.option("--dry-run", is_flag=True, help="Say what it would gain, and do nothing.")
_as_json = click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")

_GIVEN_UP = (
    "given up; swap stays in use with its priority (the kernel may first read back all of the "
    "process it is at)"
)


@click.group()
def command() -> None:
    """Free what is safe to free.

    Each says what it would gain before it does it, refuses with the reason when it would
    harm, and reports what it really gained. Ends with 1 when it refuses. Needs root.
    """


@command.command("page-cache")
@_dry_run
@_as_json
@click.pass_context
def page_cache(ctx: click.Context, dry_run: bool, as_json: bool) -> None:
    """Drop the clean page cache, if nobody waits for memory.

    Seldom of use: what it frees counted as available before.
    """
    ctx.exit(_clean("page-cache", dry_run=dry_run, as_json=as_json))


@command.command("swap")
@_dry_run
@_as_json
@click.pass_context
def swap(ctx: click.Context, dry_run: bool, as_json: bool) -> None:
    """Read swap back into memory, one area at a time, if it fits.

    Ctrl-C gives it up; the area stays in use as before.
    """
    ctx.exit(_clean("swap", dry_run=dry_run, as_json=as_json))


@command.command("cgroup")
@click.argument("path")
@click.option(
    "--size", metavar="SIZE", help="How much at most, such as 256MiB; absent: half of it."
)
@_dry_run
@_as_json
@click.pass_context
def cgroup(ctx: click.Context, path: str, size: str | None, dry_run: bool, as_json: bool) -> None:
    """Push out what the cgroup PATH does not use (system.slice/foo.service), if it is cold."""
    want_bytes = None
    if size is not None:
        try:
            want_bytes = forms.SIZE.parse(size)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--size") from None
    ctx.exit(_clean(f"cgroup {path}", dry_run=dry_run, as_json=as_json, want_bytes=want_bytes))


def _clean(action: str, *, dry_run: bool, as_json: bool, want_bytes: int | None = None) -> int:
    planned = actions.plan(action, want_bytes=want_bytes)
    if isinstance(planned, Refusal):
        _report(actions.describe(planned), planned.sentence, as_json=as_json)
        return exits.PROBLEM.code
    if dry_run:
        facts = {"op": "plan", **planned._asdict()}  # type: ignore[attr-defined]
        _report(facts, planned.sentence, as_json=as_json)
        return exits.FINE.code
    if not as_json:
        _say(planned.sentence)
    try:
        outcome = actions.perform(action, want_bytes=want_bytes)
    except KeyboardInterrupt:
        err().print(_GIVEN_UP)
        raise
    _report(actions.describe(outcome), outcome.sentence, as_json=as_json)
    return exits.PROBLEM.code if isinstance(outcome, Refusal) else exits.FINE.code


def _report(facts: dict[str, object], sentence: str, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(facts, sort_keys=True))
    else:
        _say(sentence)


def _say(sentence: str) -> None:
    out().print(safe(sentence))
