"""Kills by userspace agents, told apart from each other and from the kernel's."""

from __future__ import annotations

import pytest

from forestall.forensics import parse
from tests.fakes.oom_reports import log

JOURNAL = "Aug 04 23:41:26 qaa "
CASES = [
    ('earlyoom[1308]: sending SIGTERM to process 57 uid 1000 "code": badness 866, VmRSS 5 MiB',
     "earlyoom", 57, "code"),
    ('earlyoom[1]: sending SIGKILL to process 57 uid 1000 "Web Content": oom_score 823, VmRSS 79'
     ' MiB, cmdline "/usr/lib/firefox -x"', "earlyoom", 57, "Web Content"),
    ('earlyoom[1]: sending SIGTERM to process 57 uid 0 "a": oom_score 9, oom_score_adj 0, VmRSS 1'
     ' MiB, cmdline "a"', "earlyoom", 57, "a"),
    ('earlyoom[1]: killing process 57 "bash" with signal 15: badness 550, VmRSS 7609 MiB',
     "earlyoom", 57, "bash"),
    ("earlyoom[1]: Killing process 'bash' with signal 15, pid: 57, badness: 538, VmRSS: 3160 MiB",
     "earlyoom", 57, "bash"),
    ("systemd-oomd[840]: Killed /user.slice/app.scope due to memory pressure for /user.slice being"
     " 51.07% > 50.00% for > 20s with reclaim activity", "systemd-oomd", None, None),
    ("systemd-oomd[840]: Killed /system.slice/httpd.service due to memory used (3230) / total"
     " (3304) and swap used (1) / total (1) being more than 90.00%", "systemd-oomd", None, None),
    ("systemd-oomd[659]: Marked /system.slice/a.service for killing due to memory pressure for"
     " /system.slice being 85.03% > 80.00% for > 2s", "systemd-oomd", None, None),
    ("oomd[14628]: oomd kill: 7.08 2.07 0.46 system.slice/foo.service 123456 ruleset:[a b]"
     " detectorgroup:[c] killer:kill_by_memory_size_or_growth v2", "oomd", None, None),
    ('kubelet[900]: I0101 10:00:00.0 1 eviction_manager.go:400] "Eviction manager: pods evicted,'
     ' waiting for pod to be cleaned up" pods=["ns/pod-1"]', "kubelet", None, None),
    ("kubelet[900]: I0101 10:00:00.0 1 eviction_manager.go:400] eviction manager: pods pod-1_ns(u)"
     " evicted, waiting for pod to be cleaned up", "kubelet", None, None),
    ("earlyoom[1]: Killing process 57 firefox", "earlyoom", 57, "firefox"),
    ("kernel: lowmemorykiller: Killing 'd.play.games.ui' (57), adj 1000,", "lowmemorykiller", 57,
     "d.play.games.ui"),
    ("lmkd[9]: Kill 'com.app' (57), uid 10123, oom_score_adj 900 to free 45678kB rss", "lmkd", 57,
     "com.app"),
    ("forestall[77]: sent SIGKILL to 57 (leaker)", "forestall", 57, "leaker"),
    ("forestall: ended: sent SIGTERM to 57 ((sd-pam)) and 3 more", "forestall", 57, "(sd-pam)"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "agent", "pid", "comm"), CASES)
def test_an_agents_kill_is_an_incident_that_names_the_agent(line, agent, pid, comm):
    bystander = JOURNAL + "cron[5]: (root) CMD (true)"

    [incident] = parse([log([bystander, JOURNAL + line, bystander])])

    assert (incident.kind, incident.agent) == ("userspace-oom", agent)
    victim = incident.victim
    assert (victim.pid if victim else None, victim.comm if victim else None) == (pid, comm)
    assert incident.time == "Aug 04 23:41:26"


