"""Delivery to real servers on loopback: SMTP, HTTP with 429, files, commands, terminals."""

import http.server
import json
import os
import pty
import pwd
import resource
import socketserver
import stat
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from email import message_from_bytes, policy
from pathlib import Path

import pytest

from forestall.config.alerts import Channel, read_channel
from forestall.core.units import SECOND
from forestall.herald.channels import terminals
from forestall.herald.channels.command import COMMANDS_MAX
from forestall.herald.event import read_event
from forestall.herald.letter import write
from forestall.herald.outcome import Later, Never, Sent
from forestall.herald.render import terminal
from forestall.herald.send import send
from forestall.kernel.largest import marked

WALL = 1_800_000_000 * SECOND
HOSTILE = '<!channel> <b>*x*</b> @everyone \x1b[31m\r\nBcc: evil@example.org\u202e"; rm -rf /'
TOKEN = "xoxb-very-secret"


def a_letter(sentence=f"sent KILL to 7 ({HOSTILE})", what="ended"):
    raw = {
        "what": what,
        "run": "r",
        "sentence": sentence,
        "level": "critical",
        "time_ns": WALL,
        "host": "box",
        "name": HOSTILE,
        "pid": 7,
        "used_share": 0.97,
        "available_bytes": 3 << 20,
        "likely_name": HOSTILE,
        "likely_pid": 8,
        "top": [{"pid": 9, "name": HOSTILE, "share": 0.4}],
    }
    return write([read_event(1, raw)])


def deliver(letter=None, environment=None, **table):
    channel, wrong = read_channel("it", table)
    assert wrong == {}
    return send(channel, letter or a_letter(), environment=environment or {}, wall_ns=WALL)


@contextmanager
def serving(server):
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Web(http.server.BaseHTTPRequestHandler):
    """Speaks as Slack's webhooks do: 200 "ok", or 429 with Retry-After, from a script."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.path, dict(self.headers), body))
        status, headers, text = self.server.script.pop(0) if self.server.script else (200, {}, "ok")
        self.send_response(status)
        for name, held in headers.items():
            self.send_header(name, held)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def web():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Web)
    server.got, server.script = [], []
    with serving(server):
        yield server


@pytest.fixture
def slack(web, tmp_path):
    """The address of the server as a secret of a channel."""
    secret = tmp_path / "slack"
    secret.write_text(f"http://127.0.0.1:{web.server_address[1]}/services/{TOKEN}\n")
    secret.chmod(0o600)
    return str(secret)


class Mail(socketserver.StreamRequestHandler):
    """An SMTP server of RFC 5321's smallest kind; answers RCPT from a script."""

    def handle(self):
        self.say(220)
        while line := self.rfile.readline():
            verb = line[:4].upper()
            if verb == b"DATA":
                self.say(354)
                self.server.got.append(self.data())
                self.say(250)
            elif verb == b"QUIT":
                self.say(221)
                return
            elif verb == b"RCPT":
                self.server.rcpt.append(line.decode().strip())
                self.say(self.server.answer)
            else:
                self.say(250)

    def say(self, code):
        self.wfile.write(b"%d forestall\r\n" % code)

    def data(self):
        lines = []
        while (line := self.rfile.readline()) not in {b".\r\n", b""}:
            lines.append(line)
        return b"".join(lines)


@pytest.fixture
def mail_server():
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Mail)
    server.got, server.rcpt, server.answer = [], [], 250
    with serving(server):
        yield server


def smtp(server, **more):
    table = {"type": "smtp", "host": "127.0.0.1", "port": server.server_address[1], "tls": "none"}
    return table | {"sender": "forestall@box", "to": ["ops@example.org"]} | more


def test_slack_gets_a_letter_in_which_nothing_is_markup_and_nobody_is_called(web, slack):
    outcome = deliver(type="slack", secret=slack)
    path, headers, body = web.got[0]
    sent = json.loads(body)

    assert outcome == Sent()
    assert path == f"/services/{TOKEN}"
    assert headers["Content-Type"] == "application/json"
    assert sent["blocks"][0]["text"]["type"] == "plain_text"
    assert "&lt;!channel&gt;" in sent["text"]
    assert "<" not in sent["text"]
    assert "@everyone" not in sent["text"]
    assert "\x1b" not in sent["text"] + sent["blocks"][0]["text"]["text"]


