"""What the guard says, and where: the journal with fields, or readable lines.

Both forms come from one table of events. Sending never waits: what the journal
does not take at once is dropped and counted.
"""

from __future__ import annotations

import os
import select
import socket

from forestall.core.sentence import plain
from forestall.core.value import TYPE_CHECKING, value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from forestall.core.events import Tell

JOURNAL_SOCKET = "/run/systemd/journal/socket"

LINE_BYTES_MAX = select.PIPE_BUF
ERROR, WARNING, NOTICE, INFO, DEBUG = 3, 4, 5, 6, 7


@value
class Kind:
    """How one kind of event is written down."""

    message_id: str
    """128 random bits, for ``journalctl MESSAGE_ID=…``."""
    priority: int
    help: str


KINDS = {
    "start": Kind("c624c461c30b4483a148e6e7279a1a65", NOTICE, "The guard has started."),
    "stop": Kind("fd756a5893334b8cb937194b6e653f17", NOTICE, "The guard has stopped."),
    "level": Kind("dafc4ee56fa246d08d2d268653c7cfdc", NOTICE, "Memory changed its level."),
    "critical": Kind(
        "09b1a4ae366d442b80f1a2d420841b0d", DEBUG, "Memory is still critical; once a second."
    ),
    "warning": Kind(
        "a0e4ca9de9c748208b16c56dfb76afc9", WARNING, "Memory runs low: who would go, and when."
    ),
    "decision": Kind("4189ff88bf9c495bb658a4b9e8f66fa3", WARNING, "A victim was chosen, and why."),
    "ended": Kind("1c8296a3b9e94f198bf20565c313832a", WARNING, "A signal was sent."),
    "outcome": Kind("eedf47ded3a44b23812470b162b6c687", NOTICE, "What came back of it."),
    "nobody": Kind("337a5cf09a1549508e3fcbf72995ae98", ERROR, "Nobody is suitable."),
    "futile": Kind(
        "172d4db4698047f084735deea5994239", ERROR, "Ending a process would not help; what would."
    ),
    "stuck": Kind("8d511c5fc3d24eea919bb68bd6f8e89f", ERROR, "A victim does not go."),
    "refused": Kind("c8df033e8894410d98c5a77897220e10", ERROR, "A signal was refused."),
    "kernel-kill": Kind(
        "98e8316ead5b43af8fe0183e862fb283", ERROR, "The kernel's OOM killer acted."
    ),
    "group-warning": Kind(
        "9e06e2667b6343d6818b312031699864", WARNING, "A control group runs into its own limit."
    ),
    "group-kill": Kind(
        "8641a16329af4ceeaabf484df1690ea8",
        WARNING,
        "The kernel ended something at a group's own limit.",
    ),
    "other-kill": Kind(
        "c7a9dccb91c44a8cba2b74b7216eddb7",
        WARNING,
        "Somebody else ended a process, or it leaves by itself; its memory is waited for.",
    ),
    "restart-loop": Kind(
        "0cee8d3b96fd43cbb3e1306bc2168552",
        ERROR,
        "What was ended has come back into the same shortage, and was ended again.",
    ),
    "relieved": Kind("87ca1dc1491d450abf57efa999fc086e", NOTICE, "Relief freed something."),
    "declined": Kind("fba081a3f2884191b21b611b00c8404e", NOTICE, "Relief would not, and why."),
    "reload": Kind("0d86aff9ec7a4c4abc06455891ec9b71", NOTICE, "New rules are in force."),
    "blind": Kind("5a112d57085945aa91442be1187c2c07", ERROR, "Memory cannot be read."),
    "error": Kind("9f52851d8e554b91a6170934cec6ed0e", ERROR, "An internal error."),
    "degraded": Kind(
        "0f631dd240fc42dab596cac3270c66f6", WARNING, "Something the guard would need is refused."
    ),
    "asked": Kind("676bb755f65841c6aa2c2a8c7219d1ca", NOTICE, "A person asked for an end."),
}


