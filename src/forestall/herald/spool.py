"""The spool: letters on disk until they are sent, so that a reboot loses none.

Rule: every event a channel wants is in exactly one place - held, waiting, sent,
failed - and ``tally`` adds them up. When the disk fails, work goes on in memory,
and moves back when the disk does.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from forestall.herald import event as events
from forestall.herald import letter as letters

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from forestall.herald.event import Event
    from forestall.herald.letter import Letter

T = TypeVar("T")

LETTERS_WAITING_MAX = 200
"""Per channel; beyond it the oldest fails, and is counted."""
LETTERS_KEPT_MAX = 500
"""Sent and failed ones, over all channels, for ``forestall alerts``."""
MEMORY = ":memory:"
WAITING, SENT, FAILED = "waiting", "sent", "failed"
_BUSY_S = 5.0

_SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
PRAGMA user_version = 1;
CREATE TABLE IF NOT EXISTS held (
    id INTEGER PRIMARY KEY, channel TEXT NOT NULL, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS letters (
    id INTEGER PRIMARY KEY, channel TEXT NOT NULL, made_ns INTEGER NOT NULL,
    count INTEGER NOT NULL, body TEXT NOT NULL, state TEXT NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0, next_ns INTEGER NOT NULL DEFAULT 0,
    done_ns INTEGER NOT NULL DEFAULT 0, why TEXT NOT NULL DEFAULT '');
CREATE INDEX IF NOT EXISTS by_state ON letters (state, channel, id);
CREATE TABLE IF NOT EXISTS counts (
    channel TEXT NOT NULL, name TEXT NOT NULL, number INTEGER NOT NULL,
    PRIMARY KEY (channel, name));
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, text TEXT NOT NULL);
"""
_OLDEST_WAITING = "id IN (SELECT min(id) FROM letters WHERE state = 'waiting' GROUP BY channel)"


@dataclass(frozen=True, slots=True)
class Row:
    """A letter in the spool."""

    number: int
    channel: str
    made_ns: int
    count: int
    letter: Letter
    state: str
    tries: int
    next_ns: int
    done_ns: int
    why: str


@dataclass(frozen=True, slots=True)
class Tally:
    """Where the events of one channel are."""

    wanted: int
    sent: int
    failed: int
    waiting: int
    held: int

    @property
    def balanced(self) -> bool:
        """Whether every event that was wanted is accounted for."""
        return self.wanted == self.sent + self.failed + self.waiting + self.held


