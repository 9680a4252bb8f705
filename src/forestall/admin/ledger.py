"""What protect changed, and to whom: written before the change, so that undo always knows.

/var/lib/forestall/protect.json, for root alone. Processes do not outlive a boot,
so the entries of another boot are void.
"""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forestall.admin.errors import AdminError, NotPermitted
from forestall.admin.files import read_text, write_whole
from forestall.core.model import ProcessId

if TYPE_CHECKING:
    from collections.abc import Iterator

STATE_FILE = "var/lib/forestall/protect.json"
BOOT_ID = "proc/sys/kernel/random/boot_id"
VERSION = 1
ENTRIES_MAX = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One process whose value is ours."""

    id: ProcessId
    name: str
    old: int
    """What it had before we came."""
    new: int
    label: str


class Ledger:
    """The entries by process, kept in a file that is for root; read when they are asked for."""

    def __init__(self, root: Path) -> None:
        self._path = root / STATE_FILE
        self._boot = (read_text(root / BOOT_ID) or "").strip()
        self._entries: dict[ProcessId, Entry] | None = None

    @property
    def entries(self) -> dict[ProcessId, Entry]:
        """Return the entries.

        Raises: AdminError for a damaged file; NotPermitted.
        """
        if self._entries is None:
            self.load()
        assert self._entries is not None
        return self._entries

    @entries.setter
    def entries(self, entries: dict[ProcessId, Entry]) -> None:
        self._entries = entries

    def load(self) -> None:
        """Read the file again: another of us may have written it.

        Raises: AdminError for a damaged file; NotPermitted.
        """
        try:
            text = read_text(self._path)
        except PermissionError:
            raise NotPermitted(f"reading {self._path} takes root; try sudo") from None
        # Nothing is remembered of what could not be read, or it would be written over.
        self._entries = None
        entries: dict[ProcessId, Entry] = {}
        if text is not None:
            try:
                held: dict[str, Any] = json.loads(text)
                if held["boot_id"] == self._boot:
                    entries = {entry.id: entry for entry in map(_entry, held["entries"])}
            except (ValueError, KeyError, TypeError) as error:
                raise AdminError(
                    f"{self._path} is damaged ({error}); what it held cannot be undone: remove it"
                ) from None
        self._entries = entries

    def save(self) -> None:
        """Write the file; without entries there is none.

        Raises: OSError.
        """
        if not self.entries:
            self._path.unlink(missing_ok=True)
            return
        plain = {
            "version": VERSION,
            "boot_id": self._boot,
            "entries": [
                {**asdict(entry), "id": list(entry.id)}  # type: ignore[call-overload]
                for entry in list(self.entries.values())[-ENTRIES_MAX:]
            ],
        }
        write_whole(self._path, json.dumps(plain, indent=1) + "\n", mode=0o600)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep others of us out while the file is read, changed and written.

        Raises: OSError.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            self.load()
            yield
        finally:
            os.close(fd)


def _entry(plain: dict[str, Any]) -> Entry:
    pid, start_ticks = plain["id"]
    old, new = int(plain["old"]), int(plain["new"])
    return Entry(
        id=ProcessId(int(pid), int(start_ticks)),
        name=str(plain["name"]),
        old=old,
        new=new,
        label=str(plain["label"]),
    )
