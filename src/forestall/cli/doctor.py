"""``forestall doctor``: what this machine means for the guard, and what would help."""

from __future__ import annotations

import json
import os

import click

from forestall.cli.console import out, safe, styled
from forestall.inspect.doctor import Finding, Machine, Severity, examine, read_knobs
from forestall.inspect.surroundings import read_surroundings
from forestall.kernel.features import find_features

_STYLES = {Severity.PROBLEM: "bold red", Severity.ADVICE: "yellow"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Say what this kernel, its settings and other killers mean for the guard.

    Each finding comes with its remedy. Ends with 1 when something is a problem.
    """
    around = read_surroundings()
    machine = Machine(
        features=find_features(),
        processes=around.processes or (),
        memory=around.memory,
        knobs=read_knobs(),
        uid=os.geteuid(),
    )
    findings = examine(machine)
    if as_json:
        click.echo(json.dumps([plain(finding) for finding in findings], indent=2))
    else:
        out().print(f"Linux {safe(machine.features.release)}")
        for finding in findings:
            print_finding(finding)
        if not findings:
            out().print(styled("everything the guard can use is here", "green"))
    bad = any(finding.severity is Severity.PROBLEM for finding in findings)
    ctx.exit(1 if bad else 0)


def plain(finding: Finding) -> dict[str, str]:
    """Return a finding as JSON has it."""
    return {
        "severity": finding.severity.value,
        "title": finding.title,
        "means": finding.means,
        "remedy": finding.remedy,
    }


def print_finding(finding: Finding) -> None:
    """Print a finding: what, what it means, what to do."""
    console = out()
    console.print(styled(f"{finding.severity.value}: {finding.title}", _STYLES[finding.severity]))
    console.print(f"  {safe(finding.means)}")
    console.print(f"  remedy: {safe(finding.remedy)}")