def test_a_429_is_waited_out_as_long_as_asked_and_no_address_is_told(web, slack):
    web.script += [(429, {"Retry-After": "37"}, "rate_limited"), (404, {}, f"no {TOKEN}")]
    slowed = deliver(type="slack", secret=slack)
    lost = deliver(type="slack", secret=slack)
    web.script += [(400, {}, "invalid_payload"), (302, {"Location": "http://127.0.0.1:1/"}, "")]

    assert slowed == Later("HTTP 429: rate_limited", 37 * SECOND)
    assert lost == Later("HTTP 404: no …")
    assert deliver(type="slack", secret=slack) == Never("HTTP 400: invalid_payload")
    assert deliver(type="slack", secret=slack).why == "HTTP 302"
    assert deliver(type="slack", secret=slack) == Sent()


def test_an_address_nobody_answers_at_is_tried_later_and_not_told(tmp_path):
    secret = tmp_path / "s"
    secret.write_text(f"http://127.0.0.1:1/{TOKEN}")
    secret.chmod(0o600)
    outcome = deliver(type="slack", secret=str(secret))

    assert isinstance(outcome, Later)
    assert "refused" in outcome.why
    assert TOKEN not in outcome.why


def test_a_server_that_accepts_and_says_nothing_costs_one_time_limit(tmp_path):
    with socketserver.TCPServer(("127.0.0.1", 0), socketserver.BaseRequestHandler) as silent:
        url = f"http://127.0.0.1:{silent.server_address[1]}/"

        assert isinstance(deliver(type="webhook", url=url, timeout="200ms"), Later)


@pytest.mark.parametrize("kind", ["discord", "teams", "webhook"])
def test_the_other_webhooks_get_json_without_mentions_or_escapes(web, slack, kind):
    outcome = deliver(type=kind, secret=slack)
    sent = json.loads(web.got[0][2])

    assert outcome == Sent()
    assert "\x1b" not in json.dumps(sent, ensure_ascii=False)
    if kind == "discord":
        assert sent["allowed_mentions"] == {"parse": []}
        assert "\\*x\\*" in sent["content"]
        assert len(sent["content"]) <= 2000
    elif kind == "teams":
        card = sent["attachments"][0]["content"]
        assert {block["type"] for block in card["body"]} == {"RichTextBlock"}
    else:
        assert sent["events"][0]["pid"] == 7
        assert sent["events"][0]["what"] == "ended"


def test_ntfy_gets_its_token_in_a_header_and_the_rest_as_json(web, tmp_path):
    secret = tmp_path / "token"
    secret.write_text(TOKEN)
    secret.chmod(0o600)
    url = f"http://127.0.0.1:{web.server_address[1]}"
    outcome = deliver(type="ntfy", url=url, topic="oom", secret=str(secret))
    path, headers, body = web.got[0]

    assert outcome == Sent()
    sent = json.loads(body)
    assert (path, headers["Authorization"]) == ("/", f"Bearer {TOKEN}")
    assert sent["priority"] == 5
    assert "markdown" not in sent
    assert "evil" not in str({name.lower(): held for name, held in headers.items()})
    assert all(line.isprintable() for line in (sent["title"] + "\n" + sent["message"]).split("\n"))


def test_a_mail_arrives_with_one_header_each_and_harmless_html(mail_server):
    outcome = deliver(**smtp(mail_server))
    got = message_from_bytes(mail_server.got[0], policy=policy.default)
    html = got.get_body(("html",)).get_content()

    assert outcome == Sent()
    assert got["Subject"] == "forestall: box: a process was sent a signal"
    assert got["Bcc"] is None
    assert got["Auto-Submitted"] == "auto-generated"
    assert "<b>" not in html
    assert "&lt;b&gt;" in html
    assert "memory 97% used" in got.get_body(("plain",)).get_content()
    assert mail_server.rcpt == ["rcpt TO:<ops@example.org>"]


@pytest.mark.parametrize(("code", "kind"), [(451, Later), (550, Never)])
def test_a_mail_server_that_refuses_is_understood(mail_server, code, kind):
    mail_server.answer = code

    assert isinstance(deliver(**smtp(mail_server)), kind)


def test_a_mail_server_without_encryption_gets_nothing_when_it_is_asked_for(mail_server):
    assert isinstance(deliver(**smtp(mail_server, tls="starttls")), Later)
    assert mail_server.got == []


def test_sendmail_gets_the_mail_and_its_recipients_behind_the_options(tmp_path):
    program = tmp_path / "sendmail"
    program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/args\ncat > {tmp_path}/mail\n')
    program.chmod(0o755)
    outcome = deliver(type="sendmail", path=str(program), to=["root", "-oQ/tmp"])

    assert outcome == Sent()
    assert (tmp_path / "args").read_text() == "-i -f forestall -- root -oQ/tmp\n"
    assert "Subject: forestall: box" in (tmp_path / "mail").read_text()