class Spool:
    """Letters in SQLite; to be used by one thread.

    Args:
        path: The file; its folder exists. MEMORY keeps nothing.
        say: Told in a sentence when the disk fails and when it is back.
        read_only: Look at another process's spool; whatever is wrong raises.

    Raises: sqlite3.Error, only when read-only.
    """

    def __init__(self, path: str, say: Callable[[str], None], *, read_only: bool = False) -> None:
        self.path = path
        self._say = say
        self.on_disk = path != MEMORY
        self.epoch = 0
        """Rises when letters get other numbers, because they are kept elsewhere."""
        if read_only:
            self.on_disk = False
            uri = f"file:{quote(path)}?mode=ro"
            self._base = sqlite3.connect(uri, uri=True, timeout=_BUSY_S)
            return
        try:
            self._base = _open(path)
        except sqlite3.Error as error:
            self._base = self._fall_back(error)

    def close(self) -> None:
        """Close the file."""
        self._base.close()

    def write(self, change: Callable[[sqlite3.Connection], T]) -> T:
        """Make one change whole or not at all; in memory if the disk does not take it."""
        try:
            with self._base:
                return change(self._base)
        except sqlite3.Error as error:
            if not self.on_disk:
                raise
            self._base.close()
            self._base = self._fall_back(error)
        with self._base:
            return change(self._base)

    def return_to_disk(self) -> bool:
        """Move what is in memory back to the disk; False while that fails."""
        if self.on_disk or self.path == MEMORY:
            return self.on_disk
        try:
            disk = _open(self.path)
            with disk:
                _move(self._base, disk)
        except sqlite3.Error:
            return False
        self._base.close()
        self._base, self.on_disk = disk, True
        self.epoch += 1
        self._say("the spool is on disk again")
        return True

    def fact(self, name: str) -> str:
        """Return a fact that was kept, or nothing."""
        found = self.write(
            lambda base: base.execute("SELECT text FROM facts WHERE name = ?", (name,)).fetchone()
        )
        return str(found[0]) if found else ""

    def keep(self, **facts: str) -> None:
        """Keep facts over restarts."""
        self.write(lambda base: keep(base, facts))

    def count(self, name: str, channel: str = "") -> int:
        """Return a counter."""
        return self.write(lambda base: _count(base, channel, name))

    def bump(self, name: str, number: int = 1) -> None:
        """Raise a counter that belongs to no channel."""
        self.write(lambda base: bump(base, "", name, number))

    def due(self, now_ns: int, latest_ns: int) -> list[Row]:
        """Return the oldest waiting letter of each channel, if its time has come.

        Args:
            latest_ns: Nothing waits beyond this: the clock was set back.
        """
        return [
            row
            for row in self._rows(_OLDEST_WAITING)
            if row.next_ns <= now_ns or row.next_ns > latest_ns
        ]

    def next_by_channel(self) -> dict[str, int]:
        """Return when each channel's oldest waiting letter is due."""
        return {row.channel: row.next_ns for row in self._rows(_OLDEST_WAITING)}

    def newest(self, state: str, limit: int) -> list[Row]:
        """Return the newest letters in a state, newest first."""
        return self._rows("state = ?", (state,), order="id DESC", limit=limit)

    def channels(self) -> list[str]:
        """Name every channel that ever wanted something."""
        found = self.write(
            lambda base: base.execute(
                "SELECT DISTINCT channel FROM counts WHERE channel <> '' ORDER BY channel"
            ).fetchall()
        )
        return [str(row[0]) for row in found]

    def tally(self, channel: str) -> Tally:
        """Add up where a channel's events are."""

        def add(base: sqlite3.Connection) -> Tally:
            waiting = base.execute(
                "SELECT total(count) FROM letters WHERE channel = ? AND state = 'waiting'",
                (channel,),
            ).fetchone()[0]
            held = base.execute(
                "SELECT count(*) FROM held WHERE channel = ?", (channel,)
            ).fetchone()[0]
            wanted, sent, failed = (
                _count(base, channel, name) for name in ("wanted", SENT, FAILED)
            )
            return Tally(wanted, sent, failed, int(waiting), int(held))

        return self.write(add)

    def held(self, channel: str) -> list[tuple[int, Event]]:
        """Return what a channel held when it was last written, oldest first."""
        rows = self.write(
            lambda base: base.execute(
                "SELECT id, body FROM held WHERE channel = ? ORDER BY id", (channel,)
            ).fetchall()
        )
        return [(int(number), events.from_json(body)) for number, body in rows]

    def _rows(
        self, where: str, values: tuple[object, ...] = (), *, order: str = "id", limit: int = -1
    ) -> list[Row]:
        # The conditions are constants of this module; what varies is bound.
        query = (
            "SELECT id, channel, made_ns, count, body, state, tries, next_ns, done_ns, why "  # noqa: S608
            f"FROM letters WHERE {where} ORDER BY {order} LIMIT {int(limit)}"
        )
        found = self.write(lambda base: base.execute(query, values).fetchall())
        return [_row(row) for row in found]

    def _fall_back(self, error: sqlite3.Error) -> sqlite3.Connection:
        self.on_disk = False
        self.epoch += 1
        self._say(f"the spool {self.path} cannot be used ({error}): letters are in memory only")
        return _open(MEMORY)


def hold(base: sqlite3.Connection, channel: str, event: Event) -> int:
    """Keep an event a channel wants; returns its number."""
    bump(base, channel, "wanted", 1)
    cursor = base.execute(
        "INSERT INTO held (channel, body) VALUES (?, ?)", (channel, event.to_json())
    )
    return int(cursor.lastrowid or 0)