def test_talos_writes_into_the_kernels_buffer_and_only_the_facility_tells():
    line = (
        "user: warning: [2026-01-12T20:27:31.913975631Z]: [talos] Sending SIGKILL to cgroup"
        ' {"component": "c", "cgroup": "/sys/fs/cgroup/kubepods/burstable/pod77"}'
    )

    [incident] = parse([log([line])])

    assert incident.agent == "talos"
    assert incident.cgroup == "/sys/fs/cgroup/kubepods/burstable/pod77"
    assert incident.victims == ()


def test_nohang_spreads_a_kill_over_lines():
    lines = [
        "nohang[530]: TOP printed in 1ms; process with highest badness:",
        "nohang[530]:   PID: 903309, name: mysqld, badness: 849",
        "nohang[530]: Implement a corrective action:",
        "nohang[530]:   Send SIGTERM to the victim; total response time: 13246 ms",
        "nohang[530]:   Send SIGKILL to the victim; total response time: 15246 ms",
    ]

    [incident] = parse([log(lines, JOURNAL)])

    assert incident.agent == "nohang"
    assert incident.victim is not None
    assert (incident.victim.pid, incident.victim.comm) == (903309, "mysqld")
    assert incident.victim.badness == 849


def test_nohang_may_run_a_command_in_place_of_a_signal():
    lines = [
        "nohang[530]:   PID: 12297, Name: tail, badness: 727",
        "nohang[530]:   Run the command: kill -TERM 12297",
        "cron[5]: Run the command: true",
    ]

    [incident] = parse([log(lines, JOURNAL)])

    assert (incident.agent, incident.victims[0].pid) == ("nohang", 12297)
    assert parse([log(["nohang[530]: Send SIGTERM to the victim"], JOURNAL)]) == []


def test_systemds_echo_of_oomds_kill_counts_once_and_alone_it_counts():
    kill = (
        "systemd-oomd[840]: Killed /user.slice/vte.scope due to memory pressure for /user.slice"
        " being 51.07% > 50.00% for > 20s with reclaim activity"
    )
    echo = "systemd[1837]: vte.scope: systemd-oomd killed 12 process(es) in this unit."

    both = parse([log([kill, echo], JOURNAL)])
    alone = parse([log([echo], JOURNAL)])

    assert len(both) == len(alone) == 1
    assert alone[0].unit == "vte.scope"


def test_an_agent_that_repeats_itself_counts_once():
    line = 'earlyoom[1]: sending SIGTERM to process 696 uid 1 "ipfs": badness 7, VmRSS 637 MiB'

    incidents = parse([log([line, "earlyoom[1]: kill failed: Timer expired", line], JOURNAL)])

    assert len(incidents) == 1


def test_kubelet_evicts_for_other_reasons_than_memory():
    reclaim = 'kubelet[9]: "Eviction manager: must evict pod(s) to reclaim" resourceName="{}"'
    evicted = (
        'kubelet[9]: "Eviction manager: pods evicted, waiting for pod to be cleaned up"'
        ' pods=["ns/pod-1"]'
    )

    memory = parse([log([reclaim.format("memory"), evicted], JOURNAL)])
    disk = parse([log([reclaim.format("ephemeral-storage"), evicted], JOURNAL)])

    assert [i.unit for i in memory] == ["ns/pod-1"]
    assert disk == []


def test_two_killers_may_claim_one_death_and_it_counts_once():
    claim = 'earlyoom[1]: killing process 31 "bash" with signal 15: badness 550, VmRSS 7609 MiB'
    kill = "kernel: Out of memory: Killed process 31 (bash) total-vm:12kB, anon-rss:8kB"
    other = "kernel: Out of memory: Killed process 32 (sh) total-vm:12kB, anon-rss:8kB"

    incidents = parse([log([claim, kill, other], JOURNAL)])

    assert [(i.agent, i.counts) for i in incidents] == [
        ("earlyoom", False),
        (None, True),
        (None, True),
    ]
    assert [i.also_by for i in incidents] == ["kernel", "earlyoom", None]


def test_kubelets_report_of_a_kernel_kill_is_not_a_kill():
    line = "kubelet[9]: I0101 oom_watcher: System OOM encountered, victim process: java, pid: 31"

    assert parse([log([line], JOURNAL)]) == []
