"""herald as a process, with a real control socket, a real Slack-like server, and SIGKILL."""

import http.server
import json
import os
import re
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from forestall.cli import main
from forestall.control.errors import Unreachable
from forestall.control.server import EVENTS_KEPT, Server
from forestall.herald.runner import Runner
from forestall.herald.spool import MEMORY, Spool
from forestall.kernel.clock import now_ns, wall_ns

MAIN = Path(main.__file__).parents[1] / "herald" / "__main__.py"
PATIENCE_S = 20


class Guard:
    """The guard's socket, served by a thread, and its events."""

    def __init__(self, path):
        self.path = str(path)
        self.lock = threading.Lock()
        self.run = f"{wall_ns():x}"
        self.server = Server(self.path, {})
        self.server.open()
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def tell(self, what, sentence="", **fields):
        event = {"schema": 1, "run": self.run, "what": what, "sentence": sentence or what}
        event |= {"time_ns": wall_ns(), "level": "critical", **fields}
        with self.lock:
            return self.server.publish(event)

    def pumped(self):
        """Wait until what was told is on its way, or dropped."""
        with self.lock:
            self.server.pump(now_ns())

    def close(self):
        self.done.set()
        self.thread.join()
        self.server.close()

    def _serve(self):
        while not self.done.is_set():
            poll = select.poll()
            for fd, mask in self.server.fds(now_ns()):
                poll.register(fd, mask)
            ready = poll.poll(10)
            with self.lock:
                for fd, mask in ready:
                    self.server.ready(fd, mask, now_ns())
                self.server.pump(now_ns())


class Slack(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status = self.server.script.pop(0) if self.server.script else 200
        self.send_response(status)
        if status == 429:
            self.send_header("Retry-After", "1")
        self.end_headers()
        if status == 200:
            with self.server.changed:
                self.server.got.append(json.loads(body)["text"])
                self.server.changed.notify_all()

    def log_message(self, *_):
        pass


@pytest.fixture
def slack():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slack)
    server.got, server.script, server.changed = [], [], threading.Condition()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def wait_for(slack, holds):
    with slack.changed:
        assert slack.changed.wait_for(lambda: holds(slack.got), PATIENCE_S), slack.got


class Machine:
    """Settings, a guard, and a herald that can be started again."""

    def __init__(self, folder, slack):
        self.folder = folder
        self.guard = Guard(folder / "control.sock")
        self.heralds = []
        secret = folder / "secret"
        secret.write_text(f"http://127.0.0.1:{slack.server_address[1]}/hook")
        secret.chmod(0o600)
        self.settings = folder / "forestall.toml"
        self.settings.write_text(
            f'[guard]\nsocket = "{self.guard.path}"\n'
            f'[alerts.log]\npath = "{folder}/events.log"\n'
            "[alerts.desktop]\nenabled = false\n[alerts.terminals]\nenabled = false\n"
            f'[alerts.ops]\ntype = "slack"\nsecret = "{secret}"\nfold = "300ms"\n'
        )

    def start(self, **options):
        with (self.folder / "said").open("a") as said:
            herald = subprocess.Popen(
                [sys.executable, "-I", "-S", "-E", str(MAIN), str(self.settings)],
                env={"STATE_DIRECTORY": str(self.folder)},
                stderr=said,
                **options,
            )
        self.heralds.append(herald)
        return herald

    def spool(self):
        return Spool(str(self.folder / "spool.sqlite"), print, read_only=True)

    def close(self):
        for herald in self.heralds:
            herald.kill()
            herald.wait()
        self.guard.close()


@pytest.fixture
def machine(tmp_path, slack):
    made = Machine(tmp_path, slack)
    yield made
    made.close()


def test_every_event_arrives_or_is_counted_over_kills_429s_and_a_guard_that_restarts(
    machine, slack
):
    """The whole of it: killed in the middle of a storm, refused by Slack, the guard renewed."""
    slack.script += [429, 500]
    machine.guard.tell("start", "the guard starts")
    herald = machine.start()
    machine.guard.tell("decision", "hog (7) will be ended")
    wait_for(slack, lambda got: any("hog (7) will be ended" in text for text in got))
    for number in range(40):
        machine.guard.tell("ended", f"storm {number}")
    wait_for(slack, lambda got: any("storm" in text for text in got))
    herald.kill()
    herald.wait()
    machine.guard.tell("stuck", "told while herald was dead")
    herald = machine.start()
    wait_for(slack, lambda got: any("told while herald was dead" in text for text in got))
    machine.guard.close()
    machine.guard = Guard(machine.guard.path)
    machine.guard.tell("start", "a new guard")
    machine.guard.tell("nobody", "told by the new guard")
    wait_for(slack, lambda got: any("told by the new guard" in text for text in got))
    herald.send_signal(signal.SIGTERM)
    code = herald.wait(PATIENCE_S)
    spool = machine.spool()
    ops, log = spool.tally("ops"), spool.tally("log")
    log_text = (machine.folder / "events.log").read_text()

    assert code == 0
    assert ops.balanced
    assert log.balanced
    assert (log.failed, log.waiting, log.held) == (0, 0, 0)
    assert spool.count("received") == 1 + 1 + 40 + 1 + 2
    assert spool.count("lost") == 0
    lines = re.findall(r": storm (\d+)(?:;|$)", log_text, re.MULTILINE)
    # At least once: what was sent when herald died may stand there twice.
    assert set(map(int, lines)) == set(range(40))
    assert any("herald stopped at" in text for text in slack.got)
    spool.close()


