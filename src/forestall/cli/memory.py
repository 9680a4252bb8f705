"""``forestall memory``: where the memory is, above all when processes do not explain it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from forestall.cli.console import out, safe
from forestall.core.units import human_bytes, human_share
from forestall.inspect.memory import read_whereabouts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from forestall.inspect.memory import Whereabouts

SHOWN_BYTES_MIN = 1 << 20
UNKNOWN = "unknown"


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON, in bytes.")
@click.option(
    "--files",
    type=click.IntRange(0, 1000),
    default=5,
    show_default=True,
    metavar="N",
    help="Largest files shown of each tmpfs.",
)
def command(as_json: bool, files: int) -> None:
    """Show where the memory is: tmpfs, shared memory, huge pages, slab, zram, ZFS, and the rest.

    Without root some of it cannot be seen; what is missing is said.
    """
    found = read_whereabouts(files=files)
    if as_json:
        click.echo(json.dumps(found.as_dict(), indent=2, sort_keys=True))
        return
    console = out()
    for line in lines_of(found):
        console.print(safe(line))


def lines_of(found: Whereabouts) -> Iterator[str]:
    """Write it for people; places below 1 MiB are left out."""
    available = found.available_bytes
    shown = human_bytes(available) if available is not None else UNKNOWN
    yield f"memory {human_bytes(found.total_bytes)}, {shown} available"
    yield ""
    for place in found.places:
        size = place.size_bytes
        if size is not None and size < SHOWN_BYTES_MIN:
            continue
        share = human_share(size / found.total_bytes) if size is not None else ""
        amount = human_bytes(size) if size is not None else UNKNOWN
        yield f"{place.title:<26}{amount:>10}{share:>7}   {place.freed_by}"
    yield from _tmpfs_lines(found)
    yield from _shared_lines(found)
    yield from _kernel_lines(found)
    if found.incomplete:
        yield ""
    for what in found.incomplete:
        yield f"not seen: {what}"


def _tmpfs_lines(found: Whereabouts) -> Iterator[str]:
    if found.tmpfs:
        yield ""
    for mount in found.tmpfs:
        yield (
            f"tmpfs {mount.path}: {human_bytes(mount.used_bytes)} of "
            f"{human_bytes(mount.size_bytes)}"
        )
        for path, size_bytes in mount.files:
            yield f"  {human_bytes(size_bytes):>10}  {path}"


def _shared_lines(found: Whereabouts) -> Iterator[str]:
    if found.memfds:
        yield ""
    for memfd in found.memfds:
        holders = ", ".join(f"{name} ({pid})" for pid, name in memfd.holders)
        yield f"shared without a name: {human_bytes(memfd.size_bytes)}, held by {holders}"
    if found.segments:
        yield ""
    for segment in found.segments or ():
        resident = segment["resident_bytes"]
        yield (
            f"System V segment {segment['id']}: "
            f"{human_bytes(resident if resident is not None else segment['size_bytes'])}, "
            f"{segment['attached']} attached, by {segment['creator_pid']}"
            + ("" if segment["attached"] else f"; nobody uses it: ipcrm -m {segment['id']}")
        )


def _kernel_lines(found: Whereabouts) -> Iterator[str]:
    if found.huge_pools:
        yield ""
    for pool in found.huge_pools:
        page = pool["page_bytes"]
        yield (
            f"huge pages of {human_bytes(page)}: {human_bytes(page * pool['pages'])} set apart, "
            f"{human_bytes(page * pool['free_pages'])} of it unused"
        )
    if found.zram:
        yield ""
    for device in found.zram:
        yield (
            f"{device['name']}: {human_bytes(device['stored_bytes'])} stored in "
            f"{human_bytes(device['held_bytes'])} of memory"
        )
    if found.slab_caches:
        yield ""
        yield "largest slab caches"
    for cache in found.slab_caches or ():
        yield f"  {human_bytes(cache['size_bytes']):>10}  {cache['name']}"
