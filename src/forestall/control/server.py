"""The guard's end of the control socket, served by the guard's own poll().

Rule: nobody who connects can make the guard wait, grow or spin. Every read
and write is non-blocking; clients, bytes, requests per second and the events
kept for slow readers have limits, and what is dropped is counted. Time enters
as ``now_ns``.
"""

from __future__ import annotations

import os
import select
import socket
from collections import deque

from forestall import __version__
from forestall.control import messages
from forestall.control.connection import Client, Pace, peer_of
from forestall.control.errors import BadMessage, Refused
from forestall.core.value import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from forestall.control.connection import Peer

    Handler = Callable[[dict[str, Any], Peer], dict[str, Any]]

CLIENTS_MAX = 32
CLIENTS_RESERVED_FOR_ROOT = 8
CLIENTS_PER_USER_MAX = 4
ACCEPTS_PER_TURN_MAX = 4
ACCEPTS_PER_SECOND_MAX = 50
CALLS_PER_TURN_MAX = 8
READ_BYTES = 16 * 1024
OUTPUT_BYTES_MAX = 512 * 1024
EVENTS_KEPT = 256
IDLE_NS_MAX = 60_000_000_000
HALF_MESSAGE_NS_MAX = 5_000_000_000


class Server:
    """The control socket.

    Args:
        path: Where the socket is; its folder is made if it is missing.
        handlers: By short method name: ``(parameters, peer) -> parameters``. They
            raise Refused to refuse. GetInfo, GetInterfaceDescription and Monitor are
            answered here; a method without a handler is "not implemented".
        owner_uid: Who counts as root besides root: the user who runs the guard.
        identify: Asks the kernel who is at the other end.
    """

    def __init__(
        self,
        path: str,
        handlers: Mapping[str, Handler],
        *,
        owner_uid: int | None = None,
        identify: Callable[[socket.socket], Peer | None] = peer_of,
    ) -> None:
        self.path = path
        self._handlers = handlers
        self._identify = identify
        self._owner_uid = os.geteuid() if owner_uid is None else owner_uid
        self._listener: socket.socket | None = None
        self._inode: tuple[int, int] | None = None
        self._clients: dict[int, Client] = {}
        self._accepts = Pace(ACCEPTS_PER_SECOND_MAX)
        self._history: deque[tuple[int, dict[str, Any]]] = deque(maxlen=EVENTS_KEPT)
        self._fresh: deque[tuple[int, dict[str, Any]]] = deque()
        self._sequence = 0
        self.counters = {
            "calls": 0,
            "refused_clients": 0,
            "dropped_clients": 0,
            "dropped_events": 0,
            "bad_messages": 0,
            "failed_calls": 0,
        }

    def open(self) -> None:
        """Bind and listen.

        Race: two guards could both find the socket dead and bind; the second's
        bind then fails, because the name is only taken away when nobody answers.
        Raises: OSError; EADDRINUSE when another guard answers there.
        """
        os.makedirs(os.path.dirname(self.path), mode=0o755, exist_ok=True)
        _remove_dead(self.path)
        listener = socket.socket(
            socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        )
        try:
            listener.bind(self.path)
            # Permission is decided per method by the peer's uid, so everyone may connect.
            os.chmod(self.path, 0o666)  # noqa: S103 - see above
            listener.listen(CLIENTS_MAX)
            status = os.stat(self.path)
        except OSError:
            listener.close()
            raise
        self._listener = listener
        self._inode = (status.st_dev, status.st_ino)

    def close(self) -> None:
        """Hang up on everyone and remove our socket, if the name still is ours."""
        for client in list(self._clients.values()):
            self._drop(client)
        if self._listener is None:
            return
        self._listener.close()
        self._listener = None
        try:
            status = os.stat(self.path)
            if (status.st_dev, status.st_ino) == self._inode:
                os.unlink(self.path)
        except OSError:
            pass  # Gone already, or a folder we may not write: nothing of ours is left to use.

    def fds(self, now_ns: int) -> list[tuple[int, int]]:
        """Return what to poll for now: descriptor and mask."""
        wanted = []
        if self._listener is not None and self._accepts.free(now_ns):
            wanted.append((self._listener.fileno(), select.POLLIN))
        for fd, client in self._clients.items():
            mask = select.POLLOUT if client.outbox else 0
            # Who does not take answers gets no more of our time for questions.
            if client.pace.free(now_ns) and not client.outbox and not client.closing:
                mask |= select.POLLIN
            wanted.append((fd, mask))
        return wanted

    @property
    def quiet(self) -> bool:
        """Whether nobody is connected, and ``fds`` stays as it is until somebody comes."""
        return not self._clients and not self._accepts.spent

    def ready(self, fd: int, mask: int, now_ns: int) -> None:
        """Serve one descriptor that poll() named; unknown ones are ignored."""
        if self._listener is not None and fd == self._listener.fileno():
            self._accept(now_ns)
            return
        client = self._clients.get(fd)
        if client is None:
            return
        if mask & select.POLLOUT:
            self._flush(client)
        if mask & select.POLLIN:
            self._receive(client, now_ns)
        elif mask & (select.POLLHUP | select.POLLERR | select.POLLNVAL):
            self._drop(client)

    def publish(self, event: dict[str, Any]) -> int:
        """Keep an event for the monitors and return its sequence number.

        Cost: one append; nothing is encoded or sent before ``pump``.
        """
        self._sequence += 1
        self._history.append((self._sequence, event))
        if len(self._fresh) >= EVENTS_KEPT:
            self._fresh.popleft()
            self.counters["dropped_events"] += 1
        self._fresh.append((self._sequence, event))
        return self._sequence

    def pump(self, now_ns: int) -> None:
        """Do what needs no wake-up: send events, take up paused calls, drop who is idle.

        To be called once a turn, after the decisions.
        """
        while self._fresh:
            sequence, event = self._fresh.popleft()
            monitors = [client for client in self._clients.values() if client.monitors]
            if monitors:
                self._send_event(monitors, sequence, event)
        for client in list(self._clients.values()):
            if self._idle(client, now_ns):
                self._drop(client, counted=True)
            elif client.inbox and not client.outbox and client.pace.free(now_ns):
                self._serve(client, now_ns)

    def _accept(self, now_ns: int) -> None:
        assert self._listener is not None
        for _ in range(ACCEPTS_PER_TURN_MAX):
            if not self._accepts.free(now_ns):
                return
            try:
                connection, _address = self._listener.accept()
            except OSError:
                return  # Nobody there any more, or no descriptors left: poll() tells again.
            self._accepts.take()
            connection.setblocking(False)  # noqa: FBT003 - the standard library's name for it
            peer = self._identify(connection)
            if peer is None or not self._room_for(peer):
                self.counters["refused_clients"] += 1
                connection.close()
                continue
            self._clients[connection.fileno()] = Client(connection, peer, now_ns)

    def _room_for(self, peer: Peer) -> bool:
        if peer.uid == 0:
            return len(self._clients) < CLIENTS_MAX
        of_user = sum(client.peer.uid == peer.uid for client in self._clients.values())
        others_max = CLIENTS_MAX - CLIENTS_RESERVED_FOR_ROOT
        return of_user < CLIENTS_PER_USER_MAX and len(self._clients) < others_max

    def _receive(self, client: Client, now_ns: int) -> None:
        try:
            got = client.connection.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self._drop(client)
            return
        if not got:
            # The other side may have shut down only its half and still wait for the answer.
            client.closing = True
            if not client.outbox:
                self._drop(client)
            return
        client.heard_ns = now_ns
        client.inbox += got
        self._serve(client, now_ns)
        if len(client.inbox) > client.message_bytes_max + READ_BYTES:
            self._drop(client, counted=True)

    def _serve(self, client: Client, now_ns: int) -> None:
        for _ in range(CALLS_PER_TURN_MAX):
            if not client.pace.free(now_ns) or client.closing:
                break
            end = client.inbox.find(0)
            if end < 0:
                if len(client.inbox) > client.message_bytes_max:
                    self._drop(client, counted=True)
                    return
                break
            raw = bytes(client.inbox[:end])
            del client.inbox[: end + 1]
            client.pace.take()
            self.counters["calls"] += 1
            try:
                call = messages.decode_call(raw)
            except BadMessage:
                self.counters["bad_messages"] += 1
                self._drop(client)
                return
            self._answer(client, call)
        self._flush(client)

    def _answer(self, client: Client, call: messages.Call) -> None:
        try:
            reply = self._reply(client, call)
        except Refused as refusal:
            reply = messages.encode_error(refusal.name, refusal.parameters)
        except ValueError as error:
            # A handler returned what JSON cannot say: our mistake, but not worth the guard.
            self.counters["failed_calls"] += 1
            reply = messages.encode_error(messages.FAILED, {"reason": str(error)})
        if not call.oneway:
            self._queue(client, reply)

    def _reply(self, client: Client, call: messages.Call) -> bytes:
        if call.method == f"{messages.SERVICE}.GetInfo":
            return messages.encode_reply(_info())
        if call.method == f"{messages.SERVICE}.GetInterfaceDescription":
            return messages.encode_reply(_description(call))
        method = messages.BY_NAME.get(call.method)
        if method is None:
            raise Refused(messages.METHOD_NOT_FOUND, {"method": call.method})
        if method.who == messages.ROOT and client.peer.uid not in {0, self._owner_uid}:
            raise Refused(messages.PERMISSION_DENIED)
        if method.more:
            return self._start_monitor(client, call)
        handler = self._handlers.get(method.name)
        if handler is None:
            raise Refused(messages.METHOD_NOT_IMPLEMENTED, {"method": call.method})
        return messages.encode_reply(handler(call.parameters, client.peer))

    def _start_monitor(self, client: Client, call: messages.Call) -> bytes:
        if not call.more:
            raise Refused(messages.EXPECTED_MORE)
        since = call.parameters.get("since")
        if since is not None and (isinstance(since, bool) or not isinstance(since, int)):
            raise Refused(messages.INVALID_PARAMETER, {"parameter": "since"})
        client.monitors = True
        first_fresh = self._fresh[0][0] if self._fresh else self._sequence + 1
        # The first answer tells where the stream stands, so that a reader can see a gap.
        start = {"sequence": first_fresh - 1, "event": {"what": "start"}}
        parts = [messages.encode_reply(start, continues=True)] if since is None else []
        if since is not None:
            for sequence, event in self._history:
                if since < sequence < first_fresh:
                    parts.append(_event_reply(sequence, event))
        return b"".join(parts)

    def _send_event(self, monitors: list[Client], sequence: int, event: dict[str, Any]) -> None:
        try:
            reply = _event_reply(sequence, event)
        except ValueError:
            self.counters["failed_calls"] += 1
            return
        for client in monitors:
            if len(client.outbox) + len(reply) > OUTPUT_BYTES_MAX:
                self.counters["dropped_events"] += 1
                continue
            client.outbox += reply
            self._flush(client)

    def _queue(self, client: Client, reply: bytes) -> None:
        if len(client.outbox) + len(reply) > OUTPUT_BYTES_MAX:
            self._drop(client, counted=True)
        else:
            client.outbox += reply

    def _flush(self, client: Client) -> None:
        if not client.outbox or client.connection.fileno() < 0:
            return
        try:
            sent = client.connection.send(client.outbox, socket.MSG_NOSIGNAL)
            del client.outbox[:sent]
        except BlockingIOError:
            return
        except OSError:
            self._drop(client)
            return
        if client.closing and not client.outbox:
            self._drop(client)

    def _idle(self, client: Client, now_ns: int) -> bool:
        quiet_ns = now_ns - client.heard_ns
        if client.inbox and 0 not in client.inbox:
            return quiet_ns > HALF_MESSAGE_NS_MAX
        return quiet_ns > IDLE_NS_MAX and not client.monitors

    def _drop(self, client: Client, *, counted: bool = False) -> None:
        if self._clients.pop(client.connection.fileno(), None) is None:
            return
        self.counters["dropped_clients"] += counted
        client.outbox.clear()
        client.inbox.clear()
        client.connection.close()


def _event_reply(sequence: int, event: dict[str, Any]) -> bytes:
    return messages.encode_reply({"sequence": sequence, "event": event}, continues=True)


def _info() -> dict[str, Any]:
    return {
        "vendor": "forestall",
        "product": "forestall guard",
        "version": __version__,
        "url": "",
        "interfaces": [messages.INTERFACE, messages.SERVICE],
    }


def _description(call: messages.Call) -> dict[str, Any]:
    name = call.parameters.get("interface")
    if not isinstance(name, str):
        raise Refused(messages.INVALID_PARAMETER, {"parameter": "interface"})
    if name not in messages.DESCRIPTIONS:
        raise Refused(messages.INTERFACE_NOT_FOUND, {"interface": name})
    return {"description": messages.DESCRIPTIONS[name]}


def _remove_dead(path: str) -> None:
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        # A full backlog would block: somebody alive has it.
        probe.setblocking(False)  # noqa: FBT003 - the standard library's name for it
        probe.connect(path)
    except ConnectionRefusedError:
        os.unlink(path)
    except (FileNotFoundError, BlockingIOError):
        pass  # Nothing there, or a live one; bind() decides.
    finally:
        probe.close()
