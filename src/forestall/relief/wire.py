"""What guard and relief say to each other: one marshalled dict per packet, perhaps one descriptor.

Packets keep their borders (SOCK_SEQPACKET), so half a message cannot exist.
"""

from __future__ import annotations

import array
import marshal
import os
import socket

from forestall.core.value import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

PACKET_BYTES_MAX = 64 * 1024


def pair() -> tuple[socket.socket, socket.socket]:
    """Make the two ends; both non-blocking, neither survives an exec."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)  # noqa: FBT003 - the standard library's name for it
    return ours, theirs


def send(end: socket.socket, message: dict[str, Any], fd: int | None = None) -> bool:
    """Send one message; False when it could not be sent without waiting.

    Raises: BrokenPipeError or ConnectionError when the other side is gone.
    """
    rights = (
        []
        if fd is None
        else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]).tobytes())]
    )
    try:
        end.sendmsg([marshal.dumps(message)], rights, socket.MSG_NOSIGNAL)
    except BlockingIOError:
        return False
    return True


def receive(end: socket.socket) -> tuple[dict[str, Any] | None, int | None]:
    """Receive one message and perhaps a descriptor, which then is the caller's to close.

    Returns: (None, None) when the other side is gone.
    Raises: BlockingIOError when there is nothing; ConnectionError for a packet that was
    cut or is not ours, for then nothing that follows can be trusted either.
    """
    data, ancillary, flags, _address = end.recvmsg(
        PACKET_BYTES_MAX, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC
    )
    if not data:
        return None, None
    fd = None
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS and len(payload) >= 4:
            fd = array.array("i", payload[:4])[0]
    try:
        if flags & socket.MSG_TRUNC:
            raise ValueError("cut")
        # Our own child, over a socket nobody else holds.
        message = marshal.loads(data)  # noqa: S302
    except (ValueError, EOFError, TypeError):
        if fd is not None:
            os.close(fd)
        raise ConnectionError("a packet that cannot be read") from None
    return message if isinstance(message, dict) else {}, fd
