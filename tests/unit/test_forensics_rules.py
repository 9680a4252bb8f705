"""Every rule fires on the report it is made for, with evidence, and not on its bystander."""

from __future__ import annotations

from dataclasses import replace

import pytest

from forestall.forensics import Incident, Victim, parse
from forestall.forensics.badness import ranking
from forestall.forensics.causes import Cause, Family, Finding
from forestall.forensics.model import Slab, Zone
from forestall.forensics.rules import findings
from forestall.forensics.story import headline, tell
from forestall.forensics.vmstat import oom_kill_counter, reconcile
from tests.fakes.oom_reports import FAMILIES, Made, Process, log

LATE = FAMILIES["6.12.0-talos"]
UP = "[  500.000001] "


def read(made: Made) -> Incident:
    [incident] = parse([log(made.lines(), UP)])
    return incident


def quiet() -> Incident:
    """A report about which no rule has anything to say."""
    incident = read(Made(family=LATE))
    return replace(
        incident, tasks=(), swap_total_kb=None, victims=(), zones=(), vm_pages={}, slabs=()
    )


def rule(name: str, incident: Incident, *log_of: Incident) -> Finding | None:
    found = findings(incident, log_of or (incident,))
    return next((one for one in found if one.rule == name), None)


def test_the_seeds_four_families_have_three_causes_each():
    families = [cause.family for cause in Cause]

    assert {family: families.count(family) for family in Family} == dict.fromkeys(Family, 3)


def test_nothing_is_found_where_the_log_says_nothing():
    assert findings(quiet()) == ()


ROWS = [
    ("limit-too-small", {"kind": "memcg", "memcg_usage_kb": 1000, "memcg_limit_kb": 1024}),
    ("slab", {"vm_pages": {"slab_unreclaimable": 300_000}, "slabs": (Slab(name="nfsd_drc",
     used_kb=9, total_kb=10),)}),
    ("tmpfs", {"vm_pages": {"shmem": 200_000}}),
    ("tmpfs", {"kind": "memcg", "memcg_limit_kb": 100, "memcg_stat_kb": {"shmem": 60}}),
    ("dirty-cache", {"vm_pages": {"dirty": 90_000, "writeback": 10_000}}),
    ("dirty-cache", {"kind": "memcg", "memcg_limit_kb": 100,
     "memcg_stat_kb": {"file_dirty": 30, "file_writeback": 20}}),
    ("fragmentation", {"order": 3, "zones": (Zone(node=0, name="Normal", free_kb=9000, min_kb=400,
     blocks=((4, 2000, "U"), (8, 100, "U"), (16, 10, "U"), (32, 0, "")), line=9),)}),
    ("lowmem", {"zones": (Zone(node=None, name="Normal", free_kb=3948, min_kb=7732, line=9),
     Zone(node=None, name="HighMem", free_kb=1049496, min_kb=512, high_kb=2984, line=10))}),
    ("one-node", {"kind": "mempolicy", "nodemask": "3"}),
    ("one-node", {"kind": "cpuset", "mems_allowed": "4", "cpuset": "box"}),
    ("cma", {"zones": (Zone(node=None, name="DMA", free_kb=519112, min_kb=10428,
     free_cma_kb=513592, line=9),)}),
    ("swap-full", {"swap_total_kb": 1000, "swap_free_kb": 0}),
    ("no-swap", {"swap_total_kb": 0, "swap_free_kb": 0}),
    ("no-shortage", {"gfp_mask": "0x0", "vm_pages": {"free": 400_000}}),
    ("crash-kernel", {"kind": "no-killable", "total_ram_kb": 262128, "ram_pages": 65532,
     "uptime_s": 4.3}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "changes"), ROWS)
def test_a_rule_fires_on_its_evidence_and_not_without(name, changes):
    incident = replace(quiet(), **changes)

    finding = rule(name, incident)

    assert finding is not None
    assert 0 < finding.confidence <= 1
    assert finding.advice
    assert finding.command
    assert isinstance(finding.cause.family, Family)
    assert rule(name, quiet()) is None


def big(pid: int, comm: str, **more: int) -> Process:
    return Process(pid=pid, comm=comm, total_vm=600_000, anon=400_000, **more)


@pytest.mark.parametrize(
    ("comm", "cause"),
    [
        ("leaker", Cause.APPLICATION),
        ("java", Cause.GARBAGE_COLLECTION),
        ("mysqld", Cause.BUFFERS),
    ],
)
def test_one_process_that_holds_most_is_named(comm, cause):
    hog = big(77, comm, swap=400_000)
    made = Made(family=LATE, processes=(Process(pid=5, comm="bystander"), hog), victim=hog)

    finding = rule("one-process", read(made))

    assert finding is not None
    assert finding.cause is cause
    assert finding.evidence
    assert "bystander" not in finding.sentence


@pytest.mark.parametrize(
    ("comm", "cause"), [("cc1plus", Cause.CONCURRENCY), ("httpd", Cause.TRAFFIC)]
)
def test_many_alike_are_seen_together(comm, cause):
    crowd = tuple(Process(pid=100 + n, comm=comm, anon=90_000, total_vm=99_000) for n in range(12))
    made = Made(family=LATE, processes=(*crowd, Process(pid=5, comm="sh")), victim=crowd[0])

    finding = rule("many-alike", read(made))

    assert finding is not None
    assert finding.cause is cause
    assert finding.sentence.startswith("12 processes")


