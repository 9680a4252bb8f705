"""Runs inside a guest: every cleanup with real swap, by hand and through the installed service.

Prints one line of JSON per scene; the test outside judges. The disk swap has priority 7,
a swap file 3. Reads of the swap disk are slowed down where something is to be interrupted.
"""

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

MIB = 1 << 20
DISK, FILE = "/dev/vdc", "/swapfile"
CLI = "/usr/local/bin/forestall"
SETTINGS = Path("/etc/forestall/forestall.toml")
HOLD = """
import os, select, sys
held = [os.urandom(1 << 20) for _ in range(int(sys.argv[1]))]
print("held", flush=True)
select.poll().poll()
"""
THRASH = """
import sys
held = bytearray(int(sys.argv[1]) << 20)
print("held", flush=True)
while True:
    for at in range(0, len(held), 4096):
        held[at] += 1 if held[at] < 255 else -255
"""
SLOW = ("-p", f"IOReadBandwidthMax={DISK} 2M")


def tell(scene, **facts):
    sys.stdout.write(json.dumps({"scene": scene, **facts}) + "\n")
    sys.stdout.flush()


def run(*words, timeout=240):
    return subprocess.run(words, capture_output=True, text=True, timeout=timeout, check=False)


def clean(*words):
    began = time.monotonic()
    done = run(CLI, "clean", *words)
    return {
        "code": done.returncode,
        "said": done.stdout.strip(),
        "complained": done.stderr.strip(),
        "took_s": round(time.monotonic() - began, 1),
    }


