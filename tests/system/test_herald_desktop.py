"""Notes on a real bus: dbus-daemon, a notification service that records, and its death."""

import os
import select
import shutil
import subprocess
import threading

import pytest

from forestall.herald.agent import REPEAT_NS, Agent
from forestall.herald.channels.bus import Notes, signal_on_system_bus
from forestall.herald.event import read_event
from forestall.herald.letter import write
from forestall.herald.outcome import Never, Sent
from forestall.herald.render import note

jeepney = pytest.importorskip("jeepney", reason="the optional part 'alerts' is not installed")
from jeepney.io.blocking import open_dbus_connection  # noqa: E402 - optional
from jeepney.wrappers import new_error  # noqa: E402 - optional

if shutil.which("dbus-daemon") is None:
    pytest.skip("dbus-daemon is not installed", allow_module_level=True)

WALL = 1_800_000_000 * 10**9
HOSTILE = '<b>x</b> <img src="http://evil/"/> & \x1b[31m\n\u202e'
NAME = "org.freedesktop.Notifications"
CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>unix:path={path}</listen>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/>
<allow own="*"/></policy></busconfig>
"""


class Bus:
    """A bus of our own."""

    def __init__(self, folder):
        self.address = f"unix:path={folder}/bus"
        config = folder / "bus.conf"
        config.write_text(CONFIG.format(path=folder / "bus"))
        reader, writer = os.pipe()
        self.daemon = subprocess.Popen(
            ["dbus-daemon", f"--config-file={config}", "--nofork", f"--print-address={writer}"],
            pass_fds=[writer],
        )
        os.close(writer)
        with os.fdopen(reader) as told:
            assert told.readline().startswith("unix:path=")

    def close(self):
        self.daemon.kill()
        self.daemon.wait()


class Service(threading.Thread):
    """A notification service; keeps what it was asked to show and to withdraw."""

    def __init__(self, address):
        super().__init__()
        self.connection = open_dbus_connection(address)
        reply = self.connection.send_and_get_reply(
            jeepney.new_method_call(jeepney.message_bus, "RequestName", "su", (NAME, 0))
        )
        assert reply.body == (1,)
        self.shown, self.withdrawn, self.refuse = [], [], False
        self.wake, self.end = os.pipe()
        self.start()

    def run(self):
        poll = select.poll()
        poll.register(self.connection.sock, select.POLLIN)
        poll.register(self.wake, select.POLLHUP)
        while all(fd != self.wake for fd, _mask in poll.poll()):
            try:
                message = self.connection.receive(timeout=0)
            except TimeoutError:
                continue
            except OSError:
                return
            self.answer(message)

    def answer(self, message):
        member = message.header.fields.get(jeepney.HeaderFields.member)
        if self.refuse and member == "Notify":
            reply = new_error(message, "org.forestall.Full", "s", ("no room",))
        elif member == "Notify":
            self.shown.append(message.body)
            reply = jeepney.new_method_return(message, "u", (41 + len(self.shown),))
        elif member == "CloseNotification":
            self.withdrawn.append(message.body[0])
            reply = jeepney.new_method_return(message)
        else:
            return
        self.connection.send(reply)

    def close(self):
        os.close(self.end)
        self.join()
        os.close(self.wake)
        self.connection.close()


@pytest.fixture
def bus(tmp_path):
    made = Bus(tmp_path)
    yield made
    made.close()


@pytest.fixture
def service(bus):
    made = Service(bus.address)
    yield made
    made.close()


def event(what="warning", level="critical", **fields):
    return read_event(1, {"what": what, "level": level, "time_ns": WALL, **fields})


def test_a_hostile_name_arrives_as_plain_text_and_the_note_goes_when_memory_is_normal(bus, service):
    said = []
    agent = Agent(lambda: Notes(bus.address), said.append)
    agent.take(event(sentence=HOSTILE, likely_name=HOSTILE, likely_pid=7), 0, WALL)
    agent.take(event("level", "normal"), 1, WALL)
    agent._desktop.close()
    name, replaces, _icon, summary, body, actions, hints, _timeout = service.shown[0]

    assert (name, replaces, actions, hints["urgency"]) == ("forestall", 0, [], ("y", 1))
    assert "memory runs low" in summary
    assert not set("<>&\x1b\u202e") & set(summary + body)
    assert "\u2039b\u203ax\u2039/b\u203a" in body
    assert service.withdrawn == [42]
    assert said == []


def test_a_newer_note_replaces_the_older_and_a_storm_is_thinned(bus, service):
    agent = Agent(lambda: Notes(bus.address), print)
    for number in range(20):
        agent.take(event(), number * REPEAT_NS // 10, WALL)
    agent.take(event("decision"), 2 * REPEAT_NS - 1, WALL)
    agent.take(event("outcome"), 20 * REPEAT_NS, WALL)
    agent.take(event(), 30 * REPEAT_NS, WALL + 60 * 10**9)
    agent._desktop.close()

    assert [shown[1] for shown in service.shown] == [0, 42, 43]
    assert (agent.shown, agent.skipped, agent.failed) == (3, 18, 0)


def test_a_desktop_that_refuses_dies_and_returns_costs_notes_that_are_counted(tmp_path):
    said = []
    first = Bus(tmp_path)
    service = Service(first.address)
    agent = Agent(lambda: Notes(first.address), said.append)
    agent.take(event(), 0, WALL)
    service.refuse = True
    agent.take(event(), REPEAT_NS, WALL)
    service.close()
    first.close()
    agent.take(event(), 2 * REPEAT_NS, WALL)
    (tmp_path / "bus").unlink(missing_ok=True)
    again = Bus(tmp_path)
    service = Service(again.address)
    agent.take(event(), 3 * REPEAT_NS, WALL)
    agent._desktop.close()

    assert (agent.shown, agent.failed) == (2, 2)
    assert len(said) == 1, "said once, not at every failure"
    assert "no room" in said[0]
    assert len(service.shown) == 1
    service.close()
    again.close()


def test_the_signal_of_systembus_notify_is_heard_by_who_listens_for_it(bus):
    listener = open_dbus_connection(bus.address)
    rule = jeepney.MatchRule(
        type="signal", interface="net.nuetzlich.SystemNotifications", member="Notify", path="/"
    )
    listener.send_and_get_reply(
        jeepney.new_method_call(jeepney.message_bus, "AddMatch", "s", (rule.serialise(),))
    )
    outcome = signal_on_system_bus(*note(write([event(sentence=HOSTILE)])), address=bus.address)
    with listener.filter(rule, bufsize=1) as heard:
        message = listener.recv_until_filtered(heard, timeout=5)
    listener.close()

    assert outcome == Sent()
    assert message.body[0].startswith("forestall: ")
    assert not set("<>&\x1b") & set("".join(message.body))


def test_without_a_session_the_missing_variable_is_named(monkeypatch):
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)

    with pytest.raises(OSError, match="no bus: DBUS_SESSION_BUS_ADDRESS is not set"):
        Notes("SESSION")


def test_a_bus_that_is_not_there_is_a_failure_with_a_reason(tmp_path):
    outcome = signal_on_system_bus("a", "b", address=f"unix:path={tmp_path}/none")

    assert isinstance(outcome, Never)
    assert outcome.why == f"no bus at unix:path={tmp_path}/none: No such file or directory"
