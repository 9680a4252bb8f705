"""The whole guard, through both stages, on processes this test started.

Its rules hold at once, so it acts on an idle machine. It may touch one user's
processes only, and that user is one nobody else on the machine can be: in every
run here ``only_uid`` is set, which is what keeps the machine alive.
"""

import contextlib
import json
import marshal
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from forestall.control.client import Client
from forestall.control.errors import Refused
from forestall.core.codec import decode, encode
from forestall.core.model import Stage, Standing
from forestall.core.policy import step
from forestall.core.rules import (
    DEFAULT_RULES,
    Field,
    Limit,
    Options,
    Trigger,
    VictimRule,
    available,
)
from forestall.core.units import MS
from forestall.core.value import replace

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to start other users' work")

SRC = str(Path(__file__).parents[2] / "src")
UID = 200_000 + os.getpid() % 100_000
OTHER_UID = UID + 100_000
HOG_BYTES = 64 << 20
WAIT_S = 30
RULES = replace(
    DEFAULT_RULES,
    triggers=(Trigger("at-once", Stage.TERMINATE, (available(Limit(1.0)),)),),
    grace_ns=300 * MS,
    victim_rules=(VictimRule(Standing.NEVER, Field.NAME, "^spared$", "test"),),
)
CALM_RULES = replace(RULES, triggers=())
DRIVER = """
import marshal, sys
sys.path.insert(0, sys.argv[1])
from forestall.config.launch import exec_guard
from forestall.core.codec import decode
rules, options = marshal.loads(sys.stdin.buffer.read())
exec_guard(decode(rules), decode(options), foreground=False)
"""


def someone_of(uid):
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and entry.stat().st_uid == uid:
                return True
    return False


def spawn(uid, name, *, size=0, deaf=False):
    """Fork a child that is another user, carries a name, and holds so much."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            signal.signal(signal.SIGTERM, signal.SIG_IGN if deaf else signal.SIG_DFL)
            with open("/proc/self/comm", "w") as comm:  # noqa: PTH123 - as little as possible
                comm.write(name)
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            held = bytearray(size)
            for n in range(0, size, 4096):
                held[n] = 1
            os.write(writer, b"x")
            while True:
                signal.pause()
        finally:
            os._exit(1)
    os.close(writer)
    assert os.read(reader, 1) == b"x"
    os.close(reader)
    return pid


def alive(pid):
    return os.waitpid(pid, os.WNOHANG) == (0, 0)


class Guard:
    """The guard under test, and the ends one talks to it by."""

    def __init__(self, folder, rules=RULES, **changes):
        assert not someone_of(UID)
        self.folder = folder
        self.options = replace(
            Options(
                only_uid=UID,
                socket_path=str(folder / "run" / "control.sock"),
                record_dir=str(folder / "records"),
                nice=0,
                oom_score_adj=0,
            ),
            **changes,
        )
        assert self.options.only_uid == UID
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(str(folder / "notify"))
        self.notify.settimeout(WAIT_S)
        handed = folder / "handed"
        handed.write_bytes(marshal.dumps((encode(rules), encode(self.options))))
        with handed.open("rb") as stdin, (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", DRIVER, SRC],
                stdin=stdin,
                stderr=log,
                env={"NOTIFY_SOCKET": str(folder / "notify")},
            )
        self.children = []

    @property
    def log(self):
        return (self.folder / "log").read_text()

    def until_ready(self):
        said = self.notify.recv(4096).decode()
        assert said.startswith("READY=1"), said
        assert f"MAINPID={self.process.pid}" in said, "the second stage keeps the PID"
        return self

    def spawn(self, *args, **how):
        self.children.append(spawn(*args, **how))
        return self.children[-1]

    def client(self):
        return Client(self.options.socket_path, timeout_s=WAIT_S)

    def status(self):
        with self.client() as client:
            return client.call("GetStatus")["status"]

    def helpers(self):
        """Open the guard's children, to wait for their end."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [os.pidfd_open(int(child)) for child in children.split()]

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=WAIT_S)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.notify.close()
        for pid in self.children:
            with contextlib.suppress(ChildProcessError, ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


@pytest.fixture
def start(tmp_path):
    started = []

    def begin(**how):
        started.append(Guard(tmp_path, **how))
        return started[-1].until_ready()

    yield begin
    for guard in started:
        guard.close()


def events_until(client, wanted, guard):
    """Listen to the guard until it tells what is waited for; returns all it told."""
    told = []
    for _, event in client.monitor(since=0):
        told.append(event)
        if wanted(event):
            return told
    raise AssertionError(f"never told: {told}\n{guard.log}")


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "forestall.cli.main", *arguments],
        env={"PYTHONPATH": SRC, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )


def replayed(record):
    """Play a record again; returns its requests and what the policy asks for now."""
    head, *entries = [json.loads(line) for line in record.read_text().splitlines()]
    state, rules = decode(head["state"]), decode(head["rules"])
    pairs = []
    for entry in entries:
        state, requests = step(state, decode(entry["event"]), rules)
        pairs.append((entry["requests"], encode(requests)))
    return pairs