def test_what_the_guard_has_forgotten_is_counted(machine, slack):
    for number in range(EVENTS_KEPT + 50):
        machine.guard.tell("ended", f"early {number}")
    machine.start()
    wait_for(slack, lambda got: any("50 events of the guard did not arrive" in one for one in got))
    spool = machine.spool()

    assert spool.count("lost") == 50
    spool.close()


def test_a_herald_that_is_ended_with_a_backlog_leaves_it_to_the_next(machine, slack):
    machine.guard.tell("decision", "first")
    herald = machine.start()
    wait_for(slack, lambda got: any("first" in text for text in got))
    herald.send_signal(signal.SIGSTOP)
    for number in range(200):
        machine.guard.tell("ended", f"waiting {number}")
    herald.send_signal(signal.SIGTERM)
    herald.send_signal(signal.SIGCONT)
    code = herald.wait(PATIENCE_S)
    machine.guard.tell("decision", "last of all")
    again = machine.start()
    wait_for(slack, lambda got: any("last of all" in text for text in got))
    again.send_signal(signal.SIGTERM)
    again.wait(PATIENCE_S)
    spool = machine.spool()

    assert code == 0
    assert (spool.count("received"), spool.count("lost")) == (202, 0)
    assert spool.tally("log").balanced
    spool.close()


def test_of_ten_thousand_events_told_to_a_stopped_herald_none_is_lost_uncounted(machine, slack):
    """The guard keeps 256 and what fits into a socket; it neither waits nor grows."""
    machine.guard.tell("decision", "first")
    herald = machine.start()
    wait_for(slack, lambda got: any("first" in text for text in got))
    herald.send_signal(signal.SIGSTOP)
    for number in range(10_000):
        machine.guard.tell("ended", f"storm {number} " + "x" * 900)
        if number % 100 == 0:
            machine.guard.pumped()  # a guard sends after each turn
    herald.send_signal(signal.SIGCONT)
    # What was dropped last shows with the next event; else herald asks after half a minute.
    for _ in range(PATIENCE_S):
        last = machine.guard.tell("nobody", "one more")
        with slack.changed:
            if slack.changed.wait_for(lambda: any("one more" in one for one in slack.got), 1):
                break
    herald.send_signal(signal.SIGTERM)
    code = herald.wait(PATIENCE_S)
    spool = machine.spool()
    received, lost = spool.count("received"), spool.count("lost")

    assert code == 0
    assert received + lost == last > 10_000
    assert received > 2 * EVENTS_KEPT, "what is on its way counts as well as what is kept"
    assert machine.guard.server.counters["dropped_events"] >= lost > 0
    assert spool.tally("log").balanced
    assert spool.tally("log").failed == 0, "a log that takes every line at once loses none"
    assert spool.tally("ops").balanced
    spool.close()


def test_a_herald_without_room_on_its_disk_goes_on_in_memory_and_counts_what_it_loses(
    machine, slack
):
    """No file may grow beyond 128 KiB: neither the spool nor the log."""
    limit = (128 << 10, 128 << 10)
    herald = machine.start(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit))
    for number in range(200):
        machine.guard.tell("ended", f"{number} " + "x" * 900)
        if number % 50 == 0:
            machine.guard.pumped()
    machine.guard.tell("nobody", "last of all")
    wait_for(slack, lambda got: any("last of all" in text for text in got))
    herald.send_signal(signal.SIGTERM)
    code = herald.wait(PATIENCE_S)
    said = (machine.folder / "said").read_text()

    assert code == 0
    assert "letters are in memory only" in said
    assert re.search(r"\d+ events are lost: they were not sent", said)
    assert (machine.folder / "events.log").read_bytes().endswith(b"\n")


def test_a_guard_that_hangs_is_missed_and_told_when_it_answers_again(tmp_path):
    """It takes connections, for the kernel does that; only an answer tells that it lives."""
    path = tmp_path / "hung.sock"
    with socket.socket(socket.AF_UNIX) as hung:
        hung.bind(str(path))
        hung.listen()
        runner = Runner((), socket_path=str(path), spool=MEMORY, environment={})

        with pytest.raises(Unreachable):
            next(runner._stream(0, answer_s=0.2))


