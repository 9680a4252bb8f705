"""/proc/self/mountinfo to values: what is mounted where. Pure."""

from __future__ import annotations

from forestall.core.value import TYPE_CHECKING, value

if TYPE_CHECKING:
    from collections.abc import Iterator


@value
class Mount:
    """One line of /proc/self/mountinfo."""

    id: int
    device: str
    """Major and minor number, as "0:25"."""
    path: str
    kind: str
    options: str
    """Of the mount and of the file system, joined by a comma."""


def mounts_of(raw: bytes) -> Iterator[Mount]:
    """Read the lines of /proc/self/mountinfo; a line that makes no sense is left out.

    Source: proc(5). Optional fields end with a single hyphen, then come type and source.
    Blanks in paths come as octal escapes.
    """
    text = raw.decode("utf-8", "surrogateescape")
    for line in text.split("\n"):
        before, _, after = line.partition(" - ")
        head, tail = before.split(" "), after.split(" ")
        if len(head) < 6 or len(tail) < 3 or not head[0].isdigit():
            continue
        options = f"{head[5]},{tail[2]}"
        yield Mount(int(head[0]), head[2], _unescape(head[4]), tail[0], options)


def _unescape(path: str) -> str:
    for escape, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        path = path.replace(escape, character)
    return path
