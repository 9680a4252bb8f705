"""Where the reading commands get their lines: files, the journal, the kernel's ring buffer.

Only open here; what the lines mean is forensics' business. The journal is asked for
records that the kernel itself wrote, and for the known agents by name: a program that
imitates the kernel's words in its own log is not heard.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import os
import selectors
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

import click

from forestall.cli import exits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

PORTION_BYTES = 128 * 1024
SILENCE_S = 2.0
"""A report whose further lines do not come for so long is told as it is."""

KMSG = "/dev/kmsg"
_RECORD_BYTES = 8192
_UNPACKERS: dict[str, Callable[[IO[bytes]], IO[bytes]]] = {
    ".gz": lambda packed: gzip.GzipFile(fileobj=packed),  # type: ignore[dict-item,return-value]
    ".xz": lzma.LZMAFile,
    ".bz2": bz2.BZ2File,
}
_PERMISSION = (
    "no permission to read the kernel's messages; run as root, join the group adm or"
    " systemd-journal, or set kernel.dmesg_restrict=0"
)

JOURNAL_MATCHES = (
    "_TRANSPORT=kernel",
    *(
        part
        for agent in (
            "earlyoom",
            "nohang",
            "nohang-desktop",
            "systemd-oomd",
            "oomd",
            "kubelet",
            "forestall",
        )
        for part in ("+", f"SYSLOG_IDENTIFIER={agent}")
    ),
)


class CannotRead(click.ClickException):
    """Nothing can be read here; the message says why and what to do."""

    exit_code = exits.KERNEL.code


class Source(NamedTuple):
    """A log by name, with its bytes."""

    name: str
    portions: Iterable[bytes]


def file_source(path: Path) -> Source:
    """Read a file, packed or not; ``-`` is standard input."""
    return Source(str(path), _file_portions(path))


def _file_portions(path: Path) -> Iterator[bytes]:
    try:
        if str(path) == "-":
            yield from iter(lambda: sys.stdin.buffer.read(PORTION_BYTES), b"")
            return
        with path.open("rb") as packed:
            unpack = _UNPACKERS.get(path.suffix)
            log = unpack(packed) if unpack else packed
            yield from iter(lambda: log.read(PORTION_BYTES), b"")
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise CannotRead(f"{path}: {error}") from error


def journal_command(since: str | None, *, follow: bool = False) -> list[str]:
    """Give the journal's command line, as a list."""
    arguments = ["journalctl", "--no-pager", "--quiet", "--output=short-iso-precise"]
    if since is not None:
        arguments.append(f"--since={since}")
    if follow:
        arguments += ["--follow", *([] if since else ["--lines=0"])]
    return [*arguments, *JOURNAL_MATCHES]


def run_source(name: str, arguments: list[str]) -> Source | None:
    """Run a command and read what it prints; None if it is not here or may not."""
    try:
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except OSError:
        return None
    portions = _output(process)
    first = next(portions, b"")
    if not first:
        return None if process.wait() != 0 else Source(name, ())
    return Source(name, chain((first,), portions))


def _output(process: subprocess.Popen[bytes]) -> Iterator[bytes]:
    with process:
        if process.stdout is not None:
            output = process.stdout
            yield from iter(lambda: output.read(PORTION_BYTES), b"")


def journal_source(since: str | None) -> Source | None:
    """Read the journal; None where there is none or it may not be read."""
    return run_source("journal", journal_command(since))


def ring_source(path: str = KMSG) -> Source:
    """Read the kernel's ring buffer, by its device or by dmesg."""
    try:
        records = list(_records(path))
    except OSError:
        found = run_source("dmesg", ["dmesg"])
        if found is None:
            raise CannotRead(_PERMISSION) from None
        return found
    return Source(path, records)


def _records(path: str) -> Iterator[bytes]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        while True:
            try:
                record = os.read(descriptor, _RECORD_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.EPIPE:
                    # Records were overwritten while we read: go on with the oldest there is.
                    continue
                raise
            if not record:
                return
            yield record
    finally:
        os.close(descriptor)


def any_source(since: str | None) -> Source:
    """Read the journal, or else the ring buffer."""
    found = journal_source(since)
    if found is not None and found.portions != ():
        return found
    return ring_source()


def followed(arguments: list[str]) -> Iterator[bytes | None]:
    """Follow a command's output; None after a silence."""
    try:
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE)
    except OSError as error:
        raise CannotRead(f"{arguments[0]}: {error.strerror}") from error
    with process, selectors.DefaultSelector() as selector:
        output = process.stdout
        if output is None:
            return
        selector.register(output, selectors.EVENT_READ)
        try:
            while True:
                if not selector.select(SILENCE_S):
                    yield None
                    continue
                portion = os.read(output.fileno(), PORTION_BYTES)
                if not portion:
                    return
                yield portion
        finally:
            process.terminate()
