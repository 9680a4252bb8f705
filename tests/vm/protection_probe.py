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

WATCHED = ("etc", "usr/local", "var/lib/forestall", "run/systemd/system", "root/.ssh")
HELD_MIB = 250
LEAVES = 6
PATIENCE_S = 180


def say(what, **facts):
    print(json.dumps({"what": what, "at_s": round(time.monotonic()), **facts}), flush=True)


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
    options = ("-oStrictHostKeyChecking=no", "-oBatchMode=yes", "-i", "/root/.ssh/id_probe")
    return ("ssh", "-q", *options, "root@127.0.0.1", *words)


def oom_kills():
    text = Path("/proc/vmstat").read_text()
    return int(re.search(r"^oom_kill (\d+)$", text, re.MULTILINE)[1])


HOG = (
    """
import os, time
for _ in range(%d):
    if os.fork() == 0:
        held = []
        while True:
            held.append(bytearray(b"x") * (1 << 20))
            time.sleep(0.02)
os.wait()
time.sleep(1000)
"""
    % LEAVES
)


def main():
    # Services of Debian's packages, as they come; and a way in by key.
    Path("/root/.ssh").mkdir(mode=0o700, exist_ok=True)
    command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/root/.ssh/id_probe")
    Path("/root/.ssh/authorized_keys").write_text(Path("/root/.ssh/id_probe.pub").read_text())
    command("systemctl", "start", "ssh.service", "postgresql.service")
    cluster = command("pg_lsclusters", "-h").stdout.split()
    unit = f"postgresql@{cluster[0]}-{cluster[1]}.service"
    until(lambda: shown(unit, "ActiveState")["ActiveState"] == "active", unit)
    postmaster = int(shown(unit, "MainPID")["MainPID"])
    listener = int(shown("ssh.service", "MainPID")["MainPID"])
    say("as Debian has it", sshd=adj_of(listener), postgres=adj_of(postmaster), unit=unit)
    # sshd makes itself immune; here is one that somebody took it from.
    Path(f"/proc/{listener}/oom_score_adj").write_text("0")

    # A connection to the database that holds much, and one to the machine.
    query = f"SELECT length(x), pg_sleep(3000) FROM (SELECT repeat('x', {HELD_MIB << 20}) AS x OFFSET 0) s"
    holder = sql(query)
    session = subprocess.Popen(
        ssh("echo here; read line; echo still $line"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert session.stdout.readline() == "here\n"
    backend = until(backend_pid, "a backend that holds much")

    before, files_before = values(), files()
    plan = answer("protect", "plan")
    looked = answer("scores", "--top", "3")
    explained = answer("explain", str(backend))
    say(
        "before",
        backend=backend,
        next=looked["kernel_next"],
        plan=plan,
        changes=explained["kernel"]["changes"],
    )
    refused = forestall("unit", "ssh", "--oom-score-adjust", "-500", check=False)
    empty = forestall("unit", "postgresql", "--template", check=False)
    say(
        "refused",
        ssh=[refused.returncode, refused.stderr],
        postgresql=[empty.returncode, empty.stderr],
    )

    say("installing")
    forestall("install", "--yes", "--no-start")
    manual = Path("/usr/local/share/man/man1/forestall-protect.1").exists()
    lines = Path("/usr/local/share/bash-completion/completions/forestall").read_text()
    say("installed", manual=manual, completion="complete -o nosort" in lines)
    applied = answer("protect", "apply", "--yes", "--follow")
    dropped = answer("unit", unit, "--template", "--memory-low", "64M")
    say(
        "protected",
        applied=applied,
        unit=dropped,
        sshd=adj_of(listener),
        postgres=adj_of(postmaster),
        backend=adj_of(backend),
        drop_in=shown(unit, "OOMPolicy", "MemoryLow", "DropInPaths", "OOMScoreAdjust"),
        next=answer("scores", "--top", "3")["kernel_next"],
    )
    shell = command(*ssh("cat /proc/self/oom_score_adj")).stdout
    young = sql("SELECT pg_backend_pid(), pg_sleep(3000)")
    follow = until(young_backend(backend), "a young backend that follow has treated")
    say("followed", shell=int(shell), young=follow)

    kills = oom_kills()
    command("systemd-run", "-q", "--unit=hog", sys.executable, "-c", HOG)
    until(lambda: oom_kills() > kills, "the kernel's killer")
    pause(5)  # let it go on for a while: six leaves grow again and again
    killed = oom_kills() - kills
    command("systemctl", "kill", "-s", "KILL", "hog.service", check=False)
    log = command("dmesg").stdout
    victims = re.findall(r"Killed process (\d+) \(([^)]*)\)", log)
    session.stdin.write("alive\n")
    session.stdin.close()
    say(
        "after the hog",
        killed=killed,
        victims=victims,
        sshd=Path(f"/proc/{listener}").exists() and shown("ssh.service", "MainPID", "NRestarts"),
        postgres=shown(unit, "MainPID", "NRestarts"),
        pids=[listener, postmaster],
        backend=Path(f"/proc/{backend}").exists(),
        session=session.stdout.readline(),
        new_session=command(*ssh("echo in")).stdout,
        sql=sql("SELECT 6 * 7").communicate(timeout=PATIENCE_S)[0],
        drop_in=shown(unit, "OOMPolicy", "MemoryLow", "DropInPaths"),
    )

    undone = answer("protect", "undo", "--yes")
    answer("unit", unit, "--undo")
    forestall("uninstall", "--yes", "--purge")
    after, files_after = values(), files()
    stayed = {who: (held, after[who]) for who, held in before.items() if who in after}
    changed = {who: held for who, held in stayed.items() if held[0][1] != held[1][1]}
    born = {who: held for who, held in after.items() if who not in before and held[1] < 0}
    say(
        "undone",
        undone=undone,
        stayed=len(stayed),
        compared=[f"{listener}/" in " ".join(stayed), f"{backend}/" in " ".join(stayed)],
        changed=changed,
        born=born,
        files=len(files_before),
        files_changed=sorted(
            path
            for path in files_before.keys() | files_after.keys()
            if files_before.get(path) != files_after.get(path)
        ),
        drop_in=shown(unit, "OOMPolicy", "MemoryLow", "DropInPaths"),
    )
    for one in (holder, young, session):
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
