"""``forestall oom-log``: every OOM report in a log, of any kernel and any state."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from forestall.cli.console import err, out
from forestall.cli.oom_sources import (
    any_source,
    file_source,
    followed,
    journal_command,
    journal_source,
    ring_source,
)
from forestall.forensics import Incident, Scanner, parse
from forestall.forensics.escape import visible
from forestall.forensics.jsonable import finding_to_json, to_json
from forestall.forensics.merge import fold_copies, identity
from forestall.forensics.rules import findings
from forestall.forensics.story import headline
from forestall.forensics.times import moment
from forestall.forensics.times import since as since_moment
from forestall.forensics.vmstat import oom_kill_counter, reconcile

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from forestall.cli.oom_sources import Source

VMSTAT = Path("/proc/vmstat")
_REMEMBERED = 4096


@click.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path, allow_dash=True, exists=True))
@click.option("--journal", is_flag=True, help="Read the systemd journal.")
@click.option("--dmesg", is_flag=True, help="Read the kernel's ring buffer.")
@click.option("--follow", is_flag=True, help="Wait for new incidents; Ctrl-C stops.")
@click.option("--since", metavar="TIME", help="Leave out what is older: '2 hours ago', a date.")
@click.option("--json", "as_json", is_flag=True, help="Print a list of incidents as JSON.")
def command(
    files: tuple[Path, ...],
    journal: bool,
    dmesg: bool,
    follow: bool,
    since: str | None,
    as_json: bool,
) -> None:
    """Read OOM reports out of logs, the journal, or the kernel's ring buffer.

    Reads files (packed ones too, - for standard input), or without any the
    journal, or else the ring buffer. Prints one line per incident and its
    likeliest cause; --json prints everything the log says.
    """
    if follow:
        follow_log(followed(journal_command(since, follow=True)), as_json=as_json)
        return
    sources = _sources(files, journal=journal, dmesg=dmesg, since=since)
    incidents = fold_copies(
        incident for source in sources for incident in parse(source.portions, source.name)
    )
    if since is not None:
        incidents = _recent(incidents, since)
    if as_json:
        click.echo(json.dumps(document(incidents), indent=1))
        return
    render(incidents)
    if not files:
        counted = reconcile(counter(), incidents)
        if counted.counted is not None:
            out().print(counted.sentence)


def _sources(
    files: Sequence[Path], *, journal: bool, dmesg: bool, since: str | None
) -> list[Source]:
    sources = [file_source(path) for path in files]
    if journal:
        found = journal_source(since)
        if found is None:
            raise click.ClickException("journalctl is not here, or may not read the journal.")
        if found.portions == ():
            err().print("The journal has no such records, or this user may not read them.")
        sources.append(found)
    if dmesg:
        sources.append(ring_source())
    return sources or [any_source(since)]


def document(incidents: Sequence[Incident]) -> list[dict[str, Any]]:
    """Give the incidents as plain values, each with its findings."""
    return [
        to_json(incident)
        | {"findings": [finding_to_json(f) for f in findings(incident, incidents)]}
        for incident in incidents
    ]


def render(incidents: Sequence[Incident]) -> None:
    """Print one line per incident, and the likeliest cause."""
    console = out()
    if not incidents:
        console.print("No out-of-memory incident found.")
        return
    for incident in incidents:
        console.print(headline(incident))
        for finding in findings(incident, incidents)[:1]:
            console.print(f"    {visible(finding.sentence)}")
    kills = sum(len(incident.victims) for incident in incidents if incident.counts)
    console.print(f"{len(incidents)} incidents, {kills} processes ended.")


def _recent(incidents: Iterable[Incident], since: str) -> list[Incident]:
    now = datetime.now()  # noqa: DTZ005 - logs print local time without a zone
    oldest = since_moment(since, now)
    if oldest is None:
        raise click.BadParameter(f"cannot read {since!r}; try '2 hours ago' or 2024-05-01 12:00")
    kept = []
    unknown = 0
    for incident in incidents:
        when = moment(incident.time, now) if incident.time else None
        unknown += when is None
        if when is None or when >= oldest:
            kept.append(incident)
    if unknown:
        err().print(f"{unknown} incidents have no time that can be compared; they are kept.")
    return kept


def follow_log(portions: Iterable[bytes | None], *, as_json: bool) -> None:
    """Print incidents as they happen; None in the portions stands for a silence."""
    scanner = Scanner("journal")
    told: dict[object, None] = {}
    for portion in portions:
        decided = scanner.flush() if portion is None else scanner.feed(portion)
        for incident in decided:
            _tell(incident, told, as_json=as_json)
    for incident in scanner.finish():
        _tell(incident, told, as_json=as_json)


def _tell(incident: Incident, told: dict[object, None], *, as_json: bool) -> None:
    key = identity(incident)
    if key is not None:
        if key in told:
            return
        told[key] = None
        if len(told) > _REMEMBERED:
            del told[next(iter(told))]
    if as_json:
        click.echo(json.dumps(document([incident])[0]))
    else:
        render([incident])


def counter() -> int | None:
    """Read how many kills this kernel counted since it started."""
    try:
        return oom_kill_counter(VMSTAT.read_bytes())
    except OSError:
        return None
