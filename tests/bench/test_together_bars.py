"""Memory of all three processes, with herald's channels used; what importing the library costs."""

import http.server
import resource
import socketserver
import subprocess
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from forestall.core.rules import DEFAULT_RULES
from tests.bench import support
from tests.bench.support import kib

pytestmark = pytest.mark.bench

SETTLE_S = 3
ALL_KIB_MAX = 60 * 1024
TWO_KIB_MAX = 25 * 1024
IMPORT_MS_MAX = 40
IMPORT_ROUNDS = 15
PATIENCE_S = 30


class Slack(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        self.server.heard.release()

    def log_message(self, *_):
        pass


class Mail(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(b"220 x\r\n")
        while line := self.rfile.readline():
            if line[:4].upper() == b"DATA":
                self.wfile.write(b"354 x\r\n")
                while self.rfile.readline() not in {b".\r\n", b""}:
                    pass
                self.server.heard.release()
            self.wfile.write(b"250 x\r\n")


@contextmanager
def serving(server):
    server.heard = threading.Semaphore(0)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.server_address[1], server.heard
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def herald(folder, slack_port, mail_port):
    """herald as its unit runs it, with a Slack, a mail, a log and a command."""
    secret = folder / "secret"
    secret.write_text(f"http://127.0.0.1:{slack_port}/x\n")
    secret.chmod(0o600)
    settings = folder / "forestall.toml"
    settings.write_text(
        f'[guard]\nsocket = "{folder}/control.sock"\n'
        "[alerts.desktop]\nenabled = false\n[alerts.terminals]\nenabled = false\n"
        f'[alerts.log]\npath = "{folder}/events.log"\n'
        f'[alerts.ops]\ntype = "slack"\nsecret = "{secret}"\nleast = "info"\n'
        f'[alerts.mail]\ntype = "smtp"\nhost = "127.0.0.1"\nport = {mail_port}\ntls = "none"\n'
        'sender = "a@example.org"\nto = ["b@example.org"]\nleast = "info"\n'
    )
    main = Path(support.SOURCE) / "forestall/herald/__main__.py"
    command = [support.bare_python(), "-I", "-S", "-E", str(main), str(settings)]
    with support.child(command, b"3 channels", env={"STATE_DIRECTORY": str(folder)}) as process:
        yield process


def alone_kib(pids):
    """What they would weigh were they alone: pages of a file once, whoever else maps it now.

    PSS divides what others share, and a machine that tests Python runs much Python.
    """
    private, files, shared = 0, {}, 0
    for pid in pids:
        path = ""
        for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
            words = line.split()
            if not words[0].endswith(":"):
                path = words[5] if len(words) > 5 else ""
                continue
            if words[0].startswith("Private_") and words[0] != "Private_Hugetlb:":
                private += int(words[1])
            elif words[0] == "Shared_Clean:":
                key = (path, pid) if path in {"", "[heap]", "[stack]"} else (path, 0)
                files.setdefault(key, {}).setdefault(pid, 0)
                files[key][pid] += int(words[1])
            elif words[0] == "Shared_Dirty:" and pid == pids[0]:
                shared += int(words[1])  # the guard's, which relief shares since the fork
    return private + shared + sum(max(by_pid.values()) for by_pid in files.values())


def test_all_three_processes_together_are_small(board, tmp_path):
    slack, mail = (
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slack),
        socketserver.ThreadingTCPServer(("127.0.0.1", 0), Mail),
    )
    with (
        serving(slack) as (slack_port, slacked),
        serving(mail) as (mail_port, mailed),
        support.guard(DEFAULT_RULES, tmp_path) as guard,
        herald(tmp_path, slack_port, mail_port) as mouth,
    ):
        used = slacked.acquire(timeout=PATIENCE_S) and mailed.acquire(timeout=PATIENCE_S)
        support.wait_for_end(mouth, SETTLE_S)
        two = [guard.pid, *support.children_of(guard.pid)]
        pids = [*two, mouth.pid]
        pss = {pid: support.memory_of(pid)[1] for pid in pids}
        alone = alone_kib(pids)
        alone_two = alone_kib(two)
    together, of_two = sum(pss.values()), sum(pss[pid] for pid in two)

    board.show(
        "guard, relief and herald together, PSS",
        f"{kib(together)}; alone on a machine {kib(alone)}",
        limit=kib(ALL_KIB_MAX),
        met=max(together, alone) <= ALL_KIB_MAX,
    )
    board.show(
        "of that guard and relief",
        f"{kib(of_two)}; alone {kib(alone_two)}",
        limit=kib(TWO_KIB_MAX),
        met=max(of_two, alone_two) <= TWO_KIB_MAX,
    )
    assert used, "herald did not use its channels"
    assert len(pids) == 3
    assert max(together, alone) <= ALL_KIB_MAX
    assert max(of_two, alone_two) <= TWO_KIB_MAX


def start_ms(statement, cache):
    """CPU time of a start, compiled code at hand as after an installation."""
    code = f"import sys; sys.path.insert(0, {support.SOURCE!r}); {statement}"
    command = [support.bare_python(), "-X", f"pycache_prefix={cache}", "-S", "-c", code]
    environment = {"PATH": "/usr/bin:/bin"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return spent * 1000


def test_importing_the_library_is_quick(board, tmp_path):
    """CPU time and not the clock's, the least of several: other work makes both only longer."""
    statements = {
        "bare": "pass",
        "import forestall": "import forestall",
        "from forestall import PressureMonitor": "from forestall import PressureMonitor",
    }
    for statement in statements.values():
        start_ms(statement, tmp_path)
    taken = {name: [] for name in statements}
    for _ in range(IMPORT_ROUNDS):
        for name, statement in statements.items():
            taken[name].append(start_ms(statement, tmp_path))
    best = {name: min(rounds) for name, rounds in taken.items()}

    for name in list(statements)[1:]:
        cost = best[name] - best["bare"]
        board.show(
            f"{name}, CPU",
            f"{cost:.1f} ms over {best['bare']:.1f} ms",
            ratio=f"{best[name] / best['bare']:.2f}x a bare start",
            limit=f"{IMPORT_MS_MAX} ms",
            met=cost <= IMPORT_MS_MAX,
        )
        assert cost <= IMPORT_MS_MAX, taken
