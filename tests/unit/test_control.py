"""The control socket: framing, the server's limits, the client's errors. Time is a number here."""

import json
import os
import select
import socket
import threading
from contextlib import closing
from pathlib import Path

import pytest

from forestall.control import connection, messages, server
from forestall.control.client import Client
from forestall.control.errors import BadMessage, Refused, Unreachable
from forestall.control.server import Server

SECOND = 1_000_000_000


def get_status(parameters, peer):
    return {"status": {"uid": peer.uid, "asked": sorted(parameters)}}


def refuse(parameters, peer):
    raise Refused(messages.NO_SUCH_PROCESS, {"pid": messages.take_integer(parameters, "pid")})


def stranger(_connection):
    """The kernel would say who we are; here it names somebody else."""
    return connection.Peer(4, 65534, 65534)


class Bench:
    """A server and its loop, turned by hand or by a thread."""

    def __init__(self, folder, handlers=None, **options):
        self.path = str(folder / "run" / "control.sock")
        handlers = {"GetStatus": get_status, "End": refuse} if handlers is None else handlers
        self.server = Server(self.path, handlers, **options)
        self.server.open()
        self.now_ns = SECOND

    def connect(self):
        raw = socket.socket(socket.AF_UNIX)
        raw.settimeout(2)
        raw.connect(self.path)
        self.turn()
        return raw

    def turn(self, times=1):
        for _ in range(times):
            poll = select.poll()
            for fd, mask in self.server.fds(self.now_ns):
                poll.register(fd, mask)
            for fd, mask in poll.poll(0):
                self.server.ready(fd, mask, self.now_ns)
            self.server.pump(self.now_ns)

    def serve(self, done):
        """Turn until told otherwise; the clock stands unless a client is paused by it."""
        while not done.is_set():
            poll = select.poll()
            for fd, mask in self.server.fds(self.now_ns):
                poll.register(fd, mask)
            for fd, mask in poll.poll(20):
                self.server.ready(fd, mask, self.now_ns)
            self.server.pump(self.now_ns)
            self.now_ns += SECOND // 100


@pytest.fixture
def bench(tmp_path):
    made = Bench(tmp_path)
    yield made
    made.server.close()


@pytest.fixture
def served(bench):
    """A server that is being turned by another thread."""
    done = threading.Event()
    thread = threading.Thread(target=bench.serve, args=(done,))
    thread.start()
    yield bench
    done.set()
    thread.join()


def answers(raw):
    got = b""
    while not got.endswith(b"\0"):
        piece = raw.recv(65536)
        if not piece:
            break
        got += piece
    return [json.loads(part) for part in got.split(b"\0")[:-1]]


def test_a_call_is_answered_over_a_raw_socket(bench):
    with bench.connect() as raw:
        raw.sendall(b'{"method":"org.forestall.Guard.GetStatus"}\0')
        bench.turn()

        assert answers(raw) == [{"parameters": {"status": {"uid": os.getuid(), "asked": []}}}]


def test_half_a_message_waits_and_is_dropped_in_the_end(bench):
    with bench.connect() as raw:
        raw.sendall(b'{"method":"org.forestall.')
        bench.turn()
        raw.sendall(b'Guard.GetStatus"}\0{"meth')
        bench.turn()
        first = answers(raw)
        bench.now_ns += server.HALF_MESSAGE_NS_MAX + 1
        bench.turn()

        assert "parameters" in first[0]
        assert raw.recv(10) == b""
        assert bench.server.counters["dropped_clients"] == 1


def test_a_flood_of_calls_is_served_at_its_pace_and_costs_no_wakeups(bench):
    with bench.connect() as raw:
        raw.sendall(b'{"method":"org.forestall.Guard.GetStatus"}\0' * 100)
        bench.turn(50)
        fds = [fd for fd, mask in bench.server.fds(bench.now_ns) if mask & select.POLLIN]

        assert bench.server.counters["calls"] == connection.CALLS_PER_SECOND_MAX
        assert len(fds) == 1, "only the listener is waited for"

        bench.now_ns += 10 * SECOND
        bench.turn(50)
        assert bench.server.counters["calls"] == 2 * connection.CALLS_PER_SECOND_MAX


