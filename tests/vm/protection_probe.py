"""Runs in a guest, as root, with real systemd, sshd and PostgreSQL: protect, a hog, undo.

Prints one JSON object a line, what it saw; the test on the host judges. No guard
runs: the kernel's own killer is the one that is met.
"""

import hashlib
import json
import os
import pwd
import re
import select
import subprocess
import sys
import time
from pathlib import Path

WATCHED = ("etc", "usr/local", "var/lib/forestall", "run/systemd/system")
SHOWN = ("OOMPolicy", "MemoryLow", "DropInPaths")
KEY = "/root/.ssh/id_probe"
HELD_MIB = 250
LEAVES = 6
OURS = {-1000, -588, -294}
"""What protect gives; others, such as Debian's dbus.service, have their own values."""
PATIENCE_S = 180


def say(what, **facts):
    line = json.dumps({"what": what, "at_s": round(time.monotonic()), **facts})
    print(line, flush=True)  # noqa: T201 - how a probe answers


def command(*words, check=True, **options):
    done = subprocess.run(words, check=False, capture_output=True, text=True, **options)
    if check and done.returncode:
        say("failed", words=words, status=done.returncode, out=done.stdout, err=done.stderr)
        sys.exit(1)
    return done


def forestall(*words, check=True):
    return command(sys.executable, "-m", "forestall.cli.main", *words, check=check)


def answer(*words):
    return json.loads(forestall(*words, "--json").stdout)


def pause(seconds):
    select.select([], [], [], seconds)


def until(happens, what):
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if found := happens():
            return found
        pause(0.5)
    say("failed", waited_for=what)
    sys.exit(1)


def values():
    """Every process's oom_score_adj, by number and start time."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text(errors="replace")
            adj = int((folder / "oom_score_adj").read_text())
        except OSError:
            continue
        tail = stat.rpartition(")")[2].split()
        if int(tail[6]) & 0x200000 or tail[0] in "XZ":
            continue
        name = stat[stat.index("(") + 1 : stat.rindex(")")]
        found[f"{folder.name}/{tail[19]}"] = [name, adj]
    return found


def files():
    """Every file and folder that could be ours: kind, mode, and contents."""
    found = {}
    for top in WATCHED:
        for path in [Path("/", top), *sorted(Path("/", top).rglob("*"))]:
            try:
                mode = path.lstat().st_mode
                content = str(path.readlink()) if path.is_symlink() else ""
                if path.is_file() and not path.is_symlink():
                    content = hashlib.sha256(path.read_bytes()).hexdigest()
            except OSError:
                continue
            found[str(path)] = [oct(mode), content]
    return found


def shown(unit, *names):
    lines = command("systemctl", "show", "-p", ",".join(names), unit).stdout.splitlines()
    return dict(line.partition("=")[::2] for line in lines)


def adj_of(pid):
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


def sql(text):
    words = ("psql", "-XAtq", "-d", "postgres", "-c", text)
    who = pwd.getpwnam("postgres")
    return subprocess.Popen(
        words, user=who.pw_uid, group=who.pw_gid, stdout=subprocess.PIPE, text=True, cwd="/"
    )


def ssh(*words):
    known = ("-oStrictHostKeyChecking=no", "-oUserKnownHostsFile=/dev/null", "-oBatchMode=yes")
    return ("ssh", "-q", *known, "-i", KEY, "root@127.0.0.1", *words)


def main_pid(name):
    return int(shown(f"{name}.service", "MainPID")["MainPID"])


def oom_kills():
    text = Path("/proc/vmstat").read_text()
    return int(re.search(r"^oom_kill (\d+)$", text, re.MULTILINE)[1])


HOG = """
import os, select, signal
for _ in range(LEAVES):
    if os.fork() == 0:
        held = []
        while True:
            held.append(bytearray(b"x") * (1 << 20))
            select.select([], [], [], 0.02)