def areas():
    """Size, use in MiB and priority of each area."""
    rows = [line.split() for line in Path("/proc/swaps").read_text().splitlines()[1:]]
    return {row[0]: [int(row[2]) // 1024, int(row[3]) // 1024, int(row[4])] for row in rows}


def priorities():
    return {path: row[2] for path, row in areas().items()}


def used_mib():
    return sum(row[1] for row in areas().values())


def available_mib():
    found = re.search(r"MemAvailable: *(\d+)", Path("/proc/meminfo").read_text())
    return int(found[1]) // 1024


def pause(seconds):
    select.poll().poll(int(seconds * 1000))


def until(holds, seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if holds():
            return True
        pause(0.1)
    return bool(holds())


class Holder:
    """A service of its own that holds memory."""

    def __init__(self, name, mib, code=HOLD, *properties):
        self.name = name
        self.folder = Path(f"/sys/fs/cgroup/system.slice/{name}.service")
        log = f"/run/{name}.out"
        Path(log).unlink(missing_ok=True)
        given = [word for text in properties for word in ("-p", text)]
        run(
            *("systemd-run", "-q", f"--unit={name}", "-p", f"StandardOutput=file:{log}"),
            *given,
            *("/usr/bin/python3", "-I", "-c", code, str(mib)),
        )
        self.ready = until(lambda: "held" in _text(log), 60)

    def number(self, file):
        return int((self.folder / file).read_text()) // MIB

    def push_out(self, mib):
        """Into swap, by the kernel's own means; in pieces, for EAGAIN is an answer."""
        for _ in range(40):
            if self.number("memory.swap.current") >= mib:
                break
            with contextlib.suppress(OSError):
                (self.folder / "memory.reclaim").write_text(f"{16 * MIB}")
        return self.number("memory.swap.current")

    def end(self):
        run("systemctl", "kill", "-s", "KILL", self.name)
        until(lambda: not self.folder.exists(), 20)
        run("systemctl", "reset-failed", self.name)


def _text(path):
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def pids_of(words):
    """Processes whose command line has these words in it."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            line = _text(f"/proc/{entry.name}/cmdline").replace("\0", " ")
            if words in line and int(entry.name) != os.getpid():
                found.append(int(entry.name))
    return found


def pid_called(comm):
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and _text(f"/proc/{entry.name}/comm").strip() == comm:
            return int(entry.name)
    return 0


class Slowly:
    """``forestall clean swap`` in a unit that may read only slowly from the swap disk."""

    def __init__(self, name):
        self.name = name
        self.log = f"/run/{name}.out"
        Path(self.log).unlink(missing_ok=True)
        streams = ("-p", f"StandardOutput=file:{self.log}", "-p", f"StandardError=file:{self.log}")
        run(
            *("systemd-run", "-q", f"--unit={name}", "--remain-after-exit", *SLOW, *streams),
            *("-p", "SuccessExitStatus=1 130", "-p", "KillMode=process", CLI, "clean", "swap"),
        )
        self.began = until(lambda: bool(self.workers()), 60)
        self.before = used_mib()
        self.main = int(run("systemctl", "show", "-P", "MainPID", name).stdout)

    def workers(self):
        return pids_of("relief/worker.py recycle")

    def finish(self, seconds=60):
        """Wait for the end of it and of its helper."""
        over = until(
            lambda: not Path(f"/proc/{self.main}").exists() and not self.workers(), seconds
        )
        code = run("systemctl", "show", "-P", "ExecMainStatus", self.name).stdout.strip()
        run("systemctl", "stop", self.name)
        run("systemctl", "reset-failed", self.name)
        return {
            "began": self.began,
            "over": over,
            "code": int(code or -1),
            "said": _text(self.log).strip(),
            "used_before_mib": self.before,
            "used_after_mib": used_mib(),
            "priorities": priorities(),
        }


def swap_by_hand():
    cold = Holder("cold", 220)
    swapped = cold.push_out(200)
    big = Holder("big", 500)
    tell(
        "swap-does-not-fit",
        **clean("swap"),
        swapped_mib=swapped,
        available_mib=available_mib(),
        priorities=priorities(),
        used_mib=used_mib(),
    )
    big.end()
    for name, act in (
        ("swap-interrupted-by-ctrl-c", lambda one: os.kill(one.main, signal.SIGINT)),
        ("swap-helper-killed", lambda one: [os.kill(pid, signal.SIGKILL) for pid in one.workers()]),
    ):
        cold.push_out(200)
        slow = Slowly("slow")
        pause(3)
        act(slow)
        tell(name, **slow.finish())
    cold.push_out(200)
    slow = Slowly("slow")
    pause(2)
    hog = Holder("hog", 60, THRASH, "MemoryMax=40M", "MemorySwapMax=100M")
    tell("swap-others-stall", hog=hog.ready, **slow.finish())
    hog.end()
    cold.push_out(200)
    slow = Slowly("slow")
    pause(2)
    big = Holder("big", 620)
    tell("swap-memory-runs-short", big=big.ready, **slow.finish())
    big.end()
    cold.push_out(200)
    slow = Slowly("slow")
    pause(2)
    os.kill(slow.main, signal.SIGKILL)
    tell("swap-who-asked-is-killed", **slow.finish(200))
    cold.push_out(200)
    before, seen = areas(), clean("swap", "--dry-run", "--json")
    still = areas()
    tell("swap-dry-run", **seen, untouched=before == still)
    tell("swap-fits", **clean("swap"), before=before, after=areas())
    cold.end()


def cache_and_cgroup():
    run("sh", "-c", "cat /usr/lib/*/*.so* /usr/bin/* > /dev/null")
    hog = Holder("hog", 60, THRASH, "MemoryMax=40M", "MemorySwapMax=100M")
    pause(2)
    tell("cache-while-stalled", **clean("page-cache"), hog=hog.ready)
    hog.end()
    pause(2)
    tell("cache-in-calm", **clean("page-cache"), available_mib=available_mib())
    cold = Holder("cold", 200)
    pause(1)
    path = "system.slice/cold.service"
    before = cold.number("memory.current")
    seen = clean("cgroup", path, "--dry-run", "--json")
    untouched = cold.number("memory.current")
    small = clean("cgroup", path, "--size", "32MiB", "--json")
    after_small = cold.number("memory.current")
    rest = clean("cgroup", f"/sys/fs/cgroup/{path}", "--json")
    tell(
        "cgroup-cold",
        dry=seen,
        small=small,
        rest=rest,
        held_mib=[before, untouched, after_small, cold.number("memory.current")],
    )
    cold.end()
    hot = Holder("hot", 150, THRASH, "MemoryHigh=100M")
    pause(2)
    tell("cgroup-hot", **clean("cgroup", "system.slice/hot.service"), hot=hot.ready)
    hot.end()


def journal(since):
    done = run("journalctl", "-u", "forestall", "--since", since, "-o", "json", "--no-pager")
    found = []
    for line in done.stdout.splitlines():
        entry = json.loads(line)
        found.append([entry.get("FORESTALL_EVENT", ""), str(entry.get("MESSAGE", ""))])
    return found


def now():
    return time.strftime("%Y-%m-%d %H:%M:%S")


def heard(since, kinds, seconds=90):
    def news():
        return [pair for pair in journal(since) if pair[0] in kinds]

    until(news, seconds)
    return news()


TRIGGER = """
[triggers.mine]
stage = "relieve"
when = ["swap_free < 97%"]
action = "{action}"
"""


def restart():
    since = now()
    run("systemctl", "restart", "forestall")
    return since


def through_the_guard():
    """The service: without the grant it refuses, with it it does; killed half-way nothing is lost."""
    cold = Holder("cold", 220)
    cold.push_out(200)
    SETTINGS.write_text(TRIGGER.format(action="swap"))
    since = restart()
    tell("service-without-grant", news=heard(since, {"relieved", "declined"}), used_mib=used_mib())
    run("swapon", "-p", "3", FILE)
    done = run(CLI, "install", "--yes")
    since = restart()
    news = heard(since, {"relieved", "declined"})
    tell(
        "service-with-grant",
        installed=done.stdout,
        complained=done.stderr,
        news=news,
        used_mib=used_mib(),
        priorities=priorities(),
        bound=run("systemctl", "show", "-P", "CapabilityBoundingSet", "forestall").stdout,
    )
    run("systemctl", "set-property", "--runtime", "forestall", f"IOReadBandwidthMax={DISK} 2M")
    cold.push_out(200)
    since = restart()
    began = until(lambda: bool(pids_of("relief/worker.py recycle")), 90)
    pause(3)
    relief = pid_called("forestall-relief")
    if relief:
        os.kill(relief, signal.SIGKILL)
    over = until(lambda: not pids_of("relief/worker.py recycle"), 200)
    tell(
        "service-relief-killed",
        began=began,
        relief=relief,
        over=over,
        active=run("systemctl", "is-active", "forestall").stdout.strip(),
        priorities=priorities(),
    )
    cold.push_out(200)
    since = restart()
    began = until(lambda: bool(pids_of("relief/worker.py recycle")), 90)
    pause(3)
    run("systemctl", "stop", "forestall")
    over = until(lambda: not pids_of("relief/worker.py recycle"), 60)
    tell("service-stopped-half-way", began=began, over=over, priorities=priorities())
    run("systemctl", "revert", "forestall")
    SETTINGS.write_text(TRIGGER.format(action="reclaim"))
    before = cold.number("memory.current")
    since = now()
    done = run(CLI, "install", "--yes")
    news = heard(since, {"relieved", "declined"})
    tell(
        "service-reclaims",
        installed=done.stdout,
        news=news,
        held_mib=[before, cold.number("memory.current")],
        bound=run("systemctl", "show", "-P", "CapabilityBoundingSet", "forestall").stdout,
    )
    cold.end()


def main():
    run("swapoff", "-a")
    run("swapon", "-p", "7", DISK)
    run("sh", "-c", f"fallocate -l 64M {FILE}; chmod 600 {FILE}; mkswap {FILE}")
    done = run("python3", "-m", "forestall.cli.main", "install", "--yes")
    tell("installed", code=done.returncode, said=done.stdout, complained=done.stderr, areas=areas())
    run("systemctl", "stop", "forestall", "forestall-herald")
    for scene in (swap_by_hand, cache_and_cgroup, through_the_guard):
        try:
            scene()
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            tell("broken", which=scene.__name__, why=repr(error))
    tell("done")


main()
