"""More scenarios of the same kinds: other sizes, rates, disks and owners.

They keep a guard honest that was tuned on the table of :mod:`arena.scenarios`.
``run`` knows them by name, ``others`` runs them all; docs/arena.md does not count them.
"""

from __future__ import annotations

from dataclasses import replace

from arena.cast import TAB, WORKER
from arena.scenario import SERVICE_GROUP, Actor, Scenario, Swap
from arena.scenarios import DESKTOP, MAIL, SCENARIOS, SERVICE, SSHD, case, culprit

_CONTAINER = (
    "system.slice/docker-4f0e1c7a9b2d4f0e1c7a9b2d4f0e1c7a9b2d4f0e1c7a9b2d4f0e1c7a9b2d4f0e.scope"
)


def _like(other: str, name: str, title: str, **more: object) -> Scenario:
    return replace(SCENARIOS[other], name=name, title=title, **more)  # type: ignore[arg-type]


def _pool(children: int, child_mem: int, rate: int) -> tuple[Actor, ...]:
    words = f"children={children} child_mem=~{child_mem} rate=~{rate}"
    return (culprit(f"pool {words} exe={WORKER.exe} arguments={WORKER.arguments}"),)


def _leaking(uid: int, group: str) -> tuple[Actor, ...]:
    return (
        Actor(
            role="culprit",
            cast="batch",
            script="leak rate=~50",
            uid=uid,
            group=group,
            when="trouble",
        ),
    )


def _holding(mem: int) -> Actor:
    return Actor(
        role="database",
        cast="database",
        script=f"app mem=~{mem}",
        uid=910,
        group=SERVICE_GROUP,
    )


def _working(count: int, script: str) -> tuple[Actor, ...]:
    return tuple(
        Actor(role=f"worker{number}", cast="batch", script=script, when="trouble")
        for number in range(1, count + 1)
    )


_LEAKS = (
    _like(
        "fast",
        "fast-2g",
        "a leak at full speed beside a browser of 500 MiB, 2 GiB, much swap",
        memory_mib=2048,
        swap=Swap(mib=1024),
        landscape=(*DESKTOP[:-1], Actor(role="browser", cast="browser", script="app mem=~500")),
    ),
    _like(
        "fast",
        "fast-700m",
        "a leak at full speed on a small server",
        memory_mib=700,
        swap=Swap(mib=128),
        landscape=(SERVICE, SSHD, MAIL),
    ),
    case("leak-20", "a leak of 20 MiB/s, 800 MiB, no swap", "leak rate=~20", memory_mib=800),
    case(
        "leak-hdd",
        "a leak of 300 MiB/s into swap on a slow disk",
        "leak rate=~300",
        swap=Swap(mib=512, disk="hdd"),
        root_disk="hdd",
        recover_s=8,
        after_s=12,
    ),
    case(
        "service",
        "a system service leaks",
        "",
        trouble=_leaking(910, SERVICE_GROUP),
        swap=Swap(mib=128),
    ),
    case(
        "burners",
        "a leak at full speed beside eight programs that only compute, on two processors, no swap",
        "",
        trouble=(
            *_working(8, "work mem=2 churn=1 seconds=25"),
            culprit("leak rate=0", delay_s=5),
        ),
        recover_s=30,
    ),
    case("container", "a container leaks", "", trouble=_leaking(0, _CONTAINER), swap=Swap(mib=128)),
    _like(
        "two",
        "two-noswap",
        "two programs leak at once, one six times as fast, no swap",
        trouble=(
            culprit("leak rate=~120"),
            culprit("leak rate=~20", role="accomplice", delay_s=2),
        ),
        must_die=("culprit",),
        may_die=("accomplice",),
        swap=None,
    ),
    _like(
        "zram",
        "zram-1g",
        "a leak of what does not compress, zram as large as memory",
        swap=Swap(kind="zram", mib=1024),
    ),
)

_CROWDS = (
    _like(
        "storm",
        "storm-small",
        "a fork storm: 40 children of 3 MiB a second, no swap",
        trouble=(culprit("storm child_mem=~3 per_s=40"),),
        swap=None,
    ),
    _like(
        "storm",
        "storm-large",
        "a fork storm: 8 children of 30 MiB a second",
        trouble=(culprit("storm child_mem=~30 per_s=8"),),
        swap=Swap(mib=256),
    ),
    _like("leaves", "leaves-6", "6 large workers, no swap", trouble=_pool(6, 120, 20), swap=None),
    _like("leaves", "leaves-30", "30 small workers", trouble=_pool(30, 25, 4), swap=Swap(mib=128)),
    _like(
        "tabs",
        "tabs-0",
        "ten processes of a browser, all at 0, one of which leaks slowly, no swap",
        landscape=(
            *(SERVICE, SSHD, MAIL),
            Actor(
                role="browser",
                cast="browser",
                script=f"tree mem=~120 children=9 child_mem=~18 adj=0 leaky=5 rate=~30 role=tab "
                f"leaky_role=culprit exe={TAB.exe} arguments={TAB.arguments}",
            ),
        ),
        swap=None,
        limit_s=50,
    ),
    _like(
        "database",
        "database-slow",
        "a larger still database beside a slower script, some swap",
        landscape=(SERVICE, SSHD, _holding(520)),
        trouble=(culprit("leak rate=~15"),),
        swap=Swap(mib=96),
        limit_s=60,
    ),
    _like(
        "busy",
        "crowded",
        "six workers that together want more than there is, no swap: one or two of them go",
        trouble=_working(6, "work mem=60 churn=40 seconds=12"),
        may_die=tuple(f"worker{number}" for number in range(1, 7)),
        must_finish=(),
        max_deaths=3,
        calm_by_s=20,
    ),
)

_DISKS = (
    _like("tmpfs", "tmpfs-noswap", "a small process fills a tmpfs, no swap", swap=None),
    _like(
        "thrash",
        "thrash-800m",
        "a working set larger than memory, on a slow disk, 800 MiB",
        memory_mib=800,
        landscape=(SERVICE, SSHD, MAIL),
        swap=Swap(mib=2048, disk="hdd"),
    ),
    _like(
        "thrash",
        "thrash-emmc",
        "a working set larger than memory, on a card",
        swap=Swap(mib=1024, disk="emmc"),
        root_disk="emmc",
    ),
)

_BENIGN = (
    _like(
        "burst",
        "burst-94",
        "four longer bursts to 94 % of what is available, without swap",
        trouble=(culprit("burst share=94 hold_ms=3000 times=4"),),
        limit_s=60,
    ),
    _like(
        "copy", "copy-hdd", "a file of 400 MiB is copied, slow disk", root_disk="hdd", limit_s=90
    ),
    case(
        "readers",
        "four processes read a file by calls, a database holds the rest, no swap: nobody goes",
        "",
        landscape=(SERVICE, SSHD, MAIL, _holding(730)),
        trouble=(
            Actor(
                role="culprit",
                cast="batch",
                script="cache available=9999 readers=4",
                uid=911,
                group=SERVICE_GROUP,
                when="trouble",
            ),
        ),
        must_die=(),
        limit_s=20,
    ),
)

VARIANTS = {one.name: one for one in (*_LEAKS, *_CROWDS, *_DISKS, *_BENIGN)}
