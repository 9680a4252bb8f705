"""Runs inside a guest: hogs while everything that alerts depend on hangs, is full, or is stopped.

Prints one line of JSON per scene; the test outside judges. Channels: ``ear`` is a webhook
that answers, ``hangs`` one that accepts and never does, ``log`` the usual file. The spool and
the log each have a small tmpfs of their own, so that they can be filled. A plain sleeper of
the guard's priority is measured beside it.
"""

import ctypes
import http.server
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

MIB = 1 << 20
CLI = "/usr/local/bin/forestall"
SETTINGS = Path("/etc/forestall/forestall.toml")
SPOOL, LOGS = "/var/lib/private/forestall-herald", "/var/log/private/forestall"
QUEUED = 10_000
HOG = """
import select, sys, time
step, per_s = 4, int(sys.argv[1])
held = []
began = time.monotonic()
while True:
    held.append(b"x" * (step << 20))
    ahead = len(held) * step / per_s - (time.monotonic() - began)
    select.poll().poll(max(0, int(ahead * 1000)))
"""
SLEEPER = """
import ctypes, gc, mmap, os, select, sys, time
os.nice(-20)
open("/proc/self/oom_score_adj", "w").write("-1000")
gc.disable()
with open(sys.argv[1], "w+b") as file:
    file.truncate(8)
    board = mmap.mmap(file.fileno(), 8)
ctypes.CDLL(None).mlockall(3)
poll = select.poll()
while True:
    due = time.monotonic_ns() + 20_000_000
    poll.poll(20)
    late = time.monotonic_ns() - due
    if late > int.from_bytes(board[:8], "little"):
        board[:8] = late.to_bytes(8, "little")
"""


def tell(scene, **facts):
    sys.stdout.write(json.dumps({"scene": scene, **facts}) + "\n")
    sys.stdout.flush()


def run(*words, timeout=240):
    return subprocess.run(words, capture_output=True, text=True, timeout=timeout, check=False)


def pause(seconds):
    select.poll().poll(int(seconds * 1000))


