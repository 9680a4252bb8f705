"""The guard's stream, if a guard runs: news sooner than our own next look.

Rule: without a guard nothing is lost but the news. The thread ends with stop().
"""

from __future__ import annotations

import os
import threading

from forestall.config.launch import user_socket
from forestall.control.errors import ControlError, Unreachable
from forestall.core.rules import Options
from forestall.core.value import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from forestall.control.client import Client

RETRY_S = 30.0
ANSWER_S = 0.5
"""How long the guard may take to say who is next; a guard at work has better things to do."""
WARNINGS = frozenset({"warning", "decision"})
KILLS = frozenset({"ended", "kernel-kill", "other-kill"})
"""By the guard, by the kernel, by another killer."""
WORTH_TELLING = frozenset({"level", "critical"}) | WARNINGS | KILLS


class GuardStream:
    """Listens to the guard in a thread of its own.

    Args:
        path: The guard's socket; None for the machine's, else the user's own.
        news: Called with each event that is about pressure; must not wait.
    """

    def __init__(self, path: str | None, news: Callable[[dict[str, Any]], None]) -> None:
        self._paths = (path,) if path else (Options().socket_path, _own_socket())
        self._news = news
        self._stop = threading.Event()
        self._client: Client | None = None
        self._heard = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(
            target=self._run, name="forestall-guard-stream", daemon=True
        )

    @property
    def connected(self) -> bool:
        """Whether a guard is listened to."""
        return self._heard

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def stop(self) -> None:
        """Stop listening; does not wait."""
        self._stop.set()
        with self._lock:
            if self._client is not None:
                _hang_up(self._client)

    def next_to_go(self) -> dict[str, Any]:
        """Ask the guard who would go; empty when it does not say at once."""
        client = self._client
        if client is None or not self._heard:
            return {}
        try:
            with type(client)(client.path, timeout_s=ANSWER_S) as second:
                status = second.call("GetStatus").get("status")
        except ControlError:
            return {}
        found = status.get("next_to_go") if isinstance(status, dict) else None
        return found if isinstance(found, dict) else {}

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                client = self._connect()
            except Unreachable:
                client = None
            if client is not None:
                self._listen(client)
            self._stop.wait(RETRY_S)

    def _connect(self) -> Client:
        # Here, in its thread: sockets and JSON are half of what importing us would cost.
        from forestall.control.client import Client  # noqa: PLC0415

        error: Unreachable | None = None
        for path in self._paths:
            try:
                return Client(path)
            except Unreachable as refused:
                error = refused
        assert error is not None
        raise error

    def _listen(self, client: Client) -> None:
        with self._lock:
            self._client = client
        try:
            if self._stop.is_set():
                return
            for _sequence, event in client.monitor():
                # Its first word says that whatever it tells from now on will come.
                self._heard = True
                if event.get("what") in WORTH_TELLING:
                    self._news(event)
        except ControlError:
            pass  # it stopped, or was restarted: we try again later
        finally:
            self._heard = False
            with self._lock:
                self._client = None
            client.close()


def rank(news: Mapping[str, Any]) -> tuple[bool, bool, bool]:
    """Order what came within one look: a kill says more than a warning, who it is more than not."""
    what = news.get("what")
    return what in KILLS, what in WARNINGS, bool(news.get("pid"))


def _own_socket() -> str:
    return user_socket(os.geteuid(), os.environ)


def _hang_up(client: Client) -> None:
    # Closing a descriptor does not wake who waits on it; shutting the connection down does.
    import socket  # noqa: PLC0415 - the client has imported it

    try:
        with socket.socket(fileno=os.dup(client.fileno())) as other:
            other.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it was gone already
