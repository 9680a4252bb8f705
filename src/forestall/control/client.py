"""The other end of the control socket: blocking, with a time limit, for all but the guard."""

from __future__ import annotations

import socket

from forestall.control import messages
from forestall.control.errors import BadMessage, Refused, Unreachable
from forestall.core.rules import Options
from forestall.core.value import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Any

TIMEOUT_S = 5.0
ANSWER_BYTES_MAX = 16 * 1024 * 1024
_READ_BYTES = 64 * 1024


class Client:
    """One connection to the guard; connects at once.

    Args:
        path: The socket; None for where the guard puts it by default.
        timeout_s: For each call; a machine short of memory is slow to answer.

    Raises: Unreachable.
    """

    def __init__(self, path: str | None = None, *, timeout_s: float = TIMEOUT_S) -> None:
        self.path = path or Options().socket_path
        self._timeout_s = timeout_s
        self._inbox = bytearray()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(timeout_s)
        try:
            self._socket.connect(self.path)
        except (OSError, ValueError) as error:
            self._socket.close()
            raise Unreachable(f"no guard answers at {self.path}: {_reason(error)}") from None

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def fileno(self) -> int:
        """Return the descriptor, to wait on together with others."""
        return self._socket.fileno()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:  # noqa: ANN401 - plain data
        """Call a method and return what it answers.

        Args:
            method: Short for our interface (``GetStatus``), or the full name.

        Raises: Refused with the guard's error; Unreachable; BadMessage.
        """
        self._send(messages.encode_call(_full(method), parameters))
        return _unwrap(self._receive())[0]

    def monitor(
        self, since: int | None = None, *, patience_s: float | None = None
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield sequence number and event, for as long as the guard lives.

        Args:
            since: What is still remembered after this number comes first.
            patience_s: End when nothing came for so long; None waits for ever.

        The first one is ``{"what": "start"}`` unless ``since`` is given: it tells
        where the stream stands. A step of more than one in the numbers means
        that events were dropped.
        Raises: Refused; Unreachable when the guard hangs up; BadMessage.
        """
        parameters = {} if since is None else {"since": since}
        self._send(messages.encode_call(_full("Monitor"), parameters, more=True))
        self._socket.settimeout(patience_s)
        while True:
            try:
                answer, continues = _unwrap(self._receive())
            except Unreachable as error:
                if isinstance(error.__context__, TimeoutError):
                    return
                raise
            sequence, event = answer.get("sequence"), answer.get("event")
            if not isinstance(sequence, int) or not isinstance(event, dict):
                raise BadMessage("an event without a number")
            yield sequence, event
            if not continues:
                return

    def _send(self, raw: bytes) -> None:
        try:
            self._socket.settimeout(self._timeout_s)
            self._socket.sendall(raw)
        except OSError as error:
            raise Unreachable(f"the guard at {self.path} takes nothing: {_reason(error)}") from None

    def _receive(self) -> dict[str, Any]:
        while (end := self._inbox.find(0)) < 0:
            try:
                got = self._socket.recv(_READ_BYTES)
            except OSError as error:
                raise Unreachable(f"the guard at {self.path} is silent: {_reason(error)}") from None
            if not got:
                raise Unreachable(f"the guard at {self.path} hung up")
            self._inbox += got
            if len(self._inbox) > ANSWER_BYTES_MAX:
                raise BadMessage(f"an answer of more than {ANSWER_BYTES_MAX} bytes")
        raw = bytes(self._inbox[:end])
        del self._inbox[: end + 1]
        return messages.decode(raw)


def _full(method: str) -> str:
    return method if "." in method else f"{messages.INTERFACE}.{method}"


def _unwrap(message: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    parameters = message.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise BadMessage("parameters that are no object")
    if "error" in message:
        raise Refused(str(message["error"]), parameters)
    return parameters, message.get("continues") is True


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "timed out"
    return getattr(error, "strerror", None) or str(error)
