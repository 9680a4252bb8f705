"""Talking to systemd: readiness, watchdog, status. sd_notify(3) in thirty lines."""

from __future__ import annotations

import os
import socket

from forestall.core.sentence import plain
from forestall.core.units import US


class Supervisor:
    """Tells systemd how we are; silent when nobody listens.

    Args:
        environment: NOTIFY_SOCKET and WATCHDOG_USEC as systemd sets them.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        self._socket: socket.socket | None = None
        address = environment.get("NOTIFY_SOCKET", "")
        if address[:1] in {"/", "@"}:
            self._socket = _connect("\0" + address[1:] if address[0] == "@" else address)
        usec = environment.get("WATCHDOG_USEC", "")
        owner = environment.get("WATCHDOG_PID", "")
        ours = not owner or owner == str(os.getpid())
        # Half the limit, as sd_watchdog_enabled(3) advises.
        self.watchdog_ns = int(usec) * US // 2 if usec.isdecimal() and ours else 0
        self._told_ns = 0

    @property
    def present(self) -> bool:
        """Whether anybody listens."""
        return self._socket is not None

    def ready(self, status: str) -> None:
        """Say that the guard guards."""
        self._send(f"READY=1\nSTATUS={plain(status)}\nMAINPID={os.getpid()}")

    def status(self, status: str) -> None:
        """Set the line ``systemctl status`` shows."""
        self._send(f"STATUS={plain(status)}")

    def stopping(self) -> None:
        """Say that a stop is under way."""
        self._send("STOPPING=1")

    def alive(self, now_ns: int) -> None:
        """Feed the watchdog, at most as often as it needs; called from the loop itself."""
        if self.watchdog_ns and now_ns - self._told_ns >= self.watchdog_ns:
            self._told_ns = now_ns
            self._send("WATCHDOG=1")

    def close(self) -> None:
        """Close the socket; what is said afterwards goes nowhere."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, text: str) -> None:
        if self._socket is None:
            return
        try:
            self._socket.send(text.encode("utf-8", "replace"))
        except OSError:
            pass  # systemd is busy; the next beat will do


def _connect(address: str) -> socket.socket | None:
    end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    end.setblocking(False)  # noqa: FBT003 - the standard library's name for it
    try:
        end.connect(address)
    except OSError:
        end.close()
        return None
    return end