def test_a_message_without_end_is_cut_off(tmp_path):
    bench = Bench(tmp_path, owner_uid=0, identify=stranger)
    with bench.connect() as raw:
        raw.sendall(b"x" * 12_000)
        bench.turn(3)

        assert bench.server.counters["dropped_clients"] == 1
    bench.server.close()


@pytest.mark.parametrize(
    "raw_message",
    [b"\0", b"x\0", b"[]\0", b'{"method":5}\0', b'{"method":"a","parameters":5}\0', b"\xff\0"],
)
def test_what_is_not_the_protocol_ends_the_connection_and_nothing_else(bench, raw_message):
    with bench.connect() as bad, bench.connect() as good:
        bad.sendall(raw_message)
        good.sendall(b'{"method":"org.varlink.service.GetInfo"}\0')
        bench.turn()

        assert bad.recv(10) == b""
        assert answers(good)[0]["parameters"]["product"] == "forestall guard"
        assert bench.server.counters["bad_messages"] == 1


def test_a_reader_that_stops_reading_loses_events_and_blocks_nobody(bench):
    with bench.connect() as stuck, bench.connect() as live:
        for raw in (stuck, live):
            raw.sendall(b'{"method":"org.forestall.Guard.Monitor","more":true}\0')
        bench.turn()
        seen = []
        for number in range(60):
            bench.server.publish({"what": "test", "number": number, "fill": "x" * 20_000})
            bench.turn()
            seen += answers(live)

        numbers = [answer["parameters"]["event"].get("number") for answer in seen]
        assert numbers == [None, *range(60)]
        assert bench.server.counters["dropped_events"] > 0


def test_a_monitor_that_comes_back_gets_what_it_missed(bench):
    for number in range(5):
        bench.server.publish({"what": "test", "number": number})
    bench.turn()
    with bench.connect() as raw:
        call = {"method": "org.forestall.Guard.Monitor", "more": True, "parameters": {"since": 3}}
        raw.sendall(json.dumps(call).encode() + b"\0")
        bench.turn()

        sequences = [answer["parameters"]["sequence"] for answer in answers(raw)]
        assert sequences == [4, 5]


def test_events_between_the_call_and_the_pump_come_once(bench):
    with bench.connect() as raw:
        bench.server.publish({"what": "before"})
        call = {"method": "org.forestall.Guard.Monitor", "more": True, "parameters": {"since": 0}}
        raw.sendall(json.dumps(call).encode() + b"\0")
        bench.turn()

        assert [answer["parameters"]["sequence"] for answer in answers(raw)] == [1]


def test_events_are_bounded_without_anybody_listening(bench):
    for number in range(1000):
        bench.server.publish({"number": number})

    assert bench.server.counters["dropped_events"] == 1000 - server.EVENTS_KEPT


def test_one_user_cannot_take_all_places(tmp_path):
    bench = Bench(tmp_path, owner_uid=0, identify=stranger)
    raws = [bench.connect() for _ in range(10)]

    assert bench.server.counters["refused_clients"] == 10 - server.CLIENTS_PER_USER_MAX
    for raw in raws:
        raw.close()
    bench.server.close()


def test_only_root_may_reload_and_anyone_may_look(tmp_path):
    reloads = []
    handlers = {"GetStatus": get_status, "Reload": lambda p, peer: reloads.append(p) or {}}
    bench = Bench(tmp_path, handlers, owner_uid=0, identify=stranger)
    with bench.connect() as raw:
        raw.sendall(b'{"method":"org.forestall.Guard.Reload"}\0')
        bench.turn()
        refused = answers(raw)
        raw.sendall(b'{"method":"org.forestall.Guard.GetStatus"}\0')
        bench.turn()

        assert refused == [{"error": messages.PERMISSION_DENIED, "parameters": {}}]
        assert "parameters" in answers(raw)[0]
        assert reloads == []
    bench.server.close()


def test_connecting_in_a_loop_is_accepted_at_a_pace(bench):
    for _ in range(200):
        with socket.socket(socket.AF_UNIX) as raw:
            raw.setblocking(False)
            try:
                raw.connect(bench.path)
            except BlockingIOError:
                break
            bench.turn()

    assert bench.server.fds(bench.now_ns) == [], "even the listener rests"
    assert not bench.server.quiet, "what is to be polled will change with time"
    assert bench.server.fds(bench.now_ns + SECOND)


