"""The table of scenarios.

Sizes fit a guest of 1 GiB: about 970 MiB usable, 640 MiB available beside the
small system, 300 MiB when the landscape below has settled.
"""

from __future__ import annotations

from arena.cast import COMPILER, TAB, WORKER
from arena.errors import PlanError
from arena.scenario import SERVICE_GROUP, SESSION_GROUP, Actor, Scenario, Swap

SERVICE = Actor(role="service", cast="service", script="beat mem=~24", uid=910, group=SERVICE_GROUP)
SSHD = Actor(
    role="sshd",
    cast="sshd",
    script="app mem=4",
    uid=0,
    oom_score_adj=-1000,
    group="system.slice/ssh.service",
)
MAIL = Actor(role="mail", cast="mail", script="app mem=~40")
EDITOR = Actor(role="editor", cast="editor", script="app mem=~60")
BROWSER = Actor(role="browser", cast="browser", script="app mem=~150")
SERVER = (SERVICE, SSHD)
DESKTOP = (SERVICE, SSHD, MAIL, EDITOR, BROWSER)


def culprit(script: str, *, role: str = "culprit", delay_s: float = 0) -> Actor:
    """Make the actor that most scenarios are about: a program of the user that goes wrong."""
    return Actor(role=role, cast="batch", script=script, when="trouble", delay_s=delay_s)


def case(name: str, title: str, script: str, **more: object) -> Scenario:
    """Make a scenario of one culprit beside the desktop, which is to die alone."""
    words: dict[str, object] = {
        "trouble": (culprit(script),),
        "landscape": DESKTOP,
        "must_die": ("culprit",),
        "max_deaths": 1,
    }
    return Scenario(name=name, title=title, **{**words, **more})  # type: ignore[arg-type]


SSD = Swap(mib=256)

_LEAKS = (
    case("fast", "a leak at full speed, with swap", "leak rate=0", swap=SSD, limit_s=35),
    case("fast-noswap", "a leak at full speed, without swap", "leak rate=0", limit_s=30),
    case(
        "slow",
        "a leak of 5 MiB/s, little swap",
        "leak rate=~5 until_available=~120",
        swap=Swap(mib=32),
        limit_s=55,
    ),
    case(
        "zram",
        "a leak at full speed of what does not compress, swap in compressed memory",
        "leak rate=0 dense=1",
        swap=Swap(kind="zram", mib=256),
        limit_s=50,
    ),
    case(
        "two",
        "two programs leak at once",
        "leak rate=~60",
        trouble=(
            culprit("leak rate=~60"),
            culprit("leak rate=~40", role="accomplice", delay_s=0.5),
        ),
        must_die=("culprit", "accomplice"),
        max_deaths=2,
        swap=Swap(mib=128),
    ),
    case(
        "stubborn",
        "a leak that ignores TERM",
        "leak rate=~80 stubborn=1",
        swap=Swap(mib=128),
    ),
    case(
        "blocked",
        "a leak with a thread in uninterruptible sleep: its memory outlives SIGKILL for 20 s",
        "blocked rate=~120",
        thaw_s=20,
        limit_s=30,
        after_s=5,
        source="a process on a dead file server",
    ),
    case("huge", "a leak in transparent huge pages", "leak in=huge rate=~150", swap=SSD),
    case("memfd", "a leak in a memfd", "leak in=memfd rate=~150", swap=SSD),
    case(
        "inherited",
        "a leak that inherited oom_score_adj -1000",
        "leak rate=~120",
        trouble=(
            Actor(
                role="culprit",
                cast="cron",
                script="leak rate=~120",
                uid=0,
                oom_score_adj=-1000,
                group=SERVICE_GROUP,
                when="trouble",
            ),
        ),
        source="systemd#41372: a leaking udevd at -1000 brings the machine down",
    ),
    case(
        "limited",
        "a leak inside a group with memory.max",
        "leak rate=~40",
        trouble=(
            Actor(
                role="culprit",
                cast="batch",
                script="leak rate=~40",
                limits=("memory.max=200M", "memory.swap.max=0"),
                when="trouble",
            ),
        ),
        memcg_kills=True,
        swap=SSD,
        limit_s=25,
    ),
)