def test_a_protected_leaker_is_named_and_its_victim_called_a_bystander():
    leaker = big(77, "leaker", adj=-1000)
    small = Process(pid=5, comm="bystander", anon=900)
    incident = read(Made(family=LATE, processes=(small, leaker), victim=small))

    protected = rule("protected-leaker", incident)
    bystander = rule("bystander", incident)

    assert protected is not None
    assert "leaker (77)" in protected.sentence
    assert bystander is not None
    assert "bystander" in bystander.sentence
    assert protected.confidence > 0.8


def test_all_processes_small_means_the_kernel_has_it():
    made = Made(family=LATE, processes=(Process(pid=5, comm="sh", anon=900, file=0),),
                victim=Process(pid=5, comm="sh", anon=900, file=0))  # fmt: skip
    incident = read(made)
    vm = {"active_anon": 900, "inactive_anon": 0, "active_file": 50, "inactive_file": 50,
          "free": 9_000, "slab_reclaimable": 90, "slab_unreclaimable": 90}  # fmt: skip

    finding = rule("kernel-leak", replace(incident, vm_pages=vm))

    assert finding is not None
    assert finding.cause is Cause.KERNEL_MEMORY


def test_a_restart_loop_needs_the_same_name_three_times():
    once = read(Made(family=LATE))
    again = [
        replace(once, uptime_s=500.0 + n, victims=(Victim(pid=n, comm="web"),)) for n in range(3)
    ]
    other = replace(once, victims=(Victim(pid=9, comm="bystander"),))

    assert rule("restart-loop", again[0], *again, other) is not None
    assert rule("restart-loop", other, *again, other) is None
    assert rule("restart-loop", again[0], *again[:2]) is None


def test_victims_that_shrink_point_away_from_processes():
    once = quiet()
    falling = [replace(once, victims=(Victim(pid=n, comm=f"p{n}", anon_rss_kb=kb),))
               for n, kb in enumerate((90_000, 9_000, 900))]  # fmt: skip

    assert rule("shrinking-victims", falling[-1], *falling) is not None
    assert rule("shrinking-victims", falling[-1], *falling[::-1]) is None


# -- the kernel's choice --------------------------------------------------------------------------


def test_the_ranking_is_the_kernels():
    leaker = Process(pid=77, comm="leaker", anon=50_000, file=0)
    asked = Process(pid=78, comm="asked-for", anon=10_000, file=0, adj=500)
    spared = Process(pid=79, comm="spared", anon=90_000, adj=-1000)
    init = Process(pid=1, comm="init", anon=99_000)
    made = Made(family=LATE, processes=(init, leaker, asked, spared), victim=asked)

    order = ranking(read(made))

    assert [one.task.comm for one in order] == ["asked-for", "leaker", "spared"]
    assert order[-1].points is None
    total = 524_158 - 14_958 + 2_097_148 // 4
    assert order[0].adjustment_pages == 500 * (total // 1000)


def test_root_had_three_per_cent_off_until_4_17():
    root = Process(pid=77, comm="root", uid=0, anon=50_000, file=0)
    user = Process(pid=78, comm="user", anon=50_000, file=0)
    old = Made(family=FAMILIES["4.8.0-generic"], processes=(root, user), victim=user)

    order = ranking(read(old))

    assert [one.task.comm for one in order] == ["user", "root"]
    assert (order[0].points or 0) * 97 // 100 == pytest.approx(order[1].points, abs=2)


# -- the story ------------------------------------------------------------------------------------


def test_the_story_says_who_asked_who_died_and_why_in_that_order():
    incident = read(Made(family=LATE))

    told = {part.heading: " ".join(part.lines) for part in tell(incident)}

    assert list(told) == [
        "What happened",
        "Who asked",
        "Who died",
        "Why it and not another",
        "The cause",
        "What to do",
    ]
    assert "tmux: server (1776) asked" in told["Who asked"]
    assert "leaker (4242)" in told["Who died"]
    assert "250020 resident + 5001 swapped" in told["Why it and not another"]
    assert "sshd" not in told["Who died"]


@pytest.mark.parametrize("name", ["\x1b[2J\x1b[31m", "a\nb", "\u202eevil", "[bold]x", "\x9b1m"])
def test_a_hostile_name_is_shown_and_not_obeyed(name):
    incident = replace(
        read(Made(family=LATE)), victims=(Victim(pid=4, comm=name),), task_memcg=f"/{name}"
    )

    lines = [headline(incident), *(line for part in tell(incident) for line in part.lines)]

    assert all(line.isprintable() for line in lines)
    assert not any("\x1b" in line for line in lines)


# -- the counter ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counter", "hidden", "words"),
    [
        (3, None, "2 kills were not logged"),
        (2, None, "1 kill was not logged"),
        (9, 70, "announced as suppressed"),
        (1, None, "the log shows all of them"),
        (0, None, "further than this boot"),
        (None, None, "does not count"),
    ],
)
def test_the_counter_is_compared_with_the_log(counter, hidden, words):
    incident = replace(read(Made(family=LATE)), hidden_kills=hidden)
    agents = replace(incident, agent="earlyoom", kind="userspace-oom")

    assert words in reconcile(counter, [incident, agents]).sentence


def test_the_counter_is_read_out_of_vmstat():
    assert oom_kill_counter(b"nr_free_pages 5\noom_kill 7\ndrop_pagecache 0\n") == 7
    assert oom_kill_counter(b"nr_free_pages 5\noom_killed 7\n") is None
    assert oom_kill_counter(b"") is None