def test_the_log_has_a_line_per_event_is_rotated_and_closed_to_others(tmp_path):
    path = tmp_path / "events.log"
    outcomes = [
        deliver(type="log", path=str(path), rotate="1KiB", kept=2, least="info") for _ in range(12)
    ]
    files = sorted(tmp_path.iterdir())

    assert set(outcomes) == {Sent()}
    assert [file.name for file in files] == ["events.log", "events.log.1", "events.log.2"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o640}
    for line in path.read_text().splitlines():
        assert line.startswith("2027-01-15T08:00:00Z [critical] ended #1: sent KILL to 7 (")
        assert line.isprintable()


def test_a_log_that_root_begins_belongs_to_whom_its_folder_belongs(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    nobody = pwd.getpwnam("nobody")
    os.chown(tmp_path, nobody.pw_uid, nobody.pw_gid)
    path = tmp_path / "events.log"
    outcomes = [deliver(type="log", path=str(path), rotate="1KiB", least="info") for _ in range(3)]

    assert set(outcomes) == {Sent()}
    owners = {(file.stat().st_uid, file.stat().st_gid) for file in tmp_path.iterdir()}
    assert owners == {(nobody.pw_uid, nobody.pw_gid)}


def test_a_disk_that_fills_up_leaves_no_half_a_line(tmp_path):
    """In a guest the next line went on in the middle of the one before."""
    path = tmp_path / "events.log"
    deliver(type="log", path=str(path), least="info")
    first = path.read_bytes()
    pid = os.fork()
    if pid == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(first) + 100, len(first) + 100))
        outcome = deliver(type="log", path=str(path), least="info")
        os._exit(0 if outcome == Later(f"{path}: the disk is full") else 1)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    left = path.read_bytes()
    again = deliver(type="log", path=str(path), least="info")

    assert code == 0
    assert left == first
    assert again == Sent()
    assert path.read_bytes() == first * 2


def test_a_log_without_its_folder_says_whose_folder_it_is(tmp_path):
    outcome = deliver(type="log", path=str(tmp_path / "none" / "events.log"))

    assert isinstance(outcome, Later)
    assert "the folder of" in outcome.why
    assert "forestall-herald makes its own" in outcome.why


def test_the_log_follows_no_link(tmp_path):
    victim = tmp_path / "shadow"
    victim.write_text("untouched")
    (tmp_path / "events.log").symlink_to(victim)
    outcome = deliver(type="log", path=str(tmp_path / "events.log"))

    assert isinstance(outcome, Later)
    assert victim.read_text() == "untouched"


def command(tmp_path, script, **more):
    out = tmp_path / "out"
    out.touch()
    out.chmod(0o666)
    argv = [sys.executable, "-I", "-c", script, str(out)]
    me = pwd.getpwuid(os.geteuid()).pw_name
    return {"type": "command", "command": argv, "user": me} | more, out


def test_a_command_gets_the_facts_in_its_environment_and_no_shell_and_no_secrets(tmp_path):
    script = "import os,sys,json; json.dump(dict(os.environ), open(sys.argv[1],'w'))"
    table, out = command(tmp_path, script)
    outcome = deliver(**table, environment={"CREDENTIALS_DIRECTORY": "/x", "TOKEN": TOKEN})
    got = json.loads(out.read_text())

    assert outcome == Sent()
    assert (got["FORESTALL_WHAT"], got["FORESTALL_PID"]) == ("ended", "7")
    assert got["FORESTALL_NAME"].isprintable()
    assert "FORESTALL_SWAP_USED_SHARE" not in got, "unknown is not set"
    assert TOKEN not in out.read_text()