def until(holds, seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if holds():
            return True
        pause(0.1)
    return bool(holds())


class Ear:
    """A webhook that answers, and notes when each event came."""

    def __init__(self):
        self.heard = []
        ear = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                ear.heard.append((time.monotonic_ns(), body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{server.server_address[1]}/"

    def first(self, what, since_ns):
        """When the first event of a kind arrived, and what it says of when it happened."""
        for moment_ns, body in list(self.heard):
            for event in body["events"]:
                if event["what"] == what and event.get("monotonic_ns", 0) >= since_ns:
                    return moment_ns, event
        return None, {}


class Silent:
    """Accepts and never says a word."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.held = []
        threading.Thread(target=self._accept, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/"

    def _accept(self):
        while True:
            self.held.append(self.listener.accept()[0])


class Varlink:
    """The control socket, by hand: the guest should not import the command line for each call."""

    def __init__(self):
        self.end = socket.socket(socket.AF_UNIX)
        self.end.settimeout(60)
        self.end.connect("/run/forestall/control.sock")
        self.inbox = b""

    def call(self, method, **parameters):
        call = {"method": f"org.forestall.Guard.{method}", "parameters": parameters}
        self.end.sendall(json.dumps(call).encode() + b"\0")
        return self.receive()

    def receive(self):
        while b"\0" not in self.inbox:
            got = self.end.recv(65536)
            if not got:
                raise OSError("the guard hung up")
            self.inbox += got
        raw, _, self.inbox = self.inbox.partition(b"\0")
        return json.loads(raw)

    def close(self):
        self.end.close()


def guard_facts():
    link = Varlink()
    try:
        return link.call("GetStatus")["parameters"]["status"]["guard"]
    finally:
        link.close()


class Sleeper:
    def __init__(self):
        self.board = "/run/sleeper"
        command = ["/usr/bin/python3", "-I", "-c", SLEEPER, self.board]
        self.child = subprocess.Popen(command)
        until(lambda: Path(self.board).exists() and Path(self.board).stat().st_size == 8, 30)

    def late_ms(self):
        return int.from_bytes(Path(self.board).read_bytes(), "little") / 1e6

    def reset(self):
        with Path(self.board).open("r+b") as file:
            file.write(bytes(8))


def main_pid(unit):
    return int(run("systemctl", "show", "-P", "MainPID", unit).stdout or 0)


def oom_kills():
    return int(re.search(r"oom_kill (\d+)", Path("/proc/vmstat").read_text())[1])


def hog(scene, ear, sleeper, bystander, per_s=30, **facts):
    """Let one loose; tell when the warning came, when it was ended, and how late everybody was."""
    sleeper.reset()
    began_ns = time.monotonic_ns()
    kernels = oom_kills()
    command = ["/usr/bin/python3", "-I", "-c", HOG, str(per_s)]
    child = subprocess.Popen(command, start_new_session=True)
    pidfd = os.pidfd_open(child.pid)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    died = bool(poll.poll(120_000))
    died_ns = time.monotonic_ns()
    if not died:
        child.kill()
    code = child.wait()
    os.close(pidfd)
    pause(3)
    found = guard_facts()
    warned_ns, warning = ear.first("warning", began_ns)
    _told_ns, ended = ear.first("ended", began_ns)
    decided_ns = ended.get("monotonic_ns")
    tell(
        scene,
        died=died,
        code=code,
        lived_s=(died_ns - began_ns) / 1e9,
        bystander_lives=bystander.poll() is None,
        kernel_kills=oom_kills() - kernels,
        warning_heard_before_the_signal_s=(decided_ns - warned_ns) / 1e9
        if warned_ns and decided_ns
        else None,
        warning_took_s=(warned_ns - warning["monotonic_ns"]) / 1e9 if warned_ns else None,
        warning=warning.get("sentence"),
        time_left_s=(warning.get("time_left_ns") or 0) / 1e9,
        likely=warning.get("likely_name"),
        top=[one["name"] for one in warning.get("top", [])],
        ended=ended.get("sentence"),
        guard_late_ms=found["late_ns_max"] / 1e6,
        sleeper_late_ms=sleeper.late_ms(),
        events=found["events"],
        sequence=found["sequence"],
        **facts,
    )


def storm(count):
    """Have the guard tell so many events: TERM, by a person's wish, to one who ignores it."""
    victim = subprocess.Popen(
        [
            "/usr/bin/python3",
            "-I",
            "-c",
            "import signal as s, select\n"
            "s.signal(15, s.SIG_IGN)\nprint(1, flush=True)\nselect.poll().poll()",
        ],
        stdout=subprocess.PIPE,
    )
    victim.stdout.readline()
    start = int(Path(f"/proc/{victim.pid}/stat").read_text().rpartition(")")[2].split()[19])
    links = [Varlink() for _ in range(12)]
    call = {
        "method": "org.forestall.Guard.End",
        "parameters": {"pid": victim.pid, "start_ticks": start},
    }
    raw = json.dumps(call).encode() + b"\0"
    began = time.monotonic()
    done = 0
    # One at a time, each its turn: what is measured is what is told, not how many ask at once.
    while done < count and time.monotonic() - began < 400:
        for link in links:
            link.end.sendall(raw)
            link.receive()
            done += 1
    for link in links:
        link.close()
    victim.kill()
    victim.wait()
    return done, time.monotonic() - began


def fill(folder):
    with Path(f"{folder}/filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(65536))
        except OSError as error:
            return error.errno
        finally:
            try:
                while True:
                    file.write(bytes(512))
            except OSError:
                pass


def spool_of_thousands(count):
    """Events of an earlier life that were never sent, in the channel that hangs."""
    from forestall.herald import spool as spooling
    from forestall.herald.event import read_event
    from forestall.herald.spool import Spool

    spool = Spool(f"{SPOOL}/spool.sqlite", print)
    raw = {"what": "decision", "run": "old", "time_ns": time.time_ns(), "name": "worker"}

    def change(base):
        for number in range(count):
            event = read_event(number + 1, {**raw, "sentence": f"earlier event {number}"})
            spooling.hold(base, "hangs", event)

    spool.write(change)
    spool.close()


def alerts():
    done = run(CLI, "alerts", "--json", "--spool", f"{SPOOL}/spool.sqlite")
    try:
        seen = json.loads(done.stdout)
    except ValueError:
        return {"broken": done.stdout + done.stderr}
    return {"received": seen["received"], "lost": seen["lost"], "channels": seen["channels"]}


def herald_says():
    done = run("journalctl", "-u", "forestall-herald", "-o", "cat", "--no-pager")
    return [line for line in done.stdout.splitlines() if line.startswith("forestall-herald:")]


def prepare(ear, silent):
    """Settings, full disks to be, ten thousand events of an earlier life, and the service."""
    SETTINGS.parent.mkdir(parents=True, exist_ok=True)
    SETTINGS.write_text(
        "[alerts.desktop]\nenabled = false\n[alerts.terminals]\nenabled = false\n"
        f'[alerts.ear]\ntype = "webhook"\nurl = "{ear.url}"\nleast = "info"\nfold = "0s"\n'
        f'[alerts.hangs]\ntype = "webhook"\nurl = "{silent.url}"\nleast = "info"\nfold = "2s"\n'
    )
    for folder, size in ((SPOOL, "24m"), (LOGS, "1m")):
        Path(folder).parent.mkdir(mode=0o700, exist_ok=True)
        Path(folder).mkdir(exist_ok=True)
        run("mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder)
    spool_of_thousands(QUEUED)
    done = run("python3", "-m", "forestall.cli.main", "install", "--yes")
    tell("installed", code=done.returncode, said=done.stdout, complained=done.stderr)


def scenes():
    ear, silent = Ear(), Silent()
    prepare(ear, silent)
    sleeper = Sleeper()
    bystander = subprocess.Popen(
        [
            "/usr/bin/python3",
            "-I",
            "-c",
            "import select; h = b'y' * (80 << 20); select.poll().poll()",
        ]
    )
    heard = until(lambda: ear.heard, 60)
    pause(5)
    tell("ready", heard=heard, alerts=alerts(), late_ms=guard_facts()["late_ns_max"] / 1e6)

    totals = []
    hog("all-is-well", ear, sleeper, bystander)
    totals.append(guard_facts()["sequence"] + 1)  # and its farewell
    run("systemctl", "restart", "forestall")
    pause(5)
    # The network hangs, two disks are full, ten thousand events wait.
    full = [fill(SPOOL), fill(LOGS)]
    hog("network-hangs-and-disks-are-full", ear, sleeper, bystander, full=full)
    tell("herald-says", lines=herald_says()[-6:])
    totals.append(guard_facts()["sequence"] + 1)
    run("systemctl", "restart", "forestall")
    pause(5)
    herald = main_pid("forestall-herald")
    os.kill(herald, signal.SIGSTOP)
    sleeper.reset()
    done, took_s = storm(QUEUED)
    found = guard_facts()
    tell(
        "storm",
        told=done,
        took_s=took_s,
        guard_late_ms=found["late_ns_max"] / 1e6,
        sleeper_late_ms=sleeper.late_ms(),
        sequence=found["sequence"],
        pss_kib=pss(main_pid("forestall")),
    )
    hog("herald-is-stopped", ear, sleeper, bystander)
    os.kill(herald, signal.SIGCONT)
    run("rm", f"{SPOOL}/filler", f"{LOGS}/filler")
    resumed_ns = time.monotonic_ns()
    until(lambda: ear.heard[-1][0] > resumed_ns, 60)
    # Longer than herald waits before it asks for what was dropped last.
    quiet = until(lambda: time.monotonic_ns() - ear.heard[-1][0] > 50e9, 280)
    before_the_end = alerts()
    totals.append(guard_facts()["sequence"])
    run("systemctl", "stop", "forestall-herald")
    log = run("sh", "-c", f"cat {LOGS}/events.log*").stdout.splitlines()
    tell(
        "accounts",
        quiet=quiet,
        told=totals,
        before_the_end=before_the_end,
        alerts=alerts(),
        herald=herald_says(),
        log_lines=len(log),
        log_torn=[
            line for line in log if not re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ \[", line)
        ],
        connections_that_hang=len(silent.held),
    )


def pss(pid):
    found = re.search(r"Pss: *(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text())
    return int(found[1])


def main():
    Path("/proc/self/oom_score_adj").write_text("-1000")
    ctypes.CDLL(None).mlockall(1)
    try:
        scenes()
    except (OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
        tell("broken", why=repr(error))
    tell("done")


main()
