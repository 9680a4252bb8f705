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
SMALL = ("MemoryMax=40M", "MemorySwapMax=100M")
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
SLOW = ("-p", f"IOReadBandwidthMax={DISK} 4M")


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
                (self.folder / "memory.reclaim").write_text(f"{8 * MIB}")
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


class Colds:
    """Two services that hold what is in swap, and do nothing: the kernel empties one by one."""

    def __init__(self):
        self.holders = {name: Holder(name, 90) for name in ("cold1", "cold2")}

    def push_out(self):
        return [one.push_out(80) for one in self.holders.values()]

    def end(self, *names):
        for name in names or tuple(self.holders):
            self.holders.pop(name).end()


def child_of(workers):
    """The one of two that makes the call."""
    for pid in workers:
        if int(_text(f"/proc/{pid}/stat").rpartition(")")[2].split()[1]) in workers:
            return pid
    return 0


def kill_the_child(slow):
    os.kill(child_of(slow.workers()), signal.SIGKILL)


def interrupted(name, colds, act, seconds=120):
    swapped = colds.push_out()
    slow = Slowly("slow")
    pause(4)
    more = act(slow)
    tell(name, swapped_mib=swapped, **slow.finish(seconds))
    return more


def swap_by_hand():
    colds = Colds()
    swapped = colds.push_out()
    big = Holder("big", 540)
    tell(
        "swap-does-not-fit",
        **clean("swap"),
        swapped_mib=swapped,
        available_mib=available_mib(),
        priorities=priorities(),
        used_mib=used_mib(),
    )
    big.end()
    interrupted("swap-ctrl-c", colds, lambda slow: os.kill(slow.main, signal.SIGINT))
    interrupted("swap-helper-killed", colds, kill_the_child)
    hog = interrupted(
        "swap-others-stall",
        colds,
        lambda _slow: Holder("hog", 60, THRASH, "MemoryHigh=30M", "MemorySwapMax=0"),
    )
    hog.end()
    big = interrupted("swap-memory-runs-short", colds, lambda _slow: Holder("big", 640))
    big.end()
    interrupted("swap-who-asked-is-killed", colds, lambda slow: os.kill(slow.main, signal.SIGKILL))
    colds.end("cold2")
    interrupted("swap-helper-killed-in-the-last-process", colds, kill_the_child)
    colds.push_out()
    before, seen = areas(), clean("swap", "--dry-run", "--json")
    still = areas()
    tell("swap-dry-run", **seen, untouched=before == still)
    tell("swap-fits", **clean("swap"), before=before, after=areas())
    colds.end()


def cache_and_cgroup():
    run("sh", "-c", "cat /usr/lib/*/*.so* /usr/bin/* > /dev/null")
    hog = Holder("hog", 60, THRASH, *SMALL)
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


def heard(since, kinds, seconds=150):
    """What relief said; waits for the first of these kinds."""

    def news():
        return [pair for pair in journal(since) if pair[0] in {"relieved", "declined"}]

    until(lambda: any(kind in kinds for kind, _said in news()), seconds)
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


def recycling():
    return pids_of("relief/worker.py recycle")


def through_the_guard():
    """The service: without the grant it refuses, with it it does."""
    colds = Colds()
    colds.push_out()
    SETTINGS.write_text(TRIGGER.format(action="swap"))
    since = restart()
    tell("service-without-grant", news=heard(since, {"declined"}), used_mib=used_mib())
    since = now()
    done = run(CLI, "install", "--yes")
    tell(
        "service-with-grant",
        installed=done.stdout,
        complained=done.stderr,
        news=heard(since, {"relieved"}),
        used_mib=used_mib(),
        priorities=priorities(),
        bound=run("systemctl", "show", "-P", "CapabilityBoundingSet", "forestall").stdout,
    )
    colds.end()


def killed_in_the_service():
    run("systemctl", "set-property", "--runtime", "forestall", f"IOReadBandwidthMax={DISK} 4M")
    colds = Colds()
    colds.push_out()
    restart()
    began = until(recycling, 90)
    pause(3)
    relief = pid_called("forestall-relie")
    if relief:
        os.kill(relief, signal.SIGKILL)
    over = until(lambda: not recycling(), 120)
    tell(
        "service-relief-killed",
        began=began,
        relief=relief,
        over=over,
        active=run("systemctl", "is-active", "forestall").stdout.strip(),
        priorities=priorities(),
    )
    colds.end("cold2")
    colds.push_out()
    restart()
    began = until(recycling, 90)
    pause(3)
    run("systemctl", "stop", "forestall")
    over = until(lambda: not recycling(), 60)
    after_stop, note = priorities(), _text("/run/forestall-recycling")
    since = now()
    run("systemctl", "start", "forestall")
    news = heard(since, {"declined"}, 20)
    tell(
        "service-stopped-half-way",
        began=began,
        over=over,
        after_stop=after_stop,
        note=note,
        news=news,
        priorities=priorities(),
    )
    colds.end()
    # Not revert: that takes away the drop-in that install wrote.
    run("systemctl", "set-property", "--runtime", "forestall", "IOReadBandwidthMax=")


def reclaim_in_the_service():
    """And the grant goes with the setting that asked for it."""
    # The service as it was would bring back what is pushed out here.
    run("systemctl", "stop", "forestall")
    cold = Holder("cold", 220)
    cold.push_out(60)
    SETTINGS.write_text(TRIGGER.format(action="reclaim"))
    before = cold.number("memory.current")
    since = now()
    done = run(CLI, "install", "--yes")
    news = heard(since, {"relieved"})
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
    run("sh", "-c", f"fallocate -l 128M {FILE}; chmod 600 {FILE}; mkswap {FILE}")
    run("swapon", "-p", "3", FILE)
    done = run("python3", "-m", "forestall.cli.main", "install", "--yes")
    tell("installed", code=done.returncode, said=done.stdout, complained=done.stderr, areas=areas())
    run("systemctl", "stop", "forestall", "forestall-herald")
    for scene in (
        swap_by_hand,
        cache_and_cgroup,
        through_the_guard,
        killed_in_the_service,
        reclaim_in_the_service,
    ):
        try:
            scene()
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            tell("broken", which=scene.__name__, why=repr(error))
    tell("done")


main()