def post(base: sqlite3.Connection, channel: str, numbers: Sequence[int], now_ns: int) -> None:
    """Turn held events into a waiting letter; what overflows fails and is counted."""
    found = []
    for number in numbers:
        row = base.execute("SELECT body FROM held WHERE id = ?", (number,)).fetchone()
        if row is not None:
            found.append(events.from_json(row[0]))
            base.execute("DELETE FROM held WHERE id = ?", (number,))
    if not found:
        return
    base.execute(
        "INSERT INTO letters (channel, made_ns, count, body, state) VALUES (?, ?, ?, ?, ?)",
        (channel, now_ns, len(found), letters.write(found).to_json(), WAITING),
    )
    surplus = base.execute(
        "SELECT id FROM letters WHERE channel = ? AND state = 'waiting' "
        "ORDER BY id DESC LIMIT -1 OFFSET ?",
        (channel, LETTERS_WAITING_MAX),
    ).fetchall()
    for (number,) in surplus:
        finish(base, number, FAILED, now_ns, "too many letters were waiting")


def finish(base: sqlite3.Connection, number: int, state: str, now_ns: int, why: str = "") -> None:
    """Mark a waiting letter as sent or failed, and count its events; once."""
    row = base.execute(
        "SELECT channel, count FROM letters WHERE id = ? AND state = 'waiting'", (number,)
    ).fetchone()
    if row is None:
        return
    base.execute(
        "UPDATE letters SET state = ?, done_ns = ?, why = ?, tries = tries + 1 WHERE id = ?",
        (state, now_ns, why, number),
    )
    bump(base, row[0], state, row[1])
    base.execute(
        "DELETE FROM letters WHERE id IN (SELECT id FROM letters WHERE state <> 'waiting' "
        "ORDER BY id DESC LIMIT -1 OFFSET ?)",
        (LETTERS_KEPT_MAX,),
    )


def history(base: sqlite3.Connection, number: int) -> tuple[int, int]:
    """Return how often a letter was tried, and when it was written."""
    row = base.execute("SELECT tries, made_ns FROM letters WHERE id = ?", (number,)).fetchone()
    return (int(row[0]), int(row[1])) if row else (0, 0)


def postpone(base: sqlite3.Connection, number: int, next_ns: int, why: str) -> None:
    """Let a letter wait for its next try."""
    base.execute(
        "UPDATE letters SET tries = tries + 1, next_ns = ?, why = ? WHERE id = ?",
        (next_ns, why, number),
    )


def bump(base: sqlite3.Connection, channel: str, name: str, number: int) -> None:
    """Raise a counter."""
    base.execute(
        "INSERT INTO counts VALUES (?, ?, ?) "
        "ON CONFLICT (channel, name) DO UPDATE SET number = number + excluded.number",
        (channel, name, number),
    )


def keep(base: sqlite3.Connection, facts: dict[str, str]) -> None:
    """Keep facts."""
    base.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", list(facts.items()))


def _row(row: tuple[Any, ...]) -> Row:
    number, channel, made_ns, count, body, state, tries, next_ns, done_ns, why = row
    letter = letters.from_json(body)
    return Row(number, channel, made_ns, count, letter, state, tries, next_ns, done_ns, why)


def _count(base: sqlite3.Connection, channel: str, name: str) -> int:
    found = base.execute(
        "SELECT number FROM counts WHERE channel = ? AND name = ?", (channel, name)
    ).fetchone()
    return int(found[0]) if found else 0


def _move(memory: sqlite3.Connection, disk: sqlite3.Connection) -> None:
    for table, columns in (
        ("held", "channel, body"),
        ("letters", "channel, made_ns, count, body, state, tries, next_ns, done_ns, why"),
    ):
        marks = ", ".join("?" for _ in columns.split(","))
        rows = memory.execute(f"SELECT {columns} FROM {table} ORDER BY id").fetchall()  # noqa: S608
        disk.executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", rows)  # noqa: S608
    for channel, name, number in memory.execute("SELECT channel, name, number FROM counts"):
        bump(disk, channel, name, number)
    keep(disk, dict(memory.execute("SELECT name, text FROM facts").fetchall()))


def _open(path: str) -> sqlite3.Connection:
    base = sqlite3.connect(path, timeout=_BUSY_S, isolation_level="IMMEDIATE")
    try:
        base.executescript(_SCHEMA)
    except sqlite3.Error:
        base.close()
        raise
    return base