_CROWDS = (
    case(
        "storm",
        "a fork storm: 20 children of 8 MiB a second",
        "storm child_mem=~8 per_s=20",
        max_deaths=None,
        swap=Swap(mib=128),
        limit_s=35,
    ),
    case(
        "leaves",
        "a pool of 16 medium workers that together want too much",
        f"pool children=16 child_mem=~50 rate=~8 exe={WORKER.exe} arguments={WORKER.arguments}",
        must_die=(),
        may_die=("culprit",),
        max_deaths=None,
        swap=Swap(mib=64),
        limit_s=25,
        calm_by_s=18,
    ),
    case(
        "tabs",
        "a browser with children at oom_score_adj 300, one of which leaks",
        "",
        landscape=(
            *(SERVICE, SSHD, MAIL, EDITOR),
            Actor(
                role="browser",
                cast="browser",
                script=f"tree mem=~90 children=6 child_mem=~22 adj=300 leaky=3 rate=~80 role=tab "
                f"leaky_role=culprit exe={TAB.exe} arguments={TAB.arguments}",
            ),
        ),
        trouble=(),
        end_roles=("culprit",),
        swap=Swap(mib=128),
        source="earlyoom#344",
    ),
    case(
        "helper",
        "a 30 MiB helper at oom_score_adj 999 beside a leak of ten times its size at 0",
        "leak rate=~80",
        landscape=(
            *(SERVICE, SSHD, MAIL, EDITOR),
            Actor(role="helper", cast="helper", script="app mem=30", oom_score_adj=999),
        ),
        swap=Swap(mib=128),
        source="earlyoom#230",
    ),
    case(
        "build",
        "make -j8 in a shell in tmux, all in one session scope",
        "",
        landscape=(
            *(SERVICE, SSHD, MAIL, EDITOR),
            Actor(role="tmux", cast="tmux", group=SESSION_GROUP),
        ),
        trouble=(Actor(role="keys", cast="keys", group=SESSION_GROUP, when="trouble"),),
        programs={"bash": "shell", "make": "culprit"},
        end_roles=("culprit",),
        may_die=("culprit",),
        must_die=(),
        max_deaths=None,
        swap=Swap(mib=64),
        limit_s=35,
        calm_by_s=25,
        setup=f"""\
mkdir -p /home/alex/tree
cat > /home/alex/tree/Makefile <<'END'
all: $(foreach n,1 2 3 4 5 6 7 8,unit$n.o)
%.o:
	@cc1plus -quiet $*.cc -o $@ 3< rule
END
echo 'compile mem=140 rate=18 seconds=24' > /home/alex/tree/rule
printf '#!/bin/sh\\nexec make -j8 -C /home/alex/tree\\n' > /usr/local/bin/build
chmod 755 /usr/local/bin/build
chown -R alex: /home/alex
ln -f actor {COMPILER.exe}""",
        source="systemd#35270",
    ),
    case(
        "database",
        "a still database beside a leaking script that never gets as large",
        "leak rate=~60",
        landscape=(
            *(SERVICE, SSHD, MAIL),
            Actor(
                role="database",
                cast="database",
                script="app mem=~480",
                uid=910,
                group=SERVICE_GROUP,
            ),
        ),
    ),
)

_DISKS = (
    case(
        "thrash",
        "a working set larger than memory, on a slow disk",
        "thrash share=95",
        max_deaths=2,
        swap=Swap(mib=1024, disk="hdd"),
        root_disk="hdd",
        limit_s=50,
        thrash_recover_s=10,
        after_s=12,
    ),
    case(
        "thrash-ssd",
        "a working set larger than memory, on a fast disk",
        "thrash share=95",
        max_deaths=2,
        swap=Swap(mib=1024),
        limit_s=40,
    ),
    case(
        "cache",
        "the page cache at its edge: 130 MiB left, a file of 400 MiB read at random, no swap",
        "cache available=~130",
        must_die=(),
        may_die=("culprit",),
        root_disk="emmc",
        limit_s=25,
        calm_by_s=18,
    ),
    case(
        "tmpfs",
        "a small process fills a tmpfs: its end frees nothing but stops it",
        "files at=/dev/shm/spool",
        swap=Swap(mib=64),
        limit_s=30,
    ),
)

_BENIGN = (
    case(
        "burst",
        "three bursts to 90 % of what is available, without swap",
        "burst share=90 hold_ms=1500 times=3",
        must_die=(),
        max_deaths=0,
        must_finish=("culprit",),
        limit_s=40,
    ),
    case(
        "burst-swap",
        "two bursts beyond what is available, into swap",
        "burst share=120 hold_ms=1500 times=2",
        must_die=(),
        max_deaths=0,
        must_finish=("culprit",),
        swap=Swap(mib=768),
        limit_s=45,
    ),
    case(
        "busy",
        "three workers compute and churn through memory, about an eighth stays available",
        "",
        trouble=tuple(
            Actor(
                role=f"worker{number}",
                cast="batch",
                script="work mem=115 churn=25 seconds=10",
                when="trouble",
            )
            for number in (1, 2, 3)
        ),
        must_die=(),
        max_deaths=0,
        must_finish=("worker1", "worker2", "worker3"),
        limit_s=40,
    ),
    case(
        "copy",
        "a file of 400 MiB is copied",
        "",
        trouble=(Actor(role="copy", cast="copy", when="trouble"),),
        must_die=(),
        max_deaths=0,
        must_finish=("copy",),
        swap=SSD,
        limit_s=45,
    ),
)

SCENARIOS = {one.name: one for one in (*_LEAKS, *_CROWDS, *_DISKS, *_BENIGN)}
SMOKE = ("fast", "fast-noswap", "burst", "tabs", "stubborn")
"""What every change has to pass: the guard acts, spares, and keeps still."""


def find(name: str) -> Scenario:
    """Return the scenario of that name.

    Raises:
        PlanError: there is none.
    """
    if name not in SCENARIOS:
        raise PlanError(f"no scenario {name!r}; there are: {', '.join(SCENARIOS)}")
    return SCENARIOS[name]