def until_gone(pidfd):
    """Wait for a death that must come, and let go of the descriptor."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    gone = bool(poll.poll(WAIT_S * 1000))
    os.close(pidfd)
    return gone


def requests_in(record):
    """Check that a record replays, and return the ends it holds."""
    pairs = replayed(record)
    assert all(was == now for was, now in pairs), "the record does not replay"
    return [request for was, _ in pairs for request in was if request["_"] == "End"]


def test_the_hog_dies_and_the_bystanders_live(start):
    """From settings to a death: TERM, KILL, each with its reason."""
    guard = start()
    bystanders = [
        guard.spawn(OTHER_UID, "hog", size=HOG_BYTES),
        guard.spawn(UID, "spared", size=HOG_BYTES),
    ]
    hog = guard.spawn(UID, "hog", size=HOG_BYTES, deaf=True)
    pidfd = os.pidfd_open(hog)
    with guard.client() as client:
        told = events_until(client, lambda e: e["sentence"].startswith("sent SIGKILL"), guard)
    gone = until_gone(pidfd)
    _, status = os.waitpid(hog, 0)
    ended = [event["sentence"] for event in told if event["what"] == "ended"]
    decisions = [event for event in told if event["what"] == "decision"]

    assert gone, guard.log
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert ended == [f"sent SIGTERM to {hog} (hog)", f"sent SIGKILL to {hog} (hog)"]
    assert [event["pid"] for event in decisions] == [hog]
    assert "trigger at-once" in decisions[0]["sentence"]
    assert guard.status()["guard"]["errors"] == 0
    assert all(alive(pid) for pid in bystanders), guard.log


def test_people_can_ask_change_the_rules_and_stop_it(start):
    """Status, a reload that is refused and one that is not, the record, a clean end."""
    guard = start()
    bystander = guard.spawn(OTHER_UID, "hog", size=HOG_BYTES)
    hog = guard.spawn(UID, "hog", size=HOG_BYTES)
    pidfd = os.pidfd_open(hog)
    gone = until_gone(pidfd)
    shown = command("status", "--socket", guard.options.socket_path)
    with guard.client() as client:
        with pytest.raises(Refused):
            client.call("Reload", rules={"_": "Rules"})
        reloaded = client.call("Reload", rules=encode(CALM_RULES))
    while guard.status()["guard"]["records_written"] == 0:
        select.poll().poll(50)
    (record,) = (guard.folder / "records").glob("episode-*.jsonl")
    helpers = guard.helpers()
    code = guard.stop()

    assert gone, guard.log
    assert shown.returncode in {0, 1}, shown.stderr
    assert f"pid {guard.process.pid}" in shown.stdout
    assert f"processes of uid {UID} only" in shown.stdout
    assert reloaded == {"triggers": 0}
    assert [end["force"]["is"] for end in requests_in(record)] == ["TERM"]
    assert code == 0
    assert [until_gone(helper) for helper in helpers] == [True], "relief outlived the guard"
    assert not Path(guard.options.socket_path).exists()
    assert guard.notify.recv(4096) == b"STOPPING=1"
    assert alive(bystander)


def test_a_dry_run_says_whom_it_would_end_and_ends_nobody(start):
    guard = start(dry_run=True)
    hog = guard.spawn(UID, "hog", size=HOG_BYTES)
    with guard.client() as client:
        told = events_until(client, lambda e: e["what"] == "ended", guard)

    assert told[-1]["sentence"] == f"would send SIGTERM to {hog} (hog)"
    assert guard.stop() == 0
    assert alive(hog)


def test_a_stop_in_the_middle_of_an_episode_still_writes_the_record(start):
    """SIGTERM while the victim still has its grace; the victim was asked, and no more."""
    guard = start(rules=replace(RULES, grace_ns=60_000 * MS))
    hog = guard.spawn(UID, "hog", size=HOG_BYTES, deaf=True)
    with guard.client() as client:
        events_until(client, lambda e: e["what"] == "ended", guard)
    helpers = guard.helpers()
    code = guard.stop()
    # Relief writes what it was handed, and ends after the guard.
    finished = [until_gone(helper) for helper in helpers]
    (record,) = (guard.folder / "records").glob("episode-*.jsonl")

    assert finished == [True]
    assert code == 0
    assert [end["force"]["is"] for end in requests_in(record)] == ["TERM"]
    assert not list((guard.folder / "records").glob("*.part"))
    assert alive(hog)


def test_a_second_guard_at_the_same_socket_says_so_and_the_first_keeps_it(start, tmp_path):
    first = start(rules=CALM_RULES)
    folder = tmp_path / "second"
    folder.mkdir()
    second = Guard(folder, CALM_RULES, socket_path=first.options.socket_path)
    try:
        second.until_ready()
        code = second.stop()
        log = second.log
    finally:
        second.close()

    assert code == 0
    assert "no control socket" in log
    assert first.status()["guard"]["pid"] == first.process.pid
    assert first.stop() == 0