def test_a_server_is_quiet_only_while_nobody_is_connected(bench):
    """The guard asks what to poll again only where this may have changed."""
    alone = bench.server.quiet
    client = bench.connect()
    connected = bench.server.quiet
    client.close()
    bench.turn()

    assert (alone, connected, bench.server.quiet) == (True, False, True)


def test_the_socket_is_for_everyone_and_its_folder_is_not(bench):
    assert Path(bench.path).stat().st_mode & 0o777 == 0o666
    assert Path(bench.path).parent.stat().st_mode & 0o022 == 0


def test_a_dead_socket_is_replaced_and_a_live_one_is_not(bench, tmp_path):
    other = Server(bench.path, {})
    with pytest.raises(OSError, match="in use"):
        other.open()
    left_over = str(tmp_path / "dead.sock")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(left_over)

    replaced = Server(left_over, {})
    replaced.open()

    with closing(socket.socket(socket.AF_UNIX)) as raw:
        raw.connect(left_over)
    replaced.close()
    assert not Path(left_over).exists()
    assert Path(bench.path).exists()


def test_a_socket_that_another_guard_made_stays(bench):
    Path(bench.path).unlink()
    successor = Server(bench.path, {})
    successor.open()

    bench.server.close()

    assert Path(bench.path).exists()
    successor.close()


def test_hostile_names_become_clean_json():
    raw = messages.encode({"comm": "a\udcff\x1b[31m\0\n", "quote": '"'})

    assert raw.count(b"\0") == 1
    assert b"\x1b" not in raw
    assert json.loads(raw[:-1])["comm"] == "a?\x1b[31m\0\n"


def test_an_answer_that_json_cannot_say_is_an_error_and_not_the_end(tmp_path):
    bench = Bench(tmp_path, {"GetStatus": lambda p, peer: {"status": float("nan")}})
    with bench.connect() as raw:
        raw.sendall(b'{"method":"org.forestall.Guard.GetStatus"}\0')
        bench.turn()

        assert answers(raw)[0]["error"] == messages.FAILED
        assert bench.server.counters["failed_calls"] == 1
    bench.server.close()


def test_the_client_calls_and_understands_refusals(served):
    with Client(served.path) as client:
        status = client.call("GetStatus")
        with pytest.raises(Refused, match="NoSuchProcess"):
            client.call("End", pid=4, start_ticks=5)
        with pytest.raises(Refused, match="parameter: pid"):
            client.call("End")
        with pytest.raises(Refused, match="MethodNotFound"):
            client.call("Ende")
        with pytest.raises(Refused, match="MethodNotImplemented"):
            client.call("GetRecord")
        with pytest.raises(Refused, match="ExpectedMore"):
            client.call("Monitor")

    assert status == {"status": {"uid": os.getuid(), "asked": []}}


def test_the_client_follows_events(served):
    with Client(served.path) as client:
        events = client.monitor()
        start = next(events)
        served.server.publish({"what": "level"})

        assert start == (0, {"what": "start"})
        assert next(events) == (1, {"what": "level"})


def test_the_client_says_clearly_that_nobody_is_there(tmp_path):
    with pytest.raises(Unreachable, match="No such file"):
        Client(str(tmp_path / "none"))
    with pytest.raises(Unreachable, match="too long"):
        Client(str(tmp_path / ("x" * 200)))


def test_the_client_gives_up_on_a_guard_that_is_silent(bench):
    with pytest.raises(Unreachable, match="timed out"), Client(bench.path, timeout_s=0.01) as one:
        one.call("GetStatus")


def test_the_description_names_every_method():
    text = messages.DESCRIPTIONS[messages.INTERFACE]

    for method in messages.METHODS:
        assert f"method {method.name}{method.signature}" in text


@pytest.mark.parametrize("name", sorted(messages.DESCRIPTIONS))
def test_the_description_is_served(served, name):
    with Client(served.path) as client:
        got = client.call("org.varlink.service.GetInterfaceDescription", interface=name)
        with pytest.raises(Refused, match="InterfaceNotFound"):
            client.call("org.varlink.service.GetInterfaceDescription", interface="x")

    assert got["description"].splitlines()[1] == f"interface {name}"


def test_a_deeply_nested_message_is_refused():
    with pytest.raises(BadMessage):
        messages.decode(b'{"a":' * 100_000)
