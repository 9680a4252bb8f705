"""The guard's end of relief: starts it, hands things over, never waits.

What cannot be handed over without waiting is dropped and counted.
"""

from __future__ import annotations

import os
import select
import signal
import socket

from forestall.core.value import TYPE_CHECKING
from forestall.kernel.clock import now_ns
from forestall.relief.wire import pair, receive, send

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Hand:
    """Relief as the guard sees it.

    Args:
        serve: Runs in the child with its end of the socket; returns when we are gone.
    """

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        self._serve = serve
        self._end: socket.socket | None = None
        self.pid = 0
        self.dropped = 0

    @property
    def fd(self) -> int:
        """Descriptor to poll for answers; -1 while relief is not running."""
        return self._end.fileno() if self._end is not None else -1

    def start(self) -> None:
        """Fork relief. Only while memory is plentiful: fork is what fails when it is not.

        A fork, not a new program: it shares our pages, so the two together weigh
        little more than one.
        Raises: OSError when the fork fails.
        """
        ours, theirs = pair()
        pid = os.fork()
        if pid == 0:
            status = 70
            try:
                ours.close()
                signal.set_wakeup_fd(-1)
                # Both foreground and systemd signal the whole group: relief ends with the
                # socket instead, so that a last record is still written.
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                self._serve(theirs)
                status = 0
            finally:
                os._exit(status)
        theirs.close()
        self._end = ours
        self.pid = pid

    def reap(self, pidfd: int) -> None:
        """Have a victim's memory freed, should it not go by itself; call after SIGKILL."""
        self._send({"op": "reap", "killed_ns": now_ns()}, pidfd)

    def relieve(self, action: str) -> bool:
        """Ask for a cleanup; False when relief cannot take it."""
        return self._send({"op": "relieve", "action": action})

    def write(self, name: str, data: bytes, *, last: bool) -> bool:
        """Hand over a piece of a record; False when it must be tried again later."""
        return self._send({"op": "write", "name": name, "data": data, "last": last})

    def takes_more(self, timeout_ms: int) -> bool:
        """Wait until relief takes more, or is gone; only for the stop, when waiting is allowed."""
        if self.fd < 0:
            return True
        poll = select.poll()
        poll.register(self.fd, select.POLLOUT)
        return bool(poll.poll(timeout_ms))

    def news(self) -> list[dict[str, Any]]:
        """Take what relief has said; notices when it is gone."""
        found = []
        while self._end is not None:
            try:
                message, fd = receive(self._end)
            except BlockingIOError:
                break
            except ConnectionError:
                message, fd = None, None
            if fd is not None:
                os.close(fd)
            if message is None:
                self.close()
                break
            found.append(message)
        return found

    def close(self) -> None:
        """Let relief go; it ends by itself."""
        if self._end is not None:
            self._end.close()
            self._end = None
        if self.pid:
            try:
                os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                pass  # somebody else reaped it
            self.pid = 0

    def _send(self, message: dict[str, Any], fd: int | None = None) -> bool:
        if self._end is None:
            self.dropped += 1
            return False
        try:
            sent = send(self._end, message, fd)
        except ConnectionError:
            self.close()
            sent = False
        except OSError:
            sent = False
        if not sent:
            self.dropped += 1
        return sent