def test_a_command_of_root_runs_as_another_user(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    # Pytest's own folders are closed to everybody else.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        script = 'id -u > "$1"; id -G >> "$1"'
        argv = ["/bin/sh", "-c", script, "sh", f"{folder}/out"]
        outcome = deliver(type="command", command=argv, user="nobody")
        uid, groups = Path(f"{folder}/out").read_text().split("\n")[:2]
    nobody = pwd.getpwnam("nobody")

    assert outcome == Sent()
    assert (uid, groups) == (str(nobody.pw_uid), str(nobody.pw_gid))


def test_a_command_that_hangs_is_ended_with_its_children_and_a_bystander_lives(tmp_path):
    """The child leaves group and session, as a daemon would; the mark still finds it."""
    script = """
import os, select, sys
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    with open(sys.argv[1], "w") as out:
        out.write(os.environ["FORESTALL_COMMAND"])
    select.select([], [], [], 60)
select.select([], [], [], 60)
"""
    mark = {"FORESTALL_COMMAND": "another"}
    with subprocess.Popen(["sleep", "60"], env=mark, start_new_session=True) as bystander:
        table, out = command(tmp_path, script, timeout="1500ms")
        outcome = deliver(**table)
        ours = f"FORESTALL_COMMAND={out.read_text()}".encode()
        lives = bystander.poll() is None
        bystander.kill()

    assert isinstance(outcome, Never)
    assert "took longer than 1.5 s" in outcome.why
    assert len(ours) > 40
    assert marked(ours) == []
    assert lives


def test_no_more_commands_than_allowed_run_at_once(tmp_path):
    script = (
        "import os,sys,select; open(sys.argv[1],'a').write('+'); select.select([],[],[],0.4);"
        "open(sys.argv[1],'a').write('-')"
    )
    table, out = command(tmp_path, script, timeout="20s")
    outcomes = []
    threads = [threading.Thread(target=lambda: outcomes.append(deliver(**table))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    running, most = 0, 0
    for sign in out.read_text():
        running += 1 if sign == "+" else -1
        most = max(most, running)

    assert outcomes == [Sent()] * 5
    assert 1 <= most <= COMMANDS_MAX


def test_a_command_that_does_not_exist_or_fails_says_so(tmp_path):
    assert "cannot be started" in deliver(type="command", command=["/nonexistent/x"]).why
    table, _out = command(tmp_path, "raise SystemExit(75)")

    assert isinstance(deliver(**table), Later)


def test_a_command_that_the_kernel_kills_meanwhile_says_so_and_takes_nobody_along(tmp_path):
    """What reports a shortage may be its next victim; so may its children."""
    script = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as bystander:
        table, _out = command(tmp_path, script)
        outcome = deliver(**table)
        lives = bystander.poll() is None
        bystander.kill()

    assert isinstance(outcome, Later | Never)
    assert "-9" in outcome.why
    assert lives


def test_terminals_that_take_messages_get_printable_lines():
    controller, terminal_fd = pty.openpty()
    silent_controller, silent_fd = pty.openpty()
    paths = [Path(os.ttyname(terminal_fd)), Path(os.ttyname(silent_fd))]
    try:
        paths[0].chmod(0o620)
        paths[1].chmod(0o600)
        found = [path for path in terminals.terminals() if path in paths]
        outcome = terminals.write(terminal(a_letter()), found)
        shown = os.read(controller, 4096).decode()

        assert found == paths[:1]
        assert outcome == Sent()
        assert "a process was sent a signal" in shown
        assert all(line.isprintable() for line in shown.replace("\r", "").split("\n"))
    finally:
        for fd in (controller, terminal_fd, silent_controller, silent_fd):
            os.close(fd)


@pytest.mark.parametrize(
    ("mode", "text", "why"),
    [
        (0o644, "x", "can be read or changed by others"),
        (0o660, "x", "can be read or changed by others"),
        (0o600, "", "is empty"),
        (0o600, None, "is missing"),
    ],
)
def test_a_secret_that_others_can_read_or_that_is_none_is_not_used(tmp_path, mode, text, why):
    path = tmp_path / "secret"
    if text is not None:
        path.write_text(text)
        path.chmod(mode)
    outcome = deliver(type="slack", secret=str(path))

    assert isinstance(outcome, Later)
    assert why in outcome.why


def test_a_secret_by_name_is_a_credential_of_systemd(web, slack, tmp_path):
    Path(slack).rename(tmp_path / "forestall.ops")
    outcome = deliver(
        type="slack", secret="ops", environment={"CREDENTIALS_DIRECTORY": str(tmp_path)}
    )

    assert outcome == Sent()


def test_a_channel_whose_library_breaks_costs_one_letter():
    broken = Channel("it", "log", {"path": "\0", "rotate": 1, "kept": 1})

    assert isinstance(send(broken, a_letter(), environment={}, wall_ns=WALL), Never)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # apprise's own
def test_apprise_delivers_to_a_webhook_and_understands_no_nonsense(web, tmp_path):
    pytest.importorskip("apprise")
    secret = tmp_path / "apprise"
    secret.write_text(f"json://127.0.0.1:{web.server_address[1]}/{TOKEN}")
    secret.chmod(0o600)
    outcome = deliver(type="apprise", secret=str(secret))
    secret.write_text("nonsense")

    assert outcome == Sent()
    assert "sent KILL" in web.got[0][2].decode()
    assert isinstance(deliver(type="apprise", secret=str(secret)), Never)
