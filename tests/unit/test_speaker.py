"""What the guard says: fields nobody can forge, lines nobody can break, and never a wait."""

import os
import signal
import socket
import termios

import pytest

from forestall.core.events import Tell
from forestall.core.model import Level, ProcessId
from forestall.core.units import SECOND
from forestall.guard.journal import KINDS, Speaker
from forestall.guard.supervisor import Supervisor

HOSTILE = "hog\nMESSAGE_ID=00\nPRIORITY=7\x1b[2J\r\udcff"


def told(**fields):
    defaults = {"what": "decision", "sentence": "hog goes", "level": Level.CRITICAL}
    return Tell(**(defaults | fields))


@pytest.fixture
def listener(tmp_path):
    """A datagram socket where the journal or systemd would listen."""
    path = str(tmp_path / "socket")
    end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    end.bind(path)
    end.settimeout(5)
    yield end, path
    end.close()


@pytest.fixture
def lines():
    """A pipe to write plain lines to: (its writing end, what has been written)."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)

    def read():
        try:
            return os.read(reader, 65536).decode()
        except BlockingIOError:
            return ""

    yield writer, read
    os.close(reader)
    os.close(writer)


@pytest.fixture
def keep():
    """Remember what has to be closed."""
    kept = []
    yield lambda one: kept.append(one) or one
    for one in kept:
        one.close()


def fields_of(datagram):
    """Read a datagram as journald does: a line without "=" would begin a binary field."""
    pairs = [line.partition("=") for line in datagram.decode().splitlines()]
    assert all(equals for _, equals, _ in pairs), pairs
    return [(name, text) for name, _, text in pairs]


def test_an_event_reaches_the_journal_with_its_fields(listener, keep):
    end, path = listener
    speaker = keep(Speaker("journal", journal=path))
    victim = ProcessId(7, 1)
    speaker.say(told(victim=victim, comm="hog", trigger="low", unit="hog.service"), 12)
    fields = dict(fields_of(end.recv(65536)))

    assert speaker.style == "journal"
    assert fields["MESSAGE"] == "hog goes"
    assert fields["MESSAGE_ID"] == KINDS["decision"].message_id
    assert fields["PRIORITY"] == "4"
    assert fields["FORESTALL_VICTIM_PID"] == "7"
    assert fields["FORESTALL_VICTIM_COMM"] == "hog"
    assert fields["FORESTALL_TRIGGER"] == "low"
    assert fields["OBJECT_SYSTEMD_UNIT"] == "hog.service"
    assert fields["FORESTALL_SEQUENCE"] == "12"


def test_a_hostile_name_cannot_forge_a_field(listener, keep):
    end, path = listener
    keep(Speaker("journal", journal=path)).say(
        told(
            sentence=HOSTILE,
            victim=ProcessId(7, 1),
            comm=HOSTILE,
            trigger=HOSTILE,
            unit=HOSTILE,
        ),
        1,
    )
    fields = fields_of(end.recv(65536))
    names = [name for name, _ in fields]

    assert len(names) == len(set(names))
    assert dict(fields)["PRIORITY"] == "4"
    assert dict(fields)["MESSAGE_ID"] == KINDS["decision"].message_id
    assert all(text.isprintable() for _, text in fields)


def test_a_hostile_name_cannot_begin_a_line_or_touch_the_terminal(lines, keep):
    writer, read = lines
    keep(Speaker("plain", writer)).say(told(sentence=HOSTILE), 1)
    text = read()

    assert text.count("\n") == 1
    assert text.endswith("\n")
    assert text[:-1].isprintable()


def test_the_journal_is_used_when_our_error_stream_is_the_one_systemd_gave_us(
    listener, lines, keep
):
    _, path = listener
    writer, _ = lines
    status = os.fstat(writer)
    ours = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}

    assert keep(Speaker("auto", writer, environment=ours, journal=path)).style == "journal"


@pytest.mark.parametrize("stream", ["", "1:1", "nonsense", "8:"])
def test_a_redirected_error_stream_gets_plain_lines(stream, listener, lines, keep):
    """JOURNAL_STREAM is inherited by whoever redirects us to a file."""
    _, path = listener
    writer, _ = lines
    environment = {"JOURNAL_STREAM": stream} if stream else {}

    assert keep(Speaker("auto", writer, environment=environment, journal=path)).style == "plain"
    assert keep(Speaker("plain", writer, environment=environment, journal=path)).style == "plain"


def test_without_a_journal_the_plain_lines_remain(tmp_path, lines, keep):
    writer, read = lines
    speaker = keep(Speaker("journal", writer, journal=str(tmp_path / "none")))
    speaker.say(told(), 1)

    assert speaker.style == "plain"
    assert read() == "forestall: decision: hog goes\n"


def test_what_repeats_every_second_is_for_the_journal_only(lines, keep):
    writer, read = lines
    keep(Speaker("plain", writer)).say(told(what="critical"), 1)

    assert read() == ""


def test_a_journal_that_is_full_costs_nothing_and_is_counted(listener, keep):
    _, path = listener
    speaker = keep(Speaker("journal", journal=path))
    for n in range(2000):
        speaker.say(told(sentence="x" * 200), n)

    assert speaker.dropped > 0


@pytest.fixture
def impatient():
    """A write that waits would wait for ever: fail instead."""

    def fail(_number, _frame):
        raise AssertionError("the guard waited for a reader")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def test_a_terminal_that_was_stopped_holds_nobody_up(keep, impatient):
    """Ctrl-S under ``make run``: what would be said is dropped, and guarding goes on."""
    master, terminal = os.openpty()
    speaker = keep(Speaker("plain", terminal))
    speaker.say(told(), 1)
    termios.tcflow(terminal, termios.TCOOFF)
    speaker.say(told(), 2)
    stopped = speaker.dropped
    termios.tcflow(terminal, termios.TCOON)
    speaker.say(told(), 3)
    shown = b""
    while shown.count(b"\n") < 2:
        shown += os.read(master, 4096)
    os.close(terminal)
    os.close(master)

    assert stopped == speaker.dropped == 1
    assert shown.count(b"forestall: decision") == 2


def test_a_pipe_that_nobody_empties_holds_nobody_up(keep, impatient):
    reader, writer = os.pipe()
    speaker = keep(Speaker("plain", writer))
    for number in range(300):
        speaker.say(told(sentence="x" * 5000), number)
    lines = os.read(reader, 1 << 20).splitlines()
    os.close(reader)
    os.close(writer)

    assert speaker.dropped == 300 - len(lines) > 0
    assert all(line.startswith(b"forestall: ") for line in lines)


def test_a_log_on_a_full_disk_is_counted_and_not_raised(keep):
    fd = os.open("/dev/full", os.O_WRONLY)
    speaker = keep(Speaker("plain", fd))
    speaker.say(told(), 1)
    os.close(fd)

    assert speaker.dropped == 1


def test_a_closed_error_stream_is_counted_and_not_raised(keep):
    reader, writer = os.pipe()
    os.close(reader)
    speaker = keep(Speaker("plain", writer))
    speaker.say(told(), 1)
    os.close(writer)
    speaker.say(told(), 2)

    assert speaker.dropped == 2


def test_an_unknown_kind_is_said_as_an_error(listener, keep):
    end, path = listener
    keep(Speaker("journal", journal=path)).say(told(what="never heard of"), 1)

    assert dict(fields_of(end.recv(65536)))["MESSAGE_ID"] == KINDS["error"].message_id


def test_message_ids_are_128_bits_and_each_means_one_thing():
    ids = [kind.message_id for kind in KINDS.values()]

    assert len(set(ids)) == len(ids)
    assert all(len(one) == 32 and int(one, 16) for one in ids)


# The supervisor.


def test_readiness_status_and_stop_are_told(listener, keep):
    end, path = listener
    supervisor = keep(Supervisor({"NOTIFY_SOCKET": path}))
    supervisor.ready("guarding")
    supervisor.status("low")
    supervisor.stopping()
    said = [end.recv(4096).decode() for _ in range(3)]

    assert supervisor.present
    assert said == [f"READY=1\nSTATUS=guarding\nMAINPID={os.getpid()}", "STATUS=low", "STOPPING=1"]


def test_a_status_with_a_newline_cannot_say_anything_else(listener, keep):
    end, path = listener
    keep(Supervisor({"NOTIFY_SOCKET": path})).status("hog\nMAINPID=1\nERRNO=2")

    assert end.recv(4096).count(b"\n") == 0


def test_an_abstract_address_works_too(keep):
    end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    name = f"forestall-test-{os.getpid()}"
    end.bind("\0" + name)
    end.settimeout(5)
    keep(Supervisor({"NOTIFY_SOCKET": "@" + name})).stopping()

    assert end.recv(100) == b"STOPPING=1"
    end.close()


def test_the_watchdog_is_fed_at_half_its_limit_and_no_oftener(listener, keep):
    end, path = listener
    supervisor = keep(Supervisor({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "10000000"}))
    for tenth in range(200):
        supervisor.alive(1000 * SECOND + tenth * SECOND // 10)
    end.setblocking(False)
    beats = 0
    while True:
        try:
            beats += end.recv(100) == b"WATCHDOG=1"
        except BlockingIOError:
            break

    assert supervisor.watchdog_ns == 5 * SECOND
    assert beats == 4


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"NOTIFY_SOCKET": ""},
        {"NOTIFY_SOCKET": "relative"},
        {"NOTIFY_SOCKET": "/nonexistent/notify"},
        {"WATCHDOG_USEC": "²"},
        {"WATCHDOG_USEC": "-5"},
        {"WATCHDOG_USEC": "10", "WATCHDOG_PID": "1"},
    ],
)
def test_without_a_supervisor_there_is_silence(environment, keep):
    supervisor = keep(Supervisor(environment))
    supervisor.ready("x")
    supervisor.alive(10**18)

    assert not supervisor.present
    assert supervisor.watchdog_ns == 0


def test_a_busy_supervisor_is_not_waited_for(listener, keep):
    _, path = listener
    supervisor = keep(Supervisor({"NOTIFY_SOCKET": path}))
    for _ in range(5000):
        supervisor.status("busy")

    assert supervisor.present