def test_the_largest_processes_are_named_in_fresh_events_only(machine, slack, tmp_path):
    machine.guard.tell("decision", "old", time_ns=1)
    machine.guard.tell("decision", "fresh")
    herald = machine.start()
    wait_for(slack, lambda got: any("fresh" in text for text in got))
    herald.terminate()
    herald.wait(PATIENCE_S)
    lines = (tmp_path / "events.log").read_text().splitlines()

    assert len(lines) == 2
    assert "largest" not in lines[0]


def test_herald_is_small_and_imports_nothing_it_was_not_asked_for(machine, slack):
    machine.guard.tell("decision", "now")
    herald = machine.start()
    wait_for(slack, len)
    pss = [
        int(line.split()[1])
        for line in Path(f"/proc/{herald.pid}/smaps_rollup").read_text().splitlines()
        if line.startswith("Pss:")
    ]
    maps = Path(f"/proc/{herald.pid}/maps").read_text()

    assert pss[0] < 35 * 1024, "35 MiB is what the budget of all three leaves it"
    assert "apprise" not in maps


def test_wrong_settings_are_told_and_end_with_3(tmp_path):
    settings = tmp_path / "forestall.toml"
    settings.write_text('[alerts.ops]\ntype = "slak"\n[alerts.x]\ntype = "smtp"\nhost = "h"\n')
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-E", str(MAIN), str(settings)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )

    assert done.returncode == 3
    assert "did you mean slack" in done.stderr
    assert "alerts.x.to: is missing" in done.stderr


def test_alerts_and_alert_on_the_command_line(machine, slack, capsys):
    herald = machine.start()
    machine.guard.tell("decision", "hog \x1b[31m goes")
    wait_for(slack, len)
    herald.terminate()
    herald.wait(PATIENCE_S)
    files = ["--config", str(machine.settings)]
    tested = main.run(["alert", "test", "ops", *files])
    sent = main.run(["alert", "send", "--channel", "ops", *files, "backup", "begins"])
    unknown = main.run(["alert", "test", "oops", *files])
    slack.script.append(400)
    refused = main.run(["alert", "test", "ops", *files])
    said = capsys.readouterr().out
    machine_readable = main.run(["alert", "test", "ops", "--json", *files])
    rows = json.loads(capsys.readouterr().out)
    shown = main.run(["alerts", "--spool", str(machine.folder / "spool.sqlite")])
    table = capsys.readouterr().out
    as_json = main.run(["alerts", "--json", "--spool", str(machine.folder / "spool.sqlite")])

    assert (tested, sent, unknown, refused, shown, as_json) == (0, 0, 2, 1, 0, 0)
    assert machine_readable == 0
    assert rows == [{"channel": "ops", "type": "slack", "sent": True, "why": ""}]
    assert "ops (slack): sent" in said
    assert "not sent: HTTP 400" in said
    assert any("backup begins" in text for text in slack.got)
    assert table.startswith("1 events received, 0 lost")
    assert "\x1b" not in table
    assert {row["name"] for row in json.loads(capsys.readouterr().out)["channels"]} == {
        "log",
        "ops",
    }
    assert main.run(["alerts", "--spool", "/nonexistent/spool"]) == 1
    assert "herald has not run here" in capsys.readouterr().err


def test_a_spool_that_is_no_longer_written_is_said_to_be_old(machine, slack, capsys):
    machine.guard.tell("decision", "hog goes")
    herald = machine.start()
    wait_for(slack, len)
    herald.terminate()
    herald.wait(PATIENCE_S)
    path = str(machine.folder / "spool.sqlite")
    spool = Spool(path, print)
    spool.keep(alive=str(wall_ns() - 10 * 60 * 10**9))
    spool.close()
    main.run(["alerts", "--spool", path])

    assert "herald wrote this 10 min" in capsys.readouterr().out


def test_no_secret_is_in_what_herald_says_shows_or_stores(machine, slack):
    secret = "hush-hush-secret"
    (machine.folder / "secret").write_text(f"http://127.0.0.1:9/{secret}")
    machine.guard.tell("decision", "hog goes")
    herald = machine.start()
    poll = select.poll()
    poll.register(os.pidfd_open(herald.pid), select.POLLIN)
    ended = poll.poll(1500)
    arguments = Path(f"/proc/{herald.pid}/cmdline").read_bytes()
    environment = Path(f"/proc/{herald.pid}/environ").read_bytes()
    herald.terminate()
    herald.wait(PATIENCE_S)
    stored = b"".join(path.read_bytes() for path in machine.folder.glob("spool*"))

    assert not ended
    assert secret.encode() not in arguments + environment + stored
    assert secret not in (machine.folder / "said").read_text()
    assert "refused" in stored.decode("latin-1")