os.wait()
signal.pause()
""".replace("LEAVES", str(LEAVES))
DEMO = """[Service]
ExecStart=/bin/sleep infinity
"""


class Guest:
    """The services, and who talks to them."""

    def start(self):
        """Start Debian's services as they come; connect to both."""
        Path("/root/.ssh").mkdir(mode=0o700, exist_ok=True)
        command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", KEY)
        Path("/root/.ssh/authorized_keys").write_text(Path(KEY + ".pub").read_text())
        Path("/etc/systemd/system/payments.service").write_text(DEMO)
        command("systemctl", "daemon-reload")
        command("systemctl", "start", "ssh.service", "postgresql.service", "payments.service")
        cluster = command("pg_lsclusters", "-h").stdout.split()
        self.unit = f"postgresql@{cluster[0]}-{cluster[1]}.service"
        until(lambda: shown(self.unit, "ActiveState")["ActiveState"] == "active", self.unit)
        self.postmaster = int(shown(self.unit, "MainPID")["MainPID"])
        self.listener = int(shown("ssh.service", "MainPID")["MainPID"])
        say(
            "as Debian has it",
            sshd=adj_of(self.listener),
            postgres=adj_of(self.postmaster),
            unit=self.unit,
        )
        # sshd makes itself immune; here is one that somebody took it from.
        Path(f"/proc/{self.listener}/oom_score_adj").write_text("0")
        held = f"SELECT repeat('x', {HELD_MIB << 20}) AS x OFFSET 0"
        self.holder = sql(f"SELECT length(x), pg_sleep(3000) FROM ({held}) s")
        self.session = subprocess.Popen(
            ssh("echo here; read line; echo still $line"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.session.stdout.readline() == "here\n"
        self.backend = until(backend_pid, "a backend that holds much")

    def protect(self):
        """Look, ask for what is refused, install, and protect."""
        explained = answer("explain", str(self.backend))
        say(
            "before",
            backend=self.backend,
            next=answer("scores", "--top", "3")["kernel_next"],
            plan=answer("protect", "plan"),
            changes=explained["kernel"]["changes"],
        )
        refused = forestall("unit", "ssh", "--oom-score-adjust", "-500", check=False)
        empty = forestall("unit", "postgresql", "--template", check=False)
        say(
            "refused",
            ssh=[refused.returncode, refused.stderr],
            postgresql=[empty.returncode, empty.stderr],
        )
        forestall("install", "--yes", "--no-start")
        lines = Path("/usr/local/share/bash-completion/completions/forestall").read_text()
        say(
            "installed",
            manual=Path("/usr/local/share/man/man1/forestall-protect.1").exists(),
            completion="complete -o nosort" in lines,
        )
        say(
            "protected",
            applied=answer("protect", "apply", "--yes", "--follow"),
            unit=answer("unit", self.unit, "--template", "--memory-low", "64M"),
            sshd=adj_of(self.listener),
            postgres=adj_of(self.postmaster),
            backend=adj_of(self.backend),
            drop_in=shown(self.unit, *SHOWN, "OOMScoreAdjust"),
            next=answer("scores", "--top", "3")["kernel_next"],
        )

    def follow(self):
        """Let new ones be born: a shell over ssh, and a backend of the database."""
        shell = command(*ssh("cat /proc/self/oom_score_adj")).stdout
        self.young = sql("SELECT pg_backend_pid(), pg_sleep(3000)")
        treated = until(young_backend(self.backend), "a young backend that follow has treated")
        say("followed", shell=int(shell), young=treated)

    def restart(self):
        """Give a service the seed's number; it holds after a restart, and undo takes it back."""
        written = answer("unit", "payments", "--oom-score-adjust", "-10")
        before = adj_of(main_pid("payments"))
        command("systemctl", "restart", "payments.service")
        after = adj_of(main_pid("payments"))
        answer("unit", "payments", "--undo")
        command("systemctl", "restart", "payments.service")
        undone = adj_of(main_pid("payments"))
        say("restarted", written=written, values=[before, after, undone])

    def meet_the_kernel(self):
        """Let hogs grow until the kernel's killer acts; it goes on acting for a while."""
        kills = oom_kills()
        command("systemd-run", "-q", "--unit=hog", sys.executable, "-c", HOG)
        until(lambda: oom_kills() > kills, "the kernel's killer")
        pause(5)
        killed = oom_kills() - kills
        command("systemctl", "kill", "-s", "KILL", "hog.service", check=False)
        victims = re.findall(r"Killed process (\d+) \(([^)]*)\)", command("dmesg").stdout)
        self.session.stdin.write("alive\n")
        self.session.stdin.close()
        say(
            "after the hog",
            killed=killed,
            victims=victims,
            sshd=shown("ssh.service", "MainPID", "NRestarts"),
            postgres=shown(self.unit, "MainPID", "NRestarts"),
            pids=[self.listener, self.postmaster],
            backend=Path(f"/proc/{self.backend}").exists(),
            session=self.session.stdout.readline(),
            new_session=command(*ssh("echo in")).stdout,
            sql=sql("SELECT 6 * 7").communicate(timeout=PATIENCE_S)[0],
            drop_in=shown(self.unit, *SHOWN),
        )

    def undo(self, before, files_before):
        """Take everything back, and compare one by one."""
        undone = answer("protect", "undo", "--yes")
        answer("unit", self.unit, "--undo")
        forestall("uninstall", "--yes", "--purge")
        after, files_after = values(), files()
        both = {who: (before[who], after[who]) for who in before.keys() & after.keys()}
        paths = files_before.keys() | files_after.keys()
        here = {int(who.partition("/")[0]) for who in both}
        say(
            "undone",
            undone=undone,
            compared=len(both),
            among_them={self.listener, self.postmaster, self.backend} <= here,
            changed={who: held for who, held in both.items() if held[0] != held[1]},
            born={
                who: held for who, held in after.items() if who not in before and held[1] in OURS
            },
            files=len(files_before),
            files_changed=sorted(p for p in paths if files_before.get(p) != files_after.get(p)),
            drop_in=shown(self.unit, *SHOWN),
        )


def peers():
    """Ask about the other killers; Debian's packages of all of them are here, switched off."""
    names = ("earlyoom", "nohang", "systemd-oomd", "oomd")
    say(
        "peers",
        seen={one["name"]: one for one in answer("peers")["peers"]},
        imports={name: answer("peers", "import", name) for name in names},
        install=forestall("peers", "install", "earlyoom", "--dry-run").stdout,
        setup=answer("setup", "--dry-run"),
        audit=json.loads(forestall("protect", "audit", "--json", check=False).stdout),
    )


def nobody():
    """Try everything that changes something as an ordinary user."""
    tries = (
        "protect apply --yes",
        "protect undo --yes",
        "protect follow",
        "unit payments --memory-low 1M",
        "peers install earlyoom --yes",
        "peers remove earlyoom --yes",
        "setup --yes",
        "install --yes",
    )
    told = {}
    for line in tries:
        done = subprocess.run(
            (sys.executable, "-m", "forestall.cli.main", *line.split()),
            check=False,
            capture_output=True,
            text=True,
            user=65534,
            group=65534,
            timeout=PATIENCE_S,
        )
        told[line] = [done.returncode, done.stderr]
    say("nobody", told=told)


def main():
    guest = Guest()
    guest.start()
    before, files_before = values(), files()
    peers()
    nobody()
    guest.protect()
    guest.follow()
    guest.meet_the_kernel()
    guest.undo(before, files_before)
    # Last: its restarts are new processes, which no snapshot knows.
    guest.restart()
    say("restored", files_changed=files() != files_before)
    for one in (guest.holder, guest.young, guest.session):
        one.kill()


def backend_pid():
    """The backend that holds much, by what it has in memory."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            text = (folder / "status").read_text(errors="replace")
        except OSError:
            continue
        size = re.search(r"^RssAnon:\s+(\d+) kB", text, re.MULTILINE)
        if text.startswith("Name:\tpostgres\n") and size and int(size[1]) > HELD_MIB << 9:
            return int(folder.name)
    return None


def young_backend(old):
    """Whether the latest client's backend, which started at 0, has got the ward's value."""

    def looks():
        lines = command("pgrep", "-f", r"postgres: .*\[local\] SELECT").stdout.split()
        young = [pid for pid in map(int, lines) if pid != old]
        return next(([pid, adj_of(pid)] for pid in young if adj_of(pid) < 0), None)

    return looks


if __name__ == "__main__":
    os.environ.pop("NOTIFY_SOCKET", None)
    main()