class Speaker:
    """Writes events where people look for them.

    Args:
        style: ``journal``, ``plain``, or ``auto``: the journal when our standard
            error already goes there.
        fd: Where plain lines go.
        environment: Where systemd says which stream it gave us.
        journal: The journal's socket.
    """

    def __init__(
        self,
        style: str,
        fd: int = 2,
        *,
        environment: Mapping[str, str] = os.environ,
        journal: str = JOURNAL_SOCKET,
    ) -> None:
        self._fd = fd
        self._room = select.poll()
        self._room.register(fd, select.POLLOUT)
        self._socket: socket.socket | None = None
        self.dropped = 0
        if style == "journal" or (style == "auto" and _is_journal_stream(fd, environment)):
            self._socket = _open_journal(journal)

    @property
    def style(self) -> str:
        """Where it goes: ``journal`` or ``plain``."""
        return "plain" if self._socket is None else "journal"

    def say(self, tell: Tell, sequence: int) -> None:
        """Write one event; never raises, never waits."""
        kind = KINDS.get(tell.what) or KINDS["error"]
        if self._socket is not None:
            self._send(_fields(tell, kind, sequence))
        elif kind.priority < DEBUG:
            self._write(f"forestall: {tell.what}: {plain(tell.sentence)}\n")

    def line(self, text: str) -> None:
        """Write one plain line, whatever the style; for the foreground."""
        self._write(text)

    def close(self) -> None:
        """Close the socket; what is said afterwards goes to plain lines."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, fields: bytes) -> None:
        assert self._socket is not None
        try:
            self._socket.send(fields, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:
            self.dropped += 1

    def _write(self, text: str) -> None:
        # A terminal stopped by Ctrl-S, or a pipe that nobody empties, would hold the guard up
        # for as long as somebody pleases. What poll() finds writable takes PIPE_BUF at once.
        try:
            if not self._room.poll(0):
                self.dropped += 1
                return
            raw = text.encode("utf-8", "backslashreplace")
            if len(raw) > LINE_BYTES_MAX:
                raw = raw[: LINE_BYTES_MAX - 1] + b"\n"
            os.write(self._fd, raw)
        except OSError:
            self.dropped += 1


def _fields(tell: Tell, kind: Kind, sequence: int) -> bytes:
    pairs = [
        ("MESSAGE", plain(tell.sentence)),
        ("MESSAGE_ID", kind.message_id),
        ("PRIORITY", str(kind.priority)),
        ("SYSLOG_IDENTIFIER", "forestall"),
        ("FORESTALL_EVENT", tell.what),
        ("FORESTALL_SEQUENCE", str(sequence)),
        ("FORESTALL_LEVEL", tell.level.value),
    ]
    if tell.trigger:
        pairs.append(("FORESTALL_TRIGGER", plain(tell.trigger)))
    if tell.victim is not None:
        pairs.append(("FORESTALL_VICTIM_PID", str(tell.victim.pid)))
        pairs.append(("FORESTALL_VICTIM_COMM", plain(tell.comm)))
    if tell.unit:
        # What journalctl and systemctl status look for, beside a unit's own lines.
        pairs.append(("OBJECT_SYSTEMD_UNIT", plain(tell.unit)))
    # A newline in a value would begin a new field: what others had a hand in is escaped.
    lines = (f"{name}={text}\n" for name, text in pairs)
    return "".join(lines).encode("utf-8", "backslashreplace")


def _is_journal_stream(fd: int, environment: Mapping[str, str]) -> bool:
    # systemd.exec(5): JOURNAL_STREAM holds device and inode of the stream we were given.
    stream = environment.get("JOURNAL_STREAM", "")
    try:
        status = os.fstat(fd)
    except OSError:
        return False
    return stream == f"{status.st_dev}:{status.st_ino}"


def _open_journal(path: str) -> socket.socket | None:
    end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        end.connect(path)
    except OSError:
        end.close()
        return None
    end.setblocking(False)  # noqa: FBT003 - the standard library's name for it
    return end
