"""What the server keeps of one client: who it is, what waits, and how fast it may ask."""

from __future__ import annotations

import socket
import struct

from forestall.core.value import value

CALLS_PER_SECOND_MAX = 20
MESSAGE_BYTES_MAX = 8 * 1024
MESSAGE_BYTES_MAX_ROOT = 1024 * 1024
_SECOND_NS = 1_000_000_000
_PEER = struct.Struct("iII")


@value
class Peer:
    """Who is at the other end, as the kernel says."""

    pid: int
    uid: int
    gid: int


class Pace:
    """So many a second and no more."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._began_ns = 0
        self._count = 0

    def free(self, now_ns: int) -> bool:
        """Tell whether one more is allowed now."""
        if now_ns - self._began_ns >= _SECOND_NS:
            self._began_ns = now_ns
            self._count = 0
        return self._count < self._limit

    @property
    def spent(self) -> bool:
        """Whether the last second's were all taken; time alone changes that, see ``free``."""
        return self._count >= self._limit

    def take(self) -> None:
        """Count one."""
        self._count += 1


class Client:
    """One connection."""

    def __init__(self, connection: socket.socket, peer: Peer, now_ns: int) -> None:
        self.connection = connection
        self.peer = peer
        self.inbox = bytearray()
        self.outbox = bytearray()
        self.pace = Pace(CALLS_PER_SECOND_MAX)
        self.heard_ns = now_ns
        self.monitors = False
        self.closing = False
        """Close once the outbox is empty: the other side has stopped talking."""

    @property
    def message_bytes_max(self) -> int:
        """Root hands over whole rule sets; nobody else has that much to say."""
        return MESSAGE_BYTES_MAX_ROOT if self.peer.uid == 0 else MESSAGE_BYTES_MAX


def peer_of(connection: socket.socket) -> Peer | None:
    """Ask the kernel who is at the other end; None when it does not say."""
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    except OSError:
        return None
    return Peer(*_PEER.unpack(raw))
